"""What all screens share: the two lines at the top, the job line, the command line, the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.containers import Horizontal
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Static

from app.commands import (
    BY_ID,
    LAB_VIEW,
    VIEWS,
    Action,
    CommandLine,
    actions_of,
    footer_of,
    key_name,
)
from app.requests import CustomRequested
from app.screens.jobtable import job_line
from app.words import bar, size
from backend.escape import one_line
from widgets.key_line import Key, KeyLine
from widgets.line_view import LineView
from widgets.roster import Roster
from widgets.status_line import StatusLine
from widgets.view_tabs import ViewTabs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from textual.app import ComposeResult

    from app.board import Board
    from app.desk import Desk
    from backend.config import CustomCommand

DOCK_WIDTH, DOCK_HEIGHT = 160, 40
"""Columns and lines from which there is room for jobs below a view."""

TOO_SMALL = """sifdeck needs 60x15, this terminal is {width}x{height}.

{jobs}

Enlarge the window, or type:
  sifdeck ls
  sifdeck jobs
  sifdeck pull URI

q  quit"""

_LEAST_WIDTH, _LEAST_HEIGHT = 60, 15


class ViewScreen(Screen[None]):
    """A screen of the deck.

    Args:
        desk: What it looks things up in.
        board: The jobs.
    """

    VIEW: ClassVar[str]
    """Where in the table of actions its own actions stand."""
    TAB: ClassVar[str]
    """Which of the five views is marked as the current one."""
    HAS_DOCK: ClassVar[bool] = False
    """Whether a large screen shows the jobs below it."""

    HORIZONTAL_BREAKPOINTS = [
        (0, "-tiny"),
        (_LEAST_WIDTH, "-narrow"),
        (100, "-normal"),
        (160, "-wide"),
    ]
    VERTICAL_BREAKPOINTS = [(0, "-flat"), (_LEAST_HEIGHT, "-short"), (35, "-tall")]

    def __init__(self, desk: Desk, board: Board) -> None:
        super().__init__()
        self.desk = desk
        self.board = board

    def compose(self) -> ComposeResult:
        """Lay out the lines that every screen has, and what is its own between them."""
        yield StatusLine(id="header")
        views = {**VIEWS, **LAB_VIEW} if self.desk.lab else VIEWS
        yield ViewTabs(views, self.TAB, numbered=True, id="views")
        if self.desk.tour:
            yield Static(self.desk.tour, id="tour", markup=False)
        yield from self.compose_body()
        yield StatusLine(id="job")
        yield StatusLine(id="command")
        yield KeyLine(id="keys")
        yield Static(id="too-small", markup=False)

    def compose_body(self) -> Iterable[Widget]:
        """Return what is this screen's own."""
        raise NotImplementedError

    def on_mount(self) -> None:
        """Fill the shared lines."""
        self.show_board()
        self.show_command()
        self.show_keys()

    def on_screen_resume(self) -> None:
        """Catch up on what happened while another screen was shown."""
        self.show_board()
        self.show_keys()

    def on_resize(self) -> None:
        """Show the jobs below the rest where there is room for them."""
        if self.is_mounted:
            self._fit_dock()
            self.show_board()

    def resize_pane(self, percent: int) -> None:
        """Make the focused pane larger, or smaller, by a part of what it shares with others."""
        pane = self.focused
        while pane and not isinstance(pane.parent, Horizontal | Screen):
            pane = pane.parent if isinstance(pane.parent, Widget) else None
        box = pane.parent if pane else None
        if pane is None or not isinstance(box, Widget):
            return
        if sum(child.display and child.outer_size.height > 1 for child in box.children) < 2:
            return  # there is nothing to share with
        if isinstance(box, Horizontal):
            share = 100 * pane.outer_size.width // max(1, box.size.width)
            pane.styles.width = f"{_within(share + percent)}%"
        else:
            share = 100 * pane.outer_size.height // max(1, box.size.height)
            pane.styles.height = f"{_within(share + percent)}%"

    def _fit_dock(self) -> None:
        if not self.HAS_DOCK:
            return
        fits = self.size.width >= DOCK_WIDTH and self.size.height >= DOCK_HEIGHT
        docks = self.query("#dock")
        if fits and not docks:
            from app.screens.dock import Dock

            self.mount(Dock(self.desk, self.board), before="#job")
        elif not fits:
            docks.remove()

    # What actions are about

    def subject(self) -> Mapping[str, str]:
        """Return what the words in braces of the table stand for here."""
        return {}

    def pulls(self) -> tuple[str, ...]:
        """Return the images that a pull is about: none, one or several."""
        reference = self.subject().get("reference")
        return (reference,) if reference else ()

    def command(self) -> CommandLine:
        """Return the command line that is shown: that of the first action of the footer."""
        actions = [action for action in actions_of(self.VIEW) if action.argv]
        return (actions or [BY_ID[f"deck.{self.TAB}"]])[0].command(self.subject())

    # The shared lines

    def show_command(self) -> None:
        """Show the command line that does the same."""
        if self.is_mounted:
            command = self.command()
            self.query_one("#command", StatusLine).show(
                f"$ {one_line(str(command))}", one_line(command.elsewhere)
            )

    def show_keys(self) -> None:
        """Show the keys that work here, dim those that do not work now."""
        actions = footer_of(*self.focused_views, self.VIEW, "deck")
        self.query_one("#keys", KeyLine).show([self._key(action) for action in actions])

    def _key(self, action: Action) -> Key:
        key = self.desk.keys(action)[0]
        return Key(
            key=key_name(key), label=action.label, action=action.id, enabled=self.can_do(action)
        )

    @property
    def focused_views(self) -> tuple[str, ...]:
        """Where in the table the actions of the focused pane stand."""
        if isinstance(self.focused, LineView):
            return ("log",)
        return ("list",) if isinstance(self.focused, Roster) else ()

    def can_do(self, action: Action) -> bool:
        """Tell whether an action may be done now."""
        return not (action.writes and self.desk.readonly)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Grey out what may not be done; Textual asks before it does anything."""
        found = BY_ID.get(f"{self.VIEW}.{action}")
        if found is not None and not self.can_do(found):
            return None
        return super().check_action(action, parameters)

    async def do(self, action: Action) -> None:
        """Do an action of the table, wherever its method is."""
        focused = self.focused
        node = self.app if action.view == "deck" else self
        if action.view in {"list", "log"} and focused:
            await self.app.run_action(action.name, default_namespace=focused)
        else:
            await self.app.run_action(action.name, default_namespace=node)

    def do_custom(self, command: CustomCommand) -> None:
        """Ask for a command of the user's own to be run on what the cursor is on."""
        self.post_message(CustomRequested(command, self.subject()))

    def reload(self) -> None:
        """Read again what is shown; jobs are always up to date."""

    def go_to(self, name: str) -> None:
        """Put the cursor on what is called so, where this view has such a thing."""

    def go_back(self) -> bool:
        """Undo one thing on this screen; False when there is nothing to undo."""
        focused = self.focused
        if isinstance(focused, LineView) and focused.wanted:
            focused.find("")
            return True
        return False

    def show_board(self) -> None:
        """Show how the jobs stand."""
        board = self.board
        head = f"sifdeck {self.desk.version}  {self.desk.user}"
        self.query_one("#header", StatusLine).show(
            head, _fitting(header_words(board), self.size.width - len(head) - 4)
        )
        if self.size.width < _LEAST_WIDTH or self.size.height < _LEAST_HEIGHT:
            jobs = _fitting(header_words(board), 0)
            width, height = self.size
            text = TOO_SMALL.format(width=width, height=height, jobs=jobs)
            self.query_one("#too-small", Static).update(text)
        active = len(board.active)
        self.query_one("#views", ViewTabs).show(self.TAB, {"jobs": str(active)} if active else {})
        if self.query("#dock"):
            from app.screens.dock import Dock

            self.query_one(Dock).show()
        row = next((row for row in board.active if row.state == "running"), None)
        self.query_one("#job", StatusLine).show(
            job_line(row) if row else "", "3 jobs" if row else ""
        )

    @on(ViewTabs.Chosen, "#views")
    async def _go_to_view(self, event: ViewTabs.Chosen) -> None:
        await self.app.run_action(f"app.{event.key}")

    @on(KeyLine.Pressed)
    async def _press(self, event: KeyLine.Pressed) -> None:
        await self.do(BY_ID[event.action])

    def on_descendant_focus(self) -> None:
        """Show the keys of the pane that has the focus, and its command line."""
        self.show_keys()
        self.show_command()


def header_words(board: Board) -> Iterator[str]:
    """Yield what the header says of the store and the jobs, the longest first."""
    words = {"running": "run", "queued": "wait", "failed": "fail"}
    counts = {word: board.count(word) for word in words} | {"failed": board.unseen_failures}
    long = ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "none"
    short = " ".join(f"{count} {words[word]}" for word, count in counts.items() if count) or "none"
    store = board.store
    if store:
        full = f"{size(store.used)} of {size(store.total)}"
        shown = (
            f"quota {full}" if store.is_quota else f"free {size(store.free)} of {size(store.total)}"
        )
        share = store.used / store.total if store.total else 1.0
        yield f"store {shown} [{bar(share, 10)}]   jobs {long}"
        yield f"{shown}   jobs {long}"
        yield f"{shown}   jobs {short}"
    yield f"jobs {long}"
    yield f"jobs {short}"


def _within(percent: int) -> int:
    """Return a share that leaves something to both sides."""
    return max(15, min(85, percent))


def _fitting(texts: Iterable[str], width: int) -> str:
    """Return the first text that fits, else the last."""
    text = ""
    for text in texts:
        if len(text) <= width:
            break
    return text
