"""``sifdeck VERB``: finds the verb's module, turns errors into sentences and exit statuses.

Nothing but click is imported before the verb is known; Textual, rich and asyncio come with
the verb that needs them (``tests/app/test_main.py`` holds this).
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from backend.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from backend.errors import BackendError

VERBS: dict[str, str] = {
    "pull": "app.cli.pull:pull",
    "build": "app.cli.build:build",
    "convert": "app.cli.convert:convert",
    "run": "app.cli.run:run",
    "exec": "app.cli.run:exec_",
    "shell": "app.cli.run:shell",
    "ps": "app.cli.containers:ps",
    "logs": "app.cli.containers:logs",
    "attach": "app.cli.containers:attach",
    "stop": "app.cli.containers:stop",
    "doctor": "app.cli.doctor:doctor",
    "inspect": "app.cli.inspect:inspect",
    "sif": "app.cli.sif:sif",
    "ls": "app.cli.ls:ls",
    "rm": "app.cli.ls:rm",
    "cat": "app.cli.cat:cat",
    "cp": "app.cli.cp:cp",
    "diff": "app.cli.diff:diff",
    "data": "app.cli.data:data",
    "overlay": "app.cli.overlay:overlay",
    "verify": "app.cli.verify:verify",
    "push": "app.cli.push:push",
    "copy": "app.cli.copy:copy",
    "cache": "app.cli.cache:cache",
    "registry": "app.cli.registry:registry",
    "search": "app.cli.search:search",
    "tags": "app.cli.tags:tags",
    "manifest": "app.cli.manifest:manifest",
    "referrers": "app.cli.referrers:referrers",
    "jobs": "app.cli.jobs:jobs",
    "try": "app.cli.try_:try_",
    "lab": "app.cli.lab:lab",
    "deck": "app.cli.deck:deck",
    "keys": "app.cli.keys:keys",
    "config": "app.cli.config:config",
    "reset-tty": "app.cli.keys:reset_tty",
}
"""Verb -> module:attribute of its click command, in the order in which help shows them."""

ALIASES = {"siftool": "sif"}


class _Verbs(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        target = VERBS.get(ALIASES.get(cmd_name, cmd_name))
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        _keep_examples(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None:
            import difflib

            near = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f"  Did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"No such verb: {args[0]}.{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  (click's signature)
        """Run the verb; a reader of our output that goes ends it as SIGPIPE ends a program."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Say nothing more, not even at exit; click would make an exit status 1 of it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(141)


def _keep_examples(command: click.Command) -> None:
    """Give click its mark for lines to be kept, a backspace; our raw docstrings spell it."""
    command.help = command.help and command.help.replace("\\b\n", "\b\n")
    for inner in getattr(command, "commands", {}).values():
        _keep_examples(inner)


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"sifdeck version {__version__}")
        ctx.exit()


@click.group(
    cls=_Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    callback=_version,
    expose_value=False,
    is_eager=True,
    help="Print the version and exit.",
)
@click.option("-d", "--debug", is_flag=True, help="Log what happens to standard error.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.pass_context
def cli(ctx: click.Context, *, debug: bool, quiet: bool) -> int:
    """OCI and SIF container images, from a terminal.

    Without a verb, on a terminal, the deck opens.
    """
    ctx.obj = {"argv": (), "job": None} | (ctx.obj or {}) | {"quiet": quiet, "debug": debug}
    if debug:
        import logging

        logging.basicConfig(level=logging.DEBUG, format="%(relativeCreated)6d %(name)s %(message)s")
    if ctx.invoked_subcommand is None:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            click.echo(ctx.get_help())
            return 0
        deck = _Verbs.get_command(cli, ctx, "deck")
        if deck:
            return int(ctx.invoke(deck))
    return 0


def main(args: list[str] | None = None, *, job: Path | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        args: The arguments; None means those of the process.
        job: The folder of the job that this command is; None when a person waits for it.
    """
    argv = sys.argv[1:] if args is None else args
    known = {"argv": tuple(argv), "job": job}
    try:
        result: Any = cli.main(argv, prog_name="sifdeck", standalone_mode=False, obj=known)
    except click.exceptions.Abort:
        click.echo("Interrupted.", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001  (sorts ours from bugs, which go on)
        return _explain(error)
    return result if isinstance(result, int) else 0


def _explain(error: Exception) -> int:
    """Print an error of ours, or the system's, in its parts and return its exit status.

    Others are bugs and go through; ``--debug`` shows where any of them comes from.
    """
    import logging

    from backend.errors import BackendError, LaunchError, explain

    logging.getLogger(__name__).debug("%s", error, exc_info=error)
    if isinstance(error, OSError) and error.errno:
        error = _translated(error)
    if not isinstance(error, BackendError):
        raise error
    click.echo(explain(error), err=True)
    return int(error.status if isinstance(error, LaunchError) else error.exit_code)


def _translated(error: OSError) -> BackendError:
    """Return ours for what the system says of a file that nobody expected trouble with."""
    import errno

    from backend.errors import BackendError, SpaceError
    from backend.escape import one_line

    named = error.filename
    place = one_line(os.fsdecode(named)) if isinstance(named, str | bytes) and named else ""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return SpaceError(f"no space left: {place or error.strerror}")
    return BackendError(f"{place}: {error.strerror}" if place else f"{error.strerror}")
