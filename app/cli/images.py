"""Options that every verb has which takes an image from somewhere."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from app.cli.access import access_options, make_access, run_async

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backend.errors import SeveralImagesError
    from backend.pull import PullOptions
    from backend.reference import Reference
    from backend.registry.access import Access

P = ParamSpec("P")
R = TypeVar("R")

_OPTIONS = (
    click.option("--arch", help="The processor of the image to choose.  [default: this one's]"),
    click.option("--platform", help="The platform of the image to choose, as linux/arm64."),
    click.option("--offline", is_flag=True, help="Use what is in the cache, and no network."),
    click.option("--library", metavar="URL", help="The library that library:// means."),
    click.option("--docker-login", is_flag=True, help="Ask for a user name and a password."),
    click.option(
        "--compression",
        metavar="NAME[:LEVEL]",
        help="Of the file system: zstd, gzip, xz or lz4.  [default: zstd:3]",
    ),
    click.option("--oci", is_flag=True, hidden=True),
)


def image_options(function: Callable[P, R]) -> Callable[P, R]:
    """Add the options that say where an image is from and what to make of it."""
    plain = functools.reduce(lambda inner, option: option(inner), reversed(_OPTIONS), function)
    return access_options(plain)


def pull_options(values: Mapping[str, object], *, overwrite: bool = False) -> PullOptions:
    """Return what the options, and the environment where they are silent, ask for.

    Raises:
        UsageError: Two of them contradict each other, or one makes no sense.
    """
    from backend.oci.platform import host_platform, parse_platform
    from backend.pull import PullOptions
    from backend.settings import flag, variable
    from backend.squashfs.compression import Compression, parse_compression

    arch = values.get("arch") or variable("ARCH") or variable("PULL_ARCH")
    platform = values.get("platform") or variable("PLATFORM")
    if values.get("arch") and values.get("platform"):
        raise click.UsageError("--arch and --platform say the same thing; give one of them")
    compression = values.get("compression") or variable("COMPRESSION")
    named = values.get("platform") or arch or platform
    return PullOptions(
        platform=parse_platform(str(named)) if named else host_platform(),
        compression=parse_compression(str(compression)) if compression else Compression(),
        overwrite=overwrite,
        native=bool(values.get("native")),
        keep_layers=bool(values.get("keep_layers")),
        offline=bool(values.get("offline")) or flag("OFFLINE"),
        access=make_access(values, ask=bool(values.get("docker_login")) or flag("DOCKER_LOGIN")),
        cache_limit=cache_limit(),
    )


def cache_limit() -> int | None:
    """Return how large the settings let the cache become; None for as large as it will.

    Raises:
        UsageError: The settings are wrong.
    """
    from backend.config import load_config
    from backend.paths import config_home, site_config

    return load_config(config_home() / "config.toml", site_config()).cache_limit


def find_reference(text: str, access: Access, *, offline: bool = False) -> Reference:
    """Return what ``text`` names; a bare name that is no file is looked up in ``registries.conf``.

    Args:
        text: What the user typed.
        access: How to get at registries.
        offline: Ask the cache, not the registries, which of them has the image.

    Raises:
        UsageError: It names nothing, or nothing that could be a name.
        NotFoundError: There is no such file, and no registry to search has the image.
    """
    import os

    from backend.reference import parse

    reference = parse(text)
    if reference.transport != "file" or os.path.exists(reference.path):
        return reference
    found = None if "/" in text else _find_short_name(text, access, offline=offline)
    if found is None:
        from backend.errors import NotFoundError
        from backend.escape import quoted

        raise NotFoundError(
            f"no such image: {quoted(text)}",
            hint="for an image in a registry write docker://NAME[:TAG]",
        )
    return found


def _find_short_name(text: str, access: Access, *, offline: bool) -> Reference | None:
    """Return the image that ``registries.conf`` means by a name; None if it says nothing of it.

    Raises:
        NotFoundError: No registry to search has the image.
    """
    if not access.registries.search and not access.registries.aliases:
        return None
    from backend.paths import cache_home
    from backend.registry.access import find_short_name
    from backend.registry.memory import memory_of

    memory = memory_of(cache_home()) if offline else None
    return run_async(find_short_name(text, access, memory=memory))


def find_in_registry(text: str, access: Access) -> Reference:
    """Return the image in a registry that ``text`` names, with or without a transport.

    Raises:
        UsageError: It names something else.
        NotFoundError: No registry to search has the image.
    """
    from backend.errors import UsageError
    from backend.escape import one_line
    from backend.reference import parse, parse_name

    reference = parse(text)
    if reference.transport == "file":
        short = None if "/" in text else _find_short_name(text, access, offline=False)
        reference = short or parse_name(text)
    if reference.transport not in {"docker", "oras"}:
        raise UsageError(
            f"{one_line(text, limit=200)} is in no registry", hint="write docker://HOST/NAME:TAG"
        )
    return reference


def choosing(reference: Reference, work: Callable[[Reference], R], *, ask: bool = True) -> R:
    """Return what ``work`` makes of a reference; of several images it means the user takes one.

    Args:
        reference: What the user named.
        work: Called once more, with what the user took.
        ask: False leaves the error as it is, as does a missing terminal.

    Raises:
        SeveralImagesError: Several images answer to the reference, and nobody can be asked.
        BackendError: Whatever ``work`` raises.
    """
    from backend.errors import SeveralImagesError

    try:
        return work(reference)
    except SeveralImagesError as error:
        if not (ask and sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        return work(_ask_which(error))


def _ask_which(error: SeveralImagesError) -> Reference:
    from backend.escape import one_line
    from backend.reference import parse

    click.echo(f"{error.message}:", err=True)
    names = list(error.choices)
    for number, name in enumerate(names, 1):
        click.echo(f"{number:>4}  {one_line(name)}  {error.choices[name]}", err=True)
    chosen: int = click.prompt("Which one", type=click.IntRange(1, len(names)), err=True)
    return parse(names[chosen - 1])
