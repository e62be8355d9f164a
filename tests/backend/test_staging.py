"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from backend.errors import BackendError, ExistsError, NotFoundError, SpaceError, UsageError
from backend.staging import StagedFile, StagedFolder

if TYPE_CHECKING:
    from collections.abc import Iterator


def write(target: Path, data: bytes = b"new", *, overwrite: bool = False) -> None:
    with StagedFile(target, overwrite=overwrite) as staged:
        os.write(staged.fd, data)
        staged.commit()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_committed_file_has_the_name_and_the_mode(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write(tmp_path / "x.sif")
    finally:
        os.umask(old)
    assert (tmp_path / "x.sif").read_bytes() == b"new"
    assert (tmp_path / "x.sif").stat().st_mode & 0o7777 == 0o750
    assert (tmp_path / "x.sif").stat().st_nlink == 1
    assert names(tmp_path) == ["home", "x.sif"]


def test_file_that_is_there_stays(tmp_path: Path) -> None:
    target = tmp_path / "x.sif"
    target.write_bytes(b"old")
    with pytest.raises(ExistsError, match="will not overwrite"):
        write(target)
    assert target.read_bytes() == b"old"
    write(target, overwrite=True)
    assert target.read_bytes() == b"new"


def test_dangling_link_counts_as_there(tmp_path: Path) -> None:
    (tmp_path / "x.sif").symlink_to("nowhere")
    with pytest.raises(ExistsError):
        write(tmp_path / "x.sif")


@pytest.mark.parametrize("links", [True, False])
def test_file_that_appears_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    if not links:
        monkeypatch.setattr(os, "link", _refuse_links)
    with StagedFile(folder / "x.sif") as staged:
        (folder / "x.sif").write_bytes(b"theirs")
        with pytest.raises(ExistsError):
            staged.commit()
    assert names(folder) == ["x.sif"]
    assert (folder / "x.sif").read_bytes() == b"theirs"


def test_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", _refuse_links)
    folder = tmp_path / "out"
    folder.mkdir()
    write(folder / "x.sif")
    assert names(folder) == ["x.sif"]
    assert (folder / "x.sif").read_bytes() == b"new"


def _refuse_links(_source: Path, _target: Path) -> None:
    raise OSError(errno.EPERM, "no hard links")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_nothing_is_left_after_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    folder = tmp_path / "out"
    folder.mkdir()

    def fail() -> None:
        with StagedFile(folder / "x.sif") as staged:
            os.write(staged.fd, b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert names(folder) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("staged_type", [StagedFile, StagedFolder])
def test_full_disk(
    tmp_path: Path, number: int, staged_type: type[StagedFile | StagedFolder]
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()

    def fail() -> None:
        with staged_type(folder / "x.sif"):
            raise OSError(number, os.strerror(number))

    with pytest.raises(SpaceError, match="no room") as caught:
        fail()
    assert caught.value.why
    assert names(folder) == []


def test_really_full_disk(tmp_path: Path) -> None:
    def fill() -> None:
        with StagedFile(tmp_path / "x.sif"), Path("/dev/full").open("wb", 0) as full:
            full.write(b"x")

    with pytest.raises(SpaceError):
        fill()
    assert names(tmp_path) == ["home"]


def test_places_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folder"):
        write(tmp_path)
    with pytest.raises(NotFoundError, match="no folder"):
        write(tmp_path / "none" / "x.sif")
    (tmp_path / "file").touch()
    with pytest.raises(BackendError):
        write(tmp_path / "file" / "x.sif")


def test_name_of_255_bytes(tmp_path: Path) -> None:
    name = "ü" * 125 + ".sif"
    write(tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"new"


@contextlib.contextmanager
def lingering(staged_type: str, target: Path) -> Iterator[None]:
    """A writer of a target that has written a part of it, and is killed at the end."""
    code = (
        f"import sys, time; from pathlib import Path; from backend.staging import {staged_type}\n"
        f"with {staged_type}(Path(sys.argv[1])) as staged:\n"
        "    print('ready', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(target)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    with child, child.stdout:
        assert child.stdout.readline() == b"ready\n"
        yield
        child.send_signal(signal.SIGKILL)
        child.wait()


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / "x.sif"
    with lingering("StagedFile", target):
        (left,) = names(folder)
        write(folder / "other.sif")
        write(target)  # the other writer lives: its file stays
        assert names(folder) == sorted([left, "other.sif", "x.sif"])
    write(target, b"again", overwrite=True)
    assert names(folder) == ["other.sif", "x.sif"]
    assert target.read_bytes() == b"again"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / "x"
    with lingering("StagedFolder", target):
        (left,) = names(folder)
        (folder / left / "half").touch()
        with StagedFolder(target) as staged:
            (staged.path / "part").mkdir()
            (staged.path / "part" / "file").touch()
            staged.commit(staged.path / "part")
        assert names(folder) == sorted([left, "x"])
        assert names(target) == ["file"]
    with pytest.raises(ExistsError), StagedFolder(target):
        pass
    with StagedFolder(folder / "y") as staged:
        (folder / "y").mkdir()
        with pytest.raises(ExistsError):
            staged.commit()
    (target / "file").unlink()
    target.rmdir()
    with StagedFolder(target) as staged:
        staged.commit()
    assert names(folder) == ["x", "y"]
    with pytest.raises(NotFoundError, match="no folder"), StagedFolder(folder / "no" / "where"):
        pass


def test_files_of_others_stay(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    foreign = [
        ".x.sif.part",
        ".x.sif.12-abc.part",
        ".x.sif.me-12345678.part",
        ".y.sif.1-12345678.part",
    ]
    for name in foreign:
        (folder / name).touch()
    (folder / ".x.sif.12-0123abcd.part").touch()
    write(folder / "x.sif")
    assert names(folder) == sorted([*foreign, "x.sif"])
