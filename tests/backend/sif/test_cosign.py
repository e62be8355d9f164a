"""Cosign's signatures in OCI-SIF files, made as cosign makes them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.cli.main import main
from backend.sif.edit import NewObject, edit_sif
from backend.sif.file import SifFile
from backend.sif.ocisif import read_ocisif
from backend.sif.records import DataType
from tests.support.images import Entry
from tests.support.squashed import write_sif

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registry import Registry

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"


def described(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return {"mediaType": media_type, "size": len(data), "digest": digest, **more}


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def public(path: Path, key: ec.EllipticCurvePrivateKey) -> str:
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.write_bytes(pem)
    return str(path)


def sign(path: Path, key: ec.EllipticCurvePrivateKey, **changes: Any) -> None:
    """Put a signature of the image into its file."""
    found = read_ocisif(path)
    critical = {
        "identity": {"docker-reference": ""},
        "image": {"docker-manifest-digest": found.manifest_digest},
        "type": "cosign container image signature",
    }
    payload = json.dumps({"critical": critical | changes, "optional": None}).encode()
    text = base64.b64encode(key.sign(payload, ec.ECDSA(SHA256()))).decode()
    annotations = {"dev.cosignproject.cosign/signature": text}
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described(b"{}", CONFIG),
            "layers": [described(payload, PAYLOAD, annotations=annotations)],
        }
    ).encode()
    name = f"_cosign:{found.manifest_digest.replace(':', '-')}.sig"
    entry = described(manifest, MANIFEST, annotations={"org.opencontainers.image.ref.name": name})
    with SifFile(path) as file:
        (root,) = file.of_kind(DataType.OCI_ROOT_INDEX)
        index = json.loads(file.read(root, limit=1 << 20))
    index["manifests"].append(entry)
    with edit_sif(path) as editor:
        editor.delete(root.id)
        for data in (payload, b"{}", manifest):
            editor.add(NewObject(kind=DataType.OCI_BLOB), io.BytesIO(data))
        data = json.dumps(index).encode()
        editor.add(NewObject(kind=DataType.OCI_ROOT_INDEX), io.BytesIO(data))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_sif(tmp_path / "x.sif", [Entry(name="a")])


def test_valid(
    image: Path, key: ec.EllipticCurvePrivateKey, capsys: pytest.CaptureFixture[str]
) -> None:
    sign(image, key)
    pem = public(image.with_name("k.pub"), key)
    assert main(["verify", "--cosign", "--key", pem, str(image)]) == 0
    (payload,) = json.loads(capsys.readouterr().out)
    digest = payload["critical"]["image"]["docker-manifest-digest"]
    assert digest == read_ocisif(image).manifest_digest
    assert main(["verify", "--cosign", str(image)]) == 2


@pytest.mark.registry
def test_signatures_are_pushed_with_the_image(
    image: Path,
    key: ec.EllipticCurvePrivateKey,
    registry: Registry,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = f"docker://{registry.host}/cosign/signed:v1"
    assert main(["push", "--with-cosign", str(image), target]) == 2
    assert "holds no cosign signatures" in capsys.readouterr().err
    sign(image, key)
    for argv in (["--layer-format", "tar", str(image), target], [str(image), f"oras{target[6:]}"]):
        assert main(["push", "--with-cosign", *argv]) == 2
    assert main(["push", "--with-cosign", str(image), target]) == 0
    digest = read_ocisif(image).manifest_digest
    tag = f"{digest.replace(':', '-')}.sig"
    assert f"Writing cosign signatures: docker://{registry.host}/cosign/signed:{tag}" in (
        capsys.readouterr().err
    )
    manifest = json.loads(registry.get_manifest("cosign/signed", tag)[0])
    payload = json.loads(registry.get_blob("cosign/signed", manifest["layers"][0]["digest"]))
    assert payload["critical"]["image"]["docker-manifest-digest"] == digest
    assert main(["referrers", "--json", target]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["artifactType"] == "application/vnd.dev.cosign.sig"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": {"docker-manifest-digest": f"sha256:{'0' * 64}"}}, "of another image"),
        ({"type": "something"}, "not a signature of an image"),
        ({"image": None}, "missing"),
    ],
)
def test_signature_of_something_else(
    image: Path,
    key: ec.EllipticCurvePrivateKey,
    changes: dict[str, Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sign(image, key, **changes)
    pem = public(image.with_name("k.pub"), key)
    assert main(["verify", "-c", "--key", pem, str(image)]) == 14
    printed = capsys.readouterr().err
    assert message in printed
    assert "no valid signatures found" in printed


def test_other_key_and_no_signature(
    image: Path, key: ec.EllipticCurvePrivateKey, capsys: pytest.CaptureFixture[str]
) -> None:
    other = public(image.with_name("o.pub"), ec.generate_private_key(ec.SECP256R1()))
    assert main(["verify", "-c", "--key", other, str(image)]) == 14
    sign(image, key)
    assert main(["verify", "-c", "--key", other, str(image)]) == 14
    assert "not by this key" in capsys.readouterr().err


def test_damaged_layer(
    image: Path, key: ec.EllipticCurvePrivateKey, capsys: pytest.CaptureFixture[str]
) -> None:
    sign(image, key)
    with image.open("r+b") as file:
        file.seek(read_ocisif(image).layers[0].offset + 100)
        file.write(b"damage")
    pem = public(image.with_name("k.pub"), key)
    assert main(["verify", "-c", "--key", pem, str(image)]) == 14
    assert "OCI blob digest mismatch" in capsys.readouterr().err
