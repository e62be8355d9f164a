"""``config.json`` for crun, runc and the built-in runtime; a pure function of its arguments.

Runtime specification 1.0.2: crun before 1.9 refuses a later version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.runtime.capabilities import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backend.runtime.identity import Identity
    from backend.runtime.options import Bind

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What an image without a PATH gets."""

_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_STRICT = ("nosuid", "noexec", "nodev")


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """Everything that ``config.json`` says.

    Attributes:
        identity: Who runs, and whether a namespace of its own is needed.
        arguments: Program and arguments.
        environment: Of the process.
        working_dir: Absolute; made when missing.
        terminal: (rows, columns) when the process gets a terminal, else None.
        binds: With sources as the runtime sees them.
        memory: Bytes that a tmpfs may grow to.
        real_root: Started by the machine's root, who may do more.
        hostname: Empty to share the host's.
    """

    identity: Identity
    arguments: Sequence[str]
    environment: Mapping[str, str]
    working_dir: str
    terminal: tuple[int, int] | None
    binds: Sequence[Bind]
    memory: int
    real_root: bool
    hostname: str = ""


def describe(container: Container) -> dict[str, Any]:
    """Return the document for the runtime."""
    identity = container.identity
    namespaces = ["mount", "ipc", "pid"]
    namespaces += ["uts"] if container.hostname else []
    namespaces += ["user"] if identity.nested else []
    return {
        "ociVersion": "1.0.2",
        **({"hostname": container.hostname} if container.hostname else {}),
        "root": {"path": "rootfs", "readonly": False},
        "process": _process(container),
        "mounts": [*_system_mounts(container), *(_bind(bind) for bind in container.binds)],
        "linux": {
            "namespaces": [{"type": name} for name in namespaces],
            # crun before 1.16 crashes without it (containers/crun issue 1402).
            "resources": {},
            **(_nested_maps(identity) if identity.nested else {}),
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
        },
    }


def _process(container: Container) -> dict[str, Any]:
    user = container.identity.user
    held = [] if user.uid else list(DEFAULT)
    size = {}
    if container.terminal:
        rows, columns = container.terminal
        size = {"consoleSize": {"height": rows, "width": columns}}
    return {
        "terminal": container.terminal is not None,
        **size,
        "user": {
            "uid": user.uid,
            "gid": user.gid,
            **({"additionalGids": list(user.groups)} if user.groups else {}),
        },
        "args": list(container.arguments),
        "cwd": container.working_dir,
        "env": [f"{name}={value}" for name, value in container.environment.items()],
        "noNewPrivileges": False,
        "capabilities": {
            "bounding": list(DEFAULT),
            "effective": held,
            "permitted": held,
            "inheritable": [],
            "ambient": [],
        },
    }


def _nested_maps(identity: Identity) -> dict[str, Any]:
    """Return the map that makes the launcher's only id, 0, the container's user."""
    user = identity.user
    return {
        "uidMappings": [{"containerID": user.uid, "hostID": 0, "size": 1}],
        "gidMappings": [{"containerID": user.gid, "hostID": 0, "size": 1}],
    }


def _system_mounts(container: Container) -> list[dict[str, Any]]:
    size = f"size={container.memory}"
    # Group 5 is tty in the initial namespace only; elsewhere it may not be mapped.
    terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    terminals += ["gid=5"] if container.real_root else []
    if container.real_root:
        sys = _mount("/sys", "sysfs", "sysfs", *_STRICT, "ro")
    else:  # a new sysfs takes a network namespace of our own
        sys = _mount("/sys", "none", "/sys", "rbind", *_STRICT, "ro")
    return [
        _mount("/proc", "proc", "proc", *_STRICT),
        sys,
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", *terminals),
        _mount("/dev/shm", "tmpfs", "shm", *_STRICT, "mode=1777", size),
        _mount("/dev/mqueue", "mqueue", "mqueue", *_STRICT),
        _mount("/tmp", "tmpfs", "tmpfs", "nosuid", "nodev", "mode=1777", size),
        _mount("/var/tmp", "tmpfs", "tmpfs", "nosuid", "nodev", "mode=1777", size),
    ]


def _bind(bind: Bind) -> dict[str, Any]:
    access = "ro" if bind.read_only else "rw"
    return _mount(bind.target, "none", bind.source, "rbind", "nosuid", "nodev", access)


def _mount(target: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}
