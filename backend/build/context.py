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


def write_context(
    context: Path, dockerfile: Path, name: str, out: IO[bytes], *, compressed: bool
) -> None:
    """Write the context as a tar archive, owners and times left out of account.

    The Dockerfile goes in under ``name``, wherever it is; what ``.dockerignore`` names stays
    out.

    Args:
        context: The folder.
        dockerfile: The file.
        name: Its path in the archive.
        out: Gets the archive; written forwards only.
        compressed: Pack with gzip, quickly.  BuildKit recognises no other archive.

    Raises:
        UsageError: A file of the context cannot be read.
    """
    ignore = read_ignore(context, dockerfile)
    with contextlib.ExitStack() as stack:
        packed = stack.enter_context(_packing(out)) if compressed else out
        # BuildKit takes a PAX archive for a Dockerfile.
        archive = stack.enter_context(
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT)
        )
        for path, relative in _walk(context, ignore):
            _add(archive, path, relative)
        data = dockerfile.read_bytes()
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))


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
