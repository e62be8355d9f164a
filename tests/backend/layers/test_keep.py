"""Layers kept apart come to the same tree as squashed ones, when overlayfs lays them together."""

from __future__ import annotations

import gzip
import io
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings

from backend.errors import FormatError
from backend.events import Event, Phase
from backend.layers.keep import LayerKeeper
from tests.backend.layers.model import BadLinkError, expected
from tests.backend.layers.test_squash import CASES, STACKS, file, opaque
from tests.support.images import directory, hardlink, layer
from tests.support.squashfs import Seen, kernel_mounted, need_root, overlaid, snapshot
from tests.support.squashing import source

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.images import Entry


def keep(folder: Path, layers: list[list[Entry]]) -> list[Path]:
    """Write each layer as an image of its own and return them, base first."""
    keeper = LayerKeeper([source(layer(*entries)) for entries in layers])
    images = []
    for index in range(len(layers)):
        image = folder / f"layer{index}"
        with image.open("w+b") as out:
            keeper.write(index, out)
        images.append(image)
    return images


def without_links(seen: dict[bytes, Seen]) -> dict[bytes, Seen]:
    """Hard links do not reach across the layers of an overlay."""
    return {path: replace(one, same=()) for path, one in seen.items()}


def overlay_shows(seen: dict[bytes, Seen]) -> dict[bytes, Seen]:
    """Overlayfs keeps its own xattrs to itself, but for those of the name it does not use."""
    return {
        path: replace(
            one,
            xattrs=tuple(pair for pair in one.xattrs if pair[0] != "user.overlay.opaque"),
        )
        for path, one in seen.items()
    }


DANGLING = "hidden hard link without target"


def test_a_layer_by_itself_cannot_have_a_dangling_link(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="hard link"):
        keep(tmp_path, CASES[DANGLING])


@pytest.mark.parametrize("name", [name for name in CASES if name != DANGLING])
def test_every_case_comes_out_as_squashed(name: str, tmp_path: Path) -> None:
    need_root()
    images = keep(tmp_path, CASES[name])
    with overlaid(images) as root:
        got = overlay_shows(snapshot(root, links=False))
    assert got == without_links(expected(CASES[name]))


@settings(
    max_examples=40,
)
@given(layers=STACKS)
def test_random_stacks_come_out_as_squashed(layers: list[list[Entry]], tmp_path: Path) -> None:
    try:
        wanted = without_links(expected(layers))
    except BadLinkError:
        return
    try:
        images = keep(tmp_path, layers)
    except FormatError as error:
        # A link that an upper layer hides is in this layer all the same.
        assert "hard link" in error.message  # noqa: PT017
        return
    with overlaid(images) as root:
        assert overlay_shows(snapshot(root, links=False)) == wanted


def test_marks_are_those_of_overlayfs(tmp_path: Path) -> None:
    layers = [[directory("d", 0o700), file("d/x"), file("gone")], [opaque("d"), file(".wh.gone")]]
    images = keep(tmp_path, layers)
    with kernel_mounted(images[1]) as root:
        seen = snapshot(root)
    assert (seen[b"gone"].kind, seen[b"gone"].content) == ("character", 0)
    assert seen[b"d"].xattrs == (("trusted.overlay.opaque", b"y"), ("user.overlay.opaque", b"y"))
    assert seen[b"d"].mode == 0o700


def test_the_base_has_nothing_to_hide(tmp_path: Path) -> None:
    image = keep(tmp_path, [[file(".wh.a"), opaque("d"), file("d/x")]])[0]
    with kernel_mounted(image) as root:
        seen = snapshot(root)
    assert set(seen) == {b"", b"d", b"d/x"}
    assert seen[b"d"].xattrs == ()


def test_a_hard_link_into_a_lower_layer_is_a_copy(tmp_path: Path) -> None:
    layers = [[file("a", b"data", uid=7)], [file("other")], [hardlink("b", "a")]]
    with kernel_mounted(keep(tmp_path, layers)[2]) as root:
        assert (root / "b").read_bytes() == b"data"
        assert (root / "b").stat().st_uid == 7


def test_equal_layers_give_equal_bytes_and_progress_reaches_the_end() -> None:
    events: list[Event] = []
    packed = [gzip.compress(layer(directory("d"), file("d/a"))) for _ in range(2)]
    keeper = LayerKeeper([source(data) for data in packed], report=events.append)
    first, second = io.BytesIO(), io.BytesIO()
    keeper.write(0, first)
    keeper.write(1, second)
    assert first.getvalue() == second.getvalue()
    done = [event.done for event in events if isinstance(event, Phase)]
    assert done == sorted(done)
    assert done[-1] <= sum(map(len, packed))
