"""``sifdeck jobs``: what runs on its own, what became of it, and its end."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING

import click

from app.cli.common import json_option
from backend.errors import FormatError, ToolTimeoutError
from backend.escape import one_line
from backend.jobs import Job, Jobs, JobView, Watch
from backend.paths import config_home, jobs_home, site_config

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_CANCEL_S = 15.0
"""Seconds that ``jobs cancel`` waits: the job itself has ten to end in good order."""


@click.group(invoke_without_command=True)
@click.option("--verb", metavar="VERB", help="Only these: build, pull, convert ...")
@json_option
@click.pass_context
def jobs(ctx: click.Context, *, verb: str | None, as_json: bool) -> None:
    """List jobs: pulls, builds and conversions that run, wait or ended."""
    if ctx.invoked_subcommand is not None:
        return
    found = [job for job in Jobs(jobs_home()).list() if verb in {None, job.verb}]
    if as_json:
        click.echo(json.dumps([_document(job) for job in found], indent=2))
        return
    for line in _table(found):
        click.echo(line)


@jobs.command()
@click.argument("number", type=int)
@json_option
def show(*, number: int, as_json: bool) -> None:
    """Show one job: its command line, where it stands, why it failed."""
    job = Jobs(jobs_home()).get(number)
    view = _read_all(job)
    if as_json:
        click.echo(json.dumps(_document(job) | _progress_document(view), indent=2))
        return
    for name, text in _details(job, view):
        click.echo(f"{name + ':':10} {text}")


@jobs.command()
@click.argument("number", type=int)
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
def log(*, number: int, follow: bool) -> None:
    """Print what a job printed, each line with its time (UTC)."""
    from contextlib import closing

    from backend.jobs.log import LogReader

    everything = Jobs(jobs_home())
    job = everything.get(number)
    with Watch(everything.root) as watch, closing(LogReader(job.log)) as reader:
        watch.follow([number])
        while True:
            # Asked before reading: what is written until then is printed for certain.
            over = job.is_over
            for line in reader.read():
                click.echo(one_line(line.decode("utf-8", "replace"), limit=1 << 16))
            if over or not follow:
                return
            watch.wait(1.0)
            job = everything.get(number)


@jobs.command()
@click.argument("text")
@json_option
def find(*, text: str, as_json: bool) -> None:
    """Find TEXT, in any case of letters, in what all jobs printed, the newest first.

    Status 1 means that it is nowhere.
    """
    from backend.jobs.search import find_in_logs

    is_found = False
    for hit in find_in_logs(Jobs(jobs_home()).list(), text):
        is_found = True
        if as_json:
            click.echo(json.dumps({"job": hit.job.number, "line": hit.line, "text": hit.text}))
        else:
            title = f"#{hit.job.number} {hit.job.verb} {one_line(hit.job.title, limit=60)}"
            click.echo(f"{title}:{hit.line}: {one_line(hit.text, limit=1000)}")
    click.get_current_context().exit(0 if is_found else 1)


@jobs.command()
@click.argument("numbers", type=int, nargs=-1, required=True, metavar="NUMBER...")
def cancel(*, numbers: Sequence[int]) -> None:
    """End jobs: SIGTERM to all that they started, SIGKILL after ten seconds."""
    everything = Jobs(jobs_home())
    for number in numbers:
        everything.cancel(number)
    for number in numbers:
        job = _wait_for_end(everything, number)
        click.echo(f"INFO:    Job {number}: {job.state}", err=True)


@jobs.command()
@click.option("-F", "--force", is_flag=True, help="Overwrite the file that it wrote.")
@click.argument("number", type=int)
def retry(*, number: int, force: bool) -> None:
    """Start a job that ended once more; what was downloaded is not downloaded again."""
    click.echo(Jobs(jobs_home()).retry(number, force=force).number)


@jobs.command()
@click.argument("number", type=int)
@click.pass_context
def shell(ctx: click.Context, /, *, number: int) -> None:
    """Open a shell in the last good layer of a build that failed (buildah, podman)."""
    from backend.build.shell import open_shell

    ctx.exit(open_shell(_read_all(Jobs(jobs_home()).get(number)).progress))


@jobs.command()
def clear() -> None:
    """Forget the jobs that are over."""
    count = Jobs(jobs_home()).clear()
    click.echo(f"INFO:    {count} {'job' if count == 1 else 'jobs'} forgotten", err=True)


@jobs.command("_supervise", hidden=True)
@click.argument("folder")
def supervise_job(*, folder: str) -> None:
    """Be the supervisor of a job; its command line comes on standard input."""
    from pathlib import Path

    from backend.config import load_config
    from backend.jobs.supervisor import supervise

    limits = load_config(config_home() / "config.toml", site_config()).limits
    argv = json.loads(sys.stdin.read())
    if not isinstance(argv, list):
        raise FormatError("the command line of a job is a list")
    supervise(Path(folder), [str(word) for word in argv], _run_verb, limits)


def _run_verb(argv: Sequence[str], folder: Path) -> int:
    from app.cli.main import main

    return main(list(argv), job=folder)


def _wait_for_end(everything: Jobs, number: int) -> Job:
    """Return the job once it is over.

    Raises:
        ToolTimeoutError: It takes too long.
    """
    deadline = time.monotonic() + _CANCEL_S
    with Watch(everything.root) as watch:
        while not (job := everything.get(number)).is_over:
            if time.monotonic() > deadline:
                raise ToolTimeoutError(
                    f"job {number} does not end",
                    argv=job.argv,
                    hint=f"its process is {job.process.pid}, on {job.host}",
                )
            watch.wait(0.5)
    return job


def _table(found: Sequence[Job]) -> list[str]:
    """Return the listing as text, hostile titles made harmless."""
    if not found:
        return ["No jobs.  Add --job to a pull or a build to make one."]
    now = time.time()
    rows = [("JOB", "STATE", "BEGUN", "ELAPSED", "WHAT")]
    here = os.uname().nodename
    for job in found:
        where = "" if job.host == here else f"  (on {one_line(job.host)})"
        after = "".join(f" after {number}" for number in job.after if job.state == "queued")
        what = f"{one_line(job.verb)} {one_line(job.title)}{after}{where}"
        rows.append((str(job.number), job.state, _begun(job), _elapsed(job, now), what))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        f"{number:>{widths[0]}}  {state:<{widths[1]}}  {begun:<{widths[2]}}  "
        f"{elapsed:>{widths[3]}}  {what}"
        for number, state, begun, elapsed, what in rows
    ]


def _begun(job: Job) -> str:
    """Return when a job began, in local time."""
    when = time.localtime(job.started) if job.started else None
    return time.strftime("%Y-%m-%d %H:%M", when) if when else "-"


def _elapsed(job: Job, now: float) -> str:
    from app.cli.sentences import duration

    return duration(job.elapsed_s(now)) if job.started else "-"


def _document(job: Job) -> dict[str, object]:
    """Return a job as JSON for scripts."""
    return {
        "job": job.number,
        "state": job.state,
        "verb": job.verb,
        "title": job.title,
        "argv": list(job.argv),
        "cwd": job.cwd,
        "host": job.host,
        "pid": job.process.pid,
        "created": job.created,
        "started": job.started,
        "ended": job.exit.ended if job.exit else None,
        "seconds": job.elapsed_s(time.time()),
        "status": job.exit.status if job.exit else None,
        "after": list(job.after),
        "retry_of": job.retry_of or None,
        "log": str(job.log),
    }


def _progress_document(view: JobView) -> dict[str, object]:
    """Return where a job stands as JSON for scripts."""
    from backend.events import encode

    progress = view.progress
    snapshots = [*progress.layers, *progress.phases.values(), *progress.steps.values()]
    if progress.ended:
        snapshots.append(progress.ended)
    return {
        "done": progress.done,
        "total": progress.total,
        "events": [json.loads(encode(event)) for event in snapshots],
    }


def _details(job: Job, view: JobView) -> list[tuple[str, str]]:
    """Return what there is to say about a job, as (name, text)."""
    import shlex

    from backend.events import Failed, Finished

    command = shlex.join(["sifdeck", *job.argv])
    lines = [
        ("job", f"{job.number}, {job.state} on {one_line(job.host)}"),
        ("command", one_line(command, limit=4096)),
        ("folder", one_line(job.cwd)),
        ("elapsed", _elapsed(job, time.time())),
        ("log", str(job.log)),
    ]
    lines += _steps(view)
    match view.progress.ended:
        case Finished(path=path) if path:
            lines.append(("made", one_line(path)))
        case Failed() as failed:
            parts = ("error", failed.message), ("why", failed.why), ("kept", failed.kept)
            texts = (*parts, ("next", failed.hint))
            lines += [(name, one_line(text)) for name, text in texts if text]
            if view.progress.retained:
                lines.append(("shell", f"sifdeck jobs shell {job.number}"))
        case _ if why := _silent_end(job):
            lines.append(("why", why))
        case _:
            pass
    return lines


def _steps(view: JobView) -> list[tuple[str, str]]:
    """Return the steps of a build: what became of each, and how long it took."""
    from app.cli.sentences import duration

    return [
        (
            f"step {step.number}",
            f"{step.state:<7} {duration(step.seconds):>6}  {one_line(step.name, limit=200)}",
        )
        for _, step in sorted(view.progress.steps.items())
    ]


def _silent_end(job: Job) -> str:
    """Return what is known of the end of a job that did not say why; empty for a good end."""
    if job.state == "lost":
        return "its process is gone without a word: killed, or the host was restarted"
    if job.state != "failed" or job.exit is None:
        return ""
    if job.exit.status > 128:
        import signal

        try:
            name = signal.Signals(job.exit.status - 128).name
        except ValueError:
            name = f"signal {job.exit.status - 128}"
        return f"ended by {name}: out of memory, or a limit of the site"
    return f"ended with status {job.exit.status}; the log says more"


def _read_all(job: Job) -> JobView:
    view = JobView(job.folder)
    while view.refresh():
        pass
    return view
