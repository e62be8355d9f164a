"""``sifdeck registry login|logout|list|test``, and ``serve`` from its own module."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli.access import access_options, make_access, registry_of, run_async
from app.cli.common import json_option
from app.cli.serve import serve

if TYPE_CHECKING:
    from backend.registry.access import Access
    from backend.registry.browse import State
    from backend.registry.credentials import Login
    from backend.registry.logins import StoredLogin, Where

_WAIT_S = 10.0
"""How long ``list`` waits for a registry's answer."""

_MEANING = {
    "": "not asked",
    "ok": "works",
    "refused": "refused",
    "none": "not asked for",
    "needed": "login needed",
    "unreachable": "unreachable",
}


@click.group(short_help="Log in to registries, and see which logins work.")
def registry() -> None:
    """Log in to registries, and see which logins work.

    Logins are looked for in: --authfile, the environment (SIFDECK_, SINGULARITY_,
    APPTAINER_DOCKER_USERNAME and _PASSWORD, DOCKER_USERNAME and _PASSWORD), ~/.singularity,
    ~/.apptainer, $REGISTRY_AUTH_FILE, $XDG_RUNTIME_DIR/containers, ~/.config/containers and
    ~/.docker, with the credential helpers that these files name.
    """


registry.add_command(serve)


@registry.command()
@click.argument("uri", metavar="docker://HOST[/PATH]|oras://HOST")
@click.option("-u", "--username", default="", help="The user name.")
@click.option("-p", "--password", default="", help="The password.  Others can see it in 'ps'.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option(
    "--store",
    "where",
    type=click.Choice(["auto", "keyring", "file", "none"]),
    default="auto",
    show_default=True,
    help="Where the secret is kept; auto takes the keyring if other tools can use it there; "
    "none only tries the login.",
)
@click.option("--offline", is_flag=True, help="Store the login without asking the registry.")
@access_options
@click.pass_context
def login(
    ctx: click.Context,
    /,
    *,
    uri: str,
    username: str,
    password: str,
    password_stdin: bool,
    offline: bool,
    **options: object,
) -> None:
    r"""Log in to a registry; the login is tried before it is stored.

    \b
    sifdeck registry login -u alice docker://ghcr.io
    sifdeck registry login -u alice --password-stdin docker://ghcr.io < token
    """
    from backend.registry.credentials import given_login
    from backend.registry.logins import default_file

    host, path = registry_of(uri)
    given = given_login(*_ask(username, password, from_stdin=password_stdin))
    access = make_access(options)
    if not offline:
        _say(ctx, _verify(access, host, given))
    if options["where"] == "none":
        return
    file = _chosen_file(options) or default_file()
    _say(ctx, run_async(_store(file, host, path, given, str(options["where"]))))
    _say(ctx, f"Token stored in {file}")


@registry.command()
@click.argument("uri", metavar="docker://HOST[/PATH]|oras://HOST")
@click.option(
    "--authfile",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Remove the login from this file.",
)
@click.pass_context
def logout(ctx: click.Context, /, *, uri: str, authfile: Path | None) -> None:
    """Remove the login for a registry."""
    from backend.registry.logins import default_file, remove

    host, path = registry_of(uri)
    file = authfile or _chosen_file({}) or default_file()
    if run_async(remove(file, host, path)):
        _say(ctx, f"Token removed from {file}")
    else:
        click.echo(f'WARNING: There is no existing login to registry "{uri}".', err=True)
    _say(ctx, "Logout succeeded")


@registry.command("list")
@click.option("--offline", is_flag=True, help="Do not ask the registries whether logins work.")
@access_options
@json_option
def list_(*, offline: bool, as_json: bool, **options: object) -> None:
    """List every stored login: who, in which file, who reads it, and whether it works."""
    from backend.registry.logins import stored_logins

    access = make_access(options)
    logins = run_async(stored_logins(_chosen_file(options)))
    states = [None] * len(logins) if offline else run_async(_check_all(access, logins))
    rows = [_row(one, state) for one, state in zip(logins, states, strict=True)]
    if as_json:
        click.echo(json.dumps(rows))
        return
    click.echo()
    if not rows:
        click.echo("(no registries with stored login information found)")
    else:
        _table(rows)
    click.echo()


@registry.command()
@click.argument("uri", metavar="docker://HOST[/PATH]|oras://HOST")
@access_options
@json_option
def test(*, uri: str, as_json: bool, **options: object) -> int:
    """Find out how we stand with a registry: TLS, login, rate limit.

    The exit status is 0 when it lets us in.
    """
    host, path = registry_of(uri)
    found = run_async(_test(make_access(options), host, path))
    if as_json:
        click.echo(json.dumps(found))
    else:
        for name, value in found.items():
            if value not in {"", None}:
                click.echo(f"{name + ':':12} {value}")
    from backend.errors import ExitCode

    status = {"ok": 0, "none": 0, "unreachable": ExitCode.NETWORK}
    return int(status.get(str(found["state"]), ExitCode.AUTHENTICATION))


def _ask(username: str, password: str, *, from_stdin: bool) -> tuple[str, str]:
    """Return user name and password, asked for where they were not given."""
    from backend.errors import UsageError

    if from_stdin and password:
        raise UsageError("--password and --password-stdin contradict each other")
    if not username:
        if from_stdin or not sys.stdin.isatty():
            raise UsageError("Docker/OCI registry requires a username", hint="add -u NAME")
        username = click.prompt("Username", err=True)
    if from_stdin:
        password = sys.stdin.read(1 << 20).rstrip("\r\n")
    elif not password:
        password = click.prompt(
            "Password / Token", hide_input=True, err=True, default="", show_default=False
        )
    if not password:
        raise UsageError("a password is required", hint="type it, or send it to --password-stdin")
    if ":" in username:
        raise UsageError(
            "a user name with a colon cannot be sent",
            why="HTTP takes what follows the colon for the password (RFC 7617)",
        )
    return username, password


def _verify(access: Access, host: str, given: Login) -> str:
    """Return a sentence on a login that the registry accepts.

    Raises:
        AuthenticationError: It refuses the login.
        NetworkError: It cannot be reached.
    """
    from dataclasses import replace

    from backend.errors import AuthenticationError, NetworkError
    from backend.registry.browse import check
    from backend.registry.credentials import Credentials

    async def ask() -> State:
        async with replace(access, credentials=Credentials(login=given)).client() as client:
            return await check(client, host, has_login=True)

    state = run_async(ask())
    if state.login == "unreachable":
        hint = "store it unverified with --offline; or see --no-https and --ca-cert"
        raise NetworkError(f"{host} cannot be asked", why=state.detail, hint=hint)
    if state.login == "none":
        return f"{host} lets everybody in, so the password was not checked"
    if state.login != "ok":
        raise AuthenticationError(
            f"{host} refuses the login",
            why="" if "refuses the login" in state.detail else state.detail,
            hint="check user name and password; many registries want a token for a password",
        )
    return f"{host} accepts the login"


async def _store(file: Path, host: str, path: str, given: Login, where: str) -> str:
    """Store a login and return a sentence on where its secret is."""
    from backend.errors import BackendError
    from backend.registry import helpers
    from backend.registry.logins import OUR_HELPER, key_for, store

    key = key_for(host, path)
    places: dict[str, tuple[Where, ...]] = {
        "keyring": ("keyring",),
        "file": ("file",),
        # Helpers are found by host, so a login for a path has to stand in the file.
        "auto": ("keyring", "file") if helpers.is_installed(OUR_HELPER) and not path else ("file",),
    }
    for place in places[where]:
        try:
            await store(file, key, given, place)
        except BackendError:
            if place == places[where][-1]:
                raise
            continue
        if place == "keyring":
            return "The secret is in the keyring; docker-credential-sifdeck gives it to other tools"
        break
    return (
        "The secret stands in the file as base64, which is not encryption: whoever reads it has it"
    )


def _chosen_file(options: dict[str, Any]) -> Path | None:
    from backend.settings import variable

    chosen = options.get("authfile") or variable("AUTHFILE")
    return Path(str(chosen)) if chosen else None


async def _check_all(access: Access, logins: tuple[StoredLogin, ...]) -> list[State | None]:
    import asyncio

    return list(await asyncio.gather(*(_check_one(access, one) for one in logins)))


async def _check_one(access: Access, stored: StoredLogin) -> State | None:
    """Try one stored login, and no other."""
    import asyncio
    from dataclasses import replace

    from backend.registry.browse import State, check
    from backend.registry.logins import credentials_of

    if not stored.registry:
        return None
    try:
        async with (
            asyncio.timeout(_WAIT_S),
            replace(access, credentials=credentials_of(stored)).client() as client,
        ):
            return await check(client, stored.registry, has_login=True)
    except TimeoutError:
        return State(login="unreachable", detail=f"no answer in {_WAIT_S:g} s")


def _row(stored: StoredLogin, state: State | None) -> dict[str, Any]:
    from backend.escape import one_line

    return {
        "uri": one_line(f"docker://{stored.registry}" if stored.registry else stored.key)
        + (f"/{one_line(stored.repository)}" if stored.repository else ""),
        "secure": None if state is None or state.login == "unreachable" else state.is_secure,
        "username": one_line(stored.username),
        "state": state.login if state else "",
        "detail": one_line(state.detail) if state else "",
        "expires": stored.expires.isoformat() if stored.expires else "",
        "file": one_line(stored.path),
        "secret": one_line(stored.holder),
        "read_by": stored.place.readers if stored.place else "sifdeck",
    }


def _table(rows: list[dict[str, Any]]) -> None:
    secure = {True: "✓", False: "✗!", None: "?"}
    table = [["URI", "SECURE?", "USER", "STATE", "STORED IN", "SECRET", "READ BY"]]
    for row in rows:
        state = _MEANING.get(row["state"], "?")
        if row["expires"]:
            state += f", until {row['expires'][:16]}"
        table.append(
            [
                row["uri"],
                secure[row["secure"]],
                row["username"] or "-",
                state,
                row["file"],
                row["secret"],
                row["read_by"],
            ]
        )
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


async def _test(access: Access, host: str, path: str) -> dict[str, Any]:
    from backend.escape import one_line
    from backend.registry.browse import check

    async with access.client() as client:
        found = await access.credentials.find(host, path)
        state = await check(client, host, has_login=found is not None)
        limit = client.rate_limit(host)
    return {
        "registry": host,
        "protocol": "HTTPS" if state.is_secure else "HTTP, not encrypted",
        "login": one_line(found.username or "token") if found else "none",
        "found in": one_line(found.source) if found else "",
        "state": state.login,
        "detail": one_line(state.detail),
        "rate limit": f"{limit.remaining} of {limit.limit} left" if limit else "",
    }


def _say(ctx: click.Context, text: str) -> None:
    if not (ctx.obj or {}).get("quiet"):
        click.echo(f"INFO:    {text}", err=True)
