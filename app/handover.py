"""Give the terminal to a program and take it back, whatever the program does to it.

The deck's event loop goes on meanwhile, so that jobs are watched while a container has the
screen.  The program gets a process group of its own in the foreground, as a shell would give
it: Ctrl-C and Ctrl-Z reach it and not the deck.  What each line is for was measured
(``tests/e2e/test_deck_tmux.py`` holds it): without ``batch_update`` the loop dead-locks on
the stopped driver; without SIGTSTP ignored, Ctrl-Z would leave the deck waiting for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import sys
import termios
from typing import TYPE_CHECKING

from backend.errors import BackendError
from backend.escape import one_line
from backend.process import run_tool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from textual.app import App

_STAMP = "@sifdeck-run"
"""Option of a tmux window that says which command of ours runs in it."""
_CLOSING = "printf '\\n[exit status %s; Enter closes the window] ' $status; read -r _"
_TMUX_S = 5.0
_QUICK_S = 2.0
"""A program that ends sooner may have printed something that nobody could read yet."""


async def run_foreground(
    app: App[Any], argv: Sequence[str], shown: str, *, is_shell: bool = False
) -> int:
    """Run ``argv`` in the terminal of the app and return its exit status (128 + N for signal N).

    Args:
        app: The app that has the terminal.
        argv: The program.
        shown: The command line as a person would type it, printed before it starts.
        is_shell: Whoever ends a shell has read what it printed: no question after a good end.

    Raises:
        BackendError: The terminal cannot be given away, or the program not be started.
    """
    if not _can_hand_over(app):
        raise BackendError(
            "this terminal cannot be handed to a container",
            hint="type the command in a terminal of its own (y copies it)",
        )
    terminal = sys.__stdin__.fileno() if sys.__stdin__ else 0
    status, error = 0, None
    with app.suspend(), app.batch_update():
        saved = termios.tcgetattr(terminal)
        started = asyncio.get_running_loop().time()
        try:
            _say(f"$ {shown}")
            status = await _wait(argv, terminal)
            elapsed = asyncio.get_running_loop().time() - started
            termios.tcsetattr(terminal, termios.TCSADRAIN, saved)
            if status or (elapsed < _QUICK_S and not is_shell):
                await _pause(terminal, status)
        except (OSError, termios.error) as problem:  # nothing may leave suspend() but the end
            error = problem
        finally:
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(terminal, termios.TCSADRAIN, saved)
                for stream in (sys.__stdin__, sys.__stdout__, sys.__stderr__):
                    if stream:
                        os.set_blocking(stream.fileno(), True)
    if error:
        raise BackendError(f"cannot start {shlex.join(argv)}", why=str(error)) from error
    return status


async def open_window(argv: Sequence[str], shown: str) -> None:
    """Run ``argv`` in a new tmux window; a window that still runs the same is shown instead.

    Args:
        argv: The program.
        shown: The command line as a person would type it; it also names the window.

    Raises:
        ToolError: tmux does not do it.
    """
    listed = await _tmux("list-windows", "-a", "-F", f"#{{window_id}} #{{{_STAMP}}}")
    for line in listed.splitlines():
        window, _, stamp = line.partition(" ")
        if stamp == shown:
            await _tmux("select-window", "-t", window)
            return
    script = f"{shlex.join(argv)}; status=$?; {_CLOSING}"
    name = one_line(shown, limit=30)
    made = await _tmux("new-window", "-P", "-F", "#{window_id}", "-n", name, script)
    await _tmux("set-option", "-w", "-t", made.strip(), _STAMP, shown)


async def _tmux(*argv: str) -> str:
    return (await run_tool(("tmux", *argv), timeout_s=_TMUX_S)).stdout


def _can_hand_over(app: App[Any]) -> bool:
    return not app.is_headless and not app.is_web and bool(sys.__stdin__ and sys.__stdin__.isatty())


async def _wait(argv: Sequence[str], terminal: int) -> int:
    """Start the program in the foreground and wait for it."""
    # Ignored while we fork, so that the program inherits it: nobody could wake it up again.
    before = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        process = await asyncio.create_subprocess_exec(*argv, process_group=0)
    finally:
        signal.signal(signal.SIGTSTP, before)
    with _foreground(terminal, process.pid):
        status = await process.wait()
    return 128 - status if status < 0 else status


@contextlib.contextmanager
def _foreground(terminal: int, group: int) -> Iterator[None]:
    """Give a process group the terminal's keys and signals; take them back."""
    numbers = (signal.SIGTTOU, signal.SIGTTIN)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended already
            os.tcsetpgrp(terminal, group)
            os.killpg(group, signal.SIGCONT)
        yield
    finally:
        with contextlib.suppress(OSError):  # the terminal is gone
            os.tcsetpgrp(terminal, os.getpgrp())
        for number, handler in before.items():
            signal.signal(number, handler)


async def _pause(terminal: int, status: int) -> None:
    """Say how it ended and wait for Enter, while the event loop goes on."""
    _say(f"[exit status {status}; Enter goes back to the deck] ")
    termios.tcflush(terminal, termios.TCIFLUSH)
    loop = asyncio.get_running_loop()
    pressed = loop.create_future()

    def read() -> None:
        data = os.read(terminal, 4096)
        if (not data or data.endswith(b"\n")) and not pressed.done():
            pressed.set_result(None)

    loop.add_reader(terminal, read)
    try:
        await pressed
    finally:
        loop.remove_reader(terminal)


def _say(text: str) -> None:
    """Print a line on the terminal that the app has left."""
    if sys.__stderr__:
        sys.__stderr__.write(f"\r\n\x1b[0m{text}\r\n")
        sys.__stderr__.flush()
