"""``sifdeck keys`` and ``sifdeck reset-tty``: around the deck, without opening it."""

from __future__ import annotations

import os
import sys

import click

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
    from app import keysheet
    from app.commands import actions_of, check_keys, keys_of
    from backend.config import load_config
    from backend.paths import config_home, site_config

    bound = load_config(config_home() / "config.toml", site_config()).keys
    for clash in check_keys(bound):
        click.echo(f"WARNING: {clash}", err=True)
    for view in keysheet.TITLES:
        if actions_of(view):
            lines = (
                keysheet.markdown(view)
                if markdown
                else keysheet.plain(view, lambda action: keys_of(action, bound))
            )
            click.echo("\n".join(lines))
            click.echo()


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
