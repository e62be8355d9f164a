"""Data containers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from app.cli.main import main
from backend.errors import ExistsError, NotFoundError, UsageError
from backend.sif.contents import ImageTree
from backend.sif.ocisif import read_ocisif
from backend.sif.packing import package_data

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "b").write_bytes(b"two" * 100_000)
    (folder / "a\xff".encode("utf-8", "surrogateescape").decode()).write_bytes(b"one")
    (folder / "sub" / "c").write_bytes(b"")
    (folder / "sub" / "c").chmod(0o4711)
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return folder


def test_folder(folder: Path, tmp_path: Path) -> None:
    written = package_data(folder, tmp_path / "d.oci.sif")
    image = read_ocisif(tmp_path / "d.oci.sif")
    assert image.is_data_container
    assert image.manifest_digest == written.digest
    assert image.raw_config == b"{}"
    assert image.manifest.config.media_type == "application/vnd.oci.empty.v1+json"
    assert [layer.media_type for layer in image.layers] == [
        "application/vnd.sylabs.image.layer.v1.squashfs"
    ]
    with ImageTree(tmp_path / "d.oci.sif") as tree:
        names = [os.fsdecode(path) for path, _ in tree.walk()]
        assert names == ["", "a\xff", "b", "sub", "sub/c", "sub/deep"]
        assert b"".join(tree.read(tree.need("b")[1])) == b"two" * 100_000
        node = tree.need("sub/c")[1].node
        assert (node.mode, node.uid, node.mtime) == (0o4711, os.geteuid(), 1_600_000_000)


def test_same_files_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("d.sif", "e.sif"):
        package_data(folder, tmp_path / name)
    assert (tmp_path / "d.sif").read_bytes() == (tmp_path / "e.sif").read_bytes()


def test_one_file(folder: Path, tmp_path: Path) -> None:
    package_data(folder / "b", tmp_path / "d.sif")
    with ImageTree(tmp_path / "d.sif") as tree:
        assert [path for path, _ in tree.walk()] == [b"", b"b"]


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_file(folder: Path, tmp_path: Path, kind: str) -> None:
    if kind == "link":
        (folder / "sub" / "link").symlink_to("c")
    else:
        os.mkfifo(folder / "sub" / "pipe")
    with pytest.raises(UsageError, match=f"sub/{kind} is neither"):
        package_data(folder, tmp_path / "d.sif")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "home"]


def test_places(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        package_data(tmp_path / "none", tmp_path / "d.sif")
    (tmp_path / "d.sif").touch()
    with pytest.raises(ExistsError):
        package_data(folder, tmp_path / "d.sif")


def test_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = str(tmp_path / "d.sif")
    assert main(["data", "package", str(folder), target, "--compression", "gzip"]) == 0
    capsys.readouterr()
    assert main(["inspect", target]) == 0
    text = capsys.readouterr().out
    assert "Format:        data container\n" in text
    assert "squashfs gzip" in text
    assert main(["data", "package", str(folder), target]) == 1
