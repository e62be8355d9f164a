"""Containers in the background: a folder for each, below the runtime folder of the user.

``record.json`` says what runs and which process watches over it, ``log`` holds what it prints,
``exit`` its status once it has ended.  A process is known by its pid and the time at which it
started, so that neither a reboot nor a number that is used again makes a ghost.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import time
from dataclasses import asdict, dataclass
from typing import Any

from backend.errors import ExistsError, LaunchError, NotFoundError, UsageError
from backend.escape import quoted

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MAX_RECORD = 4 << 20
_WORDS = ("calm", "brave", "swift", "amber", "polar", "quiet", "lucid", "solar")
_THINGS = ("otter", "heron", "maple", "comet", "delta", "ember", "fjord", "quartz")
_LOOK_S = 0.05
"""Seconds between two looks at whether something has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A container in the background.

    Attributes:
        name: Unique among those that run.
        image: Path of the file.
        command: What it runs.
        pid: Of the launcher.
        started_ticks: When the launcher started, in clock ticks since boot.
        created: Seconds since 1970.
        runtime: ``crun``, ``runc`` or ``builtin``.
        document: Its config.json, for programs that join it.
    """

    name: str
    image: str
    command: tuple[str, ...]
    pid: int
    started_ticks: int
    created: int
    runtime: str
    document: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A container in the background, and how it is.

    Attributes:
        folder: Where its files are.
        record: What it is.
        is_running: Whether its launcher is alive.
        status: Its exit status; None while it runs, or when it was killed.
    """

    folder: str
    record: Record
    is_running: bool
    status: int | None

    @property
    def log(self) -> str:
        """Path of the file with what it printed."""
        return f"{self.folder}/log"

    def has(self, name: str) -> bool:
        """Tell whether its folder holds something called ``name``."""
        return os.path.exists(f"{self.folder}/{name}")


def home() -> str:
    """Return the folder of all records, made if it is missing.

    Raises:
        LaunchError: Somebody else owns the folder that we would use.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR") or ("/run" if os.getuid() == 0 else "")
    own = f"{runtime}/sifdeck" if runtime else f"/tmp/sifdeck-{os.getuid()}"
    os.makedirs(own, 0o700, exist_ok=True)
    state = os.lstat(own)
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o077:
        raise LaunchError(
            f"{own} belongs to somebody else, or is open to others",
            hint="set XDG_RUNTIME_DIR to a folder of your own",
        )
    folder = f"{own}/containers"
    os.makedirs(folder, 0o700, exist_ok=True)
    return folder


def reserve(name: str) -> tuple[str, str]:
    """Return the name and the fresh folder of a new container.

    Args:
        name: Empty to have one chosen.

    Raises:
        UsageError: It is no name.
        ExistsError: A container of that name runs.
    """
    if name and not _NAME.fullmatch(name):
        raise UsageError(f"not a name for a container: {quoted(name, limit=80)}")
    for wanted in [name] if name else _suggestions():
        folder = f"{home()}/{wanted}"
        if not os.path.exists(folder) or not _read(folder).is_running:
            shutil.rmtree(folder, ignore_errors=True)
            os.mkdir(folder, 0o700)
            return wanted, folder
        if name:
            raise ExistsError(f"a container called {name} is running", hint=f"sifdeck stop {name}")
    raise UsageError("give the container a name: --name NAME")


def _suggestions() -> list[str]:
    import random

    names = [f"{word}-{thing}" for word in _WORDS for thing in _THINGS]
    random.shuffle(names)
    return names


def write_record(folder: str, record: Record) -> None:
    """Write the record, whole or not at all."""
    part = f"{folder}/.record"
    with open(part, "w", encoding="utf-8") as file:
        json.dump(asdict(record), file)
    os.replace(part, f"{folder}/record.json")


def list_instances(*, ended: bool = False) -> list[Instance]:
    """Return the containers that run, sorted by name; with ``ended`` also those that do not."""
    folder = home()
    found = [_read(f"{folder}/{name}") for name in sorted(os.listdir(folder))]
    return [one for one in found if one.record.pid and (ended or one.is_running)]


def find_instance(name: str, *, running: bool) -> Instance:
    """Return the container called ``name``.

    Raises:
        NotFoundError: There is none, or it does not run although it should.
    """
    folder = f"{home()}/{name}"
    if _NAME.fullmatch(name) and os.path.isdir(folder):
        found = _read(folder)
        if found.is_running or (found.record.pid and not running):
            return found
    names = ", ".join(one.record.name for one in list_instances()) or "none"
    raise NotFoundError(
        f"no container called {quoted(name, limit=80)} runs", hint=f"these do: {names}"
    )


def _read(folder: str) -> Instance:
    """Return what a folder holds; what cannot be read is a container that has ended."""
    try:
        with open(f"{folder}/record.json", encoding="utf-8") as file:
            fields = json.loads(file.read(_MAX_RECORD))
        record = Record(**fields | {"command": tuple(fields["command"])})
    except (OSError, ValueError, TypeError, KeyError):
        name = os.path.basename(folder)
        record = Record(
            name=name, image="", command=(), pid=0, started_ticks=0, created=0, runtime="",
            document={},
        )  # fmt: skip
    return Instance(
        folder=folder,
        record=record,
        is_running=record.pid > 0 and started_ticks(record.pid) == record.started_ticks,
        status=_status(folder),
    )


def _status(folder: str) -> int | None:
    try:
        with open(f"{folder}/exit", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def started_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 when there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in {"Z", "X"} else int(fields[19])


def first_process(instance: Instance) -> int:
    """Return the pid, as we see it, of the container's first process.

    Raises:
        NotFoundError: It has just ended.
    """
    children: dict[int, list[int]] = {}
    depth: dict[int, int] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        parent, numbers = _family(int(name))
        children.setdefault(parent, []).append(int(name))
        if numbers[-1:] == ["1"]:
            depth[int(name)] = len(numbers)
    waiting, found = [instance.record.pid], []
    while waiting:
        pid = waiting.pop()
        found += [pid] if pid in depth else []
        waiting += children.get(pid, [])
    if not found:
        raise NotFoundError(f"the container {instance.record.name} has just ended")
    return max(found, key=lambda pid: depth[pid])  # crun is the first of an outer namespace


def _family(pid: int) -> tuple[int, list[str]]:
    """Return the parent of a process, and its numbers in the pid namespaces it is in."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as lines:
            fields = dict(line.split(":", 1) for line in lines if ":" in line)
    except OSError:
        return 0, []
    return int(fields["PPid"]), fields.get("NSpid", "").split()


def stop(instance: Instance, *, grace_s: float) -> None:
    """End a container: SIGTERM, and SIGKILL after ``grace_s`` seconds."""
    record = instance.record
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        if started_ticks(record.pid) != record.started_ticks:
            break
        os.kill(record.pid, number)
        end = time.monotonic() + wait_s
        while time.monotonic() < end and started_ticks(record.pid) == record.started_ticks:
            time.sleep(_LOOK_S)
    shutil.rmtree(instance.folder, ignore_errors=True)


def wait(instance: Instance) -> bool:
    """Wait a moment; return whether the container still runs."""
    time.sleep(_LOOK_S)
    return started_ticks(instance.record.pid) == instance.record.started_ticks
