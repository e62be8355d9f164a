"""The deck: five views over images, registries, jobs, containers and this host.

The app is thin.  It owns the views, watches the jobs, shows dialogs, and starts the command
lines that they compose: the work itself is done by ``sifdeck VERB`` in processes of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import signal
import sys
from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.segment import Segments
from textual import on, work
from textual.app import App
from textual.css.query import NoMatches
from textual.filter import Monochrome, NoColor
from textual.message import Message
from textual.worker import WorkerCancelled

from app import clipboard
from app.board import Board
from app.commands import BY_ID, VIEWS, CommandLine, check_keys
from app.driver import QuietDriver
from app.forms import (
    BACKGROUND,
    WINDOW,
    RunPlaces,
    after,
    build_form,
    custom_form,
    profile_flags,
    pull_form,
    pulls_form,
    run_form,
    waiting,
)
from app.handover import open_window, run_foreground
from app.keysheet import help_lines
from app.lifeline import watch_terminal
from app.palette import Palette
from app.requests import (
    AttachRequested,
    CommandRequested,
    CopyRequested,
    CustomRequested,
    JobRequested,
    JobsRequested,
    LoginRequested,
    RepositoryRequested,
    RetryRequested,
    RunRequested,
)
from app.screens.filtering import FilterScreen
from app.screens.panes import bindings
from app.screens.view import ViewScreen
from app.sheet import Sheet
from app.themes import THEMES, choose_theme
from app.trouble import Trouble, said_of, trouble_of
from backend.errors import BackendError, ToolError
from backend.escape import one_line
from backend.jobs import Watch
from backend.process import run_tool
from backend.program import OURSELVES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from textual.driver import Driver
    from textual.screen import Screen
    from textual.timer import Timer

    from app.desk import Desk
    from app.forms import Form
    from backend.space import Store

_BEAT_S = 1.0
"""Seconds between two looks at the jobs while some run and nothing happens."""
_TOOL_S = 60.0
"""Seconds that a command may take which asks a registry, or changes a setting."""
_NOTICES = 200
_STEP = 5
"""Percent of the screen by which a pane grows and shrinks."""
_MOUSE_MODES = (1000, 1002, 1003, 1006)

SCREENS = {
    "images": "app.screens.images:ImagesScreen",
    "registries": "app.screens.registries:RegistriesScreen",
    "jobs": "app.screens.jobs:JobsScreen",
    "running": "app.screens.running:RunningScreen",
    "doctor": "app.screens.doctor:DoctorScreen",
    "lab": "app.screens.lab:LabScreen",
}
"""View -> module:class; imported when it is first shown, for the first paint must be soon."""


def screen_class(view: str) -> type[ViewScreen]:
    """Return the class of a view's screen."""
    module, _, name = SCREENS[view].partition(":")
    found: type[ViewScreen] = getattr(importlib.import_module(module), name)
    return found


@dataclass
class _Measured(Message):
    """How full the store is is known."""

    store: Store | None


class Deck(App[int]):
    """The app.

    Args:
        desk: What its screens look things up in.
        theme: Name of a theme; empty means the one that fits the terminal.
    """

    TITLE = "sifdeck"
    CSS_PATH = ["deck.tcss", "dialogs.tcss"]
    DEFAULT_MODE = "images"
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+p"
    COMMANDS = {Palette}
    BINDINGS = bindings("deck")

    def __init__(self, desk: Desk, *, theme: str = "") -> None:
        super().__init__()
        self.desk = desk
        self.board = Board(desk.jobs)
        self.board.looked_at = set(desk.memory.failures)
        self._ended: int | None = None
        self._profiles = dict(desk.config.profiles)
        self._watch: Watch | None = None
        self._looks_soon = False
        self._next_look: Timer | None = None
        self._has_mouse = desk.config.mouse
        self._notices: deque[str] = deque(maxlen=_NOTICES)
        for view in SCREENS:
            if view != "lab" or desk.lab:
                self.add_mode(view, self._maker(view))
        for one in THEMES:
            self.register_theme(one)
        self.theme = theme or choose_theme()
        self.stylesheet = Sheet(variables=self.get_css_variables())
        if self.no_color and self.native_ansi_color:
            # Textual chose before it knew the theme, and greys of the terminal's colours are black.
            self._filters = [
                NoColor() if isinstance(one, Monochrome) else one for one in self._filters
            ]
        self.set_keymap(desk.config.keys)
        self.animation_level = "none"
        self.set_class(desk.config.glyphs == "ascii", "-ascii")

    def _maker(self, view: str) -> Callable[[], ViewScreen]:
        return lambda: screen_class(view)(self.desk, self.board)

    def get_default_screen(self) -> Screen[Any]:
        """Return the screen that is shown first."""
        return self._maker("images")()

    def get_driver_class(self) -> type[Driver]:
        """Return our driver for terminals; another when the environment asks for it."""
        chosen = super().get_driver_class()
        return QuietDriver if issubclass(QuietDriver, chosen) else chosen

    # Life

    def on_mount(self) -> None:
        """Watch the jobs, and leave the terminal clean when somebody ends us."""
        view = "lab" if self.desk.lab else self.desk.memory.view
        if view in SCREENS and view != self.current_mode:
            self.switch_mode(view)
        loop = asyncio.get_running_loop()
        if not self.is_headless:
            for number in (signal.SIGTERM, signal.SIGHUP):
                loop.add_signal_handler(number, self._end, number)
            if sys.__stdin__:
                watch_terminal(
                    sys.__stdin__.fileno(),
                    partial(loop.call_soon_threadsafe, self._end, signal.SIGHUP),
                )
        with contextlib.suppress(OSError):
            self._watch = Watch(self.desk.jobs.root)
            loop.add_reader(self._watch.fileno(), self._jobs_changed)
        self._look()
        self._greet()
        self.call_after_refresh(gc.enable)
        self.call_after_refresh(self._measure)

    def _greet(self) -> None:
        """Say what happened since the deck was last closed, and which keys clash."""
        seen = self.desk.memory.seen
        ended = [
            row for row in self.board.rows if seen and row.job.exit and row.job.exit.ended > seen
        ]
        if ended:
            failed = sum(row.state == "failed" for row in ended)
            bad = f", {failed} of them failed" if failed else ""
            self.notify(f"{len(ended)} jobs ended while you were away{bad}: 3", timeout=10)
        for clash in check_keys(self.desk.config.keys):
            self.notify(clash, severity="warning", timeout=10)

    def _fatal_error(self) -> None:
        """End after a bug with its traceback; Textual's own would print local variables too.

        Among those are what was typed into the login form.
        """
        from rich.traceback import Traceback

        self.bell()
        segments = self.console.render(Traceback(show_locals=False), self.console.options)
        self._exit_renderables.append(Segments(segments))
        self._close_messages_no_wait()

    def _end(self, number: int) -> None:
        self.exit(return_code=128 + number)

    async def on_unmount(self) -> None:
        """Stop watching; wait for whatever still runs."""
        self.desk.memory.seen = self.desk.now()
        if self.current_mode in VIEWS:
            self.desk.memory.view = self.current_mode
        there = {row.job.number for row in self.board.rows}
        self.desk.memory.failures = sorted(self.board.looked_at & there)
        self.desk.memory.save()
        if self._watch:
            asyncio.get_running_loop().remove_reader(self._watch.fileno())
            self._watch.close()
            self._watch = None
        self.workers.cancel_all()
        for worker in list(self.workers):
            with contextlib.suppress(WorkerCancelled):
                await worker.wait()

    # Jobs

    def _jobs_changed(self) -> None:
        if self._watch:
            self._watch.drain()
        if not self._looks_soon:
            self._looks_soon = True
            self._look_in(1 / self.desk.config.progress_hz)

    def _look_in(self, seconds: float) -> None:
        """Look at the jobs in a while, and not before."""
        if self._next_look:
            self._next_look.stop()
        self._next_look = self.set_timer(seconds, self._look)

    def _look(self) -> None:
        """Read what is new about the jobs and show it; look again soon while some run."""
        self._looks_soon = False
        self.board.refresh()
        active = self.board.active
        ended = len(self.board.rows) - len(active)
        if self._ended not in {None, ended}:
            self._measure()
        self._ended = ended
        if self._watch:
            self._watch.follow(row.job.number for row in active)
        for screen in self.screen_stack:
            if isinstance(screen, ViewScreen) and screen.is_mounted:
                with contextlib.suppress(NoMatches):  # it is being built or taken down
                    screen.show_board()
        if active:
            self._look_in(_BEAT_S)

    @work(thread=True, exclusive=True, group="store")
    def _measure(self) -> None:
        """Ask how full the store is; a file system may take its time to answer."""
        try:
            store = self.desk.find_store(self.desk.catalog.folders[0])
        except OSError:
            store = None
        self.post_message(_Measured(store))

    @on(_Measured)
    def _show_store(self, event: _Measured) -> None:
        self.board.store = event.store
        self._look()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Grey out what would change something when nothing may be changed."""
        found = BY_ID.get(f"deck.{action}")
        if found and found.writes and self.desk.readonly:
            return None
        return super().check_action(action, parameters)

    # Going about

    def action_images(self) -> None:
        """Go to the images."""
        self.switch_mode("images")

    def action_registries(self) -> None:
        """Go to the registries."""
        self.switch_mode("registries")

    def action_jobs(self) -> None:
        """Go to the jobs."""
        self.switch_mode("jobs")

    def action_running(self) -> None:
        """Go to the containers."""
        self.switch_mode("running")

    def action_doctor(self) -> None:
        """Go to what this host can do."""
        self.switch_mode("doctor")

    def action_lab(self) -> None:
        """Go to the lab, if there is one."""
        if self.desk.lab:
            self.switch_mode("lab")
        else:
            self.notify("no lab is open: sifdeck lab start", markup=False)

    async def action_back(self) -> None:
        """Undo one thing on the screen, else close it."""
        screen = self.screen
        if isinstance(screen, ViewScreen) and screen.go_back():
            return
        if len(self.screen_stack) > 1:
            self.pop_screen()

    def action_palette(self) -> None:
        """Open the palette."""
        self.action_command_palette()

    def action_help(self) -> None:
        """Show the keys that work here."""
        from app.dialogs.text import TextDialog

        if isinstance(self.screen, ViewScreen):
            views = (self.screen.VIEW, *self.screen.focused_views, "deck")
            self.push_screen(TextDialog("Keys", help_lines(views, self.desk.keys)))

    def action_refresh(self) -> None:
        """Read again what is shown."""
        self._look()
        self._measure()
        if isinstance(self.screen, ViewScreen):
            self.screen.reload()

    def action_redraw(self) -> None:
        """Draw the whole screen again."""
        self.refresh(repaint=True, layout=True)

    def action_next_pane(self) -> None:
        """Go to the next pane."""
        self.screen.focus_next()

    def action_previous_pane(self) -> None:
        """Go to the pane before."""
        self.screen.focus_previous()

    def action_zoom(self) -> None:
        """Give the focused pane the whole screen, and back."""
        if self.screen.maximized:
            self.screen.minimize()
        elif self.screen.focused:
            self.screen.maximize(self.screen.focused)

    def action_grow(self) -> None:
        """Make the focused pane larger."""
        if isinstance(self.screen, ViewScreen):
            self.screen.resize_pane(_STEP)

    def action_shrink(self) -> None:
        """Make the focused pane smaller."""
        if isinstance(self.screen, ViewScreen):
            self.screen.resize_pane(-_STEP)

    def action_jump(self) -> None:
        """Go to the pane whose letter is typed."""
        from app.dialogs.jump import JumpDialog

        widgets = self.screen.focus_chain

        def answered(place: int | None) -> None:
            if place is not None:
                widgets[place].focus()

        self.push_screen(JumpDialog(widgets), answered)

    def action_theme(self) -> None:
        """Choose the colours."""
        from app.dialogs.choose import ChooseDialog

        names = {name: name for name in sorted(self.available_themes)}
        ours = {theme.name: theme.name for theme in THEMES}

        def answered(name: str | None) -> None:
            if name:
                self.theme = name

        self.push_screen(ChooseDialog("Theme", {**ours, **names}, self.theme), answered)

    def action_mouse(self) -> None:
        """Leave the mouse to the terminal, or take it back."""
        self._has_mouse = not self._has_mouse
        if self._driver:
            state = "h" if self._has_mouse else "l"
            self._driver.write("".join(f"\x1b[?{mode}{state}" for mode in _MOUSE_MODES))
        self.notify(f"the {'deck' if self._has_mouse else 'terminal'} has the mouse")

    def action_notices(self) -> None:
        """Show what was said since the start."""
        from app.dialogs.text import TextDialog

        self.push_screen(TextDialog("Notices", reversed(self._notices)))

    def notify(self, message: str, **more: Any) -> None:  # noqa: ANN401  (Textual's arguments)
        """Say something for a few seconds, and keep it for the list of notices."""
        self._notices.append(one_line(message))
        super().notify(message, **{"markup": False, **more})

    def action_help_quit(self) -> None:
        """Say how to quit: Ctrl-C is what people type first."""
        self.notify("q quits; jobs go on", markup=False)

    # Commands

    def action_copy(self) -> None:
        """Copy the selected text, else the command line that is shown."""
        screen = self.screen
        selected = screen.get_selected_text()
        if selected:
            self._copy(selected)
        elif isinstance(screen, ViewScreen):
            self._copy(str(screen.command()))

    def action_copy_theirs(self) -> None:
        """Copy the command line as SingularityCE has it."""
        screen = self.screen
        theirs = screen.command().elsewhere if isinstance(screen, ViewScreen) else ""
        if theirs:
            self._copy(theirs)
        else:
            self.notify("SingularityCE has no such command; y copies ours")

    @on(CopyRequested)
    def _copy_requested(self, event: CopyRequested) -> None:
        self._copy(event.text)

    @work(group="clipboard")
    async def _copy(self, text: str) -> None:
        try:
            way = await clipboard.copy(text, self)
        except BackendError as error:
            self.notify(f"{error.message}; {error.kept}", severity="warning")
        else:
            self.notify(f"copied {len(text)} characters by way of {way}")

    def action_pull(self) -> None:
        """Ask what to pull."""
        references = self.screen.pulls() if isinstance(self.screen, ViewScreen) else ()
        several = len(references) > 1
        self._ask(pulls_form(references) if several else pull_form("".join(references)))

    def action_build(self) -> None:
        """Ask what to build."""
        self._ask(build_form(Path.cwd()))

    @on(JobRequested)
    def _job_requested(self, event: JobRequested) -> None:
        self._ask(event.form)

    @work(group="dialog")
    async def _ask(self, form: Form) -> None:
        """Show a form; its commands become jobs."""
        from app.dialogs.fill import FillDialog

        form = waiting(form, [row.job.number for row in self.board.active])
        answers = await self.push_screen_wait(FillDialog(form))
        if answers is not None:
            await self._start_jobs(form.jobs(answers), after(answers))

    @on(JobsRequested)
    @work(group="dialog")
    async def _jobs_requested(self, event: JobsRequested) -> None:
        await self._start_jobs(event.commands)

    async def _start_jobs(
        self, commands: Sequence[tuple[str, CommandLine]], waits_for: int | None = None
    ) -> None:
        for title, command in commands:
            await self._start_job(command, title, waits_for)
        if len(commands) > 1 and isinstance(self.screen, FilterScreen):
            self.screen.roster.clear_marks()

    async def _start_job(self, command: CommandLine, title: str, waits_for: int | None) -> None:
        waits = () if waits_for is None else (waits_for,)
        start = partial(self.desk.jobs.start, command.argv, title=title, after=waits)
        try:
            job = await asyncio.to_thread(start)  # it takes until a process is on its own
        except BackendError as error:
            self._show(trouble_of(error, str(command)))
        else:
            self.notify(f"job #{job.number}: {command}", markup=False)
            self._look()

    @on(RetryRequested)
    @work(group="dialog")
    async def _retry(self, event: RetryRequested) -> None:
        """Start a job again; ask first if that replaces what it made."""
        from app.dialogs.confirm import ConfirmDialog
        from backend.jobs.folder import writes_anew

        try:
            before = await asyncio.to_thread(self.desk.jobs.get, event.job)
            force = before.state == "done" and writes_anew(before)
            question = [
                f"Do job {event.job} again?",
                f"  {before.verb} {before.title}",
                "It ended well.  What it wrote is overwritten.",
            ]
            command = f"sifdeck jobs retry --force {event.job}"
            if force and not await self.push_screen_wait(
                ConfirmDialog(question, command, "Overwrite")
            ):
                return
            job = await asyncio.to_thread(partial(self.desk.jobs.retry, event.job, force=force))
        except BackendError as error:
            self._show(trouble_of(error, f"retry job {event.job}"))
        else:
            self.notify(f"job #{job.number} tries #{event.job} again")
            self._look()

    @on(CommandRequested)
    @work(group="dialog")
    async def _run_command(self, event: CommandRequested) -> None:
        """Ask where that is needed, run the command, say what became of it."""
        from app.dialogs.confirm import ConfirmDialog
        from app.dialogs.text import TextDialog

        if event.question:
            dialog = ConfirmDialog(event.question, str(event.command), event.go)
            if not await self.push_screen_wait(dialog):
                return
        try:
            argv = (*OURSELVES, *event.command.argv)
            printed = await run_tool(argv, timeout_s=event.timeout_s)
        except ToolError as error:
            self._show(said_of(error, str(event.command)))
        else:
            if event.shows_output:
                lines = f"{printed.stdout}{printed.stderr}".splitlines()
                self.push_screen(TextDialog(str(event.command), map(one_line, lines)))
            else:
                self.notify(event.done)
        self.action_refresh()

    @on(RepositoryRequested)
    async def _show_repository(self, event: RepositoryRequested) -> None:
        await self.switch_mode("registries")
        if isinstance(self.screen, ViewScreen):
            self.screen.go_to(event.name)

    @on(LoginRequested)
    @work(group="dialog")
    async def _log_in(self, event: LoginRequested) -> None:
        """Ask for a login and store it; the password goes through a pipe."""
        from app.dialogs.fill import FillDialog

        answers = await self.push_screen_wait(FillDialog(event.form))
        if answers is None:
            return
        command = event.form.compose(answers)
        argv = (*OURSELVES, *command.argv)
        try:
            await run_tool(argv, timeout_s=_TOOL_S, stdin=event.form.stdin(answers))
        except ToolError as error:
            self._show(said_of(error, str(command)))
        else:
            self.notify(f"logged in to {answers['registry']}", markup=False)
        self.action_refresh()

    @on(RunRequested)
    @work(group="dialog")
    async def _run(self, event: RunRequested) -> None:
        """Ask how, then give the container the terminal."""
        from app.dialogs.fill import FillDialog

        memory = self.desk.memory
        places = RunPlaces(
            in_tmux=self.desk.in_tmux,
            prefer_window=self.desk.config.terminal == "window",
            profiles=self._profiles,
            profile=memory.profile,
        )
        form = run_form(event.image, verb=event.verb, places=places)
        answers = await self.push_screen_wait(FillDialog(form))
        if answers is None:
            return
        memory.profile = answers.get("profile", memory.profile)
        if (name := answers["keep"].strip()) and not self.desk.readonly:
            await self._keep_profile(name, profile_flags(answers, self._profiles))
        command = form.compose(answers)
        if answers["place"] == BACKGROUND:
            self.post_message(CommandRequested(command=command, done=f"started: {command}"))
        else:
            await self._hand_over(command, window=answers["place"] == WINDOW)

    async def _keep_profile(self, name: str, flags: Sequence[str]) -> None:
        """Have the settings keep flags under a name, for this deck too."""
        command = CommandLine(argv=("config", "--profile", name, "--", *flags))
        try:
            await run_tool((*OURSELVES, *command.argv), timeout_s=_TOOL_S)
        except ToolError as error:
            self._show(said_of(error, str(command)))
        else:
            self._profiles[name] = tuple(flags)
            self.notify(f"kept: {command}")

    async def _hand_over(self, command: CommandLine, *, window: bool) -> None:
        """Run a command that wants a terminal, in a window of its own or in ours."""
        argv = (*(OURSELVES if command.program else ()), *command.argv)
        try:
            if window:
                await open_window(argv, str(command))
                return
            status = await run_foreground(self, argv, str(command))
        except BackendError as error:
            self._show(trouble_of(error, str(command)))
        else:
            self.notify(f"exit status {status}: {command}")
        self._look()

    @on(AttachRequested)
    @work(group="dialog")
    async def _attach_requested(self, event: AttachRequested) -> None:
        window = self.desk.in_tmux and self.desk.config.terminal == "window"
        await self._hand_over(event.command, window=window)

    @on(CustomRequested)
    @work(group="dialog")
    async def _run_custom(self, event: CustomRequested) -> None:
        """Run a command of the user's own: ask what it wants to know, then hand over."""
        from app.dialogs.confirm import ConfirmDialog
        from app.dialogs.fill import FillDialog

        command = event.command
        form = custom_form(command, event.subject)
        answers: Mapping[str, str] | None = {}
        if command.inputs:
            answers = await self.push_screen_wait(FillDialog(form))
        if answers is None:
            return
        try:
            line = form.compose(answers)
        except BackendError as error:
            self._show(trouble_of(error, command.name))
            return
        if command.confirm and not await self.push_screen_wait(
            ConfirmDialog([f"{command.name}?"], str(line), "Run")
        ):
            return
        await self._hand_over(line, window=False)

    def _show(self, trouble: Trouble) -> None:
        from app.dialogs.report import ReportDialog

        self.push_screen(ReportDialog(trouble))
