from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backend.errors import BackendError, FormatError, NotFoundError, UsageError
from backend.events import Blob, Failed, Finished, Output, Started, encode
from backend.jobs import Job, Jobs, JobView, Watch
from backend.jobs import folder as folders
from backend.jobs.identity import ProcessIdentity, boot_id, start_ticks, this_process
from backend.jobs.log import Log, LogReader
from backend.jobs.masking import is_masked, kept_environment
from backend.jobs.record import Exit, JobKind, read_job, write_exit, write_job
from backend.masking import mask_argv
from tests.support.job_program import PROGRAM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT_S = 20.0


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    made = Jobs(tmp_path / "state" / "jobs", program=PROGRAM)
    yield made
    # Records that a test only wrote say that this process is the supervisor.
    for job in made.list():
        if job.process.pid == os.getpid():
            shutil.rmtree(job.folder)
    for job in made.list():
        if not job.is_over and job.process.is_here:
            job.process.send(signal.SIGTERM)
    wait_until(lambda: all(job.is_over or not job.process.is_here for job in made.list()))


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def start(jobs: Jobs, script: str, kind: JobKind = "network", after: tuple[int, ...] = ()) -> Job:
    return jobs.start(["sh", script], title="a script", kind=kind, after=after)


def end(jobs: Jobs, number: int) -> Job:
    """Wait for the end of a job and return it."""
    wait_until(lambda: jobs.get(number).is_over)
    return jobs.get(number)


def printed(job: Job) -> list[str]:
    """Return the lines of a job's log."""
    with contextlib.closing(LogReader(job.log)) as reader:
        return [line.decode() for line in reader.read()]


def gone(pid: int) -> bool:
    return start_ticks(pid) is None


def record(root: Path, number: int, **changes: object) -> Job:
    """Write the record of a job that never was."""
    folder = root / str(number)
    folder.mkdir(parents=True)
    job = Job(
        number=number,
        folder=folder,
        verb="pull",
        title="docker://x",
        argv=("pull", "docker://x"),
        environment={},
        cwd="/",
        kind="network",
        created=1.0,
        process=this_process(),
        started=2.0,
    )
    job = replace(job, **changes)  # type: ignore[arg-type]  # any field of a job
    write_job(job)
    if job.exit:
        write_exit(folder, job.exit)
    return job


class TestRunning:
    def test_a_job_runs_detached_and_leaves_a_private_record(
        self, jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        job = start(jobs, "cat; echo out; echo err >&2; pwd; ps -o sid= -p $$; umask")
        assert job.number == 1
        assert job.verb == "sh"
        ended = end(jobs, 1)
        assert (ended.state, ended.exit and ended.exit.status) == ("done", 0)
        lines = printed(ended)
        words = [line.split(" ", 1)[1].strip() for line in lines]
        assert set(words[:2]) == {"out", "err"}
        assert words[2] == str(tmp_path)
        assert int(words[3]) == ended.process.pid != os.getsid(0)
        umask = os.umask(0)
        os.umask(umask)
        assert int(words[4], 8) == umask  # the user's own, for the files that the verb makes
        assert stat.S_IMODE(jobs.root.stat().st_mode) == 0o700
        assert stat.S_IMODE(job.folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in job.folder.iterdir()} == {0o600}
        assert {file.name for file in job.folder.iterdir()} == {"job.json", "log", "exit"}

    @pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("kill -9 $$", 256 - 9)])
    def test_a_status_other_than_0_is_a_failure(self, jobs: Jobs, script: str, status: int) -> None:
        ended = end(jobs, start(jobs, script).number)
        assert ended.state == "failed"
        assert ended.exit
        assert ended.exit.status == status

    def test_a_job_waits_for_its_turn(self, jobs: Jobs, tmp_path: Path) -> None:
        script = f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
        first, second = start(jobs, script), start(jobs, script)
        third, other = start(jobs, "true"), start(jobs, "true", "build")
        assert end(jobs, other.number).state == "done"  # another kind, another limit
        states = [jobs.get(job.number).state for job in (first, second, third)]
        assert states == ["running", "running", "queued"]
        (tmp_path / "go").touch()
        assert [end(jobs, job.number).state for job in (first, second, third)] == ["done"] * 3
        started = jobs.get(third.number).started
        assert started
        assert started >= min(
            ended.ended for job in (first, second) if (ended := jobs.get(job.number).exit)
        )

    def test_how_many_run_at_once_can_be_set(self, jobs: Jobs) -> None:
        record(jobs.root, 1, kind="build")
        queued = record(jobs.root, 2, kind="build", started=None)
        assert Jobs(jobs.root, limits={"build": 1, "local": 9}).take_turn(queued) is None
        assert Jobs(jobs.root, limits={"local": 9}).take_turn(queued) is not None

    @pytest.mark.parametrize(
        ("argv", "kind"), [(["-q", "build", "x"], "build"), (["pull", "build"], "network")]
    )
    def test_what_it_waits_for_follows_from_the_verb(
        self, jobs: Jobs, argv: list[str], kind: str
    ) -> None:
        job = jobs.start(argv, title="x")
        assert job.kind == kind
        end(jobs, job.number)

    def test_a_job_begins_after_others_ended_well(self, jobs: Jobs, tmp_path: Path) -> None:
        first = start(jobs, f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done", "local")
        second = start(jobs, f"test -e {tmp_path}/go", "network", after=(first.number,))
        assert jobs.get(second.number).state == "queued"
        (tmp_path / "go").touch()
        assert end(jobs, second.number).state == "done"

    def test_a_job_fails_with_the_one_it_waits_for(self, jobs: Jobs) -> None:
        first = start(jobs, "false")
        second = end(jobs, start(jobs, "true", after=(first.number,)).number)
        assert second.state == "failed"
        view = jobs.view(second.number)
        view.refresh()
        assert isinstance(view.progress.ended, Failed)
        assert "job 1, for which this one waited, is failed" in view.progress.ended.message
        with pytest.raises(NotFoundError, match="no job 99"):
            start(jobs, "true", after=(99,))

    def test_what_cannot_start_is_an_error_and_leaves_nothing(self, tmp_path: Path) -> None:
        broken = Jobs(tmp_path / "jobs", program=["sh", "-c", "echo no luck >&2; exit 3"])
        with pytest.raises(BackendError) as caught:
            broken.start(["pull"], title="x")
        assert caught.value.why == "no luck"
        assert broken.list() == []


class TestEnding:
    def test_cancel_ends_everything_that_the_job_started(self, jobs: Jobs, tmp_path: Path) -> None:
        # One child in a session of its own, one that ignores SIGTERM.
        script = (
            f"setsid sh -c 'echo $$ > {tmp_path}/a; exec sleep 1000' & "
            f"(trap '' TERM; sh -c 'echo $$ > {tmp_path}/b; exec sleep 1000') & wait"
        )
        job = start(jobs, script)
        files = [tmp_path / "a", tmp_path / "b"]
        wait_until(lambda: all(file.exists() and file.read_text() for file in files))
        jobs.cancel(job.number)
        ended = end(jobs, job.number)
        assert ended.state == "cancelled"
        assert all(gone(int(file.read_text())) for file in files)
        with pytest.raises(UsageError, match="cancelled already"):
            jobs.cancel(job.number)

    def test_cancel_kills_what_does_not_listen(self, jobs: Jobs, tmp_path: Path) -> None:
        job = start(jobs, f"trap '' TERM; touch {tmp_path}/up; while :; do sleep 0.1; done")
        wait_until((tmp_path / "up").exists)
        jobs.cancel(job.number)
        assert end(jobs, job.number).state == "cancelled"

    def test_a_queued_job_can_be_cancelled(self, jobs: Jobs) -> None:
        first = start(jobs, "sleep 1000", "local")
        second = start(jobs, "true", "local")
        jobs.cancel(second.number)
        ended = end(jobs, second.number)
        assert (ended.state, ended.started) == ("cancelled", None)
        assert jobs.get(first.number).state == "running"

    def test_a_killed_supervisor_is_a_lost_job_and_ends_its_command(
        self, jobs: Jobs, tmp_path: Path
    ) -> None:
        job = start(jobs, f"echo $PPID $$ > {tmp_path}/pids; exec sleep 1000")
        wait_until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text())
        command, child = (int(pid) for pid in (tmp_path / "pids").read_text().split())
        os.kill(job.process.pid, signal.SIGKILL)
        try:
            assert end(jobs, job.number).state == "lost"
            wait_until(lambda: gone(command))
        finally:
            os.kill(child, signal.SIGKILL)

    @pytest.mark.parametrize(
        ("changes", "state"),
        [
            ({}, "running"),
            ({"start": 1}, "lost"),  # the number belongs to another process now
            ({"boot": "another"}, "lost"),
            ({"host": "elsewhere"}, "running"),
        ],
    )
    def test_a_process_is_known_by_more_than_its_number(
        self, jobs: Jobs, changes: dict[str, object], state: str
    ) -> None:
        process = replace(this_process(), **changes)  # type: ignore[arg-type]  # see the table
        assert record(jobs.root, 5, process=process).state == state
        assert jobs.get(5).state == state

    def test_another_hosts_job_is_shown_and_never_signalled(self, jobs: Jobs) -> None:
        identity = this_process()
        record(jobs.root, 5, process=replace(identity, host="login02"))
        with pytest.raises(UsageError, match="runs on login02"):
            jobs.cancel(5)
        assert not replace(identity, host="login02").send(signal.SIGKILL)
        assert not replace(identity, start=identity.start + 1).send(signal.SIGKILL)

    def test_a_zombie_is_not_alive(self) -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        try:
            assert start_ticks(pid) is None
            identity = ProcessIdentity(host=os.uname().nodename, boot=boot_id(), pid=pid, start=1)
            assert not identity.is_alive
        finally:
            os.waitpid(pid, 0)


class TestFolder:
    def test_numbers_are_given_once(self, tmp_path: Path) -> None:
        def take(_: int) -> int:
            return int(Jobs(tmp_path / "jobs")._new_folder().name)

        with ThreadPoolExecutor(8) as pool:
            numbers = list(pool.map(take, range(40)))
        assert len(set(numbers)) == 40

    def test_numbers_are_not_used_again(self, jobs: Jobs) -> None:
        end(jobs, start(jobs, "true").number)
        assert jobs.clear() == 1
        assert jobs.list() == []
        assert start(jobs, "true").number == 2

    def test_clear_leaves_what_runs(self, jobs: Jobs) -> None:
        record(jobs.root, 1, exit=Exit(status=0, cancelled=False, ended=3.0))
        record(jobs.root, 2)
        assert jobs.clear() == 1
        assert [job.number for job in jobs.list()] == [2]

    def test_the_oldest_are_forgotten(self, jobs: Jobs) -> None:
        for number in range(1, 206):
            record(jobs.root, number, exit=Exit(status=0, cancelled=False, ended=3.0))
        job = start(jobs, "true")
        numbers = [job.number for job in jobs.list()]
        assert (len(numbers), numbers[0], numbers[-1]) == (200, job.number, 7)

    def test_listing_reads_only_what_changed(
        self, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record(jobs.root, 1, exit=Exit(status=0, cancelled=False, ended=3.0))
        record(jobs.root, 2)
        read: list[str] = []

        def counted(folder: Path) -> Job:
            read.append(folder.name)
            return read_job(folder)

        monkeypatch.setattr(folders, "read_job", counted)
        assert [job.number for job in jobs.list()] == [2, 1]
        assert sorted(read) == ["1", "2"]
        jobs.list()
        assert sorted(read) == ["1", "2"]
        write_exit(jobs.root / "2", Exit(status=1, cancelled=False, ended=4.0))
        assert jobs.list()[0].state == "failed"
        assert sorted(read) == ["1", "2", "2"]

    def test_damaged_records_are_left_out(self, jobs: Jobs) -> None:
        record(jobs.root, 1)
        for number, text in enumerate(["", "[]", "{}", '{"verb": 1}', "{" * 100_000], start=2):
            (jobs.root / str(number)).mkdir()
            (jobs.root / str(number) / "job.json").write_text(text)
            with pytest.raises(FormatError):
                read_job(jobs.root / str(number))
        assert [job.number for job in jobs.list()] == [1]

    def test_retry_is_the_same_again(
        self, jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SIFDECK_PULLDIR", "there")
        monkeypatch.chdir(tmp_path)
        first = end(jobs, start(jobs, "echo $SIFDECK_PULLDIR $PWD; exit 4").number)
        monkeypatch.delenv("SIFDECK_PULLDIR")
        monkeypatch.chdir("/")
        again = end(jobs, jobs.retry(first.number).number)
        assert (again.argv, again.retry_of) == (first.argv, first.number)
        assert f"there {tmp_path}" in printed(again)[0]

    def test_retry_may_overwrite_what_was_written(self, jobs: Jobs) -> None:
        over = Exit(status=0, cancelled=False, ended=3.0)
        for number, argv in enumerate(
            [("build", "x.sif"), ("build", "-F", "x.sif"), ("push", "x.sif")], start=1
        ):
            record(jobs.root, number, verb=argv[0], argv=argv, exit=over)
        assert jobs.retry(1).argv == ("build", "x.sif")
        assert jobs.retry(1, force=True).argv == ("build", "--force", "x.sif")
        for number in (2, 3):
            again = jobs.retry(number, force=True)
            assert again.argv == jobs.get(number).argv
        for job in jobs.list()[:4]:
            end(jobs, job.number)

    def test_retry_refuses_what_runs_and_what_had_a_secret(self, jobs: Jobs) -> None:
        record(jobs.root, 1)
        with pytest.raises(UsageError, match="job 1 is running"):
            jobs.retry(1)
        over = Exit(status=1, cancelled=False, ended=3.0)
        record(jobs.root, 2, argv=("pull", "-p", "***"), exit=over)
        with pytest.raises(UsageError, match="was given a password"):
            jobs.retry(2)
        record(jobs.root, 3, cwd="/no/such/folder", exit=over)
        with pytest.raises(NotFoundError, match="/no/such/folder"):
            jobs.retry(3)


class TestSecrets:
    SECRET = "hunter2-planted"

    def test_a_secret_reaches_the_command_and_nothing_else(
        self, jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SIFDECK_DOCKER_PASSWORD", self.SECRET)
        script = (
            'case "$SIFDECK_DOCKER_PASSWORD" in hunter2-?*) ;; *) exit 9 ;; esac; '
            f"touch {tmp_path}/up; exec sleep 1000"
        )
        argv = ["sh", script, "-p", self.SECRET]
        job = jobs.start(argv, title=f"docker://me:{self.SECRET}@host/x")
        wait_until((tmp_path / "up").exists)
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                assert self.SECRET.encode() not in process.read_bytes()
        jobs.cancel(job.number)
        end(jobs, job.number)
        for file in job.folder.iterdir():
            assert self.SECRET.encode() not in file.read_bytes()
        assert "***" in (job.folder / "job.json").read_text()

    @pytest.mark.parametrize(
        ("argv", "masked"),
        [
            (["pull", "-p", "x", "a"], ["pull", "-p", "***", "a"]),
            (["pull", "-px"], ["pull", "-p***"]),
            (["--password=x", "--password", "-p"], ["--password=***", "--password", "***"]),
            (["docker://u:p@h/x"], ["docker://u:***@h/x"]),
            (["--mirror=http://u:p@h"], ["--mirror=http://u:***@h"]),
            (["--build-arg", "API_TOKEN=x"], ["--build-arg", "API_TOKEN=***"]),
            (["--build-arg=NPM_token=x"], ["--build-arg=NPM_token=***"]),
            (["--secret", "id=a,src=b"], ["--secret", "id=a,src=b"]),
            (["docker://h:5000/n@sha256:0"], ["docker://h:5000/n@sha256:0"]),
            (["--platform=linux/amd64"], ["--platform=linux/amd64"]),
        ],
    )
    def test_masking(self, argv: list[str], masked: list[str]) -> None:
        assert list(mask_argv(argv)) == masked
        assert is_masked(masked) == (masked != argv or "***" in str(argv))

    def test_the_environment_that_is_kept(self) -> None:
        variables = {
            "HOME": "/root",
            "SINGULARITY_DOCKER_PASSWORD": "x",
            "SIFDECK_NO_HTTPS": "1",
            "https_proxy": "http://u:p@proxy",
        }
        assert kept_environment(variables) == {
            "SIFDECK_NO_HTTPS": "1",
            "SINGULARITY_DOCKER_PASSWORD": "***",
            "https_proxy": "http://u:***@proxy",
        }


class TestView:
    BLOB = Blob(digest="sha256:1", role="layer", index=0, state="downloading", done=1, size=10)

    def test_events_are_read_as_they_come(self, tmp_path: Path) -> None:
        view = JobView(tmp_path)
        assert not view.refresh()
        with (tmp_path / "events.jsonl").open("w") as file:
            file.write(encode(Started(verb="pull", title="x")) + "\n")
            line = encode(self.BLOB) + "\n"
            file.write(line[:20])
            file.flush()
            assert view.refresh()
            assert not view.refresh()  # half a line is none
            assert view.progress.layers == []
            file.write(line[20:] + "no event\n" + encode(Finished(path="y")) + "\n")
            file.flush()
            assert view.refresh()
        assert view.progress.layers == [self.BLOB]
        assert view.progress.ended == Finished(path="y")
        assert view.progress.fraction == 1.0

    def test_the_past_is_no_speed(self, tmp_path: Path) -> None:
        now = [0.0]
        view = JobView(tmp_path, clock=lambda: now[0])
        path = tmp_path / "events.jsonl"
        path.write_text(
            "".join(encode(replace(self.BLOB, done=done, size=10**9)) + "\n" for done in (0, 10**8))
        )
        view.refresh()
        assert view.progress.rate == 0
        now[0] = 2.0
        with path.open("a") as file:
            file.write(encode(replace(self.BLOB, done=3 * 10**8, size=10**9)) + "\n")
        view.refresh()
        assert view.progress.rate == pytest.approx(10**8)
        assert view.progress.eta_s == pytest.approx(7.0)


class TestWatch:
    def test_a_change_ends_the_wait(self, tmp_path: Path) -> None:
        jobs = Jobs(tmp_path / "jobs")
        with Watch(jobs.root) as watch:
            assert not watch.wait(0)
            jobs.announce()
            assert watch.wait(LIMIT_S)
            record(jobs.root, 1)
            assert watch.wait(LIMIT_S)
            watch.follow([1])
            watch.drain()
            (jobs.root / "1" / "events.jsonl").write_text(encode(Output(text="x")))
            assert watch.wait(LIMIT_S)
            watch.follow([])
            watch.drain()
            (jobs.root / "1" / "events.jsonl").write_text("")
            assert not watch.wait(0)

    def test_another_descriptor_ends_the_wait(self, tmp_path: Path) -> None:
        reader, writer = os.pipe()
        with Watch(tmp_path) as watch:
            threading.Timer(0.05, os.write, (writer, b"x")).start()
            assert not watch.wait(LIMIT_S, reader)
            assert os.read(reader, 1) == b"x"
        os.close(reader)
        os.close(writer)


class TestLog:
    def test_lines_have_times_and_bars_their_last_state(self, tmp_path: Path) -> None:
        log = Log(tmp_path / "log", clock=lambda: 1.5)
        log.write(b"one\ntw")
        log.write(b"o\n10 %\r20 %\r30 %\r\nrest")
        log.close()
        stamp = b"1970-01-01T00:00:01.500Z "
        assert (tmp_path / "log").read_bytes() == b"".join(
            stamp + text + b"\n" for text in (b"one", b"two", b"30 %", b"rest")
        )

    def test_it_stays_within_its_size_and_the_reader_follows(self, tmp_path: Path) -> None:
        path = tmp_path / "log"
        log = Log(path, clock=lambda: 1.0, max_bytes=4000)
        reader = LogReader(path)
        seen: list[bytes] = []
        for number in range(500):
            log.write(b"line %d\n" % number)
            if number % 10 == 0:
                seen += reader.read()
        log.close()
        seen += reader.read()
        reader.close()
        assert [line.split()[-1] for line in seen] == [b"%d" % number for number in range(500)]
        assert sum(file.stat().st_size for file in tmp_path.glob("log*")) <= 4000
        late = LogReader(path)
        assert [line.split()[-1] for line in late.read()][-1] == b"499"
        late.close()

    def test_a_line_without_end_is_broken(self, tmp_path: Path) -> None:
        log = Log(tmp_path / "log", clock=lambda: 1.0)
        log.write(b"x" * 200_000)
        assert len(log._rest) <= 64 << 10
        log.close()
        reader = LogReader(tmp_path / "log")
        assert b"".join(line.split()[1] for line in reader.read()) == b"x" * 200_000
        reader.close()


def test_the_record_is_json_for_everybody(tmp_path: Path) -> None:
    job = record(tmp_path, 3, exit=Exit(status=0, cancelled=False, ended=9.0))
    document = json.loads((tmp_path / "3" / "job.json").read_text())
    assert document["process"]["pid"] == os.getpid()
    assert read_job(tmp_path / "3") == job
    assert job.elapsed_s(100.0) == 7.0
