"""``run``, ``exec`` and ``shell``: a container in the foreground, or in the background."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

import click

from app.cli.access import make_access
from app.cli.images import cache_limit, choosing, find_reference
from app.cli.profiles import with_profile
from app.cli.runflags import OPTIONS, Option, interpret

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.cli.runflags import Flags
    from backend.events import Event
    from backend.reference import Reference
    from backend.registry.access import Access
    from backend.runtime.options import Action
    from backend.runtime.plan import Plan

_SETTINGS = {"allow_interspersed_args": False}
"""What stands behind the image belongs to the container, options too."""
_JOINING = frozenset({"env", "env_file", "cwd", "tty", "interactive"})
"""Options that say something to a container that runs."""


R = TypeVar("R")
Value = bool | str | tuple[str, ...]


def _container_options(function: Callable[..., R]) -> Callable[..., R]:
    return functools.reduce(lambda inner, one: _option(one)(inner), reversed(OPTIONS), function)


def _option(one: Option) -> Callable[[Callable[..., R]], Callable[..., R]]:
    if one.kind == "switch":
        return click.option(
            *one.names, one.dest, is_flag=True, help=one.help, hidden=one.is_accepted
        )
    if one.kind == "list":
        return click.option(*one.names, one.dest, metavar=one.metavar, multiple=True, help=one.help)
    return click.option(*one.names, one.dest, metavar=one.metavar, default="", help=one.help)


@click.command(context_settings=_SETTINGS)
@_container_options
@click.argument("image")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run(ctx: click.Context, /, image: str, arguments: tuple[str, ...], **flags: Value) -> None:
    """Run an image: its ENTRYPOINT with the arguments, or with its CMD.

    IMAGE is a file or, through the cache, docker://registry/name:tag.
    """
    start(ctx, "run", image, arguments, flags)


@click.command("exec", context_settings=_SETTINGS)
@_container_options
@click.option("--in", "joined", metavar="NAME", help="In a container that runs in the background.")
@click.argument("words", nargs=-1, required=True, metavar="IMAGE COMMAND", type=click.UNPROCESSED)
@click.pass_context
def exec_(
    ctx: click.Context, /, words: tuple[str, ...], joined: str | None, **flags: Value
) -> int | None:
    """Run a command of your own in an image, or with --in NAME in a running container."""
    if joined:
        return _join(joined, words, flags)
    if len(words) < 2:
        raise click.UsageError("Missing argument 'COMMAND...'.", ctx)
    start(ctx, "exec", words[0], words[1:], flags)
    return None


def _join(name: str, words: tuple[str, ...], flags: Flags) -> int:
    from backend.runtime.background import join
    from backend.runtime.instances import find_instance

    for option in OPTIONS:
        if flags[option.dest] and option.dest not in _JOINING and not option.is_accepted:
            raise click.UsageError(f"{option.names[0]} cannot change a container that runs.")
    options = interpret("exec", words, flags)
    found = find_instance(name, running=True)
    return join(found, words, dict(options.environment), options.working_dir)


@click.command(context_settings=_SETTINGS)
@_container_options
@click.argument("image")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def shell(ctx: click.Context, /, image: str, arguments: tuple[str, ...], **flags: Value) -> None:
    """Open a shell in an image: bash where it has one, else sh."""
    start(ctx, "shell", image, arguments, flags)


def start(
    ctx: click.Context, action: Action, image: str, arguments: tuple[str, ...], flags: Flags
) -> None:
    """Become the container, or raise what stands in the way."""
    from backend.journal import note_run
    from backend.runtime import container

    flags = with_profile(flags)
    options = interpret(action, arguments, flags)
    access = functools.cache(lambda: make_access(flags))  # a file needs none

    def planned(reference: Reference) -> Plan:
        with ExitStack() as stack:
            report = _LateReport(ctx, stack, verb=action, title=image)
            path = _local_file(reference, flags, access, report)
            if image.startswith("docker://"):
                _note_meaning(image, reference, path)
            note_run(path)
            return container.plan_image(path, options, report)

    plan = choosing(_find_image(image, flags, access), planned)
    if options.detach:
        from backend.runtime.background import start_detached

        click.echo(start_detached(plan, str(flags["name"]), keep_input=options.keep_input))
    else:
        container.become_launcher(plan)


def _find_image(image: str, flags: Flags, access: Callable[[], Access]) -> Reference:
    """Return what ``image`` names: a file, or an image that can be pulled.

    Raises:
        UsageError: It names nothing.
        NotFoundError: There is no such file.
    """
    import os

    from backend.reference import parse

    reference = parse(image)
    if reference.transport == "file" and not os.path.exists(reference.path):
        return find_reference(image, access(), offline=_is_offline(flags))
    return reference


def _local_file(
    reference: Reference,
    flags: Flags,
    access: Callable[[], Access],
    report: Callable[[Event], None],
) -> str:
    """Return the file of an image, from the cache if the image is no file.

    Raises:
        BackendError: The image could not be pulled.
    """
    if reference.transport == "file":
        return reference.path
    from backend.pull import PullOptions, cached_image

    wanted = PullOptions(access=access(), offline=_is_offline(flags), cache_limit=cache_limit())
    return str(cached_image(reference, wanted, report))


def _note_meaning(image: str, reference: Reference, path: str) -> None:
    """Note what a reference means, for the next start of it."""
    from backend.paths import cache_home
    from backend.registry.memory import memory_of
    from backend.runtime.spelling import note_spelling

    tag_file = "" if reference.digest else str(memory_of(cache_home()).tag_file(reference))
    note_spelling(image, path, tag_file)


def _is_offline(flags: Flags) -> bool:
    from backend.settings import flag

    return bool(flags["offline"]) or flag("OFFLINE")


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
