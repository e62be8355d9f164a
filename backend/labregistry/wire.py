"""HTTP/1.1 on asyncio streams.

h11 parses and frames: it is small, does no input or output of its own, knows the traps of
HTTP (``Transfer-Encoding`` beside ``Content-Length``, ``Expect: 100-continue``) and is here
already, as httpx's own parser.  This module adds what a server on a network needs: limits on
sizes, times and connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

import h11

from backend.labregistry.answers import Answer, FilePart, RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

_log = logging.getLogger(__name__)

_CHUNK = 1 << 18
_READ = 1 << 16
_MAX_HEAD = 64 << 10
"""Bytes of a request's head; Bearer tokens make it long, nothing makes it longer."""
_MAX_DRAIN = 16 << 20
"""Bytes of a refused body that are read and dropped, so that the client sees the answer."""
_SILENCE_S = 60.0
"""Seconds without a byte, either way, after which the connection is closed."""


@dataclass(slots=True, kw_only=True)
class Request:
    """A request's head, and the way to its body.

    Attributes:
        method: Upper case, as sent.
        path: Percent-decoded; no query.
        query: First value of each name.
        scopes: Every value of ``scope``, the one name that may be repeated.
        headers: Names in lower case.
        secure: It came over TLS.
        chunks: Yields the body; may be started once.
    """

    method: str
    path: str
    query: Mapping[str, str]
    scopes: tuple[str, ...]
    headers: Mapping[str, str]
    secure: bool
    chunks: Callable[[], AsyncIterator[bytes]]

    async def body(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            RefusedError: It is longer than ``limit`` bytes.
        """
        data = bytearray()
        async for chunk in self.chunks():
            data += chunk
            if len(data) > limit:
                raise RefusedError(413, "SIZE_INVALID", f"the body is longer than {limit} bytes")
        return bytes(data)


class Connection:
    """One client's connection: requests in, answers out, until one side has had enough."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answer: Callable[[Request], Awaitable[Answer]],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._answer = answer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        self._secure = writer.get_extra_info("ssl_object") is not None

    async def serve(self) -> None:
        """Answer requests until the connection ends; broken connections end quietly."""
        try:
            while await self._serve_one():
                self._http.start_next_cycle()
        except (OSError, TimeoutError, h11.LocalProtocolError) as error:
            _log.debug("connection ended: %s", error)
        except h11.RemoteProtocolError as error:
            with contextlib.suppress(OSError, TimeoutError, h11.LocalProtocolError):
                status = error.error_status_hint
                await self._send(RefusedError(status, "UNSUPPORTED", f"not HTTP: {error}").answer())
                await self._drain()
        finally:
            self._writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await self._writer.wait_closed()

    async def _serve_one(self) -> bool:
        """Answer one request; return whether another may follow on this connection."""
        head = await self._next_event()
        if not isinstance(head, h11.Request):
            return False
        try:
            answer = await self._answer(self._request(head))
        except RefusedError as refusal:
            answer = refusal.answer()
        _log.debug("%r %r -> %d", head.method, head.target, answer.status)
        # With a body still on its way the next request cannot be found in the stream.
        is_unread = self._http.their_state is h11.SEND_BODY and not self._has_ended()
        await self._send(answer, to_head=head.method == b"HEAD", close=is_unread)
        if is_unread:
            await self._drain()
        return self._http.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}

    def _request(self, head: h11.Request) -> Request:
        try:
            target = urlsplit(head.target.decode("latin-1"))
            fields = parse_qs(target.query, keep_blank_values=True, max_num_fields=100)
        except ValueError as error:
            raise RefusedError(400, "UNSUPPORTED", "the request's target makes no sense") from error
        return Request(
            method=head.method.decode("latin-1"),
            path=unquote(target.path),
            query={name: values[0] for name, values in fields.items()},
            scopes=tuple(fields.get("scope", ())),
            headers={name.decode(): value.decode("latin-1") for name, value in head.headers},
            secure=self._secure,
            chunks=self._chunks,
        )

    def _has_ended(self) -> bool:
        """Tell whether the body that nobody asked for is empty; does not wait for the network."""
        if self._http.they_are_waiting_for_100_continue:
            return False
        return isinstance(self._http.next_event(), h11.EndOfMessage)

    async def _chunks(self) -> AsyncIterator[bytes]:
        if self._http.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            await self._write(self._http.send(go_on))
        while isinstance(event := await self._next_event(), h11.Data):
            yield bytes(event.data)

    async def _next_event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            async with asyncio.timeout(_SILENCE_S):
                data = await self._reader.read(_READ)
            self._http.receive_data(data)
        return event

    async def _send(self, answer: Answer, *, to_head: bool = False, close: bool = False) -> None:
        body = answer.body
        size = body.size if isinstance(body, FilePart) else len(body)
        headers = [*answer.headers]
        if answer.status != 204:
            headers.append(("Content-Length", str(size)))
        if close:
            headers.append(("Connection", "close"))
        await self._write(self._http.send(h11.Response(status_code=answer.status, headers=headers)))
        if size and not to_head:
            if isinstance(body, FilePart):
                await self._send_file(body)
            else:
                await self._write(self._http.send(h11.Data(data=body)))
        await self._write(self._http.send(h11.EndOfMessage()))

    async def _send_file(self, part: FilePart) -> None:
        with part.path.open("rb") as file:
            file.seek(part.offset)
            left = part.size
            while left:
                data = file.read(min(_CHUNK, left))
                if not data:
                    raise OSError("a blob became shorter while it was sent")
                left -= len(data)
                await self._write(self._http.send(h11.Data(data=data)))

    async def _write(self, data: bytes | None) -> None:
        if data:
            self._writer.write(data)
            async with asyncio.timeout(_SILENCE_S):
                await self._writer.drain()

    async def _drain(self) -> None:
        """Read and drop what the client still sends, within limits."""
        left = _MAX_DRAIN
        if self._writer.can_write_eof():
            self._writer.write_eof()
        async with asyncio.timeout(5):
            while left > 0 and (data := await self._reader.read(_CHUNK)):
                left -= len(data)
