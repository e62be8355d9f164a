"""Deleting: undone within a day, never a folder, never more than was named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backend.errors import ExistsError, NotFoundError, UsageError
from backend.trash import FOLDER, KEPT_S, delete, restore

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.sif"
    path.write_bytes(b"image")
    return path


def plenty(_folder: Path) -> float:
    return 0.5


def test_a_deleted_file_can_be_brought_back(image: Path) -> None:
    gone = delete(image, free_share=plenty)
    assert (gone.size, gone.kept is not None) == (5, True)
    assert not image.exists()
    assert restore(image).read_bytes() == b"image"
    assert not (image.parent / FOLDER).exists()


def test_the_last_one_of_a_name_comes_back(image: Path) -> None:
    delete(image, free_share=plenty, now=lambda: 1e9)
    image.write_bytes(b"newer")
    delete(image, free_share=plenty, now=lambda: 1e9 + 1)
    assert restore(image).read_bytes() == b"newer"


def test_after_a_day_the_next_delete_removes_it(image: Path) -> None:
    delete(image, free_share=plenty, now=lambda: 1e9)
    image.write_bytes(b"other")
    delete(image, free_share=plenty, now=lambda: 1e9 + KEPT_S + 1)
    assert len(list((image.parent / FOLDER).iterdir())) == 1


@pytest.mark.parametrize("full", [True, False])
def test_without_room_or_need_it_is_gone_for_good(image: Path, *, full: bool) -> None:
    gone = delete(image, for_good=not full, free_share=lambda _: 0.01 if full else 0.9)
    assert gone.kept is None
    assert not (image.parent / FOLDER).exists()
    with pytest.raises(NotFoundError):
        restore(image)


def test_a_folder_is_never_deleted(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        delete(tmp_path)


def test_what_is_not_there_cannot_be_deleted(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        delete(tmp_path / "nothing.sif")


def test_a_link_is_deleted_and_not_what_it_points_to(image: Path) -> None:
    link = image.with_name("link.sif")
    link.symlink_to(image)
    delete(link, for_good=True)
    assert image.exists()
    assert not link.is_symlink()


def test_nothing_is_overwritten_by_bringing_back(image: Path) -> None:
    delete(image, free_share=plenty)
    image.write_bytes(b"new")
    with pytest.raises(ExistsError):
        restore(image)
    assert image.read_bytes() == b"new"
