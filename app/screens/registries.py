"""Registries: repositories at the left, tags at the right, and what is behind a tag below.

Look-ups are asked for when the cursor rests, and cancelled when it moves on.  What cannot be
looked up is shown as it was when the registry last answered, with its age.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from textual import on, work
from textual.containers import Horizontal, Vertical

from app.commands import BY_ID, CommandLine
from app.dialogs.choose import ChooseDialog
from app.dialogs.prompt import PromptDialog
from app.forms import login_form
from app.requests import CommandRequested, CopyRequested, LoginRequested
from app.screens.filtering import FilterScreen
from app.screens.manifest import ManifestScreen
from app.screens.panes import List, bindings
from app.words import age, count, size, timestamp
from backend.errors import BackendError, UsageError
from backend.escape import one_line
from backend.oci.digest import parse_digest
from backend.oci.platform import host_platform
from backend.paths import cache_home
from backend.reference import DOCKER_HUB, parse_name
from backend.registry.browse import Tag, describe_tags, preview, search, version_key
from backend.registry.memory import memory_of
from widgets.roster import Column, Roster
from widgets.status_line import StatusLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from textual.widget import Widget

    from app.board import Board
    from app.desk import Desk
    from backend.reference import Reference
    from backend.registry.browse import Hit, Preview
    from backend.registry.client import RegistryClient

_REST_S = 0.25
"""Seconds that the cursor rests before anything is asked for."""
_DESCRIBED = 100
"""Tags whose digests are looked up, to tell which are the same image."""
_MEASURED = 30
"""Images whose sizes are looked up, where nobody counts that."""
_AT_ONCE = 6
_HITS = 25
_KEPT = 500
"""Images that are kept in mind."""


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
        self._seen: dict[str, Preview] = {}

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
                    self.columns(
                        _tag_columns(self.desk, self._have, lambda tag: self._seen.get(tag.digest))
                    ),
                    key=lambda tag: tag.name,
                    marks=True,
                    id="list",
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

    @property
    def filtered(self) -> Roster[Any]:
        """The list of registries while it has the focus, else that of tags."""
        return self.places if self.places.has_focus else self.roster

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
            if row.job.verb == "pull" and "://" not in title and (found := _parsed(title)):
                names.add(found.name)
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
        try:
            first = await describe_tags(
                self._ask(), repository, names[:_DESCRIBED], host_platform()
            )
        except BackendError:
            return  # the names are what matters
        self.roster.show([*first, *(Tag(name=name) for name in names[_DESCRIBED:])])
        if not self._is_counted(repository.registry):
            await self._measure(repository, first)

    async def _measure(self, repository: Reference, tags: Sequence[Tag]) -> None:
        """Look up what is behind the first tags, a few at a time."""
        places = asyncio.Semaphore(_AT_ONCE)
        wanted = {tag.digest: tag for tag in tags if tag.digest and not tag.same_as}
        waiting = [tag for digest, tag in wanted.items() if digest not in self._seen][:_MEASURED]

        async def measure(tag: Tag) -> None:
            async with places:
                with contextlib.suppress(BackendError):  # then its cells stay empty
                    await self._look_up(replace(repository, tag=tag.name, digest=None))

        await asyncio.gather(*(measure(tag) for tag in waiting))

    def _is_counted(self, registry: str) -> bool:
        """Tell whether a registry counts each manifest that is fetched as a pull."""
        return registry == DOCKER_HUB or bool(self._limit(registry))

    async def _look_up(self, reference: Reference) -> Preview:
        """Ask the registry what is behind a tag, and keep it in mind."""
        found = await preview(self._ask(), reference, host_platform())
        self._keep(found)
        return found

    async def _recall(self, reference: Reference, digest: str) -> Preview | None:
        """Return what is known of a digest: from before, or from what was pulled."""
        if digest in self._seen or not digest:
            return self._seen.get(digest)
        there = reference.with_digest(parse_digest(digest))
        try:
            found = await preview(memory_of(cache_home()), there, host_platform())
        except BackendError:
            return None
        self._keep(found)
        return found

    def _keep(self, found: Preview) -> None:
        while len(self._seen) >= _KEPT:
            del self._seen[next(iter(self._seen))]
        self._seen[found.digest] = found
        self.roster.refresh()

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
        await asyncio.sleep(_REST_S)
        tag = self.roster.current
        shown = f"{reference.name}:{reference.tag}"
        try:
            digest = (tag.digest if tag else "") or await self._ask().find_digest(reference)
            found = await self._recall(reference, digest)
            if found is None and self._is_counted(reference.registry):
                more = f"i  looks inside: {reference.registry} counts that as a pull"
                self._show_preview(f"{shown}  {digest[:19]}", more)
                return
            found = found or await self._look_up(reference)
        except BackendError as error:
            self._show_preview(shown, error.message)
            return
        platforms = " ".join(str(one.platform) for one in found.images if one.platform)
        config = found.config
        process = [*config.entrypoint, *config.cmd] if config else []
        layers = count(len(found.layers), "layer")
        self._show_preview(
            f"{shown}  {layers}  {size(found.size)} to download{self._room(found)}",
            f"{platforms}   user {config.user or 'root' if config else '-'}   {' '.join(process)}",
        )

    def _room(self, found: Preview) -> str:
        """Return whether there is room for an image, as far as that is known."""
        store = self.board.store
        if store is None:
            return ""
        return f", {size(store.free)} free" if store.free > found.size else ", NO ROOM for it"

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
            self._add(reference.name if reference else name)

        dialog = PromptDialog("Registry or repository", hint="ghcr.io, or ghcr.io/lab/tools")
        self.app.push_screen(dialog, answered)

    def _add(self, name: str) -> None:
        """Show a registry or repository, now and in other decks, and go to it."""
        memory = self.desk.memory
        if name not in memory.repositories:
            memory.repositories.append(name)
            memory.save()
        self.go_to(name)

    def action_search(self) -> None:
        """Ask for a word, and search the registry for repositories with it."""
        place = self.places.current
        registry = place.registry if place else DOCKER_HUB

        def answered(term: str | None) -> None:
            if term and term.strip():
                self._search(registry, term.strip())

        self.app.push_screen(PromptDialog(f"Find in {registry}", hint="a word"), answered)

    @work(exclusive=True, group="search")
    async def _search(self, registry: str, term: str) -> None:
        self._say(f"searching {registry} for {term} ...")
        try:
            hits = await search(self._ask(), term, registry, _HITS)
        except BackendError as error:
            self._say(error.message, error.hint or "a  add a repository by its name")
            return
        if not hits:
            self._say(f"{registry} has nothing with {term} in its name")
            return
        self._say(f"{registry}: {count(len(hits), 'repository', 'repositories')} for {term}")
        names = {one.name: _hit_line(one) for one in hits}
        dialog = ChooseDialog(f"Found in {registry}", names, wide=True)
        self.app.push_screen(dialog, lambda name: self._add(name) if name else None)

    def action_logins(self) -> None:
        """Show every login: who reads it, and whether it works."""
        from app.screens.logins import LoginsScreen

        self.app.push_screen(LoginsScreen(self.desk, self.board))

    def action_limits(self) -> None:
        """Show how we stand with the registry, its rate limit too."""
        if "registry" in (subject := self.subject()):
            command = BY_ID["registries.limits"].command(subject)
            self.post_message(CommandRequested(command=command, done="", shows_output=True))

    def action_page(self) -> None:
        """Copy the address of the repository's page."""
        place = self.places.current
        if place:
            self.post_message(CopyRequested(page_of(place.registry, place.repository)))

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


def _hit_line(hit: Hit) -> str:
    """Return what a search found, on one line."""
    stars = f"  {hit.stars}*" if hit.stars > 0 else ""
    official = "  official" if hit.is_official else ""
    return one_line(f"{hit.name}{stars}{official}  {hit.description}", limit=96)


def page_of(registry: str, repository: str) -> str:
    """Return the address at which people look at a repository."""
    if registry == DOCKER_HUB:
        official = repository.startswith("library/")
        name = f"_/{repository.removeprefix('library/')}" if official else f"r/{repository}"
        return f"https://hub.docker.com/{name if repository else ''}"
    if registry == "quay.io":
        return f"https://quay.io/repository/{repository}"
    return f"https://{registry}/{repository}".rstrip("/")


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


def _tag_columns(
    desk: Desk, have: Callable[[Tag], str], seen: Callable[[Tag], Preview | None]
) -> tuple[Column[Tag], ...]:
    def created(tag: Tag) -> float:
        found = seen(tag)
        return (timestamp(found.config.created) or 0.0) if found and found.config else 0.0

    def bytes_of(tag: Tag) -> int:
        found = seen(tag)
        return found.size if found else 0

    return (
        Column(
            key="name",
            title="TAG",
            width=10,
            stretch=True,
            text=lambda tag: tag.name,
            order=lambda tag: version_key(tag.name),
        ),
        Column(
            key="digest",
            title="DIGEST",
            width=9,
            rank=2,
            text=lambda tag: f"={tag.same_as}" if tag.same_as else tag.digest[7:16],
        ),
        Column(
            key="platform",
            title="PLATFORM",
            width=12,
            rank=4,
            text=lambda tag: _machines(seen(tag)),
        ),
        Column(
            key="size",
            title="SIZE",
            width=6,
            right=True,
            rank=1,
            text=lambda tag: size(bytes_of(tag)) if seen(tag) else "",
            order=bytes_of,
        ),
        Column(
            key="created",
            title="AGE",
            width=8,
            rank=3,
            text=lambda tag: age(desk.now() - created(tag)) if created(tag) else "",
            order=lambda tag: -created(tag),
        ),
        Column(
            key="have",
            title="HAVE",
            width=7,
            text=have,
            tone=lambda tag: "good" if have(tag) not in {"-", ""} else "",
        ),
    )


def _machines(found: Preview | None) -> str:
    """Return for which processors an image is: two of them, and how many more."""
    platforms = [one.platform for one in found.images if one.platform] if found else []
    names = list(dict.fromkeys(platform.architecture for platform in platforms))
    return "+".join(names) if len(names) < 3 else f"{names[0]} +{len(names) - 1}"
