"""Lists and texts with the keys of the table of actions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from textual import work
from textual.binding import Binding

from app.commands import Action, actions_of
from widgets import ansi
from widgets.line_view import LineView
from widgets.roster import Roster

if TYPE_CHECKING:
    from textual.binding import BindingType

Row = TypeVar("Row")

_SAVED_LINE = 1 << 18
"""Characters of a line that are saved."""


def bindings(*views: str) -> list[BindingType]:
    """Return the key bindings of some views out of the table of actions."""
    return [_binding(action) for action in actions_of(*views) if action.keys]


def _binding(action: Action) -> Binding:
    keys = ",".join(action.keys)
    return Binding(keys, action.name, action.label, id=action.id, tooltip=action.help)


class List(Roster[Row]):
    """The list with the keys of the table."""

    BINDINGS = bindings("list")


class Text(LineView):
    """The text with the keys of the table; it can be searched and saved.

    Args:
        follow: Whether to stay at the end while lines are added.
        empty: What to show while there are no lines.
        stamped: Whether lines begin with a time, which is shown on request.
        save_as: Name of the file that it is saved to.
    """

    BINDINGS = bindings("log")

    def __init__(
        self,
        *,
        follow: bool = False,
        empty: str = "",
        stamped: bool = False,
        save_as: str = "sifdeck.txt",
        id: str | None = None,  # noqa: A002  (Textual's name)
    ) -> None:
        super().__init__(follow=follow, empty=empty, stamped=stamped, id=id)
        self.save_as = save_as

    def action_find(self) -> None:
        """Ask what to find, and go there."""
        from app.dialogs.prompt import PromptDialog

        def answered(wanted: str | None) -> None:
            if wanted is not None:
                self.find(wanted)

        self.app.push_screen(PromptDialog("Find", self.wanted), answered)

    def action_save(self) -> None:
        """Ask for a file, and write all lines to it, their times too, without colours."""
        from app.dialogs.prompt import PromptDialog

        def answered(name: str | None) -> None:
            if name:
                self._write(Path(name).expanduser().absolute(), self.line_count)

        self.app.push_screen(PromptDialog("Save as", _free_name(self.save_as)), answered)

    @work(thread=True)
    def _write(self, target: Path, count: int) -> None:
        lines = self.source.again()
        try:
            with target.open("x", encoding="utf-8") as out:
                for number in range(min(count, len(lines))):
                    line = lines.line(number, _SAVED_LINE)
                    out.write("".join(text for text, _, _ in ansi.pieces(line)) + "\n")
        except OSError as error:
            said, severity = f"cannot write {target}: {error.strerror}", "error"
        else:
            said, severity = f"wrote {target}", "information"
        finally:
            lines.close()
        self.app.call_from_thread(self.notify, said, severity=severity, markup=False)


def _free_name(name: str) -> str:
    """Return the name, with a number in it where there is such a file already."""
    path = Path(name)
    numbered = (f"{path.stem}-{number}{path.suffix}" for number in range(2, 1000))
    return next((one for one in (name, *numbered) if not Path(one).exists()), name)
