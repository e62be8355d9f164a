"""The deck in a real terminal: what it leaves behind, and what it gives away and takes back.

``test_deck_acceptance.py`` holds more of that: signals, bugs, copies, jobs that go on.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import images
from tests.support.tmux import (
    SHELL_MODES,
    Terminal,
    inside_tmux,
    is_running,
    log_in,
    open_deck,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.registry import Registry

pytestmark = pytest.mark.tmux


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with log_in(tmp_path) as opened:
        yield opened


def test_quitting_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    open_deck(terminal)
    terminal.press("q")
    terminal.wait("shell>", gone="[1 Images]")
    assert terminal.modes == SHELL_MODES


def test_too_small_a_terminal_is_told_so_and_a_larger_one_is_used(terminal: Terminal) -> None:
    open_deck(terminal)
    terminal.tmux("resize-window", "-t", "t", "-x", "50", "-y", "12")
    terminal.wait("needs 60x15", gone="[1 Images]")
    terminal.tmux("resize-window", "-t", "t", "-x", "200", "-y", "50")
    terminal.wait("[1 Images]", gone="needs 60x15")


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
    terminal.wait("1/1")
    terminal.wait("done")

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
        terminal.wait("(o) tmux window")
        terminal.press("C-s")
        terminal.until(lambda: terminal.tmux("list-windows").count("\n") == 2)
        terminal.wait("sifdeck>")
        terminal.until(lambda: terminal.value("window_index") == "1")
        terminal.tmux("select-window", "-t", "t:0")
    assert "[1 Images]" in terminal.text
