"""What a layer says about names, and how layers lie on each other.

OCI image specification 1.1, *Filesystem Layers*.  A layer is a set of names with whiteouts
beside them.  Within a layer the last member of a name counts, as it does for ``tar``;
whiteouts hide what lower layers hold, wherever in the archive they stand.  A tree is names
only: nothing follows a symbolic link, so nothing can leave the tree.

Layers are merged top first, each under what is there already.  Whatever an upper layer
hides of the layers below it stays noted, until the base has gone under it.
"""

from __future__ import annotations

from backend.squashfs.inode import Attributes, Directory, Inode, Kind

_DEFAULT = Attributes(0o755, 0, 0)
"""Of a directory that no layer has an entry for."""


class LayerDirectory(Directory):
    """A directory of one layer, or of several merged ones.

    Attributes:
        stated: A layer has an entry for the directory itself.
        whiteouts: Names that lower layers cannot bring any more.
        opaque: Lower layers can bring none.
    """

    __slots__ = ("opaque", "stated", "whiteouts")

    def __init__(self) -> None:
        super().__init__()
        self.stated = False
        self.opaque = False
        self.whiteouts: set[bytes] = set()


class Alias(Inode):
    """A hard link to something that was not seen yet: in a lower layer, or further on.

    Attributes:
        path: Of its target.
        label: The layer it is in, for errors.
        offset: Of its header, for errors.
        target: Known once the target's layer was read.
        wanted: A name that stands for it is visible.
    """

    __slots__ = ("label", "offset", "path", "target", "wanted")

    def __init__(self, path: bytes, *, label: str, offset: int) -> None:
        super().__init__(Kind.FILE, _DEFAULT, 0)
        self.path = path
        self.label = label
        self.offset = offset
        self.target: Inode | None = None
        self.wanted = False


def new_directory() -> Inode:
    """Return a directory with default attributes, which no member stated."""
    return Inode(Kind.DIRECTORY, _DEFAULT, 0, LayerDirectory())


class Hidden(Inode):
    """A regular file that an upper layer hides; its bytes were passed over.

    Attributes:
        offset: Of its header.
        wanted: A hard link keeps it, so that the bytes are needed after all.
    """

    __slots__ = ("offset", "wanted")

    def __init__(self, attributes: Attributes, mtime: int, *, offset: int) -> None:
        super().__init__(Kind.FILE, attributes, mtime)
        self.offset = offset
        self.wanted = False


def want(inode: Inode | None) -> None:
    """Note that a visible name stands for ``inode``, whatever it turns out to be."""
    while isinstance(inode, Alias):
        inode.wanted = True
        inode = inode.target
    if isinstance(inode, Hidden):
        inode.wanted = True


def resolve(inode: Inode) -> Inode | None:
    """Return what hard links lead to at last; None where that is not known."""
    found: Inode | None = inode
    while isinstance(found, Alias):
        found = found.target
    return found


_NOTHING = LayerDirectory()
"""What lies above a name that no upper layer knows."""
_EVERYTHING = LayerDirectory()
"""What lies above a name that an upper layer took away, with all below it."""
_EVERYTHING.opaque = True


class LayerTree:
    """The names of one layer, and which of them the layers above hide.

    Args:
        above: The merged tree of the layers above; None for the top layer.
    """

    def __init__(self, above: Inode | None = None) -> None:
        self.root = new_directory()
        self._above = layered(above) if above else _NOTHING
        self._parents: dict[bytes, tuple[LayerDirectory, LayerDirectory]] = {}

    def directory(self, path: bytes) -> tuple[LayerDirectory, LayerDirectory]:
        """Return the layer's directory, made if need be, and what lies above it."""
        found = self._parents.get(path)
        if found is None:
            found = self._parents[path] = self._descend(path)
        return found

    def _descend(self, path: bytes) -> tuple[LayerDirectory, LayerDirectory]:
        own, above = layered(self.root), self._above
        for name in path.split(b"/") if path else ():
            child = own.entries.get(name)
            if child is None or child.kind is not Kind.DIRECTORY:
                child = own.entries[name] = new_directory()
            own, above = layered(child), _below(above, name)
        return own, above

    def put(self, own: LayerDirectory, name: bytes, inode: Inode) -> None:
        """Let a name stand for ``inode``, whatever the layer said before."""
        before = own.entries.get(name)
        if before is not None and before.kind is Kind.DIRECTORY:
            self._parents.clear()
        own.entries[name] = inode

    def state(self, path: bytes, attributes: Attributes, mtime: int) -> None:
        """Note the entry of a directory; what it holds stays."""
        own, _ = self.directory(path)
        own.stated = True
        inode = self.find(path)
        if inode is not None:
            inode.attributes, inode.mtime = attributes, mtime

    def find(self, path: bytes) -> Inode | None:
        """Return what a path of this layer stands for."""
        inode: Inode | None = self.root
        for name in path.split(b"/") if path else ():
            if inode is None or inode.kind is not Kind.DIRECTORY:
                return None
            inode = inode.directory.entries.get(name)
        return inode

    def ends_before(self, path: bytes) -> bool:
        """Tell whether ``path`` leads to or through something that is no directory."""
        inode = self.root
        for name in path.split(b"/") if path else ():
            child = inode.directory.entries.get(name)
            if child is None or child.kind is not Kind.DIRECTORY:
                return child is not None
            inode = child
        return False

    def takes_away(self, path: bytes) -> bool:
        """Tell whether a path that is not in this layer cannot be in the merged lower ones."""
        inode: Inode | None = self.root
        for name in path.split(b"/"):
            if inode is None:
                return False
            if inode.kind is not Kind.DIRECTORY:
                return True
            own = layered(inode)
            if own.opaque or name in own.whiteouts:
                return True
            inode = own.entries.get(name)
        return False


def is_hidden(above: LayerDirectory, name: bytes) -> bool:
    """Tell whether a lower layer's name cannot be seen, given what lies above its directory."""
    return above.opaque or name in above.whiteouts or name in above.entries


def merge(upper: Inode, lower: Inode) -> None:
    """Lay a tree of upper layers on one layer; what comes of it is in ``upper``."""
    waiting = [(upper, lower)]
    while waiting:
        top, bottom = waiting.pop()
        above, below = layered(top), layered(bottom)
        if below.stated and not above.stated:
            above.stated = True
            top.attributes, top.mtime = bottom.attributes, bottom.mtime
        if above.opaque:
            continue
        for name, inode in below.entries.items():
            if name in above.whiteouts:
                continue
            seen = above.entries.get(name)
            if seen is None:
                above.entries[name] = inode
            elif seen.kind is Kind.DIRECTORY:
                if inode.kind is Kind.DIRECTORY:
                    waiting.append((seen, inode))
                else:
                    # The layers below this one see neither: for them the name is taken.
                    above.whiteouts.add(name)
        above.whiteouts |= below.whiteouts
        above.opaque = below.opaque


def layered(inode: Inode) -> LayerDirectory:
    """Return what a directory of a layer holds."""
    content = inode.content
    if not isinstance(content, LayerDirectory):
        raise TypeError(f"{inode.kind.name} is no layer's directory")
    return content


def _below(above: LayerDirectory, name: bytes) -> LayerDirectory:
    """Return what lies above the lower layers' directory ``name``."""
    if above.opaque or name in above.whiteouts:
        return _EVERYTHING
    inode = above.entries.get(name)
    if inode is None:
        return _NOTHING
    return layered(inode) if inode.kind is Kind.DIRECTORY else _EVERYTHING
