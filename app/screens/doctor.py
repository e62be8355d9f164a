"""What this host can do, and what it lacks for the rest."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from textual import work

from app.commands import check_keys
from app.screens.panes import Text, bindings
from app.screens.view import ViewScreen
from backend.errors import BackendError, ToolFailedError
from backend.escape import one_line
from backend.program import OURSELVES
from widgets.line_view import Document
from widgets.status_line import StatusLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from textual.widget import Widget

_LIMIT_S = 60.0
_MARKS = {"ok": "\x1b[32mok     \x1b[0m", "limited": "\x1b[33mLIMITED\x1b[0m"}


class DoctorScreen(ViewScreen):
    """The checks and their outcome."""

    VIEW = "doctor"
    TAB = "doctor"
    BINDINGS = bindings("doctor")

    def compose_body(self) -> Iterable[Widget]:
        """Return summary and findings."""
        yield StatusLine("checking ...", id="summary")
        yield Text(empty="Checking ...", save_as="sifdeck-doctor.txt", id="report")

    def on_mount(self) -> None:
        """Run the checks."""
        super().on_mount()
        report = self.query_one(Text)
        report.wrapping = True  # what an administrator has to type must not be cut
        report.focus()
        self.reload()

    def action_again(self) -> None:
        """Run the checks again."""
        self.reload()

    def reload(self) -> None:
        """Run the checks again."""
        self.query_one("#summary", StatusLine).show("checking ...")
        self._examine()

    @work(exclusive=True, group="doctor")
    async def _examine(self) -> None:
        # A process of its own: the checks fork, and a fork of the deck would have its threads.
        from backend.process import run_tool

        await asyncio.sleep(0)
        try:
            printed = (await run_tool((*OURSELVES, "doctor", "--json"), timeout_s=_LIMIT_S)).stdout
        except ToolFailedError as error:
            printed = error.stdout
        except BackendError as error:
            self.query_one("#summary", StatusLine).show(one_line(error.message))
            return
        self._show_findings(_parsed(printed))

    def _show_findings(self, findings: Sequence[dict[str, Any]]) -> None:
        counts = {
            state: sum(one.get("state") == state for one in findings)
            for state in ("ok", "limited", "missing")
        }
        words = [f"{count} {state}" for state, count in counts.items() if count]
        self.query_one("#summary", StatusLine).show(", ".join(words) or "no answer")
        clashes = check_keys(self.desk.config.keys)
        self.query_one(Text).show(Document([*_lines(findings), *clashes]))


def _parsed(text: str) -> list[dict[str, Any]]:
    """Return what ``sifdeck doctor --json`` printed; nothing when that was something else."""
    try:
        found = json.loads(text)
    except ValueError:
        return []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _lines(findings: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the findings, what is missing first."""
    order = {"missing": 0, "limited": 1}
    for one in sorted(findings, key=lambda one: order.get(str(one.get("state")), 2)):
        fields = {key: one_line(str(value)) for key, value in one.items() if value}
        mark = _MARKS.get(fields.get("state", ""), "\x1b[31mMISSING\x1b[0m")
        yield f" {mark}  {fields.get('title', ''):28} {fields.get('found', '')}"
        if "follows" in fields:
            yield f"{'':12}{fields['follows']}"
        if "fix" in fields:
            yield f"{'':12}{fields.get('who', 'you')}: {fields['fix']}"
