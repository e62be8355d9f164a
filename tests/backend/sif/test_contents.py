"""The layers of an image seen as one tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backend.errors import FormatError, NotFoundError
from backend.sif.contents import ImageTree, directory_sizes, survey
from backend.squashfs.inode import Kind
from tests.support.images import Entry, directory, hardlink, symlink
from tests.support.sifs import blob, partition, sif
from tests.support.squashed import OPAQUE, squash, whiteout, write_sif

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BASE = [
    directory("a"),
    Entry(name="a/one", data=b"1" * 1000),
    Entry(name="a/two", data=b"2" * 2000),
    hardlink("a/two-again", "a/two"),
    directory("opaque"),
    Entry(name="opaque/old", data=b"o" * 500),
    directory("opaque/sub"),
    Entry(name="opaque/sub/old", data=b"o" * 7),
    Entry(name="file-to-dir", data=b"file"),
    directory("dir-to-file"),
    Entry(name="dir-to-file/x", data=b"x" * 70),
    directory("gone"),
    Entry(name="gone/y", data=b"y" * 30),
    symlink("link", "a/one"),
    Entry(name="same", data=b"same"),
]
MIDDLE = [
    directory("a", 0o700),
    whiteout("a/two"),
    Entry(name="a/one", data=b"new"),
    directory("opaque", pax=OPAQUE),
    Entry(name="opaque/new", data=b"n"),
    directory("file-to-dir"),
    Entry(name="file-to-dir/in", data=b"in"),
    Entry(name="dir-to-file", data=b"now a file"),
    whiteout("gone"),
    whiteout("never"),
]
TOP = [
    directory("a"),
    Entry(name="a/two", data=b"back"),
    directory("gone"),
    Entry(name="gone/z", data=b"z"),
    directory("opaque"),
    Entry(name="opaque/top", data=b"t", pax={"SCHILY.xattr.user.k": "v"}),
]
SEEN = {
    b"a": 3,
    b"a/one": 2,
    b"a/two": 3,
    b"a/two-again": 1,
    b"dir-to-file": 2,
    b"file-to-dir": 2,
    b"file-to-dir/in": 2,
    b"gone": 3,
    b"gone/z": 3,
    b"link": 1,
    b"opaque": 3,
    b"opaque/new": 2,
    b"opaque/top": 3,
    b"same": 1,
}
"""Path -> number of the layer it is from."""


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[ImageTree]:
    with ImageTree(write_sif(tmp_path / "x.sif", BASE, MIDDLE, TOP)) as opened:
        yield opened


def test_layers_are_one_tree(tree: ImageTree) -> None:
    found = {path: file.layer + 1 for path, file in tree.walk() if path}
    assert found == SEEN


def test_lookup_sees_the_same(tree: ImageTree) -> None:
    for path, number in SEEN.items():
        file = tree.lookup(path, follow=False)
        assert file is not None
        assert file.layer + 1 == number
    for hidden in ("opaque/old", "opaque/sub", "dir-to-file/x", "gone/y", "never", "a/none"):
        assert tree.lookup(hidden) is None


def test_contents_and_links(tree: ImageTree) -> None:
    _, file = tree.need("/link")
    assert b"".join(tree.read(file)) == b"new"
    assert tree.xattrs(tree.need("opaque")[1]) == ()
    assert tree.xattrs(tree.need("opaque/top")[1]) == ((b"user.k", b"v"),)
    with pytest.raises(NotFoundError, match="has no nothing"):
        tree.need("nothing")


def test_what_each_layer_brought(tree: ImageTree) -> None:
    found = survey(tree)
    base, middle, top = found.layers
    assert (base.files, base.size, base.removed) == (10, 1000 + 2000 + 500 + 7 + 4 + 70 + 30 + 4, 0)
    # a/two is gone, but its other name is there, so its bytes are not wasted.
    assert base.wasted == 1000 + 500 + 7 + 4 + 70 + 30
    assert (middle.files, middle.wasted, middle.removed) == (4, 0, 4)
    assert (top.files, top.size, top.wasted) == (3, 6, 0)
    assert [one.path for one in found.waste[:2]] == [b"a/one", b"opaque/old"]
    assert found.wasted == sum(one.size for one in found.waste)
    assert found.size == base.size + middle.size + top.size


def test_sizes_of_directories(tree: ImageTree) -> None:
    sizes = directory_sizes(tree)
    assert sizes[b"a"] == 3 + 4 + 2000
    assert sizes[b"opaque"] == 2
    assert sizes[b""] == 2007 + 2 + 10 + 2 + 1 + 4


def test_opaque_base_and_user_xattr(tmp_path: Path) -> None:
    upper = [directory("d", pax={"SCHILY.xattr.user.overlay.opaque": "y"}), Entry(name="d/new")]
    path = write_sif(tmp_path / "x.sif", [directory("d"), Entry(name="d/old")], upper)
    with ImageTree(path) as tree:
        assert [name for name, _ in tree.walk()] == [b"", b"d", b"d/new"]


def test_sixty_layers(tmp_path: Path) -> None:
    layers = [[directory("d"), Entry(name=f"d/{i:02}", data=b"%d" % i)] for i in range(60)]
    with ImageTree(write_sif(tmp_path / "x.sif", *layers)) as tree:
        names = [(name, file.layer) for name, file in tree.entries(tree.need("d")[1])]
        assert names == [(b"%02d" % i, i) for i in range(60)]


def test_native_sif_and_plain_squashfs(tmp_path: Path) -> None:
    data = squash(tmp_path, Entry(name="f", data=b"x"))
    (tmp_path / "x.sif").write_bytes(
        sif(partition(b"raw", fs=4, kind=1), partition(data, gap=3), partition(b"e", fs=2, kind=4))
    )
    (tmp_path / "x.sqfs").write_bytes(data)
    for name, overlay in (("x.sif", True), ("x.sqfs", False)):
        with ImageTree(tmp_path / name) as tree:
            assert [path for path, _ in tree.walk()] == [b"", b"f"]
            assert tree.has_overlay is overlay


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"text" * 200, "not a SIF file"),
        (sif(blob(b"x")), "holds no squashfs"),
        (sif(partition(b"no squashfs" * 20)), "magic is missing"),
        (b"hsqs", "magic is missing"),
    ],
)
def test_what_cannot_be_looked_into(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(FormatError, match=message):
        ImageTree(tmp_path / "x")


def test_kinds_are_those_of_the_reader(tree: ImageTree) -> None:
    assert tree.need("file-to-dir")[1].kind is Kind.DIRECTORY
    assert tree.need("dir-to-file")[1].kind is Kind.FILE


def test_counting_ends_when_it_is_told_to(tree: ImageTree) -> None:
    answers = iter([False, False, True])
    assert set(directory_sizes(tree, should_stop=lambda: next(answers))) == {b"", b"a"}
    assert survey(tree, should_stop=lambda: True).size == 0
