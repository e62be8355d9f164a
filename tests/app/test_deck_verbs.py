"""The verbs around the deck: ls, rm, keys, config."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from app.cli.main import main
from app.commands import ACTIONS
from backend.errors import ExitCode
from tests.support.decks import make_images, write_job

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "images"
    make_images(path)
    monkeypatch.chdir(path)
    monkeypatch.setattr("backend.trash._free_share", lambda _folder: 0.5)
    return path


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["ls", "--json", *arguments]) == 0
    return [image["path"].rpartition("/")[2] for image in json.loads(capsys.readouterr().out)]


@pytest.mark.usefixtures("folder")
def test_ls_filters_and_sorts(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(listed(capsys)) == 5
    assert listed(capsys, "--filter", "lab !tools") == ["solver_v2.oci.sif"]
    assert listed(capsys, "--sort", "size")[-1] == "broken.sif"


def test_ls_looks_into_folders_of_the_environment(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert listed(capsys) == []
    monkeypatch.setenv("SIFDECK_IMAGES", str(folder))
    assert len(listed(capsys)) == 5


def test_rm_can_be_undone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rm", "broken.sif"]) == 0
    assert not (folder / "broken.sif").exists()
    assert "--undo" in capsys.readouterr().err
    assert main(["rm", "--undo", "broken.sif"]) == 0
    assert (folder / "broken.sif").read_bytes() == b"not an image"
    assert main(["rm", "--now", "broken.sif"]) == 0
    assert main(["rm", "--undo", "broken.sif"]) == ExitCode.NOT_FOUND


def test_keys_prints_every_action(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys"]) == 0
    printed = capsys.readouterr().out
    assert all(action.id in printed for action in ACTIONS)


def test_config_prints_what_counts_and_what_clashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIFDECK_CONFIG_DIR", str(tmp_path))
    (tmp_path / "config.toml").write_text('theme = "ansi-dark"\n[keys]\n"images.run" = "p"\n')
    assert main(["config"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["theme"] == "ansi-dark"
    assert "images.run" in printed.err
    assert main(["config", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["theme"]
    (tmp_path / "config.toml").write_text("them = 1")
    assert main(["config"]) == ExitCode.USAGE
    assert "did you mean 'theme'" in capsys.readouterr().err


def test_a_text_is_found_in_old_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIFDECK_STATE_DIR", str(tmp_path))
    write_job(tmp_path / "jobs", 7, verb="build", title="x", log="one\nTWO \x1b]0;owned\x07\n")
    assert main(["jobs", "find", "two"]) == 0
    assert capsys.readouterr().out == "#7 build x:2: TWO \\x1b]0;owned\\x07\n"
    assert main(["jobs", "find", "--json", "o"]) == 0
    assert capsys.readouterr().out.count('"job": 7') == 2
    assert main(["jobs", "find", "three"]) == 1
