"""Many layers into one squashfs, in one pass over each, top layer first.

Because the layers above are known when a layer is read, a file that they hide is passed
over and never compressed.  Names go into the tree of the layer they are in, which is then
merged under what is above (:mod:`backend.layers.tree`).  Nothing is written anywhere but
to the file system that is made.

A hard link is another name for an inode.  When its target is in a lower layer, the inode is
not known yet; it is found when that layer is read.  When the target's own name is hidden,
its bytes were passed over: then, and only then, the layer is read once more for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from backend.errors import FormatError
from backend.events import Phase, Report, ignore
from backend.layers.inflate import InflatedLayer, LayerSource
from backend.layers.tar import Member, TarReader
from backend.layers.tree import (
    Alias,
    Hidden,
    LayerDirectory,
    LayerTree,
    is_hidden,
    merge,
    new_directory,
    resolve,
    want,
)
from backend.squashfs.inode import Attributes, Inode, Kind, device_number
from backend.squashfs.writer import DEFAULT_BLOCK_SIZE, SquashfsWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backend.squashfs.compression import Compression

__all__ = ["LayerSource", "squash_layers"]

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."
"""AUFS's own files; they were never meant to be seen."""
MAX_MEMBERS = 16_000_000
"""Of all layers; each takes some 300 bytes of memory, and of a bomb's archive next to none."""


def squash_layers(  # noqa: PLR0913  (options, each with a default)
    layers: Sequence[LayerSource],
    out: BinaryIO,
    *,
    compression: Compression | None = None,
    report: Report = ignore,
    created: int = 0,
    block_size: int = DEFAULT_BLOCK_SIZE,
    threads: int | None = None,
) -> int:
    """Write what the layers come to as one squashfs at ``out``'s position.

    Args:
        layers: Base layer first.
        out: Open for reading and writing; left behind the file system's last byte.
        compression: zstd when None.
        report: Told how many packed bytes were read.
        created: The file system's time, seconds since 1970.
        block_size: Of the file system; a power of two up to 1 MiB.
        threads: That compress; None for one a processor.  The bytes do not depend on it.

    Returns:
        The file system's size in bytes, padding included.

    Raises:
        FormatError: A layer is no sound tar archive; the text names layer and byte.
        VerificationError: A layer is not the one that its diffID names.
    """
    with SquashfsWriter(
        out, compression=compression, block_size=block_size, created=created, threads=threads
    ) as writer:
        squasher = Squasher(writer, report, total=sum(layer.size for layer in layers))
        for number in range(len(layers), 0, -1):
            squasher.add(layers[number - 1], label=f"layer {number} of {len(layers)}")
        size = writer.finish(squasher.finish())
    report(Phase(name="convert", done=squasher.total, total=squasher.total, state="done"))
    return size


class Squasher:
    """Merges layers, top first, into one tree, and writes the files that can be seen."""

    def __init__(self, writer: SquashfsWriter, report: Report, *, total: int) -> None:
        self.total = total
        self._writer = writer
        self._report = report
        self._before = 0
        self._members = 0
        self._merged: Inode | None = None
        self._pending: list[Alias] = []
        self._has_aliases = False
        self._attributes: dict[Attributes, Attributes] = {}

    def add(self, source: LayerSource, *, label: str) -> None:
        """Read one layer and lay the layers above on it."""
        tree = LayerTree(self._merged)
        self._read(source, tree, label)
        if self._merged is None:
            self._merged = tree.root
        else:
            merge(self._merged, tree.root)

    def search(self, source: LayerSource, *, label: str) -> bool:
        """Look in a lower layer for the targets of hard links, and for nothing else.

        Returns:
            Whether some are left that may be in a layer below it.
        """
        if self._pending:
            everything = LayerDirectory()
            everything.opaque = True
            above = Inode(Kind.DIRECTORY, Attributes(0, 0, 0), 0, everything)
            self._read(source, LayerTree(above), label)
        return bool(self._pending)

    def _read(self, source: LayerSource, tree: LayerTree, label: str) -> None:
        builder = _Builder(tree, self._writer, self._attributes, label)
        with InflatedLayer(source, label=label) as layer:
            reader = TarReader(self._watched(layer), label=label)
            for member in reader:
                self._members += 1
                if self._members > MAX_MEMBERS:
                    raise reader.fail(f"the image has more than {MAX_MEMBERS} members")
                builder.add(member, reader)
            layer.verify()
        self._bind(builder)
        if wanted := {file.offset: file for file in builder.hidden if file.wanted}:
            self._recover(source, wanted, label)
        self._before += source.size

    def finish(self) -> Inode:
        """Return the tree, hard links followed."""
        root = self._merged or new_directory()
        if self._has_aliases:
            _follow_links(root)
        return root

    def _watched(self, layer: InflatedLayer) -> Iterator[bytes]:
        for chunk in layer:
            # An archive that is made while it is read is longer than what it is made of.
            done = min(self._before + layer.read, self.total)
            self._report(Phase(name="convert", done=done, total=self.total))
            yield chunk

    def _bind(self, builder: _Builder) -> None:
        """Find the targets of hard links in a layer that was read."""
        still = []
        for alias in [*self._pending, *builder.aliases]:
            found = builder.tree.find(alias.path)
            if found is None or _leads_to(found, alias):
                if not builder.tree.takes_away(alias.path) or alias in builder.aliases:
                    still.append(alias)
            else:
                alias.target = found
                if alias.wanted:
                    want(found)
        self._has_aliases = self._has_aliases or bool(builder.aliases)
        self._pending = still

    def _recover(self, source: LayerSource, wanted: dict[int, Hidden], label: str) -> None:
        """Read a layer again for files that only hard links keep."""
        with InflatedLayer(source, label=label) as layer:
            reader = TarReader(layer, label=label)
            for member in reader:
                if file := wanted.pop(member.offset, None):
                    _copy(reader, member, self._writer, file)
                if not wanted:
                    return


class _Builder:
    """Puts the members of one layer into its tree.

    Attributes:
        tree: The layer's.
        aliases: Hard links whose target was not seen before them.
        hidden: Files that were passed over.
    """

    def __init__(
        self,
        tree: LayerTree,
        writer: SquashfsWriter,
        attributes: dict[Attributes, Attributes],
        label: str,
    ) -> None:
        self.tree = tree
        self.aliases: list[Alias] = []
        self.hidden: list[Hidden] = []
        self._writer = writer
        self._attributes = attributes
        self._label = label

    def add(self, member: Member, reader: TarReader) -> None:
        """Put one member into the tree; write its bytes when they can be seen."""
        parent, _, name = member.path.rpartition(b"/")
        if name.startswith(_WHITEOUT):
            self._white_out(parent, name, reader)
        elif member.kind is Kind.DIRECTORY:
            self.tree.state(member.path, self._intern(member), member.mtime)
        elif not name:
            raise reader.fail("the root of the image is no directory")
        else:
            target = self._target(member) if member.kind is None else None
            own, above = self.tree.directory(parent)
            visible = not is_hidden(above, name)
            if target is None:
                target = self._inode(member, reader, visible=visible)
            elif visible:
                want(target)
            self.tree.put(own, name, target)

    def _white_out(self, parent: bytes, name: bytes, reader: TarReader) -> None:
        if self.tree.ends_before(parent):
            return  # umoci also lists what was in a directory that became a file
        own: LayerDirectory = self.tree.directory(parent)[0]
        if name == _OPAQUE:
            own.opaque = True
        elif not name.startswith(_AUFS):
            target = name[len(_WHITEOUT) :]
            if target in {b"", b".", b".."}:
                raise reader.fail("a whiteout of nothing")
            own.whiteouts.add(target)

    def _intern(self, member: Member) -> Attributes:
        attributes = Attributes(member.mode, member.uid, member.gid, member.xattrs)
        return self._attributes.setdefault(attributes, attributes)

    def _inode(self, member: Member, reader: TarReader, *, visible: bool) -> Inode:
        kind = member.kind or Kind.FILE
        attributes = self._intern(member)
        if kind is Kind.FILE:
            if visible:
                inode = Inode(kind, attributes, member.mtime)
                _copy(reader, member, self._writer, inode)
                return inode
            file = Hidden(attributes, member.mtime, offset=member.offset)
            self.hidden.append(file)
            return file
        content: bytes | int | None = None
        if kind is Kind.SYMLINK:
            content = member.link
        elif kind in {Kind.BLOCK_DEVICE, Kind.CHARACTER_DEVICE}:
            content = device_number(*member.device)
        return Inode(kind, attributes, member.mtime, content)

    def _target(self, member: Member) -> Inode:
        """Return what a hard link stands for."""
        target = self.tree.find(member.link)
        if target is None or target.kind is Kind.DIRECTORY:
            target = Alias(member.link, label=self._label, offset=member.offset)
            self.aliases.append(target)
        return target


def _copy(reader: TarReader, member: Member, writer: SquashfsWriter, inode: Inode) -> None:
    writer.begin(inode)
    reader.copy(member, writer)
    writer.end()


def _leads_to(inode: Inode, alias: Alias) -> bool:
    """Tell whether a chain of hard links ends in the one that is to be bound."""
    found: Inode | None = inode
    while isinstance(found, Alias):
        if found is alias:
            return True
        found = found.target
    return False


def _follow_links(root: Inode) -> None:
    """Replace aliases by what they stand for.

    Raises:
        FormatError: A hard link's target is in no layer, or is a directory.
    """
    waiting = [root]
    while waiting:
        entries = waiting.pop().directory.entries
        for name, inode in entries.items():
            if inode.kind is Kind.DIRECTORY:
                waiting.append(inode)
            elif isinstance(inode, Alias):
                found = resolve(inode)
                if found is None:
                    raise _dangling(inode, "to something that no layer below holds")
                if found.kind is Kind.DIRECTORY:
                    raise _dangling(inode, "to a directory")
                entries[name] = found


def _dangling(alias: Alias, what: str) -> FormatError:
    return FormatError(f"{alias.label}: a hard link {what}", offset=alias.offset)
