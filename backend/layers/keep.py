"""Layers kept apart: one squashfs each, for overlayfs to lay on each other.

Whiteouts become what overlayfs knows: a character device 0:0, and an opaque directory's
xattr, under both names that it may look for (``user.`` in a mount without privileges).

Three things need to be known of the layers below, because overlayfs asks only the uppermost
layer that has a name: the attributes of a directory for which a layer has no entry of its
own; the names that an opaque root hides, because overlayfs ignores the mark there; and the
file that a hard link in an upper layer stands for, which is copied as overlayfs would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from backend.events import Phase, Report, ignore
from backend.layers.squash import LayerSource, Squasher
from backend.layers.tree import layered
from backend.squashfs.inode import Attributes, Inode, Kind
from backend.squashfs.writer import DEFAULT_BLOCK_SIZE, SquashfsWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backend.squashfs.compression import Compression

WHITEOUT = 0
"""The device number of a name that lower layers may not show."""
OPAQUE = tuple((name, b"y") for name in (b"trusted.overlay.opaque", b"user.overlay.opaque"))
"""The xattrs of a directory that shows nothing of lower layers."""


class LayerKeeper:
    """Writes the layers of an image one after the other, base first.

    Args:
        layers: Base layer first.
        compression: zstd when None.
        report: Told how many packed bytes of the image were read.
        created: The file systems' time, seconds since 1970.
        threads: That compress; None for one a processor.
    """

    def __init__(
        self,
        layers: Sequence[LayerSource],
        *,
        compression: Compression | None = None,
        report: Report = ignore,
        created: int = 0,
        threads: int | None = None,
    ) -> None:
        self._layers = layers
        self._compression = compression
        self._report = report
        self._created = created
        self._threads = threads
        self._total = sum(layer.size for layer in layers)
        self._known: dict[bytes, tuple[Attributes, int]] = {}
        self._root_names: set[bytes] = set()

    def write(self, index: int, out: BinaryIO) -> int:
        """Write the next layer at ``out``'s position, and return its size; layers come in order.

        Raises:
            FormatError: The layer is no sound tar archive; the text names layer and byte.
            VerificationError: The layer is not the one that its diffID names.
        """
        with SquashfsWriter(
            out,
            compression=self._compression,
            block_size=DEFAULT_BLOCK_SIZE,
            created=self._created,
            threads=self._threads,
        ) as writer:
            squasher = Squasher(writer, self._progress(index), total=self._total)
            squasher.add(self._layers[index], label=self._label(index))
            below = index - 1
            while below >= 0 and squasher.search(self._layers[below], label=self._label(below)):
                below -= 1
            root = squasher.finish()
            self._complete(root, is_base=index == 0)
            return writer.finish(root)

    def _label(self, index: int) -> str:
        return f"layer {index + 1} of {len(self._layers)}"

    def _progress(self, index: int) -> Report:
        """Return a report that counts the layers before this one as done."""
        before = sum(layer.size for layer in self._layers[:index])

        def report(event: object) -> None:
            if isinstance(event, Phase):
                done = min(before + event.done, self._total)
                self._report(Phase(name=event.name, done=done, total=event.total))

        return report

    def _complete(self, root: Inode, *, is_base: bool) -> None:
        """Give a layer what the layers below it have, and overlayfs's marks."""
        if layered(root).opaque:
            self._hide_root(root)
        for path, inode in list(_directories(root)):
            own = layered(inode)
            self._forget(path, own.whiteouts | self._replaced(path, inode), all_below=own.opaque)
            below = self._known.get(path)
            if below and not own.stated:
                inode.attributes, inode.mtime = below
            self._known[path] = inode.attributes, inode.mtime
            if not is_base:
                _mark(inode, is_merged=below is not None)
        self._root_names |= layered(root).entries.keys()

    def _hide_root(self, root: Inode) -> None:
        own = layered(root)
        own.opaque = False
        own.whiteouts |= self._root_names
        self._known = {path: found for path, found in self._known.items() if not path}

    def _replaced(self, path: bytes, directory: Inode) -> set[bytes]:
        """Return the names that were directories below and are something else here."""
        inside = path + b"/" if path else b""
        return {
            name
            for name, inode in directory.directory.entries.items()
            if inode.kind is not Kind.DIRECTORY and inside + name in self._known
        }

    def _forget(self, path: bytes, names: set[bytes], *, all_below: bool) -> None:
        """Drop what is known of directories that the layer takes away."""
        inside = path + b"/" if path else b""
        # Most are files; and what is below a directory is known only if it is.
        gone = tuple(inside + name for name in names if inside + name in self._known)
        if not gone and not all_below:
            return
        self._known = {
            known: found
            for known, found in self._known.items()
            if not (all_below and known.startswith(inside) and known != path)
            and not any(known == one or known.startswith(one + b"/") for one in gone)
        }


def _directories(root: Inode) -> Iterator[tuple[bytes, Inode]]:
    """Yield the directories of a layer, parents first."""
    waiting = [(b"", root)]
    while waiting:
        path, directory = waiting.pop()
        yield path, directory
        for name, inode in directory.directory.entries.items():
            if inode.kind is Kind.DIRECTORY:
                waiting.append((path + b"/" + name if path else name, inode))


def _mark(directory: Inode, *, is_merged: bool) -> None:
    """Write a directory's whiteouts in overlayfs's way.

    Names only where a layer below has the directory, too: elsewhere overlayfs would show them.
    """
    own = layered(directory)
    for name in sorted(own.whiteouts) if is_merged else ():
        inode = own.entries.get(name)
        if inode is None:
            own.entries[name] = Inode(
                Kind.CHARACTER_DEVICE, Attributes(0, 0, 0), directory.mtime, WHITEOUT
            )
        elif inode.kind is Kind.DIRECTORY:
            layered(inode).opaque = True
    if own.opaque:
        attributes = directory.attributes
        kept = [pair for pair in attributes.xattrs if pair not in OPAQUE]
        directory.attributes = attributes._replace(xattrs=tuple(sorted([*kept, *OPAQUE])))
