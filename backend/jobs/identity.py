"""Which process a job is, so that no other process is ever taken for it.

Process numbers are used again and mean nothing on another host; the host's name, the boot id
and the start time of the process (field 22 of ``/proc/PID/stat``, proc(5)) make them unique.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """One process on one boot of one host.

    Attributes:
        host: Name of the host.
        boot: The kernel's boot id.
        pid: Process number.
        start: Clock ticks between boot and the start of the process.
    """

    host: str
    boot: str
    pid: int
    start: int

    @property
    def is_here(self) -> bool:
        """Whether the process ran on this host."""
        return self.host == host_name()

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs, as far as can be seen from this host.

        A process of another host counts as alive: nobody here can know better.
        """
        if not self.is_here:
            return True
        return self.boot == boot_id() and start_ticks(self.pid) == self.start

    def send(self, number: signal.Signals) -> bool:
        """Signal the process; return whether it was there to be signalled.

        The process is pinned by a descriptor before it is looked at, so that its number cannot
        pass to another one in between.
        """
        if not self.is_here:
            return False
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            if not self.is_alive:
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True


def this_process() -> ProcessIdentity:
    """Return the identity of the calling process."""
    pid = os.getpid()
    return ProcessIdentity(host=host_name(), boot=boot_id(), pid=pid, start=start_ticks(pid) or 0)


def host_name() -> str:
    """Return the name by which hosts that share a home tell each other apart."""
    return os.uname().nodename


def boot_id() -> str:
    """Return the kernel's random name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def start_ticks(pid: int) -> int | None:
    """Return when a process started; None when it has ended, also when nobody reaped it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold spaces and parentheses; what follows it does not.
    state, *fields = stat.rpartition(b")")[2].split()
    return None if state in {b"Z", b"X"} else int(fields[18])
