"""Room is asked for before the work begins."""

from __future__ import annotations

import os
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from backend.convert import convert_image, parse_target
from backend.errors import SpaceError
from backend.events import ignore
from backend.pull import PullOptions, pull_image
from backend.reference import parse
from backend.space import _left, check_space, free_space
from tests.support.images import Entry, image, layer, write_layout
from tests.support.squashfs import need_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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


def test_free_space_is_the_file_system_s(small: Path) -> None:
    assert free_space(small) == 4 << 20
    (small / "file").write_bytes(bytes(1 << 20))
    assert free_space(small) == 3 << 20


def test_too_little_room_says_what_for(small: Path, tmp_path: Path) -> None:
    check_space({small / "not" / "yet": (3 << 20, "the image"), tmp_path: (1, "the cache")})
    with pytest.raises(SpaceError) as caught:
        check_space({small: (3 << 20, "the image"), small / "cache": (2 << 20, "the cache")})
    assert str(small) in caught.value.message
    assert "5.2 MB are needed (3.1 MB for the image, 2.1 MB for the cache)" in caught.value.why
    assert "4.2 MB are free" in caught.value.why
    assert "cache clean" in caught.value.hint


def test_a_quota_counts() -> None:
    def quota(hard: int, soft: int, used: int, valid: int = 63) -> bytes:
        return struct.pack("=8QI4x", hard, soft, used, 0, 0, 0, 0, 0, valid)

    assert _left(quota(1000, 500, 24_000)) == 1_000_000
    assert _left(quota(0, 500, 12_000)) == 500_000
    assert _left(quota(10, 0, 99_999)) == 0
    assert _left(quota(0, 0, 5)) is None
    assert _left(quota(9, 9, 5, valid=0)) is None


def test_a_pull_without_room_writes_nothing(small: Path, tmp_path: Path) -> None:
    layers = [layer(Entry(name="noise", data=os.urandom(6 << 20)))]
    write_layout(tmp_path / "layout", image(layers))
    options = PullOptions(cache=tmp_path / "cache", shared_cache=None)
    with pytest.raises(SpaceError, match="not enough room"):
        pull_image(parse(f"oci:{tmp_path / 'layout'}"), small / "x.sif", options, ignore)
    assert list(small.iterdir()) == []


@pytest.mark.parametrize("form", ["", "docker-archive:", "oci:"])
def test_a_conversion_without_room_writes_nothing(form: str, small: Path, tmp_path: Path) -> None:
    layers = [layer(Entry(name="noise", data=os.urandom(6 << 20)))]
    layout = parse(f"oci:{write_layout(tmp_path / 'layout', image(layers))}")
    options = PullOptions(cache=tmp_path / "cache", shared_cache=None)
    made = tmp_path / "made.sif"
    convert_image(layout, parse_target(str(made)), options, ignore)
    for source in (layout, parse(str(made))):
        with pytest.raises(SpaceError, match="not enough room"):
            convert_image(source, parse_target(f"{form}{small / 'x'}"), options, ignore)
    assert list(small.iterdir()) == []
