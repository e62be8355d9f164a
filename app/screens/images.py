"""The images on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from textual import on, work
from textual.containers import Horizontal
from textual.message import Message
from textual.worker import get_current_worker

from app.commands import BY_ID, CommandLine
from app.forms import push_form
from app.inspection import inspect_file
from app.requests import CommandRequested, JobRequested, RunRequested
from app.screens.filtering import FilterScreen
from app.screens.image import ImageScreen
from app.screens.inspector import Inspector
from app.screens.view import List, bindings
from app.words import age, count, short_path, size, timestamp
from backend.catalog import Image
from backend.errors import BackendError
from backend.escape import one_line
from widgets.roster import Column, Roster
from widgets.status_line import StatusLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from textual.widget import Widget

    from app.board import Board
    from app.desk import Desk

INSPECT_WIDTH = 100
"""Columns from which the image under the cursor is shown beside the list."""


@dataclass
class _Found(Message):
    """The catalogue was read, or a part of it."""

    images: Sequence[Image]
    complete: bool


class ImagesScreen(FilterScreen[Image]):
    """The list, and beside it what is inside the image under the cursor."""

    VIEW = "images"
    TAB = "images"
    HAS_DOCK = True
    BINDINGS = bindings("images")

    def __init__(self, desk: Desk, board: Board) -> None:
        super().__init__(desk, board)
        self._complete = False
        self._ended = -1

    def compose_body(self) -> Iterable[Widget]:
        """Return the list, the inspector and, where there is no room for it, two lines."""
        yield StatusLine(id="summary")
        with Horizontal(id="panes"):
            yield List(
                _columns(self.desk),
                key=lambda image: image.path,
                empty=("Reading the images ...",),
                marks=True,
                id="list",
            )
            yield Inspector(id="inspector")
        yield StatusLine(id="preview", classes="pane-title")
        yield StatusLine(id="preview-path")

    def on_mount(self) -> None:
        """Read the catalogue."""
        super().on_mount()
        self.restore_order("created")
        self.roster.focus()

    @property
    def roster(self) -> Roster[Image]:
        """The list."""
        return self.query_one("#list", List)

    # Reading the catalogue

    def reload(self) -> None:
        """Read the catalogue again."""
        self._scan()

    def show_board(self) -> None:
        """Show how the jobs stand; read the catalogue again when one has ended."""
        super().show_board()
        ended = self.board.count("done")
        if ended != self._ended:
            self._ended = ended
            self.reload()

    @work(thread=True, exclusive=True, group="catalog")
    def _scan(self) -> None:
        worker = get_current_worker()
        for images in self.desk.catalog.scan(lambda: worker.is_cancelled):
            if worker.is_cancelled:
                return
            self.post_message(_Found(images, complete=False))
        self.post_message(_Found((), complete=True))

    @on(_Found)
    def _show_found(self, event: _Found) -> None:
        self._complete = event.complete
        if event.complete:
            self.board.place = _free_space(self.desk)
            self.show_board()
        else:
            self.roster.show(event.images)
        self._show_summary()

    def _nothing(self) -> tuple[str, ...]:
        if self.roster.rows:
            return (f"No image matches {one_line(self.roster.wanted)}", "", "esc  clear the filter")
        folders = [f"    {one_line(str(folder))}" for folder in self.desk.catalog.folders]
        return (
            "No image files here yet.  Looked in:",
            *folders,
            "",
            "p    pull one, for example docker.io/library/alpine:3.20",
            "b    build one from a Dockerfile",
            "5    see what this host can do",
            "?    all keys",
        )

    # What the cursor is on

    @on(Roster.Changed, "#list")
    def _show_summary(self) -> None:
        roster = self.roster
        roster.empty = self._nothing() if self._complete else ("Reading the images ...",)
        marked = roster.marked
        text = count(len(roster.rows), "image")
        if roster.wanted:
            text = f"{len(roster.shown)} of {text}"
        if marked:
            text += f", {len(marked)} marked ({size(sum(image.size for image in marked))})"
        order = f"sort: {roster.sorted_by}{' reversed' if roster.reverse else ''}"
        wanted = f"filter: {one_line(roster.wanted)}" if roster.wanted else "filter: none  (/)"
        state = "" if self._complete else "   reading ..."
        self.query_one("#summary", StatusLine).show(f"{text}{state}", f"{order}   {wanted}")

    @on(Roster.Highlighted, "#list")
    def _show_current(self) -> None:
        self.show_command()
        image = self.roster.current
        title, path = (
            ("", "") if image is None else (_preview(image), one_line(short_path(image.path)))
        )
        self.query_one("#preview", StatusLine).show(title)
        self.query_one("#preview-path", StatusLine).show(path)
        self._inspect(image)

    @work(exclusive=True, group="inspect")
    async def _inspect(self, image: Image | None) -> None:
        if self.size.width < INSPECT_WIDTH:
            return
        inspector = self.query_one(Inspector)
        if image is None:
            inspector.show("", {})
            return
        try:
            inspector.show(image.title, inspect_file(Path(image.path)))
        except BackendError as error:
            inspector.show(image.title, {"Problem": [error.message, error.why, error.hint]})

    def on_resize(self) -> None:
        """Fill the inspector when it comes into sight."""
        super().on_resize()
        if self.is_mounted:
            self._inspect(self.roster.current)

    def subject(self) -> Mapping[str, str]:
        """Return the image under the cursor."""
        image = self.roster.current
        if image is None:
            return {}
        reference = {"reference": f"docker://{image.title}"} if image.tag else {}
        return {"image": short_path(image.path), **reference}

    # Actions

    @on(Roster.Opened, "#list")
    def action_open(self) -> None:
        """Look inside the image."""
        image = self.roster.current
        if image:
            self.app.push_screen(ImageScreen(self.desk, self.board, image))

    def action_run(self) -> None:
        """Run the image."""
        self._request_run("run")

    def action_shell(self) -> None:
        """Open a shell in the image."""
        self._request_run("shell")

    def _request_run(self, verb: str) -> None:
        if image := self.roster.current:
            self.post_message(RunRequested(image, verb))

    def action_push(self) -> None:
        """Ask where to push the image."""
        if image := self.roster.current:
            self.post_message(JobRequested(push_form(image)))

    def action_verify(self) -> None:
        """Check the image; what comes out is shown."""
        if image := self.roster.current:
            command = BY_ID["images.verify"].command({"image": short_path(image.path)})
            self.post_message(CommandRequested(command=command, done="", shows_output=True))

    def action_delete(self) -> None:
        """Ask, then delete the image or all marked ones."""
        images = self.roster.chosen
        if not images:
            return
        total = size(sum(image.size for image in images))
        names = [f"  {image.title}  {size(image.size)}  {image.path}" for image in images[:8]]
        rest = [f"  ... and {len(images) - 8} more"] if len(images) > 8 else []
        paths = tuple(short_path(image.path) for image in images)
        self.post_message(
            CommandRequested(
                command=CommandLine(argv=("rm", *paths)),
                question=[f"Delete {count(len(images), 'image file')}, {total}?", *names, *rest],
                done=f"deleted {count(len(images), 'image file')}, {total}",
                go="Delete",
            )
        )


def _columns(desk: Desk) -> tuple[Column[Image], ...]:
    def created(image: Image) -> float:
        return timestamp(image.created) or image.modified_ns / 1e9

    return (
        Column(key="name", title="IMAGE", width=16, stretch=True, text=lambda image: image.name),
        Column(key="tag", title="TAG", width=12, text=lambda image: image.tag or "-"),
        Column(
            key="format",
            title="FORMAT",
            width=10,
            rank=1,
            text=lambda image: image.kind,
            tone=lambda image: "bad" if image.kind == "unreadable" else "",
        ),
        Column(key="arch", title="ARCH", width=7, rank=3, text=lambda image: image.architecture),
        Column(
            key="size",
            title="SIZE",
            width=6,
            right=True,
            text=lambda image: size(image.size),
            order=lambda image: image.size,
        ),
        Column(
            key="created",
            title="AGE",
            width=8,
            rank=2,
            text=lambda image: age(desk.now() - created(image)),
            order=lambda image: -created(image),
        ),
        Column(
            key="signed",
            title="SIGNED",
            width=6,
            rank=4,
            text=lambda image: "yes" if image.signatures else "-",
        ),
    )


def _preview(image: Image) -> str:
    if image.problem:
        return f"{image.title}  cannot be read: {image.problem}"
    digest = f"{image.digest[:19]}  " if image.digest else ""
    layers = count(image.layers, "layer")
    return f"{image.title}  {digest}{image.architecture}  {layers}  {size(image.size)}"


def _free_space(desk: Desk) -> str:
    try:
        usage = desk.disk_usage(desk.catalog.folders[0])
    except OSError:
        return ""
    return f"free {size(usage.free)} of {size(usage.total)}"
