"""Waiting for changes of jobs without asking again and again.

A job's state changes touch the folder of all jobs, its events and log only its own folder.
inotify does not see what another host writes to a shared home, so a wait always has a limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.inotify import ATTRIB, CREATE, DELETE, MODIFY, MOVED_TO, Inotify

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_ROOT_EVENTS = ATTRIB | MOVED_TO | CREATE | DELETE
_JOB_EVENTS = MODIFY | MOVED_TO | CREATE


class Watch(Inotify):
    """Tells when something about the jobs changed.

    Args:
        root: The folder of all jobs; made when it is missing.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        super().__init__()
        self._root = root
        self._followed: dict[int, int] = {}
        self.add(root, _ROOT_EVENTS)

    def follow(self, numbers: Iterable[int]) -> None:
        """Watch the events and logs of these jobs, and of no others any more."""
        wanted = set(numbers)
        for number in self._followed.keys() - wanted:
            self.remove(self._followed.pop(number))
        for number in wanted - self._followed.keys():
            handle = self.add(self._root / str(number), _JOB_EVENTS)
            if handle >= 0:
                self._followed[number] = handle
