"""What an image file says of itself, OCI-SIF or native SIF, in one value.

Nothing is mounted and nothing is run: an OCI-SIF answers from its documents, a native SIF
from the metadata that its builder put beside the partition, or, where that is missing, from
the files of ``/.singularity.d`` inside it.  Everything in here is hostile text; escape it
before it is shown.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from backend.errors import FormatError
from backend.oci import media
from backend.oci.image import History, ImageConfig, parse_config
from backend.oci.json import Node, dump, load
from backend.oci.platform import Platform
from backend.sif.file import SifFile
from backend.sif.ocisif import OciSif, image_of, is_cosign
from backend.sif.provenance import COMMENT, Provenance, SourceLayer, read_provenance
from backend.sif.records import DataType, FileSystem, PartitionKind
from backend.sif.text import FILE_SYSTEMS, time_text
from backend.squashfs.reader import SquashfsReader
from backend.squashfs.superblock import SIZE as SUPERBLOCK_SIZE
from backend.squashfs.superblock import parse_superblock

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from backend.sif.records import Descriptor

METADATA_NAME = b"inspect-metadata.json"
CONFIG_NAME = b"oci-config.json"
SCRIPTS = ("runscript", "startscript", "test", "helpfile")
"""Attributes of a native image that are one text each."""
_SCRIPT_FILES = {
    "runscript": "runscript",
    "startscript": "startscript",
    "test": "test",
    "helpfile": "runscript.help",
    "deffile": "Singularity",
}
_FOLDER = "/.singularity.d"
_MAX_TEXT = 4 << 20
"""Bytes of a definition or a script."""
_MAX_SCRIPTS = 256
"""Environment scripts in one image."""

Kind = Literal["oci-sif", "sif", "data"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDetail:
    """One file system in the image.

    Attributes:
        size: Its bytes in the file.
        offset: Where it starts.
        digest: Empty for a partition of a native SIF.
        media_type: Empty for a partition of a native SIF.
        filesystem: ``squashfs``, ``ext3`` ... in lower case.
        compression: ``zstd``, ``gzip`` ...; empty where it is not known.
        block_size: Bytes of a squashfs block; 0 where it is not known.
        inodes: How many it has; 0 where it is not known.
        sources: The layers of the source image that are in it, base first.
    """

    size: int
    offset: int
    digest: str = ""
    media_type: str = ""
    filesystem: str = "squashfs"
    compression: str = ""
    block_size: int = 0
    inodes: int = 0
    sources: tuple[SourceLayer, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """An image file.

    Attributes:
        path: Of the file.
        kind: OCI-SIF, native SIF, or a data container in an OCI-SIF.
        size: Bytes of the file.
        digest: Of the manifest; empty for a native SIF.
        config: How to run it.  A native SIF made from an OCI image has most of it.
        raw_config: The ``config`` object as it stands in the file.
        labels: Of the image.
        layers: Base first; partitions for a native SIF.
        annotations: Of the manifest.
        provenance: Where it comes from.
        attributes: What SingularityCE's ``inspect --all`` shows.
        signatures: How many signatures are in the file, of either kind.
    """

    path: Path
    kind: Kind
    size: int
    digest: str = ""
    config: ImageConfig
    raw_config: Mapping[str, Any]
    labels: Mapping[str, str]
    layers: tuple[LayerDetail, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)
    attributes: Mapping[str, Any]
    signatures: int = 0


def inspect_file(path: Path) -> Inspection:
    """Return what an image file says of itself.

    Raises:
        NotFoundError: There is no such file.
        FormatError: It is no SIF file, or a broken one.
    """
    with SifFile(path) as sif:
        if sif.of_kind(DataType.OCI_ROOT_INDEX):
            return _inspect_oci(sif)
        return _inspect_native(sif)


def _inspect_oci(sif: SifFile) -> Inspection:
    image = image_of(sif)
    section = load(image.raw_config, "the image configuration").get("config")
    signatures = sum(is_cosign(entry) for entry in image.index.manifests)
    return Inspection(
        path=sif.path,
        kind="data" if image.is_data_container else "oci-sif",
        size=sif.size,
        digest=image.manifest_digest,
        config=image.config,
        raw_config=section.object() if section else {},
        labels=image.config.labels,
        layers=_oci_layers(sif, image),
        annotations=image.manifest.annotations,
        provenance=read_provenance(image.manifest.annotations),
        attributes=_oci_attributes(image.config),
        signatures=signatures + len(sif.of_kind(DataType.SIGNATURE)),
    )


def _oci_layers(sif: SifFile, image: OciSif) -> tuple[LayerDetail, ...]:
    sources = read_provenance(image.manifest.annotations).layers
    is_squashed = _is_squashed(image)
    return tuple(
        LayerDetail(
            size=place.size,
            offset=place.offset,
            digest=place.digest,
            media_type=place.media_type,
            sources=(() if i else sources) if is_squashed else sources[i : i + 1],
            **_filesystem(sif, place.offset, _FILESYSTEMS.get(place.media_type, "unknown")),
        )
        for i, place in enumerate(image.layers)
    )


def _is_squashed(image: OciSif) -> bool:
    """Tell whether the base stands for all layers of the source; those above are overlays.

    What history says of it is for SingularityCE to read, too: one layer has our comment then.
    """
    filled = [entry for entry in image.config.history if not entry.empty_layer]
    return sum(entry.comment.startswith(COMMENT) for entry in filled) == 1


_FILESYSTEMS = {media.SQUASHFS_LAYER: "squashfs", media.EXT3_LAYER: "ext3"}


def _filesystem(sif: SifFile, offset: int, name: str) -> dict[str, Any]:
    """Return the fields of a LayerDetail that the file system itself tells."""
    if name != "squashfs":
        return {"filesystem": name}
    try:
        data = os.pread(sif.fileno(), SUPERBLOCK_SIZE, offset)
        superblock = parse_superblock(data, sif.size - offset)
    except FormatError:
        return {"filesystem": name, "compression": "damaged"}
    return {
        "filesystem": name,
        "compression": superblock.compressor_name,
        "block_size": superblock.block_size,
        "inodes": superblock.inode_count,
    }


def _oci_attributes(config: ImageConfig) -> dict[str, Any]:
    """Return in SingularityCE's words what an OCI image has of a native one's attributes."""
    import shlex

    command = " ".join(shlex.quote(word) for word in (*config.entrypoint, *config.cmd))
    attributes: dict[str, Any] = {"labels": dict(config.labels)}
    if config.env:
        attributes["environment"] = {"config": "\n".join(config.env) + "\n"}
    if command:
        attributes["runscript"] = f"{command}\n"
    if config.history:
        lines = (f"{entry.created_by or entry.comment}\n" for entry in config.history)
        attributes["deffile"] = "".join(lines)
    return attributes


def _inspect_native(sif: SifFile) -> Inspection:
    objects = {one.name: one for one in sif.of_kind(DataType.JSON)}
    section = _json(sif, objects.get(CONFIG_NAME), "oci-config.json")
    attributes = _native_attributes(sif, objects.get(METADATA_NAME))
    labels = _labels(attributes.get("labels"))
    return Inspection(
        path=sif.path,
        kind="sif",
        size=sif.size,
        config=_native_config(sif, section),
        raw_config=section,
        labels=labels,
        layers=tuple(_partition(sif, one) for one in sif.of_kind(DataType.PARTITION)),
        provenance=_native_provenance(labels),
        attributes=attributes,
        signatures=len(sif.of_kind(DataType.SIGNATURE)),
    )


_DEFINITION = "org.label-schema.usage.singularity.deffile."
_REGISTRIES = frozenset({"docker", "oras", "library"})
"""Bootstrap agents whose names are references after two slashes."""


def _native_provenance(labels: Mapping[str, str]) -> Provenance:
    agent, name = (labels.get(_DEFINITION + key, "") for key in ("bootstrap", "from"))
    reference = name
    if agent and name:
        reference = f"{agent}:{'//' * (agent in _REGISTRIES)}{name}"
    return replace(read_provenance(labels), reference=reference)


def _native_config(sif: SifFile, section: dict[str, Any]) -> ImageConfig:
    created = time_text(sif.header.created).replace(" +0000 UTC", "Z").replace(" ", "T")
    platform = Platform(os="linux", architecture=sif.header.architecture)
    return parse_config(
        dump(
            {
                "os": platform.os,
                "architecture": platform.architecture,
                "created": created,
                "config": section,
            }
        )
    )


def _partition(sif: SifFile, one: Descriptor) -> LayerDetail:
    fs = one.partition().fs
    name = FILE_SYSTEMS.get(fs, "unknown").lower()
    return LayerDetail(size=one.size, offset=one.offset, **_filesystem(sif, one.offset, name))


def _json(sif: SifFile, one: Descriptor | None, what: str) -> dict[str, Any]:
    return load(sif.read(one, limit=_MAX_TEXT), what).object() if one else {}


def _native_attributes(sif: SifFile, one: Descriptor | None) -> dict[str, Any]:
    """Return the attributes that the builder recorded, else what the image's files say."""
    found = dict(_recorded(_json(sif, one, "inspect-metadata.json")))
    if not found:
        found = _attributes_of_files(sif)
    definitions = sif.of_kind(DataType.DEFINITION)
    if definitions and "deffile" not in found:
        found["deffile"] = _text(sif.read(definitions[0], limit=_MAX_TEXT))
    return found


def _recorded(document: dict[str, Any]) -> dict[str, Any]:
    data = Node(document, "inspect-metadata.json").get("data")
    attributes = data.get("attributes") if data else None
    return attributes.object() if attributes else {}


def _attributes_of_files(sif: SifFile) -> dict[str, Any]:
    tree = _primary(sif)
    if tree is None:
        return {}
    found: dict[str, Any] = {}
    for name, file in _SCRIPT_FILES.items():
        if text := _file(tree, f"{_FOLDER}/{file}"):
            found[name] = text
    if labels := _file(tree, f"{_FOLDER}/labels.json"):
        found["labels"] = load(labels.encode(errors="surrogateescape"), "labels.json").value
    folder = tree.lookup(f"{_FOLDER}/env")
    names = sorted(name for name, _ in tree.entries(folder)) if folder else []
    scripts = {
        path: _file(tree, path)
        for path in (f"{_FOLDER}/env/{os.fsdecode(name)}" for name in names[:_MAX_SCRIPTS])
        if path.endswith(".sh")
    }
    if scripts:
        found["environment"] = scripts
    return found


def _primary(sif: SifFile) -> SquashfsReader | None:
    """Return the root file system; None where there is none that we can read."""
    for one in sif.of_kind(DataType.PARTITION):
        part = one.partition()
        if part.kind == PartitionKind.PRIMARY and part.fs == FileSystem.SQUASHFS:
            with contextlib.suppress(FormatError):  # the layers' list says that it is damaged
                return SquashfsReader(sif.fileno(), offset=one.offset)
    return None


def _file(tree: SquashfsReader, path: str) -> str:
    node = tree.lookup(path)
    return _text(tree.read_bytes(node, limit=_MAX_TEXT)) if node else ""


def _labels(value: object) -> dict[str, str]:
    """Return the labels that are text; builders have recorded other things, too."""
    if not isinstance(value, dict):
        return {}
    return {key: text for key, text in value.items() if isinstance(text, str)}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def inspection_json(found: Inspection) -> dict[str, Any]:
    """Return everything for ``--json``; the shape of SingularityCE's own is in it."""
    config = found.config
    return {
        "path": str(found.path),
        "kind": found.kind,
        "size": found.size,
        "digest": found.digest or None,
        "platform": str(config.platform) if config.platform.architecture else None,
        "created": config.created or None,
        "author": config.author or None,
        "labels": dict(found.labels),
        "env": list(config.env),
        "entrypoint": list(config.entrypoint),
        "cmd": list(config.cmd),
        "working_dir": config.working_dir,
        "user": config.user,
        "exposed_ports": list(config.exposed_ports),
        "volumes": list(config.volumes),
        "stop_signal": config.stop_signal,
        "config": dict(found.raw_config),
        "layers": [_layer_json(layer) for layer in found.layers],
        "history": [_history_json(entry) for entry in config.history],
        "annotations": dict(found.annotations),
        "provenance": {
            "reference": found.provenance.reference or None,
            "digest": found.provenance.digest or None,
            "layers": [_source_json(layer) for layer in found.provenance.layers],
        },
        "signatures": found.signatures,
        "data": {"attributes": dict(found.attributes)},
        "type": "container",
    }


def _layer_json(layer: LayerDetail) -> dict[str, Any]:
    return {
        "digest": layer.digest or None,
        "media_type": layer.media_type or None,
        "size": layer.size,
        "offset": layer.offset,
        "filesystem": layer.filesystem,
        "compression": layer.compression or None,
        "block_size": layer.block_size,
        "inodes": layer.inodes,
        "sources": [source.digest for source in layer.sources],
    }


def _source_json(source: SourceLayer) -> dict[str, Any]:
    return {
        "media_type": source.media_type,
        "size": source.size,
        "digest": source.digest,
        "diff_id": source.diff_id or None,
    }


def _history_json(entry: History) -> dict[str, Any]:
    return {
        "created": entry.created or None,
        "created_by": entry.created_by,
        "comment": entry.comment,
        "author": entry.author,
        "empty_layer": entry.empty_layer,
    }
