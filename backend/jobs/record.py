"""What is known about one job: the files ``job.json`` and ``exit`` of its folder."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from backend.errors import FormatError
from backend.jobs.identity import ProcessIdentity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

JobKind = Literal["network", "build", "local"]
"""What a job mostly waits for; the number that run at once is limited for each kind."""

JobState = Literal["queued", "running", "done", "failed", "cancelled", "lost"]

_MAX_BYTES = 1 << 20
"""Bytes of a record; a command line of this length is refused by the kernel anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a job ended.

    Attributes:
        status: Its exit status; 128 + N when signal N ended it.
        cancelled: Whether somebody asked for the end.
        ended: Seconds since 1970, UTC.
    """

    status: int
    cancelled: bool
    ended: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job, as it stood when its files were read.

    Attributes:
        number: What the user calls it.
        folder: Where its files are.
        verb: ``pull``, ``build`` ...
        title: What it works on.
        argv: The command line after ``sifdeck``, secrets masked.
        environment: Variables that change what it does, secrets masked.
        cwd: The folder it works in.
        kind: What it mostly waits for.
        created: Seconds since 1970, UTC.
        process: Who supervises it; where no process answers to this, the job is lost.
        after: Jobs that must have ended well before it begins.
        retry_of: The job that it tries again; 0 for none.
        started: When it left the queue, seconds since 1970, UTC; None while it waits.
        exit: How it ended; None until then.
    """

    number: int
    folder: Path
    verb: str
    title: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: str
    kind: JobKind
    created: float
    process: ProcessIdentity
    after: tuple[int, ...] = ()
    retry_of: int = 0
    started: float | None = None
    exit: Exit | None = None

    @property
    def host(self) -> str:
        """Where it runs; a job of another host is shown but never signalled."""
        return self.process.host

    @property
    def state(self) -> JobState:
        """What became of it, as far as this host can see.  Asks the kernel while it runs."""
        if self.exit is not None:
            if self.exit.cancelled:
                return "cancelled"
            return "failed" if self.exit.status else "done"
        if not self.process.is_alive:
            return "lost"
        return "queued" if self.started is None else "running"

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state not in {"queued", "running"}

    @property
    def log(self) -> Path:
        """The file with everything it printed."""
        return self.folder / "log"

    def elapsed_s(self, now: float) -> float:
        """Return the seconds that it has run, or ran.

        Args:
            now: Seconds since 1970, UTC.
        """
        if self.started is None:
            return 0.0
        return max((self.exit.ended if self.exit else now) - self.started, 0.0)


def write_job(job: Job) -> None:
    """Write the record of a job, replacing an older one atomically."""
    fields = dataclasses.asdict(job)
    for name in ("number", "folder", "exit"):
        del fields[name]
    write_atomically(job.folder / "job.json", json.dumps(fields, indent=1).encode())


def write_exit(folder: Path, end: Exit) -> None:
    """Write how the job ended; nothing is written to the folder after it."""
    write_atomically(folder / "exit", json.dumps(dataclasses.asdict(end)).encode())


def read_job(folder: Path) -> Job:
    """Read the job in a folder.

    Raises:
        FormatError: The folder holds no complete record.
    """
    fields = _document(folder / "job.json")
    process = fields.get("process")
    try:
        return Job(
            number=int(folder.name),
            folder=folder,
            verb=str(fields["verb"]),
            title=str(fields["title"]),
            argv=tuple(str(word) for word in fields["argv"]),
            environment={str(k): str(v) for k, v in fields["environment"].items()},
            cwd=str(fields["cwd"]),
            kind=fields["kind"],
            created=float(fields["created"]),
            process=ProcessIdentity(**process) if isinstance(process, dict) else _nobody(),
            after=tuple(int(number) for number in fields["after"]),
            retry_of=int(fields["retry_of"]),
            started=None if fields["started"] is None else float(fields["started"]),
            exit=read_exit(folder),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{folder.name}/job.json is not the record of a job") from error


def read_exit(folder: Path) -> Exit | None:
    """Return how the job in a folder ended; None while it has not.

    Raises:
        FormatError: The file is damaged.
    """
    path = folder / "exit"
    if not path.exists():
        return None
    fields = _document(path)
    try:
        return Exit(
            status=int(fields["status"]),
            cancelled=bool(fields["cancelled"]),
            ended=float(fields["ended"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{folder.name}/exit does not say how a job ended") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file so that readers, also on other hosts, see the old or the new one."""
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(number, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _document(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path.parent.name}/{path.name} cannot be read") from error
    if not isinstance(document, dict):
        raise FormatError(f"{path.parent.name}/{path.name} is not a JSON object")
    return document


def _nobody() -> ProcessIdentity:
    """Return an identity that no process has."""
    return ProcessIdentity(host="", boot="", pid=0, start=0)
