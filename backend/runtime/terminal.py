"""The terminal that the launcher was started on: its modes, and its size for the container's."""

from __future__ import annotations

import fcntl
import os
import termios

from backend.runtime import kernel


class Terminal:
    """The terminal that we were started on, as it was then."""

    def __init__(self) -> None:
        self._modes = termios.tcgetattr(0)

    def restore(self) -> None:
        """Put back the modes, after something has died that would have."""
        termios.tcsetattr(0, termios.TCSANOW, self._modes)

    def copy_size(self, runtime: int) -> None:
        """Give the container's terminal the size of ours.

        crun does not before 1.8.7; done twice it does no harm.

        Args:
            runtime: The process that holds the other side of the container's terminal.
        """
        size = fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))
        folder = f"/proc/{runtime}/fd"
        try:
            for name in os.listdir(folder):
                if os.readlink(f"{folder}/{name}").endswith("ptmx"):
                    master = kernel.steal_descriptor(runtime, int(name))
                    fcntl.ioctl(master, termios.TIOCSWINSZ, size)
                    os.close(master)
        except OSError:
            return  # it has just ended, or the kernel forbids it: the size stays as it was
