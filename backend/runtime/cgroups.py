"""Groups of the kernel's (cgroups) that hold a container to its limits, made below our own.

Version 2 where a part of its tree is ours: as root, in a scope that systemd has delegated, in
a batch job that hands its part on.  Version 1 where the host still has it and its folders can
be written to, which is root's alone as a rule.  Only the container goes into the group; the
launcher and the servers of its files stay outside.

Groups do not vanish by themselves; see :mod:`backend.runtime.keeper`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from dataclasses import dataclass

from backend.errors import LaunchError
from backend.runtime.keeper import Keeper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from backend.runtime.plan import Limit

_PREFIX = "sifdeck."
"""Of the groups' names, before the launcher's pid; not a container's name, which runc would use."""
_REST = "sifdeck.rest"
"""Where processes go that stand in the way: version 2 allows them in leaves of the tree only."""
_PATIENCE_S = 60.0
"""How long others may bring processes into a group that we clear out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """A tree of groups, and our place in it.

    Attributes:
        version: 1 or 2.
        folder: Our own group.
        controllers: What can be limited below it.
    """

    version: int
    folder: str
    controllers: frozenset[str]

    def check(self) -> None:
        """Hold that we may make groups below ours.

        Raises:
            OSError: We may not.
        """
        writable = [self.folder, f"{self.folder}/cgroup.procs"]
        if self.version == 2:
            writable.append(f"{self.folder}/cgroup.subtree_control")
        for path in writable:
            if not os.access(path, os.W_OK):
                raise OSError(errno.EACCES, "not delegated to you", path)


def find_hierarchies(process: str = "self") -> list[Hierarchy]:
    """Return the hierarchies that a process is in and that are mounted, version 2 first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        mounts = [line.split(" ") for line in lines if " - cgroup" in line]
    found = []
    with open(f"/proc/{process}/cgroup", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            _, names, path = line.rstrip("\n").split(":", 2)
            for mount in reversed(mounts):  # a later one may cover an earlier one
                if hierarchy := _seen_through(mount, names, path):
                    found.append(hierarchy)
                    break
    return sorted(found, key=lambda one: -one.version)


def _seen_through(mount: list[str], names: str, path: str) -> Hierarchy | None:
    """Return what a mount shows of a line of /proc/PID/cgroup; None if it is another's."""
    version, options = (1, mount[-1].strip().split(",")) if names else (2, [])
    kind = mount[mount.index("-") + 1]
    if kind != ("cgroup" if names else "cgroup2") or not set(names.split(",")) <= {*options, ""}:
        return None
    below = os.path.relpath(path, mount[3])
    folder = os.path.normpath(f"{mount[4]}/{below}")
    if below.startswith("..") or not os.path.exists(f"{folder}/cgroup.procs"):
        return None
    if version == 1:
        return Hierarchy(version=1, folder=folder, controllers=frozenset(names.split(",")))
    if os.path.basename(folder) == _REST:
        folder = os.path.dirname(folder)
    with open(f"{folder}/cgroup.controllers", encoding="ascii") as file:
        return Hierarchy(version=2, folder=folder, controllers=frozenset(file.read().split()))


def choose_groups(limits: Sequence[Limit]) -> list[tuple[Hierarchy, dict[str, str]]]:
    """Return where groups shall be made, and what shall be written to which file of each.

    Raises:
        LaunchError: This host cannot hold a container to one of the limits.
    """
    hierarchies = find_hierarchies()
    chosen: dict[str, tuple[Hierarchy, dict[str, str]]] = {}
    for limit in limits:
        hierarchy, files = _choose(limit, hierarchies)
        chosen.setdefault(hierarchy.folder, (hierarchy, {}))[1].update(files)
    return list(chosen.values())


def _choose(limit: Limit, hierarchies: list[Hierarchy]) -> tuple[Hierarchy, Mapping[str, str]]:
    reasons = []
    for hierarchy in hierarchies:
        files = limit["files"] if hierarchy.version == 2 else limit["legacy_files"]
        name = limit["controller"] if hierarchy.version == 2 else limit["legacy"]
        if not files or name not in hierarchy.controllers:
            continue
        try:
            hierarchy.check()
        except OSError as error:
            reasons.append(f"{error.filename}: {error.strerror}")
        else:
            return hierarchy, files
    raise LaunchError(
        f"this host cannot hold a container to limits of {limit['what']}",
        why="; ".join(reasons) or f"no cgroup controller {limit['controller']} is delegated to you",
        hint="start it where cgroup version 2 is delegated (a systemd user session, a batch job), "
        "or leave out the limits; see: sifdeck doctor",
    )


class Groups:
    """The groups of one container.

    Attributes:
        doors: Open files; a process enters the groups by writing ``0`` into each.

    Args:
        limits: What they hold it to.

    Raises:
        LaunchError: The kernel does not take a limit.
    """

    def __init__(self, limits: Sequence[Limit]) -> None:
        chosen = choose_groups(limits)
        name = f"{_PREFIX}{os.getpid()}"
        self.doors: list[int] = []
        groups = [f"{hierarchy.folder}/{name}" for hierarchy, _ in chosen]
        self._keeper = Keeper(lambda: _remove(groups))
        try:
            for hierarchy, files in chosen:
                with _locked(hierarchy.folder):
                    group = f"{hierarchy.folder}/{name}"
                    _sweep(hierarchy.folder)
                    os.mkdir(group)
                    _hand_on(hierarchy, {file.partition(".")[0] for file in files})
                for file, value in files.items():
                    _write(f"{group}/{file}", value)
                self.doors.append(_open_door(group))
        except OSError as error:
            self.remove()
            raise LaunchError(
                "the kernel does not take the limits",
                why=f"{error.filename}: {error.strerror}",
                hint="leave out the one that is named, or choose another value",
            ) from error

    def remove(self) -> None:
        """Remove the groups; every process in them must have ended."""
        for door in self.doors:
            os.close(door)
        self.doors.clear()
        self._keeper.finish()


def _remove(groups: list[str]) -> bool:
    """Remove the groups that are empty by now, and tell whether those were all."""
    for group in list(groups):
        folder = os.path.dirname(group)
        try:
            with _locked(folder):
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir(group)
                _let_back_in(folder)
        except OSError:  # its last process is just ending
            continue
        groups.remove(group)
    return not groups


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Keep others of us from making or removing groups in a folder meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sweep(folder: str) -> None:
    """Remove what was left where somebody killed a keeper, too."""
    for name in _groups_in(folder):
        if not os.path.exists(f"/proc/{name.removeprefix(_PREFIX)}"):
            with contextlib.suppress(OSError):
                os.rmdir(f"{folder}/{name}")


def _groups_in(folder: str) -> list[str]:
    return [name for name in os.listdir(folder) if name.removeprefix(_PREFIX).isdigit()]


def _hand_on(hierarchy: Hierarchy, controllers: set[str]) -> None:
    """Let a hierarchy's new groups use the controllers."""
    if hierarchy.version == 1:
        if "cpuset" in controllers:  # new groups have no processors and no memory to begin with
            _copy_cpuset(hierarchy.folder)
        return None
    control = f"{hierarchy.folder}/cgroup.subtree_control"
    with open(control, encoding="ascii") as file:
        missing = sorted(controllers - set(file.read().split()))
    if not missing:
        return None
    wanted = " ".join(f"+{name}" for name in missing)
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return _write(control, wanted)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > end:
                raise
        _clear_out(hierarchy.folder)


def _clear_out(folder: str) -> None:
    """Move the processes of a group into a leaf below it, so that it may hand on controllers."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(f"{folder}/{_REST}")
    _move(folder, f"{folder}/{_REST}")


def _let_back_in(folder: str) -> None:
    """Undo :func:`_clear_out` when the last of our groups has gone."""
    rest = f"{folder}/{_REST}"
    if _groups_in(folder) or not os.path.isdir(rest):
        return
    control = f"{folder}/cgroup.subtree_control"
    with open(control, encoding="ascii") as file:
        handed_on = file.read().split()
    _write(control, " ".join(f"-{name}" for name in handed_on))
    _move(rest, folder)
    os.rmdir(rest)


def _move(source: str, target: str) -> None:
    with open(f"{source}/cgroup.procs", encoding="ascii") as file:
        processes = file.read().split()
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            _write(f"{target}/cgroup.procs", process)


def _copy_cpuset(folder: str) -> None:
    group = f"{folder}/{_PREFIX}{os.getpid()}"
    for name in ("cpuset.cpus", "cpuset.mems"):
        with open(f"{folder}/{name}", encoding="ascii") as file:
            _write(f"{group}/{name}", file.read().strip())


def open_doors(process: int) -> list[int]:
    """Return where a process writes ``0`` to join the groups of ours that another is in."""
    folders = [one.folder for one in find_hierarchies(str(process))]
    ours = [one for one in folders if os.path.basename(one).startswith(_PREFIX)]
    return [_open_door(folder) for folder in ours]


def _open_door(group: str) -> int:
    # Opened early: later another mount may hide it, and we may be somebody else.
    return os.open(f"{group}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(descriptor)
