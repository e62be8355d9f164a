"""The palette: every action of the table that can be done here and now."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from textual.command import DiscoveryHit, Hit, Provider

from app.commands import Action, actions_of, key_name
from app.screens.view import ViewScreen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from textual.command import Hits


class Palette(Provider):
    """Finds actions by their label and their help."""

    def _actions(self) -> Iterator[tuple[Action, str, Callable[[], Awaitable[None]]]]:
        """Yield each action that may be done, the text by which it is found, and how to do it."""
        screen = self.screen
        if not isinstance(screen, ViewScreen):
            return
        for action in actions_of(screen.VIEW, *screen.focused_views, "deck"):
            if screen.can_do(action):
                keys = " ".join(key_name(key) for key in screen.desk.keys(action))
                yield action, f"{action.label}  {keys}", partial(screen.do, action)

    async def discover(self) -> Hits:
        """Yield all actions."""
        for action, text, do in self._actions():
            yield DiscoveryHit(text, do, help=action.help)

    async def search(self, query: str) -> Hits:
        """Yield the actions that match."""
        match = self.matcher(query)
        for action, text, do in self._actions():
            score = max(match.match(text), match.match(action.help) * 0.8)
            if score > 0:
                yield Hit(score, match.highlight(text), do, help=action.help)
