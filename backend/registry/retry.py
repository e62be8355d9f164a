"""When a failed request is worth another try, and how long to wait before it."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, TypeVar

from backend.errors import NetworkError, RegistryError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)

ATTEMPTS = 5
"""Tries in all, the first included."""
MAX_WAIT_S = 60.0
"""Whoever asks us to wait longer gets the error reported instead."""
_FIRST_WAIT_S = 0.5

Result = TypeVar("Result")


def wait_before(error: NetworkError, attempt: int) -> float | None:
    """Return the seconds to wait before the next try, or None when there should be none.

    Args:
        error: What went wrong.
        attempt: The number of the try that failed, from 1.
    """
    if not error.transient or attempt >= ATTEMPTS:
        return None
    if isinstance(error, RegistryError) and error.retry_after_s is not None:
        return error.retry_after_s if error.retry_after_s <= MAX_WAIT_S else None
    # Half of the wait is random, lest two hundred jobs come back in the same instant.
    wait = _FIRST_WAIT_S * (1 << (attempt - 1))
    return wait / 2 + random.uniform(0, wait / 2)  # noqa: S311


async def retrying(action: Callable[[], Awaitable[Result]]) -> Result:
    """Await ``action()``, again after each failure that is worth it.

    Raises:
        NetworkError: The last one.
    """
    attempt = 1
    while True:
        try:
            return await action()
        except NetworkError as error:
            wait = wait_before(error, attempt)
            if wait is None:
                raise
            _log.info("%s; next try in %.1f s", error, wait)
        await asyncio.sleep(wait)
        attempt += 1
