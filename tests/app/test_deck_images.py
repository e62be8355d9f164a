"""The images in the deck: who made them, who used them, which to show, what to make of them."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest
from textual.widgets import Input

from app.cli.main import main
from app.dialogs.fill import FillDialog
from app.screens.panes import List, Text
from app.screens.registries import RegistriesScreen
from app.screens.sources import Sources
from backend.config import Config
from backend.journal import note_check, note_run
from tests.support.decks import NOW, make_deck, make_desk, make_images, settle, until, write_job
from tests.support.imagefiles import write_ocisif
from widgets.choice import Choice
from widgets.status_line import StatusLine

if TYPE_CHECKING:
    from pathlib import Path

    from app.deck import Deck
    from widgets.roster import Roster


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "images"
    make_images(path)
    monkeypatch.chdir(path)
    monkeypatch.setenv("SIFDECK_STATE_DIR", str(tmp_path / "state"))
    return path


@pytest.fixture
def app(folder: Path, tmp_path: Path) -> Deck:
    return make_deck(make_desk(folder, state=tmp_path / "state"))


def roster(app: Deck) -> Roster[Any]:
    return app.screen.query_one("#list", List)


def cells(app: Deck, column: str) -> dict[str, str]:
    found = next(one for one in roster(app).columns if one.key == column)
    return {image.file_name: found.text(image) for image in roster(app).shown}


def names(app: Deck) -> set[str]:
    return {image.file_name for image in roster(app).shown}


async def test_trust_and_use_have_columns(app: Deck, folder: Path) -> None:
    note_check(str(folder / "solver_v2.oci.sif"), "verified")
    note_run(str(folder / "tools_latest.oci.sif"))
    async with app.run_test(size=(200, 50)) as pilot:
        await settle(pilot)
        trust, used = cells(app, "trust"), cells(app, "used")
        assert trust["solver_v2.oci.sif"] == "verified"
        assert trust["alpine_3.20.oci.sif"] == "source"
        assert trust["broken.sif"] == "-"
        assert used["solver_v2.oci.sif"] == "never"
        assert used["tools_latest.oci.sif"] == "now"
        assert roster(app).select(str(folder / "solver_v2.oci.sif"))
        await settle(pilot)
        source = app.screen.query_one("#page", Text).source
        facts = [source.line(number) for number in range(len(source))][-3:]
        assert facts == [
            "here since 3d ago",
            "last run   never, as far as we know",
            "trust      signed, and nothing changed since",
        ]
        header = roster(app).render_line(0).text
        assert header.split() == [
            "IMAGE", "TAG", "FORMAT", "ARCH", "SIZE", "AGE^", "TRUST", "USED",
        ]  # fmt: skip


async def test_a_choice_of_images_is_shown_and_left(app: Deck, folder: Path) -> None:
    note_check(str(folder / "tools_latest.oci.sif"), "damaged")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("O", "f")
        await settle(pilot)
        assert names(app) == {"tools_latest.oci.sif"}
        header = roster(app).render_line(0).text
        assert header.split() == ["IMAGE", "TAG", "FORMAT", "SIZE", "AGE^", "TRUST"]
        summary = app.screen.query_one("#summary", StatusLine)
        assert "1 image (failed verify)" in summary.text
        await pilot.press("escape")
        await settle(pilot)
        assert len(names(app)) == 5
        await pilot.press("O", "g")  # > 1G
        await settle(pilot)
        assert names(app) == set()
        assert any("> 1G" in line for line in roster(app).empty)


async def test_a_wide_screen_has_the_choices_beside_the_list(folder: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    write_ocisif(more / "new.oci.sif")
    desk = make_desk(folder, state=tmp_path / "state")
    desk.catalog.folders = (folder, more)
    app = make_deck(desk)
    async with app.run_test(size=(160, 45)) as pilot:
        await settle(pilot)
        sources = app.screen.query_one(Sources)
        found = {one.title: one.count for one in sources.rows}
        assert found == {
            "all images": 6, "./": 5, str(more): 1, "unsigned": 6, "> 1G": 0,
            "unused 90 days": 0, "failed verify": 0, "unreadable": 1,
        }  # fmt: skip
        sources.focus()
        await pilot.press("down", "down")
        await settle(pilot)
        assert names(app) == {"new.oci.sif"}
        assert str(app.screen.command()) == f"sifdeck ls {more}"  # type: ignore[attr-defined]
        await pilot.resize_terminal(120, 45)
        await settle(pilot)
        assert not sources.display


async def test_the_list_is_saved_as_it_is_shown(app: Deck, folder: Path) -> None:
    (folder / "images.csv").write_text("mine")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"lab", "enter", "S", "enter")
        await settle(pilot)
        assert any("cannot write" in one for one in app._notices)
        for name in ("list.csv", "list.json"):
            await pilot.press("S")
            app.screen.query_one(Input).value = name
            await pilot.press("enter")
            await settle(pilot)
    assert (folder / "images.csv").read_text() == "mine"
    table = list(csv.DictReader((folder / "list.csv").read_text().splitlines()))
    for rows in (table, json.loads((folder / "list.json").read_text())):
        assert {row["name"] for row in rows} == {"ghcr.io/lab/cfd-solver", "quay.io/lab/tools"}
        assert {row["trust"] for row in rows} == {"source"}


def started_by(app: Deck, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    started: list[tuple[Any, ...]] = []

    def start(argv: tuple[str, ...], *, title: str, after: tuple[int, ...]) -> Any:
        started.append((title, after, *argv))
        number = 100 + len(started)
        write_job(app.desk.jobs.root, number, title=title, argv=argv)
        return app.desk.jobs.get(number)

    monkeypatch.setattr(app.desk.jobs, "start", start)
    return started


async def test_an_image_is_converted_by_a_job(
    app: Deck, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = started_by(app, monkeypatch)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"solver", "enter", "c")
        await pilot.pause()
        dialog = app.screen
        assert isinstance(dialog, FillDialog)
        assert str(dialog.command) == "sifdeck convert --native solver_v2.oci.sif solver_v2.sif"
        form = dialog.query_one("#field-form", Choice)
        for kind, words in (
            ("docker-archive", "solver_v2.oci.sif docker-archive:solver_v2.docker.tar"),
            ("oci", "solver_v2.oci.sif oci:solver_v2.oci"),
            ("sandbox", "--sandbox solver_v2.oci.sif solver_v2"),
        ):
            form.choose(kind)
            assert str(dialog.command) == f"sifdeck convert {words}"
        (folder / "solver_v2").mkdir()
        form.choose("oci")
        form.choose("sandbox")
        await pilot.pause()
        assert dialog.query_one("#go").disabled  # it exists
        dialog.query_one("#field-force", Choice).choose("yes")
        await pilot.pause()
        await pilot.press("ctrl+s")
        await until(pilot, lambda: bool(started))
    assert started[0][2:] == ("convert", "--force", "--sandbox", "solver_v2.oci.sif", "solver_v2")


async def test_marked_images_are_converted_by_a_job_each(
    app: Deck, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = started_by(app, monkeypatch)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"lab", "enter", "asterisk", "c")
        await pilot.pause()
        await pilot.press("ctrl+s")
        await until(pilot, lambda: len(started) == 2)
        await settle(pilot)
        assert not roster(app).marked
    assert {one[-1] for one in started} == {"solver_v2.sif", "tools_latest.sif"}


async def test_marked_images_are_verified_by_a_job_each(
    app: Deck, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = started_by(app, monkeypatch)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"lab", "enter", "asterisk", "v")
        await until(pilot, lambda: len(started) == 2)
    assert {one[2:] for one in started} == {
        ("verify", "solver_v2.oci.sif"),
        ("verify", "tools_latest.oci.sif"),
    }


async def test_a_job_may_wait_for_another(app: Deck, monkeypatch: pytest.MonkeyPatch) -> None:
    root = app.desk.jobs.root
    write_job(root, 7, status=None, title="docker://x/y")
    started = started_by(app, monkeypatch)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"solver", "enter", "c")
        await pilot.pause()
        dialog = app.screen
        assert isinstance(dialog, FillDialog)
        dialog.query_one("#field-after", Choice).choose("after #7")
        await pilot.pause()
        assert str(dialog.command).startswith("sifdeck convert --job --after 7 --native ")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: bool(started))
    assert started[0][1] == (7,)
    assert "--after" not in started[0]


async def test_the_source_of_an_image_is_gone_to(app: Deck) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"old", "enter", "u")
        await pilot.pause()
        assert any("does not say" in one for one in app._notices)
        await pilot.press("slash", "ctrl+u", *"solver", "enter", "u")
        await until(pilot, lambda: isinstance(app.screen, RegistriesScreen))
        await until(pilot, lambda: "solver" in str(app.screen.subject()))  # type: ignore[attr-defined]
        app.screen.workers.cancel_all()


def test_ls_takes_the_same_choices(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import os

    os.utime(folder / "old-env.sif", (NOW, NOW))
    assert main(["ls", "--only", "unused", "--csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert {row["name"] for row in rows} >= {"old-env.sif"}
    note_run(str(folder / "old-env.sif"))
    assert main(["ls", "--only", "unused", "--sort", "used"]) == 0
    assert "old-env" not in capsys.readouterr().out


def test_cells_of_a_table_are_no_formulas() -> None:
    from app.imagelist import as_csv
    from backend.catalog import Image

    text = as_csv([Image(path="/a", kind="sif", name="=1+1", tag="\x1b[31m")])
    (row,) = csv.DictReader(text.splitlines())
    assert row["name"] == "'=1+1"
    assert "\x1b" not in text


async def test_images_that_come_and_go_are_noticed(app: Deck, folder: Path) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        write_ocisif(folder / "new.oci.sif")
        await until(pilot, lambda: "new.oci.sif" in names(app))
        (folder / "new.oci.sif").rename(folder / "other.sif")
        await until(pilot, lambda: "other.sif" in names(app))
        assert "new.oci.sif" not in names(app)
        (folder / "other.sif").unlink()
        await until(pilot, lambda: "other.sif" not in names(app))
        await settle(pilot)


async def test_columns_are_those_of_the_settings(folder: Path, tmp_path: Path) -> None:
    config = Config(columns={"images": ("used", "name", "sise")})
    app = make_deck(make_desk(folder, state=tmp_path / "state", config=config))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert roster(app).render_line(0).text.split() == ["USED", "IMAGE"]
        assert "images has no column 'sise'; did you mean 'size'?" in " ".join(app._notices)
