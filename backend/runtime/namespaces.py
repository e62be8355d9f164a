"""User namespaces: entering one with an id map, through newuidmap or on our own.

A map is a list of ``(inside, outside, count)``, as in ``/proc/PID/uid_map``.
"""

from __future__ import annotations

import os

from backend.runtime import kernel

TYPE_CHECKING = False  # importing typing costs the launcher 5 ms
if TYPE_CHECKING:
    from collections.abc import Sequence

    IdMap = Sequence[tuple[int, int, int]]


class MapRefusedError(Exception):
    """The user namespace is there, but its id maps were not accepted; the text says by whom."""


def enter_user(uids: IdMap, gids: IdMap, tools: Sequence[str], flags: int) -> None:
    """Enter a new user namespace, and the other new namespaces in ``flags``.

    The process must have one thread only.

    Args:
        uids: Of user ids.
        gids: Of group ids.
        tools: newuidmap and newgidmap; empty to write maps of one id ourselves.
        flags: Further ``CLONE_NEW...`` flags.

    Raises:
        OSError: The kernel does not give a user namespace.
        MapRefusedError: The maps were not accepted.
    """
    ready, go = os.pipe()
    failed, fail = os.pipe()
    process = os.getpid()
    # Only a process outside may write a map of more than one id, so a helper stays behind.
    helper = os.fork()
    if helper == 0:
        os.close(go)
        os.read(ready, 1)  # ends when the parent has unshared, or has died
        os._exit(_write_maps(process, uids, gids, tools, fail))
    os.close(ready)
    os.close(fail)
    try:
        kernel.unshare(kernel.CLONE_NEWUSER | flags, "user namespace")
    finally:
        os.close(go)
        reason = os.read(failed, 4096)
        os.close(failed)
        os.waitpid(helper, 0)
    if reason:
        raise MapRefusedError(os.fsdecode(reason))


def _write_maps(process: int, uids: IdMap, gids: IdMap, tools: Sequence[str], fail: int) -> int:
    """Write both maps of ``process`` and return an exit status; reasons go to ``fail``."""
    try:
        if not tools:
            _write(f"/proc/{process}/setgroups", "deny")
            _write(f"/proc/{process}/uid_map", _line(uids[0]))
            _write(f"/proc/{process}/gid_map", _line(gids[0]))
            return 0
        os.dup2(fail, 2)
        for tool, ids in zip(tools, (uids, gids), strict=True):
            words = [word for line in ids for word in _line(line).split()]
            if os.spawnv(os.P_WAIT, tool, [tool, str(process), *words]) != 0:
                os.write(fail, os.fsencode(f"{tool} refused"))
                return 1
    except OSError as error:
        os.write(fail, os.fsencode(f"{error.filename}: {error.strerror}"))
        return 1
    return 0


def _line(entry: tuple[int, int, int]) -> str:
    return " ".join(str(number) for number in entry)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(descriptor)
