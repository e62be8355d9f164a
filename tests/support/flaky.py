"""A proxy that misbehaves, between a client and a registry on loopback.

``faults`` are tried in order on each request; the first that matches and has not been used up
spoils the answer.  What is not spoilt passes through unchanged.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_TURNS = 5
"""Of the loop; a connection needs three from its acceptance to its task."""


@dataclass(kw_only=True)
class Fault:
    """What to do to a request.

    Attributes:
        path: A regular expression that is searched for in ``METHOD target``.
        times: How often; a large number means always.
        kind: ``cut`` ends the connection after ``after`` bytes of the body, ``stall`` is silent
            from there, ``corrupt`` changes the byte at ``after``, ``length`` adds ``after`` to the
            Content-Length that is announced, ``status`` answers with ``status``, ``refuse``
            closes without an answer, ``lose`` does so when the registry has done what was asked,
            ``no_range`` hides the Range header from the registry,
            ``meter`` lets no more of the body through than :meth:`FlakyProxy.allow` says.
        status: For ``status``.
        headers: Added to the answer.
        body: For ``status``.
        skip: Requests that match but pass before the first is spoilt.
    """

    path: str
    kind: Literal[
        "cut",
        "stall",
        "corrupt",
        "length",
        "status",
        "refuse",
        "lose",
        "no_range",
        "headers",
        "meter",
    ]
    times: int = 1
    after: int = 0
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    skip: int = 0


@dataclass(kw_only=True)
class Request:
    """One request that came, as the proxy saw it."""

    line: str
    headers: dict[str, str]


class FlakyProxy:
    """A running proxy.

    Attributes:
        host: ``127.0.0.1:PORT``.
        faults: May be changed at any time.
        requests: All that came, in order.
        on_request: Called for each, in the proxy's thread, before it is answered.
    """

    def __init__(self, upstream: str) -> None:
        self.host = ""
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.on_request: Callable[[Request], object] = lambda _: None
        self._upstream = upstream
        self._allowed = 0
        self._is_waiting = False
        self._stopped: asyncio.Event
        self._tasks: set[object] = set()

    async def serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._more = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()
        await self._stopped.wait()
        # A closed server drops what it has accepted without closing it; so first accept no more,
        # and let what was accepted begin.
        for listening in server.sockets:
            self._loop.remove_reader(listening.fileno())
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        server.close()
        # Connections that were accepted but not begun end here as well, and may do so cancelled.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)

    def allow(self, count: int) -> None:
        """Let so many more bytes of metered bodies through."""
        self._loop.call_soon_threadsafe(self._allow, count)

    @property
    def is_waiting(self) -> bool:
        """Whether all that was allowed has gone through, and more would."""
        return self._is_waiting and not self._allowed

    def _allow(self, count: int) -> None:
        self._allowed += count
        self._more.set()

    def seen(self, pattern: str) -> list[Request]:
        """Return the requests whose line matches."""
        return [request for request in self.requests if re.search(pattern, request.line)]

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # When the client has gone, nothing else holds a task that waits for the registry.
        task = asyncio.current_task()
        self._tasks.add(task)
        ended = (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.suppress(*ended):
            await self._answer(reader, writer)
        await _close(writer)
        self._tasks.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request; the connection ends with it."""
        first = await reader.readexactly(1)
        if first == b"\x16":  # a TLS handshake, which plain servers answer like this
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return
        line, headers = await _read_head(reader, first)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, target, _ = line.split()
        self.requests.append(Request(line=f"{method} {target}", headers=headers))
        self.on_request(self.requests[-1])
        fault = self._fault(f"{method} {target}")
        if fault and fault.kind == "refuse":
            return
        if fault and fault.kind == "status":
            writer.write(_status_answer(fault))
            await writer.drain()
            return
        if fault and fault.kind == "no_range":
            headers.pop("range", None)
        headers["connection"] = "close"
        host, _, port = self._upstream.partition(":")
        up_reader, up_writer = await asyncio.open_connection(host, int(port))
        try:
            up_writer.write(_head(f"{method} {target} HTTP/1.1", headers) + body)
            await self._relay(up_reader, writer, fault)
        finally:
            await _close(up_writer)

    async def _relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault | None
    ) -> None:
        line, headers = await _read_head(reader)
        headers["connection"] = "close"
        if fault and fault.kind == "lose":
            return
        if fault:
            headers |= fault.headers
        if fault and fault.kind == "length" and "content-length" in headers:
            headers["content-length"] = str(int(headers["content-length"]) + fault.after)
        writer.write(_head(line, headers))
        place = 0
        while chunk := await reader.read(1 << 16):
            end = place + len(chunk)
            if fault and fault.kind == "corrupt" and place <= fault.after < end:
                changed = bytearray(chunk)
                changed[fault.after - place] ^= 0xFF
                chunk = bytes(changed)
            if fault and fault.kind in {"cut", "stall"} and end >= fault.after:
                writer.write(chunk[: fault.after - place])
                await writer.drain()
                if fault.kind == "stall":
                    await self._stopped.wait()
                return
            if fault and fault.kind == "meter":
                await self._pass(chunk, writer)
            else:
                writer.write(chunk)
                await writer.drain()
            place = end

    async def _pass(self, chunk: bytes, writer: asyncio.StreamWriter) -> None:
        """Write a chunk, as far and as fast as is allowed."""
        while chunk:
            if not self._allowed:
                self._more.clear()
                self._is_waiting = True
                await self._more.wait()
                self._is_waiting = False
            part, chunk = chunk[: self._allowed], chunk[self._allowed :]
            self._allowed -= len(part)
            writer.write(part)
            await writer.drain()

    def _fault(self, line: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and re.search(fault.path, line):
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close a connection before the loop ends, which else warns of it."""
    writer.close()
    try:
        await writer.wait_closed()
    except (OSError, asyncio.CancelledError):
        writer.transport.abort()  # whoever should read the rest is gone
        await asyncio.sleep(0)


async def _read_head(
    reader: asyncio.StreamReader, first: bytes = b""
) -> tuple[str, dict[str, str]]:
    head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in head[1:] if line)
    return head[0], {name.strip().lower(): value.strip() for name, _, value in pairs}


def _head(line: str, headers: dict[str, str]) -> bytes:
    lines = [line, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _status_answer(fault: Fault) -> bytes:
    headers = {"content-length": str(len(fault.body)), "connection": "close"} | fault.headers
    return _head(f"HTTP/1.1 {fault.status} Test", headers) + fault.body


@contextlib.contextmanager
def flaky_proxy(upstream: str, *faults: Fault) -> Iterator[FlakyProxy]:
    """Run a proxy in a thread of its own until the block ends.

    Args:
        upstream: ``127.0.0.1:PORT`` of a registry.
        faults: What to spoil.
    """
    proxy = FlakyProxy(upstream)
    proxy.faults = list(faults)
    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(proxy.serve(ready)))
    thread.start()
    ready.wait()
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join()
