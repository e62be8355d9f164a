"""Everything the deck can do, in one table: keys, words, help, and the command line that does it.

Bindings, footer, palette, ``?`` help, ``sifdeck keys`` and the key sheet in the README are all
made from :data:`ACTIONS`.  An action that works on something names the command line for it,
in our words and in SingularityCE's; the words in braces are what the cursor is on.  Nothing
here imports Textual: the command line prints this table too.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.errors import UsageError
from backend.escape import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

VIEWS: Mapping[str, str] = {
    "images": "Images",
    "registries": "Registries",
    "jobs": "Jobs",
    "running": "Running",
    "doctor": "Doctor",
}
"""The five views, in the order of their keys 1 to 5."""

LAB_VIEW: Mapping[str, str] = {"lab": "Lab"}
"""One more view, key 6, in a deck that was started for a lab."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """What to type to get the same.

    Attributes:
        argv: Arguments of the program.
        singularity: Arguments of ``singularity``; empty when it has no such command.
        program: ``sifdeck``; empty when ``argv`` is another program with its arguments.
    """

    argv: tuple[str, ...]
    singularity: tuple[str, ...] = ()
    program: tuple[str, ...] = ("sifdeck",)

    def __str__(self) -> str:
        return shlex.join((*self.program, *self.argv))

    @property
    def elsewhere(self) -> str:
        """The same for SingularityCE; empty when it cannot do it."""
        return shlex.join(("singularity", *self.singularity)) if self.singularity else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing that can be done.

    Attributes:
        id: ``VIEW.NAME``, by which ``[keys]`` in config.toml binds it anew.
        keys: Textual's names; the first is shown.  None: only in the palette.
        label: One or two words, for the footer and the palette.
        help: One sentence.
        argv: Arguments of ``sifdeck``, ``{image}`` and others to be filled in; what only
            moves about on the screen has those of its view.
        singularity: The same for ``singularity``; empty when it cannot do it.
        footer: Its place in the footer, from 1; 0 leaves it out.
        writes: Whether it changes anything: greyed out in ``--readonly``.
    """

    id: str
    keys: tuple[str, ...] = ()
    label: str
    help: str
    argv: tuple[str, ...] = ()
    singularity: tuple[str, ...] = ()
    footer: int = 0
    writes: bool = False

    @property
    def view(self) -> str:
        """Where it is offered: ``deck`` is everywhere, ``list`` and ``log`` need the focus."""
        return self.id.partition(".")[0]

    @property
    def name(self) -> str:
        """What the method that does it is called, after ``action_``."""
        return self.id.partition(".")[2]

    def command(self, subject: Mapping[str, str]) -> CommandLine:
        """Return its command line with ``{image}`` and others filled in.

        A word whose subject is missing stays as a word in capitals, as a manual would have it.
        """
        return CommandLine(
            argv=_fill(self.argv or HOME[self.view], subject),
            singularity=_fill(self.singularity, subject),
        )


def _fill(words: tuple[str, ...], subject: Mapping[str, str]) -> tuple[str, ...]:
    def value(match: re.Match[str]) -> str:
        return subject.get(match.group(1), match.group(1).upper())

    return tuple(re.sub(r"\{(\w+)\}", value, word) for word in words)


HOME: Mapping[str, tuple[str, ...]] = {
    "deck": ("deck",),
    "list": ("ls",),
    "images": ("ls",),
    "image": ("inspect", "{image}"),
    "registries": ("tags", "{repository}"),
    "logins": ("registry", "list"),
    "manifest": ("manifest", "{reference}"),
    "jobs": ("jobs",),
    "job": ("jobs", "log", "{job}"),
    "log": ("jobs", "log", "{job}"),
    "found": ("jobs", "find", "{words}"),
    "running": ("ps",),
    "output": ("logs", "{name}"),
    "doctor": ("doctor",),
    "lab": ("lab", "show", "{lab}", "{step}"),
}
"""The command line that prints what a view shows."""

_OCI = "--oci"

ACTIONS: tuple[Action, ...] = (
    # Everywhere
    Action(
        id="deck.images",
        keys=("1",),
        label="Images",
        help="Go to the images on this machine.",
        argv=("ls",),
    ),
    Action(
        id="deck.registries",
        keys=("2",),
        label="Registries",
        help="Go to the registries, their repositories and tags.",
        argv=("tags", "{repository}"),
    ),
    Action(
        id="deck.jobs",
        keys=("3",),
        label="Jobs",
        help="Go to the pulls, builds and conversions, running and ended.",
        argv=("jobs",),
    ),
    Action(
        id="deck.running",
        keys=("4",),
        label="Running",
        help="Go to the containers that run on this host.",
        argv=("ps",),
        singularity=("instance", "list"),
    ),
    Action(
        id="deck.doctor",
        keys=("5",),
        label="Doctor",
        help="See what this host can do, and what it lacks for the rest.",
        argv=("doctor",),
    ),
    Action(
        id="deck.lab",
        keys=("6",),
        label="Lab",
        help="Go to the lab's step; in a deck that `lab start` opened.",
        argv=("lab", "show", "{lab}"),
    ),
    Action(
        id="deck.pull",
        keys=("p",),
        label="Pull",
        help="Pull an image into one file; what the cursor is on is filled in, or what is marked.",
        argv=("pull", "{reference}"),
        singularity=("pull", _OCI, "{reference}"),
        footer=3,
        writes=True,
    ),
    Action(
        id="deck.build",
        keys=("b",),
        label="Build",
        help="Build an image from a Dockerfile.",
        argv=("build", "{target}", "{dockerfile}"),
        singularity=("build", _OCI, "{target}", "{dockerfile}"),
        writes=True,
    ),
    Action(
        id="deck.copy",
        keys=("y",),
        label="Copy",
        help="Copy the command line that is shown, or the text that is selected.",
    ),
    Action(
        id="deck.copy_theirs",
        keys=("Y",),
        label="Copy theirs",
        help="Copy the command line in SingularityCE's words, where it has the command.",
    ),
    Action(
        id="deck.palette",
        keys=("ctrl+p", "colon"),
        label="Commands",
        help="Find any command by typing a part of its name.",
        argv=("--help",),
    ),
    Action(
        id="deck.help",
        keys=("question_mark", "f1"),
        label="Help",
        help="Show the keys that work here.",
        argv=("keys",),
        footer=99,
    ),
    Action(
        id="deck.refresh",
        keys=("ctrl+r",),
        label="Refresh",
        help="Read again what is shown; needed only on network file systems.",
    ),
    Action(id="deck.redraw", keys=("ctrl+l",), label="Redraw", help="Draw the whole screen again."),
    Action(
        id="deck.zoom",
        keys=("z",),
        label="Zoom",
        help="Give the pane that has the focus the whole screen, and back.",
    ),
    Action(
        id="deck.grow",
        keys=("plus",),
        label="Larger",
        help="Make the pane that has the focus larger, at the cost of those beside it.",
    ),
    Action(
        id="deck.shrink",
        keys=("minus",),
        label="Smaller",
        help="Make the pane that has the focus smaller.",
    ),
    Action(
        id="deck.jump",
        keys=("ctrl+o",),
        label="Jump",
        help="Show a letter on every pane and field, and go to the one typed.",
    ),
    Action(
        id="deck.next_pane", keys=("tab",), label="Next pane", help="Go to the next pane or field."
    ),
    Action(
        id="deck.previous_pane",
        keys=("shift+tab",),
        label="Pane before",
        help="Go to the pane or field before.",
    ),
    Action(
        id="deck.mouse",
        label="Mouse on or off",
        help="Leave the mouse to the terminal, to select text with it; or take it back.",
    ),
    Action(id="deck.theme", label="Theme", help="Choose the colours."),
    Action(
        id="deck.notices",
        label="Notices",
        help="Show what the deck said since it was started.",
        argv=("jobs",),
    ),
    Action(
        id="deck.back",
        keys=("escape",),
        label="Back",
        help="Close what is open; clear the filter, then the marks.",
    ),
    Action(
        id="deck.quit",
        keys=("q", "ctrl+q"),
        label="Quit",
        help="Leave the deck; jobs go on.",
    ),
    # Lists
    Action(id="list.down", keys=("down", "j"), label="Down", help="Go to the next row."),
    Action(id="list.up", keys=("up", "k"), label="Up", help="Go to the row before."),
    Action(
        id="list.page_down",
        keys=("pagedown", "ctrl+d"),
        label="Page down",
        help="Go one screen down.",
    ),
    Action(id="list.page_up", keys=("pageup", "ctrl+u"), label="Page up", help="Go one screen up."),
    Action(id="list.top", keys=("home", "g"), label="First", help="Go to the first row."),
    Action(id="list.bottom", keys=("end", "G"), label="Last", help="Go to the last row."),
    Action(id="list.open", keys=("enter",), label="Open", help="Open what the cursor is on."),
    Action(
        id="list.mark",
        keys=("space",),
        label="Mark",
        help="Mark the row; an action then works on all marked rows.",
    ),
    Action(
        id="list.mark_all",
        keys=("asterisk", "ctrl+a"),
        label="Mark all",
        help="Mark every row that the filter shows, or none.",
    ),
    # Images
    Action(
        id="images.open",
        keys=("i",),
        label="Inspect",
        help="Look inside: descriptors, configuration, layers, files.",
        argv=("inspect", "{image}"),
        singularity=("inspect", "{image}"),
        footer=1,
    ),
    Action(
        id="images.run",
        keys=("r",),
        label="Run",
        help="Run the image in this terminal; the deck comes back when it ends.",
        argv=("run", "{image}"),
        singularity=("run", _OCI, "{image}"),
        footer=2,
    ),
    Action(
        id="images.shell",
        keys=("s",),
        label="Shell",
        help="Open a shell in the image, in this terminal.",
        argv=("shell", "{image}"),
        singularity=("shell", _OCI, "{image}"),
        footer=4,
    ),
    Action(
        id="images.convert",
        keys=("c",),
        label="Convert",
        help="Make another form of the image, or of all marked ones: SIF, layout, archive, folder.",
        argv=("convert", "{image}", "{target}"),
        footer=5,
        writes=True,
    ),
    Action(
        id="images.verify",
        keys=("v",),
        label="Verify",
        help="Check every digest and signature in the file, or in all marked ones.",
        argv=("verify", "{image}"),
        singularity=("verify", "{image}"),
    ),
    Action(
        id="images.push",
        keys=("P",),
        label="Push",
        help="Upload the image to a registry.",
        argv=("push", "{image}", "{reference}"),
        singularity=("push", "{image}", "{reference}"),
        writes=True,
    ),
    Action(
        id="images.delete",
        keys=("d", "delete"),
        label="Delete",
        help="Move the file, or all marked ones, to the trash of its folder.",
        argv=("rm", "{image}"),
        footer=8,
        writes=True,
    ),
    Action(
        id="images.source",
        keys=("u",),
        label="Source",
        help="Go to the repository that the image is from, and to its other tags.",
        argv=("tags", "{repository}"),
    ),
    Action(
        id="images.only",
        keys=("O",),
        label="Only",
        help="Show the images of one folder, or what is unsigned, large, unused, failed to verify.",
        argv=("ls", "--only", "{choice}"),
    ),
    Action(
        id="images.save",
        keys=("S",),
        label="Save",
        help="Write the list, as it is filtered and sorted, to a .csv or .json file.",
        argv=("ls", "--csv"),
    ),
    Action(
        id="images.filter",
        keys=("slash", "ctrl+f"),
        label="Filter",
        help="Show only rows with these words; !word for without, ~wrd for letters in between.",
        argv=("ls", "--filter", "{words}"),
        footer=6,
    ),
    Action(
        id="images.sort",
        keys=("o",),
        label="Sort",
        help="Sort by a column; the same column again turns it round.",
        argv=("ls", "--sort", "{column}"),
        footer=7,
    ),
    # One image
    Action(
        id="image.next_tab",
        keys=("right_square_bracket",),
        label="Next tab",
        help="Show the next part of the image.",
        footer=1,
    ),
    Action(
        id="image.previous_tab",
        keys=("left_square_bracket",),
        label="Tab before",
        help="Show the part before.",
        footer=2,
    ),
    Action(
        id="image.run",
        keys=("r",),
        label="Run",
        help="Run the image in this terminal; the deck comes back when it ends.",
        argv=("run", "{image}"),
        singularity=("run", _OCI, "{image}"),
        footer=4,
    ),
    Action(
        id="image.shell",
        keys=("s",),
        label="Shell",
        help="Open a shell in the image, in this terminal.",
        argv=("shell", "{image}"),
        singularity=("shell", _OCI, "{image}"),
        footer=5,
    ),
    Action(
        id="image.convert",
        keys=("c",),
        label="Convert",
        help="Make another form of the image: SIF, layout, archive, folder.",
        argv=("convert", "{image}", "{target}"),
        footer=6,
        writes=True,
    ),
    Action(
        id="image.verify",
        keys=("v",),
        label="Verify",
        help="Check every digest and signature in the file.",
        argv=("verify", "{image}"),
        singularity=("verify", "{image}"),
        footer=7,
    ),
    Action(
        id="image.extract",
        keys=("e",),
        label="Extract",
        help="Copy the file or folder under the cursor out of the image.",
        argv=("cp", "{image}:{path}", "{target}"),
        footer=8,
    ),
    Action(
        id="image.push",
        keys=("P",),
        label="Push",
        help="Upload the image to a registry.",
        argv=("push", "{image}", "{reference}"),
        singularity=("push", "{image}", "{reference}"),
        writes=True,
    ),
    # Registries
    Action(
        id="registries.open",
        keys=("i",),
        label="Manifest",
        help="Show the image behind the tag: platforms, layers, configuration.",
        argv=("manifest", "{reference}"),
        footer=2,
    ),
    Action(
        id="registries.add",
        keys=("a",),
        label="Add",
        help="Add a registry or a repository to the list.",
        argv=("tags", "{repository}"),
        footer=4,
    ),
    Action(
        id="registries.login",
        keys=("l",),
        label="Login",
        help="Log in to the registry; the password is never shown, logged or put in a command.",
        argv=("registry", "login", "{registry}"),
        singularity=("registry", "login", "{registry}"),
        footer=5,
        writes=True,
    ),
    Action(
        id="registries.logout",
        keys=("L",),
        label="Logout",
        help="Forget the login of the registry.",
        argv=("registry", "logout", "{registry}"),
        singularity=("registry", "logout", "{registry}"),
        writes=True,
    ),
    Action(
        id="registries.logins",
        keys=("C",),
        label="Logins",
        help="Show every stored login: in which file, which programs read it, whether it works.",
        argv=("registry", "list"),
        singularity=("registry", "list"),
    ),
    Action(
        id="registries.search",
        keys=("F",),
        label="Find",
        help="Search the registry for repositories with a word in their name.",
        argv=("search", "--registry", "{registry}", "{words}"),
    ),
    Action(
        id="registries.limits",
        keys=("D",),
        label="Limits",
        help="Show how we stand with the registry: encryption, login, how many pulls are left.",
        argv=("registry", "test", "{registry}"),
    ),
    Action(
        id="registries.page",
        keys=("w",),
        label="Web page",
        help="Copy the address of the repository's web page.",
        argv=("tags", "{repository}"),
    ),
    Action(
        id="registries.delete",
        keys=("d", "delete"),
        label="Forget",
        help="Take the repository from the list; nothing is deleted at the registry.",
    ),
    Action(
        id="registries.filter",
        keys=("slash", "ctrl+f"),
        label="Filter",
        help="Show only tags with these words; !word for without, ~wrd for letters in between.",
        argv=("tags", "--filter", "{words}", "{repository}"),
        footer=6,
    ),
    Action(
        id="registries.sort",
        keys=("o",),
        label="Sort",
        help="Sort by a column; the same column again turns it round.",
        footer=7,
    ),
    # Logins
    Action(
        id="logins.login",
        keys=("l",),
        label="Login",
        help="Log in again; the password is never shown, logged or put in a command.",
        argv=("registry", "login", "{registry}"),
        singularity=("registry", "login", "{registry}"),
        footer=1,
        writes=True,
    ),
    Action(
        id="logins.logout",
        keys=("L", "d"),
        label="Logout",
        help="Forget the login in its file.",
        argv=("registry", "logout", "--authfile", "{file}", "{registry}"),
        singularity=("registry", "logout", "--authfile", "{file}", "{registry}"),
        footer=2,
        writes=True,
    ),
    # One image at a registry
    Action(
        id="manifest.next_tab",
        keys=("right_square_bracket",),
        label="Next tab",
        help="Show the next part of the image.",
        footer=1,
    ),
    Action(
        id="manifest.previous_tab",
        keys=("left_square_bracket",),
        label="Tab before",
        help="Show the part before.",
        footer=2,
    ),
    # Jobs
    Action(
        id="jobs.open",
        keys=("l", "i"),
        label="Log",
        help="Show everything the job printed.",
        argv=("jobs", "log", "{job}"),
        footer=1,
    ),
    Action(
        id="jobs.cancel",
        keys=("x",),
        label="Cancel",
        help="End the job, or all marked ones; what was downloaded is kept.",
        argv=("jobs", "cancel", "{job}"),
        footer=4,
        writes=True,
    ),
    Action(
        id="jobs.retry",
        keys=("R",),
        label="Retry",
        help="Start the job again; what was downloaded is not downloaded again.",
        argv=("jobs", "retry", "{job}"),
        footer=5,
        writes=True,
    ),
    Action(
        id="jobs.error",
        keys=("e",),
        label="Error",
        help="Say why the job failed, what was kept, and what to do next.",
        argv=("jobs", "log", "{job}"),
    ),
    Action(
        id="jobs.shell",
        keys=("s",),
        label="Shell",
        help="Open a shell in the last good layer of a failed build, in this terminal.",
        argv=("jobs", "shell", "{job}"),
    ),
    Action(
        id="jobs.find",
        keys=("F",),
        label="Find in logs",
        help="Find a text in what all jobs printed, also those of weeks ago.",
        argv=("jobs", "find", "{words}"),
    ),
    Action(
        id="jobs.clear",
        keys=("K",),
        label="Clear",
        help="Forget the jobs that have ended.",
        argv=("jobs", "clear"),
        footer=6,
        writes=True,
    ),
    Action(
        id="jobs.filter",
        keys=("slash", "ctrl+f"),
        label="Filter",
        help="Show only jobs with these words; !word for without, ~wrd for letters in between.",
        footer=7,
    ),
    Action(
        id="jobs.sort",
        keys=("o",),
        label="Sort",
        help="Sort by a column; the same column again turns it round.",
    ),
    # One job
    Action(
        id="job.cancel",
        keys=("x",),
        label="Cancel",
        help="End the job; what was downloaded is kept.",
        argv=("jobs", "cancel", "{job}"),
        footer=8,
        writes=True,
    ),
    Action(
        id="job.retry",
        keys=("R",),
        label="Again",
        help="Start the job again: pull, build or convert once more.",
        argv=("jobs", "retry", "{job}"),
        footer=9,
        writes=True,
    ),
    Action(
        id="job.shell",
        keys=("s",),
        label="Shell",
        help="Open a shell in the last good layer of a failed build, in this terminal.",
        argv=("jobs", "shell", "{job}"),
        footer=10,
    ),
    # Found in logs
    Action(
        id="found.open",
        keys=("l", "i"),
        label="Log",
        help="Go to the line in its log; n and N go to the others there.",
        argv=("jobs", "log", "{job}"),
        footer=1,
    ),
    # Text
    Action(
        id="log.follow",
        keys=("f",),
        label="Follow",
        help="Stay at the end while lines are added.",
        argv=("jobs", "log", "--follow", "{job}"),
        footer=1,
    ),
    Action(
        id="log.wrap",
        keys=("w",),
        label="Wrap",
        help="Break long lines, or scroll them sideways.",
        footer=2,
    ),
    Action(
        id="log.times",
        keys=("t",),
        label="Times",
        help="Show when each line of a job's log was printed (UTC), or no longer.",
        footer=3,
    ),
    Action(
        id="log.find",
        keys=("slash", "ctrl+f"),
        label="Find",
        help="Find a text; matches are counted and lit up.",
        footer=4,
    ),
    Action(id="log.next", keys=("n",), label="Next", help="Go to the next match.", footer=5),
    Action(id="log.previous", keys=("N",), label="Match before", help="Go to the match before."),
    Action(
        id="log.error",
        keys=("E",),
        label="Error",
        help="Go to the next line that speaks of an error.",
        footer=6,
    ),
    Action(
        id="log.save",
        keys=("S",),
        label="Save",
        help="Write the text to a file, without colours and with the times.",
        footer=7,
    ),
    Action(id="log.down", keys=("down", "j"), label="Down", help="Go one line down."),
    Action(id="log.up", keys=("up", "k"), label="Up", help="Go one line up."),
    Action(
        id="log.page_down", keys=("pagedown", "ctrl+d"), label="Page down", help="One screen down."
    ),
    Action(id="log.page_up", keys=("pageup", "ctrl+u"), label="Page up", help="One screen up."),
    Action(id="log.top", keys=("home", "g"), label="Start", help="Go to the first line."),
    Action(id="log.bottom", keys=("end", "G"), label="End", help="Go to the last line."),
    Action(id="log.left", keys=("left",), label="Left", help="Scroll to the left."),
    Action(id="log.right", keys=("right",), label="Right", help="Scroll to the right."),
    # Running
    Action(
        id="running.logs",
        keys=("l",),
        label="Logs",
        help="Show what the container printed.",
        argv=("logs", "{name}"),
        footer=2,
    ),
    Action(
        id="running.shell",
        keys=("s",),
        label="Shell",
        help="Open a shell in the container, in this terminal.",
        argv=("exec", "--in", "{name}", "sh"),
        singularity=("exec", "--oci", "instance://{name}", "sh"),
        footer=1,
    ),
    Action(
        id="running.attach",
        keys=("a",),
        label="Attach",
        help="Attach the container's terminal; ctrl-p ctrl-q leaves it running.",
        argv=("attach", "{name}"),
        footer=3,
    ),
    Action(
        id="running.stop",
        keys=("x",),
        label="Stop",
        help="Ask the container, or all marked ones, to end; end them after ten seconds.",
        argv=("stop", "{name}"),
        footer=4,
        writes=True,
    ),
    Action(
        id="running.kill",
        keys=("X",),
        label="Kill",
        help="End the container at once, or all marked ones.",
        argv=("stop", "--time", "0", "{name}"),
        writes=True,
    ),
    Action(
        id="running.clear",
        keys=("K",),
        label="Clear",
        help="Forget the containers that have ended, and what they printed.",
        argv=("stop", "{name}"),
        footer=6,
        writes=True,
    ),
    Action(
        id="running.filter",
        keys=("slash", "ctrl+f"),
        label="Filter",
        help="Show only containers with these words; !word for without.",
        footer=5,
    ),
    Action(
        id="running.sort",
        keys=("o",),
        label="Sort",
        help="Sort by a column; the same column again turns it round.",
    ),
    # Doctor
    Action(
        id="doctor.again",
        keys=("enter",),
        label="Check again",
        help="Run all checks again.",
        footer=1,
    ),
    # A lab
    Action(
        id="lab.next",
        keys=("right_square_bracket",),
        label="Next step",
        help="Show the next step of the lab.",
        argv=("lab", "show", "{lab}", "{step}"),
        footer=1,
    ),
    Action(
        id="lab.previous",
        keys=("left_square_bracket",),
        label="Step before",
        help="Show the step before.",
        argv=("lab", "show", "{lab}", "{step}"),
        footer=2,
    ),
    Action(
        id="lab.check",
        keys=("c",),
        label="Check",
        help="Look at what was done; the deck also does when files change.",
        argv=("lab", "check", "{lab}", "{step}"),
        footer=3,
    ),
    Action(
        id="lab.hint",
        keys=("h",),
        label="Hint",
        help="Show a hint, and with each press one more.",
        footer=4,
    ),
    Action(
        id="lab.type",
        keys=("t",),
        label="Type",
        help="Go to the line in which commands are typed; escape leaves it.",
        footer=5,
    ),
    Action(
        id="lab.terminal",
        keys=("T",),
        label="Terminal",
        help="Open a shell in the lab's folder, in this terminal.",
        argv=("lab", "start", "--shell", "{lab}"),
        footer=6,
    ),
)

BY_ID: Mapping[str, Action] = {action.id: action for action in ACTIONS}


def actions_of(*views: str) -> tuple[Action, ...]:
    """Return the actions of some views, in the order of the table."""
    return tuple(action for action in ACTIONS if action.view in views)


def footer_of(*views: str) -> tuple[Action, ...]:
    """Return the actions that the footer of a screen shows, first things first."""
    return tuple(
        sorted(
            (action for action in actions_of(*views) if action.footer),
            key=lambda action: action.footer,
        )
    )


_KEY_NAMES = {
    "question_mark": "?",
    "colon": ":",
    "slash": "/",
    "asterisk": "*",
    "plus": "+",
    "minus": "-",
    "right_square_bracket": "]",
    "left_square_bracket": "[",
    "escape": "esc",
    "pagedown": "PgDn",
    "pageup": "PgUp",
    "delete": "Del",
    "f1": "F1",
    "left": "Left",
    "right": "Right",
    "up": "Up",
    "down": "Down",
    "home": "Home",
    "end": "End",
}


def key_name(key: str) -> str:
    """Return what is printed on a key: ``?`` for ``question_mark``."""
    return _KEY_NAMES.get(key, key)


PLACES: Mapping[str, tuple[str, ...]] = {
    **{view: (view, "list", "log") for view in VIEWS},
    "image": ("image", "list", "log"),
    "manifest": ("manifest", "log"),
    "logins": ("logins", "list"),
    "found": ("found", "list"),
    "job": ("job", "log"),
}
"""Screen to the parts of the table whose keys work on it, beside those of the deck."""


def check_keys(bound: Mapping[str, str]) -> list[str]:
    """Check keys that a user bound anew; return a sentence for each two that clash.

    Args:
        bound: Id of an action to its keys, with commas between.

    Raises:
        UsageError: An id is none.
    """
    from backend.config import nearest

    for name in bound:
        if name not in BY_ID:
            raise UsageError(f"[keys]: there is no action {quoted(name)}{nearest(name, BY_ID)}")
    found: dict[str, None] = {}
    for views in PLACES.values():
        for focused in views[1:] or ("",):
            owners: dict[str, Action] = {}
            for action in actions_of("deck", views[0], focused):
                for key in keys_of(action, bound):
                    other = owners.setdefault(key, action)
                    if other is not action and {other.id, action.id} & bound.keys():
                        found[
                            f"key {quoted(key_name(key))} is bound to {other.id} and {action.id}"
                        ] = None
    return list(found)


def keys_of(action: Action, bound: Mapping[str, str]) -> tuple[str, ...]:
    """Return the keys of an action where ``bound`` (id to keys) changes some."""
    keys = bound.get(action.id)
    return action.keys if keys is None else tuple(key.strip() for key in keys.split(",") if key)
