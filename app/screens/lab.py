"""A lab in the deck: the step beside what is typed, and a word when it is done.

The learner works where they like: here, in the other views, in a terminal beside.  The
screen looks once a second whether the lab's files changed, and only then runs ``sifdeck lab
check``, in a process of its own.  The deck was started by ``lab start``, so its folder and its
variables are the lab's.
"""

from __future__ import annotations

import itertools
import json
import os
from typing import TYPE_CHECKING, Any

from textual import on, work
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Input, Markdown, Static

from app.commands import CommandLine
from app.handover import run_foreground
from app.screens.panes import Text, bindings
from app.screens.view import ViewScreen
from backend.errors import BackendError, ToolError, ToolFailedError
from backend.escape import one_line, printable
from backend.process import run_tool
from backend.program import OURSELVES
from widgets.line_view import Document
from widgets.status_line import StatusLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from textual.widget import Widget

    from app.board import Board
    from app.desk import Desk
    from backend.labs.document import Step
    from backend.labs.workshop import Workshop

_BEAT_S = 1.0
"""Seconds between two looks whether anything changed."""
_COMMAND_S = 600.0
_CHECK_S = 300.0
_TYPING = "sifdeck ...  (enter runs it, esc leaves)"
_LEFT = "t types here"
_MAX_FILES = 1000
_MAX_LINES = 5000


class LabScreen(ViewScreen):
    """The step, its checks, and a line to type in.

    Args:
        desk: What it looks things up in; knows the lab.
        board: The jobs.
    """

    VIEW = "lab"
    TAB = "lab"
    BINDINGS = bindings("lab")

    def __init__(self, desk: Desk, board: Board) -> None:
        super().__init__(desk, board)
        assert desk.lab is not None  # noqa: S101  (the deck has this screen only then)
        self.workshop = workshop = desk.lab
        self._steps = workshop.lab.steps
        progress = workshop.place.progress(workshop.lab.name)
        self._done = {step.id for step in self._steps if progress.is_done(step.id)}
        open_ = (n for n, step in enumerate(self._steps) if not progress.is_behind(step.id))
        self._at = next(open_, 0)
        self._hints = 0
        self._findings: list[str] = []
        self._seen: object = None
        self._checking = False
        self._waiting: Step | None = None
        self._output: list[str] = []

    @property
    def step(self) -> Step:
        """The step that is shown."""
        return self._steps[self._at]

    def compose_body(self) -> Iterable[Widget]:
        """Return the step on the left, typing on the right."""
        yield StatusLine(id="title", classes="pane-title")
        with Horizontal(id="panes"):
            with Vertical(id="step"):
                with VerticalScroll(id="reading"):
                    yield Markdown(open_links=False, id="page")
                yield Static(id="checks", markup=False)
            with Vertical(id="typing"):
                yield Text(follow=True, empty="What you type below prints here.", id="output")
                yield Input(placeholder=_TYPING, id="line")

    def on_mount(self) -> None:
        """Show the step, and begin to watch."""
        super().on_mount()
        self._show_step()
        self.query_one("#output", Text).wrapping = True
        self.set_interval(_BEAT_S, self._watch)
        self.query_one("#line").focus()

    def subject(self) -> Mapping[str, str]:
        """Return the lab and the step."""
        return {"lab": self.workshop.lab.name, "step": self.step.id}

    def command(self) -> CommandLine:
        """Return the command that prints the step."""
        return CommandLine(argv=("lab", "show", self.workshop.lab.name, self.step.id))

    # The step

    def _show_step(self) -> None:
        lab = self.workshop.lab
        parts = [f"## {self.step.title}", self.step.text]
        if self._at == 0 and lab.introduction:
            parts.insert(0, lab.introduction)
        parts += [_code(command) for command in self.step.commands]
        if self.step.singularity:
            parts += ["With SingularityCE:", *map(_code, self.step.singularity)]
        parts += [f"> {hint}" for hint in self.step.hints[: self._hints]]
        text = printable("\n\n".join(parts), limit=1 << 16)
        self.query_one("#page", Markdown).update(text)
        self._show_state()
        self.show_command()

    def _show_state(self) -> None:
        done = self.step.id in self._done
        where = f"step {self._at + 1} of {len(self._steps)}, {len(self._done)} done"
        title = f"{'ok' if done else '..'}  {one_line(self.workshop.lab.title)}"
        self.query_one("#title", StatusLine).show(title, where)
        lines = ["This step is done.  ] goes on."] if done else self._findings
        self.query_one("#checks", Static).update("\n".join(lines))

    def _go(self, place: int) -> None:
        self._at = max(0, min(place, len(self._steps) - 1))
        self._hints, self._findings, self._seen = 0, [], None
        self.query_one("#reading").scroll_home(animate=False)
        self._show_step()

    def action_next(self) -> None:
        """Go to the next step."""
        self._go(self._at + 1)

    def action_previous(self) -> None:
        """Go to the step before."""
        self._go(self._at - 1)

    def action_hint(self) -> None:
        """Show one hint more."""
        if self._hints == len(self.step.hints):
            self.notify("there is no other hint", markup=False)
        self._hints = min(self._hints + 1, len(self.step.hints))
        self._show_step()

    # Checks

    def action_check(self) -> None:
        """Look at what was done, even if nothing seems to have changed."""
        self._check(self.step)

    def _watch(self) -> None:
        """Check the step when the lab's files are others than at the last look."""
        if self.step.id in self._done:
            return
        now = _signature(self.workshop)
        if now != self._seen:
            self._seen = now
            self._check(self.step)

    def _check(self, step: Step) -> None:
        """Check a step now, or as soon as the check that is under way has ended."""
        if self._checking:
            self._waiting = step
        else:
            self._checking = True
            self._run_check(step)

    @work(group="check")
    async def _run_check(self, step: Step) -> None:
        argv = (*OURSELVES, "lab", "check", "--json", self.workshop.lab.name, step.id)
        try:
            self._checked(step, _result((await run_tool(argv, timeout_s=_CHECK_S)).stdout))
        except ToolFailedError as error:
            self._checked(step, _result(error.stdout))
        except ToolError as error:
            self.notify(error.message, severity="error", markup=False)
        self._checking = False
        if self._waiting:
            waiting, self._waiting = self._waiting, None
            self._check(waiting)

    def _checked(self, step: Step, result: Mapping[str, Any]) -> None:
        checks = result.get("checks", [])
        if result.get("state") == "done" and step.id not in self._done:
            self._done.add(step.id)
            self.notify(f"Done: {one_line(step.title)}", markup=False)
        if step is self.step:
            self._findings = [
                f"{'ok' if check['passed'] else '..'}  {one_line(check['text'])}"
                for check in checks
            ]
            if result.get("state") == "skipped":
                self._findings = ["--  This machine cannot do this step.  ] goes on."]
            self._show_state()

    # Typing

    def go_back(self) -> bool:
        """Leave the line; then the keys are the screen's again."""
        if isinstance(self.focused, Input):
            self.query_one("#reading").focus()
            return True
        return super().go_back()

    def on_descendant_focus(self) -> None:
        """Say in the line how to leave it, or how to come back."""
        super().on_descendant_focus()
        line = self.query_one("#line", Input)
        line.placeholder = _TYPING if self.focused is line else _LEFT

    def action_type(self) -> None:
        """Go to the line in which commands are typed."""
        self.query_one("#line").focus()

    @on(Input.Submitted, "#line")
    def _submitted(self, event: Input.Submitted) -> None:
        line = event.value.strip()
        event.input.clear()
        if line:
            self._type(line)

    @work(exclusive=True, group="typed")
    async def _type(self, line: str) -> None:
        """Run what was typed as a shell would, and show what it prints."""
        self._print(f"$ {line}")
        # Both streams in one, as a terminal shows them; cd and variables end with the line.
        argv = ("/bin/sh", "-c", f"{{ {line}\n}} 2>&1")
        try:
            printed = (await run_tool(argv, timeout_s=_COMMAND_S)).stdout
        except ToolFailedError as error:
            printed = f"{error.stdout}(exit status {error.status})"
        except ToolError as error:
            printed = error.message
        self._print(printed)

    def _print(self, text: str) -> None:
        lines = printable(text.rstrip("\n"), limit=1 << 20).split("\n") if text else []
        self._output = (self._output + lines)[-_MAX_LINES:]
        self.query_one("#output", Text).show(Document(self._output), keep_place=True)

    @work(exclusive=True, group="typed")
    async def action_terminal(self) -> None:
        """Give the terminal to a shell in the lab's folder; the deck comes back with its end."""
        shell = os.environ.get("SHELL", "/bin/sh")
        try:
            shown = f"{shell}  (exit goes back to the lab)"
            await run_foreground(self.app, (shell,), shown, is_shell=True)
        except BackendError as error:
            self.notify(error.message, severity="error", markup=False)


def _code(text: str) -> str:
    return f"~~~~sh\n{text}\n~~~~"


def _result(printed: str) -> Mapping[str, Any]:
    """Return the one result that ``lab check --json`` printed; nothing when it printed none."""
    try:
        found = json.loads(printed)
    except ValueError:
        return {}
    return found[0] if isinstance(found, list) and found else {}


def _signature(workshop: Workshop) -> object:
    """Return something that changes when the learner has done something."""
    folder = workshop.playground.folder
    files = [folder / "history.jsonl", folder / "config" / "docker-config.json"]
    with os.scandir(workshop.playground.work) as entries:
        names = sorted(entry.path for entry in itertools.islice(entries, _MAX_FILES))
    marks = []
    for path in (*map(str, files), *names):
        try:
            found = os.lstat(path)
        except OSError:
            continue
        marks.append((path, found.st_mtime_ns, found.st_size))
    return marks
