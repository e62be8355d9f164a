"""``python -m benchmarks.deck [--seconds N]``: what the deck costs, beside its budgets.

Everything is measured in a real pseudo-terminal: first paint, key to paint with four jobs
running, bytes and wake-ups while idle, how often progress is drawn, memory, lists of 10,000
and 100,000 images, and a log that grows by 1,000 lines a second.  Wall clock on a busy machine
is noise: medians of several runs, and in the same run, turn by turn, a bare Textual app as the
yardstick; CPU time is the steadier number.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from backend.catalog import Catalog
from backend.events import Blob, Started, encode
from tests.support.decks import make_images, write_job
from tests.support.pseudo import Pseudo, start

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RUNS = 9
SIFDECK = Path(sys.executable).with_name("sifdeck")
DECK = (str(SIFDECK), "deck")
PAINTED = b"5 Doctor"
BARE_APP = """
from textual.app import App
from textual.widgets import Static
class Bare(App):
    def compose(self):
        yield Static('[1 Images]', markup=False)
Bare().run()
"""
BARE = (sys.executable, "-c", BARE_APP)


def report(name: str, value: float, unit: str, budget: float | None = None, peer: str = "") -> None:
    """Print one line of the table; a budget that is not met is marked."""
    wanted = "" if budget is None else f"{'<=' if value <= budget else 'OVER'} {budget:g}"
    print(f"{name:46} {value:9.1f} {unit:6} {wanted:12} {peer}", flush=True)


class Bench:
    """A folder with images, jobs and settings of its own.

    Args:
        base: An empty folder.
    """

    def __init__(self, base: Path) -> None:
        self.images = base / "images"
        self.jobs = base / "state" / "jobs"
        self.cache = base / "cache"
        self.environment = {
            "HOME": str(base),
            "PATH": os.environ["PATH"],
            "TERM": "xterm-256color",
            "SIFDECK_STATE_DIR": str(base / "state"),
            "SIFDECK_CACHE_DIR": str(self.cache),
        }
        make_images(self.images)

    def open(self, argv: Sequence[str] = DECK, folder: Path | None = None) -> Pseudo:
        """Start a program and wait for its first word."""
        terminal = start(argv, self.environment, folder or self.images)
        terminal.until(PAINTED)
        return terminal


def keys(
    terminal: Pseudo, pressed: Sequence[bytes], before: Callable[[int], object]
) -> list[float]:
    """Return the milliseconds from each key to the first byte of its answer."""
    waits = []
    for number, key in enumerate(pressed):
        before(number)
        terminal.settle(0.015)
        waits.append(terminal.press(key) * 1000)
    return waits


def high(values: list[float]) -> float:
    """Return the value that one in twenty exceeds."""
    return statistics.quantiles(values, n=20)[-1]


def measure_start(bench: Bench) -> None:
    """Measure wall and CPU time from the start of the process to the first painted word."""
    walls: dict[tuple[str, ...], list[float]] = {BARE: [], DECK: []}
    cpus: dict[tuple[str, ...], list[float]] = {BARE: [], DECK: []}
    for _ in range(RUNS):
        for argv in (BARE, DECK):
            begin = time.perf_counter()
            terminal = bench.open(argv)
            walls[argv].append((time.perf_counter() - begin) * 1000)
            cpus[argv].append(terminal.cpu_s * 1000)
            terminal.settle(0.3)
            terminal.close()
    for name, times, budget in (("wall", walls, 450.0), ("CPU", cpus, None)):
        bare, deck = (statistics.median(times[argv]) for argv in (BARE, DECK))
        peer = f"bare Textual {bare:.0f} ms, {deck / bare:.2f} x; best {min(times[DECK]):.0f} ms"
        report(f"first paint, {name}", deck, "ms", budget, peer)


def measure_idle(bench: Bench) -> None:
    """Measure decks to which nothing happens, and what a key costs them."""
    bare = bench.open(BARE)
    bare.settle(2.0)
    woken = bare.wakeups
    terminal = bench.open()
    terminal.settle(2.0)
    before, wakeups, used = len(terminal.seen), terminal.wakeups, terminal.cpu_s
    terminal.read(10.0)
    peer = f"bare Textual {(bare.wakeups - woken) / 12:.0f} a second"
    report("idle for 10 s: bytes written", len(terminal.seen) - before, "B", 0)
    report("idle for 10 s: wake-ups", terminal.wakeups - wakeups, "", 0, peer)
    report("idle for 10 s: CPU", (terminal.cpu_s - used) * 1000, "ms", 1)
    waits = keys(terminal, [b"j", b"k"] * 30, lambda _: None)
    report("key to paint, nothing runs, median", statistics.median(waits), "ms", 20)
    memory, peer = terminal.resident_mb, f"bare Textual {bare.resident_mb:.0f} MB"
    report("memory", memory, "MB", 80, peer)
    terminal.close()
    bare.close()


def layers(done: int) -> list[Blob]:
    """Return where the eight layers of a made-up pull stand."""
    return [
        Blob(
            digest=f"sha256:{index:064x}",
            role="layer",
            index=index,
            state="downloading",
            done=done,
            size=100_000,
        )
        for index in range(8)
    ]


def running_jobs(root: Path) -> list[Path]:
    """Make four jobs that run, in this process as far as anybody can tell."""
    folders = []
    for number in range(1, 5):
        events = [Started(verb="pull", title=f"docker://example/{number}"), *layers(0)]
        folders.append(write_job(root, number, status=None, events=events, begun=time.time()))
    return folders


def advance(folders: list[Path], done: int) -> None:
    """Let every job come further."""
    for folder in folders:
        with (folder / "events.jsonl").open("a", encoding="ascii") as out:
            out.writelines(f"{encode(event)}\n" for event in layers(done))


def measure_jobs(bench: Bench, seconds: float) -> None:
    """Measure a deck with four pulls of eight layers, which report twenty times a second."""
    folders = running_jobs(bench.jobs)
    terminal = bench.open()
    terminal.settle(0.3)
    waits = keys(terminal, [b"j", b"k"] * 30, lambda number: advance(folders, number * 100))
    report("key to paint, 4 jobs run, median", statistics.median(waits), "ms", 20)
    report("key to paint, 4 jobs run, 95 %", high(waits), "ms")
    terminal.press(b"3")
    terminal.settle(0.3)
    begin, used, written, paints, number, last = time.perf_counter(), terminal.cpu_s, 0, 0, 0, 0.0
    while time.perf_counter() - begin < seconds:
        number += 1
        advance(folders, number * 50)
        until = time.perf_counter() + 0.05
        while (left := until - time.perf_counter()) > 0:
            if count := terminal.read(left):
                written += count
                paints += time.perf_counter() - last > 0.03  # nothing for so long: a new one
                last = time.perf_counter()
    elapsed = time.perf_counter() - begin
    report("4 pulls on the screen: drawn a second", paints / elapsed, "Hz", 6)
    report("4 pulls on the screen: written", written / elapsed / 1000, "kB/s")
    report("4 pulls on the screen: CPU", (terminal.cpu_s - used) / elapsed * 100, "%")
    report("memory, 4 jobs", terminal.resident_mb, "MB", 80)
    terminal.close()
    shutil.rmtree(bench.jobs)


def measure_many(bench: Bench, count: int, budget_ms: float) -> None:
    """Measure a folder with many images, whose index is there."""
    folder = bench.images.with_name(f"many-{count}")
    make_images(folder)
    for number in range(count - 5):
        first = folder / f"first-{number // 50_000}.oci.sif"  # a file has room for so many links
        if number % 50_000 == 0:
            shutil.copyfile(folder / "solver_v2.oci.sif", first)
        else:
            os.link(first, folder / f"copy-{number}.oci.sif")
    subprocess.run([DECK[0], "ls"], cwd=folder, env=bench.environment, check=True, stdout=-3)
    begin = time.perf_counter()
    found = len(next(Catalog([folder], bench.cache / "catalog").scan()))
    opened = (time.perf_counter() - begin) * 1000
    report(f"{found:,} images: index read and compared", opened, "ms", budget_ms)
    begin = time.perf_counter()
    terminal = bench.open(folder=folder)
    painted = time.perf_counter() - begin
    terminal.until(f"{count} images".encode())
    listed = (time.perf_counter() - begin - painted) * 1000
    report(f"{count:,} images: first paint", painted * 1000, "ms", 450)
    report(f"{count:,} images: listed so long after it", listed, "ms")
    terminal.settle()
    waits = keys(terminal, [b"j", b"\x1b[6~", b"k", b"\x1b[5~"] * 10, lambda _: None)
    report(f"{count:,} images: key to paint, median", statistics.median(waits), "ms", 20)
    report(f"{count:,} images: memory", terminal.resident_mb, "MB")
    terminal.close()
    shutil.rmtree(folder)


def measure_log(bench: Bench, seconds: float) -> None:
    """Measure a log that grows by 1,000 lines a second, one of them a bar of 90,000 characters."""
    job = write_job(bench.jobs, 1, status=None, begun=time.time(), log="begun\n")
    terminal = bench.open()
    terminal.settle(0.3)
    terminal.press(b"3")
    terminal.settle(0.3)
    terminal.press(b"l")
    terminal.until(b"begun")
    stop = threading.Event()
    writer = threading.Thread(target=flood, args=(job / "log", stop))
    writer.start()
    stalls, used, begin = [], terminal.cpu_s, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        terminal.seen = b""
        os.write(terminal.fd, b"\x0c")  # draw everything again, which growing lines never do
        stalls.append(terminal.until(b" sifdeck ") * 1000)
        terminal.settle(0.05)
    elapsed = time.perf_counter() - begin
    stop.set()
    writer.join()
    report("1,000 lines/s: key to a whole screen, median", statistics.median(stalls), "ms", 100)
    report("1,000 lines/s: key to a whole screen, longest", max(stalls), "ms", 100)
    report("1,000 lines/s: CPU", (terminal.cpu_s - used) / elapsed * 100, "%")
    report("1,000 lines/s: memory", terminal.resident_mb, "MB", 80)
    terminal.close()


def flood(path: Path, stop: threading.Event) -> None:
    """Write 1,000 lines a second until told to stop."""
    bar = "".join(f"\r{number:5} of 15000" for number in range(6000))
    number = 0
    with path.open("a", encoding="ascii") as out:
        while not stop.wait(0.05):
            out.write(f"{bar}\n" if number % 1000 == 0 else "")
            out.writelines(f"\x1b[32mstep {number + i}\x1b[0m of many\n" for i in range(50))
            out.flush()
            number += 50


def main() -> None:
    """Measure everything and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of jobs, and of the log")
    seconds: float = parser.parse_args().seconds
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; times are medians")
    with tempfile.TemporaryDirectory(prefix="sifdeck-bench-") as base:
        bench = Bench(Path(base))
        measure_start(bench)
        measure_idle(bench)
        measure_jobs(bench, seconds)
        measure_log(bench, seconds)
        measure_many(bench, 10_000, 200.0)
        measure_many(bench, 100_000, 2000.0)


if __name__ == "__main__":
    main()
