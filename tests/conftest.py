"""Keep the tests away from the developer's own files, logins and proxies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support.registry import locked_registry, registry

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["clean_home", "locked_registry", "registry"]  # fixtures for every test

# A busy machine is no failure, and what passes once passes again: the same examples each time.
settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("steady")

_FOREIGN = ("SIFDECK_", "SINGULARITY", "APPTAINER", "XDG_", "DOCKER_", "REGISTRY_", "CONTAINERS_")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "BUILDKIT_HOST", "TMUX")


@pytest.fixture(autouse=True)
def clean_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a home of its own and an environment without options of ours."""
    import os

    for name in list(os.environ):
        if name.startswith(_FOREIGN) or name.upper() in _PROXIES:
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TZ", "UTC")
    return home
