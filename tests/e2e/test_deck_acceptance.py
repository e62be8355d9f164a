"""The study's acceptance tests (tui.md §7.9), as far as they need a real terminal.

Each test bears the number of its sentence; the others are in ``tests/app``, in a file of the
same name.  What has a budget in seconds is measured by ``benchmarks/deck.py``, never here.
"""

from __future__ import annotations

import base64
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backend.jobs import JobView
from tests.support import images
from tests.support.decks import make_images
from tests.support.flaky import Fault, FlakyProxy, flaky_proxy
from tests.support.pseudo import open_pseudo
from tests.support.registry import PASSWORD, USER
from tests.support.tmux import (
    SHELL_MODES,
    SIFDECK,
    Terminal,
    inside_tmux,
    is_running,
    log_in,
    open_deck,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.flaky import Request
    from tests.support.registry import Registry

pytestmark = pytest.mark.tmux

SHELL = {"Cmd": ["sh"], "Env": ["PATH=/bin"]}
STEP = 1 << 20
LAYER = 32 * STEP


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The folder in which the terminal's user has a home and a place to work."""
    return tmp_path


@pytest.fixture
def terminal(base: Path) -> Iterator[Terminal]:
    with log_in(base) as opened:
        yield opened


@pytest.fixture
def slow(registry: Registry, base: Path) -> Iterator[FlakyProxy]:
    """A registry that sends a layer only as far as the test allows."""
    noise = random.Random(7).randbytes(LAYER)  # noqa: S311  (nothing is kept secret by it)
    made = images.image([images.layer(images.Entry(name="noise", data=noise))], compress="")
    registry.push(made, "acceptance/slow", "1")
    layer = re.escape(max(made.blobs, key=lambda name: len(made.blobs[name])))
    with flaky_proxy(registry.host, Fault(path=layer, kind="meter", times=99)) as proxy:
        trust(base, proxy.host)
        yield proxy


def trust(base: Path, host: str) -> None:
    """Let the user's settings say that a registry speaks plain HTTP."""
    folder = base / "home/.config/containers"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "registries.conf").open("a") as out:
        out.write(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n')


def pull(terminal: Terminal, reference: str, number: int = 1) -> None:
    """Pull an image from within the deck, as the job of that number."""
    terminal.press("p")
    terminal.wait("Pull an image")
    terminal.type(reference)
    terminal.wait(f"docker://{reference}")
    terminal.press("C-s")
    terminal.wait(f"job #{number}")


def arrived(base: Path, number: int = 1) -> int:
    """Return the bytes that a job has noted as downloaded."""
    view = JobView(base / f"home/.local/state/sifdeck/jobs/{number}")
    view.refresh()
    return sum(blob.done for blob in view.progress.layers)


def more_arrives(terminal: Terminal, base: Path, slow: FlakyProxy) -> None:
    """Let a part of the layer through, and wait until the job says so."""
    before = arrived(base)

    def has_grown() -> bool:
        if slow.is_waiting:
            slow.allow(STEP)
        return arrived(base) > before

    terminal.until(has_grown)


# 2: nothing happens in a deck to which nothing happens


def test_02_an_idle_deck_writes_nothing_and_never_wakes_up(tmp_path: Path) -> None:
    make_images(tmp_path / "images")
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "TERM": "xterm-256color"}
    with open_pseudo((str(SIFDECK), "deck"), environment, tmp_path / "images") as deck:
        deck.until(b"5 images")

        def rests() -> bool:
            wakeups, written = deck.wakeups, len(deck.seen)
            deck.read(2.0)
            return (deck.wakeups, len(deck.seen)) == (wakeups, written)

        wait_until(rests)


# 5: the terminal is a container's, and everything else goes on


@pytest.mark.registry
@pytest.mark.runtime
def test_05_a_pull_goes_on_while_a_container_has_the_terminal(
    terminal: Terminal, base: Path, registry: Registry, slow: FlakyProxy
) -> None:
    registry.push(images.image([images.busybox_layer()], config=SHELL), "acceptance/box", "1")
    terminal.type(f"sifdeck pull --no-https docker://{registry.host}/acceptance/box:1\n")
    terminal.wait("Complete")
    open_deck(terminal)
    terminal.wait("1 image ")
    pull(terminal, f"{slow.host}/acceptance/slow:1")
    terminal.press("r")
    terminal.wait("Run ")
    terminal.press("C-s")
    terminal.wait("/ #")
    for _ in range(3):
        more_arrives(terminal, base, slow)
        assert "/ #" in terminal.text
    terminal.type("echo be''gun; sleep 1000\n")
    terminal.wait("begun")
    terminal.press("C-c")  # ends sleep, neither the shell nor the deck
    terminal.type("echo go''ne\n")
    terminal.wait("gone")
    terminal.type("exit 3\n")
    terminal.wait("exit status 3")
    terminal.press("Enter")
    terminal.wait("1 running")
    slow.allow(2 * LAYER)
    terminal.wait("2 images", gone="1 running")


# 6: whatever ends the deck, the terminal is as it was


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_06_a_signal_leaves_the_terminal_as_it_was(
    terminal: Terminal, number: signal.Signals
) -> None:
    pid = open_deck(terminal)
    assert terminal.modes != SHELL_MODES
    os.kill(pid, number)
    terminal.wait("shell>", gone="[1 Images]")
    assert terminal.modes == SHELL_MODES
    terminal.type("echo status $?\n")
    terminal.wait(f"status {128 + number}")


@pytest.mark.parametrize("kind", ["loop", "thread"])
def test_06_a_bug_in_a_worker_leaves_the_terminal_as_it_was(terminal: Terminal, kind: str) -> None:
    root = Path(__file__).parents[2]
    command = f"PYTHONPATH={root} {sys.executable} -m tests.support.buggy_deck {kind}"
    open_deck(terminal, command)
    assert terminal.modes != SHELL_MODES
    terminal.press("C-l")
    terminal.wait("shell>", gone="[1 Images]")
    assert terminal.modes == SHELL_MODES
    screen = terminal.wait("RuntimeError: a bug, 25")
    assert "it-was-typed" not in screen  # no values of variables
    terminal.type("echo status $?; stty -a\n")
    screen = terminal.wait("status 1")
    assert " icanon" in terminal.wait(" icanon")
    assert " echo " in terminal.text


# 7: jobs are not the deck's


@pytest.mark.registry
def test_07_a_job_goes_on_when_the_deck_quits_or_is_killed(
    terminal: Terminal, base: Path, slow: FlakyProxy
) -> None:
    open_deck(terminal)
    pull(terminal, f"{slow.host}/acceptance/slow:1")
    more_arrives(terminal, base, slow)
    terminal.press("q")
    terminal.wait("1 job goes on", gone="[1 Images]")

    more_arrives(terminal, base, slow)
    terminal.type("clear\n")
    pid = open_deck(terminal)
    terminal.wait("1 running")
    os.kill(pid, signal.SIGKILL)
    terminal.until(lambda: not is_running(pid))

    more_arrives(terminal, base, slow)
    terminal.type("stty sane; sifdeck reset-tty; clear\n")
    terminal.wait("shell>", gone="[1 Images]")  # what the killed deck had drawn
    open_deck(terminal)
    terminal.press("3")
    assert "#2" not in terminal.wait("> #1")
    slow.allow(2 * LAYER)
    terminal.wait("done", gone="1 running")
    assert (base / "work/slow_1.oci.sif").exists()


# 8: without colour, words are still to be read


def test_08_no_colour_means_none(tmp_path: Path) -> None:
    make_images(tmp_path / "images")
    environment = {
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "TERM": "xterm-256color",
        "NO_COLOR": "1",
    }
    with open_pseudo((str(SIFDECK), "deck"), environment, tmp_path / "images") as deck:
        deck.until(b"5 images")
        deck.press(b"3")
        deck.until(b"No jobs yet")
    styles = {
        int(number)
        for found in re.findall(rb"\x1b\[([0-9;]+)m", deck.seen)
        for number in found.split(b";")
    }
    assert styles
    assert not styles & {*range(30, 39), *range(40, 49), *range(90, 108)}


# 9: copies reach the terminal in which the user sits


def test_09_a_copy_reaches_the_terminal_around_a_tmux_with_default_settings(
    terminal: Terminal, tmp_path: Path
) -> None:
    attach = ("tmux", "-S", str(terminal.socket), "attach", "-t", "t")
    environment = {"TERM": "xterm-256color", "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    with open_pseudo(attach, environment, tmp_path) as outer:
        terminal.until(lambda: terminal.tmux("list-clients").count("\n") == 1)
        terminal.type(f"{inside_tmux(terminal)} sifdeck deck\n")
        terminal.wait("No image files here yet")
        terminal.press("y")
        outer.until(base64.b64encode(b"sifdeck inspect IMAGE"))
        terminal.wait("by way of tmux")
    assert terminal.tmux("show-buffer") == "sifdeck inspect IMAGE"


@pytest.mark.parametrize(
    ("term", "written", "said"),
    [
        ("xterm", b"\x1b]52;c;%s\x07", b"by way of the"),
        ("screen", b"\x1bP\x1b]52;c;%s\x07\x1b\\", b"by way of the"),
        ("linux", b"", b"no clipboard"),
    ],
    ids=["xterm", "screen", "none"],
)
def test_09_a_copy_reaches_a_plain_terminal_or_is_said_not_to(
    tmp_path: Path, term: str, written: bytes, said: bytes
) -> None:
    (tmp_path / "work").mkdir()
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "TERM": term}
    with open_pseudo((str(SIFDECK), "deck"), environment, tmp_path / "work") as deck:
        deck.until(b"No image files here yet")
        deck.press(b"y")
        deck.until(said)
        wanted = base64.b64encode(b"sifdeck inspect IMAGE")
        assert deck.seen.count(b"\x1b]52") == bool(written)
        assert not written or written % wanted in deck.seen
    kept = tmp_path / ".local/state/sifdeck/clip.txt"
    assert kept.read_text() == "sifdeck inspect IMAGE"


# 10: a password is where it belongs, and nowhere else


@pytest.mark.registry
def test_10_a_password_is_in_no_process_list_log_job_picture_or_report(
    terminal: Terminal, base: Path, locked_registry: Registry
) -> None:
    made = images.image([images.busybox_layer()])
    locked_registry.push(made, "acceptance/locked", "1")
    listed: list[str] = []

    def look(request: Request) -> None:
        if "authorization" in request.headers:
            listed.append(process_list())

    with flaky_proxy(locked_registry.host) as proxy:
        proxy.on_request = look
        trust(base, proxy.host)
        screens = log_in_and_pull(terminal, proxy.host)
    assert len(listed) > 2
    kept = base / "home/.singularity/docker-config.json"
    encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    assert encoded in kept.read_text()
    for secret in (PASSWORD, encoded):
        assert not any(secret in processes for processes in listed)
        assert not any(secret in screen for screen in screens)
        assert [path for path in files_with(base, secret) if path != kept] == []


def log_in_and_pull(terminal: Terminal, host: str) -> list[str]:
    """Log in by the deck, pull what is there and what is not; return all that was shown."""
    screens = []
    open_deck(terminal)
    terminal.press("2")
    terminal.wait("[2 Registries]")
    terminal.press("a")
    terminal.wait("Registry or repository")
    terminal.type(f"{host}/acceptance/locked")
    terminal.press("Enter")
    terminal.wait(host)
    terminal.press("l")
    terminal.wait("Log in")
    terminal.press("Tab")
    terminal.type(USER)
    terminal.press("Tab")
    terminal.type(PASSWORD)
    screens.append(terminal.wait("\u2022" * len(PASSWORD)))
    terminal.press("C-s")
    screens.append(terminal.wait("logged in to"))
    for number, tag in enumerate(("none", "1"), start=1):
        terminal.press("5")  # where no row fills in the reference
        terminal.wait("[5 Doctor]")
        pull(terminal, f"{host}/acceptance/locked:{tag}", number)
        screens.append(terminal.text)
    terminal.press("3")
    screens.append(terminal.wait("1 failed", gone="running"))
    terminal.press("G", "e")
    screens.append(terminal.wait("manifest unknown"))
    terminal.press("y")
    screens.append(terminal.wait("copied"))
    terminal.press("Escape")
    terminal.wait("[3 Jobs", gone="pull failed")
    terminal.press("l")
    screens.append(terminal.wait("ERROR"))
    return screens


def process_list() -> str:
    """Return what ``ps`` shows of every process."""
    argv = ("ps", "-ww", "-e", "-o", "args=")
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def files_with(folder: Path, text: str) -> list[Path]:
    """Return the files below a folder in which a text occurs."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if text.encode() in path.read_bytes()]
