"""The lab registry of our own, on loopback, for tests.

``embedded_registry`` is an empty one, without a login, for one test; ``start_embedded`` starts
others.  Both speak through :class:`tests.support.registry.Registry`, which pushes with
``http.client`` and not with our own client.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backend.labregistry.access import htpasswd_line
from backend.labregistry.server import Options, serving
from tests.support.registry import PASSWORD, USER, Registry

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from backend.labregistry.access import Scheme


@contextlib.contextmanager
def start_embedded(
    folder: Path,
    *,
    scheme: Scheme | None = None,
    read_only: bool = False,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Registry]:
    """Serve ``folder`` until the block ends.

    Args:
        folder: Made when it is not there.
        scheme: Ask for USER and PASSWORD in this way; None lets everybody in.
        read_only: Refuse pushes and deletions.
        tls: Speak TLS; then :meth:`Registry.request` cannot be used.
    """
    options = Options(
        root=folder,
        htpasswd=htpasswd_line(USER, PASSWORD) if scheme else None,
        scheme=scheme or "basic",
        read_only=read_only,
        tls=tls,
    )
    with serving(options) as address:
        yield Registry(host=address, storage=folder, log=Path(), headers={})


@pytest.fixture
def embedded_registry(tmp_path: Path) -> Iterator[Registry]:
    """One empty lab registry, without a login."""
    with start_embedded(tmp_path / "embedded") as running:
        yield running
