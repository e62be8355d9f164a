"""The table of actions is complete: each has keys or a palette entry, help, a command, a method.

Tests with a number are of the study's list of acceptance tests (tui.md §7.9).
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import click
import pytest

from app.cli.main import VERBS, cli
from app.commands import (
    ACTIONS,
    BY_ID,
    PLACES,
    VIEWS,
    Action,
    CommandLine,
    actions_of,
    footer_of,
    key_name,
)
from app.deck import SCREENS, Deck, screen_class
from app.dialogs.text import TextDialog
from app.screens.found import FoundScreen
from app.screens.image import ImageScreen
from app.screens.job import JobScreen
from app.screens.logins import LoginsScreen
from app.screens.manifest import ManifestScreen
from app.screens.panes import List, Text
from tests.support.decks import make_deck, make_desk, make_images, settle
from widgets.key_line import Key, KeyLine

if TYPE_CHECKING:
    from pathlib import Path

NODES: dict[str, type[Any]] = {
    "deck": Deck,
    "list": List,
    "log": Text,
    "image": ImageScreen,
    "found": FoundScreen,
    "logins": LoginsScreen,
    "manifest": ManifestScreen,
    "job": JobScreen,
    **{view: screen_class(view) for view in SCREENS},
}
NEVER_ALONE = {
    "ctrl+m",
    "ctrl+j",
    "ctrl+i",
    "ctrl+h",
    "ctrl+space",
    "ctrl+b",
    "ctrl+a",
    "f1",
    "f10",
}
"""Keys that some terminal or multiplexer keeps for itself, or sends as another key."""

every = pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.id)


def test_ids_are_unique() -> None:
    assert len(BY_ID) == len(ACTIONS)


@every
def test_11_an_action_has_words_and_a_command(action: Action) -> None:
    assert action.label
    assert action.help.endswith(".")
    command = action.command({})
    assert command.argv
    assert str(command).startswith("sifdeck ")


@every
def test_11_an_action_has_a_method(action: Action) -> None:
    method = getattr(NODES[action.view], f"action_{action.name}")
    assert inspect.getdoc(method)


@every
def test_an_action_has_a_key_that_every_terminal_sends(action: Action) -> None:
    assert not action.keys or set(action.keys) - NEVER_ALONE
    assert not any(key.startswith(("alt+", "ctrl+shift+")) for key in action.keys)


@every
def test_11_an_action_can_be_bound_anew(action: Action) -> None:
    bindings = NODES[action.view].BINDINGS
    bound = [one.id for one in bindings if getattr(one, "id", None) == action.id]
    assert len(bound) == (1 if action.keys else 0)


@pytest.mark.parametrize("view", [*VIEWS, "image", "job"])
def test_no_key_means_two_things_on_a_screen(view: str) -> None:
    for focused in ("list", "log"):
        keys = [key for action in actions_of("deck", view, focused) for key in action.keys]
        twice = {key for key in keys if keys.count(key) > 1}
        assert not twice - {"slash", "ctrl+f", "enter", "S", "w"}


def test_a_missing_subject_reads_as_in_a_manual() -> None:
    assert str(BY_ID["images.run"].command({})) == "sifdeck run IMAGE"


def test_words_are_quoted_as_a_shell_wants_them() -> None:
    command = BY_ID["images.run"].command({"image": "my image; rm -rf.sif"})
    assert str(command) == "sifdeck run 'my image; rm -rf.sif'"
    assert command.elsewhere == "singularity run --oci 'my image; rm -rf.sif'"


def test_what_singularity_cannot_do_has_no_words_for_it() -> None:
    assert CommandLine(argv=("jobs",)).elsewhere == ""


async def test_12_the_footer_fits_into_eighty_columns_on_every_screen(tmp_path: Path) -> None:
    make_images(tmp_path / "images")
    app = make_deck(make_desk(tmp_path / "images", state=tmp_path))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        for number in range(1, len(VIEWS) + 1):
            await pilot.press(str(number))
            await settle(pilot)
            assert is_fitting(app.screen.query_one(KeyLine))
        line = app.screen.query_one(KeyLine)
        for view, *focused in ({**PLACES, "lab": ("lab", "log")}).values():
            for one in ((), *((name,) for name in focused)):
                actions = footer_of(*one, view, "deck")
                line.show(
                    [Key(key=key_name(a.keys[0]), label=a.label, action=a.id) for a in actions]
                )
                assert is_fitting(line), (view, one)


def is_fitting(line: KeyLine) -> bool:
    """Tell whether the first keys and the last are there, and nothing sticks out."""
    return len(line.text) <= 79 and line.text.endswith("  ? Help") and line.text.count("  ") >= 2


async def test_11_the_palette_and_the_help_show_every_action(tmp_path: Path) -> None:
    make_images(tmp_path / "images")
    app = make_deck(make_desk(tmp_path / "images", state=tmp_path))
    async with app.run_test(size=(110, 40)) as pilot:
        await settle(pilot)
        from app.palette import Palette

        hits = [hit async for hit in Palette(app.screen).discover()]
        wanted = actions_of("images", "list", "deck")
        assert len(hits) == len(wanted)
        await pilot.press("question_mark")
        assert isinstance(app.screen, TextDialog)
        source = app.screen.query_one(Text).source
        text = "\n".join(source.line(number) for number in range(len(source)))
        for action in wanted:
            assert action.help in text
            assert not action.argv or str(action.command({})) in text


def test_every_view_has_a_screen() -> None:
    assert [screen_class(view).TAB for view in VIEWS] == list(VIEWS)


@every
def test_11_a_command_is_one_that_the_command_line_knows(action: Action) -> None:
    argv = action.command({}).argv
    if argv[0].startswith("-"):
        return
    assert argv[0] in VERBS
    command = cli.get_command(click.Context(cli), argv[0])
    assert command is not None
    if isinstance(command, click.Group) and len(argv) > 1:
        assert command.get_command(click.Context(command), argv[1]) is not None
