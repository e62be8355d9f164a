"""``sifdeck deck``: the terminal interface, or a word on what to use instead of it."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from app.desk import Desk
    from backend.labs.workshop import Workshop
    from backend.registry.access import Access


@click.command(short_help="Open the deck, the terminal interface.")
@click.option("--readonly", is_flag=True, help="Change nothing: for looking on, and classrooms.")
@click.option("--theme", default="", help="sifdeck-dark, sifdeck-light, ansi-dark ...")
def deck(*, readonly: bool, theme: str) -> int:
    """Open the deck: images, registries, jobs and containers in one terminal interface."""
    check_terminal()
    gc.disable()  # until the first paint: nothing that starts up is garbage yet
    desk = _make_desk(readonly=readonly)
    from app.deck import Deck

    chosen = theme or desk.config.theme
    app = Deck(desk, theme="" if chosen == "auto" else chosen)
    app.run(mouse=desk.config.mouse)
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
    from dataclasses import replace

    from app.cli.ls import image_folders, make_catalog
    from app.desk import Desk
    from app.memory import load_memory
    from backend.config import load_config
    from backend.jobs import Jobs
    from backend.jobs.identity import host_name
    from backend.paths import cache_home, config_home, jobs_home, site_config, state_home
    from backend.tagcache import TagCache

    config = load_config(config_home() / "config.toml", site_config())
    if readonly:
        config = replace(config, readonly=True)
    return Desk(
        catalog=make_catalog(image_folders(config.folders)),
        config=config,
        jobs=Jobs(jobs_home()),
        access=_make_access,
        tag_cache=TagCache(cache_home() / "tags"),
        memory=load_memory(state_home() / "deck.json"),
        user=f"{getpass.getuser()}@{host_name().partition('.')[0]}",
        in_tmux=bool(os.environ.get("TMUX")),
        lab=_find_lab(),
        tour=os.environ.get("SIFDECK_TOUR", ""),
    )


def _make_access() -> Access:
    """Return the way to registries that the environment asks for."""
    from app.cli.access import make_access

    return make_access({})


def _find_lab() -> Workshop | None:
    """Return the lab that `lab start` opened us for."""
    name = os.environ.get("SIFDECK_LAB")
    if not name:
        return None
    from pathlib import Path

    from app.cli.lab import SHIPPED
    from backend.labs.workshop import attach, find_place

    folder = Path(os.environ.get("SIFDECK_LAB_DIR", SHIPPED))
    return attach(find_place(SHIPPED, folder=folder), name)
