"""A build context as a tar stream, for daemons that cannot see our files."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from isal import igzip

from backend.build.ignore import Ignore, read_ignore
from backend.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_IGNORE = ".dockerignore"


_OUTSIDE = ".dockerfile.sifdeck"
"""The name of a Dockerfile that is not in the context; always the same, for the cache's sake."""


def name_in_context(context: Path, dockerfile: Path) -> str:
    """Return the path of the Dockerfile in the archive."""
    try:
        return dockerfile.resolve().relative_to(context.resolve()).as_posix()
    except ValueError:
        return _OUTSIDE


def is_added(context: Path, dockerfile: Path) -> bool:
    """Tell whether the Dockerfile is sent though it is none of the context's files."""
    name = name_in_context(context, dockerfile)
    return name == _OUTSIDE or read_ignore(context, dockerfile).ignores(name)


def write_context(
    context: Path, dockerfile: Path, out: IO[bytes], *, for_buildkit: bool = False
) -> None:
    """Write the context as a tar archive, owners and times left out of account.

    What ``.dockerignore`` names stays out, but the Dockerfile goes in, wherever it is.  What
    goes in for the builder's sake alone is named in a ``.dockerignore`` of ours, by which
    the classic builder and Podman keep it out of ``COPY .``; BuildKit does not.

    Args:
        context: The folder.
        dockerfile: The file.
        out: Gets the archive; written forwards only.
        for_buildkit: Pack with gzip, quickly, as it recognises no other archive.

    Raises:
        UsageError: A file of the context cannot be read.
    """
    ignore = read_ignore(context, dockerfile)
    name = name_in_context(context, dockerfile)
    hidden = {}
    if is_added(context, dockerfile):
        hidden[name] = dockerfile.read_bytes()
    if hidden and not for_buildkit:
        hidden[_IGNORE] = _own_ignore(context, name, is_sent=not ignore.ignores(_IGNORE))
    with contextlib.ExitStack() as stack:
        packed = stack.enter_context(_packing(out)) if for_buildkit else out
        # BuildKit takes a PAX archive for a Dockerfile.
        archive = stack.enter_context(
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT)
        )
        for path, relative in _walk(context, ignore):
            if relative not in hidden:
                _add(archive, path, relative)
        for path_in_archive, data in hidden.items():
            entry = tarfile.TarInfo(path_in_archive)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def _own_ignore(context: Path, name: str, *, is_sent: bool) -> bytes:
    """Return a ``.dockerignore`` that names the Dockerfile too, and itself unless it is wanted."""
    path = context / _IGNORE
    lines = [path.read_bytes()] if is_sent and path.is_file() else [_IGNORE.encode()]
    return b"\n".join([*lines, name.encode(), b""])


def _packing(out: IO[bytes]) -> IO[bytes]:
    """Return a file that packs what is written to it, as quickly as gzip can."""
    packing: Any = igzip.IGzipFile(fileobj=out, mode="wb", compresslevel=1)  # type: ignore[no-untyped-call]  # a C extension
    return cast("IO[bytes]", packing)


def _walk(context: Path, ignore: Ignore) -> Iterator[tuple[Path, str]]:
    """Yield the members of a context, folders before what is in them."""
    for folder, names, files in os.walk(context):
        base = Path(folder)
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
        with contextlib.suppress(FileNotFoundError):
            path.lstat()
            raise UsageError(
                f"{path} of the build context cannot be read", why=str(error)
            ) from error
