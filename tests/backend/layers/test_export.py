"""What was squashed comes back as tar: the same tree, whoever reads it."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from backend.layers.export import GeneratedFile, tar_chunks
from backend.layers.keep import LayerKeeper
from backend.layers.squash import LayerSource, squash_layers
from backend.squashfs.inode import Attributes, Inode, Kind
from backend.squashfs.reader import SquashfsReader
from backend.squashfs.writer import SquashfsWriter
from tests.backend.layers.model import expected
from tests.backend.layers.test_keep import without_links
from tests.backend.layers.test_squash import CASES, file
from tests.backend.squashfs.test_writer import PLAIN, add_file, folder
from tests.support.images import directory, layer
from tests.support.squashfs import need_root, snapshot, unsquashed
from tests.support.squashing import source, squash_bytes, squash_entries

if TYPE_CHECKING:
    from pathlib import Path


def exported(image: Path, *, is_layer: bool = False) -> bytes:
    with image.open("rb") as opened:
        return b"".join(tar_chunks(SquashfsReader(opened), is_layer=is_layer))


NAMES = [name for name in CASES if name != "hidden hard link without target"]


@pytest.mark.parametrize("name", NAMES)
def test_gnu_tar_extracts_what_the_file_system_holds(name: str, tmp_path: Path) -> None:
    need_root()
    if not shutil.which("tar"):
        pytest.skip("no GNU tar")
    image = tmp_path / "image"
    squash_entries(image, *CASES[name])
    target = tmp_path / "extracted"
    target.mkdir()
    argv = [
        "tar",
        "-C",
        str(target),
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "-xpf",
        "-",
    ]
    subprocess.run(argv, input=exported(image), check=True, capture_output=True)
    with unsquashed(image) as root:
        assert snapshot(target) == snapshot(root)


def test_squashing_the_export_gives_the_same_files(tmp_path: Path) -> None:
    for name in NAMES:
        squash_entries(tmp_path / "first", *CASES[name])
        archive = exported(tmp_path / "first")
        squash_bytes(tmp_path / "again", archive)
        assert exported(tmp_path / "again") == archive, name


@pytest.mark.parametrize("name", NAMES)
def test_kept_layers_become_layers_again(name: str, tmp_path: Path) -> None:
    keeper = LayerKeeper([source(layer(*entries)) for entries in CASES[name]])
    archives = []
    for index in range(len(CASES[name])):
        with (tmp_path / "layer").open("w+b") as out:
            keeper.write(index, out)
        archives.append(exported(tmp_path / "layer", is_layer=True))
    squash_bytes(tmp_path / "image", *archives)
    with unsquashed(tmp_path / "image") as root:
        assert without_links(snapshot(root)) == without_links(expected(CASES[name]))


def test_names_and_numbers_that_no_plain_header_can_hold(tmp_path: Path) -> None:
    need_root()
    deep = b"d" * 200
    owner = Attributes(0o600, 3_000_000_000, 4_000_000_000)
    entries = {
        deep: folder({b"\xff\n" * 100: Inode(Kind.FIFO, owner, 2**32 - 1)}),
        b"link": Inode(Kind.SYMLINK, Attributes(0o777, 0, 0), 1, b"t" * 3000),
        b"socket": Inode(Kind.SOCKET, PLAIN, 1),
    }
    image = tmp_path / "image"
    with image.open("w+b") as out, SquashfsWriter(out) as writer:
        writer.finish(folder(entries))
    with tarfile.open(fileobj=io.BytesIO(exported(image)), errors="surrogateescape") as tar:
        members = {os.fsencode(member.name): member for member in tar}
    fifo = members[deep + b"/" + b"\xff\n" * 100]
    assert (fifo.uid, fifo.gid, fifo.mtime) == (3_000_000_000, 4_000_000_000, 2**32 - 1)
    assert members[b"link"].linkname == "t" * 3000
    assert b"socket" not in members


def test_holes_stay_holes(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("w+b") as out, SquashfsWriter(out) as writer:
        pieces = (b"start", 9 << 30, b"x" * 3_000_000, 2 << 20, b"end")
        writer.finish(folder({b"s": add_file(writer, *pieces), b"z": add_file(writer, 5 << 20)}))
    archive = exported(image)
    assert len(archive) < 9_000_000
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.getmember("s").size == (9 << 30) + 5 + 3_000_000 + (2 << 20) + 3
        assert tar.getmember("z").size == 5 << 20
    squash_bytes(tmp_path / "again", archive)
    assert exported(tmp_path / "again") == archive


def test_a_character_device_0_0_is_a_whiteout_in_a_layer_only(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("w+b") as out, SquashfsWriter(out) as writer:
        entries = {b"gone": Inode(Kind.CHARACTER_DEVICE, PLAIN, 1, 0)}
        writer.finish(folder({b"d": folder(entries)}))
    for is_layer, name in ((True, "d/.wh.gone"), (False, "d/gone")):
        with tarfile.open(fileobj=io.BytesIO(exported(image, is_layer=is_layer))) as tar:
            assert tar.getnames() == [".", "d", name]


def test_an_export_can_be_read_like_a_file(tmp_path: Path) -> None:
    image = tmp_path / "image"
    squash_entries(image, [directory("d"), file("d/a", b"x" * 700_000)])
    archive = exported(image)
    with image.open("rb") as opened:
        chunks = tar_chunks(SquashfsReader(opened), is_layer=False)
        generated = io.BufferedReader(GeneratedFile(chunks))
        assert generated.read(3) + generated.read(100_000) == archive[:100_003]
        assert generated.tell() == 100_003
        assert generated.read() == archive[100_003:]

    with image.open("rb") as opened, (tmp_path / "again").open("w+b") as out:
        chunks = tar_chunks(SquashfsReader(opened), is_layer=False)
        generated = io.BufferedReader(GeneratedFile(chunks))
        squash_layers([LayerSource(media_type="", open=lambda: generated)], out)
    assert (tmp_path / "again").read_bytes() == squash_bytes(tmp_path / "third", archive)
