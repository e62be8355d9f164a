"""What changed between the files of two images, as a container would see them.

Two files are equal when their kind, mode, owner, content, link target, device and extended
attributes are.  Times are not compared: an image that is built again has new ones everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from backend.squashfs.inode import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backend.sif.contents import File, ImageTree

State = Literal["added", "removed", "changed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A path that differs.

    Attributes:
        state: ``added`` is what only the second image has.
        path: Without a slash in front; empty for the root.
        kind: Of the path in the second image, or in the first where it was removed.
        old_size: Bytes in the first image; 0 where it is not there or no file.
        new_size: Bytes in the second image.
        what: What changed, in words: ``content``, ``mode``, ``owner`` ...
    """

    state: State
    path: bytes
    kind: Kind
    old_size: int = 0
    new_size: int = 0
    what: tuple[str, ...] = ()


def compare(old: ImageTree, new: ImageTree) -> Iterator[Change]:
    """Yield what differs, sorted by path, a directory before what is in it.

    Raises:
        FormatError: An image is damaged.
    """
    if what := _differences(old, old.root, new, new.root):
        yield Change(state="changed", path=b"", kind=Kind.DIRECTORY, what=what)
    stack = [_pairs(b"", old, old.root, new, new.root)]
    while stack:
        for path, before, after in stack[-1]:
            yield from _compare_name(old, new, path, before, after)
            if before and after and before.kind is after.kind is Kind.DIRECTORY:
                stack.append(_pairs(path + b"/", old, before, new, after))
                break
        else:
            stack.pop()


def _pairs(
    prefix: bytes, old: ImageTree, before: File, new: ImageTree, after: File
) -> Iterator[tuple[bytes, File | None, File | None]]:
    """Yield each path in either directory, and what it is in both."""
    left, right = dict(old.entries(before)), dict(new.entries(after))
    for name in sorted({*left, *right}):
        yield prefix + name, left.get(name), right.get(name)


def _compare_name(
    old: ImageTree, new: ImageTree, path: bytes, before: File | None, after: File | None
) -> Iterator[Change]:
    if before and after and before.kind is after.kind:
        if what := _differences(old, before, new, after):
            yield Change(
                state="changed",
                path=path,
                kind=after.kind,
                old_size=_size(before),
                new_size=_size(after),
                what=what,
            )
        return
    if before:
        for where, file in old.walk(path, before):
            yield Change(state="removed", path=where, kind=file.kind, old_size=_size(file))
    if after:
        for where, file in new.walk(path, after):
            yield Change(state="added", path=where, kind=file.kind, new_size=_size(file))


def _size(file: File) -> int:
    return file.size if file.kind is Kind.FILE else 0


def _differences(old: ImageTree, before: File, new: ImageTree, after: File) -> tuple[str, ...]:
    left, right = before.node, after.node
    found = []
    if left.mode != right.mode and left.kind is not Kind.SYMLINK:
        found.append("mode")
    if (left.uid, left.gid) != (right.uid, right.gid):
        found.append("owner")
    if left.device != right.device:
        found.append("device")
    if sorted(old.xattrs(before)) != sorted(new.xattrs(after)):
        found.append("xattrs")
    if left.kind is Kind.SYMLINK and old.readlink(before) != new.readlink(after):
        found.append("target")
    if left.kind is Kind.FILE and not _same_content(old, before, new, after):
        found.append("content")
    return tuple(found)


def _same_content(old: ImageTree, before: File, new: ImageTree, after: File) -> bool:
    """Compare two files as streams, whose pieces need not have equal lengths."""
    if before.size != after.size:
        return False
    left, right = old.read(before), new.read(after)
    one = other = memoryview(b"")
    while True:
        one = one or memoryview(next(left, b""))
        other = other or memoryview(next(right, b""))
        size = min(len(one), len(other))
        if not size:
            return len(one) == len(other)
        if one[:size] != other[:size]:
            return False
        one, other = one[size:], other[size:]
