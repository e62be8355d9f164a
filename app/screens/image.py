"""One image: what it says about itself, page by page."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from textual import on, work
from textual.message import Message
from textual.worker import get_current_worker

from app.commands import BY_ID, CommandLine
from app.filetree import FileRow, folder_sizes, read_folder, waste_lines
from app.inspection import inspect_file
from app.requests import CommandRequested
from app.screens.files import Files
from app.screens.imageactions import ImageActions, with_facts
from app.screens.inspector import Inspector
from app.screens.panes import Text, bindings
from app.words import short_path
from backend.errors import BackendError
from backend.escape import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from textual.widget import Widget

    from app.board import Board
    from app.desk import Desk
    from backend.catalog import Image


_COPY_S = 900.0
"""Seconds that copying out of an image may take."""


@dataclass
class _FolderRead(Message):
    """A folder of the image was read."""

    folder: bytes
    rows: list[FileRow]


@dataclass
class _FilesMeasured(Message):
    """All files of the image were looked at."""

    sizes: dict[bytes, int]
    waste: list[str]


@dataclass
class _FilesUnreadable(Message):
    """They could not be."""

    reason: str


class ImageScreen(ImageActions):
    """The image."""

    VIEW = "image"
    TAB = "images"
    BINDINGS = bindings("image")

    def __init__(self, desk: Desk, board: Board, image: Image) -> None:
        super().__init__(desk, board)
        self.image = image

    def compose_body(self) -> Iterable[Widget]:
        """Return the inspector."""
        yield Inspector({"Files": Files(id="files")}, id="inspector")

    def on_mount(self) -> None:
        """Read the file."""
        super().on_mount()
        self.query_one(Text).focus()
        self._load()

    def _load(self) -> None:
        inspector = self.query_one(Inspector)
        try:
            found = inspect_file(Path(self.image.path))
        except BackendError as error:
            inspector.show(self.image.title, {"Problem": [error.message, error.why, error.hint]})
            return
        pages = with_facts({**found, "Waste": ["reading ..."]}, self.image, self.desk.now())
        inspector.show(self.image.title, pages, panes=True)
        self._read_folder(b"")
        self._measure()

    @work(thread=True)
    def _read_folder(self, folder: bytes) -> None:
        try:
            rows = read_folder(Path(self.image.path), folder)
        except (BackendError, OSError) as error:
            self.post_message(_FilesUnreadable(one_line(str(error))))
        else:
            self.post_message(_FolderRead(folder, rows))

    @work(thread=True, exclusive=True, group="measure")
    def _measure(self) -> None:
        worker = get_current_worker()
        path = Path(self.image.path)
        try:
            sizes = folder_sizes(path, lambda: worker.is_cancelled)
            waste = waste_lines(path, lambda: worker.is_cancelled)
        except (BackendError, OSError) as error:
            self.post_message(_FilesUnreadable(one_line(str(error))))
        else:
            if not worker.is_cancelled:
                self.post_message(_FilesMeasured(sizes, waste))

    @on(_FolderRead)
    def _show_folder(self, event: _FolderRead) -> None:
        self.query_one(Files).open(event.folder, event.rows)

    @on(_FilesMeasured)
    def _show_sizes(self, event: _FilesMeasured) -> None:
        self.query_one(Files).measure(event.sizes)
        self.query_one(Inspector).replace("Waste", event.waste)

    @on(_FilesUnreadable)
    def _show_reason(self, event: _FilesUnreadable) -> None:
        self.query_one(Files).say(event.reason)
        self.query_one(Inspector).replace("Waste", [event.reason])

    @on(Files.Opened)
    def _open_or_close(self, event: Files.Opened) -> None:
        event.stop()
        files = self.query_one(Files)
        row = files.current
        if row and row.is_folder and not files.close(row.path):
            self._read_folder(row.path)

    @on(Files.Highlighted)
    def _point(self) -> None:
        self.show_command()

    def chosen_images(self) -> Sequence[Image]:
        """Return the image."""
        return (self.image,)

    @property
    def current_image(self) -> Image:
        """The image."""
        return self.image

    def subject(self) -> Mapping[str, str]:
        """Return the image."""
        return {"image": short_path(self.image.path), "reference": self.image.title}

    def command(self) -> CommandLine:
        """Return what prints the same."""
        files = self.query_one(Files)
        if files.display and files.current:
            path = f"/{os.fsdecode(files.current.path)}"
            return CommandLine(argv=("ls", "-l", short_path(self.image.path), path))
        return BY_ID["images.open"].command(self.subject())

    def action_extract(self) -> None:
        """Ask where to, and copy what the cursor is on out of the image."""
        from app.dialogs.prompt import PromptDialog

        files = self.query_one(Files)
        row = files.current if files.display else None
        if row is None:
            self.notify("go to a file first: [ shows the files")
            return
        path = os.fsdecode(row.path)

        def answered(target: str | None) -> None:
            if target:
                source = f"{short_path(self.image.path)}:/{path}"
                command = CommandLine(argv=("cp", source, target))
                self.post_message(
                    CommandRequested(
                        command=command, done=f"copied /{path} to {target}", timeout_s=_COPY_S
                    )
                )

        name = path.rpartition("/")[2]
        self.app.push_screen(PromptDialog(f"Copy /{one_line(path)} to", name), answered)

    def action_next_tab(self) -> None:
        """Show the next page."""
        self.query_one(Inspector).step(1)

    def action_previous_tab(self) -> None:
        """Show the page before."""
        self.query_one(Inspector).step(-1)
