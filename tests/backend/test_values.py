"""Values behave as frozen dataclasses do."""

from __future__ import annotations

import pytest

from backend.values import Value, replace


class Size(Value):
    width: int
    height: int = 2


class Named(Size):
    name: str = ""


def test_fields_are_given_or_have_a_default() -> None:
    assert (Size(width=1).width, Size(width=1).height) == (1, 2)
    assert Size(width=1, height=3).height == 3
    assert repr(Named(width=1, name="x")) == "Named(width=1, height=2, name='x')"


def test_a_field_too_many_or_too_few_is_an_error() -> None:
    with pytest.raises(TypeError, match="Size needs width"):
        Size()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Size has no depth"):
        Size(width=1, depth=1)  # type: ignore[call-arg]


def test_values_are_equal_by_their_fields() -> None:
    assert Size(width=1) == Size(width=1, height=2)
    assert hash(Size(width=1)) == hash(Size(width=1, height=2))
    assert Size(width=1) != Size(width=2)
    assert Size(width=1) != Named(width=1)


def test_nothing_can_be_changed_but_in_a_copy() -> None:
    size = Size(width=1)
    with pytest.raises(AttributeError):
        size.width = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del size.width
    assert replace(size, width=2) == Size(width=2)
    with pytest.raises(TypeError):
        replace(size, depth=1)
