"""Bytes from file to file."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from backend.copying import copy_range
from backend.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = bytes(range(256)) * 1000


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[int, int]]:
    (tmp_path / "a").write_bytes(DATA)
    source = os.open(tmp_path / "a", os.O_RDWR)
    target = os.open(tmp_path / "b", os.O_RDWR | os.O_CREAT)
    yield source, target
    os.close(source)
    os.close(target)


@pytest.mark.parametrize("broken", [None, errno.EXDEV, errno.EINVAL, 0])
def test_a_part_is_copied(
    files: tuple[int, int], monkeypatch: pytest.MonkeyPatch, broken: int | None
) -> None:
    def refuse(*_: int) -> int:
        if broken:
            raise OSError(broken, "no")
        return 0

    if broken is not None:
        monkeypatch.setattr(os, "copy_file_range", refuse)
    copy_range(*files, start=1000, size=200_000, at=77)
    assert os.pread(files[1], 1 << 20, 0) == bytes(77) + DATA[1000:201_000]


def test_holes_stay_holes(files: tuple[int, int]) -> None:
    source, target = files
    os.pwrite(source, b"end", 40 << 20)
    os.ftruncate(source, 60 << 20)
    copy_range(source, target, start=0, size=60 << 20, at=0)
    assert os.fstat(target).st_size == 60 << 20
    assert os.fstat(target).st_blocks * 512 < 10 << 20
    assert os.pread(target, 3, 40 << 20) == b"end"
    assert os.pread(target, len(DATA), 0) == DATA


def test_source_that_is_too_short(files: tuple[int, int]) -> None:
    with pytest.raises(FormatError, match="cut short"):
        copy_range(*files, start=10, size=len(DATA), at=0)


def test_other_errors_are_not_hidden(
    files: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(OSError, match="full"):
        copy_range(*files, start=0, size=10, at=0)
