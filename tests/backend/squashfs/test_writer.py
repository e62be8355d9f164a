"""Our file systems in the hands of unsquashfs, squashfuse and the kernel."""

from __future__ import annotations

import io
import os
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from backend.errors import FormatError, UsageError
from backend.squashfs.compression import Compression, parse_compression
from backend.squashfs.inode import Attributes, Directory, Inode, Kind, device_number, split_device
from backend.squashfs.writer import DEFAULT_BLOCK_SIZE, SquashfsWriter
from tests.support.squashfs import (
    JUDGES,
    Seen,
    fuse_mounted,
    kernel_mounted,
    need_root,
    snapshot,
    unsquashed,
)

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = Attributes(0o644, 0, 0)
FOLDER = Attributes(0o755, 0, 0)
NOISE = os.urandom(700_000)
TEXT = b"".join(b"line %d of a text that repeats itself\n" % n for n in range(40_000))


def folder(entries: dict[bytes, Inode], attributes: Attributes = FOLDER) -> Inode:
    content = Directory()
    content.entries = entries
    return Inode(Kind.DIRECTORY, attributes, 5, content)


def add_file(writer: SquashfsWriter, *pieces: bytes | int, attributes: Attributes = PLAIN) -> Inode:
    """Write a file of bytes and (numbers) holes."""
    inode = Inode(Kind.FILE, attributes, 7)
    writer.begin(inode)
    for piece in pieces:
        if isinstance(piece, int):
            writer.hole(piece)
        else:
            writer.write(piece)
    writer.end()
    return inode


def _names(root: Path) -> list[bytes]:
    return [os.fsencode(path.name) for path in root.iterdir()]


def superblock(image: Path) -> tuple[int, ...]:
    return struct.unpack("<IIIIIHHHHHHQQQQQQQQ", image.read_bytes()[:96])


@pytest.mark.parametrize("compression", ["gzip:6", "xz:1", "lz4:1", "lz4:9", "zstd:1", "zstd:3"])
@pytest.mark.parametrize(
    ("judge", "block_size"),
    [*((judge, DEFAULT_BLOCK_SIZE) for judge in JUDGES), ("kernel", 4096)],
)
def test_compressors_and_block_sizes(
    judge: str, compression: str, block_size: int, tmp_path: Path
) -> None:
    contents: dict[bytes, tuple[bytes | int, ...]] = {
        b"empty": (),
        b"byte": (b"x",),
        b"text": (TEXT,),
        b"noise": (NOISE,),
        b"zeros": (bytes(3_000_000),),
        b"holes": (5000, b"a", 2_500_000, b"b" * 100_000, 4096),
        b"exact": (NOISE[: 4096 * 3],),
        b"one block": ((TEXT + TEXT)[:block_size],),
        b"one more": ((TEXT + TEXT)[: block_size + 1],),
        b"half zeros": (TEXT, bytes(2 << 20), TEXT),
    }
    image = tmp_path / "image"
    with (
        image.open("w+b") as out,
        SquashfsWriter(
            out, compression=parse_compression(compression), block_size=block_size
        ) as writer,
    ):
        size = writer.finish(folder({k: add_file(writer, *v) for k, v in contents.items()}))
    assert size == image.stat().st_size
    assert superblock(image)[3] == block_size
    with JUDGES[judge](image) as root:
        for name, pieces in contents.items():
            wanted = b"".join(bytes(one) if isinstance(one, int) else one for one in pieces)
            assert (root / name.decode()).read_bytes() == wanted, name


def test_pieces_of_any_size_make_the_same_file() -> None:
    images = set()
    for step in (1000, 4096, 99_999, 1 << 20, len(TEXT)):
        out = io.BytesIO()
        with SquashfsWriter(out) as writer:
            pieces = [TEXT[at : at + step] for at in range(0, len(TEXT), step)]
            writer.finish(folder({b"f": add_file(writer, *pieces)}))
        images.add(out.getvalue())
    assert len(images) == 1


def test_a_directory_of_100_000_names_has_an_index(tmp_path: Path) -> None:
    need_root()
    image = tmp_path / "image"
    with image.open("w+b") as out, SquashfsWriter(out) as writer:
        names = [b"name-%06d-%s" % (n, b"x" * (n % 90)) for n in range(100_000)]
        link = Inode(Kind.SYMLINK, Attributes(0o777, 0, 0), 1, b"target")
        entries = {
            name: link if n % 50 == 0 else Inode(Kind.FIFO, PLAIN, n)
            for n, name in enumerate(reversed(names))
        }
        writer.finish(folder({b"many": folder(entries), b"few": folder({b"a": link})}))
    for mounted in (kernel_mounted, fuse_mounted):
        with mounted(image) as root:
            assert sorted(_names(root / "many")) == sorted(names)
            for number in range(0, 100_000, 4999):
                path = root / "many" / names[99_999 - number].decode()
                status = path.lstat()
                assert path.is_symlink() if number % 50 == 0 else status.st_mtime == number
            assert not os.path.lexists(root / "many" / "name-05")
            assert not os.path.lexists(root / "many" / "zzz")


def test_a_file_beyond_4_gib(tmp_path: Path) -> None:
    need_root()
    image = tmp_path / "image"
    with image.open("w+b") as out, SquashfsWriter(out) as writer:
        inode = add_file(writer, b"start", (6 << 30) - 8, b"end")
        size = writer.finish(folder({b"big": inode}))
    assert size < 20_000
    for mounted in (kernel_mounted, fuse_mounted):
        with mounted(image) as root, (root / "big").open("rb") as file:
            assert os.fstat(file.fileno()).st_size == 6 << 30
            assert file.read(6) == b"start\0"
            file.seek((6 << 30) - 4)
            assert file.read() == b"\0end"
    with kernel_mounted(image) as root:
        assert (root / "big").stat().st_blocks < 10_000


@pytest.mark.parametrize("judge", JUDGES)
def test_any_byte_in_a_name(judge: str, tmp_path: Path) -> None:
    names = [b"new\nline", b"\xff\xfe", b"\x01", b"-", b"a" * 255, "ü".encode(), b"\\x", b"*"]
    image = tmp_path / "image"
    with image.open("w+b") as out, SquashfsWriter(out) as writer:
        writer.finish(folder({name: Inode(Kind.FIFO, PLAIN, 1) for name in names}))
    with JUDGES[judge](image) as root:
        assert sorted(_names(root)) == sorted(names)


def test_a_deep_tree(tmp_path: Path) -> None:
    inode = folder({})
    for _ in range(2000):
        inode = folder({b"d": inode})
    image = tmp_path / "image"
    with image.open("w+b") as out, SquashfsWriter(out) as writer:
        writer.finish(inode)
    with kernel_mounted(image) as root:
        assert (root / "/".join("d" * 1900)).is_dir()


def test_1000_xattrs(tmp_path: Path) -> None:
    names = [b"user.%s%04d" % (b"n" * (n % 40), n) for n in range(1000)]
    xattrs = tuple(sorted((name, name * (len(name) % 7)) for name in names))
    attributes = Attributes(0o644, 0, 0, xattrs)
    image = tmp_path / "image"
    with image.open("w+b") as out, SquashfsWriter(out) as writer:
        entries = {
            b"many": add_file(writer, attributes=attributes),
            b"same": add_file(writer, b"x", attributes=attributes),
            b"lost": add_file(writer, attributes=Attributes(0o644, 0, 0, ((b"system.x", b"y"),))),
            b"dir": folder({}, attributes),
        }
        writer.finish(folder(entries))
    with kernel_mounted(image) as root:
        listed = {
            path.name: sorted(map(os.fsencode, os.listxattr(path))) for path in root.iterdir()
        }
        values = {name: os.getxattr(root / "many", name) for name, _ in xattrs[::10]}
    everything = sorted(names)
    assert listed == {"many": everything, "same": everything, "dir": everything, "lost": []}
    assert values == dict(xattrs[::10])


def test_owners_up_to_the_table_s_end(tmp_path: Path) -> None:
    def entries(count: int) -> dict[bytes, Inode]:
        return {
            b"%d" % n: Inode(Kind.FIFO, Attributes(0o600, n * 65_000, n * 65_000), 1)
            for n in range(count)
        }

    image = tmp_path / "image"
    with image.open("w+b") as out, SquashfsWriter(out) as writer:
        writer.finish(folder(entries(65_535)))
    with kernel_mounted(image) as root:
        assert (root / "65534").lstat().st_uid == 65_534 * 65_000
    with SquashfsWriter(io.BytesIO()) as writer, pytest.raises(FormatError, match="owners"):
        writer.finish(folder(entries(65_536)))


@pytest.mark.parametrize("judge", JUDGES)
def test_every_kind(judge: str, tmp_path: Path) -> None:
    need_root()
    attributes = Attributes(0o6751, 1000, 70_000)
    number = device_number(259, 1_000_000)
    image = tmp_path / "image"
    with image.open("w+b") as out, SquashfsWriter(out, created=99) as writer:
        shared = add_file(writer, b"data", attributes=attributes)
        entries = {
            b"file": shared,
            b"link": shared,
            b"block": Inode(Kind.BLOCK_DEVICE, attributes, 2**32 - 1, number),
            b"character": Inode(Kind.CHARACTER_DEVICE, attributes, 0, number),
            b"fifo": Inode(Kind.FIFO, attributes, 3),
            b"socket": Inode(Kind.SOCKET, attributes, 3),
            b"symlink": Inode(Kind.SYMLINK, Attributes(0o777, 1, 2), 4, b"x" * 4000),
        }
        writer.finish(folder(entries, Attributes(0o1777, 3, 4)))
    assert superblock(image)[2] == 99
    with JUDGES[judge](image) as root:
        got = snapshot(root)
    for name in (b"block", b"character"):
        assert got[name].content == number
        assert (got[name].mode, got[name].uid, got[name].gid) == attributes[:3]
    assert got[b"block"].mtime == 2**32 - 1
    assert {name: one.kind for name, one in got.items() if name} == {
        name: "file" if name == b"link" else name.decode() for name in entries
    }
    assert got[b"symlink"].content == b"x" * 4000
    assert got[b""] == Seen(kind="directory", mode=0o1777, uid=3, gid=4, mtime=5, same=(b"",))
    assert got[b"file"].same == (b"file", b"link")


def test_the_writer_writes_where_the_file_stands(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("w+b") as out:
        out.write(b"#" * 12_345 + b"old content that is longer" * 10_000)
        out.seek(12_345)
        with SquashfsWriter(out) as writer:
            size = writer.finish(folder({b"f": add_file(writer, TEXT)}))
        assert out.tell() == 12_345 + size
    assert image.stat().st_size == 12_345 + size
    assert image.read_bytes()[:12_345] == b"#" * 12_345
    with unsquashed(image, offset=12_345) as root:
        assert (root / "f").read_bytes() == TEXT


def test_an_empty_file_system(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("w+b") as out, SquashfsWriter(out) as writer:
        writer.finish(folder({}))
    with kernel_mounted(image) as root:
        assert list(root.iterdir()) == []


def test_blocks_that_equal_earlier_ones_are_taken_back(tmp_path: Path) -> None:
    image = tmp_path / "image"
    noise = NOISE * 3 + b"the end"
    with image.open("w+b") as out, SquashfsWriter(out) as writer:
        entries = {
            b"a": add_file(writer, noise),
            b"b": add_file(writer, noise[:-1] + b"!"),
            b"c": add_file(writer, noise),
            b"small": add_file(writer, NOISE[:9000]),
            b"d": add_file(writer, TEXT),
            b"small again": add_file(writer, NOISE[:9000]),
            b"e": add_file(writer, noise),
        }
        size = writer.finish(folder(entries))
    assert size < 2.5 * len(noise)
    with unsquashed(image) as root:
        found = {name: (root / name.decode()).read_bytes() for name in entries}
    assert found[b"a"] == found[b"c"] == found[b"e"] == noise
    assert found[b"b"] == noise[:-1] + b"!"
    assert found[b"d"] == TEXT
    assert found[b"small"] == found[b"small again"] == NOISE[:9000]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "zstd:22"])
def test_files_share_a_block_of_nothing_but_zeros(compression: str, tmp_path: Path) -> None:
    image = tmp_path / "image"
    contents = {b"a": bytes(1), b"b": bytes(100_000)}
    with (
        image.open("w+b") as out,
        SquashfsWriter(out, compression=parse_compression(compression)) as writer,
    ):
        writer.finish(folder({name: add_file(writer, data) for name, data in contents.items()}))
    with unsquashed(image) as root:
        assert {name: (root / name.decode()).read_bytes() for name in contents} == contents


def test_unsquashfs_shows_compressor_and_level(tmp_path: Path) -> None:
    for text, shown in {
        "zstd:7": "compression-level 7",
        "gzip:4": "compression-level 4",
        "lz4:9": "High Compression option specified",
        "xz:2": "Dictionary size 1048576",
    }.items():
        image = tmp_path / "image"
        with (
            image.open("w+b") as out,
            SquashfsWriter(out, compression=parse_compression(text)) as writer,
        ):
            writer.finish(folder({}))
        argv = ["unsquashfs", "-s", str(image)]
        listed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        assert f"Compression {text.partition(':')[0]}" in listed
        assert shown in listed


def test_compressions_are_named() -> None:
    assert parse_compression("zstd") == Compression() == Compression("zstd", 3)
    assert parse_compression(" GZIP:9 ") == Compression("gzip", 9)
    assert str(parse_compression("xz")) == "xz:6"


@pytest.mark.parametrize("text", ["", "lzma", "zstd:", "zstd:0", "zstd:23", "gzip:x", "lz4:-1"])
def test_other_compressions_are_refused_with_a_hint(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_compression(text)
    assert "choose" in caught.value.hint


@pytest.mark.parametrize(("major", "minor"), [(0, 0), (8, 1), (259, 70_000), (4095, 0xFFFFF)])
def test_device_numbers(major: int, minor: int) -> None:
    assert split_device(device_number(major, minor)) == (major, minor)
