"""What screens ask the deck for: the deck shows the dialog, composes the command and starts it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from app.commands import CommandLine
    from app.forms import Form
    from backend.catalog import Image
    from backend.config import CustomCommand


@dataclass
class RunRequested(Message):
    """Somebody wants to run an image, or a shell in it."""

    image: Image
    verb: str


@dataclass
class JobRequested(Message):
    """Somebody filled in a form whose command runs as a job; the form is shown first."""

    form: Form


@dataclass
class JobsRequested(Message):
    """Commands are to run as jobs of their own, each with what it works on."""

    commands: Sequence[tuple[str, CommandLine]]


@dataclass
class RepositoryRequested(Message):
    """A repository is to be shown among the registries."""

    name: str


@dataclass
class CommandRequested(Message):
    """A command that ends soon is to be run now, its failure shown.

    Attributes:
        command: The command.
        done: What to say when it ended well.
        question: What is asked first, one line each; empty asks nothing.
        go: What the button says that does it.
        shows_output: Whether what it printed is shown, instead of ``done``.
        timeout_s: Seconds that it may take.
    """

    command: CommandLine
    done: str
    question: Sequence[str] = ()
    go: str = "Yes"
    shows_output: bool = False
    timeout_s: float = 60.0


@dataclass
class CopyRequested(Message):
    """A text is to be copied."""

    text: str


@dataclass
class RetryRequested(Message):
    """A job is to be started once more."""

    job: int


@dataclass
class LoginRequested(Message):
    """Somebody wants to log in; the password goes to the command's standard input."""

    form: Form


@dataclass
class AttachRequested(Message):
    """A command that wants a terminal of its own, or ours."""

    command: CommandLine


@dataclass
class CustomRequested(Message):
    """A command of the user's own is to be run.

    Attributes:
        command: The command.
        subject: What the words in braces stand for.
    """

    command: CustomCommand
    subject: Mapping[str, str]
