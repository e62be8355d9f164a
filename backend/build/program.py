"""Run a builder's program, line by line, and never leave it behind.

A builder killed by half leaves the process of its RUN instruction: it gets a session of its
own and SIGINT for the whole group, which every builder takes as Ctrl-C, and SIGKILL later.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
from collections import deque
from typing import TYPE_CHECKING

from backend.errors import ToolMissingError
from backend.jobs.masking import mask_argv

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import FrameType
    from typing import IO

_log = logging.getLogger(__name__)

_GRACE_S = 3.0
"""Seconds between SIGINT and SIGKILL."""

_MAX_LINE = 1 << 20
_LAST_LINES = 40

_PR_SET_PDEATHSIG = 1


def run_builder(
    argv: Sequence[str],
    on_line: Callable[[str], None],
    *,
    environment: Mapping[str, str],
    cwd: str | None = None,
) -> int:
    """Run a program, hand over each line that it prints, and return its exit status.

    Standard error and output come in the order in which they were printed.  A carriage return
    ends a line too.  Any exception, also one of ``on_line``, ends the program and its group.

    Args:
        argv: Program and arguments.
        on_line: Gets each line, decoded as UTF-8 with replacement characters.
        environment: Variables beside those of this process.
        cwd: Where the program works; None means here.

    Raises:
        ToolMissingError: The program is not on PATH.
    """
    process = _start(argv, subprocess.PIPE, environment=environment, cwd=cwd)
    try:
        if process.stdout:
            _read_lines(process.stdout, on_line)
        return process.wait()
    finally:
        end_group(process)


def start_group(argv: Sequence[str], *, output: Path) -> subprocess.Popen[bytes]:
    """Start a daemon in a group of its own; :func:`end_group` ends it.

    Args:
        argv: Program and arguments.
        output: The file that gets what it prints.

    Raises:
        ToolMissingError: The program is not on PATH.
    """
    with output.open("wb") as out:
        return _start(argv, out, environment={}, cwd=None)


def run_on_terminal(argv: Sequence[str]) -> int:
    """Run a program that a person types to, and return its exit status.

    It has our terminal and our group, so that Ctrl-C is its own affair; we live on, to clear
    up behind it, also when the terminal is closed.

    Raises:
        ToolMissingError: The program is not on PATH.
    """
    _log.debug("run %s", mask_argv(argv))
    started: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        for process in started:
            process.send_signal(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        started.append(subprocess.Popen(argv))
        status = started[0].wait()
    except (FileNotFoundError, PermissionError) as error:
        raise ToolMissingError(f"{argv[0]} is not installed", argv=argv) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - status if status < 0 else status


def output_of(argv: Sequence[str], *, environment: Mapping[str, str]) -> tuple[int, str]:
    """Run a program and return its exit status and the last lines that it printed."""
    lines: deque[str] = deque(maxlen=_LAST_LINES)
    status = run_builder(argv, lines.append, environment=environment)
    return status, "\n".join(lines)


def _start(
    argv: Sequence[str],
    output: int | IO[bytes],
    *,
    environment: Mapping[str, str],
    cwd: str | None,
) -> subprocess.Popen[bytes]:
    _log.debug("run %s", mask_argv(argv))
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"LC_ALL": "C.UTF-8"} | dict(environment),
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509  (no other thread runs yet)
        )
    except (FileNotFoundError, PermissionError) as error:
        raise ToolMissingError(f"{argv[0]} is not installed", argv=argv) from error


def _read_lines(output: IO[bytes], on_line: Callable[[str], None]) -> None:
    rest = b""
    while data := os.read(output.fileno(), 1 << 16):
        *lines, rest = (rest + data).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            on_line(line.decode("utf-8", "replace"))
        if len(rest) > _MAX_LINE:
            on_line(rest.decode("utf-8", "replace"))
            rest = b""
    if rest:
        on_line(rest.decode("utf-8", "replace"))


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the program's group."""
    if process.stdout:
        process.stdout.close()
    if process.poll() is None:
        _signal(process, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
    # The leader may have gone without those whom it had started.
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # Our pid stays a zombie, and so ours, until it is waited for; its group lives longer.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _end_with_parent() -> None:
    """Be interrupted when the process that started us is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
