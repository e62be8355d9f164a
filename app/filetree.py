"""The files of an image as a tree of rows: read a folder at a time, when it is opened."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.words import size
from backend.escape import one_line
from backend.squashfs.inode import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from backend.sif.contents import File

_SHOWN_WASTE = 200
"""Hidden files that are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """One line of the tree.

    Attributes:
        path: Without a slash in front.
        mode: As ``ls -l`` prints it.
        owner: ``UID:GID``.
        size: Bytes; of a folder those of all files below it, None as long as unknown.
        layer: The layer that brought it, from 1.
        is_folder: Whether it can be opened.
        is_open: Whether what is in it is shown.
    """

    path: bytes
    mode: str
    owner: str
    size: int | None
    layer: int
    is_folder: bool
    is_open: bool = False

    @property
    def text(self) -> str:
        """The name, indented by its depth, with ``+`` at a folder and ``-`` at an open one."""
        folder, _, name = self.path.rpartition(b"/")
        depth = folder.count(b"/") + bool(folder)
        sign = ("- " if self.is_open else "+ ") if self.is_folder else "  "
        return "  " * depth + sign + os.fsdecode(name) + ("/" if self.is_folder else "")


class FileTree:
    """The folders that are open, and what is in them.

    Attributes:
        by_size: Whether the largest comes first in each folder, not the first by name.
    """

    def __init__(self) -> None:
        self.by_size = False
        self._open: dict[bytes, Sequence[FileRow]] = {}
        self._sizes: Mapping[bytes, int] = {}

    def open(self, folder: bytes, rows: Sequence[FileRow]) -> None:
        """Show what is in a folder; ``b""`` is the root."""
        self._open[folder] = rows

    def close(self, folder: bytes) -> bool:
        """Hide what is in a folder and in those below; False when it was not open."""
        was_open = folder in self._open
        below = [path for path in self._open if path == folder or path.startswith(folder + b"/")]
        for path in below:
            del self._open[path]
        return was_open

    def measure(self, sizes: Mapping[bytes, int]) -> None:
        """Take the sizes of folders."""
        self._sizes = sizes

    def rows(self) -> list[FileRow]:
        """Return the rows to be shown, from the top."""
        found = []
        waiting = [self._level(b"")]
        while waiting:
            row = next(waiting[-1], None)
            if row is None:
                waiting.pop()
                continue
            found.append(row)
            if row.is_open:
                waiting.append(self._level(row.path))
        return found

    def _level(self, folder: bytes) -> Iterator[FileRow]:
        rows = [self._row(row) for row in self._open.get(folder, ())]
        if self.by_size:
            rows.sort(key=lambda row: -(row.size or 0))
        return iter(rows)

    def _row(self, row: FileRow) -> FileRow:
        if not row.is_folder:
            return row
        return FileRow(
            path=row.path, mode=row.mode, owner=row.owner, layer=row.layer, is_folder=True,
            size=self._sizes.get(row.path), is_open=row.path in self._open,
        )  # fmt: skip


def read_folder(image: Path, folder: bytes) -> list[FileRow]:
    """Return what is in a folder of an image.

    Raises:
        BackendError: The image cannot be read, or has no such folder.
    """
    from backend.sif.contents import ImageTree

    with ImageTree(image) as tree:
        top, found = tree.need(folder or b"/", follow=False)
        return [
            _row(top + b"/" + name if top else name, file) for name, file in tree.entries(found)
        ]


def _row(path: bytes, file: File) -> FileRow:
    node = file.node
    is_folder = node.kind is Kind.DIRECTORY
    return FileRow(
        path=path, mode=file.mode, owner=f"{node.uid}:{node.gid}",
        size=None if is_folder else file.size, layer=file.layer + 1, is_folder=is_folder,
    )  # fmt: skip


def folder_sizes(image: Path, should_stop: Callable[[], bool]) -> dict[bytes, int]:
    """Return the bytes below each folder of an image.

    Raises:
        BackendError: The image cannot be read.
    """
    from backend.sif.contents import ImageTree, directory_sizes

    with ImageTree(image) as tree:
        return directory_sizes(tree, should_stop=should_stop)


def waste_lines(image: Path, should_stop: Callable[[], bool]) -> list[str]:
    """Return what each layer of an image brought and what of it nobody sees, as lines.

    Raises:
        BackendError: The image cannot be read.
    """
    from backend.sif.contents import ImageTree, survey

    with ImageTree(image) as tree:
        found = survey(tree, should_stop=should_stop)
    share = 100 * found.wasted // found.size if found.size else 0
    lines = [f"{size(found.wasted)} of {size(found.size)} wasted ({share} %)", ""]
    lines.append("LAYER     FILES    SIZE  WASTED  REMOVED")
    lines += [
        f"{number:>5} {layer.files:>9} {size(layer.size):>7} {size(layer.wasted):>7} "
        f"{layer.removed:>8}"
        for number, layer in enumerate(found.layers, 1)
    ]
    if found.waste:
        lines += ["", "WASTED  LAYER  FILE"]
        lines += [
            f"{size(one.size):>6} {one.layer + 1:>6}  {one_line(os.fsdecode(one.path), limit=1000)}"
            for one in found.waste[:_SHOWN_WASTE]
        ]
    return lines
