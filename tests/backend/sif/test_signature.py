"""Signatures in SIF files, made by gpg and by key pairs, as the format describes them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from app.cli.main import main
from app.inspection import inspect_file
from backend.errors import UsageError
from backend.sif.edit import NewObject, edit_sif
from backend.sif.file import SifFile
from backend.sif.records import DataType
from backend.sif.signature import SignatureCheck, check_signatures
from tests.support.sifs import DEFINITION, GO_ZERO, SIGNATURE, Object, partition, sif

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OBJECTS = (
    Object(kind=DEFINITION, data=b"bootstrap: docker\n", group=0),
    Object(kind=DEFINITION, data=b"from: x\n", name=b"def"),
    partition(b"hsqs" * 100),
)
TYPE = b"application/vnd.sylabs.sif-metadata+json"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def message(objects: tuple[Object, ...] = OBJECTS[1:]) -> bytes:
    """Return what is signed of group 1, whose objects have the IDs 2 and 3."""
    head = sif(*OBJECTS)[:128]
    listed = []
    for i, one in enumerate(objects):
        fields = struct.pack("<iBIIqQqq", one.kind, 1, i, one.link, len(one.data), GO_ZERO, 0, 0)
        fields += one.name.ljust(128, b"\0") + one.extra.ljust(384, b"\0")
        listed.append(
            {
                "relativeId": i,
                "descriptorDigest": digest(fields),
                "objectDigest": digest(one.data),
            }
        )
    document = {
        "version": 1,
        "header": {"digest": digest(head[:45] + head[48:64])},
        "objects": listed,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def write(path: Path, signature: bytes, *, objects: tuple[Object, ...] = OBJECTS) -> Path:
    extra = struct.pack("<i", 1) + b"\xab" * 20
    signed = Object(kind=SIGNATURE, data=signature, extra=extra, group=0, link=0xF0000001)
    path.write_bytes(sif(*objects, signed))
    return path


class Gpg:
    """A keyring with one key."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700)
        self.home = home
        self.run("--quick-gen-key", "Ann <ann@example.org>", "ed25519", "sign", "never")
        self.keyring = home / "pubring.kbx"

    def run(self, *arguments: str, data: bytes = b"") -> bytes:
        argv = ["gpg", "--homedir", str(self.home), "--batch", "--passphrase", "", *arguments]
        return subprocess.run(argv, input=data, check=True, capture_output=True).stdout

    def sign(self, data: bytes) -> bytes:
        return self.run("--clearsign", data=data)


@pytest.fixture(scope="module")
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Any:
    if shutil.which("gpg") is None:
        pytest.skip("no gpg")
    # The socket of gpg's agent must have a short path.
    folder = tmp_path_factory.mktemp("g")
    made = Gpg(folder / "h")
    yield made
    subprocess.run(["gpgconf", "--homedir", str(made.home), "--kill", "gpg-agent"], check=False)


def check(path: Path, **options: Any) -> SignatureCheck:
    with SifFile(path) as file:
        (found,) = check_signatures(file, **options)
    return found


def test_openpgp(gpg: Gpg, tmp_path: Path) -> None:
    path = write(tmp_path / "x.sif", gpg.sign(message()))
    found = check(path, keyrings=[tmp_path / "none", gpg.keyring])
    assert found.is_sound
    assert (found.form, found.objects) == ("OpenPGP", (2, 3))
    assert found.signer.endswith(" Ann <ann@example.org>")


def test_openpgp_by_an_unknown_key(gpg: Gpg, tmp_path: Path) -> None:
    found = check(write(tmp_path / "x.sif", gpg.sign(message())))
    assert (found.state, found.problems, found.is_sound) == ("unknown key", (), False)
    assert found.signer == "AB" * 20


def test_openpgp_message_that_was_changed(gpg: Gpg, tmp_path: Path) -> None:
    signed = gpg.sign(message()).replace(b'"relativeId":1', b'"relativeId":0')
    found = check(write(tmp_path / "x.sif", signed), keyrings=[gpg.keyring])
    assert found.state == "bad"


@pytest.mark.parametrize(
    ("objects", "problem"),
    [
        ((OBJECTS[0], OBJECTS[1], partition(b"HSQS" * 100)), "object 3 has changed"),
        (
            (OBJECTS[0], Object(kind=DEFINITION, data=b"from: x\n", name=b"DEF"), OBJECTS[2]),
            "the descriptor of object 2 has changed",
        ),
        (OBJECTS[:2], "object 3"),
    ],
)
def test_changed_objects(
    gpg: Gpg, tmp_path: Path, objects: tuple[Object, ...], problem: str
) -> None:
    path = write(tmp_path / "x.sif", gpg.sign(message()), objects=objects)
    found = check(path, keyrings=[gpg.keyring])
    assert found.state == "valid"
    assert problem in found.problems[0]
    assert not found.is_sound


def test_changed_header_and_added_object(gpg: Gpg, tmp_path: Path) -> None:
    import io

    path = write(tmp_path / "x.sif", gpg.sign(message()))
    with edit_sif(path) as editor:
        editor.add(NewObject(kind=DataType.RAW, group=1), io.BytesIO(b"more"))
        editor.add(NewObject(kind=DataType.RAW, group=2), io.BytesIO(b"other group"))
    assert check(path, keyrings=[gpg.keyring]).problems == ("object 5 is not signed",)
    data = bytearray(path.read_bytes())
    data[48] = 7
    path.write_bytes(data)
    assert "the header has changed" in check(path, keyrings=[gpg.keyring]).problems


def envelope(sign: Callable[[bytes], bytes], payload: bytes) -> bytes:
    signed = b"DSSEv1 %d %s %d %s" % (len(TYPE), TYPE, len(payload), payload)
    document = {
        "payloadType": TYPE.decode(),
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"sig": base64.b64encode(sign(signed)).decode()}],
    }
    return json.dumps(document).encode()


def key_pairs() -> list[tuple[Any, Callable[[bytes], bytes]]]:
    first = rsa.generate_private_key(65537, 2048)
    second = ec.generate_private_key(ec.SECP256R1())
    third = ed25519.Ed25519PrivateKey.generate()
    return [
        (first.public_key(), lambda data: first.sign(data, padding.PKCS1v15(), SHA256())),
        (second.public_key(), lambda data: second.sign(data, ec.ECDSA(SHA256()))),
        (third.public_key(), third.sign),
    ]


def write_key(path: Path, key: Any) -> Path:
    path.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def test_key_pairs(tmp_path: Path) -> None:
    pairs = key_pairs()
    path = tmp_path / "x.sif"
    for i, (public, sign) in enumerate(pairs):
        write(path, envelope(sign, message()))
        assert check(path, key=write_key(tmp_path / "k.pem", public)).is_sound
        assert check(path).state == "unknown key"
        other = write_key(tmp_path / "o.pem", pairs[i - 1][0])
        assert check(path, key=other).state == "bad"
    (tmp_path / "bad.pem").write_bytes(b"no key")
    with pytest.raises(UsageError, match="no public key"):
        check(path, key=tmp_path / "bad.pem")


def test_command(
    gpg: Gpg, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "x.sif", gpg.sign(message()))
    assert main(["verify", str(path)]) == 14
    printed = capsys.readouterr()
    assert "UNKNOWN KEY  OpenPGP signature of objects 2, 3 by ABAB" in printed.out
    assert "gpg --import" in printed.err
    monkeypatch.setenv("SINGULARITY_SYPGPDIR", str(tmp_path / "sypgp"))
    (tmp_path / "sypgp").mkdir()
    (tmp_path / "sypgp" / "pgp-public").write_bytes(gpg.run("--export"))
    assert main(["verify", str(path)]) == 0
    assert "ok           OpenPGP signature" in capsys.readouterr().out
    assert main(["verify", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["signatures"][0]["sound"] is True
    path.write_bytes(sif(*OBJECTS))
    assert main(["verify", str(path)]) == 14
    assert "neither digests nor signatures" in capsys.readouterr().err


@given(
    document=st.recursive(
        st.none() | st.integers(-1, 5) | st.sampled_from(["sha256:00", "blake2s-256:1", "x", ""]),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(
                    ["version", "header", "digest", "objects", "relativeId", "objectDigest"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=10,
    )
)
def test_any_message_is_checked_without_another_error(tmp_path: Path, document: Any) -> None:
    payload = json.dumps(document).encode()
    path = write(tmp_path / "x.sif", envelope(lambda _: b"sig", payload))
    assert not check(path).is_sound


def test_rubbish(tmp_path: Path) -> None:
    for data in (b"", b"{}", b"[", os.urandom(300), b'{"payloadType":"x","payload":"%%%"}'):
        found = check(write(tmp_path / "x.sif", data))
        assert (found.state, bool(found.problems)) == ("bad", True)


def test_the_deck_shows_who_says_to_have_signed(tmp_path: Path) -> None:
    path = tmp_path / "signed.sif"
    write(path, b"a message")
    lines = inspect_file(path)["Signatures"]
    assert "group 1" in lines[0]
    assert "AB" * 20 in lines[0]
    assert lines[-1].startswith("v  checks")
