"""Containers in the background: started, listed, joined, ended, and never a ghost."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import containers
from tests.support.terminal import Terminal
from tests.support.users import WITH_ONE, WITH_RANGE, Somebody, somebody

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.runtime

SERVE = "echo began; trap 'echo ended; exit 3' TERM; while :; do sleep 0.05; done"


class Desk:
    """The command line as one user has it, with a runtime folder of the test's own."""

    def __init__(self, who: Somebody) -> None:
        self.who = who
        self.folder = Path(tempfile.mkdtemp(prefix="sifdeck-xdg-"))
        shutil.chown(self.folder, who.uid, who.gid)

    def __call__(self, *arguments: str | Path, check: bool = True) -> str:
        done = self.run(*arguments)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        argv = [containers.SIFDECK, *(str(argument) for argument in arguments)]
        environment = self.who.environment() | {"XDG_RUNTIME_DIR": str(self.folder)}
        return subprocess.run(
            self.who.command(argv), capture_output=True, text=True, env=environment, cwd="/",
            timeout=60, check=False,
        )  # fmt: skip

    def pid(self, name: str) -> int:
        found = [one for one in json.loads(self("ps", "--json")) if one["name"] == name]
        return int(found[0]["pid"]) if found else 0

    def close(self) -> None:
        for one in json.loads(self("ps", "--json")):
            os.kill(one["pid"], signal.SIGKILL)
        shutil.rmtree(self.folder)


CELLS = [
    ("root", "crun"),
    ("root", "builtin"),
    (WITH_RANGE, "runc"),
    (WITH_RANGE, "crun"),
    (WITH_ONE, "builtin"),
    (WITH_ONE, "crun"),
]


@pytest.fixture
def desk(name: str) -> Iterator[Desk]:
    made = Desk(somebody(name))
    yield made
    made.close()


@pytest.mark.parametrize(("name", "runtime"), CELLS)
def test_a_life_in_the_background(desk: Desk, runtime: str, busybox: Path) -> None:
    containers.need_runtime(runtime)
    start = ["exec", "-d", "--name", "one", "--runtime", runtime, "--env", "A=b"]
    assert desk(*start, busybox, "sh", "-c", SERVE) == "one\n"
    members = containers.members(desk.pid("one"))
    assert "one " in desk("ps")
    containers.wait_until(lambda: desk("logs", "one") == "began\n")
    script = "id -u; echo $A $C; cat /proc/1/cmdline | head -c2; cat /proc/self/status"
    lines = desk("exec", "--in", "one", "--env", "C=d", "sh", "-c", script).splitlines()
    assert lines[:2] == [str(desk.who.uid), "b d"]
    assert lines[2].startswith("sh")
    assert "Seccomp:\t2" in lines
    assert desk.run("exec", "--in", "one", "sh", "-c", "exit 9").returncode == 9
    assert desk.run("exec", "--in", "one", "nosuch").returncode == 127
    refused = desk.run("exec", "--in", "one", "-B", "/:/host", "true")
    assert "--bind cannot change a container that runs" in refused.stderr
    twice = desk.run(*start, busybox, "true")
    assert "is running" in twice.stderr
    assert desk("stop", "one") == "one\n"
    containers.wait_until(lambda: all(member.is_gone() for member in members))
    assert desk("ps", "-a") == ""


def test_its_end_and_its_status_are_remembered(busybox: Path) -> None:
    desk = Desk(somebody("root"))
    try:
        desk("run", "-d", "--name", "short", busybox, "-c", "echo said; exit 5", check=False)
        desk("exec", "-d", "--name", "short", busybox, "sh", "-c", "echo said; exit 5")
        containers.wait_until(lambda: "exit 5" in desk("ps", "-a"))
        assert desk("logs", "-f", "short") == "said\n"
        assert json.loads(desk("ps", "--json")) == []
        missing = desk.run("exec", "--in", "short", "true")
        assert missing.returncode == 11
        assert "no container called" in missing.stderr
        for flag in ("-d", "-dt"):
            broken = desk.run("exec", flag, "--name", "broken", busybox, "nosuch")
            assert broken.returncode == 125
            assert "not in the image" in broken.stderr
        assert "broken" not in desk("ps", "-a")
    finally:
        desk.close()


@pytest.mark.parametrize(
    ("name", "runtime", "victim"),
    [
        (*CELLS[0], "launcher"),
        (*CELLS[1], "container"),
        (*CELLS[2], "runtime"),
        (*CELLS[3], "squashfuse"),
        (*CELLS[4], "launcher"),
        (*CELLS[5], "container"),
    ],
)
def test_nothing_is_left_and_no_ghost(desk: Desk, runtime: str, victim: str, busybox: Path) -> None:
    containers.need_runtime(runtime)
    start = ["exec", "-d", "--name", "ghost", "--runtime", runtime, str(busybox)]
    desk(*start, "sh", "-c", SERVE)
    members = containers.members(desk.pid("ghost"))
    firsts = [member.pid for member in members if member.inner_pid == 1]
    roles = {
        "launcher": members[0].pid,
        "squashfuse": next(m.pid for m in members if m.comm.startswith("squashfuse")),
        "runtime": firsts[0],
        "container": firsts[-1],
    }
    os.kill(roles[victim], signal.SIGKILL)
    containers.wait_until(lambda: all(member.is_gone() for member in members))
    assert json.loads(desk("ps", "--json")) == []
    assert desk(*start, "sleep", "600") == "ghost\n"  # the name is free again


def test_attach_hands_signals_on_and_returns_the_status(busybox: Path) -> None:
    desk = Desk(somebody("root"))
    try:
        script = "trap 'echo ended; exit 3' INT; while :; do echo tick; sleep 0.05; done"
        desk("exec", "-d", "--name", "it", busybox, "sh", "-c", script)
        environment = desk.who.environment() | {"XDG_RUNTIME_DIR": str(desk.folder)}
        with subprocess.Popen(
            [containers.SIFDECK, "attach", "it"], stdout=subprocess.PIPE, env=environment
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"tick\n"
            process.send_signal(signal.SIGINT)
            assert process.stdout.read().endswith(b"ended\n")
        assert process.returncode == 3
    finally:
        desk.close()


@pytest.mark.tmux
@pytest.mark.parametrize(("name", "runtime"), CELLS[1:-1])
def test_attach_takes_over_the_terminal(
    desk: Desk, runtime: str, busybox: Path, tmp_path: Path
) -> None:
    containers.need_runtime(runtime)
    desk("exec", "-dt", "--name", "tty", "--runtime", runtime, busybox, "sh")
    members = containers.members(desk.pid("tty"))
    environment = desk.who.environment() | {"XDG_RUNTIME_DIR": str(desk.folder)}
    attach = desk.who.command([containers.SIFDECK, "attach", "tty"])
    with Terminal(environment=environment) as terminal:
        terminal.run(attach, tmp_path / "go")
        terminal.wait_for("Attached to tty")
        terminal.type("tty; stty size; echo sle''eps; sleep 600")
        terminal.wait_for("30 100")
        terminal.wait_for("sleeps")
        terminal.press("C-c")
        terminal.type("echo interrupted $?")
        terminal.wait_for("interrupted 130")
        terminal.press("C-p", "C-q")
        terminal.wait_for("tty goes on")
        terminal.wait_for("host$")
        terminal.resize(120, 40)
        terminal.run(attach, tmp_path / "again")
        terminal.wait_for("Attached to tty")
        terminal.type("stty size; exit 9")
        terminal.wait_for("40 120")
        terminal.wait_for("host$")
        terminal.type("echo status=$?; stty -a | grep -c -- '-icanon'; echo over")
        terminal.wait_for("status=9\n0\nover")
    containers.wait_until(lambda: all(member.is_gone() for member in members))
    assert "interrupted 130" in desk("logs", "tty")


def test_attach_feeds_an_input_that_is_kept_open(busybox: Path) -> None:
    desk = Desk(somebody(WITH_RANGE))

    def has_said(words: str) -> bool:
        return words in desk("logs", "in")

    try:
        script = "while read line; do echo got $line; test $line = end && exit 4; done"
        desk("exec", "-di", "--name", "in", busybox, "sh", "-c", script)
        environment = desk.who.environment() | {"XDG_RUNTIME_DIR": str(desk.folder)}
        command = desk.who.command([containers.SIFDECK, "attach", "in"])
        for lines, status in ((b"one\n", None), (b"two\nend\n", 4)):
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd="/"
            ) as process:
                assert process.stdin is not None
                process.stdin.write(lines)
                process.stdin.close()
                last = lines.splitlines()[-1].decode()
                containers.wait_until(functools.partial(has_said, f"got {last}\n"))
                if status is None:
                    process.kill()
                else:  # before the end of the block closes what it prints to
                    assert process.wait(60) == status
    finally:
        desk.close()


@pytest.mark.parametrize("victim", ["launcher", "console"])
def test_a_terminal_in_the_background_leaves_nothing(victim: str, busybox: Path) -> None:
    desk = Desk(somebody(WITH_ONE))
    try:
        desk("exec", "-dt", "--name", "tty", busybox, "sleep", "600")
        launcher = desk.pid("tty")
        members = containers.members(launcher)
        commands = {one.pid: Path(f"/proc/{one.pid}/cmdline").read_bytes() for one in members}
        server = next(pid for pid, command in commands.items() if b"-dt" in command)
        os.kill(launcher if victim == "launcher" else server, signal.SIGKILL)
        containers.wait_until(lambda: all(member.is_gone() for member in members))
        assert json.loads(desk("ps", "--json")) == []
    finally:
        desk.close()
