"""``sifdeck ls``, ``cat``, ``cp`` and ``diff`` on images."""

from __future__ import annotations

import json
import os
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.cp import split_source
from app.cli.main import main
from tests.support.images import Entry, directory, hardlink, symlink
from tests.support.squashed import whiteout, write_sif

BASE = [
    directory("etc", 0o755),
    Entry(name="etc/passwd", data=b"root\n", mode=0o640, uid=3, gid=4),
    symlink("etc/link", "passwd"),
    hardlink("etc/hard", "etc/passwd"),
    directory("locked", 0o555),
    Entry(name="locked/setuid", data=b"s", mode=0o4755),
    Entry(name="locked/sparse", data=b"a" + bytes(3_000_000) + b"b"),
    Entry(name="null", kind=b"3", device=(1, 3)),
    Entry(name="evil\x1b[31m\n", data=b"\x1b[2Jtext\n"),
]


@pytest.fixture
def image(tmp_path: Path) -> str:
    return str(write_sif(tmp_path / "x.sif", BASE))


@pytest.fixture
def layered(tmp_path: Path) -> str:
    upper = [whiteout("null"), directory("etc", 0o700), Entry(name="etc/new", data=b"new")]
    return str(write_sif(tmp_path / "y.sif", BASE, upper))


def out(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def test_ls(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert out(capsys, "ls", image) == "etc\nevil\\x1b[31m\\n\nlocked\nnull\n"
    assert out(capsys, "ls", image, "etc") == "hard\nlink\npasswd\n"
    assert out(capsys, "ls", image, "etc/passwd", "/etc/link") == "etc/passwd\netc/passwd\n"
    assert out(capsys, "ls", "-d", image, "/etc", "/") == "etc\n/\n"
    assert out(capsys, "ls", "-R", image, "etc") == "etc/hard\netc/link\netc/passwd\n"


def test_ls_long(image: str, layered: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = out(capsys, "ls", "-l", image, "etc").splitlines()
    assert lines[0] == "-rw-r-----   2     3     4           5 2020-09-13 12:26 hard"
    assert lines[1].startswith("lrwxrwxrwx ")
    assert lines[1].endswith(" link -> passwd")
    assert "1, 3 2020" in out(capsys, "ls", "-l", image, "null")
    assert out(capsys, "ls", "-l", layered, "etc/new").endswith("  2 etc/new\n")


def test_ls_json(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = [json.loads(line) for line in out(capsys, "ls", "--json", image).splitlines()]
    assert [one["path"] for one in found] == ["etc", "evil\x1b[31m\n", "locked", "null"]
    assert found[3]["device"] == [1, 3]
    (one,) = [
        json.loads(line) for line in out(capsys, "ls", "--json", image, "etc/hard").splitlines()
    ]
    assert one == {
        "path": "etc/hard",
        "type": "file",
        "mode": "0640",
        "uid": 3,
        "gid": 4,
        "size": 5,
        "mtime": 1_600_000_000,
        "links": 2,
        "layer": 1,
    }


def test_ls_layers(layered: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = out(capsys, "ls", "--layers", layered).splitlines()
    assert lines[0].split() == ["LAYER", "FILES", "BYTES", "WASTED", "REMOVED"]
    assert lines[2].split() == ["2", "1", "3", "0", "1"]
    found = [
        json.loads(one) for one in out(capsys, "ls", "--layers", "--json", layered).splitlines()
    ]
    assert found[1] == {"layer": 2, "files": 1, "size": 3, "wasted": 0, "removed": 1}


def test_nothing_there(image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", image, "none"]) == 11
    assert main(["ls", str(tmp_path / "none.sif")]) == 11
    assert main(["cat", image, "none"]) == 11
    assert main(["cat", image, "etc"]) == 2
    assert main(["cp", f"{image}:none", str(tmp_path)]) == 11
    assert "has no none" in capsys.readouterr().err


def test_cat_gives_the_bytes(image: str) -> None:
    root = Path(__file__).parents[2]
    argv = [sys.executable, "-m", "app", "cat", image, "etc/link", "evil\x1b[31m\n"]
    done = subprocess.run(argv, capture_output=True, check=True, cwd=root)
    assert done.stdout == b"root\n\x1b[2Jtext\n"


def test_cat_on_a_terminal_is_escaped(image: str) -> None:
    leader, follower = os.openpty()
    root = Path(__file__).parents[2]
    argv = [sys.executable, "-m", "app", "cat", image, "evil\x1b[31m\n"]
    subprocess.run(argv, stdout=follower, check=True, cwd=root)
    os.close(follower)
    assert os.read(leader, 100) == b"\\x1b[2Jtext\r\n"
    os.close(leader)


def test_cp_of_a_file(image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out"
    assert main(["cp", f"{image}:/etc/link", str(target)]) == 0
    assert target.read_bytes() == b"root\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert target.stat().st_mtime == 1_600_000_000
    assert main(["cp", f"{image}:/locked/setuid", str(target)]) == 1
    assert main(["cp", "-F", f"{image}:/locked/setuid", str(target)]) == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    folder = tmp_path / "folder"
    folder.mkdir()
    assert main(["cp", f"{image}:etc/passwd", str(folder)]) == 0
    assert (folder / "passwd").read_bytes() == b"root\n"
    assert "Copied 1 file, 5 bytes" in capsys.readouterr().err


def test_cp_of_everything(image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out"
    assert main(["cp", f"{image}:/", str(target)]) == 0
    assert {path.relative_to(target).as_posix() for path in target.rglob("*")} == {
        "etc",
        "etc/hard",
        "etc/link",
        "etc/passwd",
        "evil\x1b[31m\n",
        "locked",
        "locked/setuid",
        "locked/sparse",
    }
    assert (target / "etc/link").readlink() == Path("passwd")
    assert (target / "etc/hard").samefile(target / "etc/passwd")
    assert stat.S_IMODE((target / "locked").stat().st_mode) == 0o555
    assert stat.S_IMODE((target / "locked/setuid").stat().st_mode) == 0o755
    sparse = target / "locked/sparse"
    assert sparse.read_bytes() == b"a" + bytes(3_000_000) + b"b"
    assert sparse.stat().st_blocks * 512 < 1_000_000
    assert "Not copied, a device, pipe or socket: null" in capsys.readouterr().err
    assert main(["cp", f"{image}:/etc", str(target / "etc")]) == 0
    assert (target / "etc/etc/passwd").is_file()
    (target / "locked").chmod(0o755)


def test_cp_never_leaves_the_target(tmp_path: Path) -> None:
    """A directory that holds ``x`` twice, a link to elsewhere and a folder with a file."""
    outside = tmp_path / "outside"
    outside.mkdir()
    tree = tmp_path / "tree"
    (tree / "y").mkdir(parents=True)
    (tree / "y" / "f").write_bytes(b"bad")
    (tree / "x").symlink_to(outside)
    argv = ["mksquashfs", str(tree), str(tmp_path / "raw"), "-noI", "-noappend", "-quiet"]
    subprocess.run([*argv, "-no-progress"], check=True, stdout=subprocess.DEVNULL)
    data = bytearray((tmp_path / "raw").read_bytes())
    (start,) = struct.unpack_from("<Q", data, 72)
    assert data[start:].count(b"y") == 1
    data[data.index(b"y", start)] = ord("x")
    image = tmp_path / "bad.sqfs"
    image.write_bytes(data)
    assert main(["cp", f"{image}:/", str(tmp_path / "out")]) == 1
    assert list(outside.iterdir()) == []
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_source_of_cp(tmp_path: Path) -> None:
    odd = tmp_path / "a:b.sif"
    odd.touch()
    assert split_source(f"{odd}:/x:y") == (odd, "/x:y")
    assert split_source(f"{odd}:") == (odd, "/")
    assert split_source("none.sif:etc") == (Path("none.sif"), "etc")
    assert main(["cp", "none.sif", "x"]) == 2


def test_diff(image: str, layered: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert out(capsys, "diff", image, image) == ""
    assert out(capsys, "diff", image, layered) == (
        "C            +0  /etc  (mode)\nA            +3  /etc/new\nD            +0  /null\n"
    )
    changed = [
        *(entry for entry in BASE if not entry.name.startswith("locked")),
        Entry(name="locked", data=b"a file"),
    ]
    changed[1] = Entry(name="etc/passwd", data=b"ROOT\n", mode=0o640, uid=3, gid=5)
    changed[2] = symlink("etc/link", "other")
    other = str(write_sif(tmp_path / "z.sif", changed))
    lines = out(capsys, "diff", "--json", image, other).splitlines()
    found = {one["path"]: one for one in map(json.loads, lines)}
    assert found["/etc/passwd"]["what"] == ["owner", "content"]
    assert found["/etc/link"]["what"] == ["target"]
    assert found["/locked/sparse"]["state"] == "removed"
    states = [one["state"] for one in map(json.loads, lines) if one["path"] == "/locked"]
    assert states == ["removed", "added"]
