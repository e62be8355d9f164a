"""The documents of a converted image."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import FormatError
from backend.oci.digest import digest_of
from backend.oci.image import Descriptor, parse_config, parse_manifest
from backend.sif.provenance import Source, convert_documents, read_provenance

SQUASHFS = "application/vnd.sylabs.image.layer.v1.squashfs"
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def stored(*layers: bytes) -> list[Descriptor]:
    return [
        Descriptor(media_type=SQUASHFS, size=len(data), digest=digest_of(data)) for data in layers
    ]


def make_source(
    config: dict[str, Any] | None = None,
    *,
    layers: int = 2,
    media_type: str = GZIP,
    reference: str = "docker.io/library/x:1",
    **manifest: Any,
) -> Source:
    blobs = [f"layer {i}".encode() for i in range(layers)]
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-05-06T07:08:09.123456789Z",
        "rootfs": {"type": "layers", "diff_ids": [digest_of(data) for data in blobs]},
        **(config or {}),
    }
    raw = json.dumps(document).encode()
    described = {
        "schemaVersion": 2,
        "config": {"mediaType": "a/config", "size": len(raw), "digest": digest_of(raw)},
        "layers": [
            {"mediaType": media_type, "size": len(data), "digest": digest_of(data)}
            for data in blobs
        ],
        **manifest,
    }
    return Source(
        raw_manifest=json.dumps(described).encode(),
        media_type=MANIFEST,
        raw_config=raw,
        reference=reference,
    )


def converted(source: Source, *layers: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    documents = convert_documents(source, stored(*layers))
    return json.loads(documents.config), json.loads(documents.manifest)


def test_config_keeps_everything_but_layers_and_history() -> None:
    source = make_source(
        {
            "container_config": {"Cmd": ["x"]},
            "config": {"Healthcheck": {"Test": ["CMD"]}},
            "x": None,
        }
    )
    before = json.loads(source.raw_config)
    config, _ = converted(source, b"squashed")
    assert config["rootfs"] == {"type": "layers", "diff_ids": [digest_of(b"squashed")]}
    assert {k: v for k, v in config.items() if k not in {"rootfs", "history"}} == {
        k: v for k, v in before.items() if k != "rootfs"
    }


def test_history_of_a_squashed_image() -> None:
    entries: list[dict[str, Any]] = [
        {"created": "2024-01-01T00:00:00Z", "created_by": "ADD", "comment": "base"},
        {"created_by": "ENV A=b", "empty_layer": True},
        {"created_by": "RUN x", "author": "me"},
    ]
    source = make_source({"history": entries})
    config, _ = converted(source, b"squashed")
    comment = f"oci-sif created from {digest_of(source.raw_manifest).removeprefix('sha256:')}"
    assert config["history"] == [
        {**entries[0], "empty_layer": True},
        entries[1],
        {**entries[2], "empty_layer": True},
        {"created": "2024-05-06T07:08:09.123456789Z", "created_by": "sifdeck", "comment": comment},
    ]


def test_history_of_kept_layers() -> None:
    entries = [
        {"created_by": "ADD"},
        {"created_by": "ENV", "empty_layer": True},
        {"created_by": "RUN"},
    ]
    config, _ = converted(make_source({"history": entries}), b"one", b"two")
    assert config["history"][:3] == entries
    assert config["history"][3]["empty_layer"] is True
    assert config["history"][3]["comment"].startswith("oci-sif created from ")


@pytest.mark.parametrize(
    "entries", [None, [], [{"created_by": "one"}], [{"created_by": str(i)} for i in range(3)]]
)
def test_history_that_did_not_fit_the_layers(entries: list[dict[str, Any]] | None) -> None:
    config, _ = converted(make_source({"history": entries}), b"one", b"two")
    assert sum(not entry.get("empty_layer") for entry in config["history"]) == 2
    assert [entry["created_by"] for entry in config["history"]] == [
        *(entry["created_by"] for entry in entries or ()),
        "sifdeck",
        "sifdeck",
    ]


def test_no_clock_where_the_source_has_none() -> None:
    config, _ = converted(make_source({"created": None}), b"squashed")
    assert "created" not in config["history"][-1]


def test_manifest() -> None:
    source = make_source(annotations={"org.opencontainers.image.base.name": "b", "a": "z"})
    documents = convert_documents(source, stored(b"squashed"), compression="xz:6")
    manifest = json.loads(documents.manifest)
    layers = manifest["annotations"].pop("dev.sifdeck.source.layers")
    assert manifest == {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "a/config",
            "size": len(documents.config),
            "digest": digest_of(documents.config),
        },
        "layers": [{"mediaType": SQUASHFS, "size": 8, "digest": digest_of(b"squashed")}],
        "annotations": {
            "org.opencontainers.image.base.name": "b",
            "a": "z",
            "dev.sifdeck.source.reference": "docker.io/library/x:1",
            "dev.sifdeck.source.digest": digest_of(source.raw_manifest),
            "dev.sifdeck.compression": "xz:6",
        },
    }
    assert json.loads(layers) == [
        {"mediaType": GZIP, "size": 7, "digest": digest_of(data), "diffID": digest_of(data)}
        for data in (b"layer 0", b"layer 1")
    ]


def test_media_type_of_the_source_stays() -> None:
    docker = "application/vnd.docker.distribution.manifest.v2+json"
    _, manifest = converted(make_source(mediaType=docker), b"squashed")
    assert manifest["mediaType"] == docker


def test_squashfs_layers_are_stored_unchanged() -> None:
    source = make_source(media_type=SQUASHFS)
    documents = convert_documents(source, stored(b"layer 0", b"layer 1"))
    assert (documents.config, documents.manifest) == (source.raw_config, source.raw_manifest)
    assert convert_documents(source, stored(b"other")).manifest != source.raw_manifest


def test_source_of_another_program_is_read_back() -> None:
    source = make_source()
    documents = convert_documents(source, stored(b"squashed"))
    found = read_provenance(parse_manifest(documents.manifest).annotations)
    assert (found.reference, found.digest) == (
        "docker.io/library/x:1",
        digest_of(source.raw_manifest),
    )
    assert [layer.digest for layer in found.layers] == [
        digest_of(b"layer 0"),
        digest_of(b"layer 1"),
    ]
    assert found.layers[0].diff_id == digest_of(b"layer 0")


def test_what_an_image_says_of_its_own_source() -> None:
    """It stays when a SIF file is stored anew, and goes when the image is a new one."""
    first = make_source()
    manifest = convert_documents(first, stored(b"x"), compression="xz:6").manifest
    annotations = parse_manifest(manifest).annotations
    again = make_source(reference="", annotations=dict(annotations))
    new = replace(again, is_converted=True)
    found = parse_manifest(convert_documents(new, stored(b"y"), compression="lz4:1").manifest)
    assert found.annotations == {**annotations, "dev.sifdeck.compression": "lz4:1"}
    found = parse_manifest(convert_documents(again, stored(b"y")).manifest)
    assert found.annotations["dev.sifdeck.source.digest"] == digest_of(again.raw_manifest)
    assert "dev.sifdeck.source.reference" not in found.annotations
    assert "dev.sifdeck.compression" not in found.annotations


def test_lone_surrogates_survive() -> None:
    source = make_source({"author": "\ud800"})
    documents = convert_documents(source, stored(b"squashed"))
    assert parse_config(documents.config).author == "\ud800"


@given(text=st.text(max_size=60) | st.just('[{"size":1}]'))
def test_any_annotation_is_read_or_passed_over(text: str) -> None:
    assert read_provenance({"dev.sifdeck.source.layers": text}).layers == ()


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"history":3}', b'{"history":[1]}'])
def test_broken_configuration(raw: bytes) -> None:
    made = make_source()
    source = Source(raw_manifest=made.raw_manifest, raw_config=raw)
    with pytest.raises(FormatError):
        convert_documents(source, stored(b"squashed"))
