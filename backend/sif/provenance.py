"""The configuration and the manifest that a converted image gets.

What SingularityCE does is done here too, so that either program reads the other's files:
``rootfs.diff_ids`` are the digests of the squashfs layers, the media types of manifest and
configuration stay those of the source, and one history entry has the comment ``oci-sif
created from HEX``.  Beyond that nothing is lost: keys of the configuration that we do not
know stay, history stays, annotations stay, and four annotations on the manifest say where
the image comes from and how it was made.  No clock and no chance: the same source gives the
same bytes.

Annotations (``org.opencontainers.image`` has no names for these; its ``base.*`` speaks of
the image that the source itself was built on, and stays as the source has it):

* ``dev.sifdeck.source.reference``: as it was pulled, ``docker.io/library/ubuntu:24.04``
* ``dev.sifdeck.source.digest``: of the source's manifest
* ``dev.sifdeck.source.layers``: a JSON array, base first, of the source's layers, each with
  ``mediaType``, ``size`` and ``digest`` as in its manifest and ``diffID`` as in its configuration
* ``dev.sifdeck.compression``: of the squashfs blocks, ``zstd:3``; the file system itself has no
  place for the level of every compressor
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.errors import FormatError
from backend.oci import media
from backend.oci.digest import Digest, digest_of, parse_digest
from backend.oci.image import Descriptor, Manifest, parse_config, parse_manifest
from backend.oci.json import dump, load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SOURCE_REFERENCE = "dev.sifdeck.source.reference"
SOURCE_DIGEST = "dev.sifdeck.source.digest"
SOURCE_LAYERS = "dev.sifdeck.source.layers"
COMPRESSION = "dev.sifdeck.compression"

COMMENT = "oci-sif created from "
"""How SingularityCE's history comment starts; the source manifest's hex digits follow."""
CREATOR = "sifdeck"

_STORED = frozenset({media.SQUASHFS_LAYER, media.EXT3_LAYER})


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An image as it is before the conversion.

    Attributes:
        raw_manifest: As received.
        media_type: Of the manifest, as received; used where it does not say.
        raw_config: As received.
        reference: Where it is from; empty leaves that annotation out.
        local: Of an image on this machine: the bootstrap agent that a definition file has for
            it, and its digest; a path says nothing elsewhere, and would make other bytes there.
        is_converted: It was made of another image, and is only stored anew: what it says of
            its own source stays.
    """

    raw_manifest: bytes
    raw_config: bytes
    media_type: str = ""
    reference: str = ""
    local: tuple[str, str] = ("", "")
    is_converted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """A configuration and a manifest that belong together, as they will be stored."""

    config: bytes
    manifest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLayer:
    """A layer of the source image, as an annotation of ours remembers it.

    Attributes:
        media_type: As in the source's manifest.
        size: In bytes, as the registry holds it.
        digest: As in the source's manifest.
        diff_id: Of the uncompressed layer; empty when the source did not say.
    """

    media_type: str
    size: int
    digest: Digest
    diff_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where an image says that it comes from.

    Attributes:
        reference: Empty when it does not say.
        digest: Of the source's manifest; empty when it does not say.
        layers: Of the source, base first.
        compression: Of the squashfs blocks, ``zstd:3``; empty when it does not say.
    """

    reference: str = ""
    digest: str = ""
    layers: tuple[SourceLayer, ...] = ()
    compression: str = ""


def convert_documents(
    source: Source, layers: Sequence[Descriptor], *, compression: str = ""
) -> Documents:
    """Return the documents of ``source`` when its content is stored as ``layers``.

    A source whose layers are stored as they are keeps its documents to the byte, and so its
    digest and signatures.

    Args:
        source: The image that was converted.
        layers: What the SIF file holds, base first: one squashed layer, or one for each.
        compression: Of their blocks, for the annotation; empty leaves it out.

    Raises:
        FormatError: The source's documents are no manifest and configuration.
    """
    manifest = parse_manifest(source.raw_manifest, source.media_type)
    if _same_layers(manifest, layers):
        return Documents(config=source.raw_config, manifest=source.raw_manifest)
    parse_config(source.raw_config)  # so that what we store can be read again
    digest = digest_of(source.raw_manifest)
    config = _convert_config(source.raw_config, digest, [layer.digest for layer in layers])
    converted = Manifest(
        media_type=manifest.media_type,
        config=Descriptor(
            media_type=manifest.config.media_type, size=len(config), digest=digest_of(config)
        ),
        layers=tuple(
            Descriptor(media_type=layer.media_type, size=layer.size, digest=layer.digest)
            for layer in layers
        ),
        annotations=_annotations(source, manifest)
        | ({COMPRESSION: compression} if compression else {}),
        artifact_type=manifest.artifact_type,
    )
    return Documents(config=config, manifest=dump(converted.to_json()))


def read_provenance(annotations: Mapping[str, str]) -> Provenance:
    """Return what the annotations of a manifest say of its source; nonsense counts as nothing."""
    try:
        layers = _parse_layers(annotations.get(SOURCE_LAYERS, "[]"))
    except FormatError:
        layers = ()
    return Provenance(
        reference=annotations.get(SOURCE_REFERENCE, ""),
        digest=annotations.get(SOURCE_DIGEST, ""),
        layers=layers,
        compression=annotations.get(COMPRESSION, ""),
    )


def origin_of(source: Source) -> Provenance:
    """Return what is going to be recorded of where ``source`` is from."""
    manifest = parse_manifest(source.raw_manifest, source.media_type)
    return read_provenance(_annotations(source, manifest))


def of_archives(annotations: Mapping[str, str]) -> dict[str, str]:
    """Return an image's annotations for the same image made of tar layers."""
    return _without(annotations, {COMPRESSION})


def _same_layers(manifest: Manifest, layers: Sequence[Descriptor]) -> bool:
    return all(layer.media_type in _STORED for layer in manifest.layers) and (
        [layer.digest for layer in manifest.layers] == [layer.digest for layer in layers]
    )


def _convert_config(raw: bytes, source: Digest, diff_ids: list[Digest]) -> bytes:
    document = load(raw, "the image configuration").object()
    history = document.get("history") or []
    created = document.get("created")
    document["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
    document["history"] = _convert_history(history, created, source, len(diff_ids))
    return dump(document)


def _convert_history(
    entries: list[dict[str, Any]], created: str | None, source: Digest, layer_count: int
) -> list[dict[str, Any]]:
    """Return history in which as many entries stand for a layer as there are layers.

    A single layer is stood for by the entry that we add.  Several layers are stood for by the
    source's own entries, if those are as many; ours is empty then.
    """
    ours: dict[str, Any] = {} if created is None else {"created": created}
    ours |= {"created_by": CREATOR, "comment": COMMENT + source.partition(":")[2]}
    filled = sum(entry.get("empty_layer") is not True for entry in entries)
    if layer_count > 1 and filled == layer_count:
        return [*entries, ours | {"empty_layer": True}]
    return [entry | {"empty_layer": True} for entry in entries] + [ours] * layer_count


def _annotations(source: Source, manifest: Manifest) -> dict[str, str]:
    """Return the annotations of the source, with what it is in place of what it was made of."""
    if source.is_converted and SOURCE_DIGEST in manifest.annotations:
        return _without(manifest.annotations, {COMPRESSION})
    diff_ids = parse_config(source.raw_config).diff_ids
    known = len(diff_ids) == len(manifest.layers)
    layers = [
        {"mediaType": layer.media_type, "size": layer.size, "digest": layer.digest}
        | ({"diffID": diff_ids[i]} if known else {})
        for i, layer in enumerate(manifest.layers)
    ]
    reference = {SOURCE_REFERENCE: source.reference} if source.reference else {}
    kept = _without(manifest.annotations, {SOURCE_REFERENCE, COMPRESSION})
    return {
        **kept,
        **reference,
        SOURCE_DIGEST: digest_of(source.raw_manifest),
        SOURCE_LAYERS: dump(layers).decode(),
    }


def _without(annotations: Mapping[str, str], names: set[str]) -> dict[str, str]:
    return {name: text for name, text in annotations.items() if name not in names}


def _parse_layers(text: str) -> tuple[SourceLayer, ...]:
    found = []
    for node in load(text.encode(errors="replace"), SOURCE_LAYERS).items():
        diff_id = node.get("diffID")
        found.append(
            SourceLayer(
                media_type=node.need("mediaType").text(),
                size=node.need("size").size(),
                digest=parse_digest(node.need("digest").text()),
                diff_id=parse_digest(diff_id.text()) if diff_id else "",
            )
        )
    return tuple(found)
