"""Beside the images: the folders that they are in, and choices that people ask for often."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.commands import CommandLine
from app.screens.panes import List
from app.words import short_path, size
from backend.selection import SELECTIONS
from widgets.roster import Column

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from backend.catalog import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A folder, or a choice.

    Attributes:
        key: What identifies it; empty for all images.
        title: What it is called.
        takes: Whether an image belongs to it, at a time in seconds since 1970.
        command: What lists its images.
        count: How many there are.
        size: Their bytes.
    """

    key: str
    title: str
    takes: Callable[[Image, float], bool]
    command: CommandLine
    count: int = 0
    size: int = 0


EVERYTHING = Source(
    key="", title="all images", takes=lambda _image, _now: True, command=CommandLine(argv=("ls",))
)


def sources_of(folders: Sequence[Path], images: Sequence[Image], now: float) -> list[Source]:
    """Return what there is to choose from, with what is in each."""
    found = [EVERYTHING, *(_folder(folder) for folder in folders)]
    found += [
        Source(
            key=f"only:{name}",
            title=one.title,
            takes=one.takes,
            command=CommandLine(argv=("ls", "--only", name)),
        )
        for name, one in SELECTIONS.items()
    ]
    return [_counted(source, images, now) for source in found]


def _folder(folder: Path) -> Source:
    shown = str(folder)
    return Source(
        key=f"folder:{shown}",
        title=short_path(shown) if folder != Path.cwd() else "./",
        takes=lambda image, _now: image.path.rpartition("/")[0] == shown,
        command=CommandLine(argv=("ls", shown)),
    )


def _counted(source: Source, images: Sequence[Image], now: float) -> Source:
    inside = [image.size for image in images if source.takes(image, now)]
    return replace(source, count=len(inside), size=sum(inside))


_COLUMNS: tuple[Column[Source], ...] = (
    Column(key="name", title="SHOW", width=12, stretch=True, text=lambda source: source.title),
    Column(key="count", title="", width=5, right=True, text=lambda source: str(source.count)),
    Column(
        key="size",
        title="",
        width=5,
        right=True,
        rank=1,
        text=lambda source: size(source.size) if source.count else "",
    ),
)


class Sources(List[Source]):
    """The list; the cursor chooses."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  (Textual's name)
        super().__init__(_COLUMNS, key=lambda source: source.key, id=id)
