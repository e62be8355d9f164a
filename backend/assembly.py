"""An image's documents and layers become one OCI-SIF: where every way in ends.

A pull, a build and a conversion differ in where the layers are and when they are complete;
each says so with an :class:`Assembly`, and the same path writes the file.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from backend.copying import copy_range
from backend.errors import FormatError, UsageError
from backend.events import Phase
from backend.layers.keep import LayerKeeper
from backend.layers.squash import LayerSource, squash_layers
from backend.oci import media
from backend.oci.image import parse_config, parse_manifest
from backend.sif.native import write_native
from backend.sif.ocisifwriter import OciSifWriter
from backend.sif.provenance import Source, convert_documents
from backend.space import LEAST_OF_FILES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from backend import events
    from backend.oci.image import Descriptor, ImageConfig
    from backend.sif.ocisifwriter import WrittenImage
    from backend.squashfs.compression import Compression


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """An image that is to be written.

    Attributes:
        source: Its documents, and the reference that is recorded.
        layers: As its manifest lists them, base first.
        open_layer: Opens a layer by its position, as packed; may wait until it is complete.
        has_diff_ids: The configuration's diffIDs are those of the layers as they are opened.
    """

    source: Source
    layers: Sequence[Descriptor]
    open_layer: Callable[[int], BinaryIO]
    has_diff_ids: bool = True


def assembly_of(source: Source, open_layer: Callable[[int], BinaryIO]) -> Assembly:
    """Return the assembly of an image whose documents are ``source``.

    Raises:
        FormatError: The manifest is none.
    """
    manifest = parse_manifest(source.raw_manifest, source.media_type)
    return Assembly(source=source, layers=manifest.layers, open_layer=open_layer)


_PLAIN = frozenset({media.OCI_LAYER, media.DOCKER_LAYER})
_LEAST_OF_PACKED = 0.8
"""What an image has of the bytes of packed layers, at the least as a rule."""


def least_packed(layers: Iterable[Descriptor]) -> int:
    """Return how many bytes an image that is made of layers has, at the least as a rule."""
    different = {layer.digest: layer for layer in layers}.values()
    return sum(
        int(layer.size * (LEAST_OF_FILES if layer.media_type in _PLAIN else _LEAST_OF_PACKED))
        for layer in different
    )


def write_image(
    image: Assembly,
    target: Path,
    *,
    compression: Compression,
    overwrite: bool,
    report: events.Report,
    keep_layers: bool = False,
) -> WrittenImage:
    """Write ``image`` as an OCI-SIF.

    Layers that are squashfs already are stored as they are, and the image's digest stays what
    it was; others are squashed into one, or each becomes a squashfs of its own.

    Args:
        image: What to write.
        target: The file.
        compression: Of the squashfs blocks.
        overwrite: Whether a file that is there may be replaced.
        report: Gets the events of the phase ``convert``.
        keep_layers: Squash none.

    Raises:
        ExistsError: The target exists and may not be replaced.
        FormatError: The image breaks its specification.
        VerificationError: A layer is not what its diffID says.
        SpaceError: The file system is full.
    """
    is_stored = bool(image.layers) and all(
        layer.media_type == media.SQUASHFS_LAYER for layer in image.layers
    )
    count = len(image.layers) if is_stored or keep_layers else 1
    with OciSifWriter(target, layer_count=count, overwrite=overwrite) as writer:
        if is_stored:
            _store_as_is(image, writer)
        elif keep_layers:
            _keep(image, writer, compression, report)
        else:
            _squash(image, writer, compression, report)
        return writer.finish(
            functools.partial(convert_documents, image.source, compression=str(compression))
        )


def write_native_image(
    image: Assembly,
    target: Path,
    *,
    compression: Compression,
    overwrite: bool,
    report: events.Report,
) -> WrittenImage:
    """Write ``image`` as a native SIF, which SingularityCE and Apptainer run as well.

    Args and errors are those of :func:`write_image`; the layers must be tar archives.
    """
    if any(layer.media_type == media.SQUASHFS_LAYER for layer in image.layers):
        raise UsageError("the image's layers are squashfs; a native SIF is made of tar layers")
    config = parse_config(image.source.raw_config)
    return write_native(
        image.source,
        layer_sources(image, config),
        target,
        compression=compression,
        overwrite=overwrite,
        created=_seconds(config.created),
        report=report,
    )


def _squash(
    image: Assembly, writer: OciSifWriter, compression: Compression, report: events.Report
) -> None:
    config = parse_config(image.source.raw_config)
    sources = layer_sources(image, config)
    created = _seconds(config.created)
    with writer.layer() as out:
        squash_layers(sources, out, compression=compression, report=report, created=created)


def _keep(
    image: Assembly, writer: OciSifWriter, compression: Compression, report: events.Report
) -> None:
    config = parse_config(image.source.raw_config)
    keeper = LayerKeeper(
        layer_sources(image, config),
        compression=compression,
        report=report,
        created=_seconds(config.created),
    )
    for index, _ in enumerate(image.layers):
        with writer.layer() as out:
            keeper.write(index, out)
    total = sum(layer.size for layer in image.layers)
    report(Phase(name="convert", done=total, total=total, state="done"))


def layer_sources(image: Assembly, config: ImageConfig) -> list[LayerSource]:
    """Return an image's layers as the converter takes them.

    Raises:
        FormatError: The configuration names another number of them.
    """
    if len(config.diff_ids) != len(image.layers):
        raise FormatError(
            f"the configuration names {len(config.diff_ids)} layers, "
            f"the manifest {len(image.layers)}"
        )
    return [
        LayerSource(
            media_type=layer.media_type,
            open=functools.partial(image.open_layer, index),
            diff_id=config.diff_ids[index] if image.has_diff_ids else None,
            size=layer.size,
        )
        for index, layer in enumerate(image.layers)
    ]


def _store_as_is(image: Assembly, writer: OciSifWriter) -> None:
    for index, layer in enumerate(image.layers):
        with writer.layer(layer.media_type) as out, image.open_layer(index) as packed:
            copy_range(
                packed.fileno(), out.fileno(), start=packed.tell(), size=layer.size, at=out.tell()
            )


def _seconds(created: str) -> int:
    """Return an RFC 3339 time as squashfs holds it: seconds since 1970, 0 for anything else."""
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return 0
    return min(max(0, int(moment.timestamp())), 0xFFFF_FFFF) if moment.tzinfo else 0
