"""Writable overlays; e2fsprogs writes into them and judges them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from app.cli.main import main
from backend.errors import FormatError, UsageError
from backend.oci import media
from backend.sif.comparison import compare
from backend.sif.contents import ImageTree
from backend.sif.edit import NewObject, edit_sif
from backend.sif.file import SifFile
from backend.sif.inspection import inspect_file
from backend.sif.ocisif import read_ocisif
from backend.sif.overlay import NewOverlay, create_overlay, seal_overlay, sync_overlay
from backend.sif.packing import package_data
from backend.sif.records import DataType, PartitionKind
from backend.sif.verification import verify_blobs
from backend.squashfs.inode import Kind
from tests.support import images
from tests.support.images import Entry, directory
from tests.support.sifs import SIGNATURE, Object, blob, partition, sif
from tests.support.squashed import write_sif

if TYPE_CHECKING:
    from pathlib import Path

SMALL = NewOverlay(is_sparse=True, folders=("/made/here",))


@pytest.fixture(autouse=True)
def _tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/sbin")
    for program in ("mkfs.ext3", "debugfs", "e2fsck"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    base = [directory("d"), Entry(name="d/old", data=b"old"), Entry(name="gone", data=b"g")]
    return write_sif(tmp_path / "x.sif", base, config={"Cmd": ["sh"]})


def change_overlay(path: Path, folder: Path, commands: list[str]) -> None:
    """Write into the overlay of an image as a container would, in place."""
    place = read_ocisif(path).layers[-1]
    part = folder / "overlay.ext3"
    with path.open("rb") as file:
        file.seek(place.offset)
        part.write_bytes(file.read(place.size))
    script = folder / "commands"
    script.write_text("\n".join(commands) + "\n")
    argv = ["debugfs", "-w", "-f", str(script), str(part)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert "File not found" not in done.stdout + done.stderr
    with path.open("r+b") as file:
        file.seek(place.offset)
        file.write(part.read_bytes())
    part.unlink()


def check_ext3(data: bytes, folder: Path) -> str:
    part = folder / "check.ext3"
    part.write_bytes(data)
    subprocess.run(["e2fsck", "-fn", str(part)], check=True, capture_output=True)
    done = subprocess.run(
        ["debugfs", "-R", "ls -p /upper", str(part)], check=True, capture_output=True, text=True
    )
    part.unlink()
    return done.stdout


def test_overlay_is_the_last_layer(image: Path, tmp_path: Path) -> None:
    before = read_ocisif(image)
    create_overlay(image, SMALL)
    found = read_ocisif(image)
    assert found.layers[0].digest == before.layers[0].digest
    overlay = found.layers[-1]
    assert (overlay.media_type, overlay.size, overlay.offset % 4096) == (
        media.EXT3_LAYER,
        64 << 20,
        0,
    )
    assert found.config.diff_ids == (before.layers[0].digest, overlay.digest)
    assert sum(not entry.empty_layer for entry in found.config.history) == 2
    assert found.config.cmd == ("sh",)
    assert found.manifest_digest != before.manifest_digest
    assert all(one.is_sound for one in verify_blobs(image))
    with SifFile(image) as file:
        assert file.header.deterministic
        assert file.header.free == 7
        listing = check_ext3(file.read(file.find(overlay.object_id), limit=1 << 30), tmp_path)
    assert "/made/" in listing
    assert image.stat().st_blocks * 512 < 20 << 20
    assert sorted(one.name for one in tmp_path.iterdir()) == ["home", "x.sif"]
    with pytest.raises(UsageError, match="already exists in image"):
        create_overlay(image, SMALL)
    with ImageTree(image) as tree:
        assert tree.has_overlay
        assert (tree.overlay_problem, len(tree.layers), len(tree.stack)) == ("", 1, 2)
        assert tree.need("made/here")[1].layer == 1


def test_overlay_that_takes_its_space_at_once(tmp_path: Path) -> None:
    path = tmp_path / "overlay.img"
    create_overlay(path, NewOverlay(size_mib=70))
    assert path.stat().st_size == 70 << 20
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_blocks * 512 >= 70 << 20
    check_ext3(path.read_bytes(), tmp_path)


def test_native_image(tmp_path: Path) -> None:
    path = tmp_path / "x.sif"
    path.write_bytes(sif(partition(b"fs", arch=b"04\0"), arch=b"04\0"))
    create_overlay(path, SMALL)
    with SifFile(path) as file:
        part = file.descriptors[-1].partition()
        assert (part.fs, part.kind, part.architecture) == (2, PartitionKind.OVERLAY, "arm64")
        assert file.descriptors[-1].offset % 4096 == 0
    with pytest.raises(UsageError, match="already exists in image"):
        create_overlay(path, SMALL)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (sif(partition(b"p"), Object(kind=SIGNATURE, data=b"s")), "signed image"),
        (sif(blob(b"x")), "no image that could have"),
    ],
)
def test_images_that_get_none(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.sif"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=message):
        create_overlay(path, SMALL)
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    "new", [NewOverlay(size_mib=63), NewOverlay(is_sparse=True, folders=("../x",))]
)
def test_overlays_that_cannot_be(image: Path, new: NewOverlay) -> None:
    before = image.read_bytes()
    with pytest.raises(UsageError):
        create_overlay(image, new)
    assert image.read_bytes() == before


CHANGES = [
    "cd /upper",
    "mkdir d",
    "write HOST/sparse sparse",
    "symlink short d/new",
    f"symlink long {'t' * 100}",
    "mknod gone c 0 0",
    "mknod null c 1 3",
    "mknod pipe p",
    "ea_set d trusted.overlay.opaque y",
    "ea_set d trusted.overlay.origin x",
    "cd /upper/d",
    "write HOST/new new",
    "set_inode_field new mode 0104755",
    "set_inode_field new uid 70000",
    "ea_set new user.big VALUE",
    "cd /upper",
    "ln d/new hard",
    "set_inode_field hard links_count 2",
]


def changed(image: Path, tmp_path: Path) -> None:
    create_overlay(image, SMALL)
    host = tmp_path / "host"
    host.mkdir()
    (host / "new").write_bytes(b"new data" * 100_000)
    with (host / "sparse").open("wb") as file:
        file.write(b"start")
        file.seek(10 << 20)
        file.write(b"end")
    text = "\n".join(CHANGES).replace("HOST", str(host)).replace("VALUE", "v" * 700)
    change_overlay(image, tmp_path, text.splitlines())


def test_sync(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(image, tmp_path)
    assert main(["verify", str(image)]) == 14
    assert "overlay sync" in capsys.readouterr().err
    stale = read_ocisif(image).layers[-1].digest
    assert main(["overlay", "sync", str(image)]) == 0
    assert read_ocisif(image).layers[-1].digest != stale
    assert all(one.is_sound for one in verify_blobs(image))
    assert read_ocisif(image).config.diff_ids[-1] == read_ocisif(image).layers[-1].digest
    capsys.readouterr()
    assert main(["overlay", "sync", str(image)]) == 0
    assert "no update required" in capsys.readouterr().err


def test_seal(image: Path, tmp_path: Path) -> None:
    changed(image, tmp_path)
    sync_overlay(image)
    before = image.with_name("before.sif")
    shutil.copy(image, before)
    seal_overlay(image)
    with ImageTree(before) as writable, ImageTree(image) as sealed:
        assert list(compare(writable, sealed)) == []
    before.unlink()
    found = read_ocisif(image)
    assert [layer.media_type for layer in found.layers] == [media.SQUASHFS_LAYER] * 2
    assert all(one.is_sound for one in verify_blobs(image))
    assert image.stat().st_size < 3 << 20
    with ImageTree(image) as tree:
        names = [path for path, _ in tree.walk()]
        assert names == [
            b"",
            b"d",
            b"d/new",
            b"hard",
            b"long",
            b"made",
            b"made/here",
            b"null",
            b"pipe",
            b"short",
            b"sparse",
        ]
        new = tree.need("d/new")[1]
        assert b"".join(tree.read(new)) == b"new data" * 100_000
        assert (new.node.mode, new.node.uid, new.node.links) == (0o4755, 70000, 2)
        assert tree.xattrs(new) == ((b"user.big", b"v" * 700),)
        assert tree.need("hard")[1].number == new.number
        assert tree.readlink(tree.need("short", follow=False)[1]) == b"d/new"
        assert tree.readlink(tree.need("long", follow=False)[1]) == b"t" * 100
        sparse = b"".join(tree.read(tree.need("sparse")[1]))
        assert sparse == b"start".ljust(10 << 20, b"\0") + b"end"
        assert tree.need("null")[1].node.device == 1 << 8 | 3
        opaque = tree.layers[1].xattrs(tree.need("d")[1].node)
        assert opaque == ((b"trusted.overlay.opaque", b"y"), (b"user.overlay.opaque", b"y"))


def test_what_fuse_overlayfs_notes_as_deleted(image: Path, tmp_path: Path) -> None:
    create_overlay(image, SMALL)
    empty = tmp_path / "empty"
    empty.touch()
    commands = [
        "cd /upper", "mkdir d", f"write {empty} .wh.gone", f"write {empty} .wh.d", "cd d",
        f"write {empty} .wh..wh..opq", "mknod .wh..opq c 0 0", f"write {empty} new",
    ]  # fmt: skip
    change_overlay(image, tmp_path, commands)
    expected = [b"", b"d", b"d/new", b"made", b"made/here"]
    with ImageTree(image) as tree:
        assert [path for path, _ in tree.walk()] == expected
        assert tree.lookup("gone") is None
        assert tree.lookup("d/old") is None
    seal_overlay(image)
    with ImageTree(image) as tree:
        assert [path for path, _ in tree.walk()] == expected
        raw = tree.layers[1].lookup("gone")
        assert raw is not None
        assert (raw.kind, raw.device) == (Kind.CHARACTER_DEVICE, 0)
        assert tree.layers[1].lookup("d/.wh..wh..opq") is None


def test_signatures_of_cosign_stay_and_the_user_is_told(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.dumps({"config": {"digest": f"sha256:{'0' * 64}", "size": 0}, "layers": []})
    with SifFile(image) as file:
        (root,) = file.of_kind(DataType.OCI_ROOT_INDEX)
        index = json.loads(file.read(root, limit=10000))
    digest = hashlib.sha256(document.encode()).hexdigest()
    index["manifests"].append(
        {
            "mediaType": media.OCI_MANIFEST,
            "size": len(document),
            "digest": f"sha256:{digest}",
            "annotations": {"org.opencontainers.image.ref.name": "_cosign:sha256-0.sig"},
        }
    )
    with edit_sif(image) as editor:
        editor.delete(root.id)
        editor.add(NewObject(kind=DataType.OCI_BLOB), io.BytesIO(document.encode()))
        data = json.dumps(index).encode()
        editor.add(NewObject(kind=DataType.OCI_ROOT_INDEX), io.BytesIO(data))
    assert main(["overlay", "create", "--sparse", str(image)]) == 0
    assert "cosign signatures in the file stay" in capsys.readouterr().err
    found = read_ocisif(image)
    assert len(found.index.manifests) == 2
    assert found.layers[-1].is_overlay
    with SifFile(image) as file:
        assert f"sha256:{digest}" in {one.digest() for one in file.of_kind(DataType.OCI_BLOB)}


def test_a_signature_of_the_file_stays_and_the_user_is_told(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_overlay(image, SMALL)
    with edit_sif(image) as editor:
        new = NewObject(kind=DataType.SIGNATURE, group=0, link=1, link_is_group=True)
        editor.add(new, io.BytesIO(b"signed"))
    assert main(["overlay", "seal", str(image)]) == 0
    assert "does not match it any more" in capsys.readouterr().err
    with SifFile(image) as file:
        (signature,) = file.of_kind(DataType.SIGNATURE)
        assert file.read(signature, limit=100) == b"signed"
    assert main(["overlay", "create", str(image)]) == 2
    error = capsys.readouterr().err
    assert "cannot add overlay to a signed image" in error
    assert "WARNING" not in error


def test_a_data_container_gets_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    path = tmp_path / "data.sif"
    package_data(tmp_path / "file", path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="holds data"):
        create_overlay(path, SMALL)
    assert path.read_bytes() == before


def test_image_without_an_overlay(image: Path) -> None:
    for function in (sync_overlay, seal_overlay):
        with pytest.raises(UsageError, match="does not contain a writable overlay"):
            function(image)


def test_overlay_in_use_is_not_sealed(image: Path, tmp_path: Path) -> None:
    create_overlay(image, SMALL)
    change_overlay(image, tmp_path, ["feature +needs_recovery"])
    with pytest.raises(FormatError, match="in use"):
        seal_overlay(image)
    with ImageTree(image) as tree:
        assert "in use" in tree.overlay_problem
        assert [path for path, _ in tree.walk()] == [b"", b"d", b"d/old", b"gone"]
    assert read_ocisif(image).layers[-1].is_overlay


def test_damaged_overlay(image: Path) -> None:
    create_overlay(image, SMALL)
    place = read_ocisif(image).layers[-1]
    with image.open("r+b") as file:
        file.seek(place.offset + 1024)
        file.write(bytes(200))
    before = image.read_bytes()
    with pytest.raises(FormatError, match="magic"):
        seal_overlay(image)
    assert image.read_bytes() == before


def test_kind_of_a_sealed_whiteout(image: Path, tmp_path: Path) -> None:
    changed(image, tmp_path)
    seal_overlay(image)
    with ImageTree(image) as tree:
        assert tree.lookup("gone") is None
        raw = tree.layers[1].lookup("gone")
        assert raw is not None
        assert (raw.kind, raw.device) == (Kind.CHARACTER_DEVICE, 0)


@pytest.mark.parametrize("keep", [True, False])
def test_an_overlay_is_from_no_layer_of_the_source(keep: bool, tmp_path: Path) -> None:
    made = images.image([images.layer(Entry(name="a")), images.layer(Entry(name="b"))])
    layout, path = images.write_layout(tmp_path / "layout", made), tmp_path / "x.sif"
    kept = ["--keep-layers"] if keep else []
    assert main(["-q", "convert", *kept, f"oci:{layout}", str(path)]) == 0
    base, upper = json.loads(made.manifest)["layers"]
    wanted = [[base], [upper], []] if keep else [[base, upper], []]
    digests = [[one["digest"] for one in sources] for sources in wanted]
    create_overlay(path, SMALL)
    assert sources_of(path) == digests
    seal_overlay(path)
    assert sources_of(path) == digests


def sources_of(path: Path) -> list[list[str]]:
    return [[one.digest for one in layer.sources] for layer in inspect_file(path).layers]
