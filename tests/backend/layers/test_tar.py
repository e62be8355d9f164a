"""The tar parser against headers built from the specification, tar programs, and any bytes."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import FormatError
from backend.layers.tar import MAX_EXTENDED, Member, TarReader
from backend.squashfs.inode import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

END = bytes(1024)


def header(
    name: bytes = b"a",
    *,
    flag: bytes = b"0",
    size: bytes | int = 0,
    mode: bytes = b"0000644\0",
    uid: bytes = b"0000000\0",
    gid: bytes = b"0000000\0",
    mtime: bytes = b"00000000000\0",
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    device: tuple[bytes, bytes] = (b"0000000\0", b"0000000\0"),
    prefix: bytes = b"",
    tail: bytes = b"",
    signed: bool = False,
) -> bytes:
    sized = size if isinstance(size, bytes) else b"%011o\0" % size
    block = struct.pack(
        "100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s",
        *(name, mode, uid, gid, sized, mtime, b" " * 8, flag, link, magic, b"", b""),
        *(*device, prefix, b""),
    )
    if tail:
        block = block[: 512 - len(tail)] + tail
    total = sum(struct.unpack("512b", block)) if signed else sum(block)
    return block[:148] + b"%06o\0 " % total + block[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(str(length)) + len(body) != length:
        length += 1
    return b"%d" % length + body


def pax(*records: tuple[bytes, bytes], flag: bytes = b"x") -> bytes:
    data = b"".join(record(key, value) for key, value in records)
    return header(b"PaxHeader", flag=flag, size=len(data)) + padded(data)


def gnu_long(flag: bytes, value: bytes) -> bytes:
    return header(b"././@LongLink", flag=flag, size=len(value) + 1) + padded(value + b"\0")


class Content:
    """A sink that shows holes."""

    def __init__(self) -> None:
        self.data = b""
        self.holes: list[tuple[int, int]] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data += data

    def hole(self, size: int) -> None:
        self.holes.append((len(self.data), size))
        self.data += bytes(min(size, 4 << 20))


def read(archive: bytes, chunk: int = 1024) -> list[tuple[Member, bytes]]:
    return [(member, content.data) for member, content in read_sinks(archive, chunk)]


def read_sinks(archive: bytes, chunk: int = 1024) -> Iterator[tuple[Member, Content]]:
    chunks = (archive[at : at + chunk] for at in range(0, len(archive), chunk))
    reader = TarReader(chunks, label="layer 1 of 1")
    for member in reader:
        content = Content()
        reader.copy(member, content)
        yield member, content


def one(archive: bytes) -> Member:
    ((member, _),) = read(archive + END)
    return member


@pytest.mark.parametrize("chunk", [512, 1024, 1 << 20])
@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_python_writes_comes_back(style: int, chunk: int) -> None:
    out = io.BytesIO()
    sizes = (0, 1, 511, 512, 513, 1024, 5000)
    with tarfile.open(fileobj=out, mode="w", format=style, encoding="utf-8") as tar:
        for size in sizes:
            info = tarfile.TarInfo(f"d/ü{size}")
            info.size, info.mode, info.uid, info.gid, info.mtime = size, 0o4750, 7, 8, 1234
            tar.addfile(info, io.BytesIO(bytes([size % 251]) * size))
    found = read(out.getvalue(), chunk)
    assert [member.path.decode() for member, _ in found] == [f"d/ü{size}" for size in sizes]
    assert [data for _, data in found] == [bytes([size % 251]) * size for size in sizes]
    for member, data in found:
        assert (member.mode, member.uid, member.gid, member.mtime) == (0o4750, 7, 8, 1234)
        assert (member.kind, member.size, member.parts) == (Kind.FILE, len(data), None)


def test_content_that_nobody_takes_is_passed_over() -> None:
    archive = header(b"a", size=3000) + padded(b"x" * 3000) + header(b"b") + END
    assert [member.path for member in TarReader([archive], label="x")] == [b"a", b"b"]


@pytest.mark.parametrize(
    ("flag", "kind"),
    [
        (b"0", Kind.FILE),
        (b"\0", Kind.FILE),
        (b"7", Kind.FILE),
        (b"2", Kind.SYMLINK),
        (b"3", Kind.CHARACTER_DEVICE),
        (b"4", Kind.BLOCK_DEVICE),
        (b"5", Kind.DIRECTORY),
        (b"D", Kind.DIRECTORY),
        (b"6", Kind.FIFO),
        (b"1", None),
    ],
)
def test_types(flag: bytes, kind: Kind | None) -> None:
    member = one(header(b"n", flag=flag, link=b"./t", device=(b"0000010\0", b"0000021\0")))
    assert member.kind is kind
    if kind is Kind.SYMLINK:
        assert member.link == b"./t"
    elif kind is None:
        assert member.link == b"t"
    elif kind in {Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE}:
        assert member.device == (8, 17)


def test_a_size_where_no_content_follows_is_ignored() -> None:
    archive = header(b"l", flag=b"1", link=b"a", size=4096) + header(b"d", flag=b"5", size=99) + END
    assert [member.path for member, _ in read(archive)] == [b"l", b"d"]


def test_incremental_directories_have_content_to_pass_over() -> None:
    archive = header(b"d/", flag=b"D", size=600) + bytes(1024) + header(b"f") + END
    assert [member.path for member, _ in read(archive)] == [b"d", b"f"]


def test_an_old_directory_is_a_file_with_a_slash() -> None:
    assert one(header(b"d/", flag=b"\0", magic=b"")).kind is Kind.DIRECTORY


def test_labels_and_continuations_are_no_files() -> None:
    archive = header(b"label", flag=b"V") + header(b"old", flag=b"M", size=5) + padded(b"12345")
    assert one(archive + header(b"f")).path == b"f"


@pytest.mark.parametrize(
    ("name", "prefix", "path"),
    [
        (b"x" * 100, b"", b"x" * 100),
        (b"name", b"some/prefix", b"some/prefix/name"),
        (b"./a//b/./c/", b"", b"a/b/c"),
        (b"/etc/passwd", b"", b"etc/passwd"),
        (b"a/../b", b"", b"b"),
        (b"/", b"", b""),
        (b"./", b"", b""),
        (b"new\nline\xff\xfe\x01", b"", b"new\nline\xff\xfe\x01"),
    ],
)
def test_names(name: bytes, prefix: bytes, path: bytes) -> None:
    assert one(header(name, flag=b"5", prefix=prefix)).path == path


def test_gnu_headers_have_no_prefix() -> None:
    assert one(header(b"n", magic=b"ustar  \0", prefix=b"12345")).path == b"n"


def test_long_names_and_links() -> None:
    long = b"d" * 200 + b"/" + b"n" * 250
    archive = gnu_long(b"K", long + b"x"[:0]) + gnu_long(b"L", long) + header(b"cut", flag=b"2")
    member = one(archive)
    assert (member.path, member.link) == (long, long)
    member = one(pax((b"path", long), (b"linkpath", b"/abs/../t")) + header(b"cut", flag=b"1"))
    assert (member.path, member.link) == (long, b"t")


def test_extended_headers_count_for_one_member_and_global_ones_for_all() -> None:
    archive = (
        pax((b"uid", b"70000"), (b"mtime", b"99.75"), flag=b"g")
        + pax((b"uid", b"5"), (b"gid", b"3000000000"))
        + header(b"a")
        + header(b"b")
        + pax((b"uid", b""))
        + header(b"c", uid=b"0000007\0")
    )
    members = [member for member, _ in read(archive + END)]
    assert [member.uid for member in members] == [5, 70000, 7]
    assert [member.gid for member in members] == [3_000_000_000, 0, 0]
    assert [member.mtime for member in members] == [99, 99, 99]


def test_xattrs_are_bytes() -> None:
    value = b"\x01\0\n=\xff" + bytes(20)
    member = one(
        pax(
            (b"SCHILY.xattr.user.b", b""),
            (b"SCHILY.xattr.security.capability", value),
            (b"comment", b"x"),
        )
        + header(b"a")
    )
    assert member.xattrs == ((b"security.capability", value), (b"user.b", b""))


def test_numbers_in_base_256() -> None:
    member = one(
        header(
            uid=b"\x80" + (3_000_000_000).to_bytes(7, "big"),
            mtime=b"\xff" * 12,
            gid=b"   17 \0\0",
        )
    )
    assert (member.uid, member.gid, member.mtime) == (3_000_000_000, 0o17, 0)
    eight_gib = b"\x80" + (8 << 30).to_bytes(11, "big")
    reader = TarReader([header(size=eight_gib)], label="x")
    assert next(iter(reader)).size == 8 << 30


def test_times_are_kept_within_32_bits() -> None:
    assert one(pax((b"mtime", b"-5.5")) + header()).mtime == 0
    assert one(pax((b"mtime", b"99999999999")) + header()).mtime == 2**32 - 1


def test_signed_checksums_of_old_programs() -> None:
    assert one(header(b"\xe4\xf6\xfc", signed=True)).path == b"\xe4\xf6\xfc"


def test_the_end() -> None:
    assert read(b"") == []
    assert len(read(header())) == 1
    assert len(read(header() + bytes(512))) == 1
    assert len(read(header() + END + header(b"after") + END)) == 1


SPARSE = b"A" * 512, b"B" * 700
MAP = ((1024, 512), (5000, 700))
WHOLE = bytes(1024) + SPARSE[0] + bytes(5000 - 1536) + SPARSE[1] + bytes(8000 - 5700)


def old_gnu_sparse() -> bytes:
    entries = b"".join(b"%011o\0%011o\0" % pair for pair in MAP)
    tail = entries.ljust(96, b"\0") + b"\0" + b"%011o\0" % 8000 + bytes(17)
    return header(b"s", flag=b"S", size=1212, magic=b"ustar  \0", tail=tail) + padded(
        b"".join(SPARSE)
    )


def old_gnu_sparse_extended() -> bytes:
    pairs = [(n * 1024, 512) for n in range(30)]
    first = b"".join(b"%011o\0%011o\0" % pair for pair in pairs[:4]) + b"\1"
    tail = first + b"%011o\0" % 30720 + bytes(17)
    more = [
        b"".join(b"%011o\0%011o\0" % pair for pair in part) for part in (pairs[4:25], pairs[25:])
    ]
    blocks = more[0].ljust(504, b"\0") + b"\1" + bytes(7) + more[1].ljust(512, b"\0")
    head = header(b"s", flag=b"S", size=30 * 512, magic=b"ustar  \0", tail=tail)
    return head + blocks + b"".join(bytes([65 + n]) * 512 for n in range(30))


def pax_sparse_0_0() -> bytes:
    records = [(b"GNU.sparse.size", b"8000"), (b"GNU.sparse.numblocks", b"2")]
    for offset, length in MAP:
        records += [
            (b"GNU.sparse.offset", b"%d" % offset),
            (b"GNU.sparse.numbytes", b"%d" % length),
        ]
    return pax(*records) + header(b"s", size=1212) + padded(b"".join(SPARSE))


def pax_sparse_0_1() -> bytes:
    listed = b",".join(b"%d,%d" % pair for pair in MAP)
    records = (
        (b"GNU.sparse.size", b"8000"),
        (b"GNU.sparse.map", listed),
        (b"GNU.sparse.name", b"s"),
    )
    return pax(*records) + header(b"GNUSparseFile.1/s", size=1212) + padded(b"".join(SPARSE))


def pax_sparse_1_0() -> bytes:
    listed = padded(b"2\n" + b"".join(b"%d\n%d\n" % pair for pair in MAP))
    records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")]
    records += [(b"GNU.sparse.name", b"s"), (b"GNU.sparse.realsize", b"8000")]
    head = header(b"GNUSparseFile.1/s", size=1212 + len(listed))
    return pax(*records) + head + listed + padded(b"".join(SPARSE))


@pytest.mark.parametrize("make", [old_gnu_sparse, pax_sparse_0_0, pax_sparse_0_1, pax_sparse_1_0])
def test_sparse_files(make: object) -> None:
    assert callable(make)
    ((member, content), (after, _)) = read_sinks(make() + header(b"after") + END)
    assert (member.path, member.size, after.path) == (b"s", 8000, b"after")
    assert content.data == WHOLE
    assert content.holes == [(0, 1024), (1536, 3464), (5700, 2300)]


def test_a_sparse_map_that_goes_on_in_further_blocks() -> None:
    ((member, content), (after, _)) = read_sinks(old_gnu_sparse_extended() + header(b"z") + END)
    assert (member.size, after.path) == (30720, b"z")
    assert content.data == b"".join(bytes([65 + n]) * 512 + bytes(512) for n in range(30))


@pytest.mark.parametrize("style", ["gnu", "posix0.0", "posix0.1", "posix1.0", "ustar", "v7"])
def test_what_gnu_tar_writes_comes_back(style: str, tmp_path: Path) -> None:
    if not shutil.which("tar"):
        pytest.skip("no GNU tar")
    long = "x" * (200 if style not in {"ustar", "v7"} else 90)
    with (tmp_path / long).open("wb") as file:
        for number in range(9):
            file.seek(number * 100_000)
            file.write(b"%d" % number * 5000)
        file.truncate(2_000_000)
    data = (tmp_path / long).read_bytes()
    sparse = style not in {"ustar", "v7"}
    options = [f"--format={'posix' if style.startswith('posix') else style}"]
    if style.startswith("posix"):
        options.append(f"--sparse-version={style.removeprefix('posix')}")
    argv = ["tar", "-C", str(tmp_path), *options, *(["-S"] if sparse else []), "-cf", "-", long]
    archive = subprocess.run(argv, check=True, capture_output=True).stdout
    ((member, content),) = read(archive)
    assert (member.path.decode(), member.size, content) == (long, len(data), data)
    if sparse:
        assert len(archive) < len(data) / 5


SPARSE_LIES = {
    "map longer than the data": pax((b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"0,9"))
    + header(size=8),
    "map beyond the file": pax((b"GNU.sparse.size", b"5"), (b"GNU.sparse.map", b"0,9"))
    + header(size=9),
    "map backwards": pax((b"GNU.sparse.size", b"99"), (b"GNU.sparse.map", b"50,4,10,5"))
    + header(size=9),
    "odd map": pax((b"GNU.sparse.size", b"99"), (b"GNU.sparse.map", b"50,4,10")) + header(size=9),
    "no number in the map": pax((b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"0,x"))
    + header(size=9),
    "no size": pax((b"GNU.sparse.map", b"0,9")) + header(size=9),
    "map without end": pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"9"))
    + header(size=1024)
    + padded(b"7\n1\n" * 99),
    "too many pieces": pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"9"))
    + header(size=512)
    + padded(b"99999999\n"),
    "old map cut": old_gnu_sparse_extended()[:1024],
}
BAD = {
    "no archive": b"\x7fELF" + bytes(2000),
    "climbs out": header(b"../x"),
    "climbs out inside": header(b"a/../../x"),
    "climbs out from the root": header(b"/../x"),
    "hard link climbs out": header(b"a", flag=b"1", link=b"../../etc/passwd"),
    "no name": header(b""),
    "zero byte in a name": pax((b"path", b"a\0b")) + header(),
    "zero byte in a link": pax((b"linkpath", b"a\0b")) + header(flag=b"2"),
    "name of 256 bytes": gnu_long(b"L", b"n" * 256) + header(),
    "path of 5000 bytes": gnu_long(b"L", b"n/" * 2500) + header(),
    "symbolic link to nothing": header(flag=b"2"),
    "symbolic link of 5000 bytes": gnu_long(b"K", b"n" * 5000) + header(flag=b"2"),
    "unknown type": header(flag=b"Q"),
    "bad checksum": header()[:-1] + b"!",
    "no octal number": header(mode=b"00x0644\0"),
    "underscored number": header(mode=b"000_644\0"),
    "negative size": header(size=b"\xff" * 12),
    "size of the universe": header(size=b"\x80" + b"\xff" * 11),
    "uid beyond 32 bits": header(uid=b"\x80" + (1 << 32).to_bytes(7, "big")),
    "negative gid": header(gid=b"\xff" * 8),
    "device beyond 12 bits": header(flag=b"3", device=(b"0010000\0", b"0000000\0")),
    "cut header": header()[:100],
    "cut content": header(size=5000) + b"x" * 3000,
    "cut padding": header(size=600) + b"x" * 600,
    "cut extended header": pax((b"path", b"x" * 2000))[:1024],
    "lone block of zeros": header() + bytes(512) + header(),
    "PAX record without length": header(flag=b"x", size=9) + padded(b" path=abc") + header(),
    "PAX record too long": header(flag=b"x", size=9) + padded(b"99 a=b\n  ") + header(),
    "PAX record too short": header(flag=b"x", size=9) + padded(b"3 a=b\n   ") + header(),
    "PAX record without newline": header(flag=b"x", size=7) + padded(b"7 a=bcd") + header(),
    "PAX record without key": header(flag=b"x", size=5) + padded(b"5 =b\n") + header(),
    "PAX length of zero": header(flag=b"x", size=6) + padded(b"0 a=b\n") + header(),
    "PAX uid": pax((b"uid", b"-1")) + header(),
    "PAX size": pax((b"size", b"1e9")) + header(),
    "extended header too large": header(flag=b"x", size=MAX_EXTENDED + 1),
    **SPARSE_LIES,
}


@pytest.mark.parametrize("archive", BAD.values(), ids=BAD)
def test_what_is_wrong_is_named_with_its_place(archive: bytes) -> None:
    with pytest.raises(FormatError, match=r"layer 1 of 1: .* \(at byte \d+\)") as caught:
        read(header(b"first") + archive + (END if len(archive) % 512 == 0 else b""))
    assert caught.value.offset is not None
    assert caught.value.offset >= 512


def test_global_headers_do_not_pile_up() -> None:
    archive = b"".join(pax((b"k%d" % n, b"x" * 900_000), flag=b"g") for n in range(9))
    with pytest.raises(FormatError, match="pile up"):
        read(archive, 1 << 20)


def test_error_texts_are_fit_for_a_terminal() -> None:
    with pytest.raises(FormatError) as caught:
        read(header(b"../\x1b[31m\n"))
    assert "\x1b" not in caught.value.message
    assert "\n" not in caught.value.message


@settings(max_examples=300)
@given(st.binary(max_size=3000))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    try:
        read(data)
    except FormatError:
        return


VALID = b"".join(
    (
        pax((b"path", b"x/y"), (b"SCHILY.xattr.user.a", b"1"))
        + header(size=600)
        + padded(b"z" * 600),
        pax_sparse_1_0(),
        old_gnu_sparse_extended(),
        gnu_long(b"L", b"long" * 40) + header(flag=b"1", link=b"x/y"),
        END,
    )
)


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.integers(0, len(VALID) - 1), st.binary(min_size=1, max_size=12)), max_size=4
    ),
    st.booleans(),
)
def test_damaged_archives_parse_or_are_refused(
    changes: list[tuple[int, bytes]], mend: bool
) -> None:
    """Some with checksums made right again, so that the damage gets past them."""
    data = bytearray(VALID)
    for at, new in changes:
        data[at : at + len(new)] = new
        block = at - at % 512
        if mend and len(data) >= block + 512:
            data[block + 148 : block + 156] = b" " * 8
            data[block + 148 : block + 156] = b"%06o\0 " % sum(data[block : block + 512])
    try:
        found = read(bytes(data))
    except FormatError:
        return
    assert sum(len(content) for _, content in found) < 1 << 30
