"""``sifdeck registry serve`` as a process: address on stdout, advice on stderr, a clean end."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from backend.labregistry.access import htpasswd_line
from tests.support.images import digest
from tests.support.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

SIFDECK = str(Path(sys.executable).with_name("sifdeck"))


@contextlib.contextmanager
def serve(*options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the command; yield the address that it printed."""
    argv = [SIFDECK, "registry", "serve", "--port", "0", *options]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip(), process
        finally:
            process.send_signal(signal.SIGTERM)


def status(address: str, where: str = "/v2/", context: ssl.SSLContext | None = None) -> int:
    connection = (
        http.client.HTTPSConnection(address, timeout=20, context=context)
        if context
        else http.client.HTTPConnection(address, timeout=20)
    )
    with contextlib.closing(connection):
        connection.request("GET", where)
        return connection.getresponse().status


def test_it_serves_on_loopback_and_ends_when_asked(tmp_path: Path) -> None:
    with serve("--root", str(tmp_path / "root")) as (address, process):
        assert address.startswith("127.0.0.1:")
        assert status(address) == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr
        told = process.stderr.read()
    assert "for labs and tests, not for production" in told
    assert "Everybody" not in told
    assert "Traceback" not in told


def test_a_kill_in_the_middle_of_an_upload_leaves_no_half_blob(tmp_path: Path) -> None:
    root, whole = tmp_path / "root", b"x" * 100_000
    name = digest(whole)
    with serve("--root", str(root)) as (address, process):
        registry = Registry(host=address, storage=root, log=Path(), headers={})
        registry.push_blob("a", whole)
        _, headers, _ = registry.request("POST", "/v2/a/blobs/uploads/", status=202)
        where = headers["location"]
        registry.request("PATCH", where, b"y" * 70_000, status=202)
        # A second one is cut while its bytes come.
        _, headers, _ = registry.request("POST", "/v2/a/blobs/uploads/", status=202)
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port))) as line:
            head = f"PATCH {headers['location']} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999"
            line.sendall(f"{head}\r\n\r\n".encode() + b"z" * 50_000)
            process.kill()
            process.wait(60)
    assert list((root / "uploads").iterdir())
    with serve("--root", str(root)) as (address, _):
        registry = Registry(host=address, storage=root, log=Path(), headers={})
        assert registry.get_blob("a", name) == whole
        assert registry.request("GET", where)[0] == 404  # begins anew, and the client can tell
        assert not list((root / "uploads").iterdir())
    assert [path.name for path in (root / "blobs/sha256").iterdir()] == [name.partition(":")[2]]


def test_password_and_certificate(tmp_path: Path) -> None:
    (tmp_path / "users").write_text(htpasswd_line("ann", "secret"))
    root = tmp_path / "root"
    with serve("--root", str(root), "--htpasswd", str(tmp_path / "users"), "--tls") as (address, _):
        context = ssl.create_default_context(cafile=str(root / "registry.crt"))
        assert status(address, context=context) == 401


def test_the_default_folder_is_in_the_state_folder(clean_home: Path) -> None:
    with serve() as (address, _):
        assert status(address, "/v2/none/tags/list") == 404
    assert (clean_home / ".local/state/sifdeck/registry/blobs").is_dir()


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [SIFDECK, "registry", "serve", *argv]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def test_mistakes_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("ann:plain\n")
    done = run("--root", str(tmp_path / "a"), "--htpasswd", str(tmp_path / "users"))
    assert done.returncode == 1
    assert "neither bcrypt nor" in done.stderr
    assert run("--root", str(tmp_path / "a"), "--cert", str(tmp_path / "users")).returncode == 2
    with serve("--root", str(tmp_path / "b")) as (address, _):
        done = run("--root", str(tmp_path / "b"))
        assert (done.returncode, "another process serves" in done.stderr) == (1, True)
        port = address.rpartition(":")[2]
        done = run("--root", str(tmp_path / "c"), "--port", port)
        assert (done.returncode, f"port {port}" in done.stderr) == (13, True)
    (tmp_path / "closed").write_text("")
    assert run("--root", str(tmp_path / "closed")).returncode == 2
