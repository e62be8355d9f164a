"""Squash layers of entries into a file and hand it to the judges."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from backend.layers.squash import LayerSource, SquashedLayer, squash_layers
from tests.support.images import Entry, layer

if TYPE_CHECKING:
    from pathlib import Path


def source(data: bytes, diff_id: Any = None) -> LayerSource:
    """Return a layer of packed bytes."""
    return LayerSource(
        media_type="", open=lambda: io.BytesIO(data), diff_id=diff_id, size=len(data)
    )


def squash_entries(target: Path, *layers: list[Entry], **options: Any) -> SquashedLayer:
    """Squash layers of entries, base first."""
    return squash_bytes(target, *(layer(*entries) for entries in layers), **options)


def squash_bytes(target: Path, *layers: bytes, **options: Any) -> SquashedLayer:
    """Squash tar archives, packed or not, base first."""
    with target.open("w+b") as out:
        return squash_layers([source(data) for data in layers], out, **options)
