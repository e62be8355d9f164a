"""A Docker daemon of the tests' own (Debian's ``docker.io``): private socket, root and mounts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from backend.build.docker import answers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_START_S = 100.0
_QUIET = ("iptables", "ip6tables", "ip-forward", "ip-masq")


@pytest.fixture(scope="session")
def docker_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The socket of a daemon for the session, which touches no firewall and no bridge."""
    for program in ("dockerd", "containerd", "unshare"):
        if not shutil.which(program):
            pytest.skip(f"no {program}")
    if os.geteuid():
        pytest.skip("not root: cannot start dockerd")
    folder = tmp_path_factory.mktemp("docker")
    socket = str(folder / "docker.sock")
    (folder / "config.json").write_text("{}")
    argv = [
        *("unshare", "--mount", "--propagation", "slave", "dockerd"),
        *("--config-file", str(folder / "config.json"), "--host", f"unix://{socket}"),
        *("--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")),
        *("--pidfile", str(folder / "pid"), "--bridge=none", "--storage-driver=overlay2"),
        *(f"--{option}=false" for option in _QUIET),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait(process, socket, folder / "log")
        yield socket
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def has_buildx() -> bool:
    """Tell whether docker has its client of BuildKit here."""
    argv = ["docker", "buildx", "version"]
    return (
        bool(shutil.which("docker"))
        and not subprocess.run(argv, capture_output=True, check=False).returncode
    )


def _wait(process: subprocess.Popen[bytes], socket: str, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while answers(socket) is None:
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.05)
