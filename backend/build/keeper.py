"""The folder of one build, and a process that clears it up when ours is killed.

Everything that a build leaves until its end is written down in this folder before it is there:
the process groups that were started, the mark of the builder's containers, its output.  So the
keeper needs to be told nothing.  It waits for the end of a pipe, which the kernel closes when
our process ends, however it ends; what is still in the folder then is nobody's any more.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from backend.build.buildah import remove_containers
from backend.build.cgroups import remove_groups
from backend.build.podmanstate import drop_state
from backend.build.program import GROUPS

if TYPE_CHECKING:
    from collections.abc import Iterator

_GRACE_S = 3.0
"""Seconds between SIGINT and SIGKILL."""

_PAUSE_S = 0.05


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """Give a folder for the builder's output and temporary files, and remove it afterwards.

    The caller must have one thread.
    """
    folder = Path(tempfile.mkdtemp(prefix="sifdeck-build-"))
    (folder / GROUPS).mkdir()
    waiting, alive = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _keep(folder, waiting)
        finally:
            os._exit(0)
    os.close(waiting)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(alive)
        os.waitpid(pid, 0)


def _keep(folder: Path, waiting: int) -> None:
    """Be the keeper: hold nothing of the caller's, wait, clear up."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(waiting, 3)
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))
    os.read(3, 1)
    if folder.exists():
        _clear(folder)


def _clear(folder: Path) -> None:
    groups = [int(path.name) for path in folder.glob(f"{GROUPS}/*")]
    end = time.monotonic() + _GRACE_S
    _signal(groups, signal.SIGINT)
    while _signal(groups, 0) and time.monotonic() < end:
        time.sleep(_PAUSE_S)
    _signal(groups, signal.SIGKILL)
    remove_containers(folder)
    drop_state()
    remove_groups(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _signal(groups: list[int], number: int) -> bool:
    """Signal groups, and tell whether one was there."""
    there = False
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
            there = True
    return there
