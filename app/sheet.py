"""The deck's style sheet: what is parsed is kept until a colour changes.

Textual throws it away four times before the first paint, when a theme is set and when the
first screen is told of it: a quarter of the time that the deck took to start (Textual 8.2).
"""

from __future__ import annotations

from textual.css.stylesheet import Stylesheet


class Sheet(Stylesheet):
    """The style sheet."""

    def set_variables(self, variables: dict[str, str]) -> None:
        """Take over other colours, if they are others."""
        if variables != self._variables:
            super().set_variables(variables)

    def reparse(self) -> None:
        """Parse what is new, or everything after a change of colours."""
        self.parse()
