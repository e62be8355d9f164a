"""Layers as streams of large buffers: inflated in one thread, hashed in another.

Both leave the interpreter lock while they work, so the parser of the tar stream and the
compressor's threads run beside them.  Queues are short: memory stays bounded however far
one of them falls behind, and however far a decompression bomb would expand.
"""

from __future__ import annotations

import gzip
from collections import deque
from dataclasses import dataclass
from threading import Condition, Thread
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self, cast

from backend.arrival import ArrivingFile
from backend.errors import FormatError, VerificationError
from backend.oci.digest import hasher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backend.oci.digest import Digest

CHUNK = 1 << 20
"""Bytes in one buffer, a multiple of a tar block: no header lies across two."""

_AHEAD = 3
"""Buffers that wait for the parser, and again for the hash."""
_MAX_WINDOW = 1 << 27
"""Bytes of history a zstd frame may ask for; what the zstd program accepts by itself."""

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"
_OTHERS = {b"BZh": "bzip2", b"\xfd7z": "xz"}
"""Compressions that archives have, but no layer of an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSource:
    """One layer of an image, packed as it was received.

    Attributes:
        media_type: As the manifest says; the bytes decide.
        open: Returns the bytes from their start, seekable if they are packed; may block until
            they are there.  It may be called again: a file that only a hard link keeps is read
            in a second pass.
        diff_id: Of the inflated layer; None when unknown.
        size: Of the packed layer, in bytes.
    """

    media_type: str
    open: Callable[[], BinaryIO]
    diff_id: Digest | None = None
    size: int = 0


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Pipe:
    """A short queue between two threads, which either of them can end."""

    def __init__(self) -> None:
        self._items: deque[bytes] = deque()
        self._changed = Condition()
        self._ended = False

    def put(self, item: bytes) -> bool:
        """Wait for room and append; False when nobody wants it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(self._items) < _AHEAD)
            if self._ended:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def get(self) -> bytes | None:
        """Wait for the next item; None after the last."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._items)
            if not self._items:
                return None
            self._changed.notify_all()
            return self._items.popleft()

    def end(self, *, drop: bool = False) -> None:
        """Let no more in; with ``drop`` nothing more comes out either."""
        with self._changed:
            self._ended = True
            if drop:
                self._items.clear()
            self._changed.notify_all()


class InflatedLayer:
    """An open layer: a context manager, and an iterator of buffers, full but for the last.

    Args:
        source: The layer.
        label: What errors call it: ``layer 2 of 5``.

    Attributes:
        read: Packed bytes read so far.
    """

    def __init__(self, source: LayerSource, *, label: str) -> None:
        self.read = 0
        self._label = label
        self._diff_id = source.diff_id
        self._hash = hasher(source.diff_id) if source.diff_id else None
        self._error: Exception | None = None
        self._inflated = _Pipe()
        self._to_hash = _Pipe()
        self._raw = source.open()
        self._threads = [Thread(target=self._inflate, name="inflate", daemon=True)]
        if self._hash:
            self._threads.append(Thread(target=self._digest, name="digest", daemon=True))
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if isinstance(self._raw, ArrivingFile):
            self._raw.stop()
        self._inflated.end(drop=True)
        self._to_hash.end(drop=True)
        for thread in self._threads:
            thread.join()
        self._raw.close()

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._inflated.get():
            yield chunk
        if self._error:
            raise self._error

    def verify(self) -> None:
        """Read to the end and compare the digest.

        Raises:
            VerificationError: It is not the one that the image's configuration names.
        """
        for _ in self:
            pass
        for thread in self._threads:
            thread.join()
        if self._hash and self._diff_id:
            got = f"{self._hash.name}:{self._hash.hexdigest()}"
            if got != self._diff_id:
                raise VerificationError(
                    f"{self._label} does not hold what the image's configuration promises",
                    why=f"expected {self._diff_id}, got {got}",
                )

    def _inflate(self) -> None:
        """Fill both pipes; the body of the first thread."""
        done = 0
        foreign: tuple[type[Exception], ...] = ()
        try:
            stream, foreign = _unpacked(self._raw, self._label)
            for chunk in _chunks(stream):
                done += len(chunk)
                if not self._inflated.put(chunk):
                    return
                if self._hash and not self._to_hash.put(chunk):
                    return
                self.read = self._raw.tell()
        except EOFError:
            self._error = FormatError(f"{self._label} ends early", offset=self._raw.seek(0, 2))
        except foreign as error:
            self._error = FormatError(f"{self._label} cannot be unpacked: {error}", offset=done)
        except (FormatError, OSError) as error:
            self._error = error
        finally:
            self._inflated.end()
            self._to_hash.end()

    def _digest(self) -> None:
        """Hash what was inflated; the body of the second thread."""
        while self._hash and (chunk := self._to_hash.get()):
            self._hash.update(chunk)


def _chunks(stream: _Readable) -> Iterator[bytes]:
    """Yield the inflated bytes in full buffers, the last one shorter."""
    while chunk := stream.read(CHUNK):
        parts = [chunk]
        size = len(chunk)
        while size < CHUNK and (more := stream.read(CHUNK - size)):
            parts.append(more)
            size += len(more)
        yield chunk if size == len(chunk) else b"".join(parts)


def _unpacked(raw: BinaryIO, label: str) -> tuple[_Readable, tuple[type[Exception], ...]]:
    """Return the inflated stream of a packed one, and what it raises on bad bytes.

    Raises:
        FormatError: It is packed in a way that no layer may be.
    """
    head = raw.read(4)
    if other := _OTHERS.get(head[:3]):
        raise FormatError(
            f"{label} is packed with {other}; layers are packed with gzip or zstd, or not at all",
            hint="skopeo copy --dest-compress-format gzip --dest-force-compress-format packs "
            "the image anew",
        )
    if head.startswith((_GZIP, _ZSTD)) or head[1:] == _ZSTD_SKIPPABLE:
        raw.seek(-len(head), 1)
    if head.startswith(_GZIP):
        from isal import igzip, isal_zlib

        # isal's stubs say that its exception is an instance, and leave its open untyped.
        foreign = cast("type[Exception]", isal_zlib.IsalError)
        opened: Callable[[BinaryIO], _Readable] = igzip.open
        return opened(raw), (gzip.BadGzipFile, foreign)
    if head.startswith(_ZSTD) or head[1:] == _ZSTD_SKIPPABLE:
        import zstandard

        unpacker = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        stream = unpacker.stream_reader(raw, read_size=1 << 18, read_across_frames=True)
        return _Whole(stream, raw), (zstandard.ZstdError,)
    return _Plain(head, raw), ()


class _Whole:
    """A zstd stream that does not take the end of a cut file for its own."""

    def __init__(self, stream: _Readable, raw: BinaryIO) -> None:
        self._stream = stream
        self._raw = raw

    def read(self, size: int) -> bytes:
        chunk = self._stream.read(size)
        if not chunk and not _is_whole(self._raw):
            raise EOFError
        return chunk


def _is_whole(raw: BinaryIO) -> bool:
    """Tell whether the last frame of a zstd file is complete (RFC 8878, 3.1)."""
    end, position = raw.seek(0, 2), 0
    while position < end:
        raw.seek(position)
        head = raw.read(8)
        if head[1:4] == _ZSTD_SKIPPABLE:
            position += 8 + int.from_bytes(head[4:], "little")
        elif len(head) == 8:
            position = _frame_end(raw, position, head[4])
        else:
            return False
    return position == end


def _frame_end(raw: BinaryIO, position: int, descriptor: int) -> int:
    """Return where a frame ends, by the sizes of its blocks; beyond the file if it is cut."""
    is_single = descriptor >> 5 & 1
    position += 5 + (1 - is_single) + (0, 1, 2, 4)[descriptor & 3]
    position += (is_single, 2, 4, 8)[descriptor >> 6]
    is_last = 0
    while not is_last:
        raw.seek(position)
        head = raw.read(3)
        if len(head) < 3:
            return position + 3
        block = int.from_bytes(head, "little")
        is_last, is_repeated = block & 1, block >> 1 & 3 == 1
        position += 3 + (1 if is_repeated else block >> 3)
    return position + 4 * (descriptor >> 2 & 1)


class _Plain:
    """A layer that is not packed, whose first bytes were looked at."""

    def __init__(self, head: bytes, raw: BinaryIO) -> None:
        self._head = head
        self._raw = raw

    def read(self, size: int) -> bytes:
        head, self._head = self._head, b""
        return head + self._raw.read(size - len(head))
