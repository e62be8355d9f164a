"""Native SIF images: one file system with ``/.singularity.d``, and what describes it.

The objects are those that SingularityCE and Apptainer write, in their order: definition,
``inspect-metadata.json``, ``oci-config.json``, and the partition.  What belongs into the file
system is laid over and under the image's layers as two more layers, so that it goes the same
way as everything else.  The ID is made from the source's digest, the times from the source's
``created``: the same source gives the same file.
"""

from __future__ import annotations

import io
import json
import tarfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_OID, uuid5

from backend.layers.squash import LayerSource, squash_layers
from backend.oci import media
from backend.oci.digest import digest_of
from backend.oci.image import ImageConfig, parse_config
from backend.oci.json import dump, load
from backend.reference import parse
from backend.sif.inspection import CONFIG_NAME, METADATA_NAME
from backend.sif.ocisifwriter import WrittenImage
from backend.sif.provenance import COMPRESSION, SOURCE_DIGEST, origin_of
from backend.sif.records import (
    PARTITION_ALIGNMENT,
    DataType,
    FileSystem,
    Partition,
    PartitionKind,
)
from backend.sif.scripts import (
    ACTIONS,
    ENVIRONMENT,
    FOLDER,
    IMAGE_ENVIRONMENT,
    image_environment,
    runscript,
)
from backend.sif.writer import SifWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from backend.events import Report
    from backend.sif.provenance import Source
    from backend.squashfs.compression import Compression

LAUNCH = b"#!/usr/bin/env run-singularity\n"
CAPACITY = 48
_SCHEMA = "org.label-schema."
_FOLDERS = ("dev", "proc", "root", "var", "var/tmp", "tmp", "etc", "sys", "home")
_LINKS = {
    "singularity": f"{FOLDER}/runscript",
    ".run": f"{FOLDER}/actions/run",
    ".exec": f"{FOLDER}/actions/exec",
    ".test": f"{FOLDER}/actions/test",
    ".shell": f"{FOLDER}/actions/shell",
    "environment": f"{FOLDER}/env/90-environment.sh",
}
_EMPTIED = ("etc/hosts", "etc/resolv.conf")


def write_native(  # noqa: PLR0913  (a source, a target, and how to get from one to the other)
    source: Source,
    layers: Sequence[LayerSource],
    target: Path,
    *,
    compression: Compression,
    overwrite: bool,
    created: int,
    report: Report,
) -> WrittenImage:
    """Write an image as a native SIF.

    Args:
        source: The image's documents, and the reference that is recorded.
        layers: Its layers, base first.
        target: The file to write.
        compression: Of the squashfs blocks.
        overwrite: Whether a file that is there may be replaced.
        created: The time in all places, seconds since 1970; that of the source.
        report: Gets the events of the phase ``convert``.

    Returns:
        What was written; its digest is that of the source's manifest, as a native SIF has none.

    Raises:
        ExistsError: The target is there and may not be replaced.
        FormatError: The image breaks its specification.
        VerificationError: A layer is not what its diffID says.
        SpaceError: The disk is full.
    """
    config = parse_config(source.raw_config)
    definition = _definition(source)
    labels = _labels(config, source, created) | {COMPRESSION: str(compression)}
    files = _files(config, definition, labels)
    section = load(source.raw_config, "the image configuration").get("config")
    digest = digest_of(source.raw_manifest)
    with SifWriter(target, capacity=CAPACITY, overwrite=overwrite, time=created) as writer:
        writer.append(DataType.DEFINITION, definition.encode())
        writer.append(DataType.JSON, _metadata(files, labels), name=METADATA_NAME)
        writer.append(DataType.JSON, dump(section.value if section else {}), name=CONFIG_NAME)
        with writer.open_object(PARTITION_ALIGNMENT) as out:
            squash_layers(
                [_tar_layer(_base_layer(created)), *layers, _tar_layer(_top_layer(files, created))],
                out,
                compression=compression,
                report=report,
                created=created,
            )
        architecture = config.platform.architecture
        extra = Partition(
            fs=FileSystem.SQUASHFS, kind=PartitionKind.PRIMARY, architecture=architecture
        )
        writer.add(DataType.PARTITION, out.start, out.size, extra=extra.pack())
        uuid = uuid5(NAMESPACE_OID, digest).bytes
        writer.commit(launch=LAUNCH, architecture=architecture, uuid=uuid)
        return WrittenImage(path=target, digest=digest, size=writer.end)


def _definition(source: Source) -> str:
    bootstrap, name = _origin(source)
    return f"bootstrap: {bootstrap}\nfrom: {name}\n\n"


def _origin(source: Source) -> tuple[str, str]:
    """Return in the words of a definition file where an image is from, and its name there."""
    reference = origin_of(source).reference
    bootstrap, name = source.local
    if reference:
        parsed = parse(reference)
        bootstrap, name = parsed.transport, str(parsed).partition("://")[2]
    return bootstrap, name.replace("\n", " ")


def _labels(config: ImageConfig, source: Source, created: int) -> dict[str, str]:
    bootstrap, name = _origin(source)
    return {
        **config.labels,
        f"{_SCHEMA}schema-version": "1.0",
        f"{_SCHEMA}build-date": _build_date(created),
        f"{_SCHEMA}build-arch": config.platform.architecture,
        f"{_SCHEMA}usage.singularity.deffile.bootstrap": bootstrap,
        f"{_SCHEMA}usage.singularity.deffile.from": name,
        SOURCE_DIGEST: origin_of(source).digest,
    }


def _build_date(created: int) -> str:
    """Return a time as SingularityCE writes it: ``Monday_6_May_2024_7:8:9_UTC``."""
    moment = datetime.fromtimestamp(created, UTC)
    date = f"{moment:%A}_{moment.day}_{moment:%B}_{moment.year}"
    return f"{date}_{moment.hour}:{moment.minute}:{moment.second}_UTC"


def _files(config: ImageConfig, definition: str, labels: Mapping[str, str]) -> dict[str, str]:
    """Return the files of ``/.singularity.d`` by their path in it."""
    return {
        **{f"actions/{name}": text for name, text in ACTIONS.items()},
        **{f"env/{name}": text for name, text in ENVIRONMENT.items()},
        f"env/{IMAGE_ENVIRONMENT}": image_environment(config),
        "runscript": runscript(config),
        "startscript": "#!/bin/sh\n",
        "labels.json": json.dumps(labels, indent=4, sort_keys=True) + "\n",
        "Singularity": definition,
    }


_PLAIN = frozenset({"labels.json", "Singularity"})
"""Files that nobody runs."""


def _metadata(files: Mapping[str, str], labels: Mapping[str, str]) -> bytes:
    attributes: dict[str, Any] = {
        "environment": {
            f"/{FOLDER}/{path}": text
            for path, text in sorted(files.items())
            if path.startswith("env/")
        },
        "labels": dict(labels),
        "runscript": files["runscript"],
        "deffile": files["Singularity"],
        "startscript": files["startscript"],
    }
    return dump({"data": {"attributes": attributes}, "type": "container"})


def _base_layer(created: int) -> bytes:
    """Return a layer below the image's: what has to be there, unless the image has it."""
    members = [_member(name, tarfile.DIRTYPE, 0o755, created) for name in _FOLDERS]
    for name, target in _LINKS.items():
        member = _member(name, tarfile.SYMTYPE, 0o777, created)
        member.linkname = target
        members.append(member)
    return _tar((member, b"") for member in members)


def _top_layer(files: Mapping[str, str], created: int) -> bytes:
    """Return a layer above the image's: what is ours, whatever the image has there."""
    folders = ("", "/libs", "/actions", "/env")
    members = [(_member(FOLDER + name, tarfile.DIRTYPE, 0o755, created), b"") for name in folders]
    for path, text in sorted(files.items()):
        mode = 0o644 if path in _PLAIN else 0o755
        data = text.encode("utf-8", "surrogateescape")
        members.append((_member(f"{FOLDER}/{path}", tarfile.REGTYPE, mode, created), data))
    members += [(_member(name, tarfile.REGTYPE, 0o644, created), b"") for name in _EMPTIED]
    return _tar(members)


def _member(name: str, kind: bytes, mode: int, created: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = kind, mode, created
    return member


def _tar(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def _tar_layer(data: bytes) -> LayerSource:
    return LayerSource(media_type=media.OCI_LAYER, open=lambda: io.BytesIO(data), size=len(data))
