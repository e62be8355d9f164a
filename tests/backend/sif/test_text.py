"""The texts of ``sif``, to the letter."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.sif.file import SifFile
from backend.sif.text import describe, header_text, info_text, list_text, size_text, time_text
from tests.support.sifs import (
    CRYPTO,
    JSON,
    ROOT_INDEX,
    SBOM,
    SIGNATURE,
    Object,
    blob,
    partition,
    sif,
)

SHARED = Path(__file__).parents[4] / "shared" / "fixtures"
RULE = "-" * 78 + "\n"
TITLE = RULE + "ID   |GROUP   |LINK    |SIF POSITION (start-end)  |TYPE\n" + RULE

GOLDEN = {
    "empty": "Empty",
    "one-group": "OneGroup",
    "one-object-generic-json": "OneObjectGenericJSON",
    "one-object-oci-blob": "OneObjectOCIBlob",
    "one-object-oci-root-index": "OneObjectOCIRootIndex",
    "one-object-sbom": "OneObjectSBOM",
    "two-groups": "TwoGroups",
}


def opened(tmp_path: Path, data: bytes) -> SifFile:
    path = tmp_path / "x.sif"
    path.write_bytes(data)
    return SifFile(path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no fixtures beside the checkout")
@pytest.mark.parametrize("name", GOLDEN)
def test_against_golden_files(name: str) -> None:
    golden = SHARED / "sif-golden"
    with SifFile(SHARED / "sif" / f"{name}.sif") as file:
        assert list_text(file.descriptors) == (golden / f"list-{GOLDEN[name]}.txt").read_text()
        assert header_text(file.header) == (golden / f"header-{GOLDEN[name]}.txt").read_text()
        info = golden / f"info-{GOLDEN[name].removeprefix('OneObject')}.txt"
        if info.exists():
            assert info_text(file.descriptors[0]) == info.read_text()


def test_list(tmp_path: Path) -> None:
    data = sif(
        partition(b"raw!", fs=4, kind=1, arch=b"01\0", gap=592),
        partition(bytes(4096), arch=b"01\0", gap=4092),
        Object(kind=SIGNATURE, data=b"s", extra=b"\1", group=0, link=1 | 0xF0000000),
        Object(kind=CRYPTO, data=b"m", extra=b"\1\0\0\0\0\1\0\0", link=2),
        Object(kind=SBOM, data=b"b", extra=b"\1"),
        Object(kind=JSON, data=b"{}"),
        blob(b"x"),
        Object(kind=0x4001, data=b"d"),
        Object(kind=0x5001, data=b"?"),
    )
    with opened(tmp_path, data) as file:
        assert list_text(file.descriptors) == TITLE + (
            "1    |1       |NONE    |32768-32772               |FS (Raw/System/386)\n"
            "2    |1       |NONE    |36864-40960               |FS (Squashfs/*System/386)\n"
            "3    |NONE    |1   (G) |40960-40961               |Signature (SHA-256)\n"
            "4    |1       |2       |40961-40962               "
            "|Cryptographic Message (OpenPGP/Clear Signature)\n"
            "5    |1       |NONE    |40962-40963               |SBOM (cyclonedx-json)\n"
            "6    |1       |NONE    |40963-40965               |JSON.Generic\n"
            "7    |1       |NONE    |40965-40966               |OCI.Blob\n"
            "8    |1       |NONE    |40966-40967               |Def.FILE\n"
            "9    |1       |NONE    |40967-40968               |Unknown\n"
        )


def test_list_of_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, sif()) as file:
        assert list_text(file.descriptors) == TITLE


def test_header_of_an_oci_sif(tmp_path: Path) -> None:
    with opened(tmp_path, sif(blob(b"x" * 706, ROOT_INDEX))) as file:
        assert header_text(file.header) == (
            "Version:            01\n"
            "Descriptors Free:   47\n"
            "Descriptors Total:  48\n"
            "Descriptors Offset: 4096\n"
            "Descriptors Size:   27 KiB\n"
            "Data Offset:        32176\n"
            "Data Size:          706 B\n"
        )


def test_header_of_a_native_image(tmp_path: Path) -> None:
    data = sif(
        launch=b"#!/usr/bin/env run-singularity\n",
        arch=b"02\0",
        uuid=bytes(range(16)),
        created=1_593_475_316,
    )
    with opened(tmp_path, data) as file:
        assert header_text(file.header) == (
            "Launch Script:        #!/usr/bin/env run-singularity\n"
            "Version:              01\n"
            "Primary Architecture: amd64\n"
            "ID:                   00010203-0405-0607-0809-0a0b0c0d0e0f\n"
            "Created At:           2020-06-30 00:01:56 +0000 UTC\n"
            "Modified At:          2020-06-30 00:01:56 +0000 UTC\n"
            "Descriptors Free:     48\n"
            "Descriptors Total:    48\n"
            "Descriptors Offset:   4096\n"
            "Descriptors Size:     27 KiB\n"
            "Data Offset:          32176\n"
            "Data Size:            0 B\n"
        )


def test_info(tmp_path: Path) -> None:
    data = sif(
        partition(b"p"),
        Object(
            kind=SIGNATURE,
            data=b"s",
            extra=b"\1\0\0\0" + b"\xab" * 20,
            group=0,
            link=2**32 - 2**28 + 1,
        ),
        Object(kind=JSON, data=b"{}", name=b"a\x1b[31m\xff.json", created=1_593_475_316),
        blob(b"x"),
    )
    with opened(tmp_path, data) as file:
        part, signature, document, layer = (info_text(one) for one in file.descriptors)
    assert part == (
        "  Data Type:        FS\n"
        "  ID:               1\n"
        "  Group ID:         1\n"
        "  Linked ID:        NONE\n"
        "  Offset:           32176\n"
        "  Size:             1\n"
        "  Filesystem Type:  Squashfs\n"
        "  Partition Type:   *System\n"
        "  Architecture:     amd64\n"
    )
    assert signature == (
        "  Data Type:  Signature\n"
        "  ID:         2\n"
        "  Group ID:   NONE\n"
        "  Linked ID:  1 (G)\n"
        "  Offset:     32177\n"
        "  Size:       1\n"
        "  Hash Type:  SHA-256\n"
        f"  Entity:     {'AB' * 20}\n"
    )
    assert document == (
        "  Data Type:    JSON.Generic\n"
        "  ID:           3\n"
        "  Group ID:     1\n"
        "  Linked ID:    NONE\n"
        "  Offset:       32178\n"
        "  Size:         2\n"
        "  Created At:   2020-06-30 00:01:56 +0000 UTC\n"
        "  Modified At:  2020-06-30 00:01:56 +0000 UTC\n"
        "  Name:         a\\x1b[31m\\xff.json\n"
    )
    assert layer.endswith(
        "  Digest:     sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881\n"
    )


def test_describe(tmp_path: Path) -> None:
    with opened(tmp_path, sif(partition(b"p", link=0))) as file:
        assert describe(file.descriptors[0]) == {
            "id": 1,
            "type": "FS",
            "group": 1,
            "link": None,
            "link_is_group": False,
            "offset": 32176,
            "size": 1,
            "name": "",
            "filesystem_type": "Squashfs",
            "partition_type": "*System",
            "architecture": "amd64",
        }


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (28080, "27 KiB"),
        (1536, "2 KiB"),
        (2560, "2 KiB"),
        (2**20 - 1, "1024 KiB"),
        (5 * 2**30, "5 GiB"),
        (2**63 - 1, "8 EiB"),
        (-5, "-5 B"),
    ],
)
def test_size(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-62135596800, ""),
        (0, "1970-01-01 00:00:00 +0000 UTC"),
        (-62135596799, "0001-01-01 00:00:01 +0000 UTC"),
        (2**62, f"{2**62} seconds since 1970"),
    ],
)
def test_time(seconds: int, text: str) -> None:
    assert time_text(seconds) == text
