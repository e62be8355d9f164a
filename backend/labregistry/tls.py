"""TLS for the lab registry: a given certificate, or one made on the spot.

``cryptography`` makes it: the package comes with keyring on every Linux, where the
``openssl`` program need not be.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import ssl
from typing import TYPE_CHECKING

from backend.errors import FormatError

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography import x509

_DAYS = 30


def load_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the server's TLS context.

    Raises:
        FormatError: The files are no certificate and key, or do not belong together.
        OSError: They cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise FormatError(f"{certificate} and {key} are no certificate and its key") from error
    return context


def make_certificate(certificate: Path, key: Path, host: str) -> None:
    """Write a certificate for ``host``, localhost and the loopback addresses, and its key.

    The certificate is its own authority, so clients are given the file itself to trust.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    secret = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sifdeck lab registry")])
    now = dt.datetime.now(dt.UTC)
    # Own authority and leaf at once, for as long as a course lasts.
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(secret, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret_pem = secret.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with open(key, "wb", opener=_private) as out:
        out.write(secret_pem)
    certificate.write_bytes(made.public_bytes(pem))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _names(host: str) -> list[x509.GeneralName]:
    from cryptography import x509

    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    for text in {"127.0.0.1", "::1", host}:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(text)))
        except ValueError:
            names.append(x509.DNSName(text))
    return names
