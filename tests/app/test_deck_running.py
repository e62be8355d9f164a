"""Containers in the background and the checks of this host, as the deck shows them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from app.dialogs.confirm import ConfirmDialog
from app.screens.output import OutputScreen
from app.screens.panes import List, Text
from backend.runtime.instances import Record, home, started_ticks, write_record
from tests.support.decks import NOW, make_deck, make_desk, make_images, settle, until
from widgets.status_line import StatusLine

if TYPE_CHECKING:
    from app.deck import Deck


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deck:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    make_images(tmp_path / "images")
    return make_deck(make_desk(tmp_path / "images", state=tmp_path / "state"))


def write_instance(name: str, *, running: bool, status: int = 0, log: str = "") -> None:
    folder = f"{home()}/{name}"
    os.mkdir(folder, 0o700)  # noqa: PTH102  (as the code under test has its paths)
    record = Record(
        name=name,
        image="/images/solver.oci.sif",
        command=("sleep", "100"),
        pid=os.getpid(),
        started_ticks=started_ticks(os.getpid()) if running else 1,
        created=int(NOW - 120),
        runtime="crun",
        document={},
    )
    write_record(folder, record)
    for file, text in (("log", log), ("exit", "" if running else str(status))):
        if text:
            with open(f"{folder}/{file}", "w", encoding="utf-8") as out:  # noqa: PTH123
                out.write(text)


def give_terminal(name: str) -> None:
    Path(f"{home()}/{name}/console").touch()


def line(app: Deck, name: str) -> str:
    return app.screen.query_one(f"#{name}", StatusLine).text


async def test_containers_are_listed_with_what_became_of_them(app: Deck) -> None:
    write_instance("calm-otter", running=True)
    write_instance("swift-heron", running=False, status=3)
    async with app.run_test(size=(100, 24)) as pilot:
        await settle(pilot)
        await pilot.press("4")
        await settle(pilot)
        roster: Any = app.screen.query_one("#list", List)
        states = {one.record.name: roster.columns[1].text(one) for one in roster.shown}
        assert states == {"calm-otter": "running", "swift-heron": "exit 3"}
        assert "1 running, 1 ended" in line(app, "summary")
        assert roster.select("calm-otter")
        await pilot.pause()
        assert "sifdeck logs calm-otter" in line(app, "command")
        await pilot.press("x")
        await pilot.pause()
        assert isinstance(app.screen, ConfirmDialog)


async def test_marked_containers_are_stopped_together(app: Deck) -> None:
    for name in ("calm-otter", "wise-crane"):
        write_instance(name, running=True)
    write_instance("swift-heron", running=False)
    give_terminal("wise-crane")
    async with app.run_test(size=(100, 24)) as pilot:
        await settle(pilot)
        await pilot.press("4")
        await settle(pilot)
        assert "ctrl+c reaches the container" in line(app, "detail")
        roster: Any = app.screen.query_one("#list", List)
        roster.select("wise-crane")
        await pilot.pause()
        assert "ctrl-p,ctrl-q leaves it running" in line(app, "detail")
        await pilot.press("asterisk", "x")
        await pilot.pause()
        assert isinstance(app.screen, ConfirmDialog)
        assert app.screen._question[0] == "Stop 2 containers?"
        assert app.screen._command == "sifdeck stop calm-otter wise-crane"
        await pilot.press("escape")
        await pilot.pause()
        await pilot.press("K")
        await pilot.pause()
        assert isinstance(app.screen, ConfirmDialog)
        assert app.screen._command == "sifdeck stop swift-heron"


async def test_a_container_that_ends_is_noticed(app: Deck, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.screens.running._LOOK_S", 0.02)
    write_instance("calm-otter", running=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("4")
        await until(pilot, lambda: "1 running" in line(app, "summary"))
        shutil.rmtree(f"{home()}/calm-otter")
        write_instance("calm-otter", running=False, status=9)
        await until(pilot, lambda: "0 running, 1 ended" in line(app, "summary"))


async def test_both_command_lines_are_copied(app: Deck, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[str] = []
    monkeypatch.setattr(app, "_copy", copied.append)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"solver", "enter")
        await pilot.pause()
        await pilot.press("y", "Y", "3")
        await settle(pilot)
        await pilot.press("Y")
        assert len(copied) == 2
        assert copied[0].startswith("sifdeck inspect ")
        assert copied[1].startswith("singularity inspect ")
        assert "no such command" in app._notices[-1]


async def test_what_a_container_printed_is_shown(app: Deck) -> None:
    write_instance("calm-otter", running=True, log="hello\n\x1b]0;evil\x07there\n")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("4")
        await settle(pilot)
        await pilot.press("enter")
        await settle(pilot)
        assert isinstance(app.screen, OutputScreen)
        assert app.screen.query_one(Text).line_count == 2
        assert "evil" not in app.export_screenshot()


async def test_the_checks_say_what_is_missing_first(
    app: Deck, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backend.process import Completed

    findings = [
        {"key": "a", "title": "user namespaces", "state": "ok", "found": "yes"},
        {
            "key": "b",
            "title": "subordinate ids",
            "state": "missing",
            "found": "none \x1b[31m",
            "fix": "usermod --add-subuids 100000-165535 alice",
            "who": "administrator",
        },
    ]

    async def run(*_argv: object, **_more: object) -> Completed:
        return Completed(stdout=json.dumps(findings), stderr="")

    monkeypatch.setattr("backend.process.run_tool", run)
    async with app.run_test(size=(100, 24)) as pilot:
        await settle(pilot)
        await pilot.press("5")
        await settle(pilot)
        assert "1 ok, 1 missing" in line(app, "summary")
        source = app.screen.query_one("#report", Text).source
        lines = [source.line(number) for number in range(len(source))]
        assert "MISSING" in lines[0]
        assert "\\x1b[31m" in lines[0]
        assert "administrator: usermod" in lines[1]


async def test_the_real_checks_are_shown(app: Deck) -> None:
    async with app.run_test(size=(100, 24)) as pilot:
        await settle(pilot)
        await pilot.press("5")
        await settle(pilot)
        assert app.screen.query_one("#report", Text).line_count > 5
