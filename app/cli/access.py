"""Options of every verb that talks to a registry."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from backend.registry.access import Access

P = ParamSpec("P")
R = TypeVar("R")

_OPTIONS = (
    click.option("--no-https", is_flag=True, help="Talk HTTP to the registry instead of HTTPS."),
    click.option(
        "--authfile",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Look for registry logins in this file first.",
    ),
    click.option(
        "--ca-cert",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Trust the authorities in this PEM file, besides the system's.",
    ),
    click.option("--insecure", is_flag=True, help="Accept any certificate.  Dangerous."),
)


def access_options(function: Callable[P, R]) -> Callable[P, R]:
    """Add the options that say how to get at a registry."""
    return functools.reduce(lambda inner, option: option(inner), reversed(_OPTIONS), function)


def make_access(values: Mapping[str, object], *, ask: bool = False) -> Access:
    """Return what the options, and the environment where they are silent, ask for.

    Args:
        values: Of the options.
        ask: Ask for a user name and a password.

    Raises:
        UsageError: An option or a file makes no sense.
    """
    import logging

    from backend.registry.access import DEFAULT_LIBRARY, Access
    from backend.registry.credentials import Credentials, given_login
    from backend.registry.secret import Secret
    from backend.registry.tls import Trust
    from backend.settings import flag, variable

    if logging.lastResort:  # what prints warnings where nobody has set logging up
        logging.lastResort.setFormatter(logging.Formatter("WARNING: %(message)s"))
    login = None
    if ask:
        username = click.prompt("Enter Docker/OCI registry username", err=True)
        password = click.prompt("Enter Docker / OCI registry password", hide_input=True, err=True)
        login = given_login(username, password)
    authfile = values.get("authfile") or variable("AUTHFILE")
    ca_cert = values.get("ca_cert") or variable("CA_CERT")
    insecure = bool(values.get("insecure")) or flag("INSECURE")
    if insecure:
        click.echo(
            "WARNING: certificates are not checked: whoever is on the way can read the "
            "password and change the image",
            err=True,
        )
    return Access(
        credentials=Credentials(login=login, authfile=Path(str(authfile)) if authfile else None),
        trust=Trust(ca_cert=Path(str(ca_cert)) if ca_cert else None, insecure=insecure),
        plain_http=bool(values.get("no_https")) or flag("NO_HTTPS") or flag("NOHTTPS"),
        library=str(values.get("library") or variable("LIBRARY") or DEFAULT_LIBRARY),
        library_token=Secret(variable("LIBRARY_TOKEN") or ""),
    )


def run_async(work: Coroutine[object, object, R]) -> R:
    """Run ``work`` to its end; Ctrl-C cancels it."""
    import asyncio

    return asyncio.run(work)


def registry_of(uri: str) -> tuple[str, str]:
    """Return the (host, path) of ``docker://HOST[/PATH]`` or ``oras://HOST[/PATH]``.

    Raises:
        UsageError: It is neither.
    """
    from backend.errors import UsageError
    from backend.escape import one_line, quoted
    from backend.reference import parse

    scheme, separator, rest = uri.partition("://")
    if not separator:
        scheme, rest = "docker", uri
    host, _, path = rest.rstrip("/").partition("/")
    if scheme not in {"docker", "oras"}:
        hint = f"write docker://{one_line(host)}" if scheme in {"http", "https"} else ""
        raise UsageError(f"{one_line(scheme, limit=40)} transport is not supported", hint=hint)
    if not host or any(char.isspace() for char in host):
        raise UsageError(f"{quoted(uri)} names no registry", hint="write docker://HOST[:PORT]")
    # The path of an image is checked by the grammar of references.
    parse(f"oras://{host}/{path or 'x'}" if _is_host(host) else f"oras://{host}:1/{path or 'x'}")
    return host, path


def _is_host(host: str) -> bool:
    return host == "localhost" or any(char in host for char in ".:[")
