"""The palette: every action of the table that can be done here and now."""

from __future__ import annotations

import shlex
from functools import partial
from typing import TYPE_CHECKING

from textual.command import DiscoveryHit, Hit, Provider

from app.commands import actions_of, key_name
from app.screens.view import ViewScreen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from textual.command import Hits


class Palette(Provider):
    """Finds actions by their label and their help."""

    def _entries(self) -> Iterator[tuple[str, str, Callable[[], Awaitable[None] | None]]]:
        """Yield text, help and callback of each action and custom command that may be done."""
        screen = self.screen
        if not isinstance(screen, ViewScreen):
            return
        for action in actions_of(screen.VIEW, *screen.focused_views, "deck"):
            if screen.can_do(action):
                keys = " ".join(key_name(key) for key in screen.desk.keys(action))
                yield f"{action.label}  {keys}", action.help, partial(screen.do, action)
        for command in screen.desk.config.commands:
            if command.view in {"", screen.VIEW} and not (command.changes and screen.desk.readonly):
                yield command.name, shlex.join(command.argv), partial(screen.do_custom, command)

    async def discover(self) -> Hits:
        """Yield all entries."""
        for text, about, do in self._entries():
            yield DiscoveryHit(text, do, help=about)

    async def search(self, query: str) -> Hits:
        """Yield the entries that match."""
        match = self.matcher(query)
        for text, about, do in self._entries():
            score = max(match.match(text), match.match(about) * 0.8)
            if score > 0:
                yield Hit(score, match.highlight(text), do, help=about)
