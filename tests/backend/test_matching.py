"""The filter of lists."""

from __future__ import annotations

import pytest

from backend.matching import matcher


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("", True),
        ("solver", True),
        ("SOLVER lab", True),
        ("solver hub", False),
        ("!hub", True),
        ("lab !solver", False),
        ("~clsv", True),
        ("~vslc", False),
        ("!", False),
        ("a.b", False),
        ("~.*", False),
    ],
)
def test_all_words_must_match(wanted: str, *, expected: bool) -> None:
    assert matcher(wanted)("ghcr.io/lab/cfd-solver:v2") is expected
