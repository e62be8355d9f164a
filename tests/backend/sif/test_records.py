"""The header and the descriptor, against bytes made from the format's description."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import BackendError, FormatError, NotFoundError
from backend.sif.file import SifFile
from backend.sif.records import (
    DataType,
    Descriptor,
    Partition,
    Signature,
    parse_descriptor,
    parse_header,
)
from tests.support.sifs import SIGNATURE, Object, blob, partition, sif

FIXTURES = Path(__file__).parents[4] / "shared" / "fixtures"


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_header_reads_and_packs_to_the_same_bytes() -> None:
    data = sif(
        blob(b"{}"),
        capacity=12,
        launch=b"#!/usr/bin/env run-singularity\n",
        arch=b"04\0",
        uuid=bytes(range(16)),
        created=1_600_000_000,
    )
    header = parse_header(data[:128])
    assert (header.launch, header.architecture) == (b"#!/usr/bin/env run-singularity\n", "arm64")
    assert str(UUID(bytes=header.uuid)) == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert (header.created, header.free, header.total) == (1_600_000_000, 11, 12)
    assert (header.table_offset, header.data_offset, header.data_size) == (4096, 11116, 2)
    assert not header.deterministic
    assert header.pack() == data[:128]


def test_descriptor_reads_and_packs_to_the_same_bytes() -> None:
    data = sif(
        Object(kind=0x4006, data=b"{}", name=b"data.json", group=7, link=3 | 0xF0000000, gap=9)
    )
    slot = data[4096 : 4096 + 585]
    one = parse_descriptor(slot)
    assert one is not None
    assert (one.kind, one.id, one.group, one.link, one.link_is_group) == (0x4006, 1, 7, 3, True)
    assert (one.offset, one.size, one.padded_size, one.name) == (32185, 2, 11, b"data.json")
    assert one.pack() == slot


def test_extra_fields() -> None:
    part = Partition(fs=1, kind=2, architecture="riscv64")
    assert part.pack() == b"\1\0\0\0\2\0\0\0" + b"12\0"
    signature = Signature(algorithm=1, entity=bytes(range(20)))
    one = Descriptor(
        kind=DataType.SIGNATURE, id=1, offset=0, size=0, padded_size=0, extra=signature.pack()
    )
    assert one.signature() == signature
    with pytest.raises(FormatError, match="object 1: not a digest"):
        one.digest()


def test_unused_slots_are_skipped(tmp_path: Path) -> None:
    data = bytearray(sif(blob(b"one"), blob(b"two")))
    data[4096:4681] = bytes(585)
    with SifFile(write(tmp_path / "x.sif", bytes(data))) as file:
        assert [one.id for one in file.descriptors] == [2]
        assert b"".join(file.chunks(file.find(2))) == b"two"
        with pytest.raises(NotFoundError, match="no object 1"):
            file.find(1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a SIF file"),
        (b"#!/bin/sh" + bytes(200), "not a SIF file"),
        (sif()[:100], "not a SIF file"),
        (sif().replace(b"01\0", b"02\0", 1), "version"),
        (sif()[:5000], "table lies outside"),
        (sif(blob(b"four"))[:-1], "has only"),
    ],
)
def test_broken_files(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        SifFile(write(tmp_path / "x.sif", data))


@pytest.mark.parametrize("count", [8193, 2**62, -1])
def test_count_of_descriptors_is_bounded(tmp_path: Path, count: int) -> None:
    data = bytearray(sif())
    data[88:96] = count.to_bytes(8, "little", signed=True)
    with pytest.raises(FormatError, match="descriptors"):
        SifFile(write(tmp_path / "x.sif", bytes(data)))


def test_what_is_no_file(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    for path, error in (
        (tmp_path, BackendError),
        (tmp_path / "pipe", FormatError),
        (tmp_path / "none", NotFoundError),
        (Path("/dev/null"), FormatError),
    ):
        with pytest.raises(error):
            SifFile(path)


@given(data=st.binary(max_size=700))
def test_any_bytes_are_a_file_or_a_format_error(tmp_path: Path, data: bytes) -> None:
    read_all(write(tmp_path / "x.sif", data))


@given(
    changes=st.lists(
        st.tuples(
            st.one_of(st.integers(0, 127), st.integers(4096, 4096 + 585 * 2 + 20)),
            st.binary(max_size=9),
        ),
        max_size=6,
    )
)
def test_any_damage_is_a_file_or_a_format_error(
    tmp_path: Path, changes: list[tuple[int, bytes]]
) -> None:
    data = bytearray(
        sif(partition(b"x" * 50), Object(kind=SIGNATURE, data=b"y" * 20), blob(b"z"), capacity=4)
    )
    for at, change in changes:
        data[at : at + len(change)] = change
    read_all(write(tmp_path / "x.sif", bytes(data)))


def read_all(path: Path) -> None:
    from backend.sif.text import header_text, info_text, list_text

    try:
        with SifFile(path) as file:
            text = header_text(file.header) + list_text(file.descriptors)
            for one in file.descriptors:
                text += info_text(one)
                assert len(file.read(one, limit=1000)) == one.size
            controls = [c for c in text if unicodedata.category(c) in {"Cc", "Cs"}]
            assert set(controls) <= {"\n"}
    except FormatError:
        pass
