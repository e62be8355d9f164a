"""Whether docker has a buildx that we can use; ``backend.build.buildkit`` uses it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from backend.build.program import output_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from backend.build.buildkit import Buildx

CONTAINERD_STORE = "io.containerd.snapshotter"
"""How ``docker info`` says that images are kept in containerd."""

_BUILDX = re.compile(r"\bv?(\d+)\.(\d+)")
_RAWJSON = (0, 13)


def find_buildx(program: str) -> tuple[Callable[[], Buildx] | None, str]:
    """Return what makes the builder if buildx can be used here, and what it is, or why not.

    Args:
        program: Path of ``docker``.
    """
    status, text = output_of([program, "buildx", "version"], environment={})
    version = _BUILDX.search(text)
    if status or version is None:
        return None, "docker has no buildx"
    if (int(version[1]), int(version[2])) < _RAWJSON:
        return None, f"buildx {version[0]} is too old: 0.13 was the first to speak rawjson"
    status, text = output_of([program, "buildx", "inspect"], environment={})
    driver = re.search(r"(?m)^Driver:\s*(\S+)", text)
    if status or driver is None or re.search(r"(?m)^Error:\s", text):
        return None, "buildx has no builder that answers"
    saves = False
    if driver[1] == "docker":
        words = ["info", "--format", "{{json .DriverStatus}}"]
        saves = CONTAINERD_STORE not in output_of([program, *words], environment={})[1]
    found = f"{program} buildx {version[0]}, {driver[1]} driver"

    def make() -> Buildx:
        from backend.build.buildkit import Buildx

        return Buildx(program, saves=saves)

    return make, found
