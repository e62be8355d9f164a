"""Layers that are packed: whole ones, cut ones, and ones that are packed in another way."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
from typing import TYPE_CHECKING

import pytest
import zstandard

from backend.errors import FormatError
from backend.layers.squash import squash_layers
from tests.support.images import Entry, layer
from tests.support.squashing import source

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("pack", ["gzip", "zstd", "frames", "content size"])
def test_a_layer_that_ends_early_is_told_from_other_damage(pack: str) -> None:
    zeros, noise = bytes(300_000), os.urandom(400_000)
    data = layer(Entry(name="zeros", data=zeros), Entry(name="noise", data=noise))
    packer = zstandard.ZstdCompressor(write_checksum=True)
    skipped = b"\x50\x2a\x4d\x18\x03\0\0\0abc"  # what some programs put between frames
    streamed = packer.compressobj()
    packed = {
        "gzip": gzip.compress(data),
        "zstd": streamed.compress(data) + streamed.flush(),
        "frames": skipped + packer.compress(data[:1000]) + skipped + packer.compress(data[1000:]),
        "content size": packer.compress(data),
    }[pack]
    squash_layers([source(packed)], io.BytesIO())
    for cut in (1, 3, 5, 100_000, 399_000):
        with pytest.raises(FormatError, match=rf"ends early \(at byte {len(packed) - cut}\)"):
            squash_layers([source(packed[:-cut])], io.BytesIO())


@pytest.mark.parametrize(("pack", "name"), [(bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_a_compression_that_layers_do_not_have_is_named(
    pack: Callable[[bytes], bytes], name: str
) -> None:
    with pytest.raises(FormatError, match=f"layer 1 of 1 is packed with {name}") as caught:
        squash_layers([source(pack(layer(Entry(name="a"))))], io.BytesIO())
    assert "skopeo copy" in caught.value.hint
