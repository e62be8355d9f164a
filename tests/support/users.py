"""Unprivileged users that tests run as: one with subordinate ids, one with a single id."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

_COUNT = 65536
WITH_RANGE, WITH_ONE = "sifdeck-many", "sifdeck-one"

_OPEN_FUSE = "mknod -m 666 /mnt/fuse c 10 229 && mount --bind /mnt/fuse /dev/fuse"
"""For a mount namespace of one test's own: the device as udev leaves it on an ordinary host."""
_CLOSE_FUSE = "mknod -m 666 /mnt/fuse c 10 254 && mount --bind /mnt/fuse /dev/fuse"
"""A device without a driver: not even root can open it."""
_OPEN_TUN = (
    "if test -e /dev/net/tun; then "
    "mknod -m 666 /mnt/tun c 10 200 && mount --bind /mnt/tun /dev/net/tun; fi"
)
"""As udev leaves it."""
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Somebody:
    """Who runs a command of a test, whether FUSE is open to them, and groups they are in, too."""

    name: str
    fuse: bool = True
    groups: tuple[int, ...] = ()

    @property
    def uid(self) -> int:
        return pwd.getpwnam(self.name).pw_uid

    @property
    def gid(self) -> int:
        return pwd.getpwnam(self.name).pw_gid

    @property
    def home(self) -> Path:
        return Path(pwd.getpwnam(self.name).pw_dir)

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs ``argv`` as this user, seeing FUSE or not."""
        groups = ",".join(str(gid) for gid in (self.gid, *self.groups))
        switch = ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", f"--groups={groups}"]
        become = [] if self.name == "root" else switch
        script = [
            "set -e",
            "mount -t tmpfs -o mode=755 none /mnt",
            _OPEN_FUSE if self.fuse else _CLOSE_FUSE,
            _OPEN_TUN,
            *_reach([Path(sys.base_prefix), ROOT]),
            "umount -l /mnt",
            'exec "$@"',
        ]
        return ["unshare", "--mount", "sh", "-c", "\n".join(script), "sh", *become, *argv]

    def environment(self) -> dict[str, str]:
        """Return an environment as a login gives it; root's home is the test's."""
        return {
            "HOME": os.environ["HOME"] if self.name == "root" else str(self.home),
            "USER": self.name,
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "TERM": "xterm",
        }


def _reach(needed: Sequence[Path]) -> list[str]:
    """Return the commands that let others reach folders which lie in somebody's closed home."""
    closed = {}
    for path in needed:
        for folder in reversed(path.parents):
            if not folder.stat().st_mode & 0o001:
                closed[path] = folder
                break
    kept = {path: f"/mnt/{number}" for number, path in enumerate(closed)}
    return [
        *(
            f"mkdir {place} && mount --rbind {shlex.quote(str(p))} {place}"
            for p, place in kept.items()
        ),
        *(f"mount -t tmpfs -o mode=755 none {shlex.quote(str(f))}" for f in set(closed.values())),
        *(
            f"mkdir -p {shlex.quote(str(p))} && mount --rbind {place} {shlex.quote(str(p))}"
            for p, place in kept.items()
        ),
    ]


def somebody(name: str, *, fuse: bool = True, groups: tuple[int, ...] = ()) -> Somebody:
    """Return the user, made first if this machine has not got them; else skip."""
    if os.getuid() != 0:
        pytest.skip("not root: cannot make test users")
    if name != "root":
        _make(name)
    return Somebody(name=name, fuse=fuse, groups=groups)


def _make(name: str) -> None:
    for program in ("useradd", "usermod", "setpriv", "unshare", "newuidmap"):
        if not shutil.which(program):
            pytest.skip(f"no {program}")
    try:
        pwd.getpwnam(name)
    except KeyError:
        subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", name], check=True)
    for path, kind in (("/etc/subuid", "uids"), ("/etc/subgid", "gids")):
        ranges = [line.split(":") for line in Path(path).read_text().splitlines()]
        own = [(int(first), int(count)) for owner, first, count in ranges if owner == name]
        if name == WITH_ONE:
            for first, count in own:
                _change(name, f"--del-sub{kind}", first, count)
        elif not own:
            first = max((int(line[1]) + int(line[2]) for line in ranges), default=100_000)
            _change(name, f"--add-sub{kind}", max(first, 100_000), _COUNT)


def _change(name: str, option: str, first: int, count: int) -> None:
    subprocess.run(["usermod", option, f"{first}-{first + count - 1}", name], check=True)
