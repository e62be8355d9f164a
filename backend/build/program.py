"""Run a builder's program, line by line, and never leave it behind.

A builder killed by half leaves the process of its RUN instruction: it gets a session of its
own and SIGINT for the whole group, which every builder takes as Ctrl-C, and SIGKILL later.
Its group is written down for as long as it lives, for :mod:`backend.build.keeper`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import subprocess
import tempfile
from collections import deque
from typing import TYPE_CHECKING

from backend.errors import FormatError, ToolFailedError, ToolMissingError
from backend.masking import mask_argv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import FrameType
    from typing import IO

_log = logging.getLogger(__name__)

_GRACE_S = 3.0
"""Seconds between SIGINT and SIGKILL."""

_MAX_LINE = 1 << 20
_LAST_LINES = 40

GROUPS = "groups"
"""The folder, in that of a build, with a file for each process group, named by its number."""


def run_builder(
    argv: Sequence[str],
    on_line: Callable[[str], None],
    *,
    environment: Mapping[str, str],
    folder: Path | None = None,
) -> int:
    """Run a program, hand over each line that it prints, and return its exit status.

    Standard error and output come in the order in which they were printed.  A carriage return
    ends a line too.  Any exception, also one of ``on_line``, ends the program and its group.

    Args:
        argv: Program and arguments.
        on_line: Gets each line, decoded as UTF-8 with replacement characters.
        environment: Variables beside those of this process.
        folder: Of the build; None for a program that is over in a moment.

    Raises:
        ToolMissingError: The program is not on PATH.
    """
    process = _start(argv, subprocess.PIPE, environment=environment, folder=folder)
    try:
        if process.stdout:
            _read_lines(process.stdout, on_line)
        return process.wait()
    finally:
        _end_group(process, folder)


@contextlib.contextmanager
def running(
    argv: Sequence[str], *, output: Path, folder: Path, keep: int
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon for the time of the block.

    Args:
        argv: Program and arguments.
        output: The file that gets what it prints.
        folder: Of the build.
        keep: A descriptor that the daemon, and nobody else, keeps open.

    Raises:
        ToolMissingError: The program is not on PATH.
    """
    with output.open("wb") as out:
        try:
            process = _start(argv, out, environment={}, folder=folder, keep=(keep,))
        finally:
            os.close(keep)
    try:
        yield process
    finally:
        _end_group(process, folder)


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


@contextlib.contextmanager
def output_stream(argv: Sequence[str], *, folder: Path) -> Iterator[IO[bytes]]:
    """Give what a program writes to its standard output; leaving the block early ends it.

    Args:
        argv: Program and arguments.
        folder: Of the build.

    Raises:
        ToolMissingError: The program is not on PATH.
        ToolFailedError: It failed, which it may say only after much output.
    """
    with tempfile.TemporaryFile() as said:
        process = _start(argv, subprocess.PIPE, errors=said, environment={}, folder=folder)
        try:
            if process.stdout:
                yield process.stdout
            _check(process, argv, said)
        except FormatError:  # of what a program sent that then failed
            if process.stdout and not process.stdout.read(1):
                _check(process, argv, said)
            raise
        finally:
            _end_group(process, folder)


def _check(process: subprocess.Popen[bytes], argv: Sequence[str], said: IO[bytes]) -> None:
    """Wait for the program's end, and raise its error if it failed."""
    if status := process.wait():
        said.seek(0)
        text = said.read(_MAX_LINE).decode("utf-8", "replace")
        raise ToolFailedError(argv=argv, status=status, stderr=text)


def output_of(
    argv: Sequence[str], *, environment: Mapping[str, str], folder: Path | None = None
) -> tuple[int, str]:
    """Run a program and return its exit status and the last lines that it printed.

    Args:
        argv: Program and arguments.
        environment: Variables beside those of this process.
        folder: Of the build; None for a program that is over in a moment.
    """
    lines: deque[str] = deque(maxlen=_LAST_LINES)
    status = run_builder(argv, lines.append, environment=environment, folder=folder)
    return status, "\n".join(lines)


def _start(
    argv: Sequence[str],
    output: int | IO[bytes],
    *,
    errors: int | IO[bytes] = subprocess.STDOUT,
    environment: Mapping[str, str],
    folder: Path | None,
    keep: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    _log.debug("run %s", mask_argv(argv))
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=os.environ | {"LC_ALL": "C.UTF-8"} | dict(environment),
            pass_fds=keep,
            start_new_session=True,
            # Before the program is there, so that no moment is without a record of it.
            preexec_fn=functools.partial(_write_down, folder),  # noqa: PLW1509  (takes no lock)
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


def _end_group(process: subprocess.Popen[bytes], folder: Path | None) -> None:
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
    if folder:
        (folder / GROUPS / str(process.pid)).unlink(missing_ok=True)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # Our pid stays a zombie, and so ours, until it is waited for; its group lives longer.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _write_down(folder: Path | None) -> None:
    if folder:
        (folder / GROUPS / str(os.getpid())).touch()
