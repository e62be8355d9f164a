"""Limits, where a part of the version 2 cgroup tree is ours: a systemd session, a batch job."""

from __future__ import annotations

import contextlib
import errno
import os

from backend.errors import LaunchError

TYPE_CHECKING = False  # importing typing costs the launcher 5 ms
if TYPE_CHECKING:
    from backend.runtime.options import Limits
    from backend.runtime.plan import Cgroup

_ROOT = "/sys/fs/cgroup"
_PERIOD = 100_000
"""Microseconds over which processor time is shared out."""


def delegated() -> tuple[str, tuple[str, ...]]:
    """Return our cgroup's folder and the controllers that we may use below it.

    Raises:
        OSError: There is no version 2 tree, or our part of it is not ours to change.
    """
    if not os.path.exists(f"{_ROOT}/cgroup.controllers"):
        raise OSError(errno.ENOENT, "not cgroup version 2", _ROOT)
    with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as lines:
        path = next((line.strip()[3:] for line in lines if line.startswith("0::")), "/")
    folder = f"{_ROOT}{path}".rstrip("/")
    if not os.access(folder, os.W_OK) or not os.access(f"{folder}/cgroup.procs", os.W_OK):
        raise OSError(errno.EACCES, "not delegated to you", folder)
    with open(f"{folder}/cgroup.controllers", encoding="ascii") as file:
        controllers = tuple(file.read().split())
    if not controllers:
        raise OSError(errno.ENOENT, "no controllers are delegated", folder)
    return folder, controllers


def settings(limits: Limits) -> dict[str, str]:
    """Return what is written where to hold a cgroup to the limits; empty for no limits.

    The keys are names of files of cgroup version 2; a controller is what stands before the dot.
    """
    wanted: dict[str, str] = {}
    if limits.cpus is not None:
        wanted["cpu.max"] = f"{int(limits.cpus * _PERIOD)} {_PERIOD}"
    if limits.cpu_shares is not None:  # 2..262144 of version 1 to 1..10000, as the kernel's docs
        wanted["cpu.weight"] = str(1 + (limits.cpu_shares - 2) * 9999 // 262142)
    if limits.cpuset_cpus:
        wanted["cpuset.cpus"] = limits.cpuset_cpus
    if limits.cpuset_mems:
        wanted["cpuset.mems"] = limits.cpuset_mems
    if limits.memory is not None:
        wanted["memory.max"] = _amount(limits.memory)
    if limits.memory_reservation is not None:
        wanted["memory.low"] = _amount(limits.memory_reservation)
    if limits.memory_swap is not None:
        both, memory = limits.memory_swap, limits.memory or 0
        wanted["memory.swap.max"] = "max" if both < 0 else str(max(0, both - memory))
    if limits.pids is not None:
        wanted["pids.max"] = _amount(limits.pids)
    if limits.blkio_weight is not None:
        wanted["io.weight"] = str(1 + (limits.blkio_weight - 10) * 9999 // 990)
    return wanted


def _amount(number: int) -> str:
    return "max" if number < 0 else str(number)


def check(limits: Limits) -> tuple[str, dict[str, str]]:
    """Return the folder of our cgroup and the settings, if this host can honour them.

    Raises:
        LaunchError: It cannot.
    """
    wanted = settings(limits)
    if not wanted:
        return "", {}
    try:
        folder, controllers = delegated()
    except OSError as error:
        raise LaunchError(
            "this host cannot hold a container to limits",
            why=f"{error.filename}: {error.strerror}",
            hint="start it in a session with a delegated cgroup (systemd-run --user --scope), "
            "or leave out the limits; see: sifdeck doctor",
        ) from error
    missing = {name.partition(".")[0] for name in wanted} - set(controllers)
    if missing:
        raise LaunchError(
            f"this host does not hand on the cgroup controllers {', '.join(sorted(missing))}",
            why=f"{folder} has {' '.join(controllers)} only",
            hint="an administrator can delegate them: Delegate=yes for user@.service",
        )
    return folder, wanted


def enter(wanted: Cgroup) -> None:
    """Make a group with the limits below ours, and move this process into it.

    It stays, empty, when we end; the next start of a container removes it.

    Raises:
        LaunchError: The kernel does not take the limits.
    """
    folder = wanted["folder"]
    for name in os.listdir(folder):
        if name.startswith("sifdeck-"):
            with contextlib.suppress(OSError):  # still in use
                os.rmdir(f"{folder}/{name}")
    group = f"{folder}/sifdeck-{os.getpid()}"
    controllers = sorted({name.partition(".")[0] for name in wanted["settings"]})
    try:
        os.mkdir(group)
        _write(f"{folder}/cgroup.subtree_control", " ".join(f"+{name}" for name in controllers))
        for name, value in wanted["settings"].items():
            _write(f"{group}/{name}", value)
        _write(f"{group}/cgroup.procs", "0")
    except OSError as error:
        raise LaunchError(
            "the kernel does not take the limits",
            why=f"{error.filename}: {error.strerror}",
            hint="start it in a group of its own: systemd-run --user --scope -p Delegate=yes",
        ) from error


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(descriptor)
