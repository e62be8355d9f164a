"""``sifdeck sif`` as a program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.main import main
from tests.support.sifs import blob, partition, sif


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "x.sif"
    path.write_bytes(sif(partition(b"\0\xff\n" * 1000), blob(b"{}")))
    return str(path)


def test_list(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sif", "list", image]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[3] == "1    |1       |NONE    |32176-35176               |FS (Squashfs/*System/amd64)"
    )


def test_alias_and_header(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["siftool", "header", image]) == 0
    assert capsys.readouterr().out.startswith("Version:            01\n")


def test_info(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sif", "info", "2", image]) == 0
    assert capsys.readouterr().out.startswith("  Data Type:  OCI.Blob\n")


def test_json(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sif", "list", "--json", image]) == 0
    assert [one["id"] for one in json.loads(capsys.readouterr().out)] == [1, 2]
    assert main(["sif", "info", "--json", "2", image]) == 0
    assert json.loads(capsys.readouterr().out)["offset"] == 35176


def test_dump_writes_the_bytes(image: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app", "sif", "dump", "1", image],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == b"\0\xff\n" * 1000


@pytest.mark.parametrize("arguments", [["info", "7"], ["dump", "7"]])
def test_object_that_is_not_there(
    image: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sif", *arguments, image]) == 11
    assert "has no object 7" in capsys.readouterr().err


def test_what_is_no_sif(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_bytes(b"hello")
    assert main(["sif", "list", str(tmp_path / "x")]) == 1
    assert "not a SIF file" in capsys.readouterr().err
    assert main(["sif", "list", str(tmp_path / "none")]) == 11
    assert main(["sif", "info", "x", str(tmp_path / "x")]) == 2
