"""What daemons save, as layouts."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.build.saved import write_saved
from backend.errors import FormatError
from backend.oci.image import parse_manifest
from backend.oci.json import MAX_DOCUMENT
from backend.reference import Reference
from backend.sources.layout import LayoutSource
from backend.sources.tree import FolderTree
from tests.support.images import Entry, MadeImage, digest, hardlink, image, layer, symlink

if TYPE_CHECKING:
    from backend.oci.image import Manifest

FIRST, SECOND = layer(Entry(name="a", data=b"1")), layer(Entry(name="b", data=b"2"))
CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'


def old_archive(*layers: bytes, links: tuple[Entry, ...] = ()) -> bytes:
    """Return what Docker 20.10 saves; a link stands for the layer of its name."""
    names = [f"{number:064x}/layer.tar" for number, _ in enumerate(layers)]
    listing = {"Config": "c.json", "RepoTags": None, "Layers": [*names, *(e.name for e in links)]}
    return layer(
        Entry(name="c.json", data=CONFIG),
        *(Entry(name=name, data=data) for name, data in zip(names, layers, strict=True)),
        *links,
        Entry(name="manifest.json", data=json.dumps([listing]).encode()),
    )


def new_archive(made: MadeImage) -> bytes:
    """Return what Docker 25 and later save."""
    entry = {"mediaType": made.media_type, "digest": made.digest, "size": len(made.manifest)}
    blobs = {**made.blobs, made.digest: made.manifest}
    return layer(
        *(Entry(name=f"blobs/{n.replace(':', '/')}", data=data) for n, data in blobs.items()),
        Entry(name="index.json", data=json.dumps({"manifests": [entry]}).encode()),
        Entry(name="manifest.json", data=b"[]"),
        Entry(name="oci-layout", data=b'{"imageLayoutVersion":"1.0.0"}'),
    )


def manifest_of(layout: Path) -> Manifest:
    source = LayoutSource(FolderTree(layout), is_folder=True)
    reference = Reference(transport="oci", path=str(layout))
    return parse_manifest(asyncio.run(source.fetch_manifest(reference)).data)


class OneWay(io.BytesIO):
    """A stream that gives little at a time, and cannot go back."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 700) if size != -1 else -1)

    def seekable(self) -> bool:
        return False


class TestSaved:
    def test_the_old_form(self, tmp_path: Path) -> None:
        write_saved(OneWay(old_archive(FIRST, SECOND)), tmp_path / "x")
        manifest = manifest_of(tmp_path / "x")
        assert [one.digest for one in manifest.layers] == [digest(FIRST), digest(SECOND)]
        assert [one.size for one in manifest.layers] == [len(FIRST), len(SECOND)]
        assert manifest.config.digest == digest(CONFIG)
        for data in (FIRST, SECOND, CONFIG):
            name = digest(data).replace(":", "/")
            assert (tmp_path / "x" / "blobs" / name).read_bytes() == data

    def test_layers_that_are_the_same_are_links(self, tmp_path: Path) -> None:
        target = f"{0:064x}/layer.tar"
        links = (symlink("l/layer.tar", f"../{target}"), hardlink("m/layer.tar", target))
        write_saved(OneWay(old_archive(FIRST, links=links)), tmp_path / "x")
        layers = manifest_of(tmp_path / "x").layers
        assert [one.digest for one in layers] == [digest(FIRST)] * 3

    def test_the_new_form(self, tmp_path: Path) -> None:
        made = image([FIRST, SECOND])
        write_saved(OneWay(new_archive(made)), tmp_path / "x")
        blobs = tmp_path / "x" / "blobs" / "sha256"
        assert (blobs / made.digest.removeprefix("sha256:")).read_bytes() == made.manifest
        layers = manifest_of(tmp_path / "x").layers
        assert [one.digest for one in layers] == list(made.blobs)[:2]
        assert {path.name for path in blobs.iterdir()} == {
            name.removeprefix("sha256:") for name in (*made.blobs, made.digest)
        }

    @pytest.mark.parametrize(
        ("archive", "said"),
        [
            (b"", "no tar archive"),
            (b"x" * 4096, "no tar archive"),
            (layer(Entry(name="a")), "holds no image"),
            (layer(Entry(name="manifest.json", data=b"[]")), "holds no image"),
            (layer(Entry(name="manifest.json", data=b"{")), "manifest.json"),
            (layer(Entry(name="manifest.json", data=b'[{"Config":"../x"}]')), "lacks"),
            (layer(symlink("s", "/etc/passwd"), Entry(name="manifest.json", data=(
                b'[{"Config":"s","Layers":[]}]'))), "lacks"),
            (layer(Entry(name="index.json", data=b" " * (MAX_DOCUMENT + 1))), "bytes large"),
        ],
        ids=["nothing", "junk", "other", "empty", "broken", "away", "link", "large"],
    )  # fmt: skip
    def test_what_is_no_image(self, archive: bytes, said: str, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match=said):
            write_saved(io.BytesIO(archive), tmp_path / "x")

    def test_names_that_lead_elsewhere_are_blobs_like_others(self, tmp_path: Path) -> None:
        archive = layer(Entry(name="../../evil", data=b"x"), Entry(name="/evil", data=b"y"))
        with pytest.raises(FormatError, match="holds no image"):
            write_saved(io.BytesIO(archive), tmp_path / "a" / "x")
        assert {path.name for path in tmp_path.rglob("*")} == {
            *("home", "a", "x", "blobs", "sha256"),
            *(digest(data).removeprefix("sha256:") for data in (b"x", b"y")),
        }

    def test_a_stream_that_breaks_off(self, tmp_path: Path) -> None:
        whole = old_archive(FIRST * 50)
        with pytest.raises(FormatError):
            write_saved(OneWay(whole[: len(whole) // 2]), tmp_path / "x")

    @settings(max_examples=60)  # each writes a folder
    @given(junk=st.binary(max_size=2048), place=st.integers(min_value=0, max_value=20_000))
    def test_any_bytes_are_taken_or_refused(self, junk: bytes, place: int) -> None:
        data = old_archive(FIRST)
        for archive in (junk, data[:place] + junk + data[place + len(junk) :]):
            with tempfile.TemporaryDirectory() as folder, contextlib.suppress(FormatError):
                write_saved(io.BytesIO(archive), Path(folder) / "x")


def test_the_archives_of_the_tests_are_archives() -> None:
    for archive in (old_archive(FIRST), new_archive(image([FIRST]))):
        with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
            assert "manifest.json" in opened.getnames()
