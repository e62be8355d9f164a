"""The files of an image: a tree that is read as far as it is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.filetree import FileRow, FileTree
from app.screens.panes import List
from app.words import size
from widgets.roster import Column

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_COLUMNS: tuple[Column[FileRow], ...] = (
    Column(
        key="mode", title="MODE", width=10, text=lambda row: row.mode, rank=1, tone=lambda _: "dim"
    ),
    Column(
        key="owner", title="OWNER", width=11, text=lambda row: row.owner, right=True, rank=2,
        tone=lambda _: "dim",
    ),
    Column(
        key="size", title="SIZE", width=6, right=True,
        text=lambda row: ".." if row.size is None else size(row.size),
    ),
    Column(key="layer", title="LAYER", width=5, text=lambda row: str(row.layer), right=True),
    Column(key="name", title="NAME", width=20, text=lambda row: row.text, stretch=True),
)  # fmt: skip


class Files(List[FileRow]):
    """The tree; Enter opens and closes a folder, once its user has read what is in it."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  (Textual's name)
        super().__init__(_COLUMNS, key=lambda row: row.path, empty=("reading ...",), id=id)
        self._tree = FileTree()

    def open(self, folder: bytes, rows: Sequence[FileRow]) -> None:
        """Show what is in a folder; ``b""`` is the root."""
        self._tree.open(folder, rows)
        self.show(self._tree.rows())

    def close(self, folder: bytes) -> bool:
        """Hide what is in a folder; False when it was not open."""
        was_open = self._tree.close(folder)
        self.show(self._tree.rows())
        return was_open

    def measure(self, sizes: Mapping[bytes, int]) -> None:
        """Show the sizes of folders."""
        self._tree.measure(sizes)
        self.show(self._tree.rows())

    def say(self, reason: str) -> None:
        """Say why there is nothing."""
        self.empty = (reason,)
        self.refresh()

    def sort_by(self, key: str, *, reverse: bool = False) -> None:
        """Put the largest of each folder first, or the names in order again."""
        del reverse
        self._tree.by_size = key == "size" and not self._tree.by_size
        self.show(self._tree.rows())
