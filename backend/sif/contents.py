"""The files in an image, without mounting it: the layers seen as one tree, as a container would.

The rules are overlayfs's, which both SingularityCE and we write: a character device 0:0 hides
what has its name below, ``trusted.overlay.opaque`` or ``user.overlay.opaque`` on a directory
hides everything below it, directories are merged, and anything else hides what is below.

A writable overlay in the file is the uppermost layer, unless it is in use.

A tree is read lazily, one directory at a time; only :func:`survey` and
:func:`directory_sizes` go through all of it.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

from backend.errors import FormatError, NotFoundError
from backend.escape import one_line
from backend.oci import media
from backend.sif.file import SifFile, open_regular
from backend.sif.ocisif import image_of
from backend.sif.overlaylayer import OverlayLayer
from backend.sif.records import MAGIC, DataType, FileSystem, PartitionKind
from backend.squashfs.inode import Kind
from backend.squashfs.reader import Node, SquashfsReader
from backend.squashfs.tree import Guard, resolve, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

Layer = SquashfsReader | OverlayLayer
Parts = list[tuple[int, Node]]
"""One name in several layers: layer and inode, upper layer first."""
_FORMATS = {
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.FILE: stat.S_IFREG,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.BLOCK_DEVICE: stat.S_IFBLK,
    Kind.CHARACTER_DEVICE: stat.S_IFCHR,
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
}
OPAQUE = frozenset({b"trusted.overlay.opaque", b"user.overlay.opaque"})


class File(NamedTuple):
    """Something in an image, as a container sees it.

    Attributes:
        layer: The layer that brought it, from 0, base first.
        node: The inode in that layer.
        below: Of a directory: the same directory in lower layers, upper first, as far as it
            is merged with them.
    """

    layer: int
    node: Node
    below: tuple[tuple[int, Node], ...] = ()

    @property
    def kind(self) -> Kind:
        """What it is."""
        return self.node.kind

    @property
    def size(self) -> int:
        """Bytes of a file or of a link's target; 0 for anything else."""
        return self.node.size

    @property
    def mode(self) -> str:
        """Kind and permissions, as ``ls -l`` prints them."""
        return stat.filemode(_FORMATS[self.node.kind] | self.node.mode)

    @property
    def number(self) -> int:
        """Equal for hard links to one thing, different for everything else."""
        return self.layer << 32 | self.node.number

    @property
    def listing(self) -> int:
        """Bytes of a directory's lists, in all layers."""
        return self.node.listing + sum(node.listing for _, node in self.below)

    @property
    def parts(self) -> tuple[tuple[int, Node], ...]:
        """Of a directory: itself in each layer that it is merged from, upper first."""
        return ((self.layer, self.node), *self.below)


class ImageTree:
    """The tree of an image file; a context manager.

    Args:
        path: An OCI-SIF, a native SIF, or a squashfs.

    Attributes:
        path: As given.
        layers: A reader for each squashfs layer, base first.
        stack: The same, and above them the writable overlay, if it can be read.
        has_overlay: Whether the file holds a writable ext3 overlay.
        overlay_problem: Why the overlay is not in the tree; empty when it is, or there is none.

    Raises:
        NotFoundError: There is no such file.
        FormatError: It is no image, or a broken one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.overlay_problem = ""
        offsets, overlay = _find_layers(path)
        self.has_overlay = overlay is not None
        self._fd = open_regular(path)
        try:
            self.layers = tuple(SquashfsReader(self._fd, offset=offset) for offset in offsets)
            upper = self._open_overlay(*overlay) if overlay else ()
            self.stack: tuple[Layer, ...] = (*self.layers, *upper)
            parts = _merged((i, self.stack[i].root) for i in reversed(range(len(self.stack))))
            self.root = self._cut(parts)
        except BaseException:
            self.close()
            raise

    def _open_overlay(self, offset: int, size: int) -> tuple[Layer, ...]:
        try:
            return (OverlayLayer(self._fd, offset=offset, size=size),)
        except FormatError as error:
            self.overlay_problem = error.message
            return ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    @property
    def listing_limit(self) -> int:
        """Bytes that the directories' lists can have together."""
        return sum(layer.listing_limit for layer in self.stack)

    def lookup(self, path: str | bytes, *, follow: bool = True) -> File | None:
        """Return what ``path`` names, links resolved inside the image; None for nothing."""
        found = resolve(self, os.fsencode(path), follow=follow)
        return found[1] if found else None

    def need(self, path: str | bytes, *, follow: bool = True) -> tuple[bytes, File]:
        """Return what ``path`` names: its path without links and the file.

        Raises:
            NotFoundError: It names nothing.
        """
        found = resolve(self, os.fsencode(path), follow=follow)
        if found is None:
            shown = one_line(os.fsdecode(path))
            raise NotFoundError(f"{one_line(str(self.path))} has no {shown}")
        return found

    def walk(self, top: bytes = b"", file: File | None = None) -> Iterator[tuple[bytes, File]]:
        """Yield a directory (the root by default) and everything below it with its path."""
        return walk(self, top, file)

    def child(self, directory: File, name: bytes) -> File | None:
        """Return what ``name`` stands for in a directory."""
        found = (
            (layer, node)
            for layer, part in directory.parts
            if (node := self.stack[layer].child(part, name))
        )
        parts = _merged(found)
        return self._cut(parts) if parts else None

    def entries(self, directory: File) -> Iterator[tuple[bytes, File]]:
        """Yield the names in a directory and what they stand for, sorted by name."""
        if len(directory.parts) == 1:
            for name, node in self.stack[directory.layer].entries(directory.node):
                if not is_whiteout(node):
                    yield name, File(directory.layer, node)
            return
        for name, found in self.versions(directory.parts):
            if parts := _merged(iter(found)):
                yield name, self._cut(parts)

    def readlink(self, file: File) -> bytes:
        """Return the target of a symbolic link."""
        return self.stack[file.layer].readlink(file.node)

    def read(self, file: File) -> Iterator[bytes]:
        """Yield the bytes of a regular file, at most 1 MiB at a time."""
        return self.stack[file.layer].read(file.node)

    def xattrs(self, file: File) -> tuple[tuple[bytes, bytes], ...]:
        """Return the extended attributes, overlayfs's own left out."""
        found = self.stack[file.layer].xattrs(file.node)
        return tuple(pair for pair in found if pair[0] not in OPAQUE)

    def is_opaque(self, layer: int, node: Node) -> bool:
        """Tell whether a directory hides what is below it."""
        found = self.stack[layer].xattrs(node)
        return any(name in OPAQUE and value == b"y" for name, value in found)

    def versions(self, parts: Iterable[tuple[int, Node]]) -> list[tuple[bytes, Parts]]:
        """Return, sorted, each name in any of the parts and what it is in each, upper first."""
        found: dict[bytes, Parts] = {}
        for layer, part in parts:
            for name, node in self.stack[layer].entries(part):
                found.setdefault(name, []).append((layer, node))
        return sorted(found.items())

    def _cut(self, parts: Parts) -> File:
        """Return a file of its parts, those below an opaque directory left out."""
        for i, (layer, node) in enumerate(parts[:-1]):
            if self.is_opaque(layer, node):
                del parts[i + 1 :]
                break
        (layer, node), *below = parts
        return File(layer, node, tuple(below))


def is_whiteout(node: Node) -> bool:
    """Tell whether a node says that there is nothing."""
    return node.kind is Kind.CHARACTER_DEVICE and node.device == 0


def _merged(found: Iterator[tuple[int, Node]]) -> Parts:
    """Return what counts of a name's versions, upper first: one, or directories to merge."""
    parts: Parts = []
    for layer, node in found:
        if is_whiteout(node):
            break
        if node.kind is not Kind.DIRECTORY:
            return parts or [(layer, node)]
        parts.append((layer, node))
    return parts


def _find_layers(path: Path) -> tuple[list[int], tuple[int, int] | None]:
    """Return where the squashfs layers of a file start, and place and size of its overlay."""
    if not _is_sif(path):
        return [0], None
    with SifFile(path) as sif:
        if sif.of_kind(DataType.OCI_ROOT_INDEX):
            layers = image_of(sif).layers
            stored = [layer.offset for layer in layers if layer.media_type == media.SQUASHFS_LAYER]
            overlays = [(layer.offset, layer.size) for layer in layers if layer.is_overlay]
        else:
            parts = [(one, one.partition()) for one in sif.of_kind(DataType.PARTITION)]
            stored = [
                one.offset
                for one, part in parts
                if part.kind == PartitionKind.PRIMARY and part.fs == FileSystem.SQUASHFS
            ]
            overlays = [
                (one.offset, one.size) for one, part in parts if part.kind == PartitionKind.OVERLAY
            ]
    if not stored:
        raise FormatError(f"{one_line(str(path))} holds no squashfs to look into")
    return stored, overlays[-1] if overlays else None


def _is_sif(path: Path) -> bool:
    fd = open_regular(path)
    try:
        return os.pread(fd, len(MAGIC), 32) == MAGIC or os.pread(fd, 4, 0) != b"hsqs"
    finally:
        os.close(fd)


@dataclass(slots=True, kw_only=True)
class LayerUsage:
    """What one layer brought.

    Attributes:
        files: Names that are not directories, whiteouts left out.
        size: Bytes of its regular files, unpacked, hard links counted once.
        wasted: Bytes of those that upper layers hide.
        removed: Whiteouts and opaque directories.
    """

    files: int = 0
    size: int = 0
    wasted: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Waste:
    """A file that an upper layer hides.

    Attributes:
        path: Without a slash in front.
        size: Its bytes, unpacked.
        layer: The layer that has it, from 0.
    """

    path: bytes
    size: int
    layer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What the layers of an image brought and what of it is hidden.

    Attributes:
        layers: Base first.
        waste: The largest hidden files, largest first.
    """

    layers: tuple[LayerUsage, ...]
    waste: tuple[Waste, ...]

    @property
    def size(self) -> int:
        """Bytes of all regular files in all layers."""
        return sum(layer.size for layer in self.layers)

    @property
    def wasted(self) -> int:
        """Bytes of regular files that a container never sees."""
        return sum(layer.wasted for layer in self.layers)


_KEPT_WASTE = 1000
"""Hidden files that a survey names; it counts all of them."""


def survey(tree: ImageTree, *, should_stop: Callable[[], bool] = lambda: False) -> Survey:
    """Go through all layers and tell what each brought and what of it is hidden.

    Args:
        tree: The image.
        should_stop: Asked before each directory; when it says so, what was found is returned.
    """
    counter = _Counter(tree)
    counter.count(should_stop)
    found = sorted(counter.waste, key=lambda one: (-one.size, one.path))
    return Survey(layers=tuple(counter.layers), waste=tuple(found[:_KEPT_WASTE]))


class _Counter:
    """Visits each path once, in all layers that have it, seen by a container or not."""

    def __init__(self, tree: ImageTree) -> None:
        self.layers = [LayerUsage() for _ in tree.stack]
        self.waste: list[Waste] = []
        self._tree = tree
        self._linked: dict[tuple[int, int], Waste | None] = {}
        self._guard = Guard(tree.listing_limit)

    def count(self, should_stop: Callable[[], bool]) -> None:
        """Count everything."""
        stack = self._tree.stack
        roots = [(i, stack[i].root) for i in reversed(range(len(stack)))]
        waiting = [(b"", self._directories(roots, [True] * len(roots)))]
        while waiting and not should_stop():
            path, parts = waiting.pop()
            for layer, node, _ in parts:
                self._guard.enter(layer << 32 | node.number, node.listing, path)
            seen = {layer: is_seen for layer, _, is_seen in parts}
            for name, found in self._tree.versions((layer, node) for layer, node, _ in parts):
                below = path + b"/" + name if path else name
                directories = self._visit(below, found, [seen[layer] for layer, _ in found])
                if directories:
                    waiting.append((below, directories))
        for (layer, _), waste in self._linked.items():
            if waste:  # no name of it is seen
                self._add_waste(layer, waste)

    def _visit(self, path: bytes, found: Parts, seen: list[bool]) -> list[tuple[int, Node, bool]]:
        """Count one name in all layers; return the directories among what it stands for."""
        for i, (layer, node) in enumerate(found):
            if node.kind is not Kind.DIRECTORY:
                if is_whiteout(node):
                    self.layers[layer].removed += 1
                else:
                    self._count_file(path, layer, node, is_seen=seen[i] and i == 0)
                # What is below is hidden, whatever it is.
                seen[i + 1 :] = [False] * (len(found) - i - 1)
        return self._directories(found, seen)

    def _directories(self, found: Parts, seen: list[bool]) -> list[tuple[int, Node, bool]]:
        kept = []
        is_open = True
        for (layer, node), is_seen in zip(found, seen, strict=True):
            if node.kind is Kind.DIRECTORY:
                kept.append((layer, node, is_seen and is_open))
                if self._tree.is_opaque(layer, node):
                    self.layers[layer].removed += 1
                    is_open = False
        return kept

    def _count_file(self, path: bytes, layer: int, node: Node, *, is_seen: bool) -> None:
        usage = self.layers[layer]
        usage.files += 1
        waste = None if is_seen else Waste(path=path, size=node.size, layer=layer)
        if node.kind is not Kind.FILE:
            return
        if node.links > 1:
            key = layer, node.number
            usage.size += 0 if key in self._linked else node.size
            self._linked[key] = waste and self._linked.get(key, waste)
            return
        usage.size += node.size
        if waste:
            self._add_waste(layer, waste)

    def _add_waste(self, layer: int, waste: Waste) -> None:
        self.layers[layer].wasted += waste.size
        self.waste.append(waste)


def directory_sizes(
    tree: ImageTree, *, should_stop: Callable[[], bool] = lambda: False
) -> dict[bytes, int]:
    """Return for each directory the bytes of all regular files below it, as a container sees it.

    Hard links count where they are met first.

    Args:
        tree: The image.
        should_stop: Asked at each directory; when it says so, what was found is returned.
    """
    sizes: dict[bytes, int] = {}
    linked: set[int] = set()
    for path, file in tree.walk():
        if file.kind is Kind.DIRECTORY:
            if should_stop():
                break
            sizes[path] = 0
        elif file.kind is Kind.FILE and file.number not in linked:
            if file.node.links > 1:
                linked.add(file.number)
            folder = path.rpartition(b"/")[0]
            sizes[folder] += file.size
    for path in sorted(sizes, key=lambda one: -one.count(b"/")):
        if path:
            sizes[path.rpartition(b"/")[0]] += sizes[path]
    return sizes
