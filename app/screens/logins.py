"""Every stored login: in which file, which programs read it, and whether it works."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textual import work

from app.commands import BY_ID, CommandLine
from app.forms import login_form
from app.requests import CommandRequested, LoginRequested
from app.screens.panes import List, bindings
from app.screens.view import ViewScreen
from backend.errors import BackendError
from backend.escape import one_line
from backend.process import run_tool
from backend.program import OURSELVES
from widgets.roster import Column
from widgets.status_line import StatusLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from textual.widget import Widget

_LIMIT_S = 60.0
_WORDS = {"ok": "works", "none": "not needed", "needed": "NEEDED", "refused": "REFUSED"}
_TONES = {"ok": "good", "refused": "bad", "needed": "warn", "unreachable": "warn"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginRow:
    """A login as ``sifdeck registry list --json`` describes it.

    Attributes:
        uri: ``docker://HOST[/PATH]``.
        user: Whose it is.
        state: Whether the registry accepts it; empty while nobody asked.
        detail: Why it does not.
        expires: When it ends, RFC 3339; empty when nothing says.
        file: Where it is stored.
        holder: What keeps the secret.
        read_by: The programs that look there.
    """

    uri: str
    user: str
    state: str
    detail: str
    expires: str
    file: str
    holder: str
    read_by: str


class LoginsScreen(ViewScreen):
    """The list: first what is stored, then what the registries say of it."""

    VIEW = "logins"
    TAB = "registries"
    BINDINGS = bindings("logins")

    def compose_body(self) -> Iterable[Widget]:
        """Return summary, list and one line on the login under the cursor."""
        yield StatusLine("reading ...", id="summary")
        yield List(
            _COLUMNS,
            key=lambda row: (row.file, row.uri),
            empty=("No login is stored.", "", "l    log in to a registry"),
            id="list",
        )
        yield StatusLine(id="detail")

    def on_mount(self) -> None:
        """Read the logins."""
        super().on_mount()
        self.query_one(List).focus()
        self.reload()

    def reload(self) -> None:
        """Read the logins, and try each."""
        self._load()

    @work(exclusive=True, group="logins")
    async def _load(self) -> None:
        summary = self.query_one("#summary", StatusLine)
        for words in (("--offline",), ()):
            try:
                printed = await run_tool(
                    (*OURSELVES, "registry", "list", *words, "--json"), timeout_s=_LIMIT_S
                )
            except BackendError as error:
                summary.show(one_line(error.message))
                return
            rows = _parsed(printed.stdout)
            self.query_one(List).show(rows)
            said = "asking the registries ..." if words else f"{len(rows)} stored"
            summary.show(said, "ctrl+r asks again")

    def on_roster_highlighted(self) -> None:
        """Say more about the login under the cursor."""
        row = self.query_one(List).current
        detail = f"{row.detail}   " if row and row.detail else ""
        ends = f"until {row.expires[:16]}   " if row and row.expires else ""
        text = f"{detail}{ends}secret in {row.holder}, read by {row.read_by}" if row else ""
        self.query_one("#detail", StatusLine).show(one_line(text))
        self.show_command()

    def subject(self) -> Mapping[str, str]:
        """Return the registry and the file of the login under the cursor."""
        row = self.query_one(List).current
        return {"registry": row.uri, "file": row.file} if row else {}

    def command(self) -> CommandLine:
        """Return what lists the logins."""
        return CommandLine(argv=("registry", "list"), singularity=("registry", "list"))

    def action_login(self) -> None:
        """Ask for user and password."""
        row: LoginRow | None = self.query_one(List).current
        registry = row.uri.partition("://")[2] if row else ""
        self.post_message(LoginRequested(login_form(registry, row.user if row else "")))

    def action_logout(self) -> None:
        """Ask, then forget the login in its file."""
        row: LoginRow | None = self.query_one(List).current
        if row is None:
            return
        self.post_message(
            CommandRequested(
                command=BY_ID["logins.logout"].command(self.subject()),
                question=[f"Forget the login for {row.uri}?", f"  {row.user}  in {row.file}"],
                done=f"logged out of {row.uri}",
                go="Log out",
            )
        )


def _parsed(text: str) -> Sequence[LoginRow]:
    """Return what was printed; nothing when that was something else."""
    try:
        found: Any = json.loads(text)
    except ValueError:
        return ()
    return [_row(one) for one in found if isinstance(one, dict)] if isinstance(found, list) else ()


def _row(fields: dict[str, object]) -> LoginRow:
    def text(key: str) -> str:
        return str(fields.get(key) or "")

    return LoginRow(
        uri=text("uri"),
        user=text("username"),
        state=text("state"),
        detail=text("detail"),
        expires=text("expires"),
        file=text("file"),
        holder=text("secret"),
        read_by=text("read_by"),
    )


_COLUMNS: tuple[Column[LoginRow], ...] = (
    Column(
        key="uri",
        title="REGISTRY",
        width=14,
        stretch=True,
        text=lambda row: row.uri.partition("://")[2] or row.uri,
    ),
    Column(key="user", title="USER", width=12, text=lambda row: row.user or "-"),
    Column(
        key="state",
        title="STATE",
        width=11,
        text=lambda row: _WORDS.get(row.state, row.state or "?"),
        tone=lambda row: _TONES.get(row.state, ""),
    ),
    Column(
        key="expires", title="UNTIL", width=10, rank=2, text=lambda row: row.expires[:10] or "-"
    ),
    Column(key="file", title="FILE", width=30, rank=1, text=lambda row: row.file),
)
