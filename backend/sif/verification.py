"""Is an image file what it says it is?

:func:`verify_blobs` computes the digest of every OCI object in a file again.
:func:`verify_source` makes the image once more, from the registry that it says it is from, and
compares: a conversion depends on its source and options alone, so nothing may differ.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.cache import scratch_folder
from backend.errors import FormatError, UsageError
from backend.escape import one_line
from backend.oci.digest import parse_digest
from backend.reference import parse
from backend.sif.comparison import compare
from backend.sif.contents import ImageTree
from backend.sif.file import SifFile
from backend.sif.inspection import inspect_file
from backend.sif.ocisif import image_of, read_ocisif
from backend.sif.provenance import COMPRESSION
from backend.sif.records import DataType
from backend.sif.text import TYPES
from backend.squashfs.compression import parse_compression
from backend.squashfs.reader import SquashfsReader

if TYPE_CHECKING:
    from pathlib import Path

    from backend.events import Report
    from backend.pull import PullOptions
    from backend.sif.comparison import Change
    from backend.sif.inspection import Inspection
    from backend.sif.ocisif import OciSif
    from backend.squashfs.compression import Compression

_SHOWN_CHANGES = 100
"""Files that differ and are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobCheck:
    """An OCI object of a file, its digest computed again.

    Attributes:
        id: Of its descriptor.
        size: Its bytes.
        expected: What the descriptor says.
        actual: What it is.
        is_overlay: Whether it is a writable overlay, which changes in use.
    """

    id: int
    size: int
    expected: str
    actual: str
    is_overlay: bool = False

    @property
    def is_sound(self) -> bool:
        """Whether both are equal."""
        return self.expected == self.actual


def verify_blobs(path: Path) -> tuple[BlobCheck, ...]:
    """Return the check of every OCI object in a file; a native SIF has none.

    Raises:
        NotFoundError: There is no such file.
        FormatError: It is no SIF file, or a document in it is damaged.
    """
    with SifFile(path) as sif:
        if not sif.of_kind(DataType.OCI_ROOT_INDEX):
            return ()
        image = image_of(sif)
        overlays = {layer.object_id for layer in image.layers if layer.is_overlay}
        objects = [*sif.of_kind(DataType.OCI_BLOB), *sif.of_kind(DataType.OCI_ROOT_INDEX)]
        return tuple(
            BlobCheck(
                id=one.id,
                size=one.size,
                expected=one.digest(),
                actual=sif.digest(one),
                is_overlay=one.id in overlays,
            )
            for one in objects
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCheck:
    """An image compared with what its source gives now.

    Attributes:
        reference: What was pulled.
        differences: What differs, in sentences; empty when nothing does.
        changes: Files that differ, the first hundred.
    """

    reference: str
    differences: tuple[str, ...]
    changes: tuple[Change, ...] = ()


def verify_source(path: Path, options: PullOptions, report: Report) -> SourceCheck:
    """Pull and convert an image's source again, past all caches, and compare.

    Args:
        path: The image.
        options: How to get at the registry; what is made is what the image is.
        report: Gets the events of the pull.

    Raises:
        UsageError: The image does not say where it is from.
        NotFoundError: The source is not there any more.
        BackendError: As for a pull.
    """
    from backend.pull import pull_image  # brings the whole registry client along

    found = inspect_file(path)
    source = found.provenance
    if not source.reference or not source.digest:
        raise UsageError(
            f"{one_line(str(path))} does not say where it is from",
            hint="images that `sifdeck pull` writes do",
        )
    reference = parse(source.reference).with_digest(parse_digest(source.digest))
    with scratch_folder(options.cache, "verify") as folder:
        again = dataclasses.replace(
            options,
            platform=found.config.platform,
            compression=compression_of(found),
            native=found.kind == "sif",
            keep_layers=any(layer.sources for layer in found.layers[1:]),
            cache=folder / "cache",
            shared_cache=None,
            cache_limit=None,
            recorded=source.reference,
        )
        made = pull_image(reference, folder / "again.sif", again, report).path
        differences = _differences(found, inspect_file(made))
        if not differences:
            return SourceCheck(reference=str(reference), differences=())
        changes, remark = _changed_files(made, path)
    told = (*differences, remark) if remark else differences
    return SourceCheck(reference=str(reference), differences=told, changes=changes)


def compression_of(found: Inspection) -> Compression:
    """Return how an image is compressed: as it says, or as its first file system shows.

    A file system holds the level of gzip and zstd; images that do not say it and are packed
    otherwise are taken to have the default.

    Raises:
        UsageError: It says a compression that we do not have.
    """
    if found.provenance.compression:
        return parse_compression(found.provenance.compression)
    with found.path.open("rb") as file:
        reader = SquashfsReader(file, offset=found.layers[0].offset)
        name, level = reader.superblock.compressor_name, reader.compression_level()
    return parse_compression(f"{name}:{level}" if level else name)


def _differences(found: Inspection, again: Inspection) -> tuple[str, ...]:
    if found.kind == "sif":
        return _native_differences(found.path, again.path)
    return _oci_differences(read_ocisif(found.path), read_ocisif(again.path))


def _native_differences(path: Path, again: Path) -> tuple[str, ...]:
    """Compare object by object; signatures and overlays may have been added."""
    with SifFile(path) as ours, SifFile(again) as theirs:
        held = {one.id: (one.kind, one.name, ours.digest(one)) for one in ours.descriptors}
        return tuple(
            f"object {one.id}, {one.name.decode(errors='replace') or TYPES.get(one.kind, '')}"
            for one in theirs.descriptors
            if held.get(one.id) != (one.kind, one.name, theirs.digest(one))
        )


def _oci_differences(image: OciSif, again: OciSif) -> tuple[str, ...]:
    found = []
    if len(image.layers) != len(again.layers):
        found.append(f"{len(image.layers)} layers instead of {len(again.layers)}")
    for number, (ours, theirs) in enumerate(zip(image.layers, again.layers, strict=False), 1):
        if ours.digest != theirs.digest:
            found.append(f"layer {number} is {ours.digest} instead of {theirs.digest}")
    if image.raw_config != again.raw_config:
        found.append("the configuration")
    if not found and not _same_manifest(image, again):
        found.append("the manifest")
    return tuple(found)


def _same_manifest(image: OciSif, again: OciSif) -> bool:
    """Compare manifests; one that was written before we noted the compression lacks that."""
    ours, theirs = json.loads(image.raw_manifest), json.loads(again.raw_manifest)
    if COMPRESSION not in image.manifest.annotations:
        theirs.get("annotations", {}).pop(COMPRESSION, None)
    return bool(ours == theirs)


def _changed_files(expected: Path, actual: Path) -> tuple[tuple[Change, ...], str]:
    """Return the files that differ, and in words why there are none or not all."""
    changes: list[Change] = []
    try:
        with ImageTree(expected) as old, ImageTree(actual) as new:
            changes.extend(itertools.islice(compare(old, new), _SHOWN_CHANGES))
    except FormatError as error:
        return tuple(changes), error.message
    if changes:
        return tuple(changes), ""
    return (), "but no file: it was made in another way, or is one that was converted again"
