"""What was done with image files: noted by the verbs, read by the catalogue."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from app.cli.main import cli
from backend import history
from backend.catalog import Catalog, Image
from backend.history import Known, read_journal
from backend.journal import note_check, note_run
from tests.support.imagefiles import write_native, write_ocisif

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "state"
    monkeypatch.setenv("SIFDECK_STATE_DIR", str(path))
    return path


def one_image(path: Path) -> Image:
    (found,) = Catalog([path.parent], path.parent / "index").images()
    return found


def test_a_run_and_a_check_are_known_of_a_file(tmp_path: Path) -> None:
    image = write_ocisif(tmp_path / "a.oci.sif")
    assert one_image(image).used == 0
    note_run(str(image))
    note_check(str(image), "verified")
    found = one_image(image)
    assert found.used > 1_700_000_000
    assert found.trust == "verified"


def test_a_check_of_what_was_in_the_file_before_says_nothing(tmp_path: Path) -> None:
    image = write_ocisif(tmp_path / "a.oci.sif")
    note_check(str(image), "verified")
    os.utime(image, (1, 1))
    assert one_image(image).trust == "source"


def test_verify_notes_what_it_found(tmp_path: Path) -> None:
    image = write_ocisif(tmp_path / "a.oci.sif", reference="")
    assert one_image(image).trust == ""
    assert CliRunner().invoke(cli, ["verify", str(image)]).exit_code == 0
    assert one_image(image).trust == "intact"
    data = bytearray(image.read_bytes())
    data[data.index(b"hsqs") + 100] ^= 1
    image.write_bytes(data)
    CliRunner().invoke(cli, ["verify", str(image)])
    assert one_image(image).trust == "DAMAGED"


def test_a_file_with_nothing_to_check_is_not_said_to_be_well(tmp_path: Path) -> None:
    image = write_native(tmp_path / "a.sif")
    CliRunner().invoke(cli, ["verify", str(image)])
    assert one_image(image).verdict == ""


@pytest.mark.parametrize(
    ("signed", "verdict", "trust"),
    [
        (1, "", "signed"),
        (1, "unknown key", "signed"),
        (1, "bad signature", "BAD SIG"),
        (0, "differs", "DIFFERS"),
        (0, "", "cosign"),
    ],
)
def test_trust_is_a_word(signed: int, verdict: str, trust: str) -> None:
    image = Image(
        path="/a", kind="sif", name="a", signatures=signed, cosigned=1, verdict=verdict, source="x"
    )
    assert image.trust == trust


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[",
        "[" * 100_000,
        '["ran", "/a"]',
        '["ran", 1, 2.0]',
        '["checked", "/a", "no such verdict", 1, 1]',
        '{"a": 1}',
        "\x00\xff",
    ],
)
def test_lines_that_make_no_sense_are_passed_over(state: Path, line: str) -> None:
    state.mkdir()
    file = state / "images.jsonl"
    file.write_text(f'{line}\n["ran", "/b", 5.0]\n')
    assert read_journal() == {"/b": Known(used=5.0)}


def test_a_long_journal_is_written_anew_without_what_is_gone(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_SHORT", 100)
    here = tmp_path / "name \udcff.sif"
    here.write_bytes(b"x")
    for _ in range(5):
        note_run(str(here))
    note_check(str(here), "intact")
    note_run(str(tmp_path / "gone.sif"))
    before = read_journal()
    assert len(before) == 2
    lines = (state / "images.jsonl").read_text().splitlines()
    assert [json.loads(line)[0] for line in lines] == ["ran", "checked"]
    assert read_journal() == {str(here): before[str(here)]}


def test_a_journal_that_cannot_be_written_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SIFDECK_STATE_DIR", str(tmp_path / "file" / "state"))
    note_run("/a.sif")
    assert read_journal() == {}
