"""Nothing that a terminal would obey gets through."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.escape import one_line, printable, quoted


def test_escapes() -> None:
    assert printable("a\x1b[31mb\x07") == "a\\x1b[31mb\\x07"
    assert printable("tab\tline\n") == "tab\tline\n"
    assert one_line("two\nlines") == "two\\nlines"
    assert printable("\u202eevil") == "\\u202eevil"
    assert printable(b"caf\xe9".decode("utf-8", "surrogateescape")) == "caf\\xe9"
    assert printable("x" * 10, limit=4) == "xxxx... (10 characters)"


def test_names_in_sentences_are_escaped_once() -> None:
    assert quoted("plain") == "'plain'"
    assert quoted("a\x1bb\nc\\d") == "'a\\x1bb\\nc\\d'"
    assert quoted("it's") == '"it\'s"'
    assert quoted("x" * 10, limit=4) == "'xxxx... (10 characters)'"


@pytest.mark.parametrize("char", ["\u061c", "\u180e", "\u206a", "\ufffb", "\U000e0041"])
def test_what_cannot_be_seen_is_named(char: str) -> None:
    assert printable(f"a{char}b") == f"a\\u{ord(char):04x}b"


@given(st.text())
def test_no_control_character_survives(text: str) -> None:
    shown = one_line(text)
    assert not [char for char in shown if unicodedata.category(char) in {"Cc", "Cs"}]
    shown.encode()
