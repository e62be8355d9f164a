"""Containers on a terminal: size, keys, job control, and the terminal as it was afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import containers
from tests.support.terminal import Terminal
from tests.support.users import WITH_RANGE, somebody

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.runtime, pytest.mark.tmux]


@pytest.mark.parametrize("name", ["root", WITH_RANGE])
def test_a_shell_on_a_terminal(name: str, runtime: str, busybox: Path, tmp_path: Path) -> None:
    who = somebody(name)
    argv = [containers.SIFDECK, "shell", "--runtime", runtime, str(busybox)]
    with Terminal(environment=who.environment()) as terminal:
        terminal.run(who.command(argv), tmp_path / "go")
        terminal.wait_for("sifdeck>")
        terminal.type("tty; stty size")
        terminal.wait_for("/dev/pts/0")
        terminal.wait_for("30 100")
        terminal.type('trap_it=\'trap "echo re""sized; exit" WINCH; echo rea""dy; \'')
        terminal.type('sh -c "$trap_it while :; do sleep 0.1; done"')
        terminal.wait_for("ready")
        terminal.resize(120, 40)
        terminal.wait_for("resized")
        terminal.type("stty size")
        terminal.wait_for("40 120")
        terminal.type("echo beg''un; sleep 600")
        terminal.wait_for("begun")
        terminal.press("C-c")
        terminal.type("echo interrupted $?")
        terminal.wait_for("interrupted 130")
        terminal.type("echo ag''ain; sleep 600")
        terminal.wait_for("again")
        terminal.press("C-z")
        terminal.wait_for("Stopped")
        terminal.type("fg")
        terminal.press("C-c")
        terminal.type("exit 37")
        terminal.wait_for("host$")
        terminal.type("echo status=$?; stty -a | grep -c -- '-icanon'; echo over")
        terminal.wait_for("status=37\n0\nover")


def test_closing_the_terminal_ends_the_container(
    runtime: str, busybox: Path, tmp_path: Path
) -> None:
    argv = [containers.SIFDECK, "shell", "--runtime", runtime, str(busybox)]
    root = somebody("root")
    with Terminal(environment=root.environment()) as terminal:
        pid = int(terminal.tmux("display-message", "-p", "#{pane_pid}"))
        terminal.run(root.command(argv), tmp_path / "go")
        terminal.wait_for("sifdeck>")
        terminal.type("trap '' HUP; echo ready$((1+1))")
        terminal.wait_for("ready2")
        members = containers.members(pid)
        assert any(member.comm == "sh" for member in members)
    containers.wait_until(lambda: all(member.is_gone() for member in members))
