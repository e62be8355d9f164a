"""What is prepared in the container's root before the runtime starts.

Done by a child that has made that root its own: links in an image may point anywhere, and
then still lead nowhere but into the image.
"""

from __future__ import annotations

import os
import stat

from backend.errors import ExitCode, LaunchError
from backend.escape import quoted

TYPE_CHECKING = False  # importing typing costs the launcher 5 ms
if TYPE_CHECKING:
    from backend.runtime.plan import Rootfs

_MAX_FILE = 4 << 20
"""Bytes of passwd or group that are looked at."""
_NOT_FOUND, _CANNOT_EXECUTE, _FAILED = 1, 2, 3


def prepare(root: str, wanted: Rootfs) -> None:
    """Add the user's entries and home, and look for the program.

    Args:
        root: The mounted root file system.
        wanted: What to do there.

    Raises:
        LaunchError: The program is not there or cannot be executed; the status says which.
    """
    pid = os.fork()
    if pid == 0:
        status = _FAILED
        try:
            os.chroot(root)
            os.chdir("/")
            status = _prepare_here(wanted)
        except OSError as error:
            os.write(2, os.fsencode(f"WARNING: {error.filename}: {error.strerror}\n"))
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == _NOT_FOUND:
        raise LaunchError(
            f"{quoted(wanted['program'])} is not in the image",
            why=f"it is no file there, and in no folder of PATH={wanted['path']}",
            hint="see what there is: sifdeck exec IMAGE ls /bin",
            status=ExitCode.COMMAND_NOT_FOUND,
        )
    if status == _CANNOT_EXECUTE:
        raise LaunchError(
            f"{quoted(wanted['program'])} in the image cannot be executed",
            why="it is a folder, or has no permission to execute",
            status=ExitCode.CANNOT_EXECUTE,
        )


def _prepare_here(wanted: Rootfs) -> int:
    for place, is_folder in wanted["places"]:
        _complete_link(place, is_folder=is_folder)
    for path in ("passwd", "group"):
        if wanted[path]:
            _complete_link(f"/etc/{path}", is_folder=False)
            _append(f"/etc/{path}", wanted[path])
    home = os.path.realpath(wanted["home"] or "/")
    if not os.path.lexists(home):
        os.makedirs(home, 0o755)
        os.chown(home, *wanted["owner"])
    return _look_for(wanted["program"], wanted["path"], wanted["cwd"])


def _complete_link(place: str, *, is_folder: bool) -> None:
    """Make what a link at ``place`` points to, if it is not there: crun mounts on no such link.

    Images often have /etc/resolv.conf lead to a file below /run that only a running system has.
    """
    target = os.path.realpath(place)
    if target == place or os.path.lexists(target):
        return
    if is_folder:
        os.makedirs(target, 0o755)
    else:
        os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))


def _append(path: str, line: str) -> None:
    """Add a line to passwd or group, unless its id (the third field) is there."""
    os.makedirs("/etc", exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o644)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return
        present = os.read(descriptor, _MAX_FILE)
        number = line.encode().split(b":")[2]
        if any(row.split(b":")[2:3] == [number] for row in present.splitlines()):
            return
        start = b"" if not present or present.endswith(b"\n") else b"\n"
        os.lseek(descriptor, 0, os.SEEK_END)
        os.write(descriptor, start + line.encode("utf-8", "surrogateescape") + b"\n")
    finally:
        os.close(descriptor)


def _look_for(program: str, path: str, cwd: str) -> int:
    """Return 0 if execvp would find the program, else why not."""
    if "/" in program:
        candidates = [os.path.join(cwd, program)]
    else:
        candidates = [os.path.join(cwd, folder, program) for folder in path.split(":")]
    found = _NOT_FOUND
    for candidate in candidates:
        try:
            mode = os.stat(candidate).st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode) and mode & 0o111:
            return 0
        found = _CANNOT_EXECUTE
    return found
