"""``sifdeck verify``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from app.cli.main import main
from backend.sif.ocisif import OciSifWriter, read_ocisif
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
@pytest.mark.parametrize("options", [["zstd:5"], ["gzip:2"], ["lz4"], ["xz", "--keep-layers"]])
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
