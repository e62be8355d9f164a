"""``run``, ``exec`` and ``shell``: a container in the foreground."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from backend.events import Event
    from backend.runtime.options import Action, RunOptions

_SETTINGS = {"ignore_unknown_options": False, "allow_interspersed_args": False}
"""What stands behind the image belongs to the container, options too."""


class Flags(TypedDict):
    """The options below, as click hands them over."""

    runtime: str | None
    binds: tuple[str, ...]
    env: tuple[str, ...]
    env_files: tuple[str, ...]
    cleanenv: bool
    working_dir: str | None
    user: str | None
    fakeroot: bool
    hostname: str | None
    no_https: bool
    oci: bool


def _env(name: str) -> list[str]:
    return [prefix + name for prefix in ("SIFDECK_", "SINGULARITY_", "APPTAINER_")]


_OPTIONS = (
    click.option("--runtime", metavar="NAME|PATH", help="crun, runc, or the path of one."),
    click.option(
        "-B",
        "--bind",
        "binds",
        multiple=True,
        metavar="SRC[:DST[:ro]]",
        help="Show a file or folder of the host in the container.",
    ),
    click.option("--env", "env", multiple=True, metavar="NAME=VALUE", help="Set a variable."),
    click.option(
        "--env-file",
        "env_files",
        multiple=True,
        envvar=_env("ENV_FILE"),
        metavar="FILE",
        help="Set the variables of a file of NAME=VALUE lines.",
    ),
    click.option(
        "-e",
        "--cleanenv",
        is_flag=True,
        envvar=_env("CLEANENV"),
        help="Take nothing from the host's environment.",
    ),
    click.option(
        "--cwd",
        "--pwd",
        "working_dir",
        envvar=_env("CWD") + _env("PWD"),
        metavar="DIR",
        help="Begin in this folder of the container.",
    ),
    click.option(
        "--user", metavar="UID|NAME[:GROUP]", help="Be this user of the image, not its USER."
    ),
    click.option(
        "-f", "--fakeroot", is_flag=True, envvar=_env("FAKEROOT"), help="Be root in the container."
    ),
    click.option("--hostname", envvar=_env("HOSTNAME"), metavar="NAME", help="Its own host name."),
    click.option(
        "--no-https", is_flag=True, envvar=_env("NO_HTTPS"), help="Talk HTTP to the registry."
    ),
    click.option("--oci", is_flag=True, hidden=True, help="The default; accepted for scripts."),
)


def _container_options(function: Callable[..., None]) -> Callable[..., None]:
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(_OPTIONS), function)


@click.command(context_settings=_SETTINGS)
@_container_options
@click.argument("image")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run(
    ctx: click.Context, /, image: str, arguments: tuple[str, ...], **flags: Unpack[Flags]
) -> None:
    """Run an image: its ENTRYPOINT with the arguments, or with its CMD.

    IMAGE is a file or, through the cache, docker://registry/name:tag.
    """
    _start(ctx, "run", image, arguments, flags)


@click.command("exec", context_settings=_SETTINGS)
@_container_options
@click.argument("image")
@click.argument("arguments", nargs=-1, required=True, metavar="COMMAND", type=click.UNPROCESSED)
@click.pass_context
def exec_(
    ctx: click.Context, /, image: str, arguments: tuple[str, ...], **flags: Unpack[Flags]
) -> None:
    """Run a command of your own in an image."""
    _start(ctx, "exec", image, arguments, flags)


@click.command(context_settings=_SETTINGS)
@_container_options
@click.argument("image")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def shell(
    ctx: click.Context, /, image: str, arguments: tuple[str, ...], **flags: Unpack[Flags]
) -> None:
    """Open a shell in an image: bash where it has one, else sh."""
    _start(ctx, "shell", image, arguments, flags)


def _start(
    ctx: click.Context,
    action: Action,
    image: str,
    arguments: tuple[str, ...],
    flags: Flags,
) -> None:
    """Become the container, or raise what stands in the way."""
    from backend.runtime import container

    options = _parse(action, arguments, flags)
    with ExitStack() as stack:
        report = _LateReport(ctx, stack, verb=action, title=image)
        path = _find(image, plain_http=flags["no_https"], report=report)
        plan = container.plan_image(path, options, report)
    container.become_launcher(plan)


def _parse(action: Action, arguments: tuple[str, ...], flags: Flags) -> RunOptions:
    from backend.runtime import options

    files = [pair for file in flags["env_files"] for pair in options.read_env_file(file)]
    return options.RunOptions(
        action=action,
        arguments=arguments,
        runtime=flags["runtime"] or "",
        binds=options.parse_binds(flags["binds"]),
        environment=(*files, *options.parse_environment(flags["env"])),
        clean_environment=flags["cleanenv"],
        working_dir=options.check_absolute(flags["working_dir"] or "", "--cwd"),
        user=options.check_user(flags["user"] or ""),
        fakeroot=flags["fakeroot"],
        hostname=flags["hostname"] or "",
    )


def _find(image: str, *, plain_http: bool, report: Callable[[Event], None]) -> Path:
    """Return the file that ``image`` names, from the cache if it is in a registry."""
    from backend.reference import parse

    reference = parse(image)
    if reference.transport == "file":
        from pathlib import Path

        from backend.errors import NotFoundError
        from backend.escape import one_line

        path = Path(reference.path)
        if not path.exists():
            raise NotFoundError(
                f"no such image: {one_line(image)!r}",
                hint="for an image in a registry write docker://NAME[:TAG]",
            )
        return path
    from backend.pull import PullOptions, cached_image
    from backend.registry.access import Access

    return cached_image(reference, PullOptions(access=Access(plain_http=plain_http)), report)


class _LateReport:
    """A report that draws from its first event on: most starts have nothing to tell."""

    def __init__(self, ctx: click.Context, stack: ExitStack, *, verb: str, title: str) -> None:
        self._ctx, self._stack, self._verb, self._title = ctx, stack, verb, title
        self._report: Callable[[Event], None] | None = None

    def __call__(self, event: Event) -> None:
        if self._report is None:
            from app.cli.progress import reporting

            self._report = self._stack.enter_context(
                reporting(self._ctx, verb=self._verb, title=self._title)
            )
        self._report(event)
