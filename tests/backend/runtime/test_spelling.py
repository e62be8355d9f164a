"""What references meant, by how they were written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backend.runtime.spelling import find_spelled, note_spelling

if TYPE_CHECKING:
    from pathlib import Path

TAG, DIGEST = "docker://h.example/a/b:1", f"docker://h.example/a%2Fb@sha256:{'0' * 64}"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIFDECK_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "image.sif"
    path.write_bytes(b"x")
    return path


def test_a_digest_means_the_same_for_ever(file: Path) -> None:
    assert find_spelled(DIGEST, offline=True) == ""
    note_spelling(DIGEST, str(file), "")
    assert find_spelled(DIGEST, offline=False) == str(file)
    assert find_spelled(DIGEST.replace("%2F", "/"), offline=False) == ""


def test_a_tag_means_what_the_cache_says_and_offline_only(file: Path, tmp_path: Path) -> None:
    tag = tmp_path / "tag"
    tag.write_text("sha256:1")
    note_spelling(TAG, str(file), str(tag))
    assert find_spelled(TAG, offline=False) == ""
    assert find_spelled(TAG, offline=True) == str(file)
    tag.write_text("sha256:2")
    assert find_spelled(TAG, offline=True) == ""
    tag.unlink()
    assert find_spelled(TAG, offline=True) == ""


@pytest.mark.parametrize("text", ["", "x", "a\0b", "a\0b\0c\0d", "\udc80\0"])
def test_a_damaged_note_says_nothing(file: Path, text: str) -> None:
    note_spelling(DIGEST, str(file), "")
    (note,) = (file.parent / "cache/references").iterdir()
    note.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert find_spelled(DIGEST, offline=True) == ""


def test_what_cannot_be_noted_is_no_error(file: Path) -> None:
    long = f"docker://h.example/{'a' * 300}:1"
    note_spelling(long, str(file), "")
    note_spelling(TAG, str(file), str(file.parent / "no tag"))
    assert find_spelled(long, offline=True) == find_spelled(TAG, offline=True) == ""
