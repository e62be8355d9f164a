"""Run profiles: named flags in config.toml, kept by a verb, used by ``run --profile``."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from app.cli.main import main
from app.cli.profiles import with_profile
from app.cli.runflags import parse_plainly
from app.dialogs.fill import FillDialog
from backend.errors import BackendError, UsageError
from backend.profiles import save_profile
from tests.support.decks import make_deck, make_desk, make_images, settle, until
from widgets.choice import Choice

if TYPE_CHECKING:
    from pathlib import Path

MINE = """# mine
theme = "sifdeck-light"  # bright

[profiles]  # of runs
gpu = ["--nv"]

[keys]
"images.run" = "enter"
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIFDECK_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("SIFDECK_SITE_CONFIG", str(tmp_path / "site.toml"))
    monkeypatch.setenv("SIFDECK_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "config" / "config.toml"


def kept(settings: Path) -> Any:
    return tomllib.loads(settings.read_text())["profiles"]


def flags(*words: str) -> dict[str, Any]:
    parsed = parse_plainly([*words, "IMAGE"])
    assert parsed
    return with_profile(parsed[0])


def test_a_profile_is_kept_beside_what_the_user_wrote(settings: Path) -> None:
    settings.parent.mkdir()
    settings.write_text(MINE)
    save_profile(settings, "cpu", ["--env", 'A="x"'])
    text = settings.read_text()
    assert text.replace('cpu = ["--env", "A=\\"x\\""]\n', "") == MINE
    assert tomllib.loads(text)["profiles"] == {"cpu": ["--env", 'A="x"'], "gpu": ["--nv"]}
    save_profile(settings, "cpu", ["--no-home"])
    assert tomllib.loads(settings.read_text())["profiles"]["cpu"] == ["--no-home"]
    save_profile(settings, "cpu", [])
    assert settings.read_text() == MINE


@pytest.mark.parametrize(
    "text",
    [
        '[profiles]\ngpu = [\n  "--nv",\n]\n',  # over several lines
        'profiles = { gpu = ["--nv"] }\n',
        'profiles.gpu = ["--nv"]\n',
    ],
)
def test_a_file_that_is_written_otherwise_is_left_as_it_is(settings: Path, text: str) -> None:
    settings.parent.mkdir()
    settings.write_text(text)
    with pytest.raises(UsageError, match="a line for each"):
        save_profile(settings, "gpu", ["--rocm"])
    assert settings.read_text() == text


def test_no_toml_is_not_changed(settings: Path) -> None:
    settings.parent.mkdir()
    settings.write_text("theme = \n")
    with pytest.raises(BackendError):
        save_profile(settings, "gpu", ["--nv"])
    assert settings.read_text() == "theme = \n"


def test_given_flags_are_above_those_of_the_profile(settings: Path) -> None:
    save_profile(settings, "mine", ["--cwd", "/a", "--bind", "/x", "--no-home"])
    found = flags("--profile", "mine", "--cwd", "/b", "--bind", "/y", "--nv")
    assert (found["cwd"], found["bind"]) == ("/b", ("/x", "/y"))
    assert found["no_home"]
    assert found["nv"]


def test_a_site_s_profiles_are_below_the_user_s(settings: Path, tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text('[profiles]\ngpu = ["--nv"]\nsite = ["--no-home"]\n')
    save_profile(settings, "gpu", ["--rocm"])
    assert flags("--profile", "gpu")["rocm"]
    assert not flags("--profile", "gpu")["nv"]
    assert flags("--profile", "site")["no_home"]


@pytest.mark.usefixtures("settings")
def test_what_is_no_profile_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--profile", "gpu", "--", "--nv"]) == 0
    assert main(["config"]) == 0
    assert json.loads(capsys.readouterr().out)["profiles"] == {"gpu": ["--nv"]}
    for words in (["--nonsense"], ["image.sif"], ["--profile", "other"]):
        assert main(["config", "--profile", "x", "--", *words]) == 2
    assert main(["run", "--profile", "gqu", "none.sif"]) == 2
    assert "did you mean 'gpu'" in capsys.readouterr().err


async def test_the_dialog_keeps_a_profile_and_offers_it_the_next_time(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_images(tmp_path / "images")
    monkeypatch.chdir(tmp_path / "images")
    ran: list[tuple[str, ...]] = []

    async def run(_app: object, argv: tuple[str, ...], _shown: str) -> int:
        ran.append(tuple(argv))
        return 0

    monkeypatch.setattr("app.deck.run_foreground", run)
    app = make_deck(make_desk(tmp_path / "images", state=tmp_path / "state"))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("slash", *"solver", "enter", "r")
        await pilot.pause()
        dialog = app.screen
        assert isinstance(dialog, FillDialog)
        assert not dialog.query("#field-profile")
        dialog.query_one("#field-env").value = "A=1"  # type: ignore[attr-defined]
        dialog.query_one("#field-keep").value = "mine"  # type: ignore[attr-defined]
        await pilot.pause()
        await pilot.press("ctrl+s")
        await until(pilot, lambda: len(ran) == 1)
        assert kept(settings) == {"mine": ["--env", "A=1"]}
        await pilot.press("r")
        await pilot.pause()
        app.screen.query_one("#field-profile", Choice).choose("mine")
        await pilot.pause()
        await pilot.press("ctrl+s")
        await until(pilot, lambda: len(ran) == 2)
        assert ran[1][-4:] == ("run", "--profile", "mine", "solver_v2.oci.sif")
        await pilot.press("r")
        await pilot.pause()
        assert app.screen.query_one("#field-profile", Choice).value == "mine"
