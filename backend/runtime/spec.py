"""``config.json`` for crun, runc and the built-in runtime; a pure function of its arguments.

Runtime specification 1.0.2: crun before 1.9 refuses a later version.
"""

from __future__ import annotations

from backend.values import Value

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from typing import Any

    from backend.runtime.identity import Identity

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What an image without a PATH gets."""

LIBRARIES = "/.singularity.d/libs"
"""Where SingularityCE puts a host's libraries; on every container's library path."""

KEEP_GROUPS = {"run.oci.keep_original_groups": "1"}
"""crun's annotation for leaving the supplementary groups as they are."""

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


class Privileges(Value):
    """What the process may do beyond an ordinary one.

    Attributes:
        bounding: Capabilities that it can ever have, as ``CAP_X``.
        ambient: Capabilities that it has, being somebody other than root.
        forbid_new: Setuid programs and file capabilities have no effect.
        seccomp: The filter, as ``linux.seccomp`` has it; None for no filter.
    """

    bounding: AbstractSet[str]
    ambient: AbstractSet[str] = frozenset()
    forbid_new: bool = False
    seccomp: Mapping[str, Any] | None = None


class Grants:
    """What a container gets for its devices.

    Attributes:
        nodes: (host path, container path) of device nodes.
        mounts: (host path, container path, options).
        environment: ``NAME=value``.
        hooks: By stage, as the runtime specification has them.
    """

    def __init__(self) -> None:
        self.nodes: list[tuple[str, str]] = []
        self.mounts: list[tuple[str, str, tuple[str, ...]]] = []
        self.environment: list[str] = []
        self.hooks: dict[str, list[dict[str, object]]] = {}


class Container(Value):
    """Everything that ``config.json`` says.

    Attributes:
        identity: Who runs, and whether a namespace of its own is needed.
        arguments: Program and arguments.
        environment: Of the process.
        working_dir: Absolute; made when missing.
        terminal: (rows, columns) when the process gets a terminal, else None.
        umask: Of the process.
        privileges: See :class:`Privileges`.
        mounts: Entries in order.
        devices: Nodes to make, and nodes to bind for who may not make any.
        hostname: Empty to share the host's.
        share_pids: No pid namespace.
        own_network: A network namespace, with a loopback interface only.
        read_only: The root file system cannot be written to.
        keep_groups: Leave the supplementary groups as they are.
        hooks: Programs of the host to call, by stage.
    """

    identity: Identity
    arguments: Sequence[str]
    environment: Mapping[str, str]
    working_dir: str
    terminal: tuple[int, int] | None
    umask: int
    privileges: Privileges
    mounts: Sequence[Mapping[str, Any]]
    hostname: str = ""
    share_pids: bool = False
    own_network: bool = False
    read_only: bool = False
    keep_groups: bool = False
    hooks: Mapping[str, Any]


def describe(container: Container) -> dict[str, Any]:
    """Return the document for the runtime."""
    identity = container.identity
    return {
        "ociVersion": "1.0.2",
        **({"hostname": container.hostname} if container.hostname else {}),
        **({"annotations": dict(KEEP_GROUPS)} if container.keep_groups else {}),
        **({"hooks": dict(container.hooks)} if container.hooks else {}),
        "root": {"path": "rootfs", "readonly": container.read_only},
        "process": _process(container),
        "mounts": list(container.mounts),
        "linux": {
            "namespaces": [{"type": name} for name in _namespaces(container)],
            # crun before 1.16 crashes without it (containers/crun issue 1402).
            "resources": {},
            **(_nested_maps(identity) if identity.nested else {}),
            **({"seccomp": container.privileges.seccomp} if container.privileges.seccomp else {}),
            "maskedPaths": [] if container.share_pids else list(_MASKED),
            "readonlyPaths": [] if container.share_pids else list(_READ_ONLY),
        },
    }


def _namespaces(container: Container) -> list[str]:
    wanted = {
        "mount": True,
        "ipc": True,
        "pid": not container.share_pids,
        "uts": bool(container.hostname),
        "network": container.own_network,
        "user": container.identity.nested,
    }
    return [name for name, is_wanted in wanted.items() if is_wanted]


def _process(container: Container) -> dict[str, Any]:
    user, privileges = container.identity.user, container.privileges
    bounding = sorted(privileges.bounding)
    ambient = sorted(privileges.ambient)
    held = ambient if user.uid else bounding
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
            "umask": container.umask,
            **({"additionalGids": list(user.groups)} if user.groups else {}),
        },
        "args": list(container.arguments),
        "cwd": container.working_dir,
        "env": [f"{name}={value}" for name, value in container.environment.items()],
        "noNewPrivileges": privileges.forbid_new,
        "capabilities": {
            "bounding": bounding,
            "effective": held,
            "permitted": held,
            "inheritable": ambient,
            "ambient": ambient,
        },
    }


def _nested_maps(identity: Identity) -> dict[str, Any]:
    """Return the map that makes the launcher's only id, 0, the container's user."""
    user = identity.user
    return {
        "uidMappings": [{"containerID": user.uid, "hostID": 0, "size": 1}],
        "gidMappings": [{"containerID": user.gid, "hostID": 0, "size": 1}],
    }
