"""Distribution registries (Debian's ``docker-registry``) on loopback, for tests.

``registry`` is one plain registry for the whole session: give each test's images names of
their own.  ``start_registry`` starts others, with a password file, TLS or token
authentication.  Pushing is done with ``http.client``, not with our own client.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import ssl
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests.support.images import MadeImage, digest, index

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.certificates import Authority

USER, PASSWORD = "alice", "wonderland"
_HTPASSWD = "alice:$2b$04$DumQfdqxCx9/XoSGNls3B.VtvA3ntwC96hTBlvVmgZR21eQIEuTt6\n"
"""bcrypt of PASSWORD with few rounds; the registry takes no other kind."""

_START_S = 20.0


@dataclass(kw_only=True)
class Registry:
    """A running registry.

    Attributes:
        host: ``127.0.0.1:PORT``, as it stands in a reference.
        storage: Its files; a blob's bytes are in ``docker/registry/v2/blobs/sha256/XX/HEX/data``.
        log: What it printed: one line per request.
        headers: Sent with each request that :meth:`push` makes.
        authority: Signed its certificate; None when it speaks plain HTTP.
    """

    host: str
    storage: Path
    log: Path
    headers: dict[str, str]
    authority: Authority | None = None

    def push(self, made: MadeImage, name: str, tag: str = "latest") -> str:
        """Push an image and return its digest."""
        for blob, data in made.blobs.items():
            self.push_blob(name, data, blob)
        return self.put_manifest(name, tag, made.manifest, made.media_type)

    def push_index(
        self, name: str, tag: str, *images: tuple[MadeImage, str], docker: bool = False
    ) -> str:
        """Push (image, ``linux/arm64``) pairs and an index of them; return the index's digest."""
        for made, _platform in images:
            self.push(made, name, made.digest)
        data = index(*images, docker=docker)
        return self.put_manifest(name, tag, data, json.loads(data)["mediaType"])

    def push_blob(self, name: str, data: bytes, expected: str = "") -> str:
        """Push one blob and return its digest."""
        named = expected or digest(data)
        _, headers, _ = self.request("POST", f"/v2/{name}/blobs/uploads/", status=202)
        where = urlsplit(headers["location"])
        query = "&".join(part for part in (where.query, urlencode({"digest": named})) if part)
        self.request("PUT", f"{where.path}?{query}", data, status=201)
        return named

    def put_manifest(self, name: str, tag: str, data: bytes, media_type: str) -> str:
        """Put a manifest or index, as it is, and return its digest."""
        more = {"Content-Type": media_type}
        self.request("PUT", f"/v2/{name}/manifests/{tag}", data, headers=more, status=201)
        return digest(data)

    def get_manifest(self, name: str, tag: str) -> tuple[bytes, str]:
        """Return a manifest's bytes and media type."""
        accept = ",".join(
            f"application/vnd.{kind}+json"
            for kind in (
                "oci.image.manifest.v1",
                "oci.image.index.v1",
                "docker.distribution.manifest.v2",
                "docker.distribution.manifest.list.v2",
            )
        )
        _, headers, body = self.request(
            "GET", f"/v2/{name}/manifests/{tag}", headers={"Accept": accept}, status=200
        )
        return body, headers["content-type"]

    def get_blob(self, name: str, blob: str) -> bytes:
        """Return a blob's bytes."""
        return self.request("GET", f"/v2/{name}/blobs/{blob}", status=200)[2]

    def request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        *,
        headers: dict[str, str] | None = None,
        status: int | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Make one request; return status, headers (lower case) and body."""
        connection = self._connection()
        try:
            connection.request(method, target, body, {**self.headers, **(headers or {})})
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        assert status in {None, answer.status}, (method, target, answer.status, data[:300])
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, data

    def blob_path(self, name: str) -> Path:
        """Return the file that holds a blob, for tests that damage it."""
        value = name.removeprefix("sha256:")
        return self.storage / f"docker/registry/v2/blobs/sha256/{value[:2]}/{value}/data"

    def requests_for(self, text: str) -> list[str]:
        """Return the access-log lines that contain ``text``."""
        return [line for line in self.log.read_text().splitlines() if text in line]

    def _connection(self) -> http.client.HTTPConnection:
        if self.authority is None:
            return http.client.HTTPConnection(self.host, timeout=30)
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        return http.client.HTTPSConnection(self.host, timeout=30, context=context)


@contextlib.contextmanager
def start_registry(
    folder: Path,
    *,
    htpasswd: bool = False,
    token: dict[str, str] | None = None,
    authority: Authority | None = None,
    headers: dict[str, str] | None = None,
    tls: dict[str, Any] | None = None,
) -> Iterator[Registry]:
    """Start a registry whose files are in ``folder``, and end it with the block.

    Args:
        folder: Exists and is empty.
        htpasswd: Ask for USER and PASSWORD by Basic authentication.
        token: The ``auth.token`` section: realm, service, issuer, rootcertbundle.
        authority: Serve HTTPS with a certificate of this authority.
        headers: What :meth:`Registry.push` sends with each request (Authorization).
        tls: More of the section ``http.tls``.
    """
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("no docker-registry")
    storage, log = folder / "storage", folder / "log"
    web: dict[str, Any] = {"addr": "127.0.0.1:0", "secret": "test"}
    if authority:
        web["tls"] = authority.server_files(folder) | (tls or {})
    config: dict[str, Any] = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
        "http": web,
    }
    if htpasswd:
        (folder / "htpasswd").write_text(_HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    if token:
        config["auth"] = {"token": token}
    # JSON is YAML too.
    (folder / "config.yml").write_text(json.dumps(config))
    with log.open("wb") as out:
        process = subprocess.Popen(
            [program, "serve", str(folder / "config.yml")], stdout=out, stderr=out, env={}
        )
    try:
        port = _wait_for_port(process, log)
        yield Registry(
            host=f"127.0.0.1:{port}",
            storage=storage,
            log=log,
            headers=headers or {},
            authority=authority,
        )
    finally:
        process.terminate()
        process.wait(10)


def _wait_for_port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        found = re.search(r"listening on 127\.0\.0\.1:(\d+)", log.read_text())
        if found:
            return int(found[1])
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise AssertionError(f"docker-registry did not start: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One plain registry, without authentication, for the session."""
    with start_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="session")
def locked_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One registry for the session that wants USER and PASSWORD."""
    from base64 import b64encode

    basic = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    with start_registry(
        tmp_path_factory.mktemp("locked"),
        htpasswd=True,
        headers={"Authorization": f"Basic {basic}"},
    ) as running:
        yield running
