from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from app.cli.jobs import jobs as jobs_verb
from app.cli.main import cli
from backend.events import Failed, Retained, Step, encode
from backend.jobs import Job, Jobs
from backend.jobs.identity import start_ticks, this_process
from backend.jobs.record import Exit, write_exit, write_job
from backend.paths import jobs_home
from backend.sif.ocisif import read_ocisif
from tests.support.images import busybox_layer, image
from tests.support.registry import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.registry import Registry

__all__ = ["registry"]

SIFDECK = (sys.executable, "-P", "-c", "import sys, sifdeck; sys.exit(sifdeck.main())")
LIMIT_S = 20.0


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


@pytest.fixture
def everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    """The jobs of this test, none of which runs afterwards."""
    monkeypatch.setenv("SIFDECK_STATE_DIR", str(tmp_path / "state"))
    made = Jobs(jobs_home())
    yield made
    for job in made.list():
        if not job.is_over and job.process.pid != os.getpid():
            job.process.send(signal.SIGTERM)
    wait_until(lambda: all(is_ended(made, job.number) for job in made.list()))


@pytest.fixture
def silent_registry() -> Iterator[str]:
    """``HOST:PORT`` of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def record(
    number: int, title: str = "docker://x", end: Exit | None = None, *, verb: str = "pull"
) -> Job:
    folder = jobs_home() / str(number)
    folder.mkdir(parents=True)
    job = Job(
        number=number,
        folder=folder,
        verb=verb,
        title=title,
        argv=(verb, title),
        environment={},
        cwd="/",
        kind="network",
        created=1.0,
        process=this_process(),
        started=2.0,
        exit=end,
    )
    write_job(job)
    if end:
        write_exit(folder, end)
    return job


def is_ended(everything: Jobs, number: int) -> bool:
    job = everything.get(number)
    return job.is_over or job.process.pid == os.getpid()


def run(*args: str) -> Result:
    return CliRunner().invoke(jobs_verb, args, obj={})


@pytest.mark.usefixtures("everything")
class TestReading:
    def test_the_list(self) -> None:
        assert "No jobs" in run().stdout
        record(1, end=Exit(status=0, cancelled=False, ended=65.0))
        record(2, title="docker://\x1b]0;owned\x07")
        lines = run().stdout.splitlines()
        assert lines[0].split() == ["JOB", "STATE", "BEGUN", "ELAPSED", "WHAT"]
        assert "\x1b" not in lines[1]
        assert lines[1].split()[:2] == ["2", "running"]
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(2.0))
        assert " ".join(lines[2].split()) == f"1 done {begun} 01:03 pull docker://x"
        documents = json.loads(run("--json").stdout)
        assert [(job["job"], job["state"], job["status"]) for job in documents] == [
            (2, "running", None),
            (1, "done", 0),
        ]

    def test_the_history_of_builds(self) -> None:
        record(1)
        job = record(2, verb="build", end=Exit(status=1, cancelled=False, ended=65.0))
        made = Step(number=1, total=2, name="RUN a", state="done", seconds=61.0)
        failed = Step(number=2, total=2, name="RUN b", state="failed", seconds=2.0, error="x")
        kept = Retained(builder="buildah", image="28103bcf1ed", step=1)
        lines = [encode(event) for event in (made, failed, kept, Failed(message="no"))]
        (job.folder / "events.jsonl").write_text("\n".join(lines) + "\n")
        assert [job["seconds"] for job in json.loads(run("--verb", "build", "--json").stdout)] == [
            63.0
        ]
        shown = run("show", "2").stdout.splitlines()
        assert "step 1:    done     01:01  RUN a" in shown
        assert "step 2:    failed   00:02  RUN b" in shown
        assert shown[-1] == "shell:     sifdeck jobs shell 2"

    def test_one_job(self) -> None:
        job = record(7, end=Exit(status=11, cancelled=False, ended=3.0))
        failed = Failed(message="no such tag", why="because", hint="look again", exit_code=11)
        (job.folder / "events.jsonl").write_text(encode(failed) + "\n")
        lines = run("show", "7").stdout.splitlines()
        assert lines[0] == f"job:       7, failed on {os.uname().nodename}"
        assert "command:   sifdeck pull docker://x" in lines
        assert lines[-3:] == [
            "error:     no such tag",
            "why:       because",
            "next:      look again",
        ]
        document = json.loads(run("show", "--json", "7").stdout)
        assert document["events"][-1]["message"] == "no such tag"

    @pytest.mark.parametrize(("status", "text"), [(137, "ended by SIGKILL"), (1, "status 1")])
    def test_a_job_that_said_nothing(self, status: int, text: str) -> None:
        record(7, end=Exit(status=status, cancelled=False, ended=3.0))
        assert text in run("show", "7").stdout

    def test_the_log(self) -> None:
        job = record(3, end=Exit(status=0, cancelled=False, ended=3.0))
        job.log.write_bytes(b"2026 one\n2026 \x1b[31mtwo\xff\n")
        assert run("log", "3").stdout == "2026 one\n2026 \\x1b[31mtwo\ufffd\n"
        assert run("log", "-f", "3").stdout.startswith("2026 one\n")

    def test_what_is_not_there(self) -> None:
        for verb in ("log", "show", "cancel", "retry"):
            error = run(verb, "99").exception
            assert str(error) == "there is no job 99"

    def test_clear(self) -> None:
        record(1, end=Exit(status=0, cancelled=False, ended=3.0))
        record(2)
        assert "1 job forgotten" in run("clear").stderr
        assert [job["job"] for job in json.loads(run("--json").stdout)] == [2]


class TestRunning:
    def pull(self, host: str) -> list[str]:
        return ["pull", "--no-https", f"docker://{host}/x:1"]

    def test_job_option_starts_the_same_command(
        self, everything: Jobs, silent_registry: str
    ) -> None:
        argv = [*self.pull(silent_registry), "--job"]
        result = CliRunner().invoke(cli, argv, obj={"argv": tuple(argv)})
        assert (result.exit_code, result.stdout) == (0, "1\n")
        job = everything.get(1)
        assert (job.verb, job.title) == ("pull", f"docker://{silent_registry}/x:1")
        assert job.argv == tuple(argv)
        wait_until((job.folder / "events.jsonl").exists)
        assert run("cancel", "1").stderr == "INFO:    Job 1: cancelled\n"
        again = run("retry", "1")
        assert again.stdout == "2\n"
        assert everything.get(2).argv == tuple(argv)

    def test_a_wrong_option_starts_nothing(self, everything: Jobs) -> None:
        result = CliRunner().invoke(cli, ["pull", "--job", "--no-such"], obj={"argv": ()})
        assert result.exit_code == 2
        assert everything.list() == []

    def test_a_failed_pull_is_a_failed_job(self, everything: Jobs) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            host = f"127.0.0.1:{server.getsockname()[1]}"
        argv = self.pull(host)  # nobody listens there any more
        job = everything.start(argv, title=argv[-1])
        wait_until(lambda: everything.get(job.number).is_over)
        ended = everything.get(job.number)
        assert ended.exit
        assert (ended.state, ended.exit.status) == ("failed", 13)
        view = everything.view(job.number)
        view.refresh()
        assert isinstance(view.progress.ended, Failed)
        assert "ERROR:" in run("log", "-f", str(job.number)).stdout

    def test_a_job_outlives_the_terminal_and_the_login(
        self, everything: Jobs, silent_registry: str
    ) -> None:
        command = " ".join(f"'{word}'" for word in [*SIFDECK, *self.pull(silent_registry)])
        # A login shell with a terminal of its own, as sshd makes it.
        leader, master = pty.fork()
        if leader == 0:
            os.execvp("sh", ["sh", "-c", f"{command} --job; sleep 1000"])  # noqa: S606  (a login)
        wait_until(everything.list)
        (job,) = everything.list()
        wait_until(lambda: everything.get(job.number).state == "running")
        os.close(master)  # the connection is lost: SIGHUP to the terminal's session
        os.kill(leader, signal.SIGKILL)
        os.waitpid(leader, 0)
        wait_until((job.folder / "events.jsonl").exists)
        running = everything.get(job.number)
        assert running.state == "running"
        assert start_ticks(running.process.pid) == running.process.start

    def test_a_pull_is_finished_after_the_login_has_ended(
        self, everything: Jobs, registry: Registry, tmp_path: Path
    ) -> None:
        made = image([busybox_layer()])
        registry.push(made, "jobs/pulled")
        words = [*SIFDECK, *self.pull(registry.host)[:2]]
        command = " ".join(f"'{word}'" for word in words)
        leader, master = pty.fork()
        if leader == 0:
            uri = f"docker://{registry.host}/jobs/pulled"
            script = f"cd {tmp_path}; {command} --job --dir {tmp_path} {uri}; kill -9 $$"
            os.execvp("sh", ["sh", "-c", script])  # noqa: S606  (a login)
        os.waitpid(leader, 0)
        os.close(master)
        wait_until(lambda: everything.get(1).is_over)
        view = everything.view(1)
        view.refresh()
        assert everything.get(1).state == "done", view.progress.ended
        assert [layer.state for layer in view.progress.layers] == ["done"]
        assert read_ocisif(tmp_path / "pulled_latest.oci.sif").layers

    def test_starting_is_one_short_process(self, everything: Jobs, silent_registry: str) -> None:
        result = subprocess.run(
            [*SIFDECK, *self.pull(silent_registry), "--job", "--json"],
            check=True,
            capture_output=True,
            text=True,
        )
        document = json.loads(result.stdout)
        assert document == {"job": 1, "folder": str(jobs_home() / "1")}
        assert replace(everything.get(1), started=None).state == "queued"
