"""Named files, in a folder or in a tar archive, that can be read from any byte."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import posixpath
import tarfile
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, Self

from zstandard import ZstdDecompressor, ZstdError

from backend.errors import BackendError, FormatError, NotFoundError
from backend.escape import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 1 << 20
_MAX_MEMBERS = 100_000
_ZSTD = b"\x28\xb5\x2f\xfd"
_MAGICS = (b"\x1f\x8b", _ZSTD, b"BZh", b"\xfd7zXZ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A file, or a part of one.

    Attributes:
        path: The file.
        offset: Byte at which the region starts.
        size: Its bytes.
    """

    path: Path
    offset: int
    size: int

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes from ``start`` on.

        Raises:
            OSError: Reading failed.
        """
        with self.path.open("rb", buffering=0) as file:
            place, end = self.offset + start, self.offset + self.size
            while place < end:
                chunk = os.pread(file.fileno(), min(_CHUNK, end - place), place)
                if not chunk:
                    return
                place += len(chunk)
                yield chunk

    def read(self, limit: int) -> bytes:
        """Return all bytes.

        Raises:
            FormatError: They are more than ``limit``.
        """
        if self.size > limit:
            raise FormatError(f"{one_line(str(self.path))} holds a document of {self.size} bytes")
        return b"".join(self.chunks())


class Tree(Protocol):
    """Files by name."""

    def find(self, name: str) -> Region | None:
        """Return the file ``name``, with slashes between its parts, or None."""


class FolderTree:
    """The files below a folder.

    Raises:
        NotFoundError: There is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise NotFoundError(f"there is no folder {one_line(str(folder))}")
        self._folder = folder

    def find(self, name: str) -> Region | None:
        """Return a file; symbolic links are not followed."""
        path = self._folder / name
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not path.is_file() or path.is_symlink():
            raise FormatError(f"{one_line(str(path))} is no regular file")
        return Region(path=path, offset=0, size=status.st_size)


class TarTree:
    """The files in a tar archive; a context manager, as a packed archive is unpacked aside.

    Args:
        path: The archive; gzip, zstd, bzip2 and xz are undone first.
        scratch: The folder for what is undone.

    Raises:
        NotFoundError: There is no such file.
        FormatError: It is no tar archive.
    """

    def __init__(self, path: Path, scratch: Path) -> None:
        self._path = path
        self._unpacked: IO[bytes] | None = None
        self._members: dict[str, Region] = {}
        try:
            with path.open("rb") as file:
                packed = file.read(6).startswith(_MAGICS)
            if packed:
                self._unpack(scratch)
            self._index()
        except FileNotFoundError as error:
            raise NotFoundError(f"there is no file {one_line(str(path))}") from error
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ZstdError) as error:
            raise FormatError(f"{one_line(str(path))} is no tar archive: {error}") from error
        except OSError as error:
            raise BackendError(
                f"{one_line(str(path))} cannot be read", why=error.strerror or str(error)
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._unpacked:
            self._unpacked.close()

    def find(self, name: str) -> Region | None:
        """Return a member; links in the archive have been followed."""
        return self._members.get(posixpath.normpath(name))

    def _unpack(self, scratch: Path) -> None:
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._unpacked = tempfile.NamedTemporaryFile(dir=scratch, prefix="archive-")  # noqa: SIM115
        with _open_packed(self._path) as plain:
            while chunk := plain.read(_CHUNK):
                self._unpacked.write(chunk)
        self._unpacked.flush()
        self._path = Path(self._unpacked.name)

    def _index(self) -> None:
        links: dict[str, str] = {}
        with tarfile.open(self._path, "r:") as archive:
            for count, member in enumerate(archive):
                if count == _MAX_MEMBERS:
                    raise FormatError(f"the archive has more than {_MAX_MEMBERS:,} members")
                name = posixpath.normpath(member.name)
                if member.isreg():
                    region = Region(path=self._path, offset=member.offset_data, size=member.size)
                    self._members[name] = region
                elif member.islnk():
                    links[name] = posixpath.normpath(member.linkname)
                elif member.issym():
                    base = posixpath.dirname(name)
                    links[name] = posixpath.normpath(posixpath.join(base, member.linkname))
        for name, target in links.items():
            if target in self._members:
                self._members.setdefault(name, self._members[target])


def _open_packed(path: Path) -> IO[bytes]:
    """Open a packed archive by its magic."""
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(_ZSTD):
        opened: IO[bytes] = ZstdDecompressor().stream_reader(path.open("rb"), closefd=True)
        return opened
    opener = {b"BZh": bz2.open, b"\xfd7z": lzma.open}.get(magic[:3], gzip.open)
    return opener(path, "rb")  # type: ignore[operator,no-any-return]  # three functions of one form
