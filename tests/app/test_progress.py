from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner, Result

from app.cli import progress as drawing
from app.cli.common import json_option
from app.cli.progress import reporting
from app.cli.sentences import duration, headline, size_text
from backend.errors import NotFoundError
from backend.events import (
    Blob,
    Event,
    Failed,
    Finished,
    Note,
    Output,
    Phase,
    Report,
    Resolved,
    Step,
    decode,
)
from backend.progress import Progress, Throttle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EVIL = "\x1b]0;owned\x07\u202e"
DIGEST = "sha256:0be1d4aa0000ffff"


def blob(state: str, done: int = 0, index: int = 0, note: str = "") -> Blob:
    return Blob(
        digest=DIGEST,
        role="layer",
        index=index,
        state=state,  # type: ignore[arg-type]  # a test writes it out
        done=done,
        size=1_000_000,
        note=note,
    )


def run(
    work: Callable[[Report], None], *args: str, quiet: bool = False, job: Path | None = None
) -> Result:
    """Run a verb that does ``work``."""

    @click.command()
    @json_option
    @click.pass_context
    def verb(ctx: click.Context, *, as_json: bool) -> None:
        with reporting(ctx, verb="pull", title="docker://x", as_json=as_json) as report:
            work(report)

    return CliRunner().invoke(verb, args, obj={"quiet": quiet, "job": job})


def transfer(report: Report) -> None:
    report(Resolved(reference="h/x:1", digest=DIGEST, platform="linux/amd64", total=2_000_000))
    report(blob("waiting"))
    report(blob("downloading"))
    for done in range(0, 1_000_000, 1000):
        report(blob("downloading", done))
    report(blob("retry", 400_000, note="attempt 2 of 5"))
    report(blob("done", 1_000_000))
    report(blob("exists", 1_000_000, index=1))
    report(Phase(name="convert", done=1, total=2))
    report(Phase(name="convert", done=2, total=2, state="done"))
    report(Finished(path="x.oci.sif", size=1234))


def test_an_artifact_has_no_platform_and_a_folder_no_size() -> None:
    artifact = Resolved(reference="oras://h/x:1", digest=DIGEST, platform="", total=2_000_000)
    assert headline(artifact).endswith("(2.0 MB)")
    assert headline(Finished(path="layout", size=0)) == "Complete: layout"


class TestLines:
    def test_one_line_for_each_change(self) -> None:
        result = run(transfer)
        assert result.exit_code == 0
        assert result.stdout == ""
        assert result.stderr.splitlines() == [
            "INFO:    Pull docker://x",
            "INFO:    h/x:1 is 0be1d4aa0000 (linux/amd64, 2.0 MB)",
            "INFO:    layer 1/1 0be1d4aa0000: downloading, 1.0 MB",
            "INFO:    layer 1/1 0be1d4aa0000: trying again, 1.0 MB (attempt 2 of 5)",
            "INFO:    layer 1/1 0be1d4aa0000: done, 1.0 MB",
            "INFO:    layer 2/2 0be1d4aa0000: already in the cache, 1.0 MB",
            "INFO:    convert ...",
            "INFO:    convert: done (2 B)",
            "INFO:    Complete: x.oci.sif (1.2 kB)",
        ]

    def test_how_far_it_is_every_ten_seconds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [0.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])

        def work(report: Report) -> None:
            for second in range(25):
                now[0] = second
                report(blob("downloading", second * 10_000))

        lines = run(work).stderr.splitlines()
        assert len(lines) == 2 + 2
        assert lines[2].startswith("INFO:    110.0 kB of 1.0 MB (")
        assert lines[2].endswith(" left)")

    def test_quiet_says_nothing(self) -> None:
        assert run(transfer, quiet=True).output == ""

    def test_a_build_looks_like_one(self) -> None:
        def work(report: Report) -> None:
            report(Step(number=1, total=3, name="FROM x", state="cached"))
            report(Step(number=2, total=3, name="RUN make", state="running"))
            report(Output(text="cc\tmain.c", step=2))
            report(Step(number=2, total=3, name="RUN make", state="done", seconds=3.21))
            report(Step(number=3, total=3, name="RUN false", state="running"))
            report(Step(number=3, total=3, name="RUN false", state="failed", line=7, error="no"))

        assert run(work).stderr.splitlines()[1:] == [
            "#1 [1/3] FROM x",
            "#1 CACHED",
            "#2 [2/3] RUN make",
            "#2 cc      main.c",
            "#2 DONE 3.2s",
            "#3 [3/3] RUN false",
            "#3 ERROR (line 7 of the Dockerfile): no",
        ]

    def test_nothing_from_outside_reaches_the_terminal_raw(self) -> None:
        def work(report: Report) -> None:
            report(Resolved(reference=EVIL, digest=EVIL, platform=EVIL, total=0))
            report(blob("retry", note=EVIL))
            report(Phase(name=EVIL))
            report(Step(number=1, total=0, name=EVIL, state="failed", error=EVIL))
            report(Output(text=EVIL))
            report(Note(level="info", text=EVIL))
            report(Finished(path=EVIL))

        result = run(work)
        assert not set("\x1b\x07\u202e") & set(result.output)
        assert result.output.count("\\x1b]0;owned") >= 8


class TestJson:
    def test_lines_of_json(self) -> None:
        result = run(transfer, "--json")
        assert result.stderr == ""
        events = [decode(line) for line in result.stdout.splitlines()]
        assert isinstance(events[-1], Finished)
        states = [event.state for event in events if isinstance(event, Blob)]
        # A thousand snapshots within a fraction of a second are a handful of lines.
        assert len(states) < 20
        assert [s for s, before in zip(states, ["", *states], strict=False) if s != before] == [
            "waiting",
            "downloading",
            "retry",
            "done",
            "exists",
        ]

    def test_an_error_is_an_event_and_goes_on(self) -> None:
        def work(_: Report) -> None:
            raise NotFoundError("no such tag", why="w", kept="k", hint="h")

        result = run(work, "--json")
        assert isinstance(result.exception, NotFoundError)
        assert decode(result.stdout.splitlines()[-1]) == Failed(
            message="no such tag", why="w", kept="k", hint="h", exit_code=11
        )

    def test_an_interruption_is_an_event(self) -> None:
        def work(_: Report) -> None:
            raise KeyboardInterrupt

        last = decode(run(work, "--json").stdout.splitlines()[-1])
        assert last == Failed(message="Interrupted", exit_code=130)

    def test_a_bug_is_no_event(self) -> None:
        def work(_: Report) -> None:
            raise ZeroDivisionError

        result = run(work, "--json")
        assert isinstance(result.exception, ZeroDivisionError)
        assert [decode(line).kind for line in result.stdout.splitlines()] == ["started"]


def test_a_job_keeps_the_events_and_prints_lines(tmp_path: Path) -> None:
    result = run(transfer, "--json", job=tmp_path)
    assert "INFO:    convert: done" in result.stderr
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert decode(lines[-1]) == Finished(path="x.oci.sif", size=1234)
    assert (tmp_path / "events.jsonl").stat().st_mode & 0o777 == 0o600


def test_the_record_of_a_job_does_not_grow_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "_MAX_RECORD", 2000)

    def work(report: Report) -> None:
        for number in range(1000):
            report(Output(text=f"line {number}", step=1))
        report(Step(number=1, total=1, name="RUN yes", state="done"))

    run(work, job=tmp_path)
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert len(lines) < 50
    assert isinstance(decode(lines[-1]), Step)


PROGRAM = """
import sys, time, click
from app.cli.progress import reporting
from backend.events import *

evil = "\\x1b]0;owned\\x07"
ctx = click.Context(click.Command("pull"), obj={"quiet": False})
with reporting(ctx, verb="pull", title=evil) as report:
    def layer(index, state, done):
        report(Blob(digest="sha256:aaaabbbbcccc" + str(index), role="layer", index=index,
                    state=state, done=done, size=1000, note=evil))
    layer(0, "exists", 1000)
    layer(1, "downloading", 500)
    report(Step(number=4, total=9, name="RUN make " + evil, state="running"))
    report(Output(text="gcc " + evil, step=4))
    time.sleep(0.5)
    open(sys.argv[1], "w").close()
    if len(sys.argv) > 2:
        time.sleep(60)
    report(Step(number=4, total=9, name="RUN make", state="failed", error=evil))
    layer(1, "done", 1000)
"""


def start_on_a_terminal(*args: str) -> tuple[subprocess.Popen[bytes], int]:
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *args], stderr=slave, stdout=slave, env=environment
    )
    os.close(slave)
    return process, master


def read_terminal(master: int) -> str:
    """Return what was drawn until nobody can draw any more."""
    parts = []
    try:
        while data := os.read(master, 65536):
            parts.append(data)
    except OSError:
        pass  # EIO: the other side is closed
    os.close(master)
    return b"".join(parts).decode()


class TestBars:
    def test_bars_for_layers_and_steps(self, tmp_path: Path) -> None:
        process, master = start_on_a_terminal(str(tmp_path / "up"))
        drawn = read_terminal(master)
        assert process.wait() == 0
        assert " 1/2 aaaabbbbcccc" in drawn
        assert "############------------  50%" in drawn
        assert "#4 [4/9] RUN make" in drawn
        assert "#4 gcc" in drawn
        assert "total" in drawn
        assert "\x1b]0;" not in drawn
        assert drawn.rstrip().endswith("\x1b[?25h")  # the cursor is back

    def test_sigterm_leaves_the_terminal_clean(self, tmp_path: Path) -> None:
        process, master = start_on_a_terminal(str(tmp_path / "up"), "stay")
        while not (tmp_path / "up").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        drawn = read_terminal(master)
        assert process.wait() == 143
        assert drawn.rstrip().endswith("\x1b[?25h")


def test_a_verb_without_a_terminal_loads_no_rich(tmp_path: Path) -> None:
    program = PROGRAM + "\nassert not {'rich', 'asyncio'} & set(sys.modules), 'too much'\n"
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "up")], check=True, capture_output=True
    )


class TestProgress:
    def test_rate_and_eta_count_what_moved(self) -> None:
        now = [100.0]
        progress = Progress(clock=lambda: now[0])
        progress.feed(blob("exists", 1_000_000, index=1))
        progress.feed(blob("downloading", 300_000))  # resumed: these came earlier
        now[0] += 2
        progress.feed(blob("downloading", 500_000))
        assert progress.rate == pytest.approx(100_000)
        assert (progress.done, progress.total) == (1_500_000, 2_000_000)
        assert progress.eta_s == pytest.approx(5)
        assert progress.fraction == 0.75

    def test_a_build_counts_steps(self) -> None:
        progress = Progress()
        progress.feed(Step(number=1, total=4, name="FROM", state="cached"))
        progress.feed(Step(number=2, total=4, name="RUN", state="running"))
        assert progress.fraction == 0.25
        assert progress.step
        assert progress.step.number == 2


def test_the_last_state_is_always_written() -> None:
    seen: list[Event] = []
    throttle = Throttle(seen.append, clock=lambda: 1.0)
    for done in range(50):
        throttle(blob("downloading", done))
    assert seen == [blob("downloading", 0)]
    throttle.flush()
    assert seen[1:] == [blob("downloading", 49)]
    throttle(blob("downloading", 50))
    throttle(Finished())
    assert seen[2:] == [blob("downloading", 50), Finished()]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (5e15, "5000.0 TB")],
)
def test_sizes(size: float, text: str) -> None:
    assert size_text(size) == text


def test_durations() -> None:
    assert [duration(s) for s in (0, 17.9, 291, 3723)] == ["00:00", "00:17", "04:51", "1:02:03"]
