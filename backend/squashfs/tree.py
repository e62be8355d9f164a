"""Paths and walks in a tree of directories: one image's, or several layers seen as one.

Links are followed inside the tree: ``..`` stops at its root and an absolute target starts
there, as for a process that has the tree as its root.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol, TypeVar

from backend.errors import FormatError
from backend.squashfs.inode import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINKS = 40
"""Symbolic links on the way to one path, as in Linux."""
MAX_PATH = 65535
"""Bytes of a path in a walk; Linux stops at 4095 for one call."""


class TreeNode(Protocol):
    """What a walk asks of a node.

    Attributes:
        kind: What it is.
        number: Tells directories apart.
        listing: Of a directory: bytes of its listing.
    """

    @property
    def kind(self) -> Kind: ...  # noqa: D102  (in the class's docstring, as those below)

    @property
    def number(self) -> int: ...  # noqa: D102

    @property
    def listing(self) -> int: ...  # noqa: D102


N = TypeVar("N", bound=TreeNode)


class Tree(Protocol[N]):
    """A tree of directories.

    Attributes:
        root: The directory that everything is in.
        listing_limit: Bytes that the listings of all directories can have together.
    """

    @property
    def root(self) -> N: ...  # noqa: D102

    @property
    def listing_limit(self) -> int: ...  # noqa: D102

    def child(self, directory: N, name: bytes) -> N | None:
        """Return what ``name`` stands for in a directory."""
        ...

    def entries(self, directory: N) -> Iterator[tuple[bytes, N]]:
        """Yield the names in a directory and what they stand for."""
        ...

    def readlink(self, node: N) -> bytes:
        """Return the target of a symbolic link."""
        ...


def resolve(tree: Tree[N], path: bytes, *, follow: bool) -> tuple[bytes, N] | None:
    """Return what ``path`` leads to: its path without links, and its node; None for nothing.

    Args:
        tree: Where to look.
        path: From the root, with or without a slash in front.
        follow: Whether a symbolic link at the end is followed too.
    """
    trail = [(b"", tree.root)]
    todo = deque(path.split(b"/"))
    links = 0
    while todo:
        name = todo.popleft()
        here = trail[-1][1]
        if here.kind is not Kind.DIRECTORY:
            return None
        if name == b".." and len(trail) > 1:
            trail.pop()
        if name in {b"", b".", b".."}:
            continue
        node = tree.child(here, name)
        if node is None:
            return None
        if node.kind is not Kind.SYMLINK or not (follow or todo):
            trail.append((name, node))
            continue
        links += 1
        if links > MAX_LINKS:
            return None
        target = tree.readlink(node)
        if target.startswith(b"/"):
            del trail[1:]
        todo.extendleft(reversed(target.split(b"/")))
    return b"/".join(name for name, _ in trail[1:]), trail[-1][1]


class Guard:
    """Ends a walk that would take for ever, as it can in an image made to harm.

    Args:
        listing_limit: Bytes that the listings of all directories can have together.
    """

    def __init__(self, listing_limit: int) -> None:
        self._left = listing_limit
        self._seen: set[int] = set()

    def enter(self, number: int, listing: int, path: bytes) -> None:
        """Take note of a directory.

        Args:
            number: Tells it from others.
            listing: Bytes of its listing.
            path: Where it was met.

        Raises:
            FormatError: It was met before, or the listings are longer than they can be.
        """
        self._left -= listing
        if number in self._seen or self._left < 0 or len(path) > MAX_PATH:
            raise FormatError("the directories of the image are no tree")
        self._seen.add(number)


def walk(tree: Tree[N], top: bytes = b"", node: N | None = None) -> Iterator[tuple[bytes, N]]:
    """Yield a directory and everything below it, each directory before what is in it.

    Args:
        tree: Where to walk.
        top: Path of the directory to start from; the root's is empty.
        node: That directory; the root by default.

    Raises:
        FormatError: A directory stands in two places, or the listings are too long: such a
            tree would take for ever.
    """
    start = tree.root if node is None else node
    yield top, start
    if start.kind is not Kind.DIRECTORY:
        return
    guard = Guard(tree.listing_limit)
    guard.enter(start.number, start.listing, top)
    stack = [(top, tree.entries(start))]
    while stack:
        prefix, entries = stack[-1]
        for name, child in entries:
            path = prefix + b"/" + name if prefix else name
            yield path, child
            if child.kind is Kind.DIRECTORY:
                guard.enter(child.number, child.listing, path)
                stack.append((path, tree.entries(child)))
                break
        else:
            stack.pop()
