"""OCI-SIF files that containers can be started from, made with squashfs-tools."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import images, sifs

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.users import Somebody

    Start = Callable[..., "Started"]

SQUASHFS = "application/vnd.sylabs.image.layer.v1.squashfs"


def squashfs(folder: Path, tar: bytes, *options: str) -> bytes:
    """Return a squashfs of an uncompressed tar."""
    out = folder / "layer.squashfs"
    out.unlink(missing_ok=True)
    argv = ["sqfstar", *(options or ("-comp", "zstd")), str(out)]
    try:
        subprocess.run(argv, input=tar, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no sqfstar (squashfs-tools 4.5)")
    data = out.read_bytes()
    out.unlink()
    return data


def oci_sif(path: Path, layers: list[bytes], config: dict[str, Any]) -> Path:
    """Write an OCI-SIF of squashfs ``layers`` (base first) and a config section."""
    blobs = [sifs.blob(data) for data in layers]
    described = [
        {"mediaType": SQUASHFS, "size": len(data), "digest": images.digest(data)} for data in layers
    ]
    rootfs = {"type": "layers", "diff_ids": [entry["digest"] for entry in described]}
    raw = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": config, "rootfs": rootfs}
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": images.OCI + "manifest.v1+json",
            "config": _described(raw, images.OCI + "config.v1+json"),
            "layers": described,
        }
    ).encode()
    index = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": images.OCI + "index.v1+json",
            "manifests": [_described(manifest, images.OCI + "manifest.v1+json")],
        }
    ).encode()
    documents = [sifs.blob(raw), sifs.blob(manifest), sifs.blob(index, kind=sifs.ROOT_INDEX)]
    path.write_bytes(sifs.sif(*blobs, *documents, capacity=len(blobs) + 11))
    path.chmod(0o755)
    return path


def _described(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "size": len(data), "digest": images.digest(data)}


def busybox(folder: Path, **config: Any) -> Path:
    """Write ``busybox.oci.sif`` with the given config section (``Cmd=[...]`` and so on)."""
    layer = squashfs(folder, images.busybox_layer())
    return oci_sif(folder / "busybox.oci.sif", [layer], {"Cmd": ["sh"]} | config)


SIFDECK = str(Path(sys.executable).with_name("sifdeck"))


RUNTIMES = ("crun", "runc", "builtin")


def need_runtime(name: str) -> str:
    """Return ``name``, or skip the test where that runtime is not installed."""
    if name != "builtin" and not shutil.which(name):
        pytest.skip(f"no {name}")
    return name


def sifdeck(who: Somebody, *arguments: str | Path, **more: Any) -> subprocess.CompletedProcess[Any]:
    """Run the command line as somebody, from a folder they can reach.

    Args:
        who: The user.
        arguments: After ``sifdeck``.
        more: For :func:`subprocess.run`; ``text=True`` for text instead of bytes.
    """
    argv = [SIFDECK, *(str(argument) for argument in arguments)]
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL} if "input" not in more else {}
    options |= {"env": who.environment(), "cwd": "/", "timeout": 60} | more
    return subprocess.run(who.command(argv), capture_output=True, check=False, **options)


@dataclass(kw_only=True)
class Member:
    """A process of a running container."""

    pid: int
    comm: str
    """Moves while a program starts: a busybox is ``exe`` before it is ``sleep``."""
    started: str
    inner_pid: int
    """In the innermost pid namespace, where the first process is 1."""

    def is_gone(self) -> bool:
        """Whether it has ended; a zombie has."""
        stat = _stat(self.pid)
        return stat is None or stat[19] != self.started or stat[0] in {"Z", "X"}


def members(launcher: int) -> list[Member]:
    """Return the launcher and everything below it, parents first."""
    found, waiting = [], [launcher]
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    while waiting:
        pid = waiting.pop(0)
        if (stat := _stat(pid)) and (status := _status(pid)):
            inner_pid = int(status["NSpid"].split()[-1])
            found.append(
                Member(pid=pid, comm=status["Name"], started=stat[19], inner_pid=inner_pid)
            )
            waiting += children.get(pid, [])
    return found


def _status(pid: int) -> dict[str, str] | None:
    """Return the lines of /proc/PID/status; None when the process has been collected."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def wait_until(condition: Callable[[], object], *, within_s: float = 60.0) -> None:
    """Wait for a condition; fail when it does not come true."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


class Started:
    """A container that says when it runs.

    Attributes:
        process: Its launcher.
        members: The launcher and every process below it, once it runs.
    """

    def __init__(self, who: Somebody, *arguments: str | Path) -> None:
        argv = [SIFDECK, *(str(argument) for argument in arguments)]
        self.process = subprocess.Popen(
            who.command(argv),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=who.environment(),
            cwd="/",
        )
        self.members: list[Member] = []

    def wait_for_line(self) -> None:
        """Wait until the container prints ``ready``."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == b"ready\n", self.process.communicate()
        self.members = members(self.process.pid)

    def close(self) -> None:
        """Kill it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=60)

    def finish(self) -> int:
        """Wait for its end and return its status."""
        self.process.communicate(timeout=60)
        return self.process.returncode
