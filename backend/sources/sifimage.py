"""A SIF file as a source: its file systems as they are, or as the tar layers they stand for."""

from __future__ import annotations

import contextlib
import functools
import io
from dataclasses import replace
from typing import TYPE_CHECKING

from backend.assembly import Assembly
from backend.errors import FormatError, UsageError
from backend.escape import one_line
from backend.layers.export import GeneratedFile, tar_chunks
from backend.oci import media
from backend.oci.digest import digest_of
from backend.oci.image import Descriptor, Manifest
from backend.oci.json import dump
from backend.sif.contents import ImageTree
from backend.sif.inspection import inspect_file
from backend.sif.ocisif import read_ocisif
from backend.sif.provenance import SOURCE_DIGEST, SOURCE_REFERENCE, Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from backend.sif.inspection import Inspection
    from backend.squashfs.reader import SquashfsReader

_ANY = digest_of(b"")
"""The digest of a layer that is made while it is read."""


@contextlib.contextmanager
def opened_sif(path: Path, *, as_tar: bool) -> Iterator[Assembly]:
    """Give the image in a SIF file.

    Args:
        path: An OCI-SIF or a native SIF.
        as_tar: Give the layers as tar archives, which are made while they are read; otherwise
            as the file systems that are in the file.

    Raises:
        NotFoundError: There is no such file.
        FormatError: It is no image.
        UsageError: It holds a writable overlay or is a data container.
    """
    found = inspect_file(path)
    if found.kind == "data":
        raise UsageError(f"{one_line(str(path))} is a data container, no image")
    made = _native_source(found) if found.kind == "sif" else _oci_source(path)
    local = ("localimage", digest_of(made.raw_manifest))
    source = replace(made, local=local, is_converted=True)
    with ImageTree(path) as tree:
        if tree.has_overlay:
            raise UsageError(
                f"{one_line(str(path))} holds a writable overlay",
                hint=f"seal it first: sifdeck overlay seal {one_line(str(path))}",
            )
        stored = [layer for layer in found.layers if layer.filesystem == "squashfs"]
        if len(stored) != len(tree.layers):
            raise FormatError(f"{one_line(str(path))} holds file systems that are no squashfs")
        kept = len(tree.layers) > 1
        yield Assembly(
            source=source,
            layers=tuple(
                Descriptor(
                    media_type=media.OCI_LAYER if as_tar else media.SQUASHFS_LAYER,
                    digest=_ANY,
                    size=layer.size,
                )
                for layer in stored
            ),
            open_layer=functools.partial(_open_tar, tree, kept)
            if as_tar
            else lambda index: _Stretch(path, stored[index].offset, stored[index].size),
            has_diff_ids=False,
        )


def _oci_source(path: Path) -> Source:
    image = read_ocisif(path)
    return Source(
        raw_manifest=image.raw_manifest,
        raw_config=image.raw_config,
        media_type=image.manifest.media_type,
    )


def _native_source(found: Inspection) -> Source:
    """Return documents for a native SIF, which has none but the ``config`` object."""
    config = dump(
        {
            "created": found.config.created,
            "architecture": found.config.platform.architecture,
            "os": "linux",
            "config": dict(found.raw_config),
            "rootfs": {"type": "layers", "diff_ids": [_ANY for _ in found.layers]},
        }
    )
    described = Descriptor(media_type=media.OCI_CONFIG, digest=digest_of(config), size=len(config))
    layer = Descriptor(media_type=media.OCI_LAYER, digest=_ANY, size=0)
    origin = found.provenance
    known = {SOURCE_REFERENCE: origin.reference, SOURCE_DIGEST: origin.digest}
    manifest = Manifest(
        media_type=media.OCI_MANIFEST,
        config=described,
        layers=(layer,) * len(found.layers),
        annotations=known if origin.digest and "://" in origin.reference else {},
    )
    return Source(raw_manifest=dump(manifest.to_json()), raw_config=config)


def _open_tar(tree: ImageTree, kept: bool, index: int) -> BinaryIO:
    reader: SquashfsReader = tree.layers[index]
    return io.BufferedReader(GeneratedFile(tar_chunks(reader, is_layer=kept)), 1 << 20)


class _Stretch(io.FileIO):
    """Part of a file, read as if it were all."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        super().__init__(path)
        self.seek(offset)
        self._end = offset + size

    def read(self, size: int | None = -1, /) -> bytes:
        left = self._end - self.tell()
        return super().read(left if size is None or size < 0 else min(size, left)) or b""
