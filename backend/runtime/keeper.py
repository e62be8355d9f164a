"""A process that tidies up after us, however we end; it lives a moment longer than we do.

For what the kernel does not take away by itself with our last process: groups, and files on
disk.  Everything else is made so that it needs no keeper.
"""

from __future__ import annotations

import contextlib
import os
import time

TYPE_CHECKING = False  # importing typing costs the launcher 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable

_PAUSE_S = 0.01
_PATIENCE_S = 60.0
"""How long it waits for the last process of a killed container to be gone."""


class Keeper:
    """The process; start it before what it shall tidy up is made.

    Args:
        tidy: Called when we have ended, again and again until it returns True.
    """

    def __init__(self, tidy: Callable[[], bool]) -> None:
        waiting, self._alive = os.pipe()
        self._pid = os.fork()
        if self._pid:
            os.close(waiting)
            return
        try:
            os.setsid()
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(waiting, 3)
            for descriptor in range(3):
                os.dup2(nowhere, descriptor)
            os.closerange(4, os.sysconf("SC_OPEN_MAX"))
            os.read(3, 1)  # ends with the last process that has the other side
            end = time.monotonic() + _PATIENCE_S
            while not tidy() and time.monotonic() < end:
                time.sleep(_PAUSE_S)
        finally:
            os._exit(0)

    def finish(self) -> None:
        """Have it tidy up now, and wait until it has."""
        os.close(self._alive)
        with contextlib.suppress(ChildProcessError):  # killed, and collected with the others
            os.waitpid(self._pid, 0)
