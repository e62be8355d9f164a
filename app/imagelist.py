"""A list of images as a file: for spreadsheets and scripts."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from typing import TYPE_CHECKING

from backend.catalog import Image
from backend.escape import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMES = [*(field.name for field in dataclasses.fields(Image)), "trust"]


def document(image: Image) -> dict[str, object]:
    """Return an image as JSON."""
    return dataclasses.asdict(image) | {"trust": image.trust}


def as_json(images: Sequence[Image]) -> str:
    """Return images as one JSON array."""
    return json.dumps([document(image) for image in images], indent=2)


def as_csv(images: Sequence[Image]) -> str:
    """Return images as RFC 4180 has it, the names of the columns first.

    What another program could take for a control character or a formula does not stay so:
    names come out of files that anybody may have made.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_NAMES)
    for image in images:
        fields = document(image)
        writer.writerow([_cell(fields[name]) for name in _NAMES])
    return out.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
