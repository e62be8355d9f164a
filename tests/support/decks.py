"""A deck for tests: a folder of small images, jobs made by hand, a clock that stands still."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from textual.worker import WorkerCancelled

from app.deck import Deck
from app.desk import Desk
from backend.catalog import Catalog
from backend.events import Event, encode
from backend.jobs import Jobs
from backend.jobs.identity import this_process
from backend.registry.access import Access
from backend.space import Store
from backend.tagcache import TagCache
from tests.support.imagefiles import write_native, write_ocisif

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from textual.pilot import Pilot

NOW = 1_730_000_000.0
"""The time in all decks of tests: 2024-10-27 03:33:20 UTC."""

HOSTILE = "evil\x1b[31m\x1b]0;owned\x07[bold red]x[/]\u202egnp.sif"


def make_images(folder: Path) -> None:
    """Write five images: three OCI-SIF, a native one, and what is none."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, reference in (
        ("alpine_3.20", "docker.io/library/alpine:3.20"),
        ("solver_v2", "ghcr.io/lab/cfd-solver:v2"),
        ("tools_latest", "quay.io/lab/tools:latest"),
    ):
        write_ocisif(folder / f"{name}.oci.sif", reference=reference)
    write_native(folder / "old-env.sif")
    (folder / "broken.sif").write_bytes(b"not an image")
    for path in folder.iterdir():
        os.utime(path, (NOW - 3 * 86400, NOW - 3 * 86400))


def make_desk(folder: Path, *, state: Path, **more: Any) -> Desk:
    """Return the services of a deck over a folder."""
    return Desk(
        catalog=Catalog([folder], state / "catalog"),
        jobs=Jobs(state / "jobs"),
        user="alice@login03",
        version="0.1.0",
        access=Access,
        tag_cache=TagCache(state / "tags"),
        now=lambda: NOW,
        find_store=lambda _folder: Store(used=41 << 30, total=100 << 30, is_quota=True),
        **more,
    )


def make_deck(desk: Desk, *, theme: str = "sifdeck-dark") -> Deck:
    return Deck(desk, theme=theme)


def write_job(  # a job is many things
    root: Path,
    number: int,
    *,
    verb: str = "pull",
    title: str = "docker://ghcr.io/lab/solver:v2",
    argv: Sequence[str] = ("pull", "docker://ghcr.io/lab/solver:v2"),
    events: Sequence[Event] = (),
    log: str = "",
    status: int | None = 0,
    cancelled: bool = False,
    alive: bool = True,
    begun: float = NOW - 100,
) -> Path:
    """Write the folder of a job; ``status`` None means that it runs (in this process)."""
    folder = root / str(number)
    folder.mkdir(parents=True)
    process = this_process()
    identity = {
        "host": process.host,
        "boot": process.boot,
        "pid": process.pid if alive else 1 << 22,
        "start": process.start,
    }
    record = {
        "verb": verb,
        "title": title,
        "argv": list(argv),
        "environment": {},
        "cwd": "/",
        "kind": "network",
        "created": begun,
        "process": identity,
        "after": [],
        "retry_of": 0,
        "started": begun,
    }
    (folder / "job.json").write_text(json.dumps(record))
    (folder / "events.jsonl").write_text("".join(f"{encode(event)}\n" for event in events))
    (folder / "log").write_text(log)
    if status is not None:
        end = {"status": status, "cancelled": cancelled, "ended": begun + 17}
        (folder / "exit").write_text(json.dumps(end))
    return folder


async def settle(pilot: Pilot[int]) -> None:
    """Wait until nothing is left to do: no worker, no message."""
    workers = pilot.app.workers
    is_over = False
    while not is_over:
        # A worker that a newer one replaces is cancelled while we wait for it.
        with contextlib.suppress(WorkerCancelled):
            await workers.wait_for_complete()
        await pilot.pause()
        is_over = all(worker.is_finished for worker in workers)  # one may have started another
    await pilot.pause()


async def until(pilot: Pilot[int], condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    for _ in range(500):
        if condition():
            return
        await pilot.pause(0.02)
    raise AssertionError("it did not happen")
