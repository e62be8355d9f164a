"""The error of a reference that several images answer to."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from backend.errors import SeveralImagesError
from backend.escape import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backend.reference import Reference

_LISTED = 20
"""Images that an error names."""


def several_images(
    reference: Reference, choices: Mapping[Reference, str], *, why: str
) -> SeveralImagesError:
    """Return the error that says what to type for each of the images.

    Args:
        reference: What was asked for.
        choices: What names one image each, and what there is to say of it.
        why: A sentence on what there is.
    """
    named = [shlex.quote(one_line(str(one), limit=300)) for one in choices][:_LISTED]
    more = f", and {len(choices) - _LISTED} more" if len(choices) > _LISTED else ""
    return SeveralImagesError(
        f"{one_line(str(reference), limit=300)} holds {len(choices)} images",
        why=why,
        hint=f"name one of them: {', '.join(named)}{more}",
        choices={str(one): one_line(about, limit=120) for one, about in choices.items()},
    )
