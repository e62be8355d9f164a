"""Cosign's signatures inside an OCI-SIF, checked with a public key.

Each is an image manifest of its own in the root index; its layers are the signed texts, which
name the digest of the image, and the signature stands beside each as an annotation.  Signatures
without a key, which need a transparency log on the network, are not checked.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.errors import FormatError
from backend.oci.image import parse_manifest
from backend.oci.json import MAX_DOCUMENT, load
from backend.sif.ocisif import image_of, is_cosign, read_blob
from backend.sif.signature import is_signed, load_key

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    from backend.oci.image import Descriptor
    from backend.sif.file import SifFile

SIGNATURE = "dev.cosignproject.cosign/signature"
SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
_TYPE = "cosign container image signature"
_MAX_PAYLOAD = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CosignCheck:
    """One cosign signature, checked.

    Attributes:
        digest: Of the signed text.
        payload: The signed text, as JSON.
        problem: What is wrong with it; empty when it is valid.
    """

    digest: str
    payload: object = None
    problem: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether it is by the key, and of the image that is in the file."""
        return not self.problem


def check_cosign(sif: SifFile, key: Path | None) -> tuple[CosignCheck, ...]:
    """Check every cosign signature in an OCI-SIF.

    Args:
        sif: The file.
        key: The public key in PEM; without one nothing is valid.

    Raises:
        FormatError: The file is no OCI-SIF, or a broken one.
        UsageError: ``key`` holds no public key.
    """
    image = image_of(sif)
    public = load_key(key) if key else None
    checks = []
    for entry in image.index.manifests:
        if not is_cosign(entry):
            continue
        manifest = parse_manifest(read_blob(sif, entry, limit=MAX_DOCUMENT), entry.media_type)
        checks += [
            _check(sif, layer, image.manifest_digest, public)
            for layer in manifest.layers
            if layer.media_type == SIMPLE_SIGNING
        ]
    return tuple(checks)


def _check(
    sif: SifFile, layer: Descriptor, image_digest: str, key: PublicKeyTypes | None
) -> CosignCheck:
    try:
        data = read_blob(sif, layer, limit=_MAX_PAYLOAD)
        payload = load(data, "the signed text")
        critical = payload.need("critical")
        named = critical.need("image").need("docker-manifest-digest").text()
        kind = critical.need("type").text()
        signature = base64.b64decode(layer.annotations.get(SIGNATURE, ""), validate=True)
    except (FormatError, binascii.Error) as error:
        return CosignCheck(digest=layer.digest, problem=str(error))
    problem = ""
    if key is None:
        problem = "there is no key to check it with"
    elif not is_signed(key, signature, data):
        problem = "it is not by this key"
    elif kind != _TYPE:
        problem = "it is not a signature of an image"
    elif named != image_digest:
        problem = f"it is of another image, {named}"
    return CosignCheck(digest=layer.digest, payload=payload.value, problem=problem)
