"""Registries: repositories at the left, tags at the right, and what is behind a tag below.

Look-ups are asked for when the cursor rests, and cancelled when it moves on.  What cannot be
looked up is shown as it was when the registry last answered, with its age.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from textual import on, work
from textual.containers import Horizontal, Vertical

from app.commands import CommandLine
from app.dialogs.prompt import PromptDialog
from app.forms import login_form
from app.requests import CommandRequested, LoginRequested
from app.screens.filtering import FilterScreen
from app.screens.manifest import ManifestScreen
from app.screens.view import List, bindings
from app.words import age, count, size
from backend.errors import BackendError, UsageError
from backend.escape import one_line
from backend.reference import parse_name
from backend.registry.browse import Tag
from widgets.roster import Column, Roster
from widgets.status_line import StatusLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from textual.widget import Widget

    from app.board import Board
    from app.desk import Desk
    from backend.reference import Reference
    from backend.registry.client import RegistryClient

_REST_S = 0.25
"""Seconds that the cursor rests before anything is asked for."""
_DESCRIBED = 100
"""Tags whose digests are looked up, to tell which are the same image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A registry, or a repository in one.

    Attributes:
        registry: Host and port.
        repository: Empty for the registry itself.
        user: Whose login is stored for the registry; empty for none.
        limit: ``LEFT/ALL`` pulls, by the registry's last word; empty while it said nothing.
    """

    registry: str
    repository: str = ""
    user: str = ""
    limit: str = ""

    @property
    def name(self) -> str:
        """``registry/repository`` or ``registry``."""
        return f"{self.registry}/{self.repository}" if self.repository else self.registry


class RegistriesScreen(FilterScreen[Tag]):
    """Repositories, tags, preview."""

    VIEW = "registries"
    TAB = "registries"
    HAS_DOCK = True
    BINDINGS = bindings("registries")

    def __init__(self, desk: Desk, board: Board) -> None:
        super().__init__(desk, board)
        self._listed: dict[str, tuple[str, ...]] = {}
        self._users: dict[str, str] = {}
        self._repository: Reference | None = None
        self._client: RegistryClient | None = None
        self._has_said_marks = False

    def compose_body(self) -> Iterable[Widget]:
        """Return the two lists and the preview."""
        yield StatusLine(id="summary")
        with Horizontal(id="panes"):
            yield List(
                _PLACE_COLUMNS,
                key=lambda place: place.name,
                empty=("a  add a registry", "   or a repository"),
                id="places",
            )
            with Vertical():
                yield List(
                    _tag_columns(self._have), key=lambda tag: tag.name, marks=True, id="list"
                )
        yield StatusLine(id="preview", classes="pane-title")
        yield StatusLine(id="preview-more")

    def on_mount(self) -> None:
        """Show the registries that are known."""
        super().on_mount()
        self.places.focus()
        self._show_places()
        self.reload()

    async def on_unmount(self) -> None:
        """Close the connections."""
        if self._client:
            await self._client.__aexit__(None, None, None)

    @property
    def roster(self) -> Roster[Tag]:
        """The list of tags."""
        return self.query_one("#list", List)

    @property
    def places(self) -> Roster[Place]:
        """The list of registries and repositories."""
        return self.query_one("#places", List)

    def _ask(self) -> RegistryClient:
        """Return the client, made when it is first needed."""
        if self._client is None:
            self._client = self.desk.access().client()
        return self._client

    # Registries and repositories

    def reload(self) -> None:
        """Read again which logins are stored, and ask again for tags."""
        self._load_logins()
        if self._repository:
            self._load_tags(self._repository)

    @work(exclusive=True, group="logins")
    async def _load_logins(self) -> None:
        from backend.registry.logins import stored_logins

        try:
            logins = await stored_logins()
        except (BackendError, OSError) as error:
            self.notify(one_line(str(error)), severity="warning", markup=False)
            logins = ()
        self._users = {one.registry: one.username or "token" for one in logins if one.registry}
        self._show_places()

    def _show_places(self) -> None:
        names: dict[str, set[str]] = {host: set() for host in ("docker.io", *self._users)}
        for name in self._known_names():
            host, _, repository = name.partition("/")
            names.setdefault(host, set()).update({repository} if repository else set())
        for host, listed in self._listed.items():
            names.setdefault(host, set()).update(listed)
        rows = []
        for host in sorted(names):
            limit = self._limit(host)
            rows.append(Place(registry=host, user=self._users.get(host, ""), limit=limit))
            rows += [Place(registry=host, repository=name) for name in sorted(names[host])]
        self.places.show(rows)

    def _known_names(self) -> set[str]:
        """Return what the user added, and where images and jobs here came from."""
        names = {*self.desk.memory.repositories, *self.desk.config.registries}
        for row in self.board.rows:
            title = row.job.title.removeprefix("docker://")
            if row.job.verb == "pull" and "://" not in title:
                names.add(title)
        names |= {image.name for image in self.desk.catalog.known if image.tag}
        return {found.name for name in names if (found := _parsed(name))} | {
            name for name in names if "/" not in name and _is_host(name)
        }

    @on(Roster.Opened, "#places")
    def _open_place(self) -> None:
        place = self.places.current
        if place and place.repository:
            self.roster.focus()
        elif place:
            self._load_repositories(place.registry)

    @work(exclusive=True, group="repositories")
    async def _load_repositories(self, registry: str) -> None:
        self._say(f"asking {registry} for its repositories ...")
        try:
            found = await self._ask().repositories(registry)
        except BackendError as error:
            self._say(error.message, error.hint or "a  add a repository by its name")
            return
        self._listed[registry] = found
        self._show_places()
        self._say(f"{registry}: {len(found)} repositories")

    @on(Roster.Highlighted, "#places")
    def _show_place(self) -> None:
        self.show_command()
        place = self.places.current
        if place is None or not place.repository:
            self.roster.show(())
            self._repository = None
            self.workers.cancel_group(self, "tags")
            if place:
                login = f"logged in as {place.user}" if place.user else "not logged in  (l)"
                left = f"  {place.limit} pulls left" if place.limit else ""
                self._say(f"{place.registry}  {login}{left}", "enter  list its repositories")
            return
        reference = _parsed(place.name)
        if reference and reference != self._repository:
            self.roster.clear_marks()  # a tag of the same name there is another image
            self._repository = reference
            self._load_tags(reference)

    # Tags

    @work(exclusive=True, group="tags")
    async def _load_tags(self, repository: Reference) -> None:
        from backend.registry.browse import version_key

        known = self.desk.tag_cache.get(repository.name)
        names = sorted(known.names if known else (), key=version_key, reverse=True)
        self.roster.show([Tag(name=name) for name in names])
        self._say(f"{repository.name}  asking {repository.registry} ...")
        await asyncio.sleep(_REST_S)
        try:
            found = await self._ask().tags(repository)
        except BackendError as error:
            old = f"as of {age(self.desk.now() - known.when)}; " if known else ""
            self._say(f"{repository.name}  {old}{error.message}", error.hint)
            return
        self.desk.tag_cache.put(repository.name, found, self.desk.now())
        names = sorted(found, key=version_key, reverse=True)
        self.roster.show([Tag(name=name) for name in names])
        self._say_tags()
        await self._describe(repository, names)
        self._show_places()

    async def _describe(self, repository: Reference, names: Sequence[str]) -> None:
        """Tell which of the first tags are the same image."""
        from backend.oci.platform import host_platform
        from backend.registry.browse import describe_tags

        try:
            first = await describe_tags(
                self._ask(), repository, names[:_DESCRIBED], host_platform()
            )
        except BackendError:
            return  # the names are what matters
        self.roster.show([*first, *(Tag(name=name) for name in names[_DESCRIBED:])])

    @on(Roster.Changed, "#list")
    def _say_marks(self) -> None:
        if self.roster.marked or self._has_said_marks:
            self._say_tags()

    def _say_tags(self) -> None:
        """Say how many tags there are, how many are marked, and what the registry allows."""
        if self._repository is None:
            return
        marked = len(self.roster.marked)
        self._has_said_marks = marked > 0
        limit = self._limit(self._repository.registry)
        self._say(
            f"{self._repository.name}  {count(len(self.roster.rows), 'tag')}"
            + (f", {marked} marked  (p)" if marked else ""),
            f"{limit} pulls left" if limit else "",
        )

    def _limit(self, registry: str) -> str:
        """Return what the registry last said of its limit; it is not asked for that."""
        limit = self._client.rate_limit(registry) if self._client else None
        return f"{limit.remaining}/{limit.limit}" if limit else ""

    def _have(self, tag: Tag) -> str:
        """Return what there is of a tag on this machine: a file, a job, or nothing."""
        if self._repository is None:
            return ""
        title = f"{self._repository.name}:{tag.name}"
        if any(title in row.job.title for row in self.board.active):
            return "job"
        kinds = (image.kind for image in self.desk.catalog.known if image.title == title)
        return next(kinds, "-")

    def _say(self, left: str, right: str = "") -> None:
        self.query_one("#summary", StatusLine).show(one_line(left), one_line(right))

    # What is behind a tag

    def _reference(self) -> Reference | None:
        """Return the tag under the cursor as a reference."""
        tag = self.roster.current
        if self._repository is None or tag is None:
            return self._repository
        return replace(self._repository, tag=tag.name, digest=None)

    @on(Roster.Highlighted, "#list")
    def _show_tag(self) -> None:
        self.show_command()
        reference = self._reference()
        self._show_preview("", "")
        if reference and self.roster.current:
            self._preview(reference)
        else:
            self.workers.cancel_group(self, "preview")

    @work(exclusive=True, group="preview")
    async def _preview(self, reference: Reference) -> None:
        from backend.oci.platform import host_platform
        from backend.registry.browse import preview

        await asyncio.sleep(_REST_S)
        try:
            found = await preview(self._ask(), reference, host_platform())
        except BackendError as error:
            self._show_preview(str(reference), error.message)
            return
        platforms = " ".join(str(one.platform) for one in found.images if one.platform)
        config = found.config
        process = [*config.entrypoint, *config.cmd] if config else []
        layers = count(len(found.layers), "layer")
        self._show_preview(
            f"{reference.name}:{reference.tag}  {layers}  {size(found.size)}",
            f"{platforms}   user {config.user or 'root' if config else '-'}   {' '.join(process)}",
        )

    def _show_preview(self, title: str, more: str) -> None:
        self.query_one("#preview", StatusLine).show(one_line(title))
        self.query_one("#preview-more", StatusLine).show(one_line(more))

    def subject(self) -> Mapping[str, str]:
        """Return the registry, repository and tag under the cursors."""
        place = self.places.current
        if place is None:
            return {}
        subject = {"registry": f"docker://{place.registry}"}
        if place.repository:
            subject["repository"] = f"docker://{place.name}"
        if reference := self._reference():
            subject["reference"] = str(reference)
        return subject

    def pulls(self) -> tuple[str, ...]:
        """Return the marked tags, else the one under the cursor."""
        marked = self.roster.marked
        if self._repository is None or not marked:
            return super().pulls()
        return tuple(str(replace(self._repository, tag=tag.name, digest=None)) for tag in marked)

    def command(self) -> CommandLine:
        """Return what lists the tags, or what pulls the one under the cursor."""
        subject = self.subject()
        if self.focused is self.roster and self.roster.current:
            reference = subject["reference"]
            return CommandLine(argv=("pull", reference), singularity=("pull", "--oci", reference))
        if "repository" in subject:
            return CommandLine(argv=("tags", subject["repository"]))
        return CommandLine(argv=("registry", "list"), singularity=("registry", "list"))

    # Actions

    def go_to(self, name: str) -> None:
        """Put the cursor on a repository."""
        self._show_places()
        self.places.select(name)
        self.places.focus()

    @on(Roster.Opened, "#list")
    def action_open(self) -> None:
        """Show the image behind the tag."""
        reference = self._reference()
        if reference and self.roster.current:
            self.app.push_screen(ManifestScreen(self.desk, self.board, reference))

    def action_add(self) -> None:
        """Ask for a registry or repository to show."""

        def answered(name: str | None) -> None:
            if not name:
                return
            name = name.strip().removeprefix("docker://").rstrip("/")
            reference = None if _is_host(name) else _parsed(name)
            if reference is None and not _is_host(name):
                self._say(f"{name} is neither a registry nor a repository", "as ghcr.io/lab/tools")
                return
            shown = reference.name if reference else name
            memory = self.desk.memory
            if shown not in memory.repositories:
                memory.repositories.append(shown)
                memory.save()
            self._show_places()
            self.places.select(shown)

        dialog = PromptDialog("Registry or repository", hint="ghcr.io, or ghcr.io/lab/tools")
        self.app.push_screen(dialog, answered)

    def action_delete(self) -> None:
        """Take what the user added from the list again."""
        place, memory = self.places.current, self.desk.memory
        if place and place.name in memory.repositories:
            memory.repositories.remove(place.name)
            memory.save()
            self._show_places()
        else:
            self._say("only what you added can be taken away", "logins and images name the rest")

    def action_login(self) -> None:
        """Ask for user and password."""
        place = self.places.current
        registry = place.registry if place else ""
        self.post_message(LoginRequested(login_form(registry, place.user if place else "")))

    def action_logout(self) -> None:
        """Ask, then forget the login."""
        place = self.places.current
        if not place or place.registry not in self._users:
            self._say("there is no login to forget")
            return
        uri = f"docker://{place.registry}"
        self.post_message(
            CommandRequested(
                command=CommandLine(
                    argv=("registry", "logout", uri), singularity=("registry", "logout", uri)
                ),
                question=[f"Forget the login for {place.registry}?"],
                done=f"logged out of {place.registry}",
                go="Log out",
            )
        )


def _is_host(name: str) -> bool:
    """Tell whether a name without a path is a registry's."""
    return bool(name) and "/" not in name and ("." in name or ":" in name or name == "localhost")


def _parsed(name: str) -> Reference | None:
    """Return the repository of a name, without tag and digest; None when it is none."""
    try:
        return replace(parse_name(name), tag="", digest=None)
    except UsageError:
        return None


_PLACE_COLUMNS: tuple[Column[Place], ...] = (
    Column(
        key="name",
        title="REGISTRIES",
        width=16,
        stretch=True,
        text=lambda place: f"  {place.repository}" if place.repository else place.registry,
    ),
    Column(
        key="user",
        title="LOGIN",
        width=8,
        rank=1,
        text=lambda place: "" if place.repository else (place.user or "-"),
    ),
    Column(key="limit", title="LEFT", width=7, rank=2, text=lambda place: place.limit),
)


def _tag_columns(have: Callable[[Tag], str]) -> tuple[Column[Tag], ...]:
    return (
        Column(key="name", title="TAG", width=10, stretch=True, text=lambda tag: tag.name),
        Column(
            key="digest",
            title="DIGEST",
            width=14,
            rank=1,
            text=lambda tag: f"={tag.same_as}" if tag.same_as else tag.digest[7:19],
        ),
        Column(
            key="have",
            title="HAVE",
            width=8,
            text=have,
            tone=lambda tag: "good" if have(tag) not in {"-", ""} else "",
        ),
    )
