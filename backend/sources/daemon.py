"""``docker-daemon:NAME``: an image out of a running Docker or into it, or Podman's socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

import httpx

from backend.errors import BackendError, NetworkError, NotFoundError, UsageError
from backend.escape import one_line, quoted
from backend.events import Phase
from backend.registry.transport import failure, translated

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from backend.events import Report
    from backend.reference import Reference

_SOCKET = "unix:///var/run/docker.sock"
_SILENCE_S = 300.0
"""A daemon is silent while it packs the first layer, and while it unpacks."""
_CHUNK = 1 << 20
_MAX_LINE = 1 << 16


async def save_image(reference: Reference, out: IO[bytes], report: Report) -> None:
    """Have the daemon write an image as a Docker archive.

    Args:
        reference: Of ``docker-daemon:``.
        out: Gets the archive.
        report: Gets how far it is.

    Raises:
        NotFoundError: The daemon has no such image.
        NetworkError: No daemon answers.
        UsageError: ``$DOCKER_HOST`` makes no sense.
    """
    name = f"{reference.registry}/{reference.repository}"
    name += f"@{reference.digest}" if reference.digest else f":{reference.tag}"
    done = 0
    async with _request("GET", f"/images/{quote(name)}/get") as response:
        if response.status_code == 404:
            hint = "docker images lists what it has"
            raise NotFoundError(f"the Docker daemon has no {one_line(name)}", hint=hint)
        if response.status_code != 200:
            raise await failure(response, f"docker save {name}")
        async for chunk in response.aiter_raw():
            out.write(chunk)
            done += len(chunk)
            report(Phase(name="save", done=done))
    report(Phase(name="save", done=done, total=done, state="done"))


async def load_image(archive: Path, report: Report) -> None:
    """Have the daemon take the image of a Docker archive.

    Args:
        archive: It says what the image is called.
        report: Gets how far it is.

    Raises:
        BackendError: The daemon does not take it.
        NetworkError: No daemon answers.
        UsageError: ``$DOCKER_HOST`` makes no sense.
    """
    total = await asyncio.to_thread(os.path.getsize, archive)

    async def chunks() -> AsyncGenerator[bytes]:
        done = 0
        with archive.open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK):
                done += len(chunk)
                report(Phase(name="load", done=done, total=total))
                yield chunk

    async with _request("POST", "/images/load?quiet=1", chunks()) as response:
        if response.status_code != 200:
            raise await failure(response, "docker load")
        # The status was sent before the daemon looked at the image.
        async for line in response.aiter_lines():
            if trouble := _trouble(line[:_MAX_LINE]):
                raise BackendError("the Docker daemon does not take the image", why=trouble)
    report(Phase(name="load", done=total, total=total, state="done"))


def _trouble(line: str) -> str:
    """Return what a line of the daemon's report says went wrong; "" for nothing."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return ""
    said = found.get("error") if isinstance(found, dict) else None
    return one_line(str(said)) if said else ""


@contextlib.asynccontextmanager
async def _request(
    method: str, target: str, content: AsyncGenerator[bytes] | None = None
) -> AsyncIterator[httpx.Response]:
    transport, base = _address()
    timeout = httpx.Timeout(_SILENCE_S, connect=10)
    headers = {"Content-Type": "application/x-tar"} if content else {}
    async with httpx.AsyncClient(
        transport=transport, timeout=timeout, trust_env=False, headers=headers
    ) as client:
        with translated(httpx.URL(base)):
            async with client.stream(method, f"{base}{target}", content=content) as response:
                yield response


def _address() -> tuple[httpx.AsyncHTTPTransport, str]:
    host = os.environ.get("DOCKER_HOST") or _SOCKET
    scheme, _, rest = host.partition("://")
    if scheme == "unix":
        if not os.path.exists(rest):
            raise NetworkError(
                "no Docker daemon is running here",
                why=f"there is no {one_line(rest)}",
                hint="set DOCKER_HOST, or save the image: docker save -o FILE; docker-archive:FILE",
            )
        return httpx.AsyncHTTPTransport(uds=rest), "http://docker-daemon"
    if scheme in {"tcp", "http"}:
        return httpx.AsyncHTTPTransport(), f"http://{rest}"
    hint = "set it to unix:///run/docker.sock, or to the socket of Podman's service"
    raise UsageError(f"DOCKER_HOST is {quoted(host)}; unix:// and tcp:// are understood", hint=hint)
