"""The line of keys at the bottom; a click on one is as good as the key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content
from textual.message import Message
from textual.widget import Widget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.app import RenderResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One entry.

    Attributes:
        key: What is printed on the key.
        label: What it does.
        action: What the line's message carries.
        enabled: Whether it works now; drawn dim when not.
    """

    key: str
    label: str
    action: str
    enabled: bool = True


class KeyLine(Widget):
    """The line: as many entries as fit, the first and the last ones always."""

    DEFAULT_CSS = """
    KeyLine { height: 1; width: 1fr; dock: bottom; }
    """

    @dataclass
    class Pressed(Message):
        """An entry was clicked."""

        action: str

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002  (Textual's name)
        super().__init__(id=id)
        self._keys: tuple[Key, ...] = ()

    def show(self, keys: Sequence[Key]) -> None:
        """Show other entries."""
        if tuple(keys) != self._keys:
            self._keys = tuple(keys)
            self.refresh()

    @property
    def text(self) -> str:
        """What is drawn, for tests."""
        return "  ".join(f"{key.key} {key.label}" for key in self._fitting())

    def _fitting(self) -> list[Key]:
        """Return the entries that fit: those before the last give way."""
        keys = list(self._keys)
        while len(keys) > 1 and sum(_width(key) for key in keys) > self.size.width - 1:
            del keys[-2]
        return keys

    def render(self) -> RenderResult:
        """Return the line."""
        parts: list[Content | str] = [" "]
        for key in self._fitting():
            parts += [
                Content.styled(key.key, "bold $accent" if key.enabled else "dim"),
                Content.styled(f" {key.label}  ", "" if key.enabled else "dim"),
            ]
        return Content.assemble(*parts)

    def on_click(self, event: events.Click) -> None:
        """Tell which entry is under the mouse."""
        left = 1
        for key in self._fitting():
            if left <= event.x < left + _width(key):
                self.post_message(self.Pressed(key.action))
                return
            left += _width(key)


def _width(key: Key) -> int:
    return len(key.key) + len(key.label) + 3
