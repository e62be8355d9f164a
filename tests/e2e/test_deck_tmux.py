"""The deck in a real terminal: what it leaves behind, and what it gives away and takes back."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import images
from tests.support.tmux import SHELL_MODES, Terminal, open_terminal, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.registry import Registry

pytestmark = pytest.mark.tmux

SIFDECK = Path(sys.executable).with_name("sifdeck")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A shell in an empty folder, as someone has it who just logged in."""
    folder = tmp_path / "work"
    folder.mkdir()
    environment = {
        "HOME": str(tmp_path / "home"),
        "PATH": f"{SIFDECK.parent}:{os.environ['PATH']}",
        "TERM": "screen-256color",
        "TMPDIR": str(tmp_path),
        "LC_ALL": "C.UTF-8",
    }
    with open_terminal(folder, environment) as opened:
        yield opened


def open_deck(terminal: Terminal, *arguments: str) -> int:
    """Open the deck and return its process number."""
    terminal.type(" ".join(("sifdeck deck", *arguments, "& echo pid $!; fg")))
    terminal.press("Enter")
    terminal.wait("[1 Images]")
    history = terminal.tmux("capture-pane", "-p", "-a", "-q", "-t", "t")
    found = re.search(r"pid (\d+)", history)
    assert found, history
    return int(found.group(1))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was(terminal: Terminal, number: signal.Signals) -> None:
    pid = open_deck(terminal)
    assert terminal.modes != SHELL_MODES
    os.kill(pid, number)
    terminal.wait("shell>", gone="[1 Images]")
    assert terminal.modes == SHELL_MODES
    terminal.type("echo status $?")
    terminal.press("Enter")
    terminal.wait(f"status {128 + number}")


def test_quitting_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    open_deck(terminal)
    terminal.press("q")
    terminal.wait("shell>", gone="[1 Images]")
    assert terminal.modes == SHELL_MODES


def test_too_small_a_terminal_is_told_so_and_a_larger_one_is_used(terminal: Terminal) -> None:
    open_deck(terminal)
    terminal.tmux("resize-window", "-t", "t", "-x", "50", "-y", "12")
    terminal.wait("needs 60 columns", gone="[1 Images]")
    terminal.tmux("resize-window", "-t", "t", "-x", "200", "-y", "50")
    terminal.wait("[1 Images]", gone="needs 60 columns")


@pytest.mark.registry
@pytest.mark.runtime
def test_pull_from_a_registry_and_run_a_shell_in_it(terminal: Terminal, registry: Registry) -> None:
    made = images.image([images.busybox_layer()], config={"Cmd": ["sh"], "Env": ["PATH=/bin"]})
    registry.push(made, "deck/box", "1.0")
    open_deck(terminal)

    terminal.press("p")
    terminal.wait("Pull an image")
    terminal.type(f"{registry.host}/deck/box:1.0")
    terminal.press("Tab", "Tab", "Tab", "Tab", "Tab", "Right")
    terminal.wait("sifdeck pull --no-https")
    terminal.press("C-s")
    terminal.wait("job #1")
    terminal.press("3")
    screen = terminal.wait("1/1")
    assert "done" in screen

    terminal.press("1")
    terminal.wait("box_1.0.oci.sif")
    terminal.press("r")
    terminal.wait("sifdeck run")
    terminal.press("C-s")
    terminal.wait("/ #")
    terminal.type("stty size; sleep 100")
    terminal.press("Enter")
    terminal.wait("24 80")
    terminal.press("C-c")  # ends sleep, neither the shell nor the deck
    terminal.press("C-z")
    terminal.type("stty raw; exit 7")
    terminal.press("Enter")
    terminal.wait("exit status 7")
    terminal.press("Enter")
    terminal.wait("[1 Images]", gone="/ #")
    terminal.press("q")
    terminal.wait("shell>", gone="[1 Images]")
    assert terminal.modes == SHELL_MODES


def test_without_a_terminal_the_command_line_is_named(terminal: Terminal) -> None:
    terminal.type("sifdeck deck < /dev/null; echo status $?; TERM=dumb sifdeck; echo status $?")
    terminal.press("Enter")
    screen = terminal.wait("TERM=dumb) cannot show")
    assert "needs a terminal" in screen
    assert "sifdeck --help" in screen


def test_reset_tty_brings_a_mistreated_terminal_back(terminal: Terminal) -> None:
    open_deck(terminal)
    modes = terminal.modes
    pid = int(terminal.value("pane_pid"))
    child = int(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()[0])
    os.kill(child, signal.SIGKILL)
    terminal.type("\n")
    assert terminal.modes == modes != SHELL_MODES
    terminal.type("stty sane; sifdeck reset-tty\n")
    terminal.until(lambda: terminal.modes == SHELL_MODES)
    terminal.type("echo ba''ck\n")
    terminal.wait("back")


def test_a_lost_terminal_ends_the_deck(terminal: Terminal) -> None:
    pid = open_deck(terminal)
    terminal.tmux("kill-session", "-t", "t")
    # The terminal is gone, and with it whoever would have told the deck.
    wait_until(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return state.rpartition(")")[2].split()[0] not in {"Z", "X"}


def inside_tmux(terminal: Terminal) -> str:
    """Return the assignment that tells a program of the tmux around it."""
    return f"TMUX={terminal.socket},{terminal.value('pid')},0"


def test_a_copy_reaches_tmux_with_its_default_settings(terminal: Terminal) -> None:
    terminal.type(f"{inside_tmux(terminal)} sifdeck deck\n")
    terminal.wait("No image files here yet")
    terminal.press("y")
    terminal.wait("by way of tmux")
    assert terminal.tmux("show-buffer") == "sifdeck inspect IMAGE"


@pytest.mark.registry
@pytest.mark.runtime
def test_inside_tmux_a_container_gets_a_window_which_is_used_again(
    terminal: Terminal, registry: Registry
) -> None:
    made = images.image([images.busybox_layer()], config={"Cmd": ["sh"], "Env": ["PATH=/bin"]})
    registry.push(made, "deck/window", "1.0")
    terminal.type(f"sifdeck pull --no-https docker://{registry.host}/deck/window:1.0\n")
    terminal.wait("Complete")
    terminal.type(f"clear; {inside_tmux(terminal)} sifdeck deck\n")
    terminal.wait("1 image ")
    for _ in range(2):
        terminal.press("s")
        terminal.wait("(o) new tmux window")
        terminal.press("C-s")
        terminal.until(lambda: terminal.tmux("list-windows").count("\n") == 2)
        terminal.wait("sifdeck>")
        terminal.until(lambda: terminal.value("window_index") == "1")
        terminal.tmux("select-window", "-t", "t:0")
    assert "[1 Images]" in terminal.text


def test_a_job_outlives_a_killed_deck_and_is_cancelled_from_the_next(terminal: Terminal) -> None:
    with socket.socket() as silent:  # takes connections, and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        pid = open_deck(terminal)
        terminal.press("p")
        terminal.wait("Pull an image")
        terminal.type(f"{address}/deck/never:1")
        terminal.press("Tab", "Tab", "Tab", "Tab", "Tab", "Right")
        terminal.wait("sifdeck pull --no-https")
        terminal.press("C-s")
        terminal.wait("1 running")
        os.kill(pid, signal.SIGKILL)
        terminal.until(lambda: not is_running(pid))
        terminal.type("stty sane; sifdeck reset-tty; clear; sifdeck deck\n")
        terminal.wait("1 running")
        terminal.press("3")
        terminal.wait("deck/never:1")
        terminal.press("x")
        terminal.wait("Cancel 1 job?")
        terminal.press("Tab", "Enter")
        terminal.wait("cancelled")
        terminal.press("q")
        terminal.wait("shell>", gone="[3 Jobs")
