"""How far the transfer of one blob is, reported at a bearable rate."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from humanize import naturalsize

from backend.errors import SpaceError
from backend.events import Blob
from backend.oci.digest import short

if TYPE_CHECKING:
    from backend.errors import BackendError
    from backend.events import BlobState, Report
    from backend.oci.image import Descriptor

_REPORT_EVERY_S = 0.1


class BlobProgress:
    """Reports on one blob.

    Args:
        descriptor: Of the blob.
        role: ``layer``, ``config`` ...
        index: Position among the blobs of its role.
        report: Gets :class:`backend.events.Blob` events.

    Attributes:
        done: Bytes that have come so far.
    """

    def __init__(self, descriptor: Descriptor, role: str, index: int, report: Report) -> None:
        self.done = 0
        self.role = role
        self.index = index
        self.report = report
        self._descriptor = descriptor
        self._state: BlobState | None = None
        self._told_at = 0.0

    def tell(self, state: BlobState, done: int, *, note: str = "") -> None:
        """Report, unless the same state was reported a moment ago."""
        self.done = done
        now = time.monotonic()
        if state == self._state and now - self._told_at < _REPORT_EVERY_S:
            return
        self._state, self._told_at = state, now
        self.report(
            Blob(
                digest=self._descriptor.digest,
                role=self.role,
                index=self.index,
                state=state,
                done=done,
                size=self._descriptor.size,
                note=note,
            )
        )

    def failed(self, error: BackendError) -> BackendError:
        """Report an error, and return it with what was kept."""
        if self.done and not error.kept and not isinstance(error, SpaceError):
            size = naturalsize(self._descriptor.size)
            error.kept = f"{naturalsize(self.done)} of {size} of {short(self._descriptor.digest)}"
        self.tell("failed", self.done, note=error.message)
        return error
