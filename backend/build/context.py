"""A build context as a tar stream, for daemons that cannot see our files."""

from __future__ import annotations

import io
import os
import tarfile
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from backend.build.ignore import Ignore, read_ignore
from backend.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class _Writes(Protocol):
    """What a tar stream needs of its target."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""


def write_context(
    context: Path, dockerfile: Path, name: str, out: _Writes, *, compressed: bool
) -> None:
    """Write the context as a tar archive, owners and times left out of account.

    The Dockerfile goes in under ``name``, wherever it is; what ``.dockerignore`` names stays
    out.

    Args:
        context: The folder.
        dockerfile: The file.
        name: Its path in the archive.
        out: Gets the archive; no position is asked of it.
        compressed: Pack with gzip, quickly.  BuildKit recognises no other archive.

    Raises:
        UsageError: A file of the context cannot be read.
    """
    ignore = read_ignore(context, dockerfile)
    mode = "w|gz" if compressed else "w|"
    # BuildKit takes a PAX archive for a Dockerfile.
    options = {"compresslevel": 1} if compressed else {}
    with tarfile.open(
        fileobj=out,
        mode=mode,
        format=tarfile.GNU_FORMAT,
        **options,  # type: ignore[call-overload]  # mode is one of two
    ) as archive:
        for path, relative in _walk(context, ignore):
            _add(archive, path, relative)
        data = dockerfile.read_bytes()
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))


def _walk(context: Path, ignore: Ignore) -> Iterator[tuple[Path, str]]:
    """Yield the members of a context, folders before what is in them."""
    for folder, names, files in os.walk(context):
        base = context.__class__(folder)
        prefix = "" if base == context else f"{base.relative_to(context).as_posix()}/"
        kept = []
        for name in sorted(names):
            relative = prefix + name
            ignored = ignore.ignores(relative)
            if not ignored:
                yield base / name, relative
            if not (base / name).is_symlink() and (not ignored or ignore.has_exceptions):
                kept.append(name)
        names[:] = kept
        for name in sorted(files):
            if not ignore.ignores(prefix + name):
                yield base / name, prefix + name


def _add(archive: tarfile.TarFile, path: Path, relative: str) -> None:
    try:
        if path.is_socket():
            return  # nothing that a tar archive can hold
        entry = archive.gettarinfo(path, relative)
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        if entry.isreg():
            with path.open("rb") as file:
                archive.addfile(entry, file)
        else:
            archive.addfile(entry)
    except OSError as error:
        with suppress(FileNotFoundError):
            path.lstat()
            raise UsageError(
                f"{path} of the build context cannot be read", why=str(error)
            ) from error
