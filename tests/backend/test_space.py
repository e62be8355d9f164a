"""Room is asked for before the work begins."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from app.cli.main import main
from backend.convert import Target, convert_image, parse_target
from backend.errors import ExitCode, SpaceError
from backend.events import ignore
from backend.pull import PullOptions, pull_image
from backend.reference import parse
from backend.space import Need, Store, _left, check_space, find_store, free_room
from tests.support.containers import SIFDECK
from tests.support.images import Entry, image, layer, write_layout
from tests.support.squashfs import need_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backend.convert import Form
    from backend.events import Event


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    need_root()
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_room_is_the_file_system_s(small: Path) -> None:
    room = free_room(small)
    assert room.size == 4 << 20
    (small / "file").write_bytes(bytes(1 << 20))
    left = free_room(small)
    assert left.size == 3 << 20
    assert room.files is not None
    assert left.files == room.files - 1


def test_too_little_room_says_what_for(small: Path, tmp_path: Path) -> None:
    there = Need(folder=small / "not" / "yet", size=3 << 20, purpose="the image")
    check_space([there, Need(folder=tmp_path, size=1, purpose="the cache")])
    with pytest.raises(SpaceError) as caught:
        check_space([there, Need(folder=small / "cache", size=2 << 20, purpose="the cache")])
    assert str(small) in caught.value.message
    assert "5.2 MB are needed (3.1 MB for the image, 2.1 MB for the cache)" in caught.value.why
    assert "4.2 MB are free" in caught.value.why
    assert "cache clean" in caught.value.hint
    with pytest.raises(SpaceError) as caught:
        check_space([Need(folder=small, size=1, purpose="the files", files=10**9)])
    assert "1000000000 files are needed (1000000000 files for the files)" in caught.value.why


def test_a_quota_counts() -> None:
    def quota(blocks: tuple[int, int, int], files: tuple[int, int, int], valid: int = 63) -> bytes:
        return struct.pack("=8QI4x", *blocks, *files, 0, 0, valid)

    none = (0, 0, 5)
    assert _left(quota((1000, 500, 24_000), none)) == (1_000_000, None)
    assert _left(quota((0, 500, 12_000), (10, 5, 7))) == (500_000, 3)
    assert _left(quota((10, 0, 99_999), (0, 5, 7))) == (0, 0)
    assert _left(quota(none, none)) == (None, None)
    assert _left(quota((9, 9, 5), (9, 9, 5), valid=4)) == (None, 4)


def test_a_folder_that_cannot_be_listed_has_room(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o300)
    assert free_room(closed).size > 0


def test_no_file_may_be_larger_than_the_shell_s_limit(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, before[1]))
    try:
        check_space([Need(folder=tmp_path, size=1 << 31, purpose="the download")])
        with pytest.raises(SpaceError) as caught:
            check_space([Need(folder=tmp_path, size=1 << 31, purpose="the image", is_file=True)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "2.1 GB are needed" in caught.value.why
    assert "ulimit -f" in caught.value.hint


@pytest.mark.parametrize("form", ["", "oci:"])
def test_a_file_that_becomes_too_large_is_explained(form: str, tmp_path: Path) -> None:
    """The estimate lets it begin; the kernel ends it."""
    layers = [layer(Entry(name="noise", data=os.urandom(6 << 20)))]
    made = image(layers, compress="")
    source = write_layout(tmp_path / "layout", made)
    argv = ["sh", "-c", 'ulimit -f 4000; exec "$@"', "sh", SIFDECK, "-q", "convert"]
    target = tmp_path / "x"
    done = subprocess.run(
        [*argv, f"oci:{source}", f"{form}{target}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == ExitCode.NO_SPACE, done.stderr
    assert f"no room to write {target}" in done.stderr
    assert "ulimit -f" in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["layout"]


NOISE = 6 << 20


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, str]:
    """An image in several forms, too large for the small file system."""
    noise = os.urandom(NOISE)
    layout = write_layout(tmp_path / "layout", image([layer(Entry(name="noise", data=noise))]))
    made, folder = tmp_path / "made.sif", tmp_path / "folder"
    convert_image(parse(f"oci:{layout}"), parse_target(str(made)), options(tmp_path), ignore)
    folder.mkdir()
    for name in "abcd":
        (folder / name).write_bytes(noise)
    return {"layout": f"oci:{layout}", "sif": str(made), "folder": str(folder)}


def options(tmp_path: Path) -> PullOptions:
    return PullOptions(cache=tmp_path / "cache", shared_cache=None)


def test_a_pull_without_room_writes_nothing(
    small: Path, tmp_path: Path, sources: dict[str, str]
) -> None:
    with pytest.raises(SpaceError, match="not enough room"):
        pull_image(parse(sources["layout"]), small / "x.sif", options(tmp_path), ignore)
    assert list(small.iterdir()) == []


@pytest.mark.parametrize("form", ["oci-sif", "sif", "docker-archive", "oci-archive", "oci"])
def test_a_conversion_without_room_writes_nothing(
    form: Form, small: Path, tmp_path: Path, sources: dict[str, str]
) -> None:
    for source in sources.values():
        seen: list[Event] = []
        target = Target(form=form, path=small / "x")
        with pytest.raises(SpaceError, match="not enough room"):
            convert_image(parse(source), target, options(tmp_path), seen.append)
        assert not [event for event in seen if getattr(event, "name", "") == "convert"]
    assert list(small.iterdir()) == []


def test_a_folder_needs_room_for_the_image_and_its_files(small: Path, tmp_path: Path) -> None:
    """Of zeros: the image itself is small, and so is the first estimate."""
    target = Target(form="sandbox", path=small / "x")
    zeros = [Entry(name=f"{i}", data=b"zero" * (1 << 18)) for i in range(5)]
    many = [Entry(name=f"{i}") for i in range(3000)]
    subprocess.run(["mount", "-o", "remount,nr_inodes=2000", str(small)], check=True)
    for number, (entries, lacking) in enumerate([(zeros, "MB"), (many, "files")]):
        layout = write_layout(tmp_path / f"layout{number}", image([layer(*entries)]))
        with pytest.raises(SpaceError) as caught:
            convert_image(parse(f"oci:{layout}"), target, options(tmp_path), ignore)
        assert f"{lacking} for the files" in caught.value.why
        assert list(small.iterdir()) == []


def test_a_data_container_and_an_overlay_need_room(
    small: Path, sources: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    made = small / "made"
    for arguments in (
        ["data", "package", sources["folder"], str(made)],
        ["overlay", "create", str(made)],
    ):
        assert main(arguments) == ExitCode.NO_SPACE
        assert "there is not enough room in" in capsys.readouterr().err
    assert list(small.iterdir()) == []
    assert main(["overlay", "create", "--sparse", str(made)]) == ExitCode.OK


def test_the_store_is_the_quota_where_that_has_less_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = os.statvfs(tmp_path)
    plain = find_store(tmp_path)
    assert plain.total == found.f_blocks * found.f_frsize
    assert not plain.is_quota
    answers: list[bytes] = []
    monkeypatch.setattr("backend.space._quotas", lambda _folder: iter(answers))
    answers.append(struct.pack("=8QI4x", 0, 0, 5, 0, 0, 0, 0, 0, 1))  # no limit
    assert not find_store(tmp_path).is_quota
    answers.append(struct.pack("=8QI4x", 0, 2, 1024, 0, 0, 0, 0, 0, 1))
    assert find_store(tmp_path) == Store(used=1024, total=2048, is_quota=True)
    assert find_store(tmp_path).free == 1024
