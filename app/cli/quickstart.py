"""An ordinary ``run``, ``exec`` or ``shell``, without loading click.

Loading click and the command line's other parts takes longer than starting the container.
What is not plain, or goes wrong, is left to the usual way, which says it properly.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from app.cli.runflags import Flags
    from backend.events import Event
    from backend.runtime.options import Action

ACTIONS: dict[str, Action] = {"run": "run", "exec": "exec", "shell": "shell"}


class _NotPlainError(Exception):
    """Something has to be told while the container is prepared."""


def start_plainly(action: Action, arguments: list[str]) -> None:
    """Become the container, if all it takes is a file and known options; else return.

    The file may be in the cache, and known by a reference that means the same as ever.

    Args:
        action: The verb.
        arguments: What follows it.
    """
    from app.cli.runflags import interpret, parse_plainly

    parsed = parse_plainly(arguments)
    if parsed is None:
        return
    given, (image, *words) = parsed
    is_short = action == "exec" and not words
    if given["detach"] or is_short:
        return
    from backend.errors import BackendError
    from backend.journal import note_run
    from backend.runtime import container
    from backend.runtime.image import mark_used

    try:
        flags = _with_profile(given)
        file = _find_file(image, flags)
        if flags["detach"] or not os.path.isfile(file):  # noqa: PTH113  (loads pathlib)
            return
        plan = container.plan_image(file, interpret(action, tuple(words), flags), _tell)
        if file != image:
            mark_used(file)
    except (BackendError, OSError, _NotPlainError):
        return
    note_run(file)
    container.become_launcher(plan)


def _with_profile(given: Flags) -> Flags:
    if not given["profile"]:
        return given
    from app.cli.profiles import with_profile

    return with_profile(given)


def _find_file(image: str, flags: Flags) -> str:
    if not image.startswith("docker://"):
        return "" if "://" in image else image
    from backend.runtime.spelling import find_spelled
    from backend.settings import flag

    return find_spelled(image, offline=bool(flags["offline"]) or flag("OFFLINE"))


def _tell(_event: Event) -> None:
    raise _NotPlainError
