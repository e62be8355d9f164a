"""Writable overlays: an ext3 file system in or beside an image, with what a container changed.

In an OCI-SIF it is the last layer, in a native SIF a partition of its own; where there is no
file yet, the overlay is the file.  It holds the directories ``upper`` and ``work`` of an
overlayfs, as SingularityCE's do.  A container that runs with ``--writable`` changes the ext3
file system in place, which leaves the digest in the file behind; :func:`sync_overlay` brings
it up to date, and :func:`seal_overlay` turns what was changed into a squashfs layer.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from backend.errors import FormatError, ToolMissingError, UsageError
from backend.escape import one_line
from backend.oci import media
from backend.oci.image import Descriptor
from backend.process import run_tool
from backend.sif.edit import NewObject, edit_sif
from backend.sif.ext import ROOT, ExtReader
from backend.sif.file import SifFile
from backend.sif.ocisif import OciSif, image_of, read_ocisif
from backend.sif.ocisifwriter import LAYER_ALIGNMENT
from backend.sif.overlaylayer import KINDS, WHITEOUT, read_folder
from backend.sif.records import DataType, FileSystem, Partition, PartitionKind
from backend.sif.revision import add_documents, drop_documents
from backend.sif.writer import LayerFile
from backend.space import Need, check_space
from backend.squashfs.inode import Attributes, Directory, Inode, Kind
from backend.squashfs.writer import SquashfsWriter
from backend.staging import StagedFile, StagedFolder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backend.sif.ext import ExtNode
    from backend.squashfs.compression import Compression

MIN_SIZE_MIB = 64
_MKFS_S = 600
"""Seconds that making a file system may take."""
_OPAQUE = (b"trusted.overlay.opaque", b"user.overlay.opaque")
_PRIVATE = (b"trusted.overlay.", b"user.overlay.")
"""Attributes in which overlayfs keeps its own account of an upper directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOverlay:
    """An overlay that is to be made.

    Attributes:
        size_mib: Of the file system.
        is_sparse: Take blocks from the disk only when they are written.
        folders: Directories to make in it, absolute paths of the container.
        for_root: Give it all to root, which is who the user is in a container with --fakeroot,
            and the only one there is where a user has no subordinate ids.
    """

    size_mib: int = MIN_SIZE_MIB
    is_sparse: bool = False
    folders: tuple[str, ...] = ()
    for_root: bool = False


def create_overlay(path: Path, new: NewOverlay) -> None:
    """Add an overlay to an image, or write one as a file where there is none.

    Raises:
        UsageError: The image is signed or has an overlay, or the size is too small.
        ToolMissingError: There is no mkfs.ext3.
        SpaceError: The disk is full.
    """
    if new.size_mib < MIN_SIZE_MIB:
        raise UsageError(f"image size must be equal or greater than {MIN_SIZE_MIB} MiB")
    size = 0 if new.is_sparse else new.size_mib << 20
    folder = path.absolute().parent
    check_space([Need(folder=folder, size=size, purpose="the overlay", is_file=True)])
    if not path.exists():
        with StagedFile(path, mode=0o600) as staged:
            _make_filesystem(staged.fd, 0, path, new)
            staged.commit()
        return
    with SifFile(path) as sif:
        if sif.of_kind(DataType.SIGNATURE):
            raise UsageError(
                "cannot add overlay to a signed image",
                hint="its signature would not be valid any more; add the overlay to a copy "
                "without one, or use an overlay file beside it",
            )
        image = image_of(sif) if sif.of_kind(DataType.OCI_ROOT_INDEX) else None
        if image is None:
            _check_native(sif)
        elif image.is_data_container:
            raise UsageError(f"{one_line(str(path))} holds data, which has no overlay")
        elif image.layers and image.layers[-1].is_overlay:
            raise _exists()
    if image is None:
        _add_partition(path, new)
    else:
        _add_layer(path, image, new)


def _exists() -> UsageError:
    return UsageError("writable overlay already exists in image")


def _check_native(sif: SifFile) -> None:
    kinds = [one.partition().kind for one in sif.of_kind(DataType.PARTITION)]
    if PartitionKind.OVERLAY in kinds:
        raise _exists()
    if PartitionKind.PRIMARY not in kinds:
        raise UsageError(f"{one_line(str(sif.path))} is no image that could have an overlay")


def _add_layer(path: Path, image: OciSif, new: NewOverlay) -> None:
    with edit_sif(path) as editor:
        drop_documents(editor, image)
        found = editor.add_written(
            NewObject(kind=DataType.OCI_BLOB, alignment=LAYER_ALIGNMENT),
            lambda fd, start: _make_filesystem(fd, start, path, new),
        )
        overlay = Descriptor(media_type=media.EXT3_LAYER, size=found.size, digest=found.digest())
        layers = [*image.manifest.layers, overlay]
        add_documents(editor, image, layers, note="sifdeck overlay create")


def _add_partition(path: Path, new: NewOverlay) -> None:
    with edit_sif(path) as editor:
        arch = editor.header.architecture
        extra = Partition(fs=FileSystem.EXT3, kind=PartitionKind.OVERLAY, architecture=arch).pack()
        editor.add_written(
            NewObject(kind=DataType.PARTITION, extra=extra),
            lambda fd, start: _make_filesystem(fd, start, path, new),
        )


def _make_filesystem(fd: int, start: int, path: Path, new: NewOverlay) -> int:
    """Make an ext3 file system at a position of a file and return its size in bytes."""
    size = new.size_mib << 20
    place = f"/proc/{os.getpid()}/fd/{fd}"
    os.ftruncate(fd, start + size)
    if not new.is_sparse:
        os.posix_fallocate(fd, start, size)
    with _skeleton(path, new.folders) as skeleton:
        argv = [_program("mkfs.ext3"), "-q", "-F", "-E", f"offset={start},nodiscard"]
        argv += ["-d", skeleton, place, f"{new.size_mib}M"]
        asyncio.run(run_tool(argv, timeout_s=_MKFS_S))
    os.ftruncate(fd, start + size)
    if not new.is_sparse:  # mkfs makes holes where zeros are to be, on a tmpfs
        os.posix_fallocate(fd, start, size)
    if new.for_root and os.geteuid():
        numbers = _folders(ExtReader(fd, offset=start, size=size))
        commands = "".join(f"sif <{one}> uid 0\nsif <{one}> gid 0\n" for one in numbers).encode()
        argv = [_program("debugfs"), "-w", "-f", "-", f"{place}?offset={start}"]
        asyncio.run(run_tool(argv, timeout_s=_MKFS_S, stdin=commands))
    return size


def _program(name: str) -> str:
    """Return the path of a program of e2fsprogs, which lies where users often do not look."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise ToolMissingError(
            f"{name} is not installed",
            argv=[name],
            hint="your administrator can install it: apt install e2fsprogs",
        )
    return found


def _folders(reader: ExtReader) -> list[int]:
    """Return the numbers of all inodes in a file system that holds folders only."""
    waiting = [ROOT]
    found: list[int] = []
    while waiting:
        found.append(waiting.pop())
        waiting += [number for _, number in reader.entries(reader.node(found[-1]))]
    return found


@contextlib.contextmanager
def _skeleton(path: Path, wanted: Sequence[str]) -> Iterator[str]:
    """Give a folder beside the image with what stands in a new overlay."""
    # Owners that do not fit into 16 bits are not kept by every tool: let everybody write then.
    mode = 0o777 if max(os.geteuid(), os.getegid()) > 0xFFFF else 0o755
    with StagedFolder(path.absolute().with_name(f"{path.name}.skeleton")) as staged:
        top = staged.path
        for place in ("upper", "work", *(f"upper/{_inside(name)}" for name in wanted)):
            (top / place).mkdir(parents=True, exist_ok=True)
        for folder in (top, *top.rglob("*")):
            folder.chmod(mode)
        yield str(top)


def _inside(path: str) -> PurePosixPath:
    parts = [part for part in PurePosixPath(path).parts if part != "/"]
    if ".." in parts:
        raise UsageError(f"{one_line(path)} leads out of the overlay")
    return PurePosixPath(*parts)


def sync_overlay(path: Path) -> bool:
    """Bring the digest of an image's overlay up to date; return whether it was not.

    Raises:
        UsageError: The image has no overlay.
        FormatError: It is no OCI-SIF.
    """
    image = _image_with_overlay(path)
    place = image.layers[-1]
    with SifFile(path) as sif:
        if sif.digest(sif.find(place.object_id)) == place.digest:
            return False
    with edit_sif(path) as editor:
        drop_documents(editor, image)
        digest = editor.digest(place.object_id)
        editor.set_extra(place.object_id, digest.encode())
        overlay = Descriptor(media_type=media.EXT3_LAYER, size=place.size, digest=digest)
        add_documents(editor, image, [*image.manifest.layers[:-1], overlay])
    return True


def seal_overlay(path: Path, *, compression: Compression | None = None) -> None:
    """Turn an image's overlay into a squashfs layer of what a container changed.

    Raises:
        UsageError: The image has no overlay.
        FormatError: It is no OCI-SIF, or the overlay is damaged or in use.
    """
    image = _image_with_overlay(path)
    place = image.layers[-1]
    with path.open("rb") as source, edit_sif(path) as editor:
        reader = ExtReader(source, offset=place.offset, size=place.size)
        editor.delete(place.object_id)
        drop_documents(editor, image)
        new = NewObject(kind=DataType.OCI_BLOB, alignment=LAYER_ALIGNMENT)
        found = editor.add_written(new, lambda fd, at: _write_sealed(reader, fd, at, compression))
        layer = Descriptor(media_type=media.SQUASHFS_LAYER, size=found.size, digest=found.digest())
        add_documents(editor, image, [*image.manifest.layers[:-1], layer])


def _image_with_overlay(path: Path) -> OciSif:
    image = read_ocisif(path)
    if not image.layers or not image.layers[-1].is_overlay:
        raise UsageError(f"image {one_line(str(path))} does not contain a writable overlay")
    return image


def _write_sealed(reader: ExtReader, fd: int, start: int, compression: Compression | None) -> int:
    upper = reader.lookup(b"upper")
    if upper is None or not stat.S_ISDIR(upper.mode):
        raise FormatError("the overlay has no directory upper")
    with _file_at(fd, start) as out, SquashfsWriter(out, compression=compression) as writer:
        return writer.finish(_Sealer(reader, writer).copy(upper))


@contextlib.contextmanager
def _file_at(fd: int, start: int) -> Iterator[BinaryIO]:
    with LayerFile(io.FileIO(fd, "r+b", closefd=False), buffer_size=1 << 20) as out:
        out.seek(start)
        yield out


class _Sealer:
    """Copies a tree out of an ext file system into a squashfs."""

    def __init__(self, reader: ExtReader, writer: SquashfsWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._made: dict[int, Inode] = {}
        self._left = reader.size

    def copy(self, upper: ExtNode) -> Inode:
        """Return the tree below a directory; files are written on the way."""
        root = self._inode(upper)
        waiting = [(upper, root)]
        while waiting:
            node, inode = waiting.pop()
            for name, number in read_folder(self._reader, node)[0].items():
                if number == WHITEOUT:
                    inode.directory.entries[name] = _deleted()
                    continue
                if number in self._made:
                    if self._made[number].kind is Kind.DIRECTORY:
                        raise FormatError("the directories of the overlay are no tree")
                    inode.directory.entries[name] = self._made[number]
                    continue
                child = self._reader.node(number)
                made = self._inode(child)
                inode.directory.entries[name] = made
                if made.kind is Kind.DIRECTORY:
                    waiting.append((child, made))
        return root

    def _inode(self, node: ExtNode) -> Inode:
        kind = KINDS.get(stat.S_IFMT(node.mode))
        if kind is None:
            raise FormatError("the overlay holds something of an unknown kind")
        found = self._reader.xattrs(node)
        if kind is Kind.DIRECTORY and read_folder(self._reader, node)[1]:
            found = {**found, b"user.overlay.opaque": b"y"}
        attributes = Attributes(stat.S_IMODE(node.mode), node.uid, node.gid, _xattrs(found))
        inode = self._made[node.number] = Inode(kind, attributes, node.mtime)
        if kind is Kind.DIRECTORY:
            inode.content = Directory()
        elif kind is Kind.FILE:
            self._writer.begin(inode)
            for chunk in self._reader.read(node):
                if isinstance(chunk, int):
                    self._writer.hole(chunk)
                    continue
                self._left -= len(chunk)
                if self._left < 0:  # it would take for ever
                    raise FormatError("files of the overlay share their blocks")
                self._writer.write(chunk)
            self._writer.end()
        elif kind is Kind.SYMLINK:
            inode.content = self._reader.readlink(node)
        elif kind in {Kind.BLOCK_DEVICE, Kind.CHARACTER_DEVICE}:
            inode.content = node.device
        return inode


def _deleted() -> Inode:
    """Return overlayfs's mark of a name that is deleted."""
    inode = Inode(Kind.CHARACTER_DEVICE, Attributes(0, 0, 0), 0)
    inode.content = 0
    return inode


def _xattrs(found: dict[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """Return the attributes to keep: opaque for root and for users, nothing else of overlayfs's."""
    for name in found:
        if name.startswith(_PRIVATE) and name.endswith((b".redirect", b".metacopy")):
            raise FormatError(f"the overlay uses overlayfs's {name.decode(errors='replace')}")
    kept = {
        name: value
        for name, value in found.items()
        if not name.startswith(_PRIVATE) and name.startswith((b"user.", b"trusted.", b"security."))
    }
    if any(found.get(name) == b"y" for name in _OPAQUE):
        kept |= dict.fromkeys(_OPAQUE, b"y")
    return tuple(sorted(kept.items()))
