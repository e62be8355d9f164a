"""``sifdeck verify``."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from app.cli.main import main
from backend.sif.inspection import inspect_file
from backend.sif.ocisif import read_ocisif
from backend.sif.ocisifwriter import OciSifWriter
from backend.sif.provenance import Documents
from tests.support.images import Entry, image, layer
from tests.support.squashed import squash, write_sif

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from backend.oci.image import Descriptor
    from tests.support.registry import Registry


def test_sound_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sif(tmp_path / "x.sif", [Entry(name="a", data=b"x")])
    assert main(["verify", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [[str(i), "ok"] for i in range(1, 5)]
    assert main(["verify", "--json", str(path)]) == 0
    assert len(json.loads(capsys.readouterr().out)["objects"]) == 4


def test_damaged_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sif(tmp_path / "x.sif", [Entry(name="a", data=b"x")])
    offset = read_ocisif(path).layers[0].offset
    with path.open("r+b") as file:
        file.seek(offset + 200)
        file.write(b"damage")
    assert main(["verify", str(path)]) == 14
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0].startswith("1    CHANGED      sha256:")
    assert "ERROR:   Object 1 is sha256:" in printed.err


@pytest.mark.registry
@pytest.mark.parametrize("options", [["zstd:5"], ["gzip:2"], ["lz4:3"], ["xz:1", "--keep-layers"]])
def test_source(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    made = image(
        [layer(Entry(name="a", data=b"one" * 9000)), layer(Entry(name="b", data=b"two"))],
        config={"Cmd": ["sh"], "Labels": {"k": "v"}},
    )
    registry.push(made, "verify/app", "1")
    path = tmp_path / "app.sif"
    reference = f"docker://{registry.host}/verify/app:1"
    pull = ["pull", "--no-https", str(path), reference, "--compression", *options]
    assert main(pull) == 0
    capsys.readouterr()
    assert main(["verify", "--source", "--no-https", str(path)]) == 0
    assert "equal to docker://" in capsys.readouterr().out
    assert main(["verify", "--source", "--no-https", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["equal"] is True

    other = forged(path, tmp_path)
    assert main(["verify", str(other)]) == 0
    capsys.readouterr()
    assert main(["verify", "--source", "--no-https", str(other)]) == 14
    text = capsys.readouterr().out
    assert "layer 1 is sha256:" in text or "1 layers instead of 2" in text
    assert "changed /a  (content)" in text
    assert "added /evil" in text
    assert sorted(one.name for one in tmp_path.iterdir()) == ["app.sif", "forged.sif", "home"]


@pytest.mark.registry
def test_source_of_a_native_sif(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = image([layer(Entry(name="a", data=b"one" * 9000)), layer(Entry(name="b"))])
    registry.push(made, "verify/native", "1")
    path, again = tmp_path / "native.sif", tmp_path / "again.sif"
    reference = f"docker://{registry.host}/verify/native:1"
    pull = ["pull", "--native", "--no-https", "--compression", "xz:2", str(path), reference]
    assert main(pull) == 0
    assert main(["convert", "--native", "--compression", "xz:2", str(path), str(again)]) == 0
    # What is added afterwards changes nothing of what was pulled.
    assert main(["sif", "add", str(path), str(__file__), "--datatype", "7"]) == 0
    capsys.readouterr()
    assert main(["verify", "--source", "--no-https", str(path)]) == 0
    assert "equal to docker://" in capsys.readouterr().out
    assert read_native(path) == read_native(again) == (reference, made.digest, "xz:2")
    offset = inspect_file(path).layers[0].offset
    with path.open("r+b") as file:
        file.seek(offset + 200)
        file.write(b"damage")
    assert main(["verify", "--source", "--no-https", str(path)]) == 14
    assert "object 4, FS" in capsys.readouterr().out


def read_native(path: Path) -> tuple[str, str, str]:
    found = inspect_file(path).provenance
    return found.reference, found.digest, found.compression


@pytest.mark.registry
def test_source_of_an_image_that_was_converted_again(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it was pulled from is still its source, not the file in between."""
    made = image([layer(Entry(name="a")), layer(Entry(name="b"))], config={"Cmd": ["sh"]})
    registry.push(made, "verify/twice", "1")
    kept, squashed = tmp_path / "kept.sif", tmp_path / "squashed.sif"
    reference = f"docker://{registry.host}/verify/twice:1"
    assert main(["pull", "--keep-layers", "--no-https", str(kept), reference]) == 0
    assert main(["convert", str(kept), str(squashed), "--compression", "lz4:2"]) == 0
    found = inspect_file(squashed).provenance
    assert (found.reference, found.digest) == (reference, made.digest)
    assert (len(found.layers), found.compression) == (2, "lz4:2")
    assert main(["verify", "--source", "--no-https", str(squashed)]) == 14
    assert "but no file: " in capsys.readouterr().out
    # An archive is an image with a digest of its own.
    assert main(["convert", str(kept), f"oci:{tmp_path / 'layout'}"]) == 0
    assert main(["convert", f"oci:{tmp_path / 'layout'}", str(tmp_path / "back.sif")]) == 0
    back = inspect_file(tmp_path / "back.sif").provenance
    assert back.reference == ""
    assert back.digest not in {"", made.digest}
    index = json.loads((tmp_path / "layout" / "index.json").read_text())
    digest = index["manifests"][0]["digest"].replace(":", "/")
    manifest = json.loads((tmp_path / "layout" / "blobs" / digest).read_text())
    assert set(manifest["annotations"]) == {
        f"dev.sifdeck.source.{name}" for name in ("reference", "digest", "layers")
    }


@pytest.mark.registry
def test_an_overlay_is_a_difference_and_its_base_is_none(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not shutil.which("mkfs.ext3", path=f"{os.environ['PATH']}:/usr/sbin:/sbin"):
        pytest.skip("no mkfs.ext3")
    registry.push(image([layer(Entry(name="a")), layer(Entry(name="b"))]), "verify/overlay", "1")
    path, reference = tmp_path / "x.sif", f"docker://{registry.host}/verify/overlay:1"
    assert main(["pull", "--no-https", str(path), reference]) == 0
    assert main(["overlay", "create", "--sparse", str(path)]) == 0
    assert main(["verify", "--source", "--no-https", str(path)]) == 14
    printed = capsys.readouterr().out
    assert "2 layers instead of 1" in printed
    assert "layer 1 is" not in printed


@pytest.mark.registry
def test_source_of_an_image_without_a_note_of_its_compression(
    registry: Registry, tmp_path: Path
) -> None:
    """As sifdeck wrote them at first."""
    registry.push(image([layer(Entry(name="a"))]), "verify/old", "1")
    path, old = tmp_path / "new.sif", tmp_path / "old.sif"
    reference = f"docker://{registry.host}/verify/old:1"
    assert main(["pull", "--no-https", "--compression", "gzip:3", str(path), reference]) == 0
    found = read_ocisif(path)
    (place,) = found.layers
    manifest = json.loads(found.raw_manifest)
    assert manifest["annotations"].pop("dev.sifdeck.compression") == "gzip:3"
    documents = Documents(config=found.raw_config, manifest=json.dumps(manifest).encode())
    with OciSifWriter(old, layer_count=1) as writer:
        with writer.layer() as out:
            out.write(path.read_bytes()[place.offset : place.offset + place.size])
        writer.finish(lambda _: documents)
    assert main(["verify", "--source", "--no-https", str(old)]) == 0


def forged(path: Path, folder: Path) -> Path:
    """Return an image that claims the same source but holds other files."""
    found = read_ocisif(path)
    target = folder / "forged.sif"
    entries = (
        Entry(name="a", data=b"ONE" * 9000),
        Entry(name="b", data=b"two"),
        Entry(name="evil"),
    )
    data = squash(folder, *entries)
    with OciSifWriter(target, layer_count=1) as writer:
        with writer.layer() as out:
            out.write(data)

        def documents(layers: Sequence[Descriptor]) -> Documents:
            manifest = json.loads(found.raw_manifest)
            manifest["layers"] = [layers[0].to_json()]
            return Documents(config=found.raw_config, manifest=json.dumps(manifest).encode())

        writer.finish(documents)
    return target


def test_image_without_a_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sif(tmp_path / "x.sif", [Entry(name="a")])
    assert main(["verify", "--source", str(path)]) == 2
    assert "does not say where it is from" in capsys.readouterr().err
