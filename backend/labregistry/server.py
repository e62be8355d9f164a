"""Start and stop the lab registry, in an event loop or in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from backend.errors import BackendError, NetworkError
from backend.labregistry.access import Access, Scheme, parse_htpasswd
from backend.labregistry.service import Service
from backend.labregistry.storage import Storage
from backend.labregistry.wire import Connection

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

_MAX_CONNECTIONS = 512
_BUFFER = 1 << 19
_TURNS = 5
"""Of the loop; a connection needs three from its acceptance to its task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a registry is served.

    Attributes:
        root: Its folder; made when it is not there.
        host: Address to listen on; loopback unless told.
        port: 0 lets the system choose.
        htpasswd: Text of a password file; None lets everybody in.
        scheme: How users log in, where there is a password file.
        read_only: Refuse pushes and deletions.
        tls: Speak TLS; None speaks plain HTTP.
    """

    root: Path
    host: str = "127.0.0.1"
    port: int = 0
    htpasswd: str | None = None
    scheme: Scheme = "basic"
    read_only: bool = False
    tls: ssl.SSLContext | None = None


class LabRegistry:
    """A running registry; an asynchronous context manager.

    Raises:
        ExistsError: Another process serves the folder.
        FormatError: The password file is none.
        NetworkError: The address or port cannot be had.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._connections: set[asyncio.Task[None]] = set()
        self.address = ""
        """``HOST:PORT``, as it stands in a reference."""

    async def __aenter__(self) -> Self:
        options = self._options
        users = None if options.htpasswd is None else parse_htpasswd(options.htpasswd)
        self._storage = Storage(options.root)
        access = Access(users, options.scheme)
        self._service = Service(self._storage, access, read_only=options.read_only)
        try:
            self._server = await asyncio.start_server(
                self._connected, options.host, options.port, ssl=options.tls, limit=_BUFFER
            )
        except OSError as error:
            self._storage.close()
            raise NetworkError(
                f"cannot listen on {options.host} port {options.port}",
                why=error.strerror or str(error),
                hint="choose another with --port; 0 takes one that is free",
            ) from error
        host = f"[{options.host}]" if ":" in options.host else options.host
        self.address = f"{host}:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._accept_no_more()
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._storage.close()

    async def _accept_no_more(self) -> None:
        """Let what was accepted begin; a server that is closed before drops it without an end."""
        loop = asyncio.get_running_loop()
        for listening in self._server.sockets:
            loop.remove_reader(listening.fileno())
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= _MAX_CONNECTIONS:
            writer.close()
            return
        self._connections.add(task)
        try:
            await Connection(reader, writer, self._service.answer).serve()
        except asyncio.CancelledError:
            # The server ends; asyncio would print a task that ends like this as an error.
            pass
        finally:
            self._connections.discard(task)


@contextlib.contextmanager
def serving(options: Options) -> Iterator[str]:
    """Serve a registry from a thread for as long as the block runs; yields ``HOST:PORT``.

    Raises:
        ExistsError: Another process serves the folder.
        FormatError: The password file is none.
        NetworkError: The address or port cannot be had.
    """
    started: Future[_Started] = Future()
    thread = threading.Thread(
        target=lambda: asyncio.run(_serve(options, started)), name="lab registry", daemon=True
    )
    thread.start()
    address, loop, stop = started.result()
    try:
        yield address
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


_Started = tuple[str, asyncio.AbstractEventLoop, asyncio.Event]


async def _serve(options: Options, started: Future[_Started]) -> None:
    stop = asyncio.Event()
    try:
        async with LabRegistry(options) as registry:
            started.set_result((registry.address, asyncio.get_running_loop(), stop))
            await stop.wait()
    except (BackendError, OSError) as error:
        if started.done():
            raise
        started.set_exception(error)
