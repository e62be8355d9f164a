"""OCI-SIF files, written and read."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import ExistsError, FormatError, SpaceError
from backend.oci import media
from backend.sif.ocisif import read_ocisif
from backend.sif.ocisifwriter import OciSifWriter, WrittenImage
from backend.sif.provenance import Source, convert_documents
from tests.support.images import image, layer
from tests.support.sifs import ROOT_INDEX, SIGNATURE, Object, blob, partition, sif

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
SQUASHFS = "application/vnd.sylabs.image.layer.v1.squashfs"

GOLDEN = "sha256:f4c182f50a84cf84394e2df8ec53c4ae1cec75642a7c1747d505d08e4bb98001"


def source(count: int = 1) -> Source:
    made = image([layer() for _ in range(count)], config={"Cmd": ["sh"], "Unknown": 1}, compress="")
    digest = json.loads(made.manifest)["config"]["digest"]
    return Source(
        raw_manifest=made.manifest,
        media_type=made.media_type,
        raw_config=made.blobs[digest],
        reference="registry.example/app:1",
    )


def write(target: Path, *layers: bytes, overwrite: bool = False) -> WrittenImage:
    with OciSifWriter(target, layer_count=len(layers), overwrite=overwrite) as writer:
        for data in layers:
            with writer.layer() as out:
                out.write(data)
        origin = source(len(layers))
        return writer.finish(lambda stored: convert_documents(origin, stored))


def described(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return {"mediaType": media_type, "size": len(data), "digest": digest, **more}


def dump(value: object) -> bytes:
    return json.dumps(value).encode()


def foreign(*layers: bytes, entries: list[Any] | None = None, signed: bool = False) -> bytes:
    """Return an OCI-SIF as another program may write it: unaligned layers, 48 slots."""
    config = dump({"architecture": "arm64", "os": "linux", "config": {"User": "me"}})
    manifest = dump(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described(config, CONFIG),
            "layers": [described(data, SQUASHFS) for data in layers],
        }
    )
    named = [described(manifest, MANIFEST)] if entries is None else entries
    index = dump({"schemaVersion": 2, "mediaType": INDEX, "manifests": named})
    signature = Object(kind=SIGNATURE, data=b"s", extra=b"\1", group=0, link=0xF0000001)
    return sif(
        *(blob(data) for data in layers),
        blob(config),
        blob(manifest),
        blob(index, ROOT_INDEX),
        *([signature] if signed else []),
    )


def test_layout_is_to_the_byte_what_the_format_says(tmp_path: Path) -> None:
    squashfs = b"hsqs" + bytes(range(256)) * 40
    written = write(tmp_path / "x.oci.sif", squashfs)
    data = (tmp_path / "x.oci.sif").read_bytes()
    found = read_ocisif(tmp_path / "x.oci.sif")
    index = dump_compact(
        {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [described(found.raw_manifest, MANIFEST, artifactType=CONFIG)],
        }
    )
    assert data == sif(
        blob(squashfs, gap=12288 - 11116),
        blob(found.raw_config),
        blob(found.raw_manifest),
        blob(index, ROOT_INDEX),
        capacity=12,
    )
    assert written.size == len(data)
    assert written.digest == found.manifest_digest == described(found.raw_manifest, "")["digest"]
    assert (tmp_path / "x.oci.sif").stat().st_mode & 0o777 == 0o777 & ~current_umask()


def dump_compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_same_input_gives_the_same_file_everywhere(tmp_path: Path) -> None:
    write(tmp_path / "x.oci.sif", b"base layer", b"upper layer")
    data = (tmp_path / "x.oci.sif").read_bytes()
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == GOLDEN


def test_layers_are_on_pages_and_read_back(tmp_path: Path) -> None:
    layers = [bytes([i]) * size for i, size in enumerate((1, 5000, 4096, 0))]
    write(tmp_path / "x.oci.sif", *layers)
    found = read_ocisif(tmp_path / "x.oci.sif")
    data = (tmp_path / "x.oci.sif").read_bytes()
    assert [data[at.offset : at.offset + at.size] for at in found.layers] == layers
    assert all(at.offset % 4096 == 0 for at in found.layers)
    assert [at.media_type for at in found.layers] == [SQUASHFS] * 4
    assert list(found.config.diff_ids) == [at.digest for at in found.layers]
    assert found.config.cmd == ("sh",)


def test_layer_may_be_written_out_of_order(tmp_path: Path) -> None:
    with OciSifWriter(tmp_path / "x.oci.sif", layer_count=1) as writer:
        with writer.layer() as out:
            start = out.tell()
            out.write(bytes(96))
            out.write(b"data")
            out.seek(start)
            out.write(b"h" * 96)
        writer.finish(lambda stored: convert_documents(source(), stored))
    place = read_ocisif(tmp_path / "x.oci.sif").layers[0]
    assert place.digest == described(b"h" * 96 + b"data", "")["digest"]


def test_equal_layers_are_stored_once(tmp_path: Path) -> None:
    same, other = b"s" * 9000, b"o" * 10
    write(tmp_path / "x.oci.sif", same, other, same, same)
    found = read_ocisif(tmp_path / "x.oci.sif")
    assert [at.size for at in found.layers] == [9000, 10, 9000, 9000]
    assert len({at.offset for at in found.layers}) == 2
    assert (tmp_path / "x.oci.sif").read_bytes().count(same) == 1


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x.oci.sif").write_bytes(b"mine")
    with pytest.raises(ExistsError):
        write(tmp_path / "x.oci.sif", b"data")
    assert (tmp_path / "x.oci.sif").read_bytes() == b"mine"
    write(tmp_path / "x.oci.sif", b"data", overwrite=True)
    assert read_ocisif(tmp_path / "x.oci.sif").layers[0].size == 4


def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    folder.mkdir()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(SpaceError):
        write(folder / "x.oci.sif", b"data")
    assert not list(folder.iterdir())


@pytest.mark.parametrize("signed", [True, False])
def test_file_of_another_program(tmp_path: Path, signed: bool) -> None:
    path = tmp_path / "x.sif"
    path.write_bytes(foreign(b"odd", b"sized", signed=signed))
    found = read_ocisif(path)
    assert [(at.offset, at.size, at.object_id) for at in found.layers] == [
        (32176, 3, 1),
        (32179, 5, 2),
    ]
    assert (str(found.config.platform), found.config.user) == ("linux/arm64", "me")
    assert found.signed is signed


def test_signatures_beside_the_image_are_passed_over(tmp_path: Path) -> None:
    config = dump({"architecture": "amd64", "os": "linux"})
    manifest = dump({"config": described(config, CONFIG), "layers": []})
    cosign = dump({"config": described(config, CONFIG), "layers": [], "annotations": {}})
    name = {"org.opencontainers.image.ref.name": f"_cosign:sha256-{'0' * 64}.sig"}
    index = dump(
        {
            "manifests": [
                described(cosign, MANIFEST, annotations=name),
                described(manifest, MANIFEST),
            ]
        }
    )
    path = tmp_path / "x.sif"
    path.write_bytes(sif(blob(config), blob(manifest), blob(cosign), blob(index, ROOT_INDEX)))
    found = read_ocisif(path)
    assert found.raw_manifest == manifest
    assert len(found.index.manifests) == 2


def test_data_container(tmp_path: Path) -> None:
    config = b"{}"
    manifest = dump(
        {
            "config": described(config, media.OCI_EMPTY),
            "layers": [],
            "artifactType": "application/vnd.sylabs.data-container.v1",
        }
    )
    index = dump({"manifests": [described(manifest, MANIFEST)]})
    path = tmp_path / "x.sif"
    path.write_bytes(sif(blob(config), blob(manifest), blob(index, ROOT_INDEX)))
    assert read_ocisif(path).is_data_container


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (sif(partition(b"hsqs")), "a native SIF"),
        (sif(), "without an image"),
        (sif(blob(b"{}", ROOT_INDEX), blob(b"{}", ROOT_INDEX)), "2 root indexes"),
        (sif(blob(b"{}", ROOT_INDEX)), "manifests is missing"),
        (sif(blob(b"[", ROOT_INDEX)), "not JSON"),
        (foreign(b"x", entries=[]), "names 0 images"),
        (foreign(b"x", entries=[described(b"", MANIFEST)] * 2), "names 2 images"),
        (foreign(b"x", entries=[described(b"gone", MANIFEST)]), "not in the file"),
        (foreign(b"odd").replace(b'"arm64"', b'"amd64"'), "damaged"),
        (foreign(b"x" * 40).replace(b'"size": 40', b'"size": 41'), "damaged"),
        (sif(Object(kind=ROOT_INDEX, data=b"{}", extra=b"sha256:\xff")), "not a digest"),
    ],
)
def test_broken_files(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.sif"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=message):
        read_ocisif(path)


def test_layer_size_that_differs_from_its_descriptor(tmp_path: Path) -> None:
    config = dump({"architecture": "amd64", "os": "linux"})
    wrong = described(b"layer", SQUASHFS) | {"size": 6}
    manifest = dump({"config": described(config, CONFIG), "layers": [wrong]})
    index = dump({"manifests": [described(manifest, MANIFEST)]})
    path = tmp_path / "x.sif"
    path.write_bytes(sif(blob(b"layer"), blob(config), blob(manifest), blob(index, ROOT_INDEX)))
    with pytest.raises(FormatError, match="has 5 bytes, 6 by its descriptor"):
        read_ocisif(path)


@given(
    documents=st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        ["config", "layers", "digest", "size", "mediaType", "annotations"]
                    ),
                    inner,
                    max_size=5,
                )
            ),
            max_leaves=12,
        ),
        min_size=2,
        max_size=2,
    )
)
def test_any_documents_are_an_image_or_a_format_error(tmp_path: Path, documents: list[Any]) -> None:
    manifest, config = (dump(document) for document in documents)
    if isinstance(documents[0], dict):
        manifest = dump(documents[0] | {"config": described(config, CONFIG)})
    index = dump({"manifests": [described(manifest, MANIFEST)]})
    path = tmp_path / "x.sif"
    path.write_bytes(sif(blob(config), blob(manifest), blob(index, ROOT_INDEX)))
    with contextlib.suppress(FormatError):
        read_ocisif(path)
