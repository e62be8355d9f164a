"""A file to run, as far as running it needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.errors import FormatError
from backend.oci import media
from backend.sif.ocisif import read_ocisif

if TYPE_CHECKING:
    from pathlib import Path

    from backend.oci.digest import Digest
    from backend.oci.image import ImageConfig
    from backend.sif.ocisif import LayerPlace
    from backend.squashfs.reader import SquashfsReader

_MAX_ACCOUNTS = 1 << 20
"""Bytes of an image's passwd or group that are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnableImage:
    """An image file whose layers are squashfs.

    Attributes:
        path: Absolute.
        digest: Of the manifest.
        config: How to run it.
        layers: Base first.
    """

    path: Path
    digest: Digest
    config: ImageConfig
    layers: tuple[LayerPlace, ...]


def read_image(path: Path) -> RunnableImage:
    """Read an OCI-SIF file.

    Raises:
        NotFoundError: There is no such file.
        FormatError: It is none, or holds something that cannot be run.
    """
    image = read_ocisif(path)
    if image.is_data_container:
        raise FormatError(
            f"{path.name} holds data, nothing to run", hint=f"use it with --data {path.name}:/data"
        )
    layers = tuple(layer for layer in image.layers if not layer.is_overlay)
    if not layers:
        raise FormatError(f"{path.name} has no layer to run")
    for layer in layers:
        if layer.media_type != media.SQUASHFS_LAYER:
            raise FormatError(
                f"{path.name} has layers of type {layer.media_type}, which cannot be mounted",
                hint="pull the image again, or convert it: sifdeck convert",
            )
    return RunnableImage(
        path=path.absolute(), digest=image.manifest_digest, config=image.config, layers=layers
    )


def read_accounts(image: RunnableImage) -> tuple[bytes, bytes]:
    """Return the image's ``/etc/passwd`` and ``/etc/group``, empty where it has none.

    Raises:
        FormatError: A layer is damaged, or a file is too large.
    """
    from backend.squashfs.reader import SquashfsReader

    with image.path.open("rb") as file:
        readers = [SquashfsReader(file, offset=layer.offset) for layer in reversed(image.layers)]
        return _read(readers, "etc/passwd"), _read(readers, "etc/group")


def _read(readers: list[SquashfsReader], path: str) -> bytes:
    """Return a file of the topmost layer that has it."""
    from backend.squashfs.inode import Kind

    for reader in readers:
        node = reader.lookup(path)
        if node:
            is_file = node.kind is Kind.FILE  # else it is a whiteout
            return reader.read_bytes(node, limit=_MAX_ACCOUNTS) if is_file else b""
    return b""
