"""SIF files changed: the old file stays whole for whoever has it, the new one appears at once."""

from __future__ import annotations

import errno
import hashlib
import io
import mmap
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from backend.errors import (
    BackendError,
    ExistsError,
    FormatError,
    NotFoundError,
    SpaceError,
    UsageError,
)
from backend.sif import edit
from backend.sif.edit import NewObject, create_sif, edit_sif
from backend.sif.file import SifFile
from backend.sif.records import NIL_UUID, ZERO_TIME, DataType, Partition, PartitionKind
from tests.support.sifs import Object, blob, partition, sif


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "x.sif"
    target.write_bytes(
        sif(
            partition(b"first", kind=1, arch=b"04\0"),
            partition(b"second", kind=2),
            Object(kind=0x4006, data=b"{}", name=b"a.json"),
            capacity=5,
            launch=b"#!/usr/bin/env run-singularity\n",
            arch=b"02\0",
            uuid=bytes(range(16)),
            created=1_600_000_000,
        )
    )
    return target


def add(path: Path, data: bytes = b"data", **fields: object) -> None:
    new = NewObject(**({"kind": DataType.RAW} | fields))  # type: ignore[arg-type]
    with edit_sif(path) as editor:
        editor.add(new, io.BytesIO(data))


def test_new_file(tmp_path: Path) -> None:
    create_sif(tmp_path / "x.sif")
    with SifFile(tmp_path / "x.sif") as file:
        assert file.header.uuid != NIL_UUID
        assert (file.header.free, file.header.total, file.size) == (48, 48, 32176)
        assert file.descriptors == ()
    with pytest.raises(ExistsError):
        create_sif(tmp_path / "x.sif")


def test_added_object(path: Path) -> None:
    before = path.read_bytes()
    add(path, b"new data", name=b"n", group=3, link=2, alignment=64)
    with SifFile(path) as file:
        found = file.descriptors[-1]
        assert (found.id, found.group, found.link, found.name) == (4, 3, 2, b"n")
        assert found.offset % 64 == 0
        assert found.padded_size == found.offset - file.descriptors[-2].end + 8
        assert file.read(found, limit=100) == b"new data"
        assert found.created == found.modified == file.header.modified > 1_600_000_000
        assert file.header.created == 1_600_000_000
        assert (file.header.free, file.header.total) == (1, 5)
        assert file.header.data_size == found.end - file.header.data_offset
    after = path.read_bytes()
    start = 4096 + 5 * 585
    assert after[start : len(before)] == before[start:]
    assert after[4096 : 4096 + 3 * 585] == before[4096 : 4096 + 3 * 585]


def test_partitions_are_aligned_and_oci_blobs_have_their_digest(path: Path) -> None:
    add(path, kind=DataType.PARTITION, extra=Partition(fs=2, kind=4, architecture="amd64").pack())
    add(path, kind=DataType.OCI_BLOB)
    with SifFile(path) as file:
        overlay, layer = file.descriptors[-2:]
        assert overlay.offset % 4096 == 0
        assert overlay.partition().kind == PartitionKind.OVERLAY
        assert (
            layer.digest()
            == f"sha256:{'3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7'}"
        )


def test_full_table(path: Path) -> None:
    add(path)
    add(path)
    before = path.read_bytes()
    with pytest.raises(FormatError, match="insufficient descriptor capacity"):
        add(path)
    assert path.read_bytes() == before


def test_second_primary_partition(path: Path) -> None:
    extra = Partition(fs=1, kind=2, architecture="amd64").pack()
    with pytest.raises(UsageError, match="already contains a primary partition"):
        add(path, kind=DataType.PARTITION, extra=extra)


@pytest.mark.parametrize("name", [b"n" * 128, b"a\0b"])
def test_names_that_do_not_fit(path: Path, name: bytes) -> None:
    with pytest.raises(UsageError, match="127 bytes"):
        add(path, name=name)
    add(path, name=b"n" * 127)


def test_deleted_object_leaves_its_slot_and_the_bytes(path: Path) -> None:
    size = path.stat().st_size
    with edit_sif(path) as editor:
        editor.delete(2)
    with SifFile(path) as file:
        assert [one.id for one in file.descriptors] == [1, 3]
        assert (file.header.free, file.header.architecture) == (3, "unknown")
        assert file.size == size
    assert path.read_bytes()[4096 + 585 : 4096 + 2 * 585] == bytes(585)
    add(path)
    with SifFile(path) as file:
        assert [one.id for one in file.descriptors] == [1, 2, 3]
    with pytest.raises(NotFoundError), edit_sif(path) as editor:
        editor.delete(9)


def test_primary_partition(path: Path) -> None:
    with edit_sif(path) as editor:
        editor.set_primary(1)
    with SifFile(path) as file:
        kinds = [one.partition().kind for one in file.of_kind(DataType.PARTITION)]
        assert kinds == [PartitionKind.PRIMARY, PartitionKind.SYSTEM]
        assert file.header.architecture == "arm64"
    before = path.read_bytes()
    with edit_sif(path) as editor:
        editor.set_primary(1)
    assert path.read_bytes()[128:] == before[128:]
    for number, error in ((3, UsageError), (7, NotFoundError)):
        with pytest.raises(error), edit_sif(path) as editor:
            editor.set_primary(number)


def test_deterministic_files_stay_so(tmp_path: Path) -> None:
    path = tmp_path / "x.sif"
    path.write_bytes(sif(blob(b"x")))
    add(path)
    with SifFile(path) as file:
        assert file.header.deterministic
        assert {one.created for one in file.descriptors} == {ZERO_TIME}


def test_who_has_the_file_mapped_keeps_it(path: Path) -> None:
    before = path.read_bytes()
    os.link(path, path.with_name("cache"))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        add(path, b"x" * 100_000)
        with edit_sif(path) as editor:
            editor.delete(1)
            editor.delete(2)
        assert mapped[:] == before
    assert path.with_name("cache").read_bytes() == before


def test_mode_owner_and_links_to_the_file_stay(path: Path, tmp_path: Path) -> None:
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12, 34)
    (tmp_path / "link.sif").symlink_to("x.sif")
    add(tmp_path / "link.sif")
    assert (tmp_path / "link.sif").is_symlink()
    found = path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o640
    if os.geteuid() == 0:
        assert (found.st_uid, found.st_gid) == (12, 34)
    with SifFile(path) as file:
        assert len(file.descriptors) == 4


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "full"), ValueError])
def test_an_error_leaves_the_file_as_it_was(path: Path, error: type[BaseException]) -> None:
    before = path.read_bytes()
    number = getattr(error, "errno", None)

    def fail() -> None:
        with edit_sif(path) as editor:
            editor.delete(1)
            raise error

    with pytest.raises(SpaceError if number else error):
        fail()
    assert path.read_bytes() == before
    assert sorted(one.name for one in path.parent.iterdir()) == ["home", "x.sif"]


def test_changes_of_several_processes_add_up(path: Path) -> None:
    code = (
        "import io, sys; from pathlib import Path; from backend.sif.edit import *;"
        "from backend.sif.records import DataType\n"
        "with edit_sif(Path(sys.argv[1])) as editor:\n"
        "    editor.add(NewObject(kind=DataType.RAW), io.BytesIO(b'x'))\n"
    )
    create_sif(path, overwrite=True)
    root = Path(edit.__file__).parents[2]
    argv = [sys.executable, "-c", code, str(path)]
    children = [subprocess.Popen(argv, cwd=root) for _ in range(5)]
    assert [child.wait() for child in children] == [0] * 5
    with SifFile(path) as file:
        assert len(file.descriptors) == 5
        assert len({one.offset for one in file.descriptors}) == 5


def test_whoever_is_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path, added = tmp_path / "x.sif", tmp_path / "object"
    path.write_bytes(sif(partition(b"root"), capacity=3))
    added.write_bytes(b"data" * 1000)
    argv = [sys.executable, "-m", "tests.support.killing", str(path), str(added)]
    root = Path(edit.__file__).parents[2]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, check=True)
    lines, *states = done.stdout.split()
    before = path.read_bytes()
    add(path, added.read_bytes())
    assert int(lines) > 100
    assert states == [hashlib.sha256(one).hexdigest() for one in (before, path.read_bytes())]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["home", "object", "x.sif"]


def test_what_is_no_sif(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"hello")
    with pytest.raises(FormatError), edit_sif(tmp_path / "x"):
        pass
    with pytest.raises(BackendError), edit_sif(tmp_path / "none"):
        pass
    assert (tmp_path / "x").read_bytes() == b"hello"
