"""Containers in the background: started, listed, joined, ended, and never a ghost."""

from __future__ import annotations

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
from tests.support.users import WITH_ONE, WITH_RANGE, Somebody, somebody

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.runtime

SERVE = "echo began; trap 'echo ended; exit 3' TERM; while :; do sleep 0.05; done"


@pytest.fixture(scope="module")
def busybox() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="sifdeck-bg-"))
    folder.chmod(0o755)
    yield containers.busybox(folder)
    shutil.rmtree(folder)


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


@pytest.fixture(params=["root", WITH_RANGE, WITH_ONE])
def desk(request: pytest.FixtureRequest) -> Iterator[Desk]:
    made = Desk(somebody(request.param))
    yield made
    made.close()


@pytest.mark.parametrize("runtime", ["crun", "builtin"])
def test_a_life_in_the_background(desk: Desk, runtime: str, busybox: Path) -> None:
    if runtime == "crun" and not shutil.which("crun"):
        pytest.skip("no crun")
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
        broken = desk.run("exec", "-d", busybox, "nosuch")
        assert broken.returncode == 125
        assert "not in the image" in broken.stderr
    finally:
        desk.close()


def test_a_killed_launcher_leaves_no_ghost(busybox: Path) -> None:
    desk = Desk(somebody(WITH_RANGE))
    try:
        desk("exec", "-d", "--name", "ghost", busybox, "sh", "-c", SERVE)
        pid = desk.pid("ghost")
        members = containers.members(pid)
        os.kill(pid, signal.SIGKILL)
        containers.wait_until(lambda: all(member.is_gone() for member in members))
        assert json.loads(desk("ps", "--json")) == []
        assert desk("exec", "-d", "--name", "ghost", busybox, "sleep", "600") == "ghost\n"
    finally:
        desk.close()


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
