"""The containers that run in the background on this host, and those that have ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from textual import on, work
from textual.message import Message
from textual.worker import get_current_worker

from app.commands import BY_ID
from app.requests import AttachRequested, CommandRequested
from app.screens.filtering import FilterScreen
from app.screens.output import OutputScreen
from app.screens.view import List, bindings
from app.words import age, short_path
from backend.errors import BackendError
from backend.escape import one_line
from backend.runtime.instances import Instance, list_instances
from widgets.roster import Column, Roster
from widgets.status_line import StatusLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from textual.widget import Widget

    from app.desk import Desk


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

    def compose_body(self) -> Iterable[Widget]:
        """Return the list."""
        yield StatusLine(id="summary")
        yield List(
            _columns(self.desk),
            key=lambda one: one.record.name,
            empty=(
                "No container runs in the background.",
                "",
                "sifdeck run --detach IMAGE starts one.",
                "Containers in terminals are not listed: they end with their terminal.",
            ),
            id="list",
        )

    def on_mount(self) -> None:
        """Look up the containers."""
        super().on_mount()
        self.restore_order()
        self.roster.focus()
        self.reload()

    def on_screen_resume(self) -> None:
        """Look them up again: they come and go without us."""
        super().on_screen_resume()
        self.reload()

    @property
    def roster(self) -> Roster[Instance]:
        """The list."""
        return self.query_one("#list", List)

    def reload(self) -> None:
        """Look up the containers again."""
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
        self.roster.show(event.instances)
        running = sum(one.is_running for one in event.instances)
        text = event.problem or f"{running} running, {len(event.instances) - running} ended"
        self.query_one("#summary", StatusLine).show(text, "ctrl+r looks again")

    @on(Roster.Highlighted, "#list")
    def _show_current(self) -> None:
        self.show_command()
        self.show_keys()

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
        """Ask, then end the container."""
        self._end("running.stop", "Stop")

    def action_kill(self) -> None:
        """Ask, then end the container at once."""
        self._end("running.kill", "Kill")

    def _end(self, action: str, go: str) -> None:
        one = self.roster.current
        if one is None or not one.is_running:
            return
        self.post_message(
            CommandRequested(
                command=BY_ID[action].command(self.subject()),
                question=[f"{go} {one.record.name}?", f"  {one.record.image}"],
                done=f"{one.record.name} has ended",
                go=go,
            )
        )


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
            key="runtime", title="RUNTIME", width=8, rank=2, text=lambda one: one.record.runtime
        ),
    )
