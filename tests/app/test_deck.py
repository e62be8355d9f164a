"""The deck's logic: lists, dialogs, jobs, and the command lines that they compose."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from textual.widgets import Input, Static

from app.dialogs.confirm import ConfirmDialog
from app.dialogs.fill import FillDialog
from app.dialogs.report import ReportDialog
from app.screens.image import ImageScreen
from app.screens.images import ImagesScreen
from app.screens.inspector import Inspector
from app.screens.job import JobScreen
from app.screens.jobs import JobsScreen
from app.screens.panes import List, Text
from backend.config import Config
from backend.events import Blob, Event, Failed, Output, Phase, Resolved, Retained, Started, Step
from backend.jobs import Jobs
from tests.support.decks import (
    HOSTILE,
    make_deck,
    make_desk,
    make_images,
    settle,
    until,
    write_job,
)
from tests.support.imagefiles import write_ocisif
from widgets.status_line import StatusLine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from app.deck import Deck
    from widgets.roster import Roster

LAYER = "sha256:" + "ab" * 32


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "images"
    make_images(path)
    monkeypatch.chdir(path)
    monkeypatch.setenv("SIFDECK_STATE_DIR", str(tmp_path / "state"))
    return path


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    path = tmp_path / "state" / "jobs"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def app(folder: Path, tmp_path: Path) -> Deck:
    return make_deck(make_desk(folder, state=tmp_path / "state"))


def roster(app: Deck) -> Roster[Any]:
    return app.screen.query_one("#list", List)


def line(app: Deck, name: str) -> str:
    return app.screen.query_one(f"#{name}", StatusLine).text


def names(app: Deck) -> list[str]:
    return [image.file_name for image in roster(app).shown]


def page(app: Deck, selector: str = "#page") -> str:
    source = app.screen.query_one(selector, Text).source
    return "\n".join(source.line(number) for number in range(len(source)))


def pulling(done: int = 40) -> Sequence[Event]:
    return (
        Started(verb="pull", title="docker://ghcr.io/lab/solver:v2", target="solver_v2.oci.sif"),
        Resolved(reference="r", digest=LAYER, platform="linux/amd64", total=100),
        Blob(digest=LAYER, role="layer", index=0, state="downloading", done=done, size=100),
        Phase(name="convert", done=1, total=4),
    )


# Images


async def test_images_are_listed_newest_first(app: Deck) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert isinstance(app.screen, ImagesScreen)
        assert len(names(app)) == 5
        assert "5 images" in line(app, "summary")
        assert "broken.sif" in names(app)


async def test_the_filter_narrows_and_escape_widens(app: Deck) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"lab !tools", "enter")
        assert names(app) == ["solver_v2.oci.sif"]
        assert "1 of 5 images" in line(app, "summary")
        await pilot.press("escape")
        assert len(names(app)) == 5


async def test_an_empty_result_says_what_to_do(app: Deck) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"nothing", "enter")
        assert names(app) == []
        assert any("esc" in text for text in roster(app).empty)


async def test_sorting_twice_by_a_column_turns_it_round(app: Deck) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("o", "s")
        sizes = [image.size for image in roster(app).shown]
        assert sizes == sorted(sizes)
        await pilot.press("o", "s")
        assert [image.size for image in roster(app).shown] == sizes[::-1]


async def test_the_command_line_follows_the_cursor(app: Deck) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"solver", "enter")
        await pilot.pause()
        assert line(app, "command") == (
            "$ sifdeck inspect solver_v2.oci.sif singularity inspect solver_v2.oci.sif"
        ).replace(" singularity", " " + "singularity")


async def test_a_wide_screen_shows_the_image_beside_the_list(app: Deck) -> None:
    async with app.run_test(size=(140, 40)) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"solver", "enter")
        await settle(pilot)
        assert app.screen.query_one(Inspector).display
        assert "ghcr.io/lab/cfd-solver:v2" in page(app)


async def test_on_a_narrow_screen_enter_opens_the_image(app: Deck) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert not app.screen.query_one(Inspector).display
        await pilot.press("slash", *"solver", "enter", "enter")
        await settle(pilot)
        assert isinstance(app.screen, ImageScreen)
        assert "OCI-SIF" in page(app)
        inspector = app.screen.query_one(Inspector)
        seen = {inspector.page: page(app)}
        for _ in range(10):
            await pilot.press("right_square_bracket")
            seen[inspector.page] = page(app)
        assert set(seen) == {
            "Overview",
            "Descriptors",
            "Header",
            "Config",
            "Labels",
            "Env",
            "Layers",
            "History",
            "Waste",
            "Signatures",
            "Files",
        }
        assert "OCI.RootIndex" in seen["Descriptors"]
        assert "Data Offset:" in seen["Header"]
        await pilot.press("escape")
        assert isinstance(app.screen, ImagesScreen)


async def test_a_broken_image_says_what_is_wrong(app: Deck) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"broken", "enter", "enter")
        await settle(pilot)
        assert "SIF" in page(app)


async def test_a_new_file_is_found_on_refresh(app: Deck, folder: Path) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        write_ocisif(folder / "new.oci.sif")
        await pilot.press("ctrl+r")
        await settle(pilot)
        assert "new.oci.sif" in names(app)


async def test_deleting_asks_and_the_safe_answer_has_the_focus(app: Deck, folder: Path) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"lab", "enter", "asterisk", "d")
        await pilot.pause()
        dialog = app.screen
        assert isinstance(dialog, ConfirmDialog)
        assert dialog.focused
        assert dialog.focused.id == "cancel"
        shown = "\n".join(str(static.content) for static in dialog.query(Static))
        assert "Delete 2 image files" in shown
        assert "sifdeck rm" in shown
        await pilot.press("enter")
        await settle(pilot)
        assert (folder / "solver_v2.oci.sif").exists()


async def test_deleted_images_vanish_from_list_and_folder(app: Deck, folder: Path) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"solver", "enter", "d", "tab", "enter")
        await settle(pilot)
        assert not (folder / "solver_v2.oci.sif").exists()
        assert names(app) == []


async def test_readonly_changes_nothing(folder: Path, tmp_path: Path) -> None:
    app = make_deck(make_desk(folder, state=tmp_path / "state", config=Config(readonly=True)))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("d", "p")
        await pilot.pause()
        assert isinstance(app.screen, ImagesScreen)


# Pull


async def test_the_pull_dialog_shows_the_command_as_it_is_typed(app: Deck) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("p")
        dialog = app.screen
        assert isinstance(dialog, FillDialog)
        reference = dialog.query_one("#field-reference", Input)
        reference.value = "ghcr.io/lab/x:1"
        dialog.query_one("#field-target", Input).value = "my image.sif"
        await pilot.pause()
        assert str(dialog.command) == "sifdeck pull 'my image.sif' docker://ghcr.io/lab/x:1"
        assert dialog.command.elsewhere.startswith("singularity pull --oci")
        reference.value = "Not/A/Name"
        await pilot.pause()
        assert dialog.query_one("#answer").has_class("-wrong")
        await pilot.press("ctrl+s")
        assert len(app.screen_stack) == 2
        await pilot.press("escape")
        assert len(app.screen_stack) == 1


async def test_a_pull_becomes_a_job_with_that_command(
    app: Deck, monkeypatch: pytest.MonkeyPatch, jobs: Path
) -> None:
    started: list[tuple[str, ...]] = []

    def start(argv: tuple[str, ...], *, title: str, after: tuple[int, ...]) -> Any:
        assert not after
        started.append(tuple(argv))
        write_job(jobs, 1, title=title, argv=argv, status=None, events=pulling())
        return app.desk.jobs.get(1)

    monkeypatch.setattr(app.desk.jobs, "start", start)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("p")
        app.screen.query_one("#field-reference", Input).value = "alpine:3.20"
        await pilot.pause()
        await pilot.press("ctrl+s")
        await settle(pilot)
        assert started == [("pull", "docker://alpine:3.20")]
        assert "1 running" in line(app, "header")
        assert "40%" in line(app, "job")


# Jobs


async def test_a_job_shows_its_layers(app: Deck, jobs: Path) -> None:
    write_job(jobs, 1, status=None, events=pulling())
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("3")
        await settle(pilot)
        assert isinstance(app.screen, JobsScreen)
        parts = app.screen.query_one("#parts", List).shown
        assert [(part.state, part.fraction) for part in parts] == [
            ("downloading", 0.4),
            ("running", 0.25),
        ]
        with (jobs / "1" / "events.jsonl").open("a") as out:
            from backend.events import encode

            out.write(encode(pulling(90)[2]) + "\n")
        await pilot.press("ctrl+r")
        await settle(pilot)
        assert app.screen.query_one("#parts", List).shown[0].fraction == 0.9


async def test_a_failed_job_says_why_in_parts(app: Deck, jobs: Path) -> None:
    failure = Failed(
        message="the registry refused the credentials",
        why="token expired",
        kept="3 of 38 layers",
        hint="log in again",
        exit_code=10,
    )
    write_job(
        jobs,
        3,
        status=10,
        events=(*pulling(), failure),
        log="Authorization: Bearer s3cr3t-token\nlast line\n",
    )
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert "1 failed" in line(app, "header")
        await pilot.press("3", "e")
        await settle(pilot)
        dialog = app.screen
        assert isinstance(dialog, ReportDialog)
        text = "\n".join(str(static.content) for static in dialog.query(Static))
        for part in ("refused the credentials", "token expired", "3 of 38", "log in again"):
            assert part in text
        report = dialog.trouble.report()
        assert "last line" in report
        assert "s3cr3t" not in report


async def test_a_job_whose_process_is_gone_is_lost(app: Deck, jobs: Path) -> None:
    write_job(jobs, 1, status=None, alive=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("3")
        await settle(pilot)
        assert [row.state for row in roster(app).shown] == ["lost"]


def read(path: Path) -> str:
    return path.read_text()


STAMP = "2024-10-27T03:33:03.000Z"


async def test_times_in_a_log_are_hidden_until_asked_for(app: Deck, jobs: Path) -> None:
    folder = write_job(jobs, 1, log=f"{STAMP} one\n{STAMP} at 03:33\n", status=None)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("3", "enter")
        await settle(pilot)
        view = app.screen.query_one("#log", Text)
        assert view.render_line(0).text.rstrip() == "one"
        await pilot.press("slash", *"03:33", "enter")
        assert view.matches == [1]
        await pilot.press("t")
        assert view.render_line(0).text.rstrip() == f"{STAMP} one"
        assert view.matches == [0, 1]
        assert "TIMES" in line(app, "title")
        with (folder / "log").open("a") as log:
            log.write(f"{STAMP} more\n")
        await pilot.press("ctrl+r")
        await settle(pilot)
        assert view.matches == [0, 1, 2]  # what is added is searched, too
        assert "of 3" in line(app, "title")


async def test_the_log_is_followed_searched_and_saved(app: Deck, jobs: Path, folder: Path) -> None:
    text = "".join(f"line {number}\n" for number in range(200)) + "\x1b[31mERROR\x1b[0m boom\n"
    text = "long " * 2000 + "\n" + text
    write_job(jobs, 1, log=text)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("3", "enter")
        await settle(pilot)
        assert isinstance(app.screen, JobScreen)
        view = app.screen.query_one("#log", Text)
        assert view.scroll_offset.y > 150
        await pilot.press("slash", *"line 19", "enter")
        assert len(view.matches) == 11
        assert "of 11" in line(app, "title")
        await pilot.press("n", "N", "E")
        await pilot.press("S", "enter")
        await settle(pilot)
        assert read(folder / "sifdeck-job-1.log") == re.sub("\x1b[^m]*m", "", text)
        await pilot.press("S", "enter")
        await settle(pilot)
        assert read(folder / "sifdeck-job-1-2.log").endswith("line 199\nERROR boom\n")
        await pilot.press("escape", "escape")
        assert isinstance(app.screen, JobsScreen)


async def test_a_failed_build_is_looked_into_and_built_again(app: Deck, jobs: Path) -> None:
    failed = Step(number=2, total=2, name="RUN make", state="failed", error="exit 2", line=7)
    told = Failed(message="step 2 failed (line 7 of the Dockerfile): RUN make", why="exit 2")
    first = Step(number=1, total=2, name="FROM a", state="done", seconds=1.0, line=1)
    for number, builder in ((1, "podman"), (2, "")):
        kept = [Retained(builder=builder, image="28103bcf1ed", step=1)] if builder else []
        write_job(
            jobs,
            number,
            verb="build",
            argv=("build", "x.sif"),
            events=(first, failed, Output(text="make: no rule", step=2), *kept, told),
            log="#1 [1/2] FROM a\n#2 make: no rule\n",
            status=1,
        )
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot)
        await pilot.press("3")
        await settle(pilot)
        assert app.export_screenshot().count("00:17") == 2  # how long each build took
        await pilot.press("enter")
        await settle(pilot)
        assert "(line 7 of the Dockerfile): RUN make: exit 2" in line(app, "failure")
        app.screen.query_one("#steps").focus()
        log = app.screen.query_one("#log", Text)
        assert [log.source.line(number) for number in range(len(log.source))] == ["make: no rule"]
        await pilot.press("home", "enter")
        await settle(pilot)
        await until(pilot, lambda: app.focused is log)
        assert isinstance(app.screen, JobScreen)
        app.screen.show_board()  # what was chosen stays
        assert log.line_count == 2  # of the whole log
        assert "R Again" in line(app, "offer")
        assert "s Shell after step 1" not in line(app, "offer")
        await pilot.press("s")  # BuildKit's: it has no layers to show
        await settle(pilot)
        assert isinstance(app.screen, JobScreen)
        assert "no layer of this build" in app._notices[-1]
        await pilot.press("escape", "escape", "down", "s")
        await settle(pilot)
        dialog = app.screen  # a test has no terminal to hand over
        assert isinstance(dialog, ReportDialog)
        assert dialog.trouble.title == "sifdeck jobs shell 1"
        await pilot.press("escape", "enter", "R")
        await until(pilot, lambda: any("tries #1 again" in said for said in app._notices))


async def test_a_build_that_went_well_is_done_again_when_it_may_overwrite(
    app: Deck, jobs: Path
) -> None:
    write_job(jobs, 1, verb="build", argv=("build", "x.sif"), events=(), status=0)
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot)
        await pilot.press("3", "R")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        assert "jobs retry --force 1" in app.export_screenshot().replace("&#160;", " ")
        await pilot.press("escape", "R")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        assert not app._notices
        await pilot.click("#go")
        await until(pilot, lambda: any("tries #1 again" in said for said in app._notices))
    assert Jobs(jobs).get(2).argv == ("build", "--force", "x.sif")


# Hostile text


async def test_hostile_text_reaches_no_terminal_and_no_markup(
    app: Deck, jobs: Path, folder: Path
) -> None:
    write_job(
        jobs, 1, title=HOSTILE, log=f"{HOSTILE}\n", status=1, events=(Failed(message=HOSTILE),)
    )
    (folder / f"a{HOSTILE.replace('/', '')}.sif").write_bytes(b"")
    async with app.run_test(size=(120, 30)) as pilot:
        await settle(pilot)
        for keys in ("3", "enter", "escape", "e", "escape", "1"):
            await pilot.press(keys)
            await settle(pilot)
            screen = app.export_screenshot()
            assert not set("\x1b\x07\u202e") & set(screen)
            assert "\\x1b" in screen
            assert "[bold" in screen.replace("&#160;", " ")


# Help and going about


async def test_numbers_go_to_the_views_and_back(app: Deck) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        for key, name in zip(
            "54321", ("doctor", "running", "jobs", "registries", "images"), strict=True
        ):
            await pilot.press(key)
            await settle(pilot)
            assert app.current_mode == name


async def test_q_quits(app: Deck) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("q")
    assert app.return_code == 0


async def test_a_text_is_found_in_the_logs_of_all_jobs(app: Deck, jobs: Path) -> None:
    write_job(jobs, 1, log=f"{STAMP} hello\n" * 40 + f"{STAMP} \x1b[31mNeedle\x1b[0m 1\n")
    write_job(jobs, 2, log="nothing\n", status=1)
    write_job(jobs, 3, verb="build", title="x", log="a\nb needle 2\n")
    (jobs / "1" / "log.1").write_text("an old needle\n")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("3", "F", *"needle", "enter")
        await settle(pilot)
        found = roster(app).shown
        assert [(hit.job.number, hit.line) for hit in found] == [(3, 2), (1, 1), (1, 41)]
        assert "needle: 3 lines in 2 logs" in line(app, "summary")
        assert "jobs find needle" in line(app, "command")
        assert "Needle 1" in roster(app).render_line(3).text
        await pilot.press("end", "enter")
        await settle(pilot)
        assert isinstance(app.screen, JobScreen)
        view = app.screen.query_one("#log", Text)
        assert view.matches == [40]
        assert "match 1 of 1" in line(app, "title")
        await pilot.press("escape", "escape", "escape")
        await settle(pilot)
        assert isinstance(app.screen, JobsScreen)


async def test_the_header_has_host_store_and_jobs_at_every_width(app: Deck, jobs: Path) -> None:
    write_job(jobs, 1, status=None)
    write_job(jobs, 2, status=1, events=(Failed(message="no"),))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        head = "sifdeck 0.1.0  alice@login03"
        assert line(app, "header") == f"{head} quota 41G of 100G   jobs 1 running, 1 failed"
        for width, words in (
            (72, "quota 41G of 100G   jobs 1 run 1 fail"),
            (200, "store quota 41G of 100G [####------]   jobs 1 running, 1 failed"),
            (60, "jobs 1 running, 1 failed"),
        ):
            await pilot.resize_terminal(width, 24)
            await settle(pilot)
            app._look()
            assert line(app, "header") == f"{head} {words}"


async def test_a_failure_counts_until_it_was_looked_at(
    folder: Path, tmp_path: Path, jobs: Path
) -> None:
    for number in (1, 2):
        write_job(jobs, number, status=1, events=(Failed(message="no"),))
    desk = make_desk(folder, state=tmp_path / "state")
    app = make_deck(desk)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert "2 failed" in line(app, "header")
        await pilot.press("3")
        await settle(pilot)
        assert "1 failed" in line(app, "header")
    assert desk.memory.failures == [2]
    app = make_deck(desk)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert "1 failed" in line(app, "header")


async def test_too_small_a_screen_says_how_small_and_how_jobs_stand(app: Deck, jobs: Path) -> None:
    write_job(jobs, 1, status=None)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.resize_terminal(40, 10)
        await settle(pilot)
        text = str(app.screen.query_one("#too-small", Static).render())
        assert "needs 60x15, this terminal is 40x10" in text
        assert "jobs 1 run" in text


async def test_panes_grow_and_shrink(app: Deck, jobs: Path) -> None:
    write_job(jobs, 1)
    async with app.run_test(size=(200, 50)) as pilot:
        await settle(pilot)
        pane = roster(app)
        widths = [pane.outer_size.width]
        for key in ("plus", "plus", "minus"):
            await pilot.press(key)
            await pilot.pause()
            widths.append(pane.outer_size.width)
        assert widths[0] < widths[1] < widths[2]
        assert widths[3] == widths[1]
        await pilot.press("3")
        await settle(pilot)
        height = roster(app).outer_size.height
        await pilot.press("plus")
        await pilot.pause()
        assert roster(app).outer_size.height > height


async def test_the_last_view_and_its_filter_come_back(folder: Path, tmp_path: Path) -> None:
    desk = make_desk(folder, state=tmp_path / "state")
    app = make_deck(desk)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"lab", "enter", "4")
        await settle(pilot)
    app = make_deck(desk)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert app.current_mode == "running"
        await pilot.press("1")
        await settle(pilot)
        assert roster(app).wanted == "lab"
        assert len(names(app)) == 2
        await pilot.press("escape")
    assert desk.memory.filters == {"images": ""}


async def test_an_error_of_a_login_offers_one(app: Deck, jobs: Path) -> None:
    refused = Failed(message="ghcr.io refused", why="401", hint="log in", exit_code=10)
    write_job(jobs, 1, status=10, events=(*pulling(), refused))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("3")
        await settle(pilot)
        parts: Any = app.screen.query_one("#parts", List)
        assert {part.state for part in parts.rows} == {"stopped"}  # nothing runs in it any more
        await pilot.press("e")
        await pilot.pause()
        assert isinstance(app.screen, ReportDialog)
        assert app.screen.query_one(".dialog-keys", Static).render()
        await pilot.press("l")
        await until(pilot, lambda: isinstance(app.screen, FillDialog))
        assert app.screen.query_one("#field-registry", Input).value == "ghcr.io"


async def test_a_dialog_has_its_buttons_on_the_smallest_screen(app: Deck) -> None:
    async with app.run_test(size=(60, 15)) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"solver", "enter")
        for key in "prcPb":
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, FillDialog))
            await pilot.pause()
            button = app.screen.query_one("#go").region
            assert 0 < button.y < 14
            assert button.right <= 60
            await pilot.press("escape")
            await until(pilot, lambda: isinstance(app.screen, ImagesScreen))


async def test_a_large_screen_shows_the_layers_of_the_job_that_runs(app: Deck, jobs: Path) -> None:
    write_job(jobs, 1)
    write_job(jobs, 2, status=None, events=pulling())
    async with app.run_test(size=(200, 50)) as pilot:
        await settle(pilot)
        parts: Any = app.screen.query_one("#dock-parts", List)
        assert parts.display
        assert [part.state for part in parts.rows] == ["downloading", "running"]
        app.screen.query_one("#dock-jobs").focus()
        await pilot.press("down")
        await settle(pilot)
        assert not parts.display
