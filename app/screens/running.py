"""The containers that run in the background on this host, and those that have ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from textual import on, work
from textual.message import Message
from textual.worker import get_current_worker

from app.commands import BY_ID, CommandLine
from app.requests import AttachRequested, CommandRequested
from app.screens.filtering import FilterScreen
from app.screens.output import OutputScreen
from app.screens.panes import List, bindings
from app.words import age, count, short_path
from backend.errors import BackendError
from backend.escape import one_line
from backend.runtime.instances import Instance, list_instances
from widgets.roster import Column, Roster
from widgets.status_line import StatusLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from textual.timer import Timer
    from textual.widget import Widget

    from app.board import Board
    from app.desk import Desk


_LOOK_S = 2.0
"""Seconds between two looks, while containers run and are looked at."""
_STOP_S = 20.0
"""Seconds that the end of a container may take: it is asked, and killed after ten."""


@dataclass
class _Found(Message):
    """The containers were looked up."""

    instances: Sequence[Instance]
    problem: str = ""


class RunningScreen(FilterScreen[Instance]):
    """The list."""

    VIEW = "running"
    TAB = "running"
    HAS_DOCK = True
    BINDINGS = bindings("running")

    def __init__(self, desk: Desk, board: Board) -> None:
        super().__init__(desk, board)
        self._beat: Timer | None = None

    def compose_body(self) -> Iterable[Widget]:
        """Return the list."""
        yield StatusLine(id="summary")
        yield List(
            self.columns(_columns(self.desk)),
            key=lambda one: one.record.name,
            empty=(
                "No container runs in the background.",
                "",
                "sifdeck run --detach IMAGE starts one.",
                "Containers in terminals are not listed: they end with their terminal.",
            ),
            marks=True,
            id="list",
        )
        yield StatusLine(id="detail")

    def on_mount(self) -> None:
        """Look up the containers."""
        super().on_mount()
        self.restore_order()
        self.roster.focus()
        self.reload()
        self._beat = self.set_interval(_LOOK_S, self._look_again)

    def on_screen_resume(self) -> None:
        """Look them up again: they come and go without us."""
        super().on_screen_resume()
        self.reload()
        if self._beat:
            self._beat.resume()

    def on_screen_suspend(self) -> None:
        """Wake up no more while nobody looks."""
        if self._beat:
            self._beat.pause()

    @property
    def roster(self) -> Roster[Instance]:
        """The list."""
        return self.query_one("#list", List)

    def reload(self) -> None:
        """Look up the containers again."""
        self._look_up()

    def _look_again(self) -> None:
        """Look again while there are containers that may end."""
        if any(one.is_running for one in self.roster.rows):
            self._look_up()

    @work(thread=True, exclusive=True, group="instances")
    def _look_up(self) -> None:
        try:
            found = _Found(list_instances(ended=True))
        except (BackendError, OSError) as error:
            found = _Found((), problem=one_line(str(error)))
        if not get_current_worker().is_cancelled:
            self.post_message(found)

    @on(_Found)
    def _show_found(self, event: _Found) -> None:
        if list(event.instances) != list(self.roster.rows):
            self.roster.show(event.instances)
        running = sum(one.is_running for one in event.instances)
        text = event.problem or f"{running} running, {len(event.instances) - running} ended"
        self.query_one("#summary", StatusLine).show(text, "ctrl+r looks again")

    @on(Roster.Highlighted, "#list")
    def _show_current(self) -> None:
        self.show_command()
        self.show_keys()
        one = self.roster.current
        self.query_one("#detail", StatusLine).show(_how_to_leave(one) if one else "")

    def subject(self) -> Mapping[str, str]:
        """Return the container under the cursor."""
        one = self.roster.current
        return {"name": one.record.name} if one else {}

    # Actions

    def _attach_to(self, name: str) -> None:
        one = self.roster.current
        if one and one.is_running:
            command = BY_ID[f"running.{name}"].command(self.subject())
            self.post_message(AttachRequested(command))
        elif one:
            self.notify(f"{one.record.name} has ended")

    @on(Roster.Opened, "#list")
    def action_logs(self) -> None:
        """Show what the container printed."""
        if one := self.roster.current:
            command = BY_ID["running.logs"].command(self.subject())
            title = f"{one.record.name}  {one.record.image}"
            self.app.push_screen(OutputScreen(self.desk, self.board, Path(one.log), title, command))

    def action_shell(self) -> None:
        """Open a shell in the container, in this terminal."""
        self._attach_to("shell")

    def action_attach(self) -> None:
        """Watch what the container prints, in this terminal."""
        self._attach_to("attach")

    def action_stop(self) -> None:
        """Ask, then end the container, or all marked ones."""
        self._end(("stop",), "Stop")

    def action_kill(self) -> None:
        """Ask, then end the container at once, or all marked ones."""
        self._end(("stop", "--time", "0"), "Kill")

    def action_clear(self) -> None:
        """Ask, then forget the containers that have ended, and what they printed."""
        ended = [one for one in self.roster.rows if not one.is_running]
        self._request(("stop",), "Forget", ended)

    def _end(self, verb: tuple[str, ...], go: str) -> None:
        self._request(verb, go, [one for one in self.roster.chosen if one.is_running])

    def _request(self, verb: tuple[str, ...], go: str, found: Sequence[Instance]) -> None:
        if not found:
            return
        names = [one.record.name for one in found]
        self.post_message(
            CommandRequested(
                command=CommandLine(argv=(*verb, *names)),
                question=[
                    f"{go} {count(len(found), 'container')}?",
                    *(f"  {one.record.name}  {one.record.image}" for one in found[:8]),
                    *([f"  ... and {len(found) - 8} more"] if len(found) > 8 else []),
                ],
                done=f"{go.lower()}: {', '.join(names)}",
                go=go,
                timeout_s=_STOP_S * len(found),
            )
        )


def _how_to_leave(one: Instance) -> str:
    """Return what happens to the keys after ``a``, which is best known beforehand."""
    from backend.runtime.console import DETACH_KEYS, SOCKET

    if not one.is_running:
        return f"ended; l shows what it printed  {one_line(one.log)}"
    if one.has(SOCKET):
        return f"a attaches its terminal; {DETACH_KEYS} leaves it running"
    return "it has no terminal: after a, ctrl+c reaches the container; l only looks"


def _state(one: Instance) -> str:
    if one.is_running:
        return "running"
    return "killed" if one.status is None else f"exit {one.status}"


def _columns(desk: Desk) -> tuple[Column[Instance], ...]:
    return (
        Column(key="name", title="NAME", width=16, text=lambda one: one.record.name),
        Column(
            key="state",
            title="STATE",
            width=9,
            text=_state,
            tone=lambda one: "good" if one.is_running else "dim",
        ),
        Column(
            key="age",
            title="STARTED",
            width=8,
            text=lambda one: age(desk.now() - one.record.created),
            order=lambda one: -one.record.created,
        ),
        Column(
            key="image",
            title="IMAGE",
            width=16,
            stretch=True,
            text=lambda one: short_path(one.record.image),
        ),
        Column(
            key="command",
            title="COMMAND",
            width=18,
            rank=1,
            text=lambda one: " ".join(one.record.command),
        ),
        Column(
            key="pid",
            title="PID",
            width=7,
            rank=3,
            right=True,
            text=lambda one: str(one.record.pid) if one.is_running else "-",
            order=lambda one: one.record.pid,
        ),
        Column(
            key="runtime", title="RUNTIME", width=8, rank=2, text=lambda one: one.record.runtime
        ),
    )
