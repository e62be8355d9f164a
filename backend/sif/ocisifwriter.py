"""Writing an OCI-SIF file; ``backend.sif.ocisif`` says what it holds, and reads it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from backend.oci import media
from backend.oci.digest import Digest, digest_of, digest_of_range
from backend.oci.image import Descriptor, parse_manifest
from backend.oci.json import dump
from backend.sif.records import PARTITION_ALIGNMENT, DataType
from backend.sif.writer import LayerFile, SifWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from backend.sif.provenance import Documents

SPARE_DESCRIPTORS = 8
LAYER_ALIGNMENT = PARTITION_ALIGNMENT
"""A layer starts on a page, so that the kernel can mount it as well as squashfuse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenImage:
    """What :meth:`OciSifWriter.finish` made.

    Attributes:
        path: The file.
        digest: Of the image's manifest in it.
        size: Bytes of the file.
    """

    path: Path
    digest: Digest
    size: int


class OciSifWriter:
    """Writes an OCI-SIF file that appears whole or not at all; a context manager.

    Leaving the block without :meth:`finish` leaves nothing behind.

    Args:
        target: The file to write.
        layer_count: How many layers will be written, which sets the size of the table.
        overwrite: Whether a file that is there may be replaced.

    Raises:
        ExistsError: The target is there already.
        NotFoundError: Its folder is not.
        SpaceError: The disk is full.
    """

    def __init__(self, target: Path, *, layer_count: int, overwrite: bool = False) -> None:
        capacity = layer_count + 3 + SPARE_DESCRIPTORS
        self._target = target
        self._writer = SifWriter(target, capacity=capacity, overwrite=overwrite)
        self._layers: list[Descriptor] = []

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    @contextlib.contextmanager
    def layer(self, media_type: str = media.SQUASHFS_LAYER) -> Iterator[LayerFile]:
        """Give the file to write the next layer to, base layer first.

        The layer is what stands from the file's position at the start to its end when the
        block is left; positions in between may be written in any order.  A layer that equals
        an earlier one is stored once.
        """
        writer = self._writer
        with writer.open_object(LAYER_ALIGNMENT) as out:
            yield out
        digest = digest_of_range(writer.fd, out.start, out.size)
        is_known = digest in {layer.digest for layer in self._layers}
        self._layers.append(Descriptor(media_type=media_type, size=out.size, digest=digest))
        if is_known:  # blobs are found by digest, so one of a kind is enough
            writer.forget_tail()
        else:
            writer.add(DataType.OCI_BLOB, out.start, out.size, extra=digest.encode())

    def finish(self, make_documents: Callable[[Sequence[Descriptor]], Documents]) -> WrittenImage:
        """Write what follows the layers, put the file on the disk and give it its name.

        Args:
            make_documents: Given the layers, returns the configuration and the manifest, as
                :func:`backend.sif.provenance.convert_documents` does.
        """
        documents = make_documents(self._layers)
        manifest = parse_manifest(documents.manifest)
        entry = Descriptor(
            media_type=manifest.media_type,
            size=len(documents.manifest),
            digest=digest_of(documents.manifest),
            artifact_type=manifest.artifact_type or manifest.config.media_type,
        )
        self._append(DataType.OCI_BLOB, documents.config)
        self._append(DataType.OCI_BLOB, documents.manifest)
        self._append(DataType.OCI_ROOT_INDEX, pack_index([entry]))
        self._writer.commit()
        return WrittenImage(path=self._target, digest=entry.digest, size=self._writer.end)

    def _append(self, kind: DataType, data: bytes) -> None:
        self._writer.append(kind, data, extra=digest_of(data).encode())


def pack_index(entries: Sequence[Descriptor]) -> bytes:
    """Return the root index that names ``entries``."""
    return dump(
        {
            "schemaVersion": 2,
            "mediaType": media.OCI_INDEX,
            "manifests": [entry.to_json() for entry in entries],
        }
    )
