"""One of a few words, on one line: arrows or space change it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.binding import Binding
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from widgets.cutting import mark_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.app import RenderResult


_GAP = "  "


class Choice(Widget, can_focus=True):
    """The words; the chosen one is told by its mark, not only by its colour.

    Args:
        options: What there is to choose from.
        value: What is chosen at first; the first option when it is none of them.
    """

    DEFAULT_CSS = """
    Choice { height: 1; width: 1fr; }
    """

    BINDINGS = [
        Binding("right,space", "step(1)", "Next", show=False),
        Binding("left", "step(-1)", "Before", show=False),
    ]

    @dataclass
    class Changed(Message):
        """Another word was chosen."""

        choice: Choice

        @property
        def control(self) -> Choice:
            """The widget, for ``@on`` selectors."""
            return self.choice

    def __init__(
        self,
        options: Sequence[str],
        value: str = "",
        *,
        id: str | None = None,  # noqa: A002  (Textual's name)
    ) -> None:
        super().__init__(id=id)
        self.options = tuple(options)
        self.value = value if value in self.options else self.options[0]

    def choose(self, value: str) -> None:
        """Choose a word."""
        if value != self.value and value in self.options:
            self.value = value
            self.refresh()
            self.post_message(self.Changed(self))

    def action_step(self, by: int) -> None:
        """Choose the next word, round the end."""
        self.choose(self.options[(self.options.index(self.value) + by) % len(self.options)])

    def render(self) -> RenderResult:
        """Return the line."""
        parts = []
        for option, text in self._shown():
            chosen = option == self.value
            style = "bold" if chosen else ""
            if chosen and self.has_focus:
                style = "bold reverse"
            parts += [Content.styled(text, style), Content(_GAP)]
        return Content.assemble(*parts)

    def on_click(self, event: events.Click) -> None:
        """Choose the word under the mouse."""
        left = 0
        for option, text in self._shown():
            width = len(text) + len(_GAP)
            if left <= event.x < left + width:
                self.choose(option)
            left += width

    def _shown(self) -> list[tuple[str, str]]:
        """Return the words that have room, each with its text.

        A mark stands for those before and after them, and means the nearest of these.
        """
        words = list(zip(self.options, self._texts(), strict=True))
        if _width(words) <= self.size.width:
            return words
        mark, chosen = mark_of(self), self.options.index(self.value)
        first, end = chosen, chosen + 1
        room = self.size.width - 2 * len(_GAP + mark)
        while end < len(words) and _width(words[first : end + 1]) <= room:
            end += 1
        while first > 0 and _width(words[first - 1 : end]) <= room:
            first -= 1
        before = [(words[first - 1][0], mark)] if first else []
        after = [(words[end][0], mark)] if end < len(words) else []
        return [*before, *words[first:end], *after]

    def _texts(self) -> list[str]:
        """Return each word with its mark; only the chosen has one where not all have room."""
        marked = [f"({'o' if one == self.value else ' '}) {one}" for one in self.options]
        if len(_GAP.join(marked)) <= self.size.width:
            return marked
        return [f"(o) {one}" if one == self.value else one for one in self.options]


def _width(words: list[tuple[str, str]]) -> int:
    return len(_GAP.join(text for _, text in words))
