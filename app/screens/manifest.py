"""An image at a registry, before it is pulled: its platforms, configuration, layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import work

from app.commands import CommandLine
from app.inspection import remote_pages
from app.screens.inspector import Inspector
from app.screens.panes import Text, bindings
from app.screens.view import ViewScreen
from backend.errors import BackendError
from backend.reference import DOCKER_HUB

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from textual.widget import Widget

    from app.board import Board
    from app.desk import Desk
    from backend.reference import Reference


class ManifestScreen(ViewScreen):
    """The image."""

    VIEW = "manifest"
    TAB = "registries"
    BINDINGS = bindings("manifest")

    def __init__(self, desk: Desk, board: Board, reference: Reference) -> None:
        super().__init__(desk, board)
        self.reference = reference

    def compose_body(self) -> Iterable[Widget]:
        """Return the inspector."""
        yield Inspector(id="inspector")

    def on_mount(self) -> None:
        """Ask the registry."""
        super().on_mount()
        self.query_one(Text).focus()
        self._load()

    @work(exclusive=True, group="manifest")
    async def _load(self) -> None:
        from backend.oci.platform import host_platform
        from backend.registry.browse import platform_sizes, preview

        inspector = self.query_one(Inspector)
        inspector.show(str(self.reference), {"Overview": [f"asking {self.reference.registry} ..."]})
        try:
            async with self.desk.access().client() as client:
                found = await preview(client, self.reference, host_platform())
                inspector.show(str(self.reference), remote_pages(found, found.images))
                registry = self.reference.registry
                if registry == DOCKER_HUB or client.rate_limit(registry):
                    return  # each further manifest would count as a pull
                sizes = await platform_sizes(client, found)
        except BackendError as error:
            lines = [line for line in (error.message, error.why, error.hint) if line]
            inspector.show(str(self.reference), {"Problem": lines})
            return
        inspector.show(str(self.reference), remote_pages(found, sizes))

    def subject(self) -> Mapping[str, str]:
        """Return the image."""
        return {"reference": str(self.reference)}

    def command(self) -> CommandLine:
        """Return the command that prints the manifest."""
        return CommandLine(argv=("manifest", str(self.reference)))

    def action_next_tab(self) -> None:
        """Show the next page."""
        self.query_one(Inspector).step(1)

    def action_previous_tab(self) -> None:
        """Show the page before."""
        self.query_one(Inspector).step(-1)
