"""Layers on each other: what comes out is what the plain model of the rules says."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import FormatError, VerificationError
from backend.events import Event, Phase
from backend.layers.squash import squash_layers
from tests.backend.layers.model import BadLinkError, expected
from tests.support.images import Entry, directory, hardlink, layer, symlink
from tests.support.squashfs import JUDGES, Seen, kernel_mounted, need_root, snapshot, unsquashed
from tests.support.squashing import source, squash_bytes, squash_entries

if TYPE_CHECKING:
    from pathlib import Path

Layers = list[list[Entry]]


def file(name: str, data: bytes | None = None, **more: object) -> Entry:
    return Entry(name=name, data=name.encode() if data is None else data, **more)  # type: ignore[arg-type]


def whiteout(name: str) -> Entry:
    head, _, tail = name.rpartition("/")
    return Entry(name=f"{head}/.wh.{tail}" if head else f".wh.{tail}")


def opaque(name: str) -> Entry:
    return Entry(name=f"{name}/.wh..wh..opq" if name else ".wh..wh..opq")


CAPABILITY = "\x01\0\0\x02\0\x20" + 14 * "\0"
BIG = os.urandom(3_000_000)

CASES: dict[str, Layers] = {
    "one layer": [[directory("a"), file("a/b"), symlink("c", "a/b")]],
    "parents without entries": [[file("a/b/c/d")]],
    "upper file wins": [[file("a", b"old")], [file("a", b"new", mode=0o600)]],
    "upper directory entry wins": [
        [directory("d", 0o700, uid=5, mtime=7), file("d/low")],
        [directory("d", 0o755, gid=6, mtime=9), file("d/up")],
    ],
    "lower directory entry serves an upper without one": [
        [directory("d", 0o710, uid=5, mtime=7)],
        [file("d/up")],
    ],
    "the entry between two without": [[file("d/1")], [directory("d", 0o711)], [file("d/3")]],
    "directory entry twice in one layer": [[directory("d", 0o700), file("d/f"), directory("d")]],
    "file twice in one layer": [[file("a", b"first"), file("a", b"second")]],
    "whiteout": [[file("a"), file("b")], [whiteout("a")]],
    "whiteout of a directory": [[file("d/a"), file("d/e/f"), file("x")], [whiteout("d")]],
    "whiteout before its name in the same layer": [[file("a", b"1")], [whiteout("a"), file("a")]],
    "whiteout after its name in the same layer": [[file("a", b"1")], [file("a"), whiteout("a")]],
    "whiteout and a new directory of that name": [
        [directory("d", 0o700), file("d/old")],
        [whiteout("d"), file("d/new")],
    ],
    "whiteout of nothing there": [[file("a")], [whiteout("b"), whiteout("c/d")]],
    "whiteouts below a directory that became a file": [
        [file("d/a"), file("d/e/f")],
        [file("d", b"now a file"), whiteout("d/a"), whiteout("d/e/f"), opaque("d/e")],
    ],
    "whiteouts below a directory, which then becomes a file": [
        [file("d/a")],
        [whiteout("d/a"), opaque("d"), symlink("d", "x")],
    ],
    "whiteout, then back": [[file("a", b"1")], [whiteout("a")], [file("a", b"3")]],
    "opaque": [[file("d/a"), file("d/e/f")], [opaque("d"), file("d/new")]],
    "opaque after what the layer brings": [[file("d/a")], [file("d/new"), opaque("d")]],
    "opaque without an entry of its own": [[directory("d", 0o700), file("d/a")], [opaque("d")]],
    "opaque root": [[file("a"), file("b/c")], [opaque(""), file("d")]],
    "opaque below opaque": [[file("a/b/c")], [file("a/b/d")], [opaque("a/b")], [opaque("a")]],
    "opaque is for lower layers only": [[opaque("d"), file("d/a")], [file("d/b")]],
    "file becomes directory": [[file("x")], [file("x/in")]],
    "directory becomes file": [[file("x/in"), file("x/deep/er")], [file("x")]],
    "directory becomes file and directory again": [
        [directory("x", 0o700), file("x/lowest")],
        [file("x")],
        [file("x/new")],
    ],
    "file, directory, file": [[file("x", b"1")], [file("x/in")], [file("x", b"3")]],
    "directory becomes file within a layer": [[file("x/in"), file("x")]],
    "file becomes directory within a layer": [[file("x"), file("x/in")]],
    "directory, symbolic link": [[file("lib/a")], [symlink("lib", "usr/lib")]],
    "nothing follows a symbolic link": [
        [symlink("lib", "usr/lib"), symlink("out", "/etc"), directory("usr/lib")],
        [file("lib/a"), file("out/passwd")],
    ],
    "looping and absolute links": [
        [symlink("a", "b"), symlink("b", "a"), symlink("c", "/"), symlink("d", "../../..")]
    ],
    "root has an entry": [[directory("./", 0o711, uid=3, gid=4, mtime=99), file("a")]],
    "names with dots and slashes": [[file("./a//b/./c"), file("/abs"), file("d/../e")]],
    "hard links": [[file("a", mode=0o640), hardlink("b", "a"), hardlink("d/c", "./a")]],
    "hard link before its target": [[hardlink("b", "a"), file("a")]],
    "hard link to a hard link": [[file("a"), hardlink("b", "a"), hardlink("c", "b")]],
    "hard link to what was replaced": [[file("a", b"1"), hardlink("b", "a"), file("a", b"2")]],
    "hard link to a symbolic link": [[symlink("a", "x"), hardlink("b", "a")]],
    "hard link into a lower layer": [[file("d/a", mode=0o600)], [hardlink("b", "d/a")]],
    "hard link across three layers": [[file("a")], [file("x")], [hardlink("b", "a")]],
    "hard link, target removed above": [[file("a"), hardlink("b", "a")], [whiteout("a")]],
    "hard links, both replaced": [
        [file("a"), hardlink("b", "a"), hardlink("c", "a")],
        [file("a", b"2"), whiteout("b")],
    ],
    "hard link to what the same layer removes": [[file("a")], [hardlink("b", "a"), whiteout("a")]],
    "hard link to what the same layer replaces later": [
        [file("a", b"1")],
        [hardlink("b", "a"), file("a")],
    ],
    "hard link through a hidden hard link": [
        [file("a")],
        [hardlink("b", "a")],
        [hardlink("c", "b"), file("b", b"other")],
        [whiteout("a")],
    ],
    "big file that only a hard link keeps": [
        [file("big", BIG), hardlink("kept", "big"), file("z", BIG[:77])],
        [file("big", b"small")],
    ],
    "hard links in circles below": [[file("b")], [hardlink("a", "b"), hardlink("b", "a")]],
    "hidden hard link without target": [[hardlink("a", "gone")], [whiteout("a")]],
    "devices, fifo, setuid": [
        [
            Entry(name="null", kind=tarfile.CHRTYPE, device=(1, 3), mode=0o666),
            Entry(name="disk", kind=tarfile.BLKTYPE, device=(259, 70_000), mode=0o660, gid=6),
            Entry(name="pipe", kind=tarfile.FIFOTYPE, mode=0o600),
            file("sudo", mode=0o4755),
            directory("tmp", 0o1777),
            hardlink("null2", "null"),
        ]
    ],
    "owners": [
        [file(f"f{n}", b"", uid=n * 70_000, gid=n) for n in range(9)],
        [file("top", uid=2**32 - 2)],
    ],
    "times": [[file("zero", mtime=0), file("late", mtime=2**32 - 1)]],
    "empty layers": [[], [file("a")], []],
    "xattrs": [
        [
            file(
                "cap",
                pax={"SCHILY.xattr.security.capability": CAPABILITY},
            ),
            directory(
                "d", pax={"SCHILY.xattr.user.colour": "blue\n", "SCHILY.xattr.trusted.x": "y"}
            ),
            file("same", pax={"SCHILY.xattr.user.colour": "blue\n", "SCHILY.xattr.trusted.x": "y"}),
            symlink("l", "d", pax={"SCHILY.xattr.trusted.on.link": "yes"}),
        ]
    ],
}


@pytest.mark.parametrize("judge", JUDGES)
def test_every_case_comes_out_as_the_rules_say(judge: str, tmp_path: Path) -> None:
    need_root()
    for number, (name, layers) in enumerate(CASES.items()):
        image = tmp_path / f"{number}.sqfs"
        squash_entries(image, *layers)
        with JUDGES[judge](image) as root:
            got, wanted = snapshot(root), expected(layers)
        if judge == "squashfuse_ll":  # 0.1.105 takes "security" for "trusted"
            got, wanted = _user_xattrs(got), _user_xattrs(wanted)
        assert got == wanted, name


def _user_xattrs(seen: dict[bytes, Seen]) -> dict[bytes, Seen]:
    return {
        path: replace(one, xattrs=tuple(x for x in one.xattrs if x[0].startswith("user.")))
        for path, one in seen.items()
    }


NAMES = st.sampled_from(["a", "b", "c", "a/a", "a/b", "b/a", "a/b/c", "b/a/c", "c/c/c"])
ENTRIES = st.one_of(
    st.builds(file, NAMES, st.binary(max_size=3), mode=st.sampled_from([0o600, 0o755])),
    st.builds(directory, NAMES, st.sampled_from([0o700, 0o755]), mtime=st.integers(1, 9)),
    st.builds(symlink, NAMES, NAMES),
    st.builds(hardlink, NAMES, NAMES),
    st.builds(hardlink, NAMES, NAMES),
    st.builds(whiteout, NAMES),
    st.builds(opaque, st.sampled_from(["", "a", "b", "a/b"])),
    st.builds(lambda name: Entry(name=name, kind=tarfile.FIFOTYPE, mode=0o644), NAMES),
)
STACKS = st.lists(st.lists(ENTRIES, max_size=6), min_size=1, max_size=4)


@settings(max_examples=200)
@given(layers=STACKS)
def test_random_stacks_come_out_as_the_rules_say(layers: Layers, tmp_path: Path) -> None:
    image = tmp_path / "random.sqfs"
    try:
        wanted = expected(layers)
    except BadLinkError:
        with pytest.raises(FormatError, match=r"layer \d of \d: a hard link to .* \(at byte \d+\)"):
            squash_entries(image, *layers)
        return
    squash_entries(image, *layers)
    with unsquashed(image) as root:
        assert snapshot(root) == wanted


@pytest.mark.parametrize("packed", ["gzip", "gzip in members", "zstd", "zstd in frames", "plain"])
def test_packed_layers_give_the_same_bytes(packed: str, tmp_path: Path) -> None:
    plain = layer(file("a", BIG), file("b"))
    half = len(plain) // 2
    forms = {
        "gzip": [gzip.compress(plain, 1)],
        "gzip in members": [
            gzip.compress(plain[:half], 1),
            gzip.compress(plain[half:], 1),
            bytes(99),
        ],
        "zstd": [zstandard.compress(plain)],
        "zstd in frames": [
            b"\x50\x2a\x4d\x18\x03\0\0\0abc",  # a frame to skip
            zstandard.compress(plain[:half]),
            zstandard.compress(plain[half:]),
        ],
        "plain": [plain],
    }
    one = squash_bytes(tmp_path / "plain", plain)
    assert squash_bytes(tmp_path / "packed", b"".join(forms[packed])) == one


def test_threads_do_not_change_the_bytes(tmp_path: Path) -> None:
    entries = [file(f"f{n}", os.urandom(n * 37) * (n % 7)) for n in range(300)]
    entries += [file("big", BIG), file("big too", BIG + b"x"), file("again", BIG)]
    results = {squash_entries(tmp_path / str(n), entries, threads=n) for n in (1, 2, 8)}
    assert len(results) == 1


def test_the_result_is_described(tmp_path: Path) -> None:
    target = tmp_path / "image"
    with target.open("w+b") as out:
        out.write(b"x" * 5000)
        size = squash_layers([source(layer(file("a", BIG)))], out, created=1234)
        assert out.tell() == 5000 + size
    data = target.read_bytes()[5000:]
    assert len(data) == size
    assert size % 4096 == 0
    assert data[8:12] == (1234).to_bytes(4, "little")
    with unsquashed(target, offset=5000) as root:
        assert (root / "a").read_bytes() == BIG


def test_progress_ends_at_the_packed_size() -> None:
    events: list[Event] = []
    layers = [source(gzip.compress(layer(file("a", BIG)))), source(layer(file("b")))]
    squash_layers(layers, io.BytesIO(), report=events.append)
    phases = [event for event in events if isinstance(event, Phase)]
    total = sum(one.size for one in layers)
    assert all(phase.name == "convert" and phase.total == total for phase in phases)
    assert [phase.done for phase in phases] == sorted(phase.done for phase in phases)
    assert (phases[-1].done, phases[-1].state) == (total, "done")


def test_a_hidden_file_is_never_compressed(tmp_path: Path) -> None:
    squashed = squash_entries(tmp_path / "image", [file("a", BIG)], [file("a", b"new")])
    assert len(squashed) == 4096


def sparse(name: str, size: int) -> Entry:
    pax = {"GNU.sparse.size": str(size), "GNU.sparse.map": "0,3"}
    return Entry(name=name, data=b"abc", pax=pax)


@pytest.mark.parametrize(
    "entries",
    [[sparse("a", 1 << 61)], [sparse(f"f{number}", 1 << 40) for number in range(5)]],
    ids=["in one file", "in several"],
)
def test_holes_without_end_are_refused(tmp_path: Path, entries: list[Entry]) -> None:
    with pytest.raises(FormatError, match=r"4\.0 TiB of holes"):
        squash_entries(tmp_path / "x", entries)


def test_equal_files_are_stored_once(tmp_path: Path) -> None:
    once = squash_entries(tmp_path / "once", [file("a", BIG)])
    twice = squash_entries(
        tmp_path / "twice", [file("a", BIG), file("m", BIG[::-1])], [file("z", BIG)]
    )
    assert len(twice) < 2 * len(once) + 8192


def test_a_wrong_diff_id_is_an_error() -> None:
    data = layer(file("a"))
    right = f"sha256:{hashlib.sha256(data).hexdigest()}"
    squash_layers([source(gzip.compress(data), right)], io.BytesIO())
    with pytest.raises(VerificationError, match="layer 1 of 1") as caught:
        squash_layers([source(data, "sha256:" + "0" * 64)], io.BytesIO())
    assert right in caught.value.why


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(layer(file("a", BIG)))[:-300_000],
        gzip.compress(layer(file("a", BIG)))[:-8] + bytes(8),
        zstandard.compress(layer(file("a", BIG)))[:-300_000],
        b"\x1f\x8b" + os.urandom(100),
        b"\x28\xb5\x2f\xfd" + os.urandom(100),
        layer(file("a", BIG))[:2_000_000],
        b"hsqs" + bytes(2000),
        os.urandom(3),
    ],
    ids=[
        "cut gzip",
        "gzip checksum",
        "cut zstd",
        "no gzip",
        "no zstd",
        "cut tar",
        "squashfs",
        "3 bytes",
    ],
)
def test_a_damaged_layer_is_named(packed: bytes) -> None:
    layers = [source(layer(file("x"))), source(packed)]
    with pytest.raises(FormatError, match=r"layer 2 of 2.*\(at byte \d+\)"):
        squash_layers(layers, io.BytesIO())


def test_a_layer_that_cannot_be_read_ends_the_work() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 1_000_000:
                raise OSError(5, "input/output error")
            return super().read(size)

    broken = source(b"")
    data = layer(file("a", BIG))
    broken = type(broken)(media_type="", open=lambda: Broken(data))
    with pytest.raises(OSError, match="input/output"):
        squash_layers([broken], io.BytesIO())


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh..."])
def test_a_whiteout_of_nothing_is_an_error(name: str) -> None:
    with pytest.raises(FormatError, match="whiteout"):
        squash_layers([source(layer(file(name)))], io.BytesIO())


def test_aufs_leftovers_are_ignored(tmp_path: Path) -> None:
    image = tmp_path / "image"
    squash_entries(image, [file("a")], [file(".wh..wh.aufs"), file(".wh..wh.plnk/1.2")])
    with unsquashed(image) as root:
        assert set(snapshot(root)) == {b"", b"a", b".wh..wh.plnk", b".wh..wh.plnk/1.2"}


def test_xattrs_without_a_value(tmp_path: Path) -> None:
    """Squashfuse 0.1.105 shows no such xattr, so this is not among the cases above."""
    layers = [[file("a", pax={"SCHILY.xattr.user.empty": "", "SCHILY.xattr.user.full": "x"})]]
    squash_entries(tmp_path / "image", *layers)
    with kernel_mounted(tmp_path / "image") as root:
        assert snapshot(root) == expected(layers)


def test_members_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.layers.squash.MAX_MEMBERS", 3)
    layers = [source(layer(file("a"), file("b"))), source(layer(file("c"), file("d")))]
    with pytest.raises(FormatError, match="layer 1 of 2: the image has more than 3 members"):
        squash_layers(layers, io.BytesIO())
