"""A form: questions, and under them the command line that the answers make, as they are typed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import on, work
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Button, Input, Label, Static

from app.dialogs.dialog import Dialog
from app.requests import CopyRequested
from app.trouble import said_of
from backend.errors import BackendError, ToolError
from backend.escape import one_line
from backend.process import run_tool
from backend.program import OURSELVES
from widgets.choice import Choice

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from app.commands import CommandLine
    from app.forms import Answers, Field, Form


_TEST_S = 60.0
"""Seconds that a registry may take to answer."""


class FillDialog(Dialog["Answers"]):
    """The form; its result are the answers, which have passed the form's check."""

    BINDINGS = [
        Binding("ctrl+s", "go", "Do it"),
        Binding("ctrl+t", "test", "Try it"),
        Binding("ctrl+y", "copy", "Copy the command"),
        # First, so that what is typed behind it goes to the next field, not to this one.
        Binding("tab", "app.focus_next", show=False, priority=True),
        Binding("shift+tab", "app.focus_previous", show=False, priority=True),
        Binding("down", "app.focus_next", show=False),
        Binding("up", "app.focus_previous", show=False),
    ]

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form

    def compose(self) -> ComposeResult:
        """Lay out the fields, the command line, the buttons."""
        with Vertical(classes="dialog"):
            yield Static(one_line(self.form.title), classes="dialog-title", markup=False)
            with VerticalScroll(classes="fields", can_focus=False):
                for field in self.form.fields:
                    with Horizontal(classes="field"):
                        yield Label(field.label, markup=False)
                        yield _control(field)
            yield Static("", id="answer", markup=False)
            yield Static("", id="ours", classes="dialog-command", markup=False)
            yield Static("", id="theirs", classes="dialog-command", markup=False)
            yield Static(self.form.note, classes="dialog-note", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel  esc", id="cancel", compact=True)
                if self.form.test:
                    yield Button("Test  ctrl+t", id="test", compact=True)
                yield Button(f"{self.form.go}  ctrl+s", id="go", variant="primary", compact=True)

    def on_mount(self) -> None:
        """Show the command line as it stands."""
        self._show()

    @property
    def answers(self) -> Answers:
        """The answers as they stand."""
        found: Answers = {}
        for field in self.form.fields:
            control = self.query_one(f"#field-{field.key}")
            if isinstance(control, Input | Choice):
                found[field.key] = control.value
        return found

    @property
    def command(self) -> CommandLine:
        """The command line that the answers make."""
        return self.form.shown(self.answers)

    @on(Input.Changed)
    @on(Choice.Changed)
    def _show(self) -> None:
        answer = self.query_one("#answer", Static)
        try:
            said = self.form.check(self.answers)
            command = self.command
        except BackendError as error:
            hint = f"  ({error.hint})" if error.hint else ""
            answer.update(f"! {one_line(error.message)}{one_line(hint)}")
            answer.add_class("-wrong")
            self.query_one("#go", Button).disabled = True
            return
        answer.update(one_line(said))
        answer.remove_class("-wrong")
        self.query_one("#go", Button).disabled = False
        self.query_one("#ours", Static).update(f"$ {one_line(str(command))}")
        elsewhere = f"$ {one_line(command.elsewhere)}" if command.elsewhere else ""
        self.query_one("#theirs", Static).update(elsewhere)

    @on(Input.Submitted)
    def action_go(self) -> None:
        """Answer, if the answers make sense."""
        if not self.query_one("#go", Button).disabled:
            self.dismiss(self.answers)

    @on(Button.Pressed)
    def _press(self, event: Button.Pressed) -> None:
        if event.button.id == "go":
            self.action_go()
        elif event.button.id == "test":
            self.action_test()
        else:
            self.action_close()

    def action_test(self) -> None:
        """Try the answers, if they make sense; the dialog stays as it is."""
        if self.form.test and not self.query_one("#go", Button).disabled:
            self._test(self.form.test(self.answers), self.form.stdin(self.answers))

    @work(exclusive=True, group="test")
    async def _test(self, command: CommandLine, stdin: bytes) -> None:
        answer = self.query_one("#answer", Static)
        answer.remove_class("-wrong")
        answer.update("asking ...")
        try:
            argv = (*OURSELVES, *command.argv)
            done = await run_tool(argv, timeout_s=_TEST_S, stdin=stdin)
        except ToolError as error:
            trouble = said_of(error, str(command))
            answer.add_class("-wrong")
            answer.update(one_line(f"! {trouble.what}  {trouble.why}"))
        else:
            answer.update(f"OK  {one_line(done.stderr.replace('INFO:', '').strip())}")

    def action_copy(self) -> None:
        """Copy the command line."""
        self.post_message(CopyRequested(str(self.command)))


def _control(field: Field) -> Input | Choice:
    name = f"field-{field.key}"
    if field.choices:
        return Choice(field.choices, field.value, id=name)
    return Input(field.value, placeholder=field.hint, password=field.secret, compact=True, id=name)
