"""What a container may use: the flags and SingularityCE's ``--apply-cgroups`` file, as settings.

For each limit the files of cgroup version 2 that hold a group to it, and those of version 1.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from backend.errors import UsageError
from backend.escape import quoted
from backend.runtime.host import find_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from backend.runtime.options import Limits
    from backend.runtime.plan import Limit

_PERIOD = 100_000
"""Microseconds over which processor time is shared out."""
_MAX_FILE = 1 << 20
_FILE_NAME = r"[a-z]+(\.[A-Za-z0-9_-]+)+"
_RUNTIME_TASKS = {"builtin": 0, "crun": 1, "runc": 16}
"""Tasks of the runtime itself, which share the container's group; runc's threads vary."""


def describe_limits(limits: Limits, runtime: str) -> list[Limit]:
    """Return what is written into the files of the container's groups.

    Args:
        limits: As asked for.
        runtime: ``crun``, ``runc`` or ``builtin``, whose own tasks are added to the limit.

    Raises:
        UsageError: Limits that make no sense together.
    """
    return [*_processor(limits), *_memory(limits), *_others(limits, runtime)]


def _processor(limits: Limits) -> Iterator[Limit]:
    if limits.cpus is not None:
        quota = int(limits.cpus * _PERIOD)
        old = {"cpu.cfs_period_us": str(_PERIOD), "cpu.cfs_quota_us": str(quota)}
        yield _limit("--cpus", "cpu", {"cpu.max": f"{quota} {_PERIOD}"}, old)
    if limits.cpu_shares is not None:  # 2..262144 to 1..10000, as the kernel's documentation
        weight = str(1 + (limits.cpu_shares - 2) * 9999 // 262142)
        old = {"cpu.shares": str(limits.cpu_shares)}
        yield _limit("--cpu-shares", "cpu", {"cpu.weight": weight}, old)
    for name in ("cpus", "mems"):
        if wanted := getattr(limits, f"cpuset_{name}"):
            files = {f"cpuset.{name}": wanted}
            yield _limit(f"--cpuset-{name}", "cpuset", files, files)


def _memory(limits: Limits) -> Iterator[Limit]:
    memory, both = limits.memory, limits.memory_swap
    if memory is not None:
        old = {"memory.limit_in_bytes": str(memory)}
        yield _limit("--memory", "memory", {"memory.max": _amount(memory)}, old)
    if limits.memory_reservation is not None:
        low = str(limits.memory_reservation)
        old = {"memory.soft_limit_in_bytes": low}
        yield _limit("--memory-reservation", "memory", {"memory.low": low}, old)
    if both is not None:
        if both >= 0 and (memory is None or memory > both):
            raise UsageError("--memory-swap is memory and swap together: give --memory, too")
        swap = "max" if both < 0 else str(both - (memory or 0))
        old = {"memory.memsw.limit_in_bytes": str(both)}
        yield _limit("--memory-swap", "memory", {"memory.swap.max": swap}, old)
    if limits.oom_kill_disable:  # version 2 has no such thing
        yield _limit("--oom-kill-disable", "memory", {}, {"memory.oom_control": "1"})


def _others(limits: Limits, runtime: str) -> Iterator[Limit]:
    if limits.pids is not None and limits.pids > 0:
        files = {"pids.max": str(limits.pids + _RUNTIME_TASKS[runtime])}
        yield _limit("--pids-limit", "pids", files, files)
    if limits.blkio_weight is not None:
        new = {"io.weight": f"default {_io_weight(limits.blkio_weight)}"}
        yield _limit("--blkio-weight", "io", new, {"blkio.weight": str(limits.blkio_weight)})
    for entry in limits.blkio_devices:
        device, _, weight = entry.partition(" ")
        new = {"io.weight": f"{device} {_io_weight(int(weight))}"}
        yield _limit("--blkio-weight-device", "io", new, {"blkio.weight_device": entry})
    for name, value in limits.unified:
        yield _limit(name, name.partition(".")[0], {name: value}, {})


def _limit(
    what: str, controller: str, files: Mapping[str, str], legacy_files: Mapping[str, str]
) -> Limit:
    return {
        "what": what,
        "controller": controller,
        "legacy": "blkio" if controller == "io" else controller,
        "files": dict(files),
        "legacy_files": dict(legacy_files),
    }


def _amount(number: int) -> str:
    return "max" if number < 0 else str(number)


def _io_weight(weight: int) -> int:
    """Return 10..1000 of version 1 as 1..10000."""
    return 1 + (weight - 10) * 9999 // 990


def parse_device_weights(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Parse ``/dev/X:WEIGHT`` entries into ``MAJOR:MINOR WEIGHT``.

    Raises:
        UsageError: An entry has another form, or there is no such device.
    """
    found = []
    for text in texts:
        path, _, weight = text.rpartition(":")
        if not weight.isdigit() or not 10 <= int(weight) <= 1000:
            raise UsageError(
                f"not a device's weight: {quoted(text, limit=80)}",
                hint="write it as /dev/sda:WEIGHT, with a weight from 10 to 1000",
            )
        try:
            number = os.stat(path).st_rdev
        except OSError as error:
            raise UsageError(f"no such device: {quoted(path)}") from error
        found.append(f"{os.major(number)}:{os.minor(number)} {weight}")
    return tuple(found)


def find_scope() -> list[str]:
    """Return the command that puts what follows it into a group that systemd delegates.

    Only where a systemd watches over us that we can ask, and only in a login session: the
    group of a batch job is one that we must not leave.  Else it is empty.
    """
    with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as lines:
        path = next((line[3:] for line in lines if line.startswith("0::")), "")
    is_root = os.getuid() == 0
    folder = "/run" if is_root else os.environ.get("XDG_RUNTIME_DIR", "")
    program = find_program("systemd-run")
    if not path.startswith("/user.slice/") or not program:
        return []
    if not os.path.exists(f"{folder}/systemd/private"):
        return []
    user = [] if is_root else ["--user"]
    return [program, *user, "--scope", "--quiet", "--collect", "--property=Delegate=yes", "--"]


# -- the file of --apply-cgroups ---------------------------------------------------------

_KEYS = {
    ("cpu", "shares"): "cpu_shares",
    ("cpu", "cpus"): "cpuset_cpus",
    ("cpu", "mems"): "cpuset_mems",
    ("memory", "limit"): "memory",
    ("memory", "reservation"): "memory_reservation",
    ("memory", "swap"): "memory_swap",
    ("memory", "disableOOMKiller"): "oom_kill_disable",
    ("pids", "limit"): "pids",
    ("blockIO", "weight"): "blkio_weight",
}
"""What a (table, key) of the file is called here."""


def read_limits(path: str) -> dict[str, Any]:
    """Return the fields of :class:`Limits` that a TOML file in SingularityCE's form sets.

    Raises:
        UsageError: It cannot be read, or asks for what we do not know.
    """
    import tomllib

    try:
        with open(path, "rb") as file:
            document = tomllib.loads(file.read(_MAX_FILE).decode())
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the limits in {quoted(path)}: {error}") from error
    found: dict[str, Any] = {}
    unified: list[tuple[str, str]] = []
    for table, entries in document.items():
        if not isinstance(entries, dict):
            raise _unknown(path, table)
        if table == "unified":
            unified = [_unified(path, name, value) for name, value in entries.items()]
            continue
        quota, period = entries.pop("quota", None), entries.pop("period", _PERIOD)
        if table == "cpu" and isinstance(quota, int) and isinstance(period, int) and period:
            found["cpus"] = quota / period
        for key, value in entries.items():
            name = _KEYS.get((table, key), "")
            if type(value) is not (str if name.startswith("cpuset") else _type(name)):
                raise _unknown(path, f"{table}.{key}")
            found[name] = value
    return found | ({"unified": tuple(unified)} if unified else {})


def _type(name: str) -> type | None:
    if not name:
        return None
    return bool if name == "oom_kill_disable" else int


def _unified(path: str, name: str, value: object) -> tuple[str, str]:
    if not re.fullmatch(_FILE_NAME, name) or not isinstance(value, str | int):
        raise _unknown(path, f"unified.{name}")
    return name, str(value)


def _unknown(path: str, key: str) -> UsageError:
    return UsageError(
        f"cannot honour {quoted(key, limit=60)} in {quoted(path)}",
        hint="known are memory, cpu, pids, blockIO.weight and unified, as in SingularityCE's file",
    )
