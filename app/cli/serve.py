"""``sifdeck registry serve``: the lab registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import ssl

    from backend.labregistry.access import Scheme
    from backend.labregistry.server import Options

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the images.  [default: registry in the state folder]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=5000,
    show_default=True,
    help="0 lets the system choose.",
)
@click.option("--htpasswd", type=_FILE, help="Password file with bcrypt or {SHA} hashes.")
@click.option(
    "--auth",
    "scheme",
    type=click.Choice(["basic", "bearer"]),
    default="basic",
    show_default=True,
    help="How users log in: a password with each request, or tokens.",
)
@click.option("--tls", is_flag=True, help="Speak TLS, with a certificate made for the occasion.")
@click.option("--cert", type=_FILE, help="Speak TLS with this certificate; needs --key.")
@click.option("--key", type=_FILE, help="The certificate's key.")
@click.option("--read-only", is_flag=True, help="Refuse pushes and deletions.")
@click.pass_context
def serve(  # noqa: PLR0913  (one parameter per option)
    ctx: click.Context,
    *,
    root: Path | None,
    host: str,
    port: int,
    htpasswd: Path | None,
    scheme: Scheme,
    tls: bool,
    cert: Path | None,
    key: Path | None,
    read_only: bool,
) -> None:
    """Serve a small registry until interrupted: for labs and tests, not for production.

    Prints HOST:PORT, as references need it, on standard output.
    """
    import asyncio

    from backend.labregistry.server import Options
    from backend.paths import state_home

    if (cert is None) != (key is None):
        raise click.UsageError("--cert and --key come together")
    folder = root or state_home() / "registry"
    folder.mkdir(parents=True, exist_ok=True)
    options = Options(
        root=folder,
        host=host,
        port=port,
        htpasswd=htpasswd.read_text(errors="replace") if htpasswd else None,
        scheme=scheme,
        read_only=read_only,
        tls=_tls(folder, host, cert, key) if tls or cert else None,
    )
    quiet = bool(ctx.obj["quiet"])
    for line in () if quiet else _advice(folder, host, htpasswd, made=tls and not cert):
        click.echo(line, err=True)
    asyncio.run(_serve(options))


async def _serve(options: Options) -> None:
    import asyncio
    import signal

    from backend.labregistry.server import LabRegistry

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    async with LabRegistry(options) as registry:
        click.echo(registry.address)
        await stop.wait()


def _tls(folder: Path, host: str, cert: Path | None, key: Path | None) -> ssl.SSLContext:
    from backend.labregistry.tls import load_context, make_certificate

    if cert and key:
        return load_context(cert, key)
    made, secret = folder / "registry.crt", folder / "registry.key"
    make_certificate(made, secret, host)
    return load_context(made, secret)


def _advice(folder: Path, host: str, htpasswd: Path | None, *, made: bool) -> list[str]:
    lines = [f"INFO:    Lab registry of {folder}: for labs and tests, not for production"]
    if made:
        lines.append(f"INFO:    Clients trust it with: SSL_CERT_FILE={folder / 'registry.crt'}")
    if host not in {"127.0.0.1", "::1", "localhost"} and htpasswd is None:
        lines.append("WARNING: Everybody who can reach this machine can push; see --htpasswd")
    return lines
