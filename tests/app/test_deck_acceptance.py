"""The study's acceptance tests (tui.md §7.9), as far as they need no real terminal.

Each test bears the number of its sentence.  2, 5, 6, 7, most of 9 and 10 are in ``tests/e2e``, in
a file of the same name; 11 and 12 are in ``test_deck_commands.py``; the pictures of 8 are
compared in ``test_deck_pictures.py``.  What has a budget in seconds is measured by
``benchmarks/deck.py``; the tests here hold why it can be met.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from app import clipboard
from app.board import Board
from app.clipboard import osc52
from app.screens.panes import List, Text
from app.themes import THEMES, choose_theme
from app.trouble import Trouble, without_secrets
from backend.catalog import Image
from backend.config import Config, CustomCommand
from backend.errors import BackendError
from backend.events import Blob, Failed, Started
from backend.logfile import LogFile
from tests.support.decks import make_deck, make_desk, make_images, settle, until, write_job
from widgets import ansi
from widgets.line_view import Document, LineView
from widgets.roster import Roster

if TYPE_CHECKING:
    from app.deck import Deck

TOKEN = "ghp_S3cretS3cretS3cretS3cret"


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


# 1: the command line needs none of the deck


def modules_after(code: str) -> set[str]:
    """Return the modules that Python has loaded when it has run some code."""
    printed = subprocess.run(
        (sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    ).stdout
    return set(printed.split())


def test_01_the_command_line_is_small() -> None:
    loaded = modules_after("import app.cli.main")
    assert not loaded & {"textual", "rich", "asyncio", "widgets"}
    assert len(loaded) <= 110


def test_01_verbs_load_nothing_of_the_deck() -> None:
    verbs = "app.cli.deck, app.cli.ls, app.cli.keys, app.cli.jobs, app.commands"
    assert not modules_after(f"import {verbs}") & {"textual", "rich", "asyncio", "widgets"}


# 2: nothing is loaded before the first paint that it does not need


async def test_02_the_first_paint_needs_no_network_no_dialog_and_no_other_view(
    folder: Path,
) -> None:
    code = f"""
import asyncio, os
sys.path.insert(0, os.getcwd())
os.chdir({str(folder)!r})
from app.cli.deck import _make_desk
from app.deck import Deck
app = Deck(_make_desk(readonly=False))
async def paint():
    async with app.run_test(size=(80, 24)) as pilot:
        while len(app.screen.roster.rows) < 5:
            await pilot.pause(0.02)
asyncio.run(paint())
"""
    loaded = await asyncio.to_thread(modules_after, code)
    assert "app.screens.images" in loaded
    views = {name for name in loaded if name.startswith("app.screens.")}
    assert not views & {
        f"app.screens.{name}" for name in ("registries", "running", "doctor", "lab")
    }
    assert not views & {f"app.screens.{name}" for name in ("dock", "jobs", "job", "manifest")}
    assert not loaded & {"httpx", "keyring", "cryptography", "zstandard", "rich.markdown"}
    assert not {name for name in loaded if name.startswith("app.dialogs.")}


# 3: lists of any length


async def test_03_a_hundred_thousand_rows_draw_one_screen(
    app: Deck, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [
        Image(path=f"/images/{number}.sif", kind="sif", name=f"name-{number}", tag="1")
        for number in range(100_000)
    ]
    drawn: list[int] = []
    line = Roster._line

    def counted(self: Roster[Any], place: int, width: int) -> Any:
        drawn.append(place)
        return line(self, place, width)

    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        monkeypatch.setattr(Roster, "_line", counted)
        roster(app).show(images)
        await pilot.pause()
        await pilot.press("G")
        await pilot.pause()
        assert roster(app).cursor == 99_999
        assert len(set(drawn)) < 100
        roster(app).filter("name-99999")
        assert len(roster(app).shown) == 1


# 4: logs of any kind


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("\x1b[31mred\x1b[0m plain", "red plain"),
        ("\x1b[38;5;200mpink\x1b[38;2;1;2;3mrgb\x1b[m", "pinkrgb"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]52;c;cm0gLXJm\x1b\\after", "after"),
        ("\x1bPq#0\x1b\\after", "after"),
        ("\x1b[2J\x1b[1;1Hafter", "after"),
        ("\x1b[?1049h\x1b[?1000hafter", "after"),
        ("a\x1b[999999999999999999999mb", "ab"),
        ("a\x08\x07b", "a\\x08\\x07b"),
        ("\x9b31mred", "red"),
        ("unfinished\x1b[31", "unfinished"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\tb", "a       b"),
    ],
)
def test_04_sequences_are_colours_or_nothing(line: str, text: str) -> None:
    assert ansi.plain(line) == text


def test_04_colours_are_those_asked_for() -> None:
    red, after, blue = ansi.segments("\x1b[1;31mred\x1b[0mafter\x1b[104mblue")
    assert red.style is not None
    assert (str(red.style), red.text) == ("bold color(1)", "red")
    assert not after.style
    assert blue.style is not None
    assert blue.style.bgcolor is not None


async def test_04_a_long_text_is_wrapped_and_scrolled(app: Deck, tmp_path: Path) -> None:
    log = "x" * 90_000 + "\n" + "".join(f"{n:3}%\r" for n in range(101)) + "done\n" + "end\n"
    write_job(tmp_path / "state" / "jobs", 1, log=log)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("3", "enter")
        await settle(pilot)
        view = app.screen.query_one("#log", Text)
        assert view.line_count == 3
        assert "done" in ansi.plain(view.source.line(1))
        await pilot.press("g", "w")
        assert view.wrapping
        await pilot.press("G")
        shown = [view.render_line(y).text.rstrip() for y in range(view.size.height)]
        assert "end" in shown
        await pilot.press("w", "g", "right")
        assert view.render_line(0).text.strip("\u2026") == "x" * (view._width - 2)


async def test_04_a_flood_of_lines_is_drawn_a_screen_at_a_time(
    app: Deck, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = write_job(tmp_path / "state" / "jobs", 1, log="begun\n", status=None)
    read: list[int] = []
    line = LogFile.line

    def counted(self: LogFile, number: int) -> str:
        read.append(number)
        return line(self, number)

    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("3", "enter")
        await settle(pilot)
        view = app.screen.query_one("#log", Text)
        monkeypatch.setattr(LogFile, "line", counted)
        with (job / "log").open("a") as log:
            log.writelines(f"line {number}\n" for number in range(60_000))
        await pilot.press("ctrl+r")
        await until(pilot, lambda: view.line_count == 60_001)
        await pilot.pause()
        assert "line 59999" in view.render_line(view.size.height - 1).text  # it follows
        assert len(set(read)) < 100


def test_04_of_a_log_only_the_places_of_lines_are_held(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(("\r".join(f"{n:3}%" for n in range(18_000)) + "\n") * 60 + "x\n" * 60_000)
    tracemalloc.start()
    try:
        with LogFile(path) as log:
            held, most = tracemalloc.get_traced_memory()
            assert len(log) == 60_060
            assert log.line(0) == "17999%"
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 5_000_000
    assert held < 1_000_000
    assert most < 4_000_000


async def test_04_however_much_happens_the_screen_is_drawn_in_beats(
    app: Deck, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        monkeypatch.setattr(Board, "refresh", lambda _: looks.append("look"))
        for _ in range(1000):
            app._jobs_changed()
        await until(pilot, lambda: bool(looks))
        assert len(looks) == 1


async def test_04_progress_is_drawn_five_times_a_second(app: Deck, tmp_path: Path) -> None:
    write_job(tmp_path / "state" / "jobs", 1, status=None)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert app.board.active
        app._look()  # there is nothing to wait for but the next beat
        app._jobs_changed()
        assert app._next_look
        assert app._next_look._interval == 1 / 5


# 7: jobs go on without us


async def test_07_what_ended_meanwhile_is_said_at_the_next_start(
    folder: Path, tmp_path: Path
) -> None:
    desk = make_desk(folder, state=tmp_path / "state")
    desk.memory.seen = 1_000.0
    write_job(tmp_path / "state" / "jobs", 1, status=0)
    write_job(tmp_path / "state" / "jobs", 2, status=1, events=(Failed(message="no"),))
    app = make_deck(desk)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await until(pilot, lambda: bool(app._notices))
        assert "2 jobs ended while you were away, 1 of them failed" in app._notices[0]
    assert desk.memory.seen == desk.now()


async def test_07_a_job_of_another_deck_shows_its_progress(app: Deck, tmp_path: Path) -> None:
    blob = Blob(
        digest="sha256:" + "0" * 64, role="layer", index=0, state="downloading", done=5, size=10
    )
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        write_job(
            tmp_path / "state" / "jobs",
            9,
            status=None,
            events=(Started(verb="pull", title="docker://x/y"), blob),
        )
        await pilot.press("ctrl+r")
        await settle(pilot)
        assert [row.progress.fraction for row in app.board.active if row.progress] == [0.5]


# 8: every size, every kind of terminal


@pytest.mark.parametrize(
    ("environment", "theme"),
    [
        ({"TERM": "xterm-256color"}, "sifdeck-dark"),
        ({"TERM": "tmux-256color"}, "sifdeck-dark"),
        ({"TERM": "xterm", "COLORTERM": "truecolor"}, "sifdeck-dark"),
        ({"TERM": "linux"}, "ansi-dark"),
        ({"TERM": "screen"}, "ansi-dark"),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, "ansi-dark"),
        ({"TERM": "xterm-256color", "NO_COLOR": ""}, "sifdeck-dark"),
    ],
)
def test_08_the_theme_fits_the_terminal(environment: dict[str, str], theme: str) -> None:
    assert choose_theme(environment) == theme


def luminance(colour: str) -> float:
    """Return the relative luminance of ``#rrggbb`` (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_08_colours_of_words_stand_out(theme: Any) -> None:
    for words in ("foreground", "primary", "accent", "success", "warning", "error"):
        for ground in ("background", "surface", "panel"):
            pair = sorted(luminance(getattr(theme, name)) for name in (words, ground))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (words, ground)


@pytest.mark.parametrize(
    ("size", "theme"),
    [
        ((60, 15), "ansi-dark"),
        ((80, 24), "sifdeck-light"),
        ((100, 30), "ansi-dark"),
        ((200, 50), "sifdeck-dark"),
    ],
)
async def test_08_every_view_opens_at_every_size(
    folder: Path, tmp_path: Path, size: tuple[int, int], theme: str
) -> None:
    write_job(
        tmp_path / "state" / "jobs", 1, status=None, events=(Started(verb="pull", title="x"),)
    )
    app = make_deck(make_desk(folder, state=tmp_path / "state"), theme=theme)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        for key in ("3", "2", "4", "1"):
            await pilot.press(key)
            await pilot.pause()
            assert "needs 60x15" not in app.export_screenshot(simplify=True)


async def test_08_a_large_screen_shows_jobs_and_a_log_below(app: Deck, tmp_path: Path) -> None:
    write_job(tmp_path / "state" / "jobs", 1, log="one\ntwo\n")
    async with app.run_test(size=(160, 40)) as pilot:
        await settle(pilot)
        assert app.screen.query_one("#dock-log", Text).line_count == 2
        await pilot.resize_terminal(120, 40)
        await settle(pilot)
        assert not app.screen.query("#dock")


async def test_08_frames_can_be_plain_ascii(folder: Path, tmp_path: Path) -> None:
    config = Config(glyphs="ascii")
    app = make_deck(make_desk(folder, state=tmp_path / "state", config=config))
    async with app.run_test(size=(200, 50)) as pilot:
        await settle(pilot)
        await pilot.press("p")
        await pilot.pause()
        assert app.export_screenshot(simplify=True).isascii()


async def test_08_too_small_a_screen_says_so(app: Deck) -> None:
    async with app.run_test(size=(50, 12)) as pilot:
        await settle(pilot)
        assert "60" in app.export_screenshot(simplify=True)
        assert app.screen.query_one("#too-small").display
        assert not app.screen.query_one("#header").display


# 9: copying


def test_09_osc_52_is_wrapped_for_screen_and_refused_where_it_would_be_rubbish() -> None:
    plain = osc52("text", {"TERM": "xterm-256color"})
    assert plain == "\x1b]52;c;dGV4dA==\x07"
    assert osc52("text", {"TERM": "screen"}) == f"\x1bP{plain}\x1b\\"
    assert osc52("text", {"TERM": "screen", "TMUX": "x"}) == plain
    for term in ("dumb", "linux", ""):
        assert osc52("text", {"TERM": term}) == ""
    assert osc52("x" * 80_000, {"TERM": "xterm"}) == ""


async def test_09_a_copy_is_always_in_a_file_of_ours(
    app: Deck, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("TMUX", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        with pytest.raises(BackendError, match="no clipboard can be reached") as caught:
            await clipboard.copy("sifdeck ls", app)
    file = tmp_path / "state" / "clip.txt"
    assert caught.value.kept == f"the text is in {file}"
    assert file.read_text() == "sifdeck ls"
    assert file.stat().st_mode & 0o077 == 0


# 10: no secret anywhere


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {TOKEN}",
        f"authorization: Basic {TOKEN}",
        f"https://alice:{TOKEN}@registry.example/v2/",
        f"password={TOKEN}",
        f"SINGULARITY_DOCKER_PASSWORD={TOKEN}",
        f"--password {TOKEN}",
        f"GITHUB_TOKEN: {TOKEN}",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    ],
)
def test_10_reports_hold_no_secret(text: str) -> None:
    trouble = Trouble(title="pull failed", what=text, why=text, detail=text, log=[text])
    report = trouble.report()
    assert TOKEN not in report
    assert "c2lnbmF0dXJl" not in report
    assert "***" in without_secrets(text)


# Beyond the list: settings in the deck


async def test_keys_are_bound_anew_and_clashes_are_said(folder: Path, tmp_path: Path) -> None:
    config = Config(keys={"images.sort": "ctrl+t", "images.filter": "p"})
    app = make_deck(make_desk(folder, state=tmp_path / "state", config=config))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("ctrl+t")
        await pilot.pause()
        assert len(app.screen_stack) == 2
        assert any("images.filter" in notice for notice in app._notices)


async def test_a_custom_command_is_run_as_an_argument_list(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, ...]] = []

    async def run(_app: object, argv: tuple[str, ...], _shown: str) -> int:
        ran.append(tuple(argv))
        return 0

    monkeypatch.setattr("app.deck.run_foreground", run)
    nasty = folder / "a b; rm -rf x.sif"
    os.link(folder / "old-env.sif", nasty)
    command = CustomCommand(name="Scan", argv=("scan", "--of={image}"), view="images")
    config = Config(commands=(command,))
    app = make_deck(make_desk(folder, state=tmp_path / "state", config=config))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert roster(app).select(str(nasty))
        app.screen.do_custom(command)  # type: ignore[attr-defined]
        await settle(pilot)
    assert ran == [("scan", f"--of={nasty.name}")]


async def test_how_a_list_was_sorted_is_remembered(folder: Path, tmp_path: Path) -> None:
    desk = make_desk(folder, state=tmp_path / "state")
    for expected in ("size", "-size"):
        app = make_deck(desk)
        async with app.run_test(size=(80, 24)) as pilot:
            await settle(pilot)
            await pilot.press("o", "s")
            await pilot.pause()
        assert desk.memory.orders["images"] == expected


# Beyond the list: small parts


def test_a_document_finds_lines() -> None:
    import re

    document = Document(["one", "two", "One"])
    assert list(document.find(re.compile(b"one", re.IGNORECASE))) == [0, 2]
    assert LineView().line_count == 0
