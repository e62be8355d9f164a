"""Squash layers of entries into a file and hand it to the judges."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from backend.layers.squash import LayerSource, squash_layers
from tests.support.images import Entry, layer

if TYPE_CHECKING:
    from pathlib import Path


def source(data: bytes, diff_id: Any = None) -> LayerSource:
    """Return a layer of packed bytes."""
    return LayerSource(
        media_type="", open=lambda: io.BytesIO(data), diff_id=diff_id, size=len(data)
    )


def squash_entries(target: Path, *layers: list[Entry], **options: Any) -> bytes:
    """Squash layers of entries, base first; return the file system."""
    return squash_bytes(target, *(layer(*entries) for entries in layers), **options)


def squash_bytes(target: Path, *layers: bytes, **options: Any) -> bytes:
    """Squash tar archives, packed or not, base first; return the file system."""
    with target.open("w+b") as out:
        squash_layers([source(data) for data in layers], out, **options)
    return target.read_bytes()
