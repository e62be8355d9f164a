"""What the registry tests share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make retries follow at once."""
    monkeypatch.setattr("backend.registry.retry._FIRST_WAIT_S", 0.001)
