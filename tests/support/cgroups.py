"""A part of the tree of cgroup version 2, handed on to a user as systemd or a batch system does.

Made with the one controller that a host with version 1 leaves to version 2: huge pages.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.support.users import Somebody

_CONTROLLER = "hugetlb"
_SESSION = """
tree=$1 user=$2; shift 2
echo $$ >"$tree/cgroup.procs"
exec unshare --cgroup --mount sh -ec '
user=$1; shift
umount -lR /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup
cd /sys/fs/cgroup; mkdir -p user.slice/manager/app.slice user.slice/manager/terminal; cd user.slice
chown -R "$user" manager
mount -t tmpfs none /run; mkdir -p /run/systemd/system
mkdir -m 700 /run/user; chown "$user" /run/user; export XDG_RUNTIME_DIR=/run/user
echo $$ >manager/cgroup.procs
setpriv --reuid="$user" --regid="$user" --init-groups \
    /lib/systemd/systemd --user --unit=basic.target --log-target=null & manager=$!
echo $$ >manager/terminal/cgroup.procs
tries=0
until test -S /run/user/systemd/private && ! grep -q . manager/cgroup.procs; do
    tries=$((tries + 1)); test $tries -lt 1200; sleep 0.05
done
for folder in .. . manager manager/app.slice; do echo +hugetlb >$folder/cgroup.subtree_control; done
status=0; "$@" || status=$?
kill $manager; wait $manager || true
exit $status
' sh "$user" "$@"
"""
"""A terminal of a desktop session as systemd's user manager starts it, with that manager."""


class Delegated:
    """A group that belongs to a user, on a host that has version 2 only.

    Attributes:
        folder: Of the group that the user's processes begin in, as this process sees it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, who: Somebody, argv: Sequence[str]) -> list[str]:
        """Return the command that runs ``argv`` as somebody, in the group."""
        script = (
            'echo $$ >"$1/cgroup.procs"; shift; umount -lR /sys/fs/cgroup; '
            'mount -t cgroup2 none /sys/fs/cgroup; exec "$@"'
        )
        return [
            "unshare",
            "--mount",
            "sh",
            "-ec",
            script,
            "sh",
            str(self.folder),
            *who.command(argv),
        ]

    def groups(self) -> list[str]:
        """Return the names of all groups below the user's."""
        return sorted(path.name for path in self.folder.rglob("*") if path.is_dir())


@contextlib.contextmanager
def delegated(who: Somebody) -> Iterator[Delegated]:
    """Make such a group; skip by name where the kernel has none to give."""
    with _tree() as tree:
        made = Delegated(tree / "job")
        made.folder.mkdir()
        (tree / "cgroup.subtree_control").write_text(f"+{_CONTROLLER}")
        for path in (made.folder, *made.folder.glob("cgroup.*")):
            shutil.chown(path, who.uid, who.gid)
        yield made


@contextlib.contextmanager
def login_session(who: Somebody, argv: Sequence[str]) -> Iterator[list[str]]:
    """Give the command that runs ``argv`` for somebody who has logged in, with systemd as init."""
    if not Path("/lib/systemd/systemd").exists() or not shutil.which("systemd-run"):
        pytest.skip("no systemd")
    with _tree() as tree:
        yield ["sh", "-ec", _SESSION, "sh", str(tree), str(who.uid), *who.command(argv)]


@contextlib.contextmanager
def _tree() -> Iterator[Path]:
    """Make a group of our own that hands on the controller."""
    root = _unified()
    tree = root / f"sifdeck-test-{uuid.uuid4().hex[:8]}"
    handing = (root / "cgroup.subtree_control").read_text().split()
    (root / "cgroup.subtree_control").write_text(f"+{_CONTROLLER}")
    try:
        tree.mkdir()
        yield tree
    finally:
        wait_until(lambda: _is_removed(tree))
        if _CONTROLLER not in handing:
            (root / "cgroup.subtree_control").write_text(f"-{_CONTROLLER}")


def _is_removed(tree: Path) -> bool:
    """Remove what is empty, and tell whether that was all: a process may be just ending."""
    for folder, _, _ in os.walk(tree, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return not tree.exists()


def _unified() -> Path:
    for root in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        controllers = root / "cgroup.controllers"
        if controllers.exists() and _CONTROLLER in controllers.read_text().split():
            return root
    pytest.skip(f"no cgroup version 2 with {_CONTROLLER}")
