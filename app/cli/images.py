"""Options that every verb has which takes an image from somewhere."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backend.pull import PullOptions
    from backend.registry.credentials import Credentials

P = ParamSpec("P")
R = TypeVar("R")

_OPTIONS = (
    click.option("--arch", help="The processor of the image to choose.  [default: this one's]"),
    click.option("--platform", help="The platform of the image to choose, as linux/arm64."),
    click.option("--no-https", is_flag=True, help="Talk HTTP to the registry instead of HTTPS."),
    click.option(
        "--authfile",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Look for registry logins in this file first.",
    ),
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
    return functools.reduce(lambda inner, option: option(inner), reversed(_OPTIONS), function)


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
        plain_http=bool(values.get("no_https")) or flag("NO_HTTPS") or flag("NOHTTPS"),
        credentials=_credentials(values),
    )


def _credentials(values: Mapping[str, object]) -> Credentials:
    from backend.registry.credentials import Credentials, given_login
    from backend.settings import flag, variable

    login = None
    if values.get("docker_login") or flag("DOCKER_LOGIN"):
        username = click.prompt("Enter Docker/OCI registry username", err=True)
        password = click.prompt("Enter Docker / OCI registry password", hide_input=True, err=True)
        login = given_login(username, password)
    authfile = values.get("authfile") or variable("AUTHFILE")
    return Credentials(login=login, authfile=Path(str(authfile)) if authfile else None)
