"""crun and runc: how each wants to be called."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backend.runtime.host import Engine


def run_command(engine: Engine, *, session: str, name: str) -> list[str]:
    """Return the command that runs ``session``/bundle in the foreground.

    It leaves ``state/pid`` once the container exists, and what it has to say in ``state/log``.
    Cgroups are left alone: the container stays in ours, as a batch system wants it.
    """
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
