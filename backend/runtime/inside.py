"""Places inside a root file system that is not our root: links lead nowhere but into it."""

from __future__ import annotations

import os
import stat

_MAX_LINKS = 40
"""As many as the kernel follows."""


def place(root: str, path: str, *, as_folder: bool) -> str:
    """Return where ``path`` of the container is under ``root``, made if it is missing.

    Only while nothing runs in the container: somebody who swaps a folder for a link between
    our look and our use would win.

    Args:
        root: The root file system.
        path: Absolute, in the container.
        as_folder: Make a folder where nothing is, else an empty file.

    Raises:
        OSError: Something other than a folder is in the way, or links go round in circles.
    """
    waiting = path.split("/")[::-1]
    here: list[str] = []
    links = 0
    while waiting:
        name = waiting.pop()
        if name in {"", "."}:
            continue
        if name == "..":
            here = here[:-1]
            continue
        current = "/".join([root, *here, name])
        try:
            mode = os.lstat(current).st_mode
        except FileNotFoundError:
            _make(current, as_folder=as_folder or any(waiting))
        else:
            if stat.S_ISLNK(mode):
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(40, os.strerror(40), path)  # ELOOP
                target = os.readlink(current)
                here = [] if target.startswith("/") else here
                waiting += target.split("/")[::-1]
                continue
        here.append(name)
    return "/".join([root, *here])


def _make(path: str, *, as_folder: bool) -> None:
    if as_folder:
        os.mkdir(path, 0o755)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o644))
