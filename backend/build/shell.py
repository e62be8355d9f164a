"""A shell in what a failed build left: the image of the last step that went well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.build.buildah import Buildah
from backend.errors import UsageError
from backend.runtime.host import find_program

if TYPE_CHECKING:
    from backend.events import Retained
    from backend.progress import Progress


def retained_by(build: Progress) -> Retained:
    """Return the last good layer of a build.

    Raises:
        UsageError: There is none, or its builder lets nobody look into it.
    """
    if build.retained:
        return build.retained
    if not any(step.state == "failed" for step in build.steps.values()):
        raise UsageError("no step of a build failed here, so there is no last good layer")
    raise UsageError(
        "the builder has no layer of this build in which a shell can be opened",
        why="buildah and podman keep an image of each step; BuildKit and docker only a cache",
        hint="build again with --builder buildah",
    )


def open_shell(build: Progress) -> int:
    """Open a shell in the last good layer of a build, and return its exit status.

    Raises:
        UsageError: As :func:`retained_by`.
        ToolError: The builder cannot open one.
    """
    retained = retained_by(build)
    # They share a store, and buildah can do without a container runtime, as the build did.
    program = "buildah" if find_program("buildah") else retained.builder
    return Buildah(program).open_shell(retained.image)
