"""The OCI layer rules, slowly and plainly: what a stack of layers must come to.

Layers are applied from the base up, each to a dictionary of paths.  It shares no code and
no idea with ours, which goes from the top down and reads each layer once.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.squashfs import Seen

if TYPE_CHECKING:
    from tests.support.images import Entry

Path = tuple[str, ...]


@dataclass(eq=False)
class Thing:
    """An inode: names that share one are hard links."""

    kind: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    content: bytes | int = b""
    xattrs: dict[str, bytes] = field(default_factory=dict)
    stated: bool = True
    target: Thing | None = None


class BadLinkError(Exception):
    """A hard link that can be seen leads nowhere, or to a directory."""


_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "character",
    tarfile.BLKTYPE: "block",
}


def _split(name: str) -> Path:
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            parts.pop()
        elif part not in {"", "."}:
            parts.append(part)
    return tuple(parts)


def _below(path: Path, parent: Path) -> bool:
    return len(path) > len(parent) and path[: len(parent)] == parent


def _thing(entry: Entry) -> Thing:
    content: bytes | int = entry.data
    if entry.kind == tarfile.SYMTYPE:
        content = entry.link.encode()
    elif entry.kind in {tarfile.CHRTYPE, tarfile.BLKTYPE}:
        major, minor = entry.device
        content = (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12
    xattrs = {
        key.removeprefix("SCHILY.xattr."): value.encode("utf-8", "surrogateescape")
        for key, value in entry.pax.items()
        if key.startswith("SCHILY.xattr.")
    }
    return Thing(
        kind=_KINDS[entry.kind],
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        mtime=entry.mtime,
        content=content,
        xattrs=xattrs,
    )


def _parents(tree: dict[Path, Thing], path: Path) -> None:
    for depth in range(1, len(path)):
        parent = path[:depth]
        if parent not in tree or tree[parent].kind != "directory":
            tree[parent] = Thing("directory", stated=False)


def _ends_before(tree: dict[Path, Thing], path: Path) -> bool:
    """Tell whether something that is no directory stands above a path."""
    above = (tree.get(path[:depth]) for depth in range(1, len(path)))
    return any(thing is not None and thing.kind != "directory" for thing in above)


def _put(tree: dict[Path, Thing], path: Path, thing: Thing) -> None:
    _parents(tree, path)
    if thing.kind == "directory" and path in tree and tree[path].kind == "directory":
        tree[path] = thing
        return
    for other in [other for other in tree if _below(other, path)]:
        del tree[other]
    tree[path] = thing


def _own_tree(
    entries: list[Entry], lower: dict[Path, Thing]
) -> tuple[dict[Path, Thing], set[Path], set[Path]]:
    """Return a layer by itself, its whiteouts and its opaque directories."""
    own: dict[Path, Thing] = {(): Thing("directory", stated=False)}
    whiteouts, opaque = set(), set()
    later: list[tuple[Thing, Path]] = []
    for entry in entries:
        path = _split(entry.name)
        if path and path[-1] == ".wh..wh..opq":
            if not _ends_before(own, path):
                opaque.add(path[:-1])
                _parents(own, path)
        elif path and path[-1].startswith(".wh."):
            if not _ends_before(own, path):
                whiteouts.add((*path[:-1], path[-1][4:]))
                _parents(own, path)
        elif entry.kind == tarfile.LNKTYPE:
            target = own.get(_split(entry.link))
            if target is None or target.kind == "directory":
                target = Thing("link")
                later.append((target, _split(entry.link)))
            _put(own, path, target)
        else:
            _put(own, path, _thing(entry))
    for link, target_path in later:
        found = own.get(target_path)
        if found is None or _last(found) is link:
            found = lower.get(target_path)
        link.target = found
    return own, whiteouts, opaque


def _last(thing: Thing) -> Thing:
    """Follow hard links to what they stand for."""
    while thing.target is not None:
        thing = thing.target
    return thing


def squash(layers: list[list[Entry]]) -> dict[Path, Thing]:
    """Return the tree that the layers, base first, come to."""
    tree: dict[Path, Thing] = {(): Thing("directory", stated=False)}
    for entries in layers:
        own, whiteouts, opaque = _own_tree(entries, tree)
        kept = {
            path: thing
            for path, thing in tree.items()
            if not any(path == gone or _below(path, gone) for gone in whiteouts)
            and not any(_below(path, folder) for folder in opaque)
        }
        for path, thing in own.items():
            before = kept.get(path)
            if thing.kind == "directory" and before is not None and before.kind == "directory":
                if thing.stated:
                    kept[path] = thing
                continue
            for other in [other for other in kept if _below(other, path)]:
                del kept[other]
            kept[path] = thing
        tree = kept
    return {path: _final(thing) for path, thing in tree.items()}


def _final(thing: Thing) -> Thing:
    last = _last(thing)
    if last.kind == "link" or (last is not thing and last.kind == "directory"):
        raise BadLinkError
    return last


def expected(layers: list[list[Entry]]) -> dict[bytes, Seen]:
    """Return what a judge must see of the squashed layers."""
    tree = squash(layers)
    names: dict[int, list[bytes]] = {}
    for path, thing in tree.items():
        names.setdefault(id(thing), []).append(_joined(path))
    return {
        _joined(path): Seen(
            kind=thing.kind,
            mode=thing.mode if thing.kind != "symlink" else 0o777,
            uid=thing.uid,
            gid=thing.gid,
            mtime=thing.mtime,
            content=thing.content,
            xattrs=tuple(sorted(thing.xattrs.items())),
            same=tuple(sorted(names[id(thing)])),
        )
        for path, thing in tree.items()
    }


def _joined(path: Path) -> bytes:
    return "/".join(path).encode("utf-8", "surrogateescape")
