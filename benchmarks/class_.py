"""Thirty learners on one node: ``.venv/bin/python -m benchmarks.class_ [LEARNERS]``.

A teacher fills one cache and makes it read-only.  Then every learner opens the lab in a deck,
each with a home, a terminal and a registry of their own, logs in and runs two images.  Printed
are the time until all decks are up, what each holds in memory (RSS; PSS counts shared pages by
their share), the time of a learner's commands, and how often an image was converted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import selectors
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from backend.labs.progress import read_progress
from backend.playground import PASSWORD, USER, playing, remove_playground
from backend.program import OURSELVES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LAB = "oci-mode"
_IMAGES = ("hello:1.0", "shell:1.0")
_WAIT_S = 300.0
_READY = b"step 1 of"


@dataclass(kw_only=True)
class Learner:
    """One learner, and the terminal in which the deck runs."""

    name: str
    home: Path
    process: subprocess.Popen[bytes]
    terminal: int
    printed: bytearray = field(default_factory=bytearray)

    @property
    def deck(self) -> int:
        """The process id of the deck, which ``lab start`` started."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children.split()[0])

    def folder(self) -> Path:
        """The folder of the lab."""
        return self.home / "state" / "labs" / self.name / _LAB


def main() -> None:
    """Run the class and print what it took."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    top = Path(tempfile.mkdtemp(prefix="sifdeck-class-"))
    shared = top / "shared"
    try:
        _fill(shared, top / "teacher")
        with contextlib.ExitStack() as stack:
            started = time.monotonic()
            learners = [
                stack.enter_context(_learner(top, f"learner{n}", shared)) for n in range(count)
            ]
            _wait_for_decks(learners)
            print(f"{count} decks up after {time.monotonic() - started:.1f} s")
            _print_memory("deck", [one.deck for one in learners])
            _print_memory("lab start (registry)", [one.process.pid for one in learners])
            seconds = [_work(one, shared) for one in learners]
            print(f"log in and run two images: median {statistics.median(seconds):.1f} s a learner")
        _print_conversions(shared, top)
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(top)], check=False)
        shutil.rmtree(top)


def _fill(shared: Path, folder: Path) -> None:
    """Convert each image once, as a teacher would, and close the cache for writing."""
    with playing(folder) as ground:
        environment = ground.environment | {"SIFDECK_CACHE_DIR": str(shared)}
        login = ("-u", USER, "--password-stdin", f"docker://{ground.registry}")
        _sifdeck(environment, "registry", "login", *login, stdin=PASSWORD)
        for image in _IMAGES:
            _sifdeck(environment, "exec", ground.reference(image), "true")
    remove_playground(folder)
    subprocess.run(["chmod", "-R", "a-w", str(shared)], check=True)


def _environment(home: Path, name: str, shared: Path) -> dict[str, str]:
    return os.environ | {
        "HOME": str(home),
        "TERM": "xterm-256color",
        "SIFDECK_LEARNER": name,
        "SIFDECK_STATE_DIR": str(home / "state"),
        "SIFDECK_CACHE_DIR": str(home / "cache"),
        "SIFDECK_SHARED_CACHE": str(shared),
    }


@contextlib.contextmanager
def _learner(top: Path, name: str, shared: Path) -> Iterator[Learner]:
    """Open the lab in a terminal of 80 columns and 24 lines; quit the deck in the end."""
    home = top / name
    home.mkdir()
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [*OURSELVES, "lab", "start", _LAB],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=_environment(home, name, shared),
        start_new_session=True,
    )
    os.close(theirs)
    learner = Learner(name=name, home=home, process=process, terminal=ours)
    try:
        yield learner
    finally:
        process.terminate()
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, IndexError):
            os.kill(learner.deck, 15)
        while process.poll() is None:
            with contextlib.suppress(OSError):
                os.read(ours, 1 << 16)
        os.close(ours)


def _wait_for_decks(learners: Sequence[Learner]) -> None:
    """Read what the decks draw until each has shown the first step."""
    waiting = {learner.terminal: learner for learner in learners}
    end = time.monotonic() + _WAIT_S
    with selectors.DefaultSelector() as selector:
        for terminal in waiting:
            selector.register(terminal, selectors.EVENT_READ)
        while waiting and time.monotonic() < end:
            for key, _ in selector.select(1):
                terminal = key.fd
                learner = next(one for one in learners if one.terminal == terminal)
                learner.printed += os.read(terminal, 1 << 16)
                if _READY in learner.printed:
                    waiting.pop(terminal, None)
    if waiting:
        raise SystemExit(f"{len(waiting)} decks did not come up")


def _work(learner: Learner, shared: Path) -> float:
    """Do what a learner does; return how long it took, in seconds."""
    folder = learner.folder()
    registry = f"127.0.0.1:{read_progress(folder, learner.name, _LAB).port}"
    environment = _environment(learner.home, learner.name, shared)
    environment["SINGULARITY_CONFIGDIR"] = str(folder / "config")
    started = time.monotonic()
    login = ("-u", USER, "--password-stdin", f"docker://{registry}")
    _sifdeck(environment, "registry", "login", *login, stdin=PASSWORD)
    for image in _IMAGES:
        _sifdeck(environment, "exec", f"docker://{registry}/lab/{image}", "true")
    return time.monotonic() - started


def _sifdeck(environment: dict[str, str], *argv: str, stdin: str = "") -> None:
    done = subprocess.run(
        [*OURSELVES, *argv],
        check=False,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"sifdeck {' '.join(argv)}: {done.stderr}")


def _print_memory(what: str, pids: Sequence[int]) -> None:
    found = [_memory(pid) for pid in pids]
    for kind in ("Rss", "Pss"):
        values = sorted(one[kind] / 1e6 for one in found)
        middle = statistics.median(values)
        print(f"{what:<22} {kind.upper()}  median {middle:5.1f} MB  most {values[-1]:5.1f} MB")


def _memory(pid: int) -> dict[str, int]:
    """Return bytes by the kernel's names."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    parts = (line.split() for line in lines)
    return {name.rstrip(":"): int(value) * 1024 for name, value, *_ in parts}


def _print_conversions(shared: Path, top: Path) -> None:
    once = len(list(shared.glob("oci-sif/*.sif")))
    again = len(list(top.glob("learner*/cache/oci-sif/*.sif")))
    print(f"conversions: {once} by the teacher, {again} by learners")


if __name__ == "__main__":
    main()
