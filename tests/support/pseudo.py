"""A pseudo-terminal whose every byte is seen: for what a program writes, not what it shows."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LIMIT_S = 60.0


@dataclass(kw_only=True)
class Pseudo:
    """A program in a pseudo-terminal.

    Attributes:
        pid: Its process.
        fd: Our end.
        seen: What it has written.
    """

    pid: int
    fd: int
    seen: bytes = b""

    def read(self, limit_s: float) -> int:
        """Read for so many seconds at most, until something came; return its bytes."""
        ready, _, _ = select.select([self.fd], [], [], limit_s)
        if not ready:
            return 0
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:  # the program has ended
            return 0
        self.seen += data
        return len(data)

    def until(self, wanted: bytes, limit_s: float = LIMIT_S) -> float:
        """Read until something was seen; return the seconds it took."""
        begin = time.perf_counter()
        while wanted not in self.seen:
            if time.perf_counter() - begin > limit_s:
                raise AssertionError(f"{wanted!r} was not written: {self.seen[-2000:]!r}")
            self.read(0.05)
        return time.perf_counter() - begin

    def settle(self, quiet_s: float = 0.7) -> None:
        """Read until nothing comes for a while."""
        end = time.perf_counter() + 10.0
        while self.read(quiet_s) and time.perf_counter() < end:
            pass

    def press(self, keys: bytes) -> float:
        """Press keys; return the seconds until the first byte of the answer."""
        self.seen = b""
        begin = time.perf_counter()
        os.write(self.fd, keys)
        self.read(5.0)
        return time.perf_counter() - begin

    @property
    def resident_mb(self) -> float:
        """Its resident memory in MB."""
        fields = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()
        return int(fields[1]) * os.sysconf("SC_PAGESIZE") / 1e6

    @property
    def wakeups(self) -> int:
        """How often its threads have waited so far: each is a wake-up."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            for line in (task / "status").read_text(encoding="ascii").splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    total += int(line.split()[1])
        return total

    @property
    def cpu_s(self) -> float:
        """The seconds of CPU that all its threads, ended ones too, have used so far."""
        clock = ~self.pid << 3 | 2  # as clock_getcpuclockid(3) makes it
        return time.clock_gettime(clock)

    def close(self) -> None:
        """End the program."""
        os.kill(self.pid, signal.SIGTERM)
        end = time.perf_counter() + 5.0
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            self.read(0.05)
            if time.perf_counter() > end:
                os.kill(self.pid, signal.SIGKILL)
        os.close(self.fd)


def start(
    argv: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    *,
    size: tuple[int, int] = (80, 24),
) -> Pseudo:
    """Start a program in a pseudo-terminal of some columns and lines."""
    ours, theirs = pty.openpty()
    columns, lines = size
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    pid = os.posix_spawn(
        "/usr/bin/env",
        ["env", "-C", str(folder), *argv],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.ttyname(theirs), os.O_RDWR, 0),  # of the new session
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, 0, 2),
        ],
        setsid=True,
    )
    os.close(theirs)
    return Pseudo(pid=pid, fd=ours)


@contextlib.contextmanager
def open_pseudo(
    argv: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    *,
    size: tuple[int, int] = (80, 24),
) -> Iterator[Pseudo]:
    """Run a program in a pseudo-terminal until the block ends."""
    terminal = start(argv, environment, folder, size=size)
    try:
        yield terminal
    finally:
        terminal.close()
