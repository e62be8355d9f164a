"""Try and a lab in a real terminal: the tour, the lab's line, its shell, and the way out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.tmux import SHELL_MODES, Terminal, open_terminal, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SIFDECK = Path(sys.executable).with_name("sifdeck")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    folder = tmp_path / "work"
    folder.mkdir()
    (tmp_path / "tmp").mkdir()
    environment = {
        "HOME": str(tmp_path / "home"),
        "PATH": f"{SIFDECK.parent}:{os.environ['PATH']}",
        "TERM": "screen-256color",
        "TMPDIR": str(tmp_path / "tmp"),
        "LC_ALL": "C.UTF-8",
        "SHELL": "/bin/sh",
        "SIFDECK_LEARNER": "ada",
    }
    with open_terminal(folder, environment, size=(100, 30)) as opened:
        yield opened


def enter(terminal: Terminal, text: str) -> None:
    terminal.type(text)
    terminal.press("Enter")


def leave_line(terminal: Terminal) -> None:
    """Leave the lab's line; a key that follows escape too soon would be another key."""
    terminal.press("Escape")
    terminal.wait("t types here")


@pytest.mark.tmux
def test_the_trial_opens_with_a_tour_and_leaves_nothing(terminal: Terminal, tmp_path: Path) -> None:
    enter(terminal, "sifdeck try")
    shown = terminal.wait("3  Run: r")
    assert "1  Log in: key 2" in shown
    (folder,) = (tmp_path / "tmp").glob("sifdeck-try-*")
    terminal.press("q")
    terminal.wait("shell>", gone="Log in")
    wait_until(lambda: not folder.exists())
    assert terminal.modes == SHELL_MODES


@pytest.mark.tmux
def test_a_lab_in_a_terminal(terminal: Terminal, tmp_path: Path) -> None:
    enter(terminal, "sifdeck lab start inside-images")
    terminal.wait("step 1 of 8, 0 done")
    lab = tmp_path / "home/.local/state/sifdeck/labs/ada/inside-images"
    # The line takes what a shell takes, and the lab sees what came of it.
    enter(
        terminal,
        "echo open-sesame | sifdeck registry login -u learner --password-stdin "
        "docker://$(sed -n 's/.*\"port\": \\([0-9]*\\).*/127.0.0.1:\\1/p' ../progress.json)",
    )
    terminal.wait("accepts the login")
    # Not in a keyring of the user's, where it would outlive the lab.
    wait_until(lambda: '"auth"' in (lab / "config/docker-config.json").read_text())
    # A shell of one's own gets the whole terminal; the screen notices what was done in it.
    leave_line(terminal)
    terminal.press("T")
    terminal.wait("goes back to the lab")
    enter(
        terminal,
        "R=docker://$(sed -n 's/.*\"port\": \\([0-9]*\\).*/127.0.0.1:\\1/p' ../progress.json)",
    )
    enter(terminal, "sifdeck pull $R/lab/hello:1.0; sifdeck pull $R/lab/hello:2.0; exit")
    wait_until((lab / "work/hello_2.0.oci.sif").exists)
    terminal.wait("step 1 of 8, 1 done")
    terminal.press("q")
    terminal.wait("shell>", gone="step 1")
    assert terminal.modes == SHELL_MODES
    # Where one left, one goes on.
    enter(terminal, "sifdeck lab start inside-images")
    terminal.wait("step 2 of 8, 1 done")
    leave_line(terminal)
    terminal.press("q")
    terminal.wait("shell>", gone="step 2")


def test_a_trial_without_a_terminal_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [SIFDECK, "try"],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        timeout=60,
    )
    assert (done.returncode, "needs a terminal" in done.stderr) == (2, True)
    assert not list(tmp_path.glob("sifdeck-*"))


def test_a_trial_that_is_ended_leaves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [SIFDECK, "try", "--check"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("ok")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    assert not list(tmp_path.glob("sifdeck-*"))
