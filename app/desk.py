"""What every screen of the deck is handed: where to look things up and what time it is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.commands import keys_of
from app.memory import Memory
from backend.config import Config
from backend.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from app.commands import Action
    from backend.catalog import Catalog
    from backend.jobs import Jobs
    from backend.labs.workshop import Workshop
    from backend.registry.access import Access
    from backend.space import Store
    from backend.tagcache import TagCache


def _find_store(folder: Path) -> Store:
    from backend.space import find_store

    return find_store(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Values and services; screens keep nothing else.

    Attributes:
        catalog: The images on this machine.
        jobs: The records of jobs.
        user: Who we are, ``alice@login03``.
        access: Makes what it takes to ask registries, when it is first needed.
        tag_cache: The tags of repositories as they were.
        memory: What the deck remembers between two runs.
        version: Ours.
        now: Seconds since 1970, UTC.
        find_store: How full a folder's file system or quota is.
        config: What the user and the site have set.
        in_tmux: Whether tmux can open windows for us.
        lab: The lab that this deck was started for; None outside labs.
        tour: Lines that tell a newcomer what to try; empty for everybody else.
    """

    catalog: Catalog
    jobs: Jobs
    user: str
    access: Callable[[], Access]
    tag_cache: TagCache
    memory: Memory = field(default_factory=Memory)
    version: str = __version__
    now: Callable[[], float] = field(default=time.time)
    find_store: Callable[[Path], Store] = field(default=_find_store)
    config: Config = field(default_factory=Config)
    in_tmux: bool = False
    lab: Workshop | None = None
    tour: str = ""

    @property
    def readonly(self) -> bool:
        """Whether nothing may be changed."""
        return self.config.readonly

    def keys(self, action: Action) -> tuple[str, ...]:
        """Return the keys of an action; at least one, which may be empty."""
        return keys_of(action, self.config.keys) or ("",)
