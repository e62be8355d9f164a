"""The launcher's long part: a container in the foreground, its signals, terminal and end."""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False  # importing typing costs the launcher 5 ms
if TYPE_CHECKING:
    from backend.runtime.filesystems import Servers
    from backend.runtime.terminal import Terminal

_HANGUP_GRACE_S = 5
"""Seconds that the container has after its terminal has gone; crun would wait for ever."""
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""Signals that end a process that does nothing about them; pid 1 of a container is exempt."""


def wait(runtime: int, servers: Servers, terminal: Terminal | None, *, is_container: bool) -> int:
    """Wait for the runtime's end and return the container's exit status.

    Signals from other processes go on to the container.  Those that the terminal sends reach
    the runtime by themselves, since it is in our process group.

    Args:
        runtime: Its pid; all signals must be blocked since before its start.
        servers: Those that end are taken out; the container cannot go on without them.
        terminal: None when the container has pipes.
        is_container: The runtime's process is the container's first, which crun's is not.
    """
    ended_by = 0
    while True:
        found = signal.sigwaitinfo(signal.valid_signals())
        number = signal.Signals(found.si_signo)
        if number == signal.SIGCHLD:
            status = _reap(runtime, servers)
            if status is not None and servers.broken:
                return 128 + signal.SIGKILL
            if status is not None:
                if terminal and status < 0:
                    terminal.restore()
                return 128 + (ended_by or -status) if status < 0 else status
        elif number == signal.SIGWINCH and terminal:
            terminal.copy_size(servers.relay or runtime)
        elif number == signal.SIGALRM and ended_by:
            os.kill(runtime, signal.SIGKILL)
        else:
            first = runtime if is_container else _first_process(runtime)
            ended_by = _relay(runtime, first, found, terminal) or ended_by


def _relay(
    runtime: int, first: int, found: signal.struct_siginfo, terminal: Terminal | None
) -> int:
    """Hand a signal on; return its number if it ends the container now or soon, else 0."""
    number = signal.Signals(found.si_signo)
    if number in _ENDING and not _handles(first, number):
        os.kill(runtime, signal.SIGKILL)
        return number
    if found.si_code <= 0:  # sent by a process, not by the kernel
        os.kill(runtime, number)
    if number == signal.SIGHUP and terminal:
        signal.setitimer(signal.ITIMER_REAL, _HANGUP_GRACE_S)
        return number
    return 0


def _reap(runtime: int, servers: Servers) -> int | None:
    """Collect what has ended; return the runtime's exit code if it is among that."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == runtime:
            code = os.waitstatus_to_exitcode(status)
        if pid in servers.running:
            servers.running.remove(pid)
            if pid == servers.relay:  # all is copied, or the container's terminal has hung up
                continue
            os.write(2, b"ERROR:   the server of the image's files has died\n")
            servers.broken = True
            if code is None:
                os.kill(runtime, signal.SIGKILL)


def _first_process(runtime: int) -> int:
    """Return the pid of the first process of the container that a runtime holds; 0 for none."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            status = _status(int(name))
            if status.get("PPid") == str(runtime) and status.get("NSpid", "").split()[-1:] == ["1"]:
                return int(name)
    return 0


def _handles(first: int, number: signal.Signals) -> bool:
    """Tell whether the container's first process catches, ignores or blocks a signal.

    The kernel gives the first process of a pid namespace no default actions, so that a plain
    ``sleep`` would not even end on SIGTERM; the launcher supplies them.
    """
    status = _status(first)
    masks = (int(status.get(key, "0"), 16) for key in ("SigCgt", "SigIgn", "SigBlk"))
    return not status or any(mask >> (number - 1) & 1 for mask in masks)


def _status(pid: int) -> dict[str, str]:
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as lines:
            return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    except OSError:
        return {}
