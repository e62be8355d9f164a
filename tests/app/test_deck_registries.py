"""Registries in the deck: against a real registry, and against one that does not answer."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from textual.widgets import Input, Static

from app.dialogs.confirm import ConfirmDialog
from app.dialogs.fill import FillDialog
from app.memory import Memory, load_memory
from app.screens.inspector import Inspector
from app.screens.manifest import ManifestScreen
from app.screens.panes import List, Text
from app.screens.registries import RegistriesScreen, page_of
from backend.registry.access import Access
from backend.tagcache import TagCache
from tests.support import images
from tests.support.decks import NOW, make_deck, make_desk, make_images, settle, until, write_job
from tests.support.flaky import Fault, flaky_proxy
from tests.support.registry import PASSWORD, USER
from widgets.choice import Choice
from widgets.status_line import StatusLine

if TYPE_CHECKING:
    from pathlib import Path

    from textual.pilot import Pilot

    from app.deck import Deck
    from tests.support.registry import Registry
    from widgets.roster import Roster


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "images"
    make_images(path)
    monkeypatch.chdir(path)
    monkeypatch.setenv("SIFDECK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr("app.screens.registries._REST_S", 0.0)
    return path


def deck(folder: Path, *repositories: str) -> Deck:
    state = folder.parent / "state"
    memory = Memory(path=state / "deck.json", repositories=list(repositories))
    return make_deck(make_desk(folder, state=state, memory=memory))


def tags(app: Deck) -> Roster[Any]:
    return app.screen.query_one("#list", List)


def places(app: Deck) -> Roster[Any]:
    return app.screen.query_one("#places", List)


def line(app: Deck, name: str) -> str:
    return app.screen.query_one(f"#{name}", StatusLine).text


async def open_registries(pilot: Pilot[int], place: str) -> None:
    await settle(pilot)
    await pilot.press("2")
    await settle(pilot)
    app: Any = pilot.app
    assert places(app).select(place)
    await settle(pilot)


@pytest.mark.registry
async def test_tags_are_listed_previewed_and_pulled(folder: Path, registry: Registry) -> None:
    box = images.image([images.layer(images.Entry(name="a", data=b"a"))], config={"Cmd": ["sh"]})
    other = images.image([images.layer(images.Entry(name="b", data=b"b"))])
    for tag, made in (("1.9", other), ("1.10", box), ("latest", box)):
        registry.push(made, "deck/tags", tag)
    name = f"{registry.host}/deck/tags"
    app = deck(folder, name)
    async with app.run_test(size=(100, 30)) as pilot:
        await open_registries(pilot, name)
        assert [tag.name for tag in tags(app).shown] == ["1.10", "1.9", "latest"]
        assert [tag.same_as for tag in tags(app).shown] == ["", "", "1.10"]
        assert f"sifdeck tags docker://{name}" in line(app, "command")
        await pilot.press("enter")
        await settle(pilot)
        assert "1 layer" in line(app, "preview")
        assert "sh" in line(app, "preview-more")
        assert f"sifdeck pull docker://{name}:1.10" in line(app, "command")
        await pilot.press("p")
        assert app.screen.query_one("#field-reference", Input).value == f"docker://{name}:1.10"
        await pilot.press("escape", "i")
        await settle(pilot)
        assert isinstance(app.screen, ManifestScreen)
        source = app.screen.query_one(Inspector).query_one(Text).source
        assert f"docker://{name}:1.10" in source.line(0)


@pytest.mark.registry
async def test_marked_tags_are_pulled_as_one_job_each(
    folder: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = images.image([images.layer(images.Entry(name="m", data=b"m"))])
    for tag in ("1", "2", "3"):
        registry.push(made, "deck/marks", tag)
    registry.push(made, "deck/other", "3")
    name = f"{registry.host}/deck/marks"
    app = deck(folder, name, f"{registry.host}/deck/other")
    started: list[tuple[str, ...]] = []

    def start(argv: tuple[str, ...], *, title: str, after: tuple[int, ...]) -> Any:
        assert not after
        started.append((title, *argv))
        write_job(app.desk.jobs.root, len(started), title=title, argv=argv)
        return app.desk.jobs.get(len(started))

    monkeypatch.setattr(app.desk.jobs, "start", start)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_registries(pilot, name)
        await pilot.press("enter", "space", "down", "space")
        await settle(pilot)
        assert "3 tags, 2 marked" in line(app, "summary")
        await pilot.press("p")
        await pilot.pause()
        dialog = app.screen
        assert isinstance(dialog, FillDialog)
        assert dialog.form.title == "Pull 2 images"
        assert str(dialog.command) == f"sifdeck pull docker://{name}:3"
        dialog.query_one("#field-force", Choice).value = "yes"
        await pilot.press("ctrl+s")
        await settle(pilot)
        assert [one[0] for one in started] == [f"docker://{name}:{tag}" for tag in ("3", "1")]
        assert started[1][1:] == ("pull", "--force", f"docker://{name}:1")
        assert tags(app).marked == []
        assert "marked" not in line(app, "summary")
        await pilot.press("home", "space")
        places(app).select(f"{registry.host}/deck/other")
        await settle(pilot)
        assert tags(app).marked == []  # its tag 3 is another image


@pytest.mark.registry
async def test_the_rate_limit_stands_beside_its_registry(folder: Path, registry: Registry) -> None:
    made = images.image([images.layer(images.Entry(name="l", data=b"l"))])
    registry.push(made, "deck/limit", "1")
    headers = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "61;w=21600"}
    fault = Fault(path="/v2/", kind="headers", headers=headers, times=1000)
    with flaky_proxy(registry.host, fault) as proxy:
        app = deck(folder, f"{proxy.host}/deck/limit")
        async with app.run_test(size=(100, 24)) as pilot:
            await open_registries(pilot, f"{proxy.host}/deck/limit")
            assert "61/100 pulls left" in line(app, "summary")
            assert places(app).select(proxy.host)
            await settle(pilot)
            place = places(app).current
            assert place
            assert place.limit == "61/100"
            assert "not logged in" in line(app, "summary")
            assert "61/100 pulls left" in line(app, "summary")


@pytest.mark.registry
async def test_enter_on_a_registry_lists_its_repositories(folder: Path, registry: Registry) -> None:
    made = images.image([images.layer(images.Entry(name="c", data=b"c"))])
    registry.push(made, "deck/listed", "1")
    app = deck(folder, registry.host)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_registries(pilot, registry.host)
        await pilot.press("enter")
        await settle(pilot)
        assert "deck/listed" in {place.repository for place in places(app).shown}


async def test_a_registry_that_does_not_answer_shows_what_was_known(folder: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        name = f"127.0.0.1:{closed.getsockname()[1]}/lab/gone"
        TagCache(folder.parent / "state" / "tags").put(name, ["1.0", "2.0"], NOW - 7200)
        app = deck(folder, name)
        async with app.run_test(size=(100, 24)) as pilot:
            await open_registries(pilot, name)
            assert [tag.name for tag in tags(app).shown] == ["2.0", "1.0"]
            assert "as of 2h ago" in line(app, "summary")


async def test_images_on_this_machine_name_repositories(folder: Path) -> None:
    app = deck(folder)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("2")
        await settle(pilot)
        assert "ghcr.io/lab/cfd-solver" in {place.name for place in places(app).shown}


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("docker://ghcr.io/lab/new:1.0", "ghcr.io/lab/new"),
        ("registry.example", "registry.example"),
        ("alpine", "docker.io/library/alpine"),
        ("NOT A NAME", ""),
    ],
)
async def test_what_is_added_is_remembered(folder: Path, typed: str, shown: str) -> None:
    app = deck(folder)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("2", "a")
        await pilot.pause()
        app.screen.query_one(Input).value = typed
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.screen, RegistriesScreen)
        assert (shown in {place.name for place in places(app).shown}) is bool(shown)
        remembered = load_memory(folder.parent / "state" / "deck.json").repositories
        assert remembered == ([shown] if shown else [])


async def test_a_password_is_in_no_command_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[tuple[str, ...], bytes]] = []

    async def run(argv: tuple[str, ...], *, timeout_s: float, stdin: bytes = b"") -> None:
        assert timeout_s > 0
        ran.append((tuple(argv), stdin))

    monkeypatch.setattr("app.deck.run_tool", run)
    app = deck(folder, "ghcr.io")
    async with app.run_test(size=(80, 24)) as pilot:
        await open_registries(pilot, "ghcr.io")
        await pilot.press("l")
        await pilot.pause()
        dialog = app.screen
        assert isinstance(dialog, FillDialog)
        dialog.query_one("#field-user", Input).value = "alice"
        dialog.query_one("#field-password", Input).value = "w0nderland-token"
        await pilot.pause()
        assert "w0nderland" not in str(dialog.command)
        assert "w0nderland" not in app.export_screenshot()
        await pilot.press("ctrl+s")
        await settle(pilot)
    (argv, stdin) = ran[0]
    assert stdin == b"w0nderland-token\n"
    assert argv[-5:] == ("login", "-u", "alice", "--password-stdin", "docker://ghcr.io")


@pytest.mark.registry
async def test_sizes_are_looked_up_where_nobody_counts(folder: Path, registry: Registry) -> None:
    small = images.image([images.layer(images.Entry(name="a", data=b"a"))])
    large = images.image([images.layer(images.Entry(name="b", data=bytes(range(256)) * 4000))])
    for tag, made in (("1", large), ("2", small)):
        registry.push(made, "deck/sizes", tag)
    name = f"{registry.host}/deck/sizes"
    app = deck(folder, name)
    async with app.run_test(size=(200, 30)) as pilot:
        await open_registries(pilot, name)
        row = tags(app).render_line(1).text.split()
        assert row[:2] == [">", "2"]
        assert "amd64" in row
        await pilot.press("enter", "o", "s", "o", "s")
        await settle(pilot)
        assert [tag.name for tag in tags(app).shown] == ["1", "2"]


@pytest.mark.registry
@pytest.mark.parametrize("is_limited", [True, False])
async def test_a_look_costs_no_pull_where_pulls_are_counted(
    folder: Path, registry: Registry, *, is_limited: bool
) -> None:
    made = images.image([images.layer(images.Entry(name="h", data=b"head"))])
    registry.push(made, "deck/head", "1")
    headers = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "61;w=21600"}
    fault = Fault(path="/v2/", kind="headers", headers=headers, times=1000)
    with flaky_proxy(registry.host, *([fault] if is_limited else [])) as proxy:
        name = f"{proxy.host}/deck/head"
        app = deck(folder, name)
        async with app.run_test(size=(100, 24)) as pilot:
            await open_registries(pilot, name)
            await pilot.press("enter")
            await settle(pilot)
            asked = [one.line for one in proxy.seen("GET /v2/deck/head/manifests/")]
            assert bool(asked) is not is_limited
            if not is_limited:
                return
            assert "counts that as a pull" in line(app, "preview-more")
            assert "sha256:" in line(app, "preview")
            await pilot.press("i")
            await settle(pilot)
            assert isinstance(app.screen, ManifestScreen)
            assert len(proxy.seen("GET /v2/deck/head/manifests/")) == 1


async def test_a_registry_that_never_answers_blocks_nothing(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, contextlib.ExitStack() as accepted:
        silent.setblocking(False)

        def has_come() -> bool:
            with contextlib.suppress(BlockingIOError):
                accepted.enter_context(silent.accept()[0])
                return True
            return False

        name = f"127.0.0.1:{silent.getsockname()[1]}/lab/silent"
        app = deck(folder, name)
        # Plain HTTP: asyncio leaves the socket of a handshake that is given up to the collector.
        app.desk = replace(app.desk, access=lambda: Access(plain_http=True))
        async with app.run_test(size=(80, 24)) as pilot:
            await settle(pilot)
            await pilot.press("2")
            await pilot.pause()
            assert places(app).select(name)
            await until(pilot, has_come)
            assert "asking 127.0.0.1" in line(app, "summary")
            await pilot.press("1", "j", "2", "a")
            await pilot.pause()
            assert app.screen.query(Input)
            await pilot.press("escape")
            places(app).select("docker.io")
            await settle(pilot)  # the question was given up


@pytest.mark.registry
async def test_a_login_is_tried_before_it_is_kept(
    folder: Path, locked_registry: Registry, clean_home: Path
) -> None:
    app = deck(folder, locked_registry.host)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_registries(pilot, locked_registry.host)
        await pilot.press("l")
        await pilot.pause()
        dialog = app.screen
        answer = dialog.query_one("#answer", Static)
        for password, sign in ((PASSWORD + "x", "!"), (PASSWORD, "OK")):
            dialog.query_one("#field-user", Input).value = USER
            dialog.query_one("#field-password", Input).value = password
            await pilot.pause()
            await pilot.press("ctrl+t")
            await until(pilot, lambda sign=sign: str(answer.render()).startswith(sign))  # type: ignore[misc]
            assert PASSWORD not in str(answer.render())
        assert app.screen is dialog
        kept = clean_home / ".singularity" / "docker-config.json"
        assert not kept.exists()
        await pilot.press("ctrl+s")
        await settle(pilot)
        assert kept.exists()
        await pilot.press("C")
        await settle(pilot)
        (row,) = tags(app).shown
        assert (row.user, row.state, row.file) == (USER, "ok", str(kept))
        assert "singularity" in line(app, "detail")
        await pilot.press("L")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("tab", "enter")
        await until(pilot, lambda: not tags(app).shown)
        await settle(pilot)
        assert locked_registry.host not in kept.read_text()


@pytest.mark.registry
async def test_a_registry_is_searched(folder: Path, registry: Registry) -> None:
    made = images.image([images.layer(images.Entry(name="s", data=b"s"))])
    registry.push(made, "deck/findme-tools", "1")
    app = deck(folder, registry.host)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_registries(pilot, registry.host)
        await pilot.press("F", *"findme", "enter")
        await settle(pilot)
        await pilot.press("enter")
        await settle(pilot)
        place = places(app).current
        assert place
        assert place.repository == "deck/findme-tools"
        assert [tag.name for tag in tags(app).shown] == ["1"]
        places(app).focus()
        await pilot.press("slash", *"findme", "enter")
        assert [one.repository for one in places(app).shown] == ["deck/findme-tools"]
        await pilot.press("escape")
        assert len(places(app).shown) > 1


@pytest.mark.parametrize(
    ("registry", "repository", "page"),
    [
        ("docker.io", "library/alpine", "https://hub.docker.com/_/alpine"),
        ("docker.io", "lab/x", "https://hub.docker.com/r/lab/x"),
        ("quay.io", "lab/x", "https://quay.io/repository/lab/x"),
        ("ghcr.io", "", "https://ghcr.io"),
    ],
)
def test_a_repository_has_a_page(registry: str, repository: str, page: str) -> None:
    assert page_of(registry, repository) == page


@pytest.mark.parametrize("text", ["", "[]", "{", '{"repositories": 5, "orders": [], "seen": "x"}'])
def test_a_damaged_memory_is_an_empty_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "deck.json"
    path.write_text(text)
    memory = load_memory(path)
    assert (memory.repositories, memory.orders, memory.seen) == ([], {}, 0.0)
