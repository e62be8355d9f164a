"""Whom we trust over TLS: the system's authorities, one given by hand, and ``certs.d``.

``/etc/containers/certs.d/HOST[:PORT]``, the same below ``/etc/docker`` and below the user's
``~/.config/containers``: every ``*.crt`` is an authority, every ``*.cert`` with a ``*.key`` of
the same name a client certificate, as containers-certs.d(5) says.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from backend.errors import UsageError
from backend.escape import one_line

SYSTEM_FOLDERS = (Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What certificates are accepted.

    Attributes:
        ca_cert: A PEM file of authorities, trusted besides the system's; None for none.
        insecure: Accept any certificate; whoever asks for it must be told what that means.
    """

    ca_cert: Path | None = None
    insecure: bool = False


def certificate_folders(netloc: str) -> tuple[Path, ...]:
    """Return the folders of ``certs.d`` that exist for ``host:port``, the user's first."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    places = (config / "containers/certs.d", *SYSTEM_FOLDERS)
    return tuple(path for place in places if (path := place / netloc).is_dir())


def make_context(trust: Trust, netloc: str) -> ssl.SSLContext:
    """Return what a connection to ``host:port`` needs.

    Raises:
        UsageError: A certificate file cannot be read.
    """
    context = ssl.create_default_context()
    if trust.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if trust.ca_cert:
        _load(context, trust.ca_cert)
    for folder in certificate_folders(netloc):
        for authority in sorted(folder.glob("*.crt")):
            _load(context, authority)
        for certificate in sorted(folder.glob("*.cert")):
            _load_client(context, certificate)
    return context


def plain_context() -> ssl.SSLContext:
    """Return a context for clients that speak HTTP only: without the 20 ms of authorities."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _load(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except (OSError, ssl.SSLError) as error:
        raise _unreadable(path, error) from error


def _load_client(context: ssl.SSLContext, certificate: Path) -> None:
    try:
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    except (OSError, ssl.SSLError) as error:
        raise _unreadable(certificate, error) from error


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _unreadable(path: Path, error: Exception) -> UsageError:
    return UsageError(
        f"{one_line(str(path))} cannot be used as a certificate",
        why=one_line(_reason(error)),
        hint="it has to be readable, and in PEM form: -----BEGIN CERTIFICATE-----",
    )
