"""Private networks: connected by pasta or slirp4netns, with ports of the host."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import containers
from tests.support.users import WITH_ONE, WITH_RANGE, somebody

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.users import Somebody

pytestmark = pytest.mark.runtime

USERS = ("root", WITH_RANGE, WITH_ONE)
PROCESS = {"pasta": "passt", "slirp4netns": "slirp4netns"}
"""What a program's process is called: pasta starts a passt for the processor at hand."""
ONCE = "busybox nc -l -p 80 -e echo from-inside"


@pytest.fixture(params=["pasta", "slirp4netns"])
def program(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if not shutil.which(name):
        pytest.skip(f"no {name}")
    if not Path("/dev/net/tun").exists():
        pytest.skip("no /dev/net/tun")
    return name


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(who: Somebody, *words: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a container that says when it has begun; it is killed at the end."""
    argv = [containers.SIFDECK, "exec", *map(str, words)]
    with subprocess.Popen(
        who.command(argv), stdout=subprocess.PIPE, env=who.environment(), cwd="/"
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def ask(port: int) -> bytes:
    """Return what the container answers; nothing while it does not listen yet."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as connection:
        connection.settimeout(60)
        return connection.recv(100)
    return b""


@pytest.mark.parametrize("name", USERS)
def test_a_port_is_published(name: str, program: str, busybox: Path) -> None:
    port = free_port()
    flags = ["--runtime", "builtin", "--net", "--network", program, "-p", f"127.0.0.1:{port}:80"]
    script = f"echo ready; while {ONCE}; do :; done"
    with serving(somebody(name), *flags, busybox, "sh", "-c", script) as process:
        containers.wait_until(lambda: ask(port) == b"from-inside\n")
        members = containers.members(process.pid)
        assert any(member.comm.startswith(PROCESS[program]) for member in members)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=60)
        containers.wait_until(lambda: all(member.is_gone() for member in members))
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


def test_a_datagram_port_is_published(program: str, busybox: Path) -> None:
    """To be seen on the host only: busybox has nothing that answers datagrams."""
    port = free_port()
    flags = ["--net", "--network", program, "-p", f"127.0.0.1:{port}:53/udp"]
    bound = f"0100007F:{port:04X}"
    with serving(somebody(WITH_RANGE), *flags, busybox, "sh", "-c", "echo ready; sleep 600"):
        assert bound in Path("/proc/net/udp").read_text()
        assert bound not in Path("/proc/net/tcp").read_text()


def test_a_port_in_use_is_named(program: str, busybox: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        flags = ["--net", "--network", program, "-p", f"127.0.0.1:{port}:80"]
        done = containers.sifdeck(somebody(WITH_ONE), "exec", *flags, busybox, "true", text=True)
    assert done.returncode == 125
    assert f"cannot publish port {port}" in done.stderr
    assert "in use" in done.stderr


def test_pasta_comes_first(busybox: Path) -> None:
    if not shutil.which("pasta"):
        pytest.skip("no pasta")
    with serving(
        somebody("root"), "--net", busybox, "sh", "-c", "echo ready; sleep 600"
    ) as process:
        names = [member.comm for member in containers.members(process.pid)]
    assert any(name.startswith("passt") for name in names)
