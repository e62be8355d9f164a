"""BuildKit's progress as the Docker API sends it: protobuf in base64, ``moby.buildkit.trace``.

Field numbers are those of ``control.StatusResponse`` in BuildKit's ``control.proto``:
``vertexes = 1 {digest = 1, name = 3, cached = 4, started = 5, completed = 6, error = 7}``,
``logs = 3 {vertex = 1, msg = 4}``, and of ``google.protobuf.Timestamp`` ``{seconds = 1,
nanos = 2}``.  The wire format is that of protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.build.solve import SolveLog, Vertex
from backend.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT = 10
"""Bytes of a 64-bit number in groups of seven bits."""


def feed_trace(data: bytes, log: SolveLog) -> None:
    """Hand the vertices and output lines of one message to ``log``.

    Raises:
        FormatError: The bytes are no such message.
    """
    entries = [(number, value) for number, value in _fields(data) if not isinstance(value, int)]
    log.vertices(_vertex(value) for number, value in entries if number == 1)
    for number, value in entries:
        if number == 3:
            fields = dict(_fields(value))
            log.output(_text(fields.get(1)), _raw(fields.get(4)))


def _vertex(data: bytes) -> Vertex:
    fields = dict(_fields(data))
    return Vertex(
        digest=_text(fields.get(1)),
        name=_text(fields.get(3)),
        cached=bool(fields.get(4)),
        started=_time(fields.get(5)),
        completed=_time(fields.get(6)),
        error=_text(fields.get(7)),
    )


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field of a message."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        kind = key & 7
        if kind == _VARINT:
            value, position = _varint(data, position)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, position = _varint(data, position)
        elif kind in {_FIXED64, _FIXED32}:
            size = 8 if kind == _FIXED64 else 4
        else:
            raise FormatError("a BuildKit message has a field of unknown type", offset=position)
        if position + size > len(data):
            raise FormatError("a BuildKit message is cut short", offset=position)
        yield key >> 3, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number at a position and the position behind it."""
    value = 0
    for index in range(_MAX_VARINT):
        if position + index >= len(data):
            break
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise FormatError("a BuildKit message has a damaged number", offset=position)


def _time(value: int | bytes | None) -> float | None:
    if not isinstance(value, bytes):
        return None
    fields = dict(_fields(value))
    seconds, nanos = fields.get(1, 0), fields.get(2, 0)
    if isinstance(seconds, bytes) or isinstance(nanos, bytes):
        raise FormatError("a BuildKit message has a damaged time")
    return seconds + nanos / 1e9


def _text(value: int | bytes | None) -> str:
    return _raw(value).decode("utf-8", "replace")


def _raw(value: int | bytes | None) -> bytes:
    return value if isinstance(value, bytes) else b""
