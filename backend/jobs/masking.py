"""Secrets taken out of what a job's record keeps of its environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.masking import MASK, SECRET_NAME, mask_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_KEPT_PREFIXES = ("SIFDECK_", "SINGULARITY_", "APPTAINER_", "BUILDAH_", "DOCKER_")
_KEPT_NAMES = frozenset({"BUILDKIT_HOST", "CONTAINER_HOST", "SOURCE_DATE_EPOCH", "TMPDIR"})


def kept_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that change what a verb does, without their secrets."""
    return {
        name: MASK if SECRET_NAME.search(name) else mask_url(value)
        for name, value in sorted(environment.items())
        if name.startswith(_KEPT_PREFIXES) or name in _KEPT_NAMES or name.lower().endswith("_proxy")
    }


def is_masked(values: Iterable[str]) -> bool:
    """Tell whether something was taken out, so that the values cannot be used again."""
    return any(MASK in value for value in values)
