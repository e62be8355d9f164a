"""Every form of USER, for every kind of user, under every runtime: who the process is."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.support import containers, images
from tests.support.users import WITH_ONE, WITH_RANGE, somebody

pytestmark = pytest.mark.runtime

WANTED = {
    "root": (0, 0, "0", "/root"),
    "1000": (1000, 1000, "8 1000", "/home/appuser"),
    "1000:0": (1000, 0, "0", "/home/appuser"),
    "appuser": (1000, 1000, "8 1000", "/home/appuser"),
    "daemon": (1, 1, "1", "/usr/sbin"),
    "daemon:mail": (1, 8, "8", "/usr/sbin"),
    "4242": (4242, 0, "0", "/"),
    "70000:70001": (70000, 70001, "70001", "/"),
}
"""USER -> uid, gid, groups, home, as Docker has it."""

SCRIPT = (
    "id -u; id -g; id -G; echo $HOME; stat -c '%u:%g' /bin/busybox /home/appuser; "
    "echo x >/mine/new && stat -c '%u' /mine/new; cat /own/note"
)


@pytest.fixture(scope="module")
def image(open_folder: Path, busybox_squashfs: bytes) -> dict[str, Path]:
    """Give an image for each USER, and one without; each has a folder and a file of its user."""
    made = {}
    for number, (user, (uid, gid, _, _)) in enumerate({**WANTED, "": (0, 0, "", "")}.items()):
        own = images.layer(
            images.directory("own", 0o700, uid=uid, gid=gid),
            images.Entry(name="own/note", data=b"mine\n", mode=0o600, uid=uid, gid=gid),
        )
        config = {"User": user} if user else {}
        layers = [busybox_squashfs, containers.squashfs(open_folder, own)]
        made[user] = containers.oci_sif(open_folder / f"user-{number}.oci.sif", layers, config)
    return made


@pytest.mark.parametrize("name", ["root", WITH_RANGE, WITH_ONE])
@pytest.mark.parametrize("user", list(WANTED))
def test_user_of_the_image(
    user: str, name: str, runtime: str, image: dict[str, Path], open_folder: Path
) -> None:
    who = somebody(name)
    uid, gid, groups, home = WANTED[user]
    mine = Path(tempfile.mkdtemp(dir=open_folder))
    # Root's container is docker's: its process is another user, to whom the folder must belong.
    shutil.chown(mine, uid if name == "root" else who.uid, gid if name == "root" else who.gid)
    words = ["exec", "--runtime", runtime, "-B", f"{mine}:/mine", str(image[user])]
    done = containers.sifdeck(who, *words, "sh", "-c", SCRIPT, text=True)
    if (name, runtime) == (WITH_ONE, "runc") and uid:
        assert done.returncode == 125
        assert "runc cannot run the container as user" in done.stderr
        return
    single = name == WITH_ONE
    owners = [f"{uid}:{gid}"] * 2 if single else ["0:0", "1000:1000"]
    wanted = [str(uid), str(gid), groups, home, *owners, str(uid), "mine"]
    found = done.stdout.splitlines()
    if single:  # one id has no groups of the image, but keeps the host's, which have no number
        wanted[2] = found[2] = ""
    else:
        found[2] = " ".join(sorted(found[2].split(), key=int))
    assert found == wanted, done.stderr
    assert (mine / "new").stat().st_uid == (uid if name == "root" else who.uid)
