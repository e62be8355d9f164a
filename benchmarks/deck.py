"""``python -m benchmarks.deck``: what the deck costs, measured in a real pseudo-terminal.

First paint, key to paint with four jobs running, bytes and wake-ups while idle, memory, and
lists of 10,000 images.  Wall clock on a busy machine is noise: medians of several runs, with
the start of a bare Textual app beside them as the yardstick.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from dataclasses import dataclass
from pathlib import Path

from backend.events import Blob, Started, encode
from tests.support.decks import make_images, write_job

RUNS = 7
SIZE = (24, 80)
MODES = b"\x1b[?1049h"  # the alternate screen: the deck has begun to draw

BARE = """
from textual.app import App
from textual.widgets import Static
class Bare(App):
    def compose(self):
        yield Static('[1 Images]', markup=False)
Bare().run()
"""


@dataclass(kw_only=True)
class Terminal:
    """A program in a pseudo-terminal."""

    pid: int
    fd: int
    seen: bytes = b""

    def read(self, limit_s: float) -> int:
        """Read for so many seconds at most, until something came; return its bytes."""
        ready, _, _ = select.select([self.fd], [], [], limit_s)
        if not ready:
            return 0
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:
            return 0
        self.seen += data
        return len(data)

    def until(self, wanted: bytes, limit_s: float = 20.0) -> float:
        """Read until something was seen; return the seconds it took."""
        begin = time.perf_counter()
        while wanted not in self.seen and time.perf_counter() - begin < limit_s:
            self.read(0.05)
        return time.perf_counter() - begin

    def settle(self, quiet_s: float = 0.7) -> None:
        """Read until nothing comes for a while."""
        end = time.perf_counter() + 10.0
        while self.read(quiet_s) and time.perf_counter() < end:
            pass

    def press(self, keys: bytes) -> float:
        """Press keys; return the seconds until the first byte of the answer."""
        self.seen = b""
        begin = time.perf_counter()
        os.write(self.fd, keys)
        self.read(5.0)
        return time.perf_counter() - begin

    def close(self) -> None:
        """End the program."""
        os.kill(self.pid, signal.SIGTERM)
        end = time.perf_counter() + 5.0
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            self.read(0.05)
            if time.perf_counter() > end:
                os.kill(self.pid, signal.SIGKILL)
        os.close(self.fd)


def start(argv: list[str], environment: dict[str, str], folder: Path) -> Terminal:
    """Start a program in a pseudo-terminal of 80 columns and 24 lines."""
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(argv[0], argv, environment)  # noqa: S606  (a shell is what we leave out)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))
    return Terminal(pid=pid, fd=fd)


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def switches(pid: int) -> int:
    """Return how often a process has waited: each is a wake-up."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text(encoding="ascii").splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total


def cpu_s(pid: int) -> float:
    """Return the seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(name: str, value: float, unit: str, target: str) -> None:
    """Print one line of the table."""
    print(f"{name:44} {value:9.1f} {unit:5} {target}")


def measure_start(
    argv: list[str], environment: dict[str, str], folder: Path
) -> tuple[float, float]:
    """Return median seconds, wall and CPU, from fork to the first painted word."""
    walls, cpus = [], []
    for _ in range(RUNS):
        begin = time.perf_counter()
        terminal = start(argv, environment, folder)
        terminal.until(b"Images]")
        walls.append(time.perf_counter() - begin)
        cpus.append(cpu_s(terminal.pid))
        terminal.settle()
        terminal.close()
    return statistics.median(walls), statistics.median(cpus)


def running_jobs(root: Path) -> list[Path]:
    """Make four jobs that run, in this process as far as anybody can tell."""
    folders = []
    for number in range(1, 5):
        events = [Started(verb="pull", title=f"docker://example/{number}"), *layers(0)]
        folders.append(write_job(root, number, status=None, events=events, begun=time.time()))
    return folders


def layers(done: int) -> list[Blob]:
    """Return where the eight layers of a made-up pull stand."""
    return [
        Blob(
            digest=f"sha256:{index:064x}",
            role="layer",
            index=index,
            state="downloading",
            done=done,
            size=10_000,
        )
        for index in range(8)
    ]


def advance(folders: list[Path], done: int) -> None:
    """Let every job come further."""
    for folder in folders:
        with (folder / "events.jsonl").open("a", encoding="ascii") as out:
            out.writelines(f"{encode(event)}\n" for event in layers(done))


def measure_keys(terminal: Terminal, folders: list[Path]) -> list[float]:
    """Return the seconds from a key to the answer's first byte while jobs move."""
    waits = []
    for number in range(60):
        advance(folders, number * 100)
        terminal.settle(0.01)
        waits.append(terminal.press(b"j" if number % 2 == 0 else b"k"))
    return waits


def main() -> None:
    """Measure everything and print a table."""
    base = Path(tempfile.mkdtemp(prefix="sifdeck-bench-"))
    try:
        measure(base)
    finally:
        shutil.rmtree(base)


def measure(base: Path) -> None:
    """Measure everything in a folder of ours."""
    images, state = base / "images", base / "state"
    make_images(images)
    environment = {
        "HOME": str(base),
        "PATH": os.environ["PATH"],
        "TERM": "xterm-256color",
        "SIFDECK_STATE_DIR": str(state),
        "SIFDECK_CACHE_DIR": str(base / "cache"),
    }
    deck = [str(Path(sys.executable).with_name("sifdeck")), "deck"]
    bare, bare_cpu = measure_start([sys.executable, "-c", BARE], environment, images)
    wall, cpu = measure_start(deck, environment, images)
    report("bare Textual app, first paint", bare * 1000, "ms", "yardstick")
    report("the deck, first paint", wall * 1000, "ms", "< 450 ms")
    report("bare Textual app, CPU", bare_cpu * 1000, "ms", "")
    report("the deck, CPU", cpu * 1000, "ms", f"{cpu / bare_cpu:.2f} x bare")

    measure_idle(deck, environment, images)
    measure_jobs(deck, environment, images, state / "jobs")
    measure_many(base, deck, environment)


def measure_idle(deck: list[str], environment: dict[str, str], images: Path) -> None:
    """Measure a deck to which nothing happens."""
    terminal = start(deck, environment, images)
    terminal.until(b"Images]")
    terminal.settle(2.0)
    before, woken, used = len(terminal.seen), switches(terminal.pid), cpu_s(terminal.pid)
    terminal.read(10.0)
    report("idle for 10 s: bytes written", len(terminal.seen) - before, "B", "0")
    report("idle for 10 s: wake-ups", switches(terminal.pid) - woken, "", "0")
    report("idle for 10 s: CPU", (cpu_s(terminal.pid) - used) * 1000, "ms", "0")
    keys = [terminal.press(b"j" if number % 2 == 0 else b"k") for number in range(40)]
    report("key to paint, nothing runs, median", statistics.median(keys) * 1000, "ms", "< 20 ms")
    report("memory", resident_mb(terminal.pid), "MB", "< 80 MB")
    terminal.close()


def measure_jobs(deck: list[str], environment: dict[str, str], images: Path, root: Path) -> None:
    """Measure a deck with four pulls of eight layers."""
    folders = running_jobs(root)
    terminal = start([*deck], environment, images)
    terminal.until(b"Images]")
    terminal.settle(0.3)
    waits = measure_keys(terminal, folders)
    report("key to paint, 4 jobs run, median", statistics.median(waits) * 1000, "ms", "< 20 ms")
    report("key to paint, 4 jobs run, 95 %", sorted(waits)[-4] * 1000, "ms", "")
    begin, used, written = time.perf_counter(), cpu_s(terminal.pid), 0
    terminal.press(b"3")
    number = 0
    while time.perf_counter() - begin < 5.0:
        number += 1
        advance(folders, number * 50)
        written += terminal.read(0.05)
    elapsed = time.perf_counter() - begin
    report("4 pulls on the screen: bytes", written / elapsed, "B/s", "5 Hz")
    report("4 pulls on the screen: CPU", (cpu_s(terminal.pid) - used) / elapsed * 100, "%", "")
    report("memory, 4 jobs", resident_mb(terminal.pid), "MB", "< 80 MB")
    terminal.close()


def measure_many(base: Path, deck: list[str], environment: dict[str, str]) -> None:
    """Measure a folder with 10,000 images, whose index is there."""
    many = base / "many"
    make_images(many)
    first = next(many.glob("*.oci.sif"))
    for number in range(10_000):
        os.link(first, many / f"copy-{number}.oci.sif")
    subprocess.run([deck[0], "ls"], cwd=many, env=environment, check=True, capture_output=True)
    walls, keys, memory = [], [0.0], 0.0
    for _ in range(3):
        begin = time.perf_counter()
        terminal = start(deck, environment, many)
        terminal.until(b"10005 images")
        walls.append(time.perf_counter() - begin)
        terminal.settle()
        keys = [terminal.press(b"\x1b[6~") for _ in range(20)]
        memory = resident_mb(terminal.pid)
        terminal.close()
    report("10,000 images: listed after", statistics.median(walls) * 1000, "ms", "")
    report("10,000 images: page down, median", statistics.median(keys) * 1000, "ms", "< 20 ms")
    report("10,000 images: memory", memory, "MB", "< 80 MB")


if __name__ == "__main__":
    main()
