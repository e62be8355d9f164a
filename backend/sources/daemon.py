"""``docker-daemon:NAME``: an image out of a running Docker, or of Podman's socket."""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

import httpx

from backend.errors import NetworkError, NotFoundError, UsageError
from backend.escape import one_line, quoted
from backend.events import Phase
from backend.registry.transport import failure, translated

if TYPE_CHECKING:
    from backend.events import Report
    from backend.reference import Reference

_SOCKET = "unix:///var/run/docker.sock"
_SILENCE_S = 300.0
"""A daemon is silent while it packs the first layer."""


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
    transport, base = _address()
    async with httpx.AsyncClient(
        transport=transport, timeout=httpx.Timeout(_SILENCE_S, connect=10), trust_env=False
    ) as client:
        with translated(httpx.URL(base)):
            async with client.stream("GET", f"{base}/images/{quote(name)}/get") as response:
                if response.status_code == 404:
                    raise NotFoundError(f"the Docker daemon has no {one_line(name)}")
                if response.status_code != 200:
                    raise await failure(response, f"docker save {name}")
                done = 0
                async for chunk in response.aiter_raw():
                    out.write(chunk)
                    done += len(chunk)
                    report(Phase(name="save", done=done))
    report(Phase(name="save", done=done, total=done, state="done"))


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
    raise UsageError(f"DOCKER_HOST is {quoted(host)}; unix:// and tcp:// are understood")
