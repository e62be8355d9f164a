"""``sifdeck keys`` and ``sifdeck reset-tty``: around the deck, without opening it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

TITLES = {
    "deck": "Everywhere",
    "list": "In a list",
    "images": "Images",
    "image": "One image",
    "registries": "Registries",
    "manifest": "One image at a registry",
    "jobs": "Jobs",
    "job": "One job",
    "log": "In a text",
    "running": "Running",
    "doctor": "Doctor",
}
"""Places in the table of actions, in the order in which they are printed."""

_RESET = (
    "\x1b[?1049l"  # back from the alternate screen
    "\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1015l"  # mouse off
    "\x1b[?1004l\x1b[?2004l\x1b[?2026l"  # focus reports, bracketed paste, synchronised output
    "\x1b[<u\x1b[>4m"  # keyboard protocols of kitty and xterm
    "\x1b[?7h\x1b[?25h\x1b[0m\x1b(B\x1b[r"  # wrap, cursor, colours, character set, margins
    "\x1b[?1l\x1b>"  # cursor and number keys as usual
)


@click.command()
@click.option("--markdown", is_flag=True, help="As tables for a README.")
def keys(*, markdown: bool) -> None:
    """Print the keys of the deck, what they do, and the command line that does the same."""
    from app.commands import actions_of

    for view, title in TITLES.items():
        if actions_of(view):
            lines = sheet(view, title) if markdown else plain(view, title)
            click.echo("\n".join(lines))
            click.echo()


def plain(view: str, title: str) -> Iterator[str]:
    """Yield the lines of one place."""
    from app.commands import actions_of, key_name

    yield title
    for action in actions_of(view):
        names = " ".join(map(key_name, action.keys)) or "-"
        command = f"  [{action.command({})}]" if action.argv else ""
        yield f"  {action.id:22} {names:16} {action.help}{command}"


def sheet(view: str, title: str) -> Iterator[str]:
    """Yield the lines of one place as a table in Markdown."""
    from app.commands import actions_of, key_name

    yield f"| {title} | | the same by hand |"
    yield "|---|---|---|"
    for action in actions_of(view):
        names = " ".join(f"`{key_name(key)}`" for key in action.keys) or "palette"
        command = f"`{action.command({})}`" if action.argv else ""
        yield f"| {names} | {action.help} | {command} |"


@click.command("reset-tty")
def reset_tty() -> None:
    """Bring a terminal back in order that a lost program left in a mess."""
    import subprocess

    with open("/dev/tty", "w", encoding="ascii") as terminal:  # noqa: PTH123
        terminal.write(_RESET)
        terminal.flush()
        if os.isatty(terminal.fileno()):
            subprocess.run(("stty", "sane"), stdin=terminal.fileno(), check=False)
    sys.stdout.flush()
