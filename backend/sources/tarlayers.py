"""The image of an OCI-SIF with its layers as tar again, which Docker and Podman can run.

Layers and configuration change, and so does the digest; the history and everything else that
the configuration says stay.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING, Any, Literal, Protocol

import zstandard
from isal import isal_zlib

from backend.errors import FormatError
from backend.events import Phase
from backend.layers.export import tar_chunks
from backend.oci import media
from backend.oci.digest import Digest, digest_of
from backend.oci.image import Descriptor, Manifest
from backend.oci.json import dump, load
from backend.oci.source import RawManifest
from backend.sif.ocisif import read_ocisif
from backend.sif.provenance import of_archives
from backend.sources.stored import StoredImage
from backend.sources.tree import Region
from backend.space import Need, check_space
from backend.squashfs.reader import SquashfsReader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from backend.events import Report
    from backend.sif.ocisif import LayerPlace, OciSif

TarFormat = Literal["tar+gzip", "tar+zstd"]

_GZIP_LEVEL = 3
"""The highest of isal, ten times as quick as zlib's 6 and nearly as small."""
_ZSTD_LEVEL = 3
_LEAST = 0.8
"""What packed archives have of a squashfs's bytes, at the least as a rule."""


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def convert_to_tar(path: Path, scratch: Path, form: TarFormat, report: Report) -> StoredImage:
    """Return the image of an OCI-SIF with tar layers.

    Args:
        path: The OCI-SIF.
        scratch: Folder for the layers, which must outlive the result.
        form: How the layers are packed.
        report: Gets the progress.

    Raises:
        FormatError: A layer is no squashfs, or the image has a writable overlay.
        SpaceError: There is no room in ``scratch``.
    """
    image = read_ocisif(path)
    if any(layer.media_type != media.SQUASHFS_LAYER for layer in image.layers):
        raise FormatError(f"{path} has layers that are no squashfs", hint="seal its overlay first")
    least = int(sum(layer.size for layer in image.layers) * _LEAST)
    check_space([Need(folder=scratch, size=least, purpose="the layers as archives")])
    regions: dict[Digest, Region] = {}
    descriptors, diff_ids = [], []
    for number, layer in enumerate(image.layers):
        report(Phase(name="convert", done=number, total=len(image.layers), unit="files"))
        packed = scratch / f"layer{number}"
        diff_id, digest = _convert_layer(image, layer, packed, form)
        size = packed.stat().st_size
        regions[digest] = Region(path=packed, offset=0, size=size)
        kind = f"{media.OCI_LAYER}+{form.removeprefix('tar+')}"
        descriptors.append(Descriptor(media_type=kind, digest=digest, size=size))
        diff_ids.append(diff_id)
    report(Phase(name="convert", state="done"))
    config = _config(image, diff_ids)
    manifest = Manifest(
        media_type=media.OCI_MANIFEST,
        config=Descriptor(media_type=media.OCI_CONFIG, digest=digest_of(config), size=len(config)),
        layers=tuple(descriptors),
        annotations=of_archives(image.manifest.annotations),
    )
    data = dump(manifest.to_json())
    raw = RawManifest(data=data, media_type=media.OCI_MANIFEST, digest=digest_of(data))
    return StoredImage(raw, regions, {manifest.config.digest: config})


def _convert_layer(
    image: OciSif, layer: LayerPlace, packed: Path, form: TarFormat
) -> tuple[Digest, Digest]:
    """Write one layer as packed tar; return the digests of the tar and of the packed file."""
    inside, outside = hashlib.sha256(), hashlib.sha256()
    compressor = _COMPRESSORS[form]()
    with image.path.open("rb") as file, packed.open("wb") as out:

        def write(data: bytes) -> None:
            outside.update(data)
            out.write(data)

        reader = SquashfsReader(file, offset=layer.offset)
        # In a single layer a device 0:0 is a device, as there is nothing that it could hide.
        for chunk in tar_chunks(reader, is_layer=len(image.layers) > 1):
            inside.update(chunk)
            write(compressor.compress(chunk))
        write(compressor.flush())
    return Digest(f"sha256:{inside.hexdigest()}"), Digest(f"sha256:{outside.hexdigest()}")


def _config(image: OciSif, diff_ids: list[Digest]) -> bytes:
    """Return the configuration with other layers; what it holds besides stays."""
    document: dict[str, Any] = load(image.raw_config, "the image configuration").object()
    return dump(document | {"rootfs": {"type": "layers", "diff_ids": diff_ids}})


def _gzip() -> _Compressor:
    compressor: _Compressor = isal_zlib.compressobj(_GZIP_LEVEL, wbits=zlib.MAX_WBITS | 16)
    return compressor


def _zstd() -> _Compressor:
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL, threads=-1).compressobj()


_COMPRESSORS: dict[TarFormat, Callable[[], _Compressor]] = {"tar+gzip": _gzip, "tar+zstd": _zstd}
