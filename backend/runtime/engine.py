"""crun, runc and the built-in runtime: which is used, and how each wants to be called."""

from __future__ import annotations

import os

from backend.errors import LaunchError
from backend.escape import quoted
from backend.runtime.host import find_program
from backend.values import Value

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from typing import Literal

    from backend.runtime.identity import Identity

    Kind = Literal["crun", "runc", "builtin"]


class Engine(Value):
    """What starts OCI bundles.

    Attributes:
        kind: Decides the options.
        path: Absolute; empty for the built-in one.
    """

    kind: Kind
    path: str = ""


def choose_engine(wanted: str, identity: Identity) -> Engine:
    """Return the runtime to use: the one asked for, else crun, else runc, else our own.

    Args:
        wanted: ``crun``, ``runc``, ``builtin`` or a path; empty to choose.
        identity: runc cannot give a process another id than root with one id only.

    Raises:
        LaunchError: The one asked for is not there, or cannot do it.
    """
    if wanted == "builtin":
        return Engine(kind="builtin")
    if wanted:
        return _named(wanted, identity)
    if path := find_program("crun"):
        return Engine(kind="crun", path=path)
    if not identity.nested and (path := find_program("runc")):
        return Engine(kind="runc", path=path)
    return Engine(kind="builtin")


def _named(wanted: str, identity: Identity) -> Engine:
    path = os.path.abspath(wanted) if "/" in wanted else find_program(wanted)
    if not path or not os.access(path, os.X_OK) or not os.path.isfile(path):
        raise LaunchError(
            f"no OCI runtime called {quoted(wanted, limit=100)} on this host",
            why="it is not on PATH, or cannot be executed",
            hint="leave out --runtime, or name another: crun, runc, builtin",
        )
    kind: Kind = "runc" if "runc" in os.path.basename(path) else "crun"
    if kind == "runc" and identity.nested:
        raise LaunchError(
            f"runc cannot run the container as user {identity.user.uid}",
            why="this account has a single id, and runc then takes root in the container only",
            hint="use --runtime crun or --runtime builtin, or be root in it: --fakeroot",
        )
    return Engine(kind=kind, path=path)


def run_command(engine: Engine, *, session: str, name: str) -> list[str]:
    """Return the command that runs ``session``/bundle in the foreground.

    It leaves ``state/pid`` once the container exists, and what it has to say in ``state/log``.
    Cgroups are left alone: the container stays in ours, as a batch system wants it.
    """
    if engine.kind == "builtin":
        return []
    state = f"{session}/state"
    # runc: as root too, so that it does not insist on cgroups.
    option = "--cgroup-manager=disabled" if engine.kind == "crun" else "--rootless=true"
    return [
        engine.path,
        f"--root={state}",
        f"--log={state}/log",
        option,
        "run",
        f"--pid-file={state}/pid",
        f"--bundle={session}/bundle",
        name,
    ]
