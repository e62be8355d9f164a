"""End with the terminal: when it is gone, nothing that we draw or read can be waited for.

A closed window or a lost connection leaves Textual reading an end of file as fast as it can,
and its writer dead with a full queue, on which the event loop then waits for ever (measured
with Textual 8.2).  SIGHUP does not always come, and its handler would need that loop.  So one
thread asks the kernel for the hang-up of the terminal, without ever waking up for less.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_GRACE_S = 2.0
"""Seconds that an orderly end may take before it is made short."""


def watch_terminal(descriptor: int, end: Callable[[], object]) -> None:
    """Call ``end`` from a thread when the terminal hangs up; end the process if that takes long.

    Args:
        descriptor: Of the terminal.
        end: Asks for an orderly end; must be safe to call from another thread.
    """
    thread = threading.Thread(
        target=_wait, args=(descriptor, end), name="sifdeck-terminal", daemon=True
    )
    thread.start()


def _wait(descriptor: int, end: Callable[[], object]) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)  # nothing but hang-ups and errors
    if poll.poll():
        end()
        threading.Event().wait(_GRACE_S)
        os._exit(128 + signal.SIGHUP)
