"""``sifdeck deck``: the terminal interface, or a word on what to use instead of it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from app.desk import Desk


@click.command(short_help="Open the deck, the terminal interface.")
@click.option("--readonly", is_flag=True, help="Change nothing: for looking on, and classrooms.")
@click.option("--theme", default="", help="sifdeck-dark, sifdeck-light, ansi-dark ...")
def deck(*, readonly: bool, theme: str) -> int:
    """Open the deck: images, registries, jobs and containers in one terminal interface."""
    check_terminal()
    desk = _make_desk(readonly=readonly)
    from app.deck import Deck

    app = Deck(desk, theme=theme)
    app.run()
    if active := len(app.board.active):
        jobs = "1 job goes" if active == 1 else f"{active} jobs go"
        click.echo(f"{jobs} on; 'sifdeck jobs' shows them", err=True)
    return app.return_code or 0


def check_terminal() -> None:
    """Refuse terminals on which the deck could only draw rubbish.

    Raises:
        UsageError: There is no terminal, or one that cannot move its cursor.
    """
    from backend.errors import UsageError

    hint = "the command line does everything that the deck does: sifdeck --help"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("the deck needs a terminal for its input and output", hint=hint)
    if os.environ.get("TERM", "dumb") in {"dumb", ""}:
        raise UsageError("this terminal (TERM=dumb) cannot show the deck", hint=hint)


def _make_desk(*, readonly: bool) -> Desk:
    """Return the services of the deck, set up from the environment."""
    import getpass

    from app.cli.ls import image_folders, make_catalog
    from app.desk import Desk
    from backend.jobs import Jobs
    from backend.jobs.identity import host_name
    from backend.paths import jobs_home

    return Desk(
        catalog=make_catalog(image_folders()),
        jobs=Jobs(jobs_home()),
        user=f"{getpass.getuser()}@{host_name().partition('.')[0]}",
        readonly=readonly,
        in_tmux=bool(os.environ.get("TMUX")),
    )
