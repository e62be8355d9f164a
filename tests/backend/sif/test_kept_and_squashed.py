"""An image whose layers are kept and the same image squashed hold the same files.

Two ways through our code, by different rules: overlayfs's and those of the layer specification.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest

from backend.assembly import assembly_of, write_image
from backend.events import ignore
from backend.sif.comparison import compare
from backend.sif.contents import ImageTree
from backend.sif.provenance import Source
from backend.squashfs.compression import Compression
from tests.support.images import Entry, directory, image, layer, symlink

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("a", "b", "c")


def random_layer(chance: random.Random) -> list[Entry]:
    """Return a layer of a few entries that often hit those of other layers."""
    entries: dict[str, Entry] = {}
    for _ in range(chance.randint(1, 7)):
        path = "/".join(chance.choice(NAMES) for _ in range(chance.randint(1, 3)))
        folder, _, name = path.rpartition("/")
        parents = [folder.rsplit("/", i)[0] for i in range(folder.count("/") + 1)] if folder else []
        if any(one in entries and entries[one].kind != b"5" for one in parents):
            continue  # an entry below what is no directory
        kind = chance.choice(["file", "dir", "link", "whiteout", "opaque"])
        if kind == "whiteout":
            path = f"{folder}/.wh.{name}".lstrip("/")
            entries.setdefault(path, Entry(name=path))
        elif kind == "opaque" and folder:
            entries.setdefault(f"{folder}/.wh..wh..opq", Entry(name=f"{folder}/.wh..wh..opq"))
        elif any(one.startswith(f"{path}/") for one in entries) or kind == "dir":
            entries.setdefault(path, directory(path, chance.choice([0o755, 0o700])))
        elif kind == "link":
            entries.setdefault(path, symlink(path, chance.choice(NAMES)))
        else:
            entries.setdefault(path, Entry(name=path, data=chance.randbytes(3)))
    return [entries[path] for path in sorted(entries)]


def write(folder: Path, layers: list[list[Entry]], *, keep: bool) -> Path:
    made = image([layer(*entries) for entries in layers], compress="")
    manifest = json.loads(made.manifest)
    paths = []
    for i, one in enumerate(manifest["layers"]):
        path = folder / f"layer{i}"
        path.write_bytes(made.blobs[one["digest"]])
        paths.append(path)
    source = Source(raw_manifest=made.manifest, raw_config=made.blobs[manifest["config"]["digest"]])
    target = folder / ("kept.sif" if keep else "squashed.sif")
    write_image(
        assembly_of(source, lambda index: paths[index].open("rb")),
        target,
        compression=Compression(),
        overwrite=True,
        keep_layers=keep,
        report=ignore,
    )
    return target


@pytest.mark.parametrize("seed", range(30))
def test_same_files(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  (the same layers each time)
    layers = [random_layer(chance) for _ in range(chance.randint(2, 4))]
    kept, squashed = (write(tmp_path, layers, keep=keep) for keep in (True, False))
    with ImageTree(kept) as one, ImageTree(squashed) as other:
        assert [(change.state, change.path, change.what) for change in compare(other, one)] == []
