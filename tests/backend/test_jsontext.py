"""The small writer of JSON agrees with the large one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.jsontext import write_json

if TYPE_CHECKING:
    from backend.jsontext import Json

documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(documents)
def test_it_is_what_json_writes(document: Json) -> None:
    assert json.loads(write_json(document)) == document


def test_bytes_that_are_no_text_are_written_as_json_does() -> None:
    text = b'caf\xe9 "\\"'.decode("utf-8", "surrogateescape")
    assert write_json([text]) == json.dumps([text])


def test_what_has_no_form_is_an_error() -> None:
    with pytest.raises(TypeError, match="set"):
        write_json({1})  # type: ignore[arg-type]
