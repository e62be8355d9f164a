"""Folders that an ordinary user makes of images, and images of folders."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.support import images
from tests.support.containers import sifdeck
from tests.support.images import Entry
from tests.support.users import WITH_ONE, WITH_RANGE, somebody


@pytest.mark.parametrize("name", [WITH_RANGE, WITH_ONE])
def test_what_is_the_user_s_becomes_root_s(name: str) -> None:
    who = somebody(name)
    place = Path(tempfile.mkdtemp(prefix="sifdeck-sandbox-"))
    try:
        entries = [Entry(name="theirs", data=b"t", uid=1000, gid=1000, mode=0o640)]
        entries += [Entry(name="closed/file", mode=0o400), Entry(name="tool", mode=0o4755)]
        images.write_layout(place / "layout", images.image([images.layer(*entries)]))
        shutil.chown(place, who.uid, who.gid)
        made = sifdeck(who, "convert", "-s", f"oci:{place / 'layout'}", place / "folder")
        assert made.returncode == 0, made.stderr
        assert b"all files will be yours" in made.stderr
        assert {path.stat().st_uid for path in (place / "folder").rglob("*")} == {who.uid}
        back = sifdeck(who, "convert", place / "folder", place / "back.sif")
        assert back.returncode == 0, back.stderr
        listed = sifdeck(who, "ls", "-l", place / "back.sif", "/").stdout.decode().splitlines()
        found = {line.split()[-1]: line.split()[:4] for line in listed}
        assert found["theirs"] == ["-rw-r-----", "1", "0", "0"]
        assert found["tool"] == ["-rwsr-xr-x", "1", "0", "0"]
    finally:
        shutil.rmtree(place)
