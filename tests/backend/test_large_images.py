"""Images that are large in one way or another, from layers to a file and back."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from app.cli.main import main
from backend.sif.contents import ImageTree
from backend.sif.ocisif import read_ocisif
from tests.support.images import Entry, directory, image, layer, write_layout
from tests.support.squashfs import kernel_mounted, need_root

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30


def pull(tmp_path: Path, *layers: bytes) -> Path:
    write_layout(tmp_path / "layout", image(list(layers)))
    made = tmp_path / "made.sif"
    assert main(["-q", "pull", str(made), f"oci:{tmp_path / 'layout'}"]) == 0
    return made


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_a_sparse_file_of_6_gib(form: str, tmp_path: Path) -> None:
    """It takes no more room than what is in it, wherever it goes."""
    need_root()
    origin = tmp_path / "origin"
    origin.mkdir()
    parts = {0: b"head", 3 * GIB - 2: b"middle", 6 * GIB - 1: b"!"}
    with (origin / "sparse").open("wb") as file:
        for position, data in parts.items():
            os.pwrite(file.fileno(), data, position)
    archive = tmp_path / "layer.tar"
    tar = ["tar", "-C", str(origin), "--format", form, "--sparse", "-cf", str(archive), "sparse"]
    subprocess.run(tar, check=True)
    made = pull(tmp_path, archive.read_bytes())
    with kernel_mounted(made, offset=read_ocisif(made).layers[0].offset) as root:
        assert holds(root / "sparse", parts)
    folder, saved = tmp_path / "folder", tmp_path / "saved.tar"
    assert main(["-q", "convert", "--sandbox", str(made), str(folder)]) == 0
    assert holds(folder / "sparse", parts)
    assert main(["-q", "cp", f"{made}:/sparse", str(tmp_path / "copy")]) == 0
    assert holds(tmp_path / "copy", parts)
    assert main(["-q", "convert", str(made), f"docker-archive:{saved}"]) == 0
    with tarfile.open(saved) as outer:
        (name,) = (one for one in outer.getnames() if one.endswith(".tar"))
        packed = outer.extractfile(name)
        assert packed is not None
        with (tmp_path / name).open("wb") as out:
            shutil.copyfileobj(packed, out)
    back = tmp_path / "back"
    back.mkdir()
    subprocess.run(["tar", "-C", str(back), "-xf", str(tmp_path / name)], check=True)
    assert holds(back / "sparse", parts)
    small = [made, saved, folder / "sparse", tmp_path / "copy", back / "sparse"]
    assert max(path.stat().st_blocks * 512 for path in small) < 8 << 20


def holds(path: Path, parts: dict[int, bytes]) -> bool:
    """Tell whether a file is 6 GiB long, has the parts, and zeros near them."""
    fd = os.open(path, os.O_RDONLY)
    try:
        around = [os.pread(fd, 4096, max(0, at - 1000)).strip(b"\0") for at in parts]
        return os.fstat(fd).st_size == 6 * GIB and around == list(parts.values())
    finally:
        os.close(fd)


def test_thousands_of_files(tmp_path: Path) -> None:
    """200,000 go the same way, and take half a minute to make and to judge."""
    need_root()
    if not shutil.which("unsquashfs"):
        pytest.skip("no unsquashfs")
    names = [f"d{n % 20}/f{n}" for n in range(6000)]
    files = layer(*(Entry(name=name, data=name.encode()) for name in names))
    upper = layer(
        directory("d5"),
        Entry(name="d5/.wh..wh..opq"),
        Entry(name="d5/new", data=b"d5/new"),
        Entry(name=".wh.d6"),
        Entry(name="d7/.wh.f7"),
    )
    made = pull(tmp_path, files, upper)
    gone = {name for name in names if name.startswith(("d5/", "d6/"))} | {"d7/f7"}
    wanted = {*names, "d5/new"} - gone
    listing = ["unsquashfs", "-o", str(read_ocisif(made).layers[0].offset), "-lc", str(made)]
    printed = subprocess.run(listing, check=True, capture_output=True, text=True).stdout
    found = {line.removeprefix("squashfs-root/") for line in printed.splitlines()}
    assert {name for name in found if "/f" in name or name == "d5/new"} == wanted
    folder = tmp_path / "folder"
    assert main(["-q", "convert", "--sandbox", str(made), str(folder)]) == 0
    paths = [path for path in folder.rglob("*") if path.is_file()]
    assert {str(path.relative_to(folder)) for path in paths} == wanted
    assert all(path.read_text() == str(path.relative_to(folder)) for path in paths)


def test_a_thousand_attributes(tmp_path: Path) -> None:
    need_root()
    wanted = {f"user.n{n}": f"value {n}".encode() for n in range(1000)}
    pax = {f"SCHILY.xattr.{name}": value.decode() for name, value in wanted.items()}
    made = pull(tmp_path, layer(Entry(name="noted", data=b"x", pax=pax)))
    with kernel_mounted(made, offset=read_ocisif(made).layers[0].offset) as root:
        path = root / "noted"
        assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == wanted
    with ImageTree(made) as tree:
        found = dict(tree.xattrs(tree.need("noted")[1]))
    assert {os.fsdecode(name): value for name, value in found.items()} == wanted
