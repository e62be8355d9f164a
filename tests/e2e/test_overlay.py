"""A writable overlay in an image: made, written to and sealed by ordinary users."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.support.containers import sifdeck
from tests.support.users import WITH_ONE, WITH_RANGE, somebody

pytestmark = pytest.mark.runtime


@pytest.mark.parametrize(
    ("name", "flags"), [(WITH_RANGE, []), (WITH_RANGE, ["--fakeroot"]), (WITH_ONE, [])]
)
def test_an_overlay_from_its_beginning_to_its_seal(
    name: str, flags: list[str], busybox: Path, open_folder: Path
) -> None:
    for program in ("mkfs.ext3", "debugfs", "fuse2fs", "fuse-overlayfs"):
        if not shutil.which(program, path="/usr/bin:/bin:/usr/sbin:/sbin"):
            pytest.skip(f"no {program}")
    who = somebody(name)
    folder = Path(tempfile.mkdtemp(dir=open_folder))
    image = folder / "image.sif"
    shutil.copy(busybox, image)
    for path in (folder, image):
        shutil.chown(path, who.uid, who.gid)

    def run(*arguments: str | Path) -> str:
        done = sifdeck(who, *arguments)
        assert done.returncode == 0, done.stderr
        return str(done.stdout.decode())

    run("overlay", "create", "--sparse", "--create-dir", "/made", *flags, image)
    script = "touch /made/x && echo kept >/made/note && stat -c %u /made && echo top >/top"
    owner = "0\n" if flags else f"{who.uid}\n"
    assert run("exec", "--writable", *flags, image, "sh", "-c", script) == owner
    run("overlay", "sync", image)
    run("verify", image)
    run("overlay", "seal", image)
    run("verify", image)
    assert run("exec", *flags, image, "cat", "/made/note", "/top") == "kept\ntop\n"
