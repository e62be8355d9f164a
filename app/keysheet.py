"""The table of actions as text: for ``?``, for ``sifdeck keys`` and for the README."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.commands import actions_of, key_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from app.commands import Action

TITLES = {
    "deck": "Everywhere",
    "list": "In a list",
    "images": "Images",
    "image": "One image",
    "registries": "Registries",
    "logins": "Logins",
    "manifest": "One image at a registry",
    "jobs": "Jobs",
    "job": "One job",
    "found": "Found in the logs",
    "log": "In a text",
    "running": "Running",
    "doctor": "Doctor",
    "lab": "Lab",
}
"""Places in the table of actions, in the order in which they are printed."""


def help_lines(views: Sequence[str], keys_of: Callable[[Action], Sequence[str]]) -> Iterator[str]:
    """Yield the help of a screen, with colours.

    Args:
        views: Places in the table, what is nearest first.
        keys_of: The keys of an action, as the user bound them.
    """
    for view in views:
        yield f"\x1b[1m{TITLES.get(view, view)}\x1b[0m"
        for action in actions_of(view):
            keys = " ".join(key_name(key) for key in keys_of(action) if key)
            yield f"  {keys:14} {action.label:12} {action.help}"
            if action.argv:
                command = action.command({})
                also = f"   ({command.elsewhere})" if command.singularity else ""
                yield f"  {'':14} {'':12} \x1b[2m$ {command}{also}\x1b[0m"
        yield ""


def plain(view: str, keys_of: Callable[[Action], Sequence[str]]) -> Iterator[str]:
    """Yield the lines of one place, with the ids by which config.toml binds keys."""
    yield TITLES[view]
    for action in actions_of(view):
        names = " ".join(key_name(key) for key in keys_of(action)) or "-"
        command = f"  [{action.command({})}]" if action.argv else ""
        yield f"  {action.id:22} {names:16} {action.help}{command}"


def markdown(view: str) -> Iterator[str]:
    """Yield one place as a table in Markdown."""
    yield f"| {TITLES[view]} | | the same by hand |"
    yield "|---|---|---|"
    for action in actions_of(view):
        names = " ".join(f"`{key_name(key)}`" for key in action.keys) or "palette"
        command = f"`{action.command({})}`" if action.argv else ""
        yield f"| {names} | {action.help} | {command} |"
