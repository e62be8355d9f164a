"""Nothing that a terminal would obey gets through."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from backend.escape import one_line, printable


def test_escapes() -> None:
    assert printable("a\x1b[31mb\x07") == "a\\x1b[31mb\\x07"
    assert printable("tab\tline\n") == "tab\tline\n"
    assert one_line("two\nlines") == "two\\nlines"
    assert printable("\u202eevil") == "\\u202eevil"
    assert printable(b"caf\xe9".decode("utf-8", "surrogateescape")) == "caf\\xe9"
    assert printable("x" * 10, limit=4) == "xxxx... (10 characters)"


@given(st.text())
def test_no_control_character_survives(text: str) -> None:
    shown = one_line(text)
    assert not [char for char in shown if unicodedata.category(char) in {"Cc", "Cs"}]
    shown.encode()
