"""A certificate authority for tests, made with the ``openssl`` program."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


@dataclass(kw_only=True)
class Authority:
    """A self-signed authority; ``certificate`` and ``key`` are PEM files."""

    certificate: Path
    key: Path

    def server_files(self, folder: Path) -> dict[str, str]:
        """Make a certificate for 127.0.0.1 and localhost; return docker-registry's tls section."""
        names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
        certificate, key = self.issue(folder, "server", names)
        return {"certificate": str(certificate), "key": str(key)}

    def issue(self, folder: Path, name: str, extension: str) -> tuple[Path, Path]:
        """Make a certificate that this authority signed; return its PEM file and its key's."""
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        _openssl(
            *("req", "-x509", *_NEW_KEY, "-keyout", str(key), "-out", str(certificate)),
            *("-subj", f"/CN={name}", "-days", "2", "-addext", extension),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-CA", str(self.certificate), "-CAkey", str(self.key)),
        )
        return certificate, key


def make_authority(folder: Path) -> Authority:
    """Make an authority whose files are in ``folder``."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    made = Authority(certificate=folder / "ca.crt", key=folder / "ca.key")
    _openssl(
        *("req", "-x509", *_NEW_KEY, "-keyout", str(made.key), "-out", str(made.certificate)),
        *("-subj", "/CN=test authority", "-days", "2"),
        *("-addext", "keyUsage=critical,keyCertSign"),
    )
    return made


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
