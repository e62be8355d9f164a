"""OCI-SIF files of layers that tests make, squashed by tar2sqfs rather than by our own code."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from backend.sif.ocisifwriter import OciSifWriter
from backend.sif.provenance import Source, convert_documents
from tests.support.images import Entry, image, layer

if TYPE_CHECKING:
    from pathlib import Path

OPAQUE = {"SCHILY.xattr.trusted.overlay.opaque": "y"}


def whiteout(name: str) -> Entry:
    """Return the character device 0:0 that hides a name below."""
    return Entry(name=name, kind=b"3", device=(0, 0), mode=0)


def squash(folder: Path, *entries: Entry, compressor: str = "zstd") -> bytes:
    """Return a squashfs of the entries."""
    if shutil.which("tar2sqfs") is None:
        pytest.skip("no tar2sqfs")
    target = folder / "layer.sqfs"
    argv = ["tar2sqfs", "-q", "-f", "-c", compressor, str(target)]
    subprocess.run(argv, input=layer(*entries), check=True, stderr=subprocess.DEVNULL)
    data = target.read_bytes()
    target.unlink()
    return data


def write_sif(target: Path, *layers: list[Entry], config: dict[str, Any] | None = None) -> Path:
    """Write an OCI-SIF of these layers, base first, and return its path."""
    made = image([layer() for _ in layers], config=config, compress="")
    source = Source(
        raw_manifest=made.manifest,
        raw_config=made.blobs[json.loads(made.manifest)["config"]["digest"]],
    )
    with OciSifWriter(target, layer_count=len(layers), overwrite=True) as writer:
        for entries in layers:
            with writer.layer() as out:
                out.write(squash(target.parent, *entries))
        writer.finish(lambda stored: convert_documents(source, stored))
    return target
