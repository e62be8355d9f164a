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


def test_file_made_from_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target, data = str(tmp_path / "x.sif"), str(tmp_path / "data")
    Path(data).write_bytes(b"data")
    part = ["--partfs", "1", "--partarch", "2"]
    assert main(["sif", "new", target]) == 0
    assert main(["sif", "add", target, data, "--datatype", "4", "--parttype", "1", *part]) == 0
    assert main(["sif", "add", target, data, "--datatype", "4", "--parttype", "2", *part]) == 0
    entity = "433FE984155206BD962725E20E8713472A879943"
    signed = ["--datatype", "5", "--signhash", "1", "--signentity", entity, "--link", "1"]
    assert main(["sif", "add", target, data, *signed]) == 0
    sbom = ["--datatype", "9", "--sbomformat", "spdx-json", "--groupid", "7", "--filename", "s"]
    assert main(["sif", "add", target, data, *sbom]) == 0
    assert main(["sif", "setprim", "1", target]) == 0
    assert main(["sif", "del", "2", target]) == 0
    assert capsys.readouterr().out == ""
    assert main(["sif", "list", target]) == 0
    assert capsys.readouterr().out.splitlines()[3:] == [
        "1    |NONE    |NONE    |32768-32772               |FS (Squashfs/*System/amd64)",
        "3    |NONE    |1       |36868-36872               |Signature (SHA-256)",
        "4    |7       |NONE    |36872-36876               |SBOM (spdx-json)",
    ]
    assert main(["sif", "info", "3", target]) == 0
    assert f"Entity:       {entity}\n" in capsys.readouterr().out
    assert main(["sif", "new", target]) == 1


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--datatype", "12"],
        ["--datatype", "4", "--parttype", "1"],
        ["--datatype", "5"],
        ["--datatype", "5", "--signhash", "1", "--signentity", "abc"],
        ["--datatype", "9"],
        ["--datatype", "9", "--sbomformat", "x"],
        ["--datatype", "1", "--groupid", "-1"],
    ],
)
def test_add_with_wrong_options(image: str, options: list[str]) -> None:
    before = Path(image).read_bytes()
    assert main(["sif", "add", image, image, *options]) == 2
    assert Path(image).read_bytes() == before
