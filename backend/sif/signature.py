"""Signatures in a SIF file: what each says was signed, and whether it is still so.

A signature object holds a message that lists digests: of the header, and of each object of a
group, its descriptor and its bytes.  The message is signed with OpenPGP (a cleartext message,
checked by ``gpg``) or with a key pair (a DSSE envelope, checked here).  Two questions are
answered apart from each other: is the message by somebody whose key we have, and do its
digests match the file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from backend.errors import FormatError, ToolFailedError, UsageError
from backend.escape import one_line
from backend.oci.json import Node, load
from backend.sif.records import GROUP_MASK, DataType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    from backend.sif.file import SifFile
    from backend.sif.records import Descriptor

PAYLOAD_TYPE = "application/vnd.sylabs.sif-metadata+json"
_CLEARTEXT = b"-----BEGIN PGP SIGNED MESSAGE-----"
_MAX_MESSAGE = 4 << 20
_GPG_S = 60
_ALGORITHMS = frozenset({"sha256", "sha384", "sha512", "blake2s-256", "blake2b-256"})
_HEADER_PARTS = ((0, 45), (48, 64))
"""What of the header is signed: launch script, magic and version, and the ID."""
_DESCRIPTOR = struct.Struct("<iBIIqqqq")


class _Hasher(Protocol):
    """What hashes of all kinds have in common."""

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


State = Literal["valid", "bad", "unknown key"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureCheck:
    """A signature of a file, checked.

    Attributes:
        id: Of its descriptor.
        form: ``OpenPGP`` or ``DSSE``.
        signer: Fingerprint of the key and the name in it, as far as they are known.
        state: Whether the message is by a key that we have.
        objects: IDs of the objects that it covers.
        problems: What does not match, in sentences; empty when everything does.
    """

    id: int
    form: str
    signer: str
    state: State
    objects: tuple[int, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether the signature is valid and everything that it covers is unchanged."""
        return self.state == "valid" and not self.problems


def check_signatures(
    sif: SifFile, *, keyrings: Sequence[Path] = (), key: Path | None = None
) -> tuple[SignatureCheck, ...]:
    """Check every signature of a SIF file.

    Args:
        sif: The file.
        keyrings: With OpenPGP keys; those that do not exist are passed over.
        key: A public key in PEM, for signatures made with a key pair.

    Raises:
        ToolMissingError: There is an OpenPGP signature, and no gpg.
        UsageError: ``key`` holds no public key.
    """
    public = load_key(key) if key else None
    return tuple(_check(sif, one, keyrings, public) for one in sif.of_kind(DataType.SIGNATURE))


def default_keyrings() -> tuple[Path, ...]:
    """Return where the user's OpenPGP keys are: SingularityCE's keyring, and gpg's."""
    from backend.paths import singularity_home

    folder = os.environ.get("SINGULARITY_SYPGPDIR")
    sypgp = Path(folder) if folder else singularity_home() / "sypgp"
    gnupg = Path(os.environ.get("GNUPGHOME") or Path.home() / ".gnupg")
    return (sypgp / "pgp-public", gnupg / "pubring.kbx", gnupg / "pubring.gpg")


def _check(
    sif: SifFile, one: Descriptor, keyrings: Sequence[Path], key: PublicKeyTypes | None
) -> SignatureCheck:
    form, signer, state, message = "unknown", "", "bad", b""
    try:
        data = sif.read(one, limit=_MAX_MESSAGE)
        if data.startswith(_CLEARTEXT):
            form = "OpenPGP"
            state, signer, message = _open_cleartext(data, keyrings)
            signer = signer or one.signature().entity.hex().upper()
        else:
            form = "DSSE"
            state, message = _open_envelope(data, key)
        objects, problems = _compare(sif, one, message) if message else ((), ())
    except FormatError as error:
        return SignatureCheck(
            id=one.id, form=form, signer=signer, state="bad", problems=(error.message,)
        )
    return SignatureCheck(
        id=one.id, form=form, signer=signer, state=state, objects=objects, problems=problems
    )


def _open_cleartext(data: bytes, keyrings: Sequence[Path]) -> tuple[State, str, bytes]:
    """Return the state of an OpenPGP message, who signed it, and its text."""
    import asyncio

    from backend.cache import scratch_folder
    from backend.paths import cache_home
    from backend.process import run_tool

    with scratch_folder(cache_home(), "gpg") as home:
        argv = ["gpg", "--homedir", str(home), "--batch", "--no-default-keyring"]
        argv += ["--trust-model", "always", "--status-fd", "2"]
        for keyring in keyrings:
            if keyring.exists():
                argv += ["--keyring", str(keyring.absolute())]
        try:
            done = asyncio.run(run_tool([*argv, "--decrypt"], timeout_s=_GPG_S, stdin=data))
        except ToolFailedError as error:
            is_unknown = "NO_PUBKEY" in error.stderr and "BADSIG" not in error.stderr
            return "unknown key" if is_unknown else "bad", "", _text_of(data)
    words = [line.split() for line in done.stderr.splitlines() if line.startswith("[GNUPG:]")]
    valid = [line[2] for line in words if line[1:2] == ["VALIDSIG"]]
    names = [" ".join(line[3:]) for line in words if line[1:2] == ["GOODSIG"]]
    if len(valid) != 1 or len(names) != 1:  # expired and revoked keys have other words
        return "bad", "", done.stdout.encode()
    return "valid", f"{valid[0]} {names[0]}", done.stdout.encode()


def _text_of(data: bytes) -> bytes:
    """Return the text of a cleartext message that nobody vouches for."""
    return data.partition(b"\n\n")[2].partition(b"\n-----BEGIN PGP SIGNATURE")[0]


def _open_envelope(data: bytes, key: PublicKeyTypes | None) -> tuple[State, bytes]:
    """Return the state of a DSSE envelope and its payload."""
    root = load(data, "the signature")
    if root.need("payloadType").text() != PAYLOAD_TYPE:
        raise FormatError("the signature is not of a SIF file")
    payload = _decode(root.need("payload"))
    signatures = [_decode(one.need("sig")) for one in root.need("signatures").items()]
    if key is None:
        return "unknown key", payload
    kind = PAYLOAD_TYPE.encode()
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    is_valid = any(is_signed(key, signature, signed) for signature in signatures)
    return "valid" if is_valid else "bad", payload


def _decode(node: Node) -> bytes:
    try:
        return base64.b64decode(node.text(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise node.fail("base64") from error


def is_signed(key: PublicKeyTypes, signature: bytes, data: bytes) -> bool:
    """Tell whether ``signature`` is of ``data`` by the key's owner, with SHA-256."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        match key:
            case rsa.RSAPublicKey():
                key.verify(signature, data, padding.PKCS1v15(), SHA256())
            case ec.EllipticCurvePublicKey():
                key.verify(signature, data, ec.ECDSA(SHA256()))
            case ed25519.Ed25519PublicKey():
                key.verify(signature, data)
            case _:
                return False
    except InvalidSignature:
        return False
    return True


def load_key(path: Path) -> PublicKeyTypes:
    """Return the public key in a PEM file.

    Raises:
        UsageError: It holds none.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        return load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{one_line(str(path))} holds no public key in PEM") from error


def _compare(
    sif: SifFile, signature: Descriptor, message: bytes
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return which objects a message covers and what of them does not match."""
    root = load(message, "the signed message")
    if root.need("version").size() != 1:
        raise FormatError("the signed message is of an unknown version")
    problems = []
    if not _matches(root.need("header").need("digest"), _signed_header(sif)):
        problems.append("the header has changed")
    base = _base_id(sif, signature)
    covered = []
    for node in root.need("objects").items():
        number = base + node.need("relativeId").size()
        covered.append(number)
        found = [one for one in sif.descriptors if one.id == number]
        if not found:
            problems.append(f"object {number} is gone")
            continue
        problems += _compare_object(sif, found[0], node, base)
    return tuple(covered), (*problems, *_uncovered(sif, signature, covered))


def _base_id(sif: SifFile, signature: Descriptor) -> int:
    """Return the smallest ID of the group, which relative IDs count from."""
    group = signature.link
    if not signature.link_is_group:
        group = next((one.group for one in sif.descriptors if one.id == signature.link), 0)
    members = [one.id for one in sif.descriptors if one.group == group and group]
    if not members:
        raise FormatError("the signature is of a group that is not there")
    return min(members)


def _uncovered(sif: SifFile, signature: Descriptor, covered: Sequence[int]) -> list[str]:
    """Name what was added to a signed group later; a signature of one object says nothing of it."""
    if not signature.link_is_group:
        return [] if signature.link in covered else [f"object {signature.link} is not signed"]
    return [
        f"object {one.id} is not signed"
        for one in sif.descriptors
        if one.group == signature.link and one.id not in covered
    ]


def _compare_object(sif: SifFile, one: Descriptor, node: Node, base: int) -> list[str]:
    problems = []
    if not _matches(node.need("descriptorDigest"), _signed_descriptor(one, base)):
        problems.append(f"the descriptor of object {one.id} has changed")
    total = _hasher(node.need("objectDigest"))
    for chunk in sif.chunks(one):
        total.update(chunk)
    if not node.need("objectDigest").text().endswith(f":{total.hexdigest()}"):
        problems.append(f"object {one.id} has changed")
    return problems


def _signed_header(sif: SifFile) -> bytes:
    data = os.pread(sif.fileno(), 128, 0)
    return b"".join(data[start:end] for start, end in _HEADER_PARTS)


def _signed_descriptor(one: Descriptor, base: int) -> bytes:
    link = one.link | (GROUP_MASK if one.link_is_group else 0)
    fields = (one.kind, 1, one.id - base, link, one.size, one.created, one.uid, one.gid)
    return _DESCRIPTOR.pack(*fields) + one.name.ljust(128, b"\0") + one.extra.ljust(384, b"\0")


def _matches(node: Node, data: bytes) -> bool:
    total = _hasher(node)
    total.update(data)
    return node.text().endswith(f":{total.hexdigest()}")


def _hasher(node: Node) -> _Hasher:
    """Return a hash object for the algorithm that a digest names."""
    name = node.text().partition(":")[0]
    if name not in _ALGORITHMS:
        raise node.fail("a digest that we know")
    if name.startswith("blake2"):
        return (hashlib.blake2s if name[6] == "s" else hashlib.blake2b)(digest_size=32)
    return hashlib.new(name)
