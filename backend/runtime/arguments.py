"""The program that a container runs, and its arguments."""

from __future__ import annotations

import os

from backend.errors import LaunchError, UsageError

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from backend.runtime.image import RunnableImage
    from backend.runtime.options import RunOptions

_SHELL = 'if test -x /bin/bash; then exec /bin/bash --norc "$@"; fi; exec /bin/sh "$@"'


def choose_arguments(runnable: RunnableImage, options: RunOptions) -> tuple[str, ...]:
    """Return the program and its arguments, as Docker puts them together.

    A native SIF starts through the scripts that its builder put into it.

    Raises:
        LaunchError: The image has no command and the user gave none.
        UsageError: The image has no SCIF apps.
    """
    if runnable.is_native:
        return (f"/.singularity.d/actions/{options.action}", *options.arguments)
    if options.app:
        return _app_arguments(runnable, options)
    if options.action == "shell":
        return ("/bin/sh", "-c", _SHELL, "sh", *options.arguments)
    if options.action == "exec":
        return options.arguments
    arguments = (*runnable.entrypoint, *(options.arguments or runnable.cmd))
    if not arguments or not arguments[0]:
        raise LaunchError(
            f"{runnable.name} says no command to run",
            why="it has neither ENTRYPOINT nor CMD",
            hint=f"name one: sifdeck exec {runnable.name} COMMAND",
        )
    return arguments


def _app_arguments(runnable: RunnableImage, options: RunOptions) -> tuple[str, ...]:
    """Return the call of SCIF's own program, which must be the image's entrypoint."""
    entrypoint = runnable.entrypoint
    if not entrypoint or os.path.basename(entrypoint[0]) != "scif":
        raise UsageError(
            f"{runnable.name} has no apps: --app takes an image whose ENTRYPOINT is scif"
        )
    return (entrypoint[0], options.action, options.app, *entrypoint[1:], *options.arguments)
