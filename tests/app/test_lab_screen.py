"""The lab in the deck: the step, what is typed, and the notice when it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from textual.widgets import Input, Markdown, Static

from app.screens.lab import LabScreen
from app.screens.panes import Text
from backend.labs.workshop import find_place, opened
from tests.support.decks import make_deck, make_desk, settle
from widgets.status_line import StatusLine
from widgets.view_tabs import ViewTabs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from textual.pilot import Pilot

    from app.deck import Deck
    from backend.labs.workshop import Workshop

LAB = """\
+++
title = "Small"
+++
Welcome to the lab.

## Write a file

Write it, \x1b[31mplease.

```sifdeck
echo one > a.txt
```
```check
file = "a.txt"
```
```hint
First hint.
```
```hint
Second hint.
```

## Another

Text of another.

```step
needs = ["builder"]
```
```check
file = "b.txt"
```
"""


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    (tmp_path / "labs").mkdir()
    (tmp_path / "labs/small.md").write_text(LAB)
    with opened(find_place(tmp_path / "labs", learner="ada"), "small") as found:
        # As `lab start` does it: the deck's folder and variables are the lab's.
        monkeypatch.chdir(found.playground.work)
        for name, value in found.environment.items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture
def app(workshop: Workshop, tmp_path: Path) -> Deck:
    state = tmp_path / "state"
    return make_deck(make_desk(workshop.playground.work, state=state, lab=workshop))


def page(app: Deck) -> str:
    return app.screen.query_one("#page", Markdown).source


def checks(app: Deck) -> str:
    return str(app.screen.query_one("#checks", Static).render())


def output(app: Deck) -> list[str]:
    source = app.screen.query_one("#output", Text).source
    return [source.line(number) for number in range(len(source))]


async def type_line(pilot: Pilot[int], text: str) -> None:
    line = pilot.app.screen.query_one("#line", Input)
    line.focus()
    line.value = text
    await pilot.press("enter")
    await settle(pilot)


async def test_a_step_is_done_and_noticed(app: Deck, workshop: Workshop) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert isinstance(app.screen, LabScreen)
        assert "Welcome to the lab." in page(app)
        assert "Write it, \\x1b[31mplease." in page(app)
        assert "step 1 of 2, 0 done" in app.screen.query_one("#title", StatusLine).text
        app.screen.action_check()
        await settle(pilot)
        assert checks(app) == "..  a.txt is not there"
        await type_line(pilot, "echo one > a.txt; echo told; echo bad >&2; exit 3")
        assert output(app) == [
            "$ echo one > a.txt; echo told; echo bad >&2; exit 3",
            *("told", "bad", "(exit status 3)"),
        ]
        # Nobody asks for the check: the file alone does.
        app.screen._watch()
        await settle(pilot)
        assert "This step is done." in checks(app)
        assert any("Done: Write a file" in one.message for one in app._notifications)
        assert workshop.place.progress("small").is_done("write-a-file")
        assert "1 done" in app.screen.query_one("#title", StatusLine).text


async def test_steps_and_hints(app: Deck) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert app.focused is app.screen.query_one("#line")
        await pilot.press("escape", "h")
        assert ("First hint." in page(app), "Second hint." in page(app)) == (True, False)
        await pilot.press("h", "h")
        assert "Second hint." in page(app)
        await pilot.press("right_square_bracket")
        assert "Text of another." in page(app)
        assert "hint" not in page(app)
        command = app.screen.query_one("#command", StatusLine).text
        assert "sifdeck lab show small another" in command
        await pilot.press("left_square_bracket")
        assert "Welcome" in page(app)
        await pilot.press("t")
        assert app.focused is app.screen.query_one("#line")


async def test_the_other_views_are_one_key_away(app: Deck) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        app.screen.set_focus(None)
        await pilot.press("1")
        assert not isinstance(app.screen, LabScreen)
        assert "6 Lab" in str(app.screen.query_one("#views", ViewTabs).render())
        await pilot.press("6")
        assert isinstance(app.screen, LabScreen)


async def test_a_step_that_cannot_be_done_here(app: Deck) -> None:
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        screen = app.screen
        assert isinstance(screen, LabScreen)
        screen._checking = True  # no other check comes between
        screen._checked(screen.step, {"state": "skipped", "checks": []})
        assert "cannot do this step" in checks(app)
        screen._checked(screen.step, {})
        assert checks(app) == ""


async def test_a_deck_without_a_lab_has_no_lab(tmp_path: Path) -> None:
    app = make_deck(make_desk(tmp_path, state=tmp_path / "state"))
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("6")
        assert not isinstance(app.screen, LabScreen)
        assert "Lab" not in str(app.screen.query_one("#views", ViewTabs).render())


async def test_the_tour_is_three_lines(tmp_path: Path) -> None:
    tour = "1  Log in\n2  Pull [bold]x[/]\n3  Run"
    app = make_deck(make_desk(tmp_path, state=tmp_path / "state", tour=tour))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        shown = app.screen.query_one("#tour", Static)
        assert str(shown.render()) == tour
        assert shown.size.height == 3
