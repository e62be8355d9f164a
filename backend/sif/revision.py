"""A new version of the image inside an OCI-SIF: other layers, and the documents that name them.

Everything else in the file stays: signatures of descriptors, cosign's manifests, bills of
materials.  Cosign's speak of the digest that the image had before, so whoever revises an
image tells the user first (:func:`count_cosign`).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from backend.oci.digest import digest_of
from backend.oci.image import Descriptor, parse_manifest
from backend.oci.json import dump, load
from backend.sif.edit import NewObject
from backend.sif.ocisif import is_cosign
from backend.sif.ocisifwriter import pack_index
from backend.sif.records import DataType
from backend.values import replace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.sif.edit import SifEditor
    from backend.sif.ocisif import OciSif


def count_cosign(image: OciSif) -> int:
    """Return how many cosign signatures of the image stand in its file."""
    return sum(is_cosign(entry) for entry in image.index.manifests)


def drop_documents(editor: SifEditor, image: OciSif) -> None:
    """Take an image's documents, and what is behind the last object, out of its file."""
    for one in list(editor.slots):
        if one and one.kind == DataType.OCI_ROOT_INDEX:
            editor.delete(one.id)
    for digest in (image.manifest_digest, image.manifest.config.digest):
        for number in _objects(editor, digest):
            editor.delete(number)
    editor.truncate()


def add_documents(
    editor: SifEditor, image: OciSif, layers: Sequence[Descriptor], *, note: str = ""
) -> None:
    """Write documents that name ``layers``, which are in the file already.

    Args:
        editor: Of the image's file, its documents dropped.
        image: As it was.
        layers: Base first.
        note: Of a history entry that stands for a layer that is new; empty when none is.
    """
    config = _revise_config(image.raw_config, layers, note)
    manifest = _revise_manifest(image.raw_manifest, config, layers)
    _add(editor, DataType.OCI_BLOB, config)
    _add(editor, DataType.OCI_BLOB, manifest)
    _add(editor, DataType.OCI_ROOT_INDEX, pack_index(_entries(image, manifest)))


def _objects(editor: SifEditor, digest: str) -> list[int]:
    return [
        one.id
        for one in editor.slots
        if one and one.kind == DataType.OCI_BLOB and one.digest() == digest
    ]


def _revise_config(raw: bytes, layers: Sequence[Descriptor], note: str) -> bytes:
    document = load(raw, "the image configuration").object()
    document["rootfs"] = {"type": "layers", "diff_ids": [layer.digest for layer in layers]}
    if note:
        created = document.get("created")
        entry = {} if created is None else {"created": created}
        history: list[Any] = document.get("history") or []
        document["history"] = [*history, entry | {"created_by": note}]
    return dump(document)


def _revise_manifest(raw: bytes, config: bytes, layers: Sequence[Descriptor]) -> bytes:
    document = load(raw, "the manifest").object()
    document["config"] |= {"size": len(config), "digest": digest_of(config)}
    document["layers"] = [layer.to_json() for layer in layers]
    return dump(document)


def _entries(image: OciSif, manifest: bytes) -> list[Descriptor]:
    """Return the entries of the root index, the image's own changed."""
    parsed = parse_manifest(manifest, image.manifest.media_type)
    return [
        replace(
            entry,
            size=len(manifest),
            digest=digest_of(manifest),
            artifact_type=parsed.artifact_type or parsed.config.media_type,
        )
        if entry.digest == image.manifest_digest
        else entry
        for entry in image.index.manifests
    ]


def _add(editor: SifEditor, kind: DataType, data: bytes) -> None:
    editor.add(NewObject(kind=kind), io.BytesIO(data))
