"""What is remembered of an image file, so that its next start need not read it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from backend.runtime import image
from backend.runtime.image import Layer, find_user, mark_used, read_image
from backend.values import replace
from tests.support import containers

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = {
    "Env": ["A=1", "B=x\ny", "C=caf\u00e9", "D="],
    "Entrypoint": ["/bin/sh", "-c"],
    "Cmd": ["a b", "", "c=d"],
    "WorkingDir": "/w",
    "User": "7:8",
}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIFDECK_CACHE_DIR", str(tmp_path / "cache"))
    return containers.busybox(tmp_path, **CONFIG)


def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let reading an image's file fail, so that only memory is left."""

    def refuse(path: str) -> None:
        raise AssertionError(f"{path} is read again")

    monkeypatch.setattr(image, "_read", refuse)


def test_what_is_remembered_is_what_was_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = read_image(str(path))
    user = find_user(read, "7:8")
    no_reading(monkeypatch)
    again = read_image(str(path))
    assert again == read
    assert again.env == tuple(CONFIG["Env"])
    assert again.cmd == tuple(CONFIG["Cmd"])
    assert again.users == {"7:8": user}


def test_an_image_that_has_changed_is_read_again(path: Path) -> None:
    read_image(str(path))
    layer = containers.squashfs(path.parent, b"\0" * 10240)
    containers.oci_sif(path, [layer], {"Cmd": ["other"]})
    assert read_image(str(path)).cmd == ("other",)


def test_using_a_file_changes_nothing_in_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(path, (1, 1))
    read = read_image(str(path))
    mark_used(str(path))
    assert path.stat().st_mtime > 1
    no_reading(monkeypatch)
    assert read_image(str(path)) == read


def test_an_overlay_is_remembered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = read_image(str(path))
    full = replace(read, overlay=Layer(offset=4096, size=7), is_native=True)
    state = path.stat()
    image._remember(image._memory(state), state, full)
    no_reading(monkeypatch)
    assert read_image(str(path)) == full


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
def test_a_damaged_memory_is_no_harm(path: Path, tmp_path: Path, cut: int) -> None:
    read = read_image(str(path))
    (memory,) = (tmp_path / "cache/runtime").iterdir()
    memory.write_bytes(memory.read_bytes()[:cut])
    assert read_image(str(path)) == read
    memory.write_bytes(memory.read_bytes().replace(b"layer=", b"layer=x"))
    assert read_image(str(path)) == read
