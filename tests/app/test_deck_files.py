"""The files of an image in the deck: a lazy tree, and what is wasted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from textual.widgets import Input

from app.screens.files import Files
from app.screens.image import ImageScreen
from app.screens.inspector import Inspector
from app.screens.panes import Text
from tests.support.decks import make_deck, make_desk, settle, until
from tests.support.images import Entry, directory
from tests.support.squashed import whiteout, write_sif
from widgets.status_line import StatusLine

if TYPE_CHECKING:
    from pathlib import Path

    from textual.pilot import Pilot

    from app.deck import Deck

BASE = [
    directory("bin"),
    Entry(name="bin/sh", data=b"s" * 3000, mode=0o755),
    directory("opt"),
    directory("opt/deep"),
    Entry(name="opt/deep/kept", data=b"k" * 500),
    Entry(name="opt/a", data=b"a"),
    Entry(name="opt/old", data=b"o" * 70_000),
    Entry(name="top\x1b[31m\nfile", data=b"t"),
]
UPPER = [directory("opt"), whiteout("opt/old"), Entry(name="opt/new", data=b"n" * 100, uid=7)]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deck:
    folder = tmp_path / "images"
    folder.mkdir()
    write_sif(folder / "layered.sif", BASE, UPPER)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SIFDECK_STATE_DIR", str(tmp_path / "state"))
    return make_deck(make_desk(folder, state=tmp_path / "state"))


async def open_page(app: Deck, pilot: Pilot[int], title: str) -> Inspector:
    await settle(pilot)
    await pilot.press("enter")
    await settle(pilot)
    assert isinstance(app.screen, ImageScreen)
    inspector = app.screen.query_one(Inspector)
    while inspector.page != title:
        await pilot.press("left_square_bracket")
    await settle(pilot)
    return inspector


def names(files: Files) -> list[str]:
    return [row.text for row in files.shown]


async def test_folders_open_one_by_one(app: Deck) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await open_page(app, pilot, "Files")
        files = app.screen.query_one(Files)
        assert files.has_focus
        assert not app.screen.query_one(Text).display
        closed = ["+ bin/", "+ opt/", "  top\x1b[31m\nfile"]
        assert names(files) == closed
        await pilot.press("down", "enter")
        await settle(pilot)
        assert names(files) == [
            "+ bin/", "- opt/", "    a", "  + deep/", "    new", "  top\x1b[31m\nfile",
        ]  # fmt: skip
        await pilot.press("down", "down", "enter")
        await settle(pilot)
        assert names(files)[3:5] == ["  - deep/", "      kept"]
        shown = app.screen.query_one("#command", StatusLine).text
        assert shown == "$ sifdeck ls -l layered.sif /opt/deep"
        await pilot.press("up", "up", "enter")
        await settle(pilot)
        assert names(files) == closed
        await pilot.press("enter")
        await settle(pilot)
        assert "  + deep/" in names(files)


async def test_sizes_owners_and_layers(app: Deck) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("i")
        await open_page(app, pilot, "Files")
        files = app.screen.query_one(Files)
        await pilot.press("down", "enter")
        await settle(pilot)
        found = {row.path: (row.mode, row.owner, row.size, row.layer) for row in files.shown}
        assert found[b"bin"] == ("drwxr-xr-x", "0:0", 3000, 1)
        assert found[b"opt"] == ("drwxr-xr-x", "0:0", 601, 2)
        assert found[b"opt/deep"] == ("drwxr-xr-x", "0:0", 500, 1)
        assert found[b"opt/new"] == ("-rw-r--r--", "7:0", 100, 2)
        drawn = [files.render_line(y).text for y in range(7)]
        assert drawn[0].split() == ["MODE", "OWNER", "SIZE", "LAYER", "NAME"]
        assert drawn[5].split() == ["-rw-r--r--", "7:0", "100B", "2", "new"]
        assert all("\x1b" not in line and "\n" not in line for line in drawn)


async def test_the_largest_of_each_folder_first(app: Deck) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await open_page(app, pilot, "Files")
        files = app.screen.query_one(Files)
        await pilot.press("down", "enter")
        await settle(pilot)
        heading = files.render_line(0).text.index("SIZE")
        await pilot.click(files, offset=(heading, 0))
        largest = [row.path for row in files.shown]
        assert largest == [b"bin", b"opt", b"opt/deep", b"opt/new", b"opt/a", b"top\x1b[31m\nfile"]
        await pilot.click(files, offset=(heading, 0))
        assert [row.path for row in files.shown] == [
            b"bin", b"opt", b"opt/a", b"opt/deep", b"opt/new", b"top\x1b[31m\nfile",
        ]  # fmt: skip


async def test_what_is_wasted(app: Deck) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await open_page(app, pilot, "Waste")
        text = app.screen.query_one(Text)
        assert text.display
        lines = [text.source.line(number).split() for number in range(text.line_count)]
        assert lines == [
            ["68K", "of", "72K", "wasted", "(95", "%)"],
            [],
            ["LAYER", "FILES", "SIZE", "WASTED", "REMOVED"],
            ["1", "5", "72K", "68K", "0"],
            ["2", "1", "100B", "0B", "1"],
            [],
            ["WASTED", "LAYER", "FILE"],
            ["68K", "1", "opt/old"],
        ]


async def test_a_file_is_copied_out_of_the_image(app: Deck, tmp_path: Path) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        inspector = await open_page(app, pilot, "Overview")
        await pilot.press("e")
        await pilot.pause()
        assert "go to a file first" in app._notices[-1]
        while inspector.page != "Files":
            await pilot.press("left_square_bracket")
        await settle(pilot)
        files = app.screen.query_one(Files)
        assert files.select(b"bin")
        await pilot.press("enter")
        await settle(pilot)
        assert files.select(b"bin/sh")
        await pilot.press("e")
        await pilot.pause()
        assert app.screen.query_one(Input).value == "sh"
        await pilot.press("enter")
        copy = tmp_path / "images" / "sh"
        await until(pilot, copy.exists)
        await settle(pilot)
        assert read(copy) == b"s" * 3000
        assert app._notices[-1] == "copied /bin/sh to sh"


def read(path: Path) -> bytes:
    return path.read_bytes()
