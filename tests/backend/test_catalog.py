"""The catalogue: right about what is there, quick from its index, calm about anything else."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

import pytest

from backend.catalog import Catalog, Image
from backend.oci.digest import digest_of
from backend.sif import ocisif
from tests.support.imagefiles import write_native, write_ocisif

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "images"
    path.mkdir()
    return path


@pytest.fixture
def catalog(folder: Path, tmp_path: Path) -> Catalog:
    return Catalog([folder], tmp_path / "cache" / "catalog")


def only(catalog: Catalog) -> Image:
    (image,) = catalog.images()
    return image


def test_an_ocisif_says_where_it_came_from(catalog: Catalog, folder: Path) -> None:
    path = write_ocisif(folder / "tiny_1.0.oci.sif")
    image = only(catalog)
    assert image.title == "docker.io/library/tiny:1.0"
    assert (image.kind, image.architecture, image.layers) == ("oci-sif", "amd64", 1)
    assert image.created == "2024-05-06T07:08:09Z"
    assert image.digest == ocisif.read_ocisif(path).manifest_digest
    assert image.size == path.stat().st_size


def test_a_native_sif_is_named_after_its_definition(catalog: Catalog, folder: Path) -> None:
    prefix = "org.label-schema.usage.singularity.deffile."
    labels = {f"{prefix}bootstrap": "docker", f"{prefix}from": "ghcr.io/lab/solver:v2"}
    write_native(folder / "solver.sif", labels)
    image = only(catalog)
    assert (image.kind, image.title) == ("sif", "ghcr.io/lab/solver:v2")
    assert (image.architecture, image.created) == ("arm64", "2020-09-13T12:26:40Z")


@pytest.mark.parametrize("labels", [None, {"a": {"b": 1}}, {"maintainer": "nobody"}])
def test_without_an_origin_the_file_names_the_image(
    catalog: Catalog, folder: Path, labels: dict[str, Any] | None
) -> None:
    write_native(folder / "mine.sif", labels)
    assert only(catalog).title == "mine.sif"


def test_what_is_no_image_is_listed_with_the_reason(catalog: Catalog, folder: Path) -> None:
    (folder / "broken.sif").write_bytes(b"no image at all")
    image = only(catalog)
    assert image.kind == "unreadable"
    assert "SIF" in image.problem


def test_other_files_folders_and_dangling_links_are_left_out(
    catalog: Catalog, folder: Path
) -> None:
    (folder / "notes.txt").write_text("hello")
    (folder / "folder.sif").mkdir()
    (folder / "gone.sif").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.sif")
    assert catalog.images() == ()


def test_a_missing_folder_is_an_empty_one(tmp_path: Path) -> None:
    assert Catalog([tmp_path / "nowhere"], tmp_path / "cache").images() == ()


def test_the_second_scan_reads_no_file(
    catalog: Catalog, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_ocisif(folder / "tiny_1.0.oci.sif")
    first = catalog.images()
    monkeypatch.setattr("backend.catalog.read_image", lambda *_args, **_more: pytest.fail("read"))
    assert list(catalog.scan()) == [first]


def test_changed_new_and_gone_files_are_noticed(catalog: Catalog, folder: Path) -> None:
    changed, gone = folder / "a.sif", folder / "b.sif"
    for path in (changed, gone):
        write_native(path)
    assert len(catalog.images()) == 2
    gone.unlink()
    write_ocisif(folder / "c.oci.sif")
    changed.write_bytes(b"")
    assert {image.file_name: image.kind for image in catalog.images()} == {
        "a.sif": "unreadable",
        "c.oci.sif": "oci-sif",
    }
    assert {image.file_name for image in next(catalog.scan())} == {"a.sif", "c.oci.sif"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda _text: "[]",
        lambda _text: "{}",
        lambda _text: "[" * 100_000,
        lambda text: text.replace('"oci-sif"', "17"),
        lambda text: text.replace('"version":1', '"version":2'),
        lambda text: text.replace('"images":', '"images":7,"other":'),
    ],
)
def test_a_damaged_index_costs_time_and_nothing_else(
    catalog: Catalog, folder: Path, tmp_path: Path, damage: Any
) -> None:
    write_ocisif(folder / "tiny.oci.sif")
    before = catalog.images()
    (index,) = (tmp_path / "cache" / "catalog").iterdir()
    index.write_text(damage(index.read_text()))
    assert catalog.images() == before


def test_a_cache_that_cannot_be_written_does_not_matter(folder: Path, tmp_path: Path) -> None:
    write_ocisif(folder / "tiny.oci.sif")
    (tmp_path / "file").write_text("in the way")
    assert len(Catalog([folder], tmp_path / "file" / "catalog").images()) == 1


def test_it_stops_when_told(catalog: Catalog, folder: Path) -> None:
    for number in range(5):
        write_native(folder / f"{number}.sif")
    assert list(catalog.scan(lambda: True)) == [()]
    assert len(catalog.images()) == 5


def test_ten_thousand_images_come_from_one_index(
    catalog: Catalog, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_native(folder / "first.sif")
    for number in range(10_000):
        os.link(folder / "first.sif", folder / f"{number}.sif")
    assert len(catalog.images()) == 10_001
    monkeypatch.setattr("backend.sif.file.SifFile", lambda _path: pytest.fail("opened a file"))
    assert len(next(catalog.scan())) == 10_001


def test_a_lying_descriptor_table_is_a_problem_not_a_crash(catalog: Catalog, folder: Path) -> None:
    path = write_native(folder / "lies.sif")
    raw = bytearray(path.read_bytes())
    raw[88:96] = struct.pack("<q", 1 << 40)
    path.write_bytes(raw)
    assert only(catalog).kind == "unreadable"


def test_a_digest_that_does_not_fit_is_a_problem(catalog: Catalog, folder: Path) -> None:
    path = write_ocisif(folder / "bad.oci.sif")
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"schemaVersion", b"SchemaVersion"))
    image = only(catalog)
    assert image.kind == "unreadable"
    assert digest_of(b"") not in image.problem
