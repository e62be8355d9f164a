"""What rootless podman keeps in ``/tmp`` for users without a runtime folder, and its removal.

Without ``$XDG_RUNTIME_DIR`` (a batch job, ``su``) podman makes folders under the temporary
folder, and leaves them and a process that holds its namespaces.  It writes the folders' names
into its database and looks there ever after, so they cannot be ours; but where no podman of
the user's was before, they are removed with the last build that used them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_MARK = "made-by-sifdeck"


@contextlib.contextmanager
def podman_state() -> Iterator[None]:
    """Make podman's folders, unless they are there, and leave them as they were."""
    first, _ = _folders()
    with contextlib.suppress(FileExistsError):
        first.mkdir(mode=0o700)
        (first / _MARK).touch()
    try:
        mark = (first / _MARK).open()
    except OSError:  # they are the user's
        yield
        return
    try:
        with mark:
            fcntl.flock(mark, fcntl.LOCK_SH)
            yield
    finally:
        drop_state()


def drop_state() -> None:
    """Remove podman's folders and its process, if we made them and nobody uses them."""
    first, second = _folders()
    with contextlib.suppress(FileNotFoundError, BlockingIOError), (first / _MARK).open() as mark:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder = _holder(first)
        if holder and _is_shared(holder):
            return
        if holder:
            with contextlib.suppress(ProcessLookupError):
                os.kill(holder, signal.SIGTERM)
        for folder in (first, second):
            shutil.rmtree(folder, ignore_errors=True)


def _folders() -> tuple[Path, Path]:
    base = Path(tempfile.gettempdir())
    return base / f"podman-run-{os.geteuid()}", base / f"containers-user-{os.geteuid()}"


def _holder(folder: Path) -> int:
    """Return the process that keeps podman's namespaces; 0 for none."""
    try:
        pid = int((folder / "libpod/tmp/pause.pid").read_text(encoding="ascii"))
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return 0
    return pid if name.strip() in {"podman", "podman pause", "catatonit"} else 0


def _is_shared(holder: int) -> bool:
    """Tell whether a process, such as a container's, is in the namespace of another one."""
    namespaces = {}
    for path in Path("/proc").glob("[0-9]*/ns/user"):
        with contextlib.suppress(OSError):
            namespaces[int(path.parts[2])] = path.readlink()
    own = namespaces.pop(holder, None)
    return own in namespaces.values()
