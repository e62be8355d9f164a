"""The squashfs reader, against images that mksquashfs and tar2sqfs make of a known tree."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import FormatError
from backend.squashfs.inode import Kind, split_device
from backend.squashfs.reader import SquashfsReader
from backend.squashfs.superblock import parse_superblock
from tests.support.images import Entry, directory, hardlink, layer, symlink

if TYPE_CHECKING:
    from pathlib import Path

COMPRESSORS = ["gzip", "lzma", "lzo", "lz4", "xz", "zstd"]


def content() -> dict[str, bytes]:
    chance = random.Random(1)  # noqa: S311  (the same bytes each time)
    return {
        "etc/passwd": b"root:x:0:0::/root:/bin/sh\n",
        "big/random": chance.randbytes(300_001),
        "big/text": b"hello world, hello squashfs\n" * 30_000,
        "big/holes": b"start" + bytes(1_000_000) + b"end",
        "big/zeros": bytes(131072 * 2),
        "big/exact": chance.randbytes(1000) * 131 + b"x" * 72,
        "empty": b"",
        "odd\n\xff\x1b[31m": b"odd",
        **{f"many/file-{i:05}-with-a-longer-name": b"%d" % i * (i % 40) for i in range(1500)},
    }


def entries() -> list[Entry]:
    pax = {
        "SCHILY.xattr.user.one": "1",
        "SCHILY.xattr.user.long": "v" * 3000,
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.security.other": "s",
    }
    folders = [directory(name, 0o750, uid=5, gid=70000) for name in ("etc", "big", "many")]
    files = [Entry(name=name, data=data, mode=0o640) for name, data in content().items()]
    return [
        *files,
        Entry(name="setuid", data=b"s", mode=0o4755, uid=4_000_000_000, gid=99_999, pax=pax),
        hardlink("big/again", "big/text"),
        symlink("abs", "/etc/passwd"),
        symlink("etc/rel", "../etc/./passwd"),
        symlink("out", "../../../../etc"),
        symlink("loop", "loop"),
        symlink("marked/link", "x" * 4000, pax={"SCHILY.xattr.trusted.a": "b"}),
        Entry(name="null", kind=b"3", device=(1, 3), mode=0o666),
        Entry(
            name="disk", kind=b"4", device=(8, 300), mode=0o660, pax={"SCHILY.xattr.trusted.a": "b"}
        ),
        Entry(name="pipe", kind=b"6", mode=0o600),
        *folders,  # behind what is in them, so that unpacking keeps their times
        directory("marked", pax=pax),
    ]


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"no {program}")
    return found


@pytest.fixture(scope="module")
def tar() -> bytes:
    return layer(*entries())


def by_tar2sqfs(tar: bytes, target: Path, *options: str) -> Path:
    argv = [need("tar2sqfs"), "-q", *options, str(target)]
    subprocess.run(argv, input=tar, check=True, stderr=subprocess.DEVNULL)
    return target


def by_mksquashfs(folder: Path, target: Path, *options: str) -> Path:
    argv = [need("mksquashfs"), str(folder), str(target), "-noappend", "-quiet", "-no-progress"]
    subprocess.run([*argv, *options], check=True, stdout=subprocess.DEVNULL)
    return target


def unpack(tar: bytes, folder: Path) -> Path:
    folder.mkdir()
    argv = [
        "tar",
        "-x",
        "-P",
        "-C",
        str(folder),
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
    ]
    subprocess.run(argv, input=tar, check=True)
    return folder


def check_tree(path: Path, *, offset: int = 0, devices: bool = True) -> None:
    """Hold everything in an image against what went in."""
    with path.open("rb") as file:
        reader = SquashfsReader(file, offset=offset)
        found = dict(reader.walk())
        made = {entry.name.encode("utf-8", "surrogateescape"): entry for entry in entries()}
        assert set(found) == {b"", *made}
        for name, entry in made.items():
            node = found[name]
            if entry.kind == b"1":
                assert node.number == found[entry.link.encode()].number
                assert node.links == 2
                continue
            assert node.kind == KINDS[entry.kind], name
            if node.kind is not Kind.SYMLINK:
                assert node.mode == entry.mode, name
            assert (node.uid, node.gid, node.mtime) == (entry.uid, entry.gid, entry.mtime), name
            attributes = {
                f"SCHILY.xattr.{key.decode()}": value.decode() for key, value in reader.xattrs(node)
            }
            assert attributes == entry.pax, name
            if node.kind is Kind.FILE:
                assert node.size == len(entry.data)
                assert b"".join(reader.read(node)) == entry.data, name
            elif node.kind is Kind.SYMLINK:
                assert reader.readlink(node) == entry.link.encode()
            elif node.kind in {Kind.BLOCK_DEVICE, Kind.CHARACTER_DEVICE} and devices:
                assert split_device(node.device) == entry.device


KINDS = {
    b"0": Kind.FILE,
    b"5": Kind.DIRECTORY,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER_DEVICE,
    b"4": Kind.BLOCK_DEVICE,
    b"6": Kind.FIFO,
}


@pytest.mark.parametrize("name", COMPRESSORS)
def test_mksquashfs_every_compressor(tar: bytes, tmp_path: Path, name: str) -> None:
    if os.geteuid():
        pytest.skip("only root can unpack owners and devices")
    folder = unpack(tar, tmp_path / "tree")
    check_tree(by_mksquashfs(folder, tmp_path / "x.sqfs", "-comp", name))


@pytest.mark.parametrize(
    "options",
    [
        ("-b", "4096", "-always-use-fragments"),
        ("-b", "1M", "-comp", "zstd"),
        ("-noI", "-noD", "-noF", "-noX"),
        ("-no-fragments", "-no-exports", "-no-duplicates"),
        ("-no-sparse", "-nopad", "-comp", "xz", "-Xbcj", "x86"),
    ],
)
def test_mksquashfs_options(tar: bytes, tmp_path: Path, options: tuple[str, ...]) -> None:
    if os.geteuid():
        pytest.skip("only root can unpack owners and devices")
    folder = unpack(tar, tmp_path / "tree")
    check_tree(by_mksquashfs(folder, tmp_path / "x.sqfs", *options))


@pytest.mark.parametrize("name", ["gzip", "lzma", "lz4", "xz", "zstd"])
def test_tar2sqfs(tar: bytes, tmp_path: Path, name: str) -> None:
    check_tree(by_tar2sqfs(tar, tmp_path / "x.sqfs", "-c", name))


def test_any_offset(tar: bytes, tmp_path: Path) -> None:
    data = by_tar2sqfs(tar, tmp_path / "x.sqfs").read_bytes()
    (tmp_path / "y.sif").write_bytes(bytes(11117) + data + b"more")
    check_tree(tmp_path / "y.sif", offset=11117)


@pytest.fixture(scope="module")
def reader(tar: bytes, tmp_path_factory: pytest.TempPathFactory) -> SquashfsReader:
    path = by_tar2sqfs(tar, tmp_path_factory.mktemp("image") / "x.sqfs", "-c", "zstd")
    with path.open("rb") as file:
        fd = os.dup(file.fileno())
    return SquashfsReader(fd)


@pytest.mark.parametrize(
    "path",
    [
        "etc/passwd",
        "/etc/passwd",
        "//etc/.//passwd",
        "../etc/passwd",
        "abs",
        "etc/rel",
        "out/passwd",
        "many/../out/rel",
        b"big/../etc/passwd",
    ],
)
def test_lookup(reader: SquashfsReader, path: str | bytes) -> None:
    node = reader.lookup(path)
    assert node is not None
    assert reader.read_bytes(node, limit=100) == b"root:x:0:0::/root:/bin/sh\n"


@pytest.mark.parametrize(
    "path", ["none", "etc/none", "etc/passwd/x", "etc/passwd/..", "loop", "loop/x", "a" * 300]
)
def test_lookup_of_nothing(reader: SquashfsReader, path: str) -> None:
    assert reader.lookup(path) is None


def test_lookup_without_following(reader: SquashfsReader) -> None:
    node = reader.lookup("abs", follow=False)
    assert node is not None
    assert reader.readlink(node) == b"/etc/passwd"
    loop = reader.lookup("loop", follow=False)
    assert loop is not None
    assert loop.kind is Kind.SYMLINK
    assert reader.lookup("/") == reader.lookup("..") == reader.lookup("") == reader.root


def test_every_name_in_a_long_directory_is_found(reader: SquashfsReader) -> None:
    folder = reader.lookup("many")
    assert folder is not None
    names = [name for name, _ in reader.entries(folder)]
    assert len(names) == 1500
    for name in names[::50] + names[-1:]:
        assert reader.child(folder, name) is not None
        assert reader.child(folder, name + b"x") is None


def test_size_is_bounded(reader: SquashfsReader) -> None:
    node = reader.lookup("big/random")
    assert node is not None
    with pytest.raises(FormatError, match="at most 300000"):
        reader.read_bytes(node, limit=300_000)


def test_long_directories_have_an_index(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    (folder / "d").mkdir(parents=True)
    for i in range(3000):
        (folder / "d" / f"{'n' * 40}{i}").touch()
    with by_mksquashfs(folder, tmp_path / "x.sqfs").open("rb") as file:
        reader = SquashfsReader(file)
        top = reader.lookup("d")
        assert top is not None
        assert top.detail > 1
        for i in range(0, 3000, 37):
            assert reader.lookup(f"d/{'n' * 40}{i}") is not None
        assert reader.lookup("d/a") is reader.lookup("d/zzz") is None


def test_thousand_xattrs(tmp_path: Path) -> None:
    pax = {f"SCHILY.xattr.user.{i:04}": f"value {i}" for i in range(1000)}
    tar = layer(Entry(name="f", pax=pax), Entry(name="g", pax=pax))
    with by_tar2sqfs(tar, tmp_path / "x.sqfs").open("rb") as file:
        reader = SquashfsReader(file)
        for name in ("f", "g"):
            node = reader.lookup(name)
            assert node is not None
            assert {key: value.decode() for key, value in reader.xattrs(node)} == {
                key.removeprefix("SCHILY.xattr.").encode(): value for key, value in pax.items()
            }


# -- damage ------------------------------------------------------------------------------


def small(tmp: Path, name: str) -> bytes:
    tar = layer(
        directory("d"),
        Entry(name="d/file", data=b"content " * 2000, pax={"SCHILY.xattr.user.a": "b" * 300}),
        Entry(name="d/other", data=b"x"),
        symlink("link", "d/file"),
        Entry(name="null", kind=b"3", device=(1, 3)),
    )
    return by_tar2sqfs(tar, tmp / f"{name}.sqfs", "-c", name, "-b", "4096").read_bytes()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("samples")
    return {name: small(folder, name) for name in ("gzip", "xz", "lzma", "lz4", "zstd")}


def read_all(data: bytes) -> None:
    """Read everything; a FormatError is an answer, anything else is not."""
    fd = os.memfd_create("image")
    try:
        os.write(fd, data)
        reader = SquashfsReader(fd)
        for path, node in reader.walk():
            reader.lookup(path)
            reader.xattrs(node)
            if node.kind is Kind.FILE:
                for chunk, _ in zip(reader.read(node), range(50), strict=False):
                    assert len(chunk) <= 1 << 20
            elif node.kind is Kind.SYMLINK:
                reader.readlink(node)
    except FormatError:
        pass
    finally:
        os.close(fd)


@given(
    name=st.sampled_from(["gzip", "xz", "lzma", "lz4", "zstd"]),
    changes=st.lists(
        st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=8)), max_size=4
    ),
    cut=st.integers(0, 5000),
)
def test_any_damage_is_a_format_error(
    samples: dict[str, bytes], name: str, changes: list[tuple[int, bytes]], cut: int
) -> None:
    data = bytearray(samples[name])
    for at, change in changes:
        start = at % len(data)
        data[start : start + len(change)] = change
    read_all(bytes(data[: max(96, len(data) - (cut if cut > 4000 else 0))]))


@given(data=st.binary(max_size=300), name=st.sampled_from(range(8)))
def test_any_bytes_are_a_format_error(data: bytes, name: int) -> None:
    read_all(data)
    head = struct.pack(
        "<5I6H8Q", 0x73717368, 1, 0, 4096, 1, name, 12, 0, 1, 4, 0, 0, 396, *[96] * 6
    )
    read_all((head + data).ljust(396, b"\0"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (b"\0" * 4, "magic"),
        (b"hsqs", "only"),
    ],
)
def test_superblock(samples: dict[str, bytes], change: bytes, message: str) -> None:
    data = change + samples["gzip"][4:]
    with pytest.raises(FormatError, match=message):
        parse_superblock(data[:96], 200)


def test_a_directory_in_itself_ends(tmp_path: Path) -> None:
    """Point the entry of ``d`` back at the root: a walk of it would never end."""
    raw = tmp_path / "raw"
    (raw / "d").mkdir(parents=True)
    image = by_mksquashfs(raw, tmp_path / "x.sqfs", "-noI", "-noX", "-noF", "-noD").read_bytes()
    inodes, listing = struct.unpack_from("<2Q", image, 64)
    (root,) = struct.unpack_from("<Q", image, 32)
    data = bytearray(image)
    # The listing is a head of 12 bytes, then offset, number, type, size and name of the entry.
    struct.pack_into("<H", data, listing + 2 + 12, root & 0xFFFF)
    path = tmp_path / "loop.sqfs"
    path.write_bytes(data)
    with path.open("rb") as file, pytest.raises(FormatError, match="no tree"):
        list(SquashfsReader(file).walk())
    assert inodes < listing


@pytest.mark.parametrize("name", [b"..", b".", b"a/b", b"\0"])
def test_names_that_lead_out(tmp_path: Path, name: bytes) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / ("n" * len(name))).touch()
    image = by_mksquashfs(raw, tmp_path / "x.sqfs", "-noI", "-noX", "-noF", "-noD").read_bytes()
    (listing,) = struct.unpack_from("<Q", image, 72)
    data = bytearray(image)
    at = listing + 2 + 12 + 8
    assert data[at : at + len(name)] == b"n" * len(name)
    data[at : at + len(name)] = name
    path = tmp_path / "bad.sqfs"
    path.write_bytes(data)
    with path.open("rb") as file, pytest.raises(FormatError, match="entry called"):
        list(SquashfsReader(file).walk())


def test_bombs_are_refused() -> None:
    """A metadata block that unpacks to more than 8 KiB is damage, in each compressor."""
    import lzma
    import zlib

    import lz4.block
    import zstandard

    from backend.squashfs.decompress import unpacker

    zeros = bytes(50 << 20)
    bombs = {
        1: zlib.compress(zeros),
        2: lzma.compress(zeros, lzma.FORMAT_ALONE),
        4: lzma.compress(zeros),
        5: lz4.block.compress(zeros, store_size=False),
        6: zstandard.compress(zeros),
    }
    for number, bomb in bombs.items():
        with pytest.raises(FormatError):
            unpacker(number)(bomb, 8192)
    out = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(out, closefd=False) as stream:
        stream.write(zeros)
    with pytest.raises(FormatError):
        unpacker(6)(out.getvalue(), 8192)


@given(data=st.binary(max_size=200), limit=st.integers(0, 10000), number=st.integers(1, 6))
def test_any_block_is_bounded(data: bytes, limit: int, number: int) -> None:
    from backend.squashfs.decompress import unpacker

    with contextlib.suppress(FormatError):
        assert len(unpacker(number)(data, limit)) <= limit
