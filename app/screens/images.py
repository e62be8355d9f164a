"""The images on this machine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from textual import on, work
from textual.containers import Horizontal
from textual.message import Message
from textual.worker import get_current_worker

from app import imagelist
from app.commands import CommandLine
from app.inspection import inspect_file
from app.requests import CommandRequested, RepositoryRequested
from app.screens.filtering import FilterScreen
from app.screens.imageactions import ImageActions, with_facts
from app.screens.inspector import Inspector
from app.screens.panes import List, bindings
from app.screens.sources import EVERYTHING, Source, Sources, sources_of
from app.words import age, count, short_path, size, timestamp
from backend.catalog import SUFFIXES, Image
from backend.errors import BackendError
from backend.escape import one_line
from backend.inotify import CLOSE_WRITE, CREATE, DELETE, MOVED_FROM, MOVED_TO, Inotify
from widgets.roster import Column, Roster
from widgets.status_line import StatusLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from textual.widget import Widget

    from app.board import Board
    from app.desk import Desk

INSPECT_WIDTH = 100
"""Columns from which the image under the cursor is shown beside the list."""
_CHANGES = CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE
_SOON_S = 0.3
"""Seconds after which a change is looked at: often it is one of several."""
SOURCES_WIDTH = 160
"""Columns from which folders and choices are."""
_PAINT_S = 1.0
"""Seconds that a screen may take to be drawn for the first time, before anything is read."""


@dataclass
class _Found(Message):
    """The catalogue was read, or a part of it."""

    images: Sequence[Image]
    running: frozenset[str]
    complete: bool


@dataclass
class _Counted(Message):
    """How many images there are of each kind is known."""

    sources: Sequence[Source]


class ImagesScreen(ImageActions, FilterScreen[Image]):
    """The list, and beside it what is inside the image under the cursor."""

    VIEW = "images"
    TAB = "images"
    HAS_DOCK = True
    BINDINGS = bindings("images")

    def __init__(self, desk: Desk, board: Board) -> None:
        super().__init__(desk, board)
        self._complete = False
        self._ended = -1
        self._images: Sequence[Image] = ()
        self._in_use: frozenset[str] = frozenset()
        self._source = EVERYTHING
        self._watch: Inotify | None = None
        self._pending = False
        self._painted = Event()

    def compose_body(self) -> Iterable[Widget]:
        """Return the list, the inspector and, where there is no room for it, two lines."""
        yield StatusLine(id="summary")
        with Horizontal(id="panes"):
            yield Sources(id="sources")
            yield List(
                self.columns(_columns(self.desk, lambda image: image.path in self._in_use)),
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
        self._watch = Inotify()
        for folder in self.desk.catalog.folders:
            self._watch.add(folder, _CHANGES)
        asyncio.get_running_loop().add_reader(self._watch.fileno(), self._folder_changed)

    def on_unmount(self) -> None:
        """Stop watching the folders."""
        if self._watch:
            asyncio.get_running_loop().remove_reader(self._watch.fileno())
            self._watch.close()
            self._watch = None

    def _folder_changed(self) -> None:
        """Read the catalogue again soon, if an image came, went or changed."""
        names = self._watch.names() if self._watch else set()
        if not self._pending and any(name.endswith(SUFFIXES) for name in names):
            self._pending = True
            self.set_timer(_SOON_S, self._read_again)

    def _read_again(self) -> None:
        self._pending = False
        self.reload()
        self.call_after_refresh(self._painted.set)

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
        ended = self.board.count("done", "failed")  # a failed check is news of its image
        if ended != self._ended:
            self._ended = ended
            self.reload()

    @work(thread=True, exclusive=True, group="catalog")
    def _scan(self) -> None:
        worker = get_current_worker()
        self._painted.wait(_PAINT_S)  # else the paint would take turns with the reading
        running = _running_images()
        images: Sequence[Image] = ()
        for images in self.desk.catalog.scan(lambda: worker.is_cancelled):
            if worker.is_cancelled:
                return
            self.post_message(_Found(images, running, complete=False))
        self.post_message(_Found(images, running, complete=True))

    @on(_Found)
    def _show_found(self, event: _Found) -> None:
        self._complete = event.complete
        if not event.complete:
            self._images, self._in_use = event.images, event.running
            self._show_source()
        self._show_summary()

    def _show_source(self) -> None:
        """Show the images of the chosen folder or choice."""
        now = self.desk.now()
        self.roster.show([image for image in self._images if self._source.takes(image, now)])
        if self.size.width >= SOURCES_WIDTH:
            self._count_sources(self._images)

    @work(thread=True, exclusive=True, group="sources")
    def _count_sources(self, images: Sequence[Image]) -> None:
        found = sources_of(self.desk.catalog.folders, images, self.desk.now())
        if not get_current_worker().is_cancelled:
            self.post_message(_Counted(found))

    @on(_Counted)
    def _show_counts(self, event: _Counted) -> None:
        self.query_one(Sources).show(event.sources)

    @on(Roster.Highlighted, "#sources")
    def _choose_source(self, event: Roster.Highlighted) -> None:
        source = self.query_one(Sources).current
        if event.roster.has_focus and source and source.key != self._source.key:
            self._choose(source)

    def _choose(self, source: Source) -> None:
        self._source = source
        self.roster.clear_marks()
        self._show_source()
        self._show_summary()
        self.show_command()

    def action_only(self) -> None:
        """Choose a folder, or what is unsigned, large, unused or failed to verify."""
        from app.dialogs.choose import ChooseDialog

        found = sources_of(self.desk.catalog.folders, self._images, self.desk.now())
        sources = {one.key: one for one in found}
        names = {key: f"{one.title}  {one.count}" for key, one in sources.items()}

        def chosen(key: str | None) -> None:
            if key is not None:
                self._choose(sources[key])
                self.query_one(Sources).select(key)

        self.app.push_screen(ChooseDialog("Show only", names, self._source.key), chosen)

    def go_back(self) -> bool:
        """Undo one thing: the filter, the marks, then the choice of a folder or kind."""
        if super().go_back():
            return True
        if self._source.key == EVERYTHING.key:
            return False
        self._choose(EVERYTHING)
        self.query_one(Sources).select(EVERYTHING.key)
        return True

    def _reading(self) -> tuple[str, ...]:
        folders = (f"    {one_line(str(folder))}" for folder in self.desk.catalog.folders)
        return "Reading the images ...", *folders

    def _nothing(self) -> tuple[str, ...]:
        if self._images and not self.roster.rows:
            return (f"No image is {one_line(self._source.title)}", "", "esc  show all images")
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
        roster.empty = self._nothing() if self._complete else self._reading()
        marked = roster.marked
        text = count(len(roster.rows), "image")
        if self._source.key != EVERYTHING.key:
            text += f" ({one_line(self._source.title)})"
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
            pages = with_facts(inspect_file(Path(image.path)), image, self.desk.now())
            inspector.show(image.title, pages)
        except BackendError as error:
            inspector.show(image.title, {"Problem": [error.message, error.why, error.hint]})

    def on_resize(self) -> None:
        """Fill the inspector when it comes into sight."""
        super().on_resize()
        if self.is_mounted:
            self._inspect(self.roster.current)
            self._show_source()

    def subject(self) -> Mapping[str, str]:
        """Return the image under the cursor."""
        image = self.roster.current
        if image is None:
            return {}
        reference = {"reference": f"docker://{image.title}"} if image.tag else {}
        repository = {"repository": f"docker://{image.name}"} if image.tag else {}
        return {"image": short_path(image.path), **reference, **repository}

    def command(self) -> CommandLine:
        """Return what looks inside the image; what lists the choice while that has the focus."""
        if self.focused is self.query_one(Sources):
            return self._source.command
        return super().command()

    # Actions

    def chosen_images(self) -> Sequence[Image]:
        """Return the marked images, else the one under the cursor."""
        return self.roster.chosen

    @property
    def current_image(self) -> Image | None:
        """The image under the cursor."""
        return self.roster.current

    @on(Roster.Opened, "#list")
    def action_open(self) -> None:
        """Look inside the image."""
        from app.screens.image import ImageScreen

        image = self.roster.current
        if image:
            self.app.push_screen(ImageScreen(self.desk, self.board, image))

    def action_source(self) -> None:
        """Go to the repository that the image is from."""
        image = self.roster.current
        if image and image.tag and not image.source.startswith(("library:", "shub:")):
            self.post_message(RepositoryRequested(image.name))
        elif image:
            self.notify(f"{image.file_name} does not say which registry it is from")

    def action_save(self) -> None:
        """Ask for a file, and write the list to it."""
        from app.dialogs.prompt import PromptDialog

        self.app.push_screen(PromptDialog("Save the list as", "images.csv"), self._save)

    def _save(self, name: str | None) -> None:
        if not name:
            return
        path = Path(name).expanduser().absolute()
        is_json = path.suffix == ".json"
        images = self.roster.shown
        text = imagelist.as_json(images) if is_json else imagelist.as_csv(images)
        try:
            with path.open("x", encoding="utf-8", newline="") as file:
                file.write(text)
        except OSError as error:
            self.notify(f"cannot write {path}: {error.strerror}", severity="error")
        else:
            self.notify(f"wrote {count(len(images), 'image')} to {path}")

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


def _running_images() -> frozenset[str]:
    """Return the files of which a container runs in the background."""
    from backend.runtime.instances import list_instances

    try:
        return frozenset(one.record.image for one in list_instances())
    except (BackendError, OSError):  # nothing about containers can be known here
        return frozenset()


_TRUST_TONES = {
    "verified": "good", "=source": "good", "BAD SIG": "bad", "DAMAGED": "bad", "DIFFERS": "bad",
}  # fmt: skip


def _columns(desk: Desk, is_running: Callable[[Image], bool]) -> tuple[Column[Image], ...]:
    def used(image: Image) -> str:
        if is_running(image):
            return "running"
        return age(desk.now() - image.used) if image.used else "never"

    def created(image: Image) -> float:
        return timestamp(image.created) or image.modified_ns / 1e9

    return (
        Column(key="name", title="IMAGE", width=22, stretch=True, text=lambda image: image.name),
        Column(key="tag", title="TAG", width=12, text=lambda image: image.tag or "-"),
        Column(
            key="format",
            title="FORMAT",
            width=10,
            rank=2,
            text=lambda image: image.kind,
            tone=lambda image: "bad" if image.kind == "unreadable" else "",
        ),
        Column(key="arch", title="ARCH", width=7, rank=5, text=lambda image: image.architecture),
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
            rank=3,
            text=lambda image: age(desk.now() - created(image)),
            order=lambda image: -created(image),
        ),
        Column(
            key="trust",
            title="TRUST",
            width=8,
            rank=1,
            text=lambda image: image.trust or "-",
            tone=lambda image: _TRUST_TONES.get(image.trust, ""),
        ),
        Column(
            key="used",
            title="USED",
            width=8,
            rank=6,
            text=used,
            order=lambda image: (not is_running(image), -image.used),
            tone=lambda image: "good" if is_running(image) else "",
        ),
    )


def _preview(image: Image) -> str:
    if image.problem:
        return f"{image.title}  cannot be read: {image.problem}"
    digest = f"{image.digest[:19]}  " if image.digest else ""
    layers = count(image.layers, "layer")
    return f"{image.title}  {digest}{image.architecture}  {layers}  {size(image.size)}"
