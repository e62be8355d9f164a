"""The ext reader, against file systems that mke2fs makes, whole and damaged."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import FormatError
from backend.sif.ext import ExtReader

if TYPE_CHECKING:
    from pathlib import Path

BIG = b"0123456789abcdef" * 60_000


def make(folder: Path, *options: str) -> bytes:
    program = shutil.which("mke2fs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None:
        pytest.skip("no mke2fs")
    tree = folder / "tree"
    if not tree.exists():
        (tree / "d" / "many").mkdir(parents=True)
        (tree / "big").write_bytes(BIG)
        with (tree / "sparse").open("wb") as file:
            file.seek(300_000)
            file.write(b"end")
        (tree / "d" / "link").symlink_to("x" * 80)
        (tree / "d" / "short").symlink_to("big")
        for i in range(300):
            (tree / "d" / "many" / f"file {i}").touch()
    image = folder / "image"
    argv = [program, "-q", "-F", *options, "-d", str(tree), str(image), "4M"]
    subprocess.run(argv, check=True, capture_output=True)
    data = image.read_bytes()
    image.unlink()
    return data


@pytest.mark.parametrize(
    "options",
    [
        ("-t", "ext2", "-b", "1024"),
        ("-t", "ext3", "-b", "1024"),
        ("-t", "ext3", "-b", "4096", "-I", "128"),
        ("-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^has_journal"),
    ],
)
def test_everything_is_read(tmp_path: Path, options: tuple[str, ...]) -> None:
    data = make(tmp_path, *options)
    path = tmp_path / "x"
    path.write_bytes(bytes(777) + data)
    with path.open("rb") as file:
        reader = ExtReader(file, offset=777, size=len(data))
        for name, content in ((b"big", BIG), (b"sparse", bytes(300_000) + b"end")):
            node = reader.lookup(name)
            assert node is not None
            chunks = reader.read(node)
            assert (
                b"".join(bytes(one) if isinstance(one, int) else one for one in chunks) == content
            )
        many = reader.lookup(b"d/many")
        assert many is not None
        assert sorted(name for name, _ in reader.entries(many)) == sorted(
            b"file %d" % i for i in range(300)
        )
        for name, target in ((b"d/link", b"x" * 80), (b"d/short", b"big")):
            link = reader.lookup(name)
            assert link is not None
            assert stat.S_ISLNK(link.mode)
            assert reader.readlink(link) == target
        assert reader.lookup(b"d/none") is None


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make(tmp_path_factory.mktemp("ext"), "-t", "ext2", "-b", "1024")


@given(
    changes=st.lists(
        st.tuples(st.integers(1024, 600_000), st.binary(min_size=1, max_size=8)), max_size=6
    ),
    cut=st.sampled_from([0, 0, 1_000_000, 4_190_000]),
)
def test_any_damage_is_a_format_error(
    sample: bytes, changes: list[tuple[int, bytes]], cut: int
) -> None:
    data = bytearray(sample)
    for at, change in changes:
        data[at : at + len(change)] = change
    fd = os.memfd_create("image")
    with os.fdopen(fd, "wb") as file:
        file.write(data[: len(data) - cut])
        file.flush()
        with contextlib.suppress(FormatError):
            read_all(ExtReader(file, offset=0, size=len(data)))


def read_all(reader: ExtReader) -> None:
    waiting, seen = [2], set()
    while waiting:
        number = waiting.pop()
        if number in seen:
            continue
        seen.add(number)
        node = reader.node(number)
        reader.xattrs(node)
        if stat.S_ISDIR(node.mode):
            waiting += [one for _, one in reader.entries(node)]
        elif stat.S_ISLNK(node.mode):
            reader.readlink(node)
        else:
            for _ in reader.read(node):
                pass
