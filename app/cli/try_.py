"""``sifdeck try``: the whole product on this machine alone, for newcomers and as a self-test."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.common import json_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backend.playground import Playground
    from backend.selftest import Outcome

_MARKS = {"ok": "ok  ", "failed": "FAIL", "skipped": "--  "}


@click.command("try", short_help="Try everything, offline, in a folder that goes away again.")
@click.option(
    "--check", is_flag=True, help="Without a screen: do everything once and say what worked."
)
@json_option
def try_(*, check: bool, as_json: bool) -> int:
    """Try everything on this machine, with no network.

    A small image is made from this machine's own shell and tools, and served by a registry with a
    login; the deck opens on it.  All of it is in one temporary folder, which goes when you leave.
    """
    if not check:
        from app.cli.deck import check_terminal

        check_terminal()
    with _playground() as ground:
        return _check(ground, as_json=as_json) if check else _tour(ground)


@contextlib.contextmanager
def _playground() -> Iterator[Playground]:
    """Open a playground in a temporary folder; remove it in the end, whatever happened."""
    import signal
    import sys
    import tempfile

    from backend.playground import playing, remove_playground

    # Ended from outside we still clean up.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    folder = Path(tempfile.mkdtemp(prefix="sifdeck-try-"))
    try:
        with playing(folder) as ground:
            yield ground
    finally:
        remove_playground(folder)


def _check(ground: Playground, *, as_json: bool) -> int:
    from backend.selftest import check_everything

    failed = 0
    for outcome in check_everything(ground):
        failed += outcome.state == "failed"
        click.echo(_json(outcome) if as_json else _line(outcome))
    if not as_json:
        words = f"{failed} of these failed" if failed else "All of this works here"
        click.echo(words, err=True)
    return 1 if failed else 0


def _line(outcome: Outcome) -> str:
    mark = _MARKS[outcome.state]
    return f"{mark}  {outcome.name:<12} {outcome.seconds:5.1f} s  {outcome.text}"


def _json(outcome: Outcome) -> str:
    import dataclasses
    import json

    return json.dumps(dataclasses.asdict(outcome))


def _tour(ground: Playground) -> int:
    """Open the deck in the playground, with three lines that say what to do."""
    import signal
    import subprocess

    from backend.playground import PASSWORD, PROJECT, USER
    from backend.program import OURSELVES

    tour = (
        f"1  Log in: key 2, l: registry {ground.registry}, user {USER}, password {PASSWORD}\n"
        f"2  Pull: p, {ground.reference('hello:1.0')}; look inside: 1, enter\n"
        "3  Run: r; build: b.  q ends the trial and removes everything it made"
    )
    environment = ground.environment | {"SIFDECK_TOUR": tour}
    settings = ground.folder / "config" / "config.toml"
    settings.write_text(f'registries = ["{ground.registry}/{PROJECT}/hello"]\n')
    # The deck has the terminal; Ctrl-C is for it.  A handler, which it does not inherit.
    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    done = subprocess.run([*OURSELVES, "deck"], check=False, cwd=ground.work, env=environment)
    return done.returncode
