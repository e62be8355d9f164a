"""LZO1X, unpacked in Python: slow, but images made with ``mksquashfs -comp lzo`` can be read.

The format, as the Linux kernel's documentation gives it: instructions of a byte and more
copy literals from the input, or a match from what is already unpacked, and the two low bits
of a match say how many literals follow it.  What a byte below 16 means depends on the
literals copied before it.
"""

from __future__ import annotations

from backend.errors import FormatError


def unpack_lzo(data: bytes, limit: int) -> bytes:
    """Unpack one block that gives at most ``limit`` bytes.

    Raises:
        FormatError: The block is damaged, or gives more.
    """
    try:
        return _Lzo(data, limit).unpack()
    except IndexError as error:
        raise _damaged() from error


class _Lzo:
    __slots__ = ("at", "data", "limit", "out")

    def __init__(self, data: bytes, limit: int) -> None:
        self.data = data
        self.at = 0
        self.limit = limit
        self.out = bytearray()

    def unpack(self) -> bytes:
        literals = self._first()
        while True:
            code = self.data[self.at]
            self.at += 1
            if code < 16:
                literals = self._short(code, literals)
                continue
            length, distance, tail = self._match(code)
            if not length:  # the end's marker: a far match to nowhere
                return bytes(self.out)
            self._copy(distance, length)
            literals = self._literals(tail)

    def _first(self) -> int:
        """Copy the literals that the first byte may announce; return their state."""
        code = self.data[0]
        if code <= 17:
            return 0
        self.at = 1
        self._literals(code - 17)
        return min(4, code - 17)

    def _short(self, code: int, literals: int) -> int:
        """Do an instruction below 16, whose meaning depends on the literals before it."""
        if literals == 0:
            self._literals((code or self._long(15)) + 3)
            return 4
        far = self.data[self.at] << 2
        self.at += 1
        if literals == 4:
            self._copy((code >> 2) + far + 2049, 3)
        else:
            self._copy((code >> 2) + far + 1, 2)
        return self._literals(code & 3)

    def _match(self, code: int) -> tuple[int, int, int]:
        """Return length, distance and following literals; length 0 for the end's marker."""
        if code >= 64:
            distance = ((code >> 2) & 7) + (self.data[self.at] << 3) + 1
            self.at += 1
            return (code >> 5) + 1, distance, code & 3
        if code >= 32:
            length = (code & 31 or self._long(31)) + 2
            word = self._word()
            return length, (word >> 2) + 1, word & 3
        length = (code & 7 or self._long(7)) + 2
        word = self._word()
        distance = ((code & 8) << 11) + (word >> 2) + 16384
        return (0 if distance == 16384 else length), distance, word & 3

    def _long(self, base: int) -> int:
        """Return a length that did not fit: 255 for each zero byte, then what ends them."""
        while not self.data[self.at]:
            self.at += 1
            base += 255
            if base > self.limit:
                raise _damaged()
        self.at += 1
        return base + self.data[self.at - 1]

    def _word(self) -> int:
        self.at += 2
        return self.data[self.at - 2] | self.data[self.at - 1] << 8

    def _literals(self, count: int) -> int:
        if self.at + count > len(self.data):
            raise _damaged()
        self.out += self.data[self.at : self.at + count]
        self.at += count
        self._check()
        return count

    def _copy(self, distance: int, length: int) -> None:
        start = len(self.out) - distance
        if start < 0 or len(self.out) + length > self.limit:
            raise _damaged()
        if distance >= length:
            self.out += self.out[start : start + length]
        else:  # the match repeats what it has just written
            pattern = bytes(self.out[start:])
            self.out += (pattern * (length // distance + 1))[:length]

    def _check(self) -> None:
        if len(self.out) > self.limit:
            raise _damaged()


def _damaged() -> FormatError:
    return FormatError("an lzo block of the squashfs is damaged")
