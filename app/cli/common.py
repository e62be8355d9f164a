"""Options that several verbs share."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print lines of JSON on standard output."
)


def job_option(title: str) -> Callable[[Callable[P, R]], Callable[P, R | int]]:
    """Add ``--job`` and ``--after`` to a verb: the same command, as a recorded, detached job.

    The function below the decorator is called only without ``--job``, or inside the job.

    Args:
        title: The parameter of the verb whose value names the job, such as ``reference``.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R | int]:
        @functools.wraps(function)
        def verb(*args: P.args, **kwargs: P.kwargs) -> R | int:
            job, after = kwargs.pop("job"), kwargs.pop("after")
            ctx = click.get_current_context()
            if not job or (ctx.obj or {}).get("job"):
                return function(*args, **kwargs)
            values = after if isinstance(after, tuple) else ()
            return start_job(ctx, title=_text(kwargs.get(title)), after=values)

        verb = click.option(
            "--after",
            type=click.IntRange(min=1),
            multiple=True,
            metavar="N",
            help="With --job: begin when job N has ended well.",
        )(verb)
        return click.option(
            "--job", is_flag=True, help="Do it in the background, as a job; print its number."
        )(verb)

    return decorate


def _text(value: object) -> str:
    """Return a parameter's value as the user would write it."""
    if isinstance(value, tuple | list):
        return " ".join(str(part) for part in value)
    return "" if value is None else str(value)


def start_job(ctx: click.Context, *, title: str, after: tuple[int, ...]) -> int:
    """Start the command line that we are as a job and print the job's number."""
    from backend.jobs import Jobs
    from backend.paths import jobs_home

    jobs = Jobs(jobs_home())
    job = jobs.start(ctx.obj["argv"], title=title, verb=ctx.info_name or "", after=after)
    if ctx.params.get("as_json"):
        import json

        click.echo(json.dumps({"job": job.number, "folder": str(job.folder)}))
    else:
        click.echo(job.number)
        if not ctx.obj["quiet"]:
            click.echo(f"INFO:    Job {job.number}: sifdeck jobs log -f {job.number}", err=True)
    return 0


def echo_json(value: object) -> None:
    """Print a value as JSON that is safe on a terminal, whatever an image put into it."""
    import json

    # ASCII only, so that control characters are escaped; DEL alone JSON leaves as it is.
    click.echo(json.dumps(value, indent=4).replace("\x7f", "\\u007f"))
