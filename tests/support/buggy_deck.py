"""``python -m tests.support.buggy_deck [thread]``: a deck in which ctrl+l has a bug in a worker."""

from __future__ import annotations

import sys

from app.cli.main import main
from app.deck import Deck

IN_THREAD = "thread" in sys.argv
WORD = "it-was-typed-into-a-field"


def redraw(deck: Deck) -> None:
    """Start the worker with the bug."""
    if IN_THREAD:
        deck.run_worker(lambda: stumble(WORD), thread=True)
    else:
        deck.run_worker(walk(WORD))


async def walk(secret: str) -> None:
    stumble(secret)


def stumble(secret: str) -> None:
    raise RuntimeError(f"a bug, {len(secret)}")


if __name__ == "__main__":
    Deck.action_redraw = redraw  # type: ignore[assignment]
    sys.exit(main(["deck"]))
