"""Run programs without blocking and without leaving any behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.errors import ToolFailedError, ToolMissingError, ToolTimeoutError

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = logging.getLogger(__name__)

_GRACE_S = 2.0
"""Seconds between SIGTERM and SIGKILL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """What a program printed, decoded as UTF-8 with replacement characters."""

    stdout: str
    stderr: str


async def run_tool(argv: Sequence[str], *, timeout_s: float, stdin: bytes = b"") -> Completed:
    """Run ``argv`` to its end and return what it printed.

    The program gets ``stdin`` and its own process group; whatever ends this call early
    (timeout, cancellation, the application quitting) ends the group.

    Args:
        argv: Program and arguments; never passed through a shell.
        timeout_s: Seconds the program may take.
        stdin: What it reads; the place for secrets, which must not be arguments.

    Raises:
        ToolMissingError: The program is not on PATH.
        ToolFailedError: It ended with a status other than 0.
        ToolTimeoutError: It took longer than ``timeout_s``.
    """
    _log.debug("run %s", argv)
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except (FileNotFoundError, PermissionError) as error:
        raise ToolMissingError(f"{argv[0]} is not installed", argv=argv) from error
    try:
        async with asyncio.timeout(timeout_s):
            raw_out, raw_err = await process.communicate(stdin or None)
    except TimeoutError as error:
        message = f"{argv[0]} took longer than {timeout_s:g} s"
        raise ToolTimeoutError(message, argv=argv) from error
    finally:
        if process.returncode is None:
            await _stop_surely(process)
    stdout, stderr = (raw.decode("utf-8", "replace") for raw in (raw_out, raw_err))
    if process.returncode:
        status = process.returncode
        raise ToolFailedError(argv=argv, status=status, stderr=stderr, stdout=stdout)
    return Completed(stdout=stdout, stderr=stderr)


async def _stop_surely(process: asyncio.subprocess.Process) -> None:
    """End the group, and wait until it has ended, however often we are cancelled meanwhile.

    Textual cancels a worker with its widget, with the screen and with the app.
    """
    stopping, cancelled = asyncio.create_task(_stop(process)), None
    while not stopping.done():
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError as again:
            cancelled = again
            _signal(process, signal.SIGKILL)
    if cancelled:
        raise cancelled


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End the group: SIGTERM, then SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal(process, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_S):
                await process.communicate()  # also drains and closes the pipes
                return


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Signal the process group, if its leader has not ended."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
