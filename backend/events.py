"""What long operations tell: one stream for the progress bar, the deck, ``--json`` and the log.

An operation takes ``report: Report`` and calls it with these values, at any rate it likes
(whoever draws decides how often).  Each event is a snapshot, never a difference: whoever
missed one loses nothing.  :func:`encode` and :func:`decode` turn events into lines of JSON,
the form of ``events.jsonl`` in a job's directory and of ``--json``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from backend.errors import FormatError
from backend.escape import quoted

_MAX_LINE = 1 << 20
"""Bytes in one encoded event; a build step's output is cut long before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events."""

    kind: ClassVar[str] = "event"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Event):
    """An operation began.

    Attributes:
        verb: The command line's verb: ``pull``, ``build``, ``convert`` ...
        title: What it works on, as the user named it.
        target: The file it writes; empty when it writes none.
    """

    kind: ClassVar[str] = "started"
    verb: str
    title: str
    target: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved(Event):
    """A reference turned out to be this image.

    Attributes:
        reference: The canonical reference.
        digest: Of the platform's manifest, over the bytes received.
        platform: Such as ``linux/amd64``.
        total: Bytes of all layers as the registry holds them.
    """

    kind: ClassVar[str] = "resolved"
    reference: str
    digest: str
    platform: str
    total: int


BlobState = Literal[
    "waiting", "exists", "downloading", "uploading", "retry", "verifying", "done", "failed"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob(Event):
    """Where the transfer of one blob stands.

    Attributes:
        digest: Of the blob.
        role: ``layer``, ``config`` or ``manifest``.
        index: Position among the blobs of its role, from 0, base layer first.
        state: ``exists`` means it was in the cache; ``retry`` that it waits to go on.
        done: Bytes here so far.
        size: Bytes in all, as the manifest says.
        note: What a person should know: ``attempt 2 of 5, resumes at 38.4 MB``.
    """

    kind: ClassVar[str] = "blob"
    digest: str
    role: str
    index: int
    state: BlobState
    done: int
    size: int
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase(Event):
    """A part of the operation that is not one blob.

    Attributes:
        name: ``resolve``, ``convert``, ``write``, ``verify``, ``extract`` ...
        done: Units done so far.
        total: Units in all; 0 while unknown.
        unit: ``bytes`` or ``files``.
        state: ``running`` until the phase's last event says ``done``.
    """

    kind: ClassVar[str] = "phase"
    name: str
    done: int = 0
    total: int = 0
    unit: str = "bytes"
    state: Literal["running", "done"] = "running"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Event):
    """One step of a build.

    Attributes:
        number: From 1.
        total: Steps in all; 0 while unknown.
        name: The instruction.
        state: What became of it.
        seconds: How long it took; 0 while it runs.
        error: Why it failed.
        line: Its line in the Dockerfile, from 1; 0 while unknown.
    """

    kind: ClassVar[str] = "step"
    number: int
    total: int
    name: str
    state: Literal["waiting", "running", "cached", "done", "failed"]
    seconds: float = 0.0
    error: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Output(Event):
    """Text that a step or a program printed, one line without its end.

    Attributes:
        text: The line.  It may hold escape sequences: escape before showing.
        step: The build step it belongs to; 0 for none.
        stream: Where it was printed.
    """

    kind: ClassVar[str] = "output"
    text: str
    step: int = 0
    stream: Literal["stdout", "stderr"] = "stdout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note(Event):
    """A sentence for the user that is not an error."""

    kind: ClassVar[str] = "note"
    level: Literal["info", "warning"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retained(Event):
    """What a failed build left in its builder's store, where a shell can be opened in it.

    Attributes:
        builder: Who has it: ``buildah`` or ``podman``.
        image: Id or name of the last good layer's image.
        step: The step that made it.
    """

    kind: ClassVar[str] = "retained"
    builder: str
    image: str
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Event):
    """The operation ended well.

    Attributes:
        path: The file written; empty when none was.
        digest: Of the image in it.
        size: Bytes of the file.
    """

    kind: ClassVar[str] = "finished"
    path: str = ""
    digest: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Event):
    """The operation ended with an error; the fields are those of ``BackendError``."""

    kind: ClassVar[str] = "failed"
    message: str
    why: str = ""
    kept: str = ""
    hint: str = ""
    exit_code: int = 1


Report = Callable[[Event], None]

_KINDS: dict[str, type[Event]] = {
    cls.kind: cls
    for cls in (
        Started,
        Resolved,
        Blob,
        Phase,
        Step,
        Output,
        Note,
        Retained,
        Finished,
        Failed,
    )
}


def ignore(_event: Event) -> None:
    """Report to nobody."""


def encode(event: Event) -> str:
    """Return the event as one line of JSON, without the line's end."""
    return json.dumps({"kind": event.kind} | dataclasses.asdict(event), ensure_ascii=True)


def decode(line: str | bytes) -> Event:
    """Return the event of one line that :func:`encode` wrote.

    Raises:
        FormatError: The line is no event.
    """
    if len(line) > _MAX_LINE:
        raise FormatError("an event is longer than 1 MiB")
    try:
        fields: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FormatError("an event is not JSON") from error
    if not isinstance(fields, dict):
        raise FormatError("an event is not a JSON object")
    cls = _KINDS.get(str(fields.pop("kind", "")))
    if cls is None:
        raise FormatError("an event of unknown kind")
    wanted = {field.name: field for field in dataclasses.fields(cls)}
    for name, value in fields.items():
        field = wanted.get(name)
        if field is None or not _fits(value, str(field.type)):
            raise FormatError(f"field {quoted(name)} does not belong in a {cls.kind} event")
    try:
        return cls(**fields)
    except TypeError as error:
        raise FormatError(f"a {cls.kind} event lacks a field") from error


def _fits(value: object, annotation: str) -> bool:
    """Tell whether a JSON value has the type that a field is annotated with."""
    if annotation == "int":
        return type(value) is int
    if annotation == "float":
        return type(value) in {int, float}
    return isinstance(value, str)
