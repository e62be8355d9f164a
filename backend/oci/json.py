"""Typed access to JSON from outside: every error names the place, such as ``layers[2].size``."""

from __future__ import annotations

import json

from backend.errors import FormatError
from backend.escape import one_line

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from typing import Any

MAX_DOCUMENT = 16 << 20
"""Bytes in a manifest, index or configuration; registries stop at 4 MiB, some builders do not."""


class Node:
    """A JSON value and the path that leads to it."""

    __slots__ = ("path", "value")

    def __init__(self, value: Any, path: str) -> None:  # noqa: ANN401  (JSON)
        self.value = value
        self.path = path

    def fail(self, wanted: str) -> FormatError:
        """Return the error that says what should stand here."""
        return FormatError(f"{self.path or 'the document'} is not {wanted}")

    def get(self, key: str) -> Node | None:
        """Return the member ``key`` of this object, or None when it is absent or null."""
        value = self.object().get(key)
        return None if value is None else Node(value, f"{self.path}.{key}" if self.path else key)

    def need(self, key: str) -> Node:
        """Return the member ``key`` of this object, which must be there."""
        found = self.get(key)
        if found is None:
            raise FormatError(f"{f'{self.path}.' if self.path else ''}{key} is missing")
        return found

    def object(self) -> dict[str, Any]:
        """Return the value, which must be an object."""
        if not isinstance(self.value, dict):
            raise self.fail("an object")
        return self.value

    def items(self) -> list[Node]:
        """Return the elements of this array."""
        if not isinstance(self.value, list):
            raise self.fail("an array")
        return [Node(value, f"{self.path}[{i}]") for i, value in enumerate(self.value)]

    def text(self) -> str:
        """Return the value, which must be a string."""
        if not isinstance(self.value, str):
            raise self.fail("a string")
        return self.value

    def size(self) -> int:
        """Return the value, which must be a whole number from 0 to 2**63 - 1."""
        if type(self.value) is not int or not 0 <= self.value < 1 << 63:
            raise self.fail("a size")
        return self.value

    def texts(self) -> tuple[str, ...]:
        """Return the elements of this array of strings."""
        return tuple(item.text() for item in self.items())

    def mapping(self) -> dict[str, str]:
        """Return this object of strings."""
        return {
            key: Node(value, f"{self.path}.{key}").text() for key, value in self.object().items()
        }


def load(data: bytes, what: str) -> Node:
    """Parse ``data``, which is called ``what`` in errors (``the manifest``).

    Raises:
        FormatError: It is too large, not UTF-8, not JSON, or nested too deeply.
    """
    if len(data) > MAX_DOCUMENT:
        raise FormatError(f"{what} is larger than {MAX_DOCUMENT >> 20} MiB")
    try:
        return Node(json.loads(data), "")
    except RecursionError as error:
        raise FormatError(f"{what} is nested too deeply") from error
    except ValueError as error:
        raise FormatError(f"{what} is not JSON: {one_line(str(error), limit=120)}") from error


def dump(value: object) -> bytes:
    """Return compact JSON with the keys in the order given, as ggcr writes it."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    # A lone surrogate, which JSON can name and UTF-8 cannot hold, becomes its escape again.
    return text.encode(errors="backslashreplace")
