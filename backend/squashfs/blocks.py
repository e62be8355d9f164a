"""File contents on their way to disk: cut into blocks, compressed on all cores, in order.

What goes out, and where, depends on what came in and on nothing else: blocks are written in
the order in which they were handed over, however the threads finish.

Small files share fragment blocks, and so do the ends of others: side by side they compress
better, and they are often read together.  What shares a block is stored once, found by its
SHA-256.  A block of zeros is not stored.  A file whose blocks are those of an earlier one is
taken back once its last block is written, and shares the earlier one's.
"""

from __future__ import annotations

import struct
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from threading import local
from typing import TYPE_CHECKING

from humanize import naturalsize
from isal.isal_zlib import crc32

from backend.errors import FormatError
from backend.squashfs.inode import NO_FRAGMENT, Place

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from typing import BinaryIO

    from backend.squashfs.compression import Buffer, Compression
    from backend.squashfs.inode import Inode

MAX_HOLES = 1 << 22
"""Blocks of holes in all files together: each costs memory, and an archive names any number."""

STORED = 1 << 24
"""Set in a block's size where it is stored as it is."""

_NO_END = (NO_FRAGMENT, 0)
_LEAST_HASHED = 512
"""Bytes from which on it pays to look whether the same was stored before."""
_COMPARED = 1 << 20
"""Bytes read at once of two files that may be equal."""

_SIZE = struct.Struct("<I")
_FRAGMENT = struct.Struct("<QII")


class _Run:
    """The blocks of one file as they arrive.

    Attributes:
        inode: Gets its place when the last block is written.
        size: Of the file, in bytes.
        start: Of the first stored block; None before it.
        words: The block list.
        check: CRC-32 over the stored blocks.
        end: Fragment block and offset of the file's end.
    """

    __slots__ = ("check", "end", "inode", "size", "start", "words")

    def __init__(self, inode: Inode) -> None:
        self.inode = inode
        self.size = 0
        self.end = _NO_END
        self.start: int | None = None
        self.words = bytearray()
        self.check = 0


class _Shared:
    """A fragment block that is being filled.

    Attributes:
        pack: Packs it.
        data: What is in it.
        number: Its index among the fragment blocks, given with its first byte.
    """

    __slots__ = ("data", "number", "pack")

    def __init__(self, pack: Callable[[Buffer], _Packed]) -> None:
        self.pack = pack
        self.data = bytearray()
        self.number = 0


_Packed = tuple["Buffer", int]
"""A block as it goes to disk, and its size word; nothing and 0 for a block of zeros."""


class _Packer(local):
    """Packs blocks; each thread has compressors of its own, and room to put a block together.

    The room is used again and again: fresh memory for every block costs more than the copy.
    """

    def __init__(self, compression: Compression, block_size: int) -> None:
        self._compress = compression.compressor(block_size)
        self._compress_harder = compression.compressor(block_size, is_small=True)
        self._room = memoryview(bytearray(block_size))

    def pack(self, block: Buffer) -> _Packed:
        """Return a block as it goes to disk, and its size word."""
        return _smaller(self._compress(block), block)

    def pack_small(self, block: Buffer) -> _Packed:
        """Return a block of small files likewise."""
        return _smaller(self._compress_harder(block), block)

    def pack_pieces(self, pieces: list[Buffer]) -> _Packed:
        """Return the block that the pieces of a file come to, likewise; zeros are not stored."""
        size = 0
        for piece in pieces:
            end = size + len(piece)
            self._room[size:end] = piece
            size = end
        block = self._room[:size]
        if not (block[0] or block[-1]) and not bytes(block).strip(b"\0"):
            return b"", 0
        return self.pack(block)


def _smaller(packed: bytes, block: Buffer) -> _Packed:
    """Return a block packed, or as it is where that is no longer."""
    if len(packed) < len(block):
        return packed, len(packed)
    return bytes(block), len(block) | STORED


class BlockWriter:
    """Writes data and fragment blocks behind each other.

    Args:
        out: Stands where the first block goes; must be readable too.
        origin: ``out``'s position of the file system's first byte.
        position: Where ``out`` stands, in bytes from the file system's first.
        compression: For all blocks.
        block_size: Bytes in a block before compression.
        threads: That compress.
    """

    def __init__(  # noqa: PLR0913  (what a block's life depends on, no more)
        self,
        out: BinaryIO,
        *,
        origin: int,
        position: int,
        compression: Compression,
        block_size: int,
        packed_size: int,
        threads: int,
    ) -> None:
        self.position = position
        self.block_size = block_size
        self.packed_size = packed_size
        self.fragments: list[bytes] = []
        self._out = out
        self._origin = origin
        self._packer = _Packer(compression, block_size)
        # Like compresses like: the two are kept apart.
        self._files = _Shared(self._packer.pack_small)
        self._ends = _Shared(self._packer.pack)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="squashfs")
        self._most_waiting = 4 * threads
        self._waiting: deque[tuple[_Run | int, Future[_Packed] | int]] = deque()
        self._holes = 0
        self._shares: dict[bytes, int] = {}
        self._known: dict[tuple[int, int, tuple[int, int], bytes], list[int]] = {}

    def close(self) -> None:
        """Stop the threads; what is not written yet is lost."""
        self._waiting.clear()
        self._pool.shutdown(cancel_futures=True)

    def begin(self, inode: Inode) -> None:
        """Start a file; its inode gets its place once its last block is written."""
        self._run = _Run(inode)
        self._pieces: list[Buffer] = []
        self._held = 0

    def write(self, data: Buffer) -> None:
        """Append to the file; ``data`` must stay as it is until it is compressed."""
        start, left = 0, len(data)
        self._run.size += left
        while self._held + left >= self.block_size:
            taken = self.block_size - self._held
            self._pieces.append(data[start : start + taken] if left != taken or start else data)
            self._cut()
            start += taken
            left -= taken
        if left:
            self._pieces.append(data[start:] if start else data)
            self._held += left

    def hole(self, size: int) -> None:
        """Append ``size`` zeros to the file.

        Raises:
            FormatError: The file system's block lists would not fit in memory.
        """
        filling = min(size, -self._held % self.block_size)
        if filling:
            self.write(bytes(filling))
            size -= filling
        whole, rest = divmod(size, self.block_size)
        if whole:
            self._holes += whole
            if self._holes > MAX_HOLES:
                most = naturalsize(MAX_HOLES * self.block_size, binary=True)
                raise FormatError(f"the image's sparse files have more than {most} of holes")
            self._run.size += whole * self.block_size
            self._queue(self._run, whole)
        if rest:
            self.write(bytes(rest))

    def end(self) -> None:
        """Complete the file."""
        run = self._run
        if 0 < self._held <= self.packed_size:
            run.end = self._share()
        elif self._held:
            self._cut()
        if run.size >= self.block_size or run.end == _NO_END:
            self._queue(run, 0)
        else:
            run.inode.content = Place(run.size, 0, *run.end, b"").pack()

    def finish(self) -> None:
        """Write everything that is still on its way."""
        self._flush(self._files)
        self._flush(self._ends)
        self._drain(0)

    def _share(self) -> tuple[int, int]:
        """Put what is held into the open fragment block, if the same is not in one already."""
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        size, self._pieces, self._held = self._held, [], 0
        key = sha256(data).digest()[:16] if size >= _LEAST_HASHED else None
        if key and (known := self._shares.get(key)) is not None:
            return divmod(known, self.block_size)
        shared = self._files if size == self._run.size else self._ends
        if len(shared.data) + size > self.block_size:
            self._flush(shared)
        if not shared.data:
            shared.number = len(self.fragments)
            self.fragments.append(b"")
        place = shared.number, len(shared.data)
        shared.data += data
        if key:
            self._shares[key] = place[0] * self.block_size + place[1]
        return place

    def _flush(self, shared: _Shared) -> None:
        if shared.data:
            self._queue(shared.number, self._pool.submit(shared.pack, shared.data))
            shared.data = bytearray()

    def _cut(self) -> None:
        """Hand what is held over as one block."""
        pieces, self._pieces, self._held = self._pieces, [], 0
        self._queue(self._run, self._pool.submit(self._packer.pack_pieces, pieces))

    def _queue(self, owner: _Run | int, task: Future[_Packed] | int) -> None:
        """Let a block wait for its turn.

        Args:
            owner: The block's file, or the number of the fragment block that it is.
            task: The packed block to come; or a count of blocks of zeros, where 0 says that
                the file is complete.
        """
        self._waiting.append((owner, task))
        self._drain(self._most_waiting)

    def _drain(self, most: int) -> None:
        """Write blocks in order until at most ``most`` wait."""
        while len(self._waiting) > most:
            owner, task = self._waiting.popleft()
            if not isinstance(task, int):
                self._write(owner, *task.result())
            elif isinstance(owner, _Run):
                owner.words += bytes(4 * task)
                if not task:
                    self._complete(owner)

    def _write(self, owner: _Run | int, data: Buffer, word: int) -> None:
        if isinstance(owner, _Run):
            self._note(owner, data, word)
        else:
            self.fragments[owner] = _FRAGMENT.pack(self.position, word, 0)
        self._out.write(data)
        self.position += len(data)

    def _note(self, run: _Run, data: Buffer, word: int) -> None:
        if data and run.start is None:
            run.start = self.position
        run.words += _SIZE.pack(word)
        run.check = crc32(data, run.check)

    def _complete(self, run: _Run) -> None:
        """Give a file its place: its own blocks, or those of an equal file before it."""
        words = bytes(run.words)
        start = 0 if run.start is None else self._earlier(run, run.start, words)
        run.inode.content = Place(run.size, start, *run.end, words).pack()

    def _earlier(self, run: _Run, start: int, words: bytes) -> int:
        """Return where an equal file starts, this one's blocks taken back; else ``start``."""
        known = self._known.setdefault((run.check, run.size, run.end, words), [])
        length = self.position - start
        for other in known:
            if self._equal(other, start, length):
                self.position = start
                self._out.seek(self._origin + start)
                return other
        known.append(start)
        return start

    def _equal(self, one: int, other: int, length: int) -> bool:
        """Tell whether two stretches of the file system hold the same bytes."""
        for done in range(0, length, _COMPARED):
            size = min(_COMPARED, length - done)
            if self._read(one + done, size) != self._read(other + done, size):
                break
        else:
            return True
        self._out.seek(self._origin + self.position)
        return False

    def _read(self, position: int, size: int) -> bytes:
        self._out.seek(self._origin + position)
        return self._out.read(size)
