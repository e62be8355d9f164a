"""Podman with a storage of its own, gone without a trace when the test ends."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def podman_with(storage: Path) -> Iterator[list[str]]:
    """Give the command, to which a verb is added.

    Behind every container that has ended, a process of podman's own cleans up; it is waited for.
    """
    if not shutil.which("podman") or not shutil.which("runc"):
        pytest.skip("no podman, or no runc for it")
    runroot = Path(tempfile.mkdtemp(prefix="pod"))  # podman takes no more than 50 characters
    own = ["--root", str(storage), "--runroot", str(runroot), "--storage-driver", "vfs"]
    try:
        yield ["podman", *own, "--cgroup-manager", "cgroupfs"]
    finally:
        wait_until(lambda: not _is_in_use(runroot))
        shutil.rmtree(runroot)


def _is_in_use(runroot: Path) -> bool:
    """Tell whether a command line names the folder."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # the process has ended
            if bytes(runroot) in path.read_bytes():
                return True
    return False
