"""Folders as images: what is in one, in a squashfs layer of an OCI-SIF.

A data container is an OCI artifact with one layer and an empty configuration, which
``run --data FILE:PLACE`` binds into a container.  It holds files and directories and nothing
else, as SingularityCE's do.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.errors import BackendError, NotFoundError, UsageError
from backend.escape import one_line
from backend.events import Phase, ignore
from backend.oci import media
from backend.oci.digest import digest_of
from backend.oci.image import Descriptor, Manifest
from backend.oci.json import dump
from backend.sif.ocisifwriter import OciSifWriter
from backend.sif.provenance import Documents
from backend.space import LEAST_OF_FILES, Need, check_space, measure_folder
from backend.squashfs.inode import Attributes, Directory, Inode, Kind
from backend.squashfs.writer import SquashfsWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from backend.events import Report
    from backend.sif.ocisifwriter import WrittenImage
    from backend.squashfs.compression import Compression

_CHUNK = 1 << 20
_EMPTY = b"{}"


def package_data(
    source: Path,
    target: Path,
    *,
    compression: Compression | None = None,
    overwrite: bool = False,
    report: Report = ignore,
) -> WrittenImage:
    """Write a data container.

    Args:
        source: A folder, whose content becomes the container's, or one file.
        target: The file to write.
        compression: zstd when None.
        overwrite: Whether a file that is there may be replaced.
        report: Told how many bytes were read.

    Raises:
        ExistsError: The target is there already.
        NotFoundError: The source is not.
        UsageError: The source holds something that is neither file nor directory.
        SpaceError: The disk is full.
    """
    if not source.exists():
        raise NotFoundError(f"there is no {one_line(str(source))}")
    size = measure_folder(source)[0] if source.is_dir() else source.stat().st_size
    least, folder = int(size * LEAST_OF_FILES), target.absolute().parent
    check_space([Need(folder=folder, size=least, purpose="the data container", is_file=True)])
    with OciSifWriter(target, layer_count=1, overwrite=overwrite) as writer:
        with writer.layer() as out:
            _pack(source, out, compression, report)
        return writer.finish(_data_documents)


def _data_documents(layers: Sequence[Descriptor]) -> Documents:
    manifest = Manifest(
        media_type=media.OCI_MANIFEST,
        config=Descriptor(media_type=media.OCI_EMPTY, size=len(_EMPTY), digest=digest_of(_EMPTY)),
        layers=tuple(layers),
        artifact_type=media.DATA_CONTAINER,
    )
    return Documents(config=_EMPTY, manifest=dump(manifest.to_json()))


def _pack(source: Path, out: BinaryIO, compression: Compression | None, report: Report) -> None:
    with SquashfsWriter(out, compression=compression) as writer:
        packer = _Packer(writer, report)
        try:
            root = packer.pack(os.fsencode(source))
        except OSError as error:
            if not isinstance(error.filename, bytes):  # writing, not reading
                raise
            shown = one_line(os.fsdecode(error.filename))
            raise BackendError(f"cannot read {shown}", why=error.strerror or "") from error
        writer.finish(root)
        report(Phase(name="convert", done=packer.done, total=packer.done, state="done"))


@dataclass(slots=True)
class _Packer:
    """Puts files into a squashfs, sorted by name so that the result does not depend on the disk."""

    writer: SquashfsWriter
    report: Report
    done: int = 0

    def pack(self, source: bytes) -> Inode:
        """Return the root of a tree of what ``source`` holds, or of ``source`` if it is a file."""
        found = os.stat(source)  # noqa: PTH116  (names are bytes)
        if stat.S_ISDIR(found.st_mode):
            return self._pack_folder(source, _directory(found))
        parent = os.stat(os.path.dirname(os.path.abspath(source)))  # noqa: PTH100, PTH116, PTH120
        root = _directory(parent)
        root.directory.entries[os.path.basename(source)] = self._pack_file(source)
        return root

    def _pack_folder(self, folder: bytes, root: Inode) -> Inode:
        waiting = [(folder, root)]
        while waiting:
            path, inode = waiting.pop()
            for entry in _sorted_entries(path):
                if entry.is_dir(follow_symlinks=False):
                    child = _directory(entry.stat(follow_symlinks=False))
                    waiting.append((entry.path, child))
                else:
                    child = self._pack_file(entry.path)
                inode.directory.entries[entry.name] = child
        return root

    def _pack_file(self, path: bytes) -> Inode:
        # A pipe must not hold us up, and a link must not lead out of the folder.
        mode = os.lstat(path).st_mode
        if not stat.S_ISREG(mode):
            raise UsageError(
                f"{one_line(os.fsdecode(path))} is neither a file nor a directory",
                hint="a data container holds nothing else; leave it out, or copy what it names",
            )
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, "rb", buffering=0) as file:
            inode = _inode(Kind.FILE, os.fstat(fd))
            self.writer.begin(inode)
            while chunk := file.read(_CHUNK):
                self.writer.write(chunk)
                self.done += len(chunk)
                self.report(Phase(name="convert", done=self.done))
            self.writer.end()
        return inode


def _sorted_entries(path: bytes) -> Iterator[os.DirEntry[bytes]]:
    with os.scandir(path) as entries:
        yield from sorted(entries, key=lambda entry: entry.name)


def _directory(found: os.stat_result) -> Inode:
    inode = _inode(Kind.DIRECTORY, found)
    inode.content = Directory()
    return inode


def _inode(kind: Kind, found: os.stat_result) -> Inode:
    attributes = Attributes(found.st_mode & 0o7777, found.st_uid, found.st_gid)
    return Inode(kind, attributes, min(max(0, int(found.st_mtime)), 0xFFFFFFFF))
