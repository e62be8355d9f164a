"""The filter of lists, in the deck and on the command line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def matcher(wanted: str) -> Callable[[str], bool]:
    """Return the test of a filter on text in lower case: all its words must match.

    ``word`` must occur, ``!word`` must not, ``~wrd`` allows letters in between.
    """
    tests = [_test(word) for word in wanted.lower().split()]
    return lambda text: all(test(text) for test in tests)


def _test(word: str) -> Callable[[str], bool]:
    if word.startswith("!") and len(word) > 1:
        return lambda text: word[1:] not in text
    if word.startswith("~") and len(word) > 1:
        # Lazy gaps bound the work: no word of a filter makes it more than quadratic.
        find = re.compile(".*?".join(map(re.escape, word[1:]))).search
        return lambda text: find(text) is not None
    return lambda text: word in text
