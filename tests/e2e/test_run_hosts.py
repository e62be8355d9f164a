"""Hosts that lack something: containers start all the same, and say what is missing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support import containers
from tests.support.users import WITH_ONE, WITH_RANGE, Somebody, somebody

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.runtime


def program(folder: Path, name: str, script: str, mode: int = 0o755) -> None:
    """Put a program before all others of its name."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(mode)


def with_programs(who: Somebody, folder: Path) -> dict[str, str]:
    """Return an environment in which the folder's programs are found first, and a cache."""
    cache = folder / f"cache-{who.name}"
    cache.mkdir()
    shutil.chown(cache, who.uid, who.gid)
    environment = who.environment()
    path = f"{folder}:{environment['PATH']}"
    return environment | {"PATH": path, "SIFDECK_CACHE_DIR": str(cache)}


@pytest.mark.parametrize("name", ["root", WITH_RANGE, WITH_ONE])
def test_a_squashfuse_of_libfuse_2_mounts_by_itself(
    name: str, busybox: Path, open_folder: Path
) -> None:
    """As Debian 11 and Ubuntu 22.04 have it; it knows no file system that is mounted already."""
    if not shutil.which("squashfuse"):
        pytest.skip("no squashfuse")
    folder = open_folder / f"libfuse2-{name}"
    for server in ("squashfuse", "squashfuse_ll"):
        real = shutil.which(server)
        guard = 'case "$*" in */dev/fd/*) exit 9;; esac  # libfuse.so.2'
        program(folder, server, f'{guard}\nexec {real} "$@"')
    who = somebody(name)
    script = "id -u; stat -c %u /bin/busybox; touch ~/x && echo written"
    environment = with_programs(who, folder)
    done = containers.sifdeck(who, "exec", busybox, "sh", "-c", script, env=environment, text=True)
    owner = who.uid if name == WITH_ONE else 0
    assert (done.stdout, done.stderr) == (f"{who.uid}\n{owner}\nwritten\n", "")


def test_subordinate_ids_that_are_refused(busybox: Path, open_folder: Path) -> None:
    folder = open_folder / "refused"
    refusal = "echo 'newuidmap: uid range [0-1) -> [7-8) not allowed' >&2; exit 1"
    program(folder, "newuidmap", refusal, mode=0o4755)
    who = somebody(WITH_RANGE)
    environment = with_programs(who, folder)
    script = "id -u; stat -c %u /bin/busybox"
    done = containers.sifdeck(who, "exec", busybox, "sh", "-c", script, env=environment, text=True)
    assert done.stdout == f"{who.uid}\n{who.uid}\n", done.stderr
    assert "WARNING: Your subordinate ids cannot be used (newuidmap: uid range" in done.stderr
    (folder / "newuidmap").unlink()  # mended: nothing wrong is remembered
    mended = containers.sifdeck(
        who, "exec", busybox, "sh", "-c", script, env=environment, text=True
    )
    assert (mended.stdout, mended.stderr) == (f"{who.uid}\n0\n", "")


def test_why_an_image_is_extracted(busybox: Path, open_folder: Path) -> None:
    folder = open_folder / "closed"
    folder.mkdir()
    who = somebody(WITH_ONE, fuse=False)
    environment = with_programs(who, folder)
    done = containers.sifdeck(who, "exec", busybox, "true", env=environment, text=True)
    assert done.returncode == 0
    assert "/dev/fuse cannot be opened (No such device" in done.stderr
    assert "an administrator can: modprobe fuse" in done.stderr


_WITHOUT_XATTRS = ["-e", "trace=setxattr", "-e", "inject=setxattr:error=EOPNOTSUPP:when=1"]
"""The first look at a tmpfs finds what Linux before 6.6 answers."""


def on_old_kernel(who: Somebody, *words: str | Path) -> list[str]:
    if not shutil.which("strace"):
        pytest.skip("no strace")
    argv = ["strace", "-f", "-o", "/dev/null", *_WITHOUT_XATTRS, "-u", who.name]
    return somebody("root").command([*argv, containers.SIFDECK, *map(str, words)])


@pytest.mark.parametrize("name", ["root", WITH_RANGE, WITH_ONE])
def test_changes_go_to_disk_where_memory_cannot_hold_them(
    name: str, busybox: Path, open_folder: Path
) -> None:
    who = somebody(name)
    folder = open_folder / f"tmp-{name}"
    folder.mkdir()
    shutil.chown(folder, who.uid, who.gid)
    environment = who.environment() | {"TMPDIR": str(folder)}
    script = "busybox grep -c '^overlay / overlay' /proc/mounts; rm -r /home && echo ready; cat"
    command = on_old_kernel(who, "exec", "--fakeroot", busybox, "sh", "-c", script)
    for is_killed in (False, True):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd="/"
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"  # by the kernel, not by fuse-overlayfs
        assert process.stdout.readline() == b"ready\n"
        assert len(list(folder.iterdir())) == (0 if name == "root" else 1)
        launcher = containers.members(process.pid)[1]
        if is_killed:
            os.kill(launcher.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        containers.wait_until(lambda: list(folder.iterdir()) == [])
