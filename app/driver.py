"""The terminal's driver: Textual's for Linux, with an input thread that sleeps until a key comes.

Textual's wakes up ten times a second to see whether it should end, also on a login node with
a hundred idle decks (measured with Textual 8.2).
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from codecs import getincrementaldecoder
from typing import TYPE_CHECKING

from textual._xterm_parser import XTermParser
from textual.constants import ESCAPE_DELAY
from textual.drivers.linux_driver import LinuxDriver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


_CHUNK = 4096


class _Bell(threading.Event):
    """An event that can be waited for beside files; its own lives as long as the program.

    Textual closes its driver before each hand-over of the terminal and goes on with it after.
    """

    def __init__(self) -> None:
        super().__init__()
        self._counter = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """Return what can be read while the event is set."""
        return self._counter

    def set(self) -> None:
        """Set the event, and wake up who waits for the file."""
        super().set()
        os.eventfd_write(self._counter, 1)

    def clear(self) -> None:
        """Unset the event."""
        super().clear()
        with contextlib.suppress(BlockingIOError):  # it was not set
            os.eventfd_read(self._counter)


class QuietDriver(LinuxDriver):
    """The driver.

    Args:
        more: As Textual hands them over.
    """

    def __init__(self, *more: Any, **options: Any) -> None:  # noqa: ANN401  (Textual's arguments)
        super().__init__(*more, **options)
        self.exit_event = self._bell = _Bell()

    def run_input_thread(self) -> None:
        """Read keys until the exit event is set; runs in a thread."""
        parser = XTermParser(self._debug)
        for text in self._typed():
            for message in (*(parser.feed(text) if text else ()), *parser.tick()):
                self.process_message(message)

    def _typed(self) -> Iterator[str]:
        """Yield what comes from the terminal; nothing when an escape has waited long enough.

        Ends with the exit event, or with the terminal: :mod:`app.lifeline` sees to the rest.
        """
        decode = getincrementaldecoder("utf-8")("replace").decode
        poll = select.poll()
        poll.register(self.fileno, select.POLLIN)
        poll.register(self._bell.fileno(), select.POLLIN)
        wait_ms: float | None = None
        while not self._bell.is_set():
            if not poll.poll(wait_ms):
                wait_ms = None
                yield ""
            elif not self._bell.is_set():
                try:
                    data = os.read(self.fileno, _CHUNK)
                except OSError:
                    return
                if not data:
                    return
                wait_ms = ESCAPE_DELAY * 1000 + 1  # what is read may be half a sequence
                yield decode(data)
