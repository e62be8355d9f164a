"""The control groups that a BuildKit daemon of ours leaves, when it is root's."""

from __future__ import annotations

import contextlib
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def group_name(folder: Path) -> str:
    """Return the name of the group in which the containers of a build are."""
    return folder.name


def remove_groups(folder: Path) -> None:
    """Remove the groups of a build whose daemon has ended, in every hierarchy.

    Args:
        folder: Of the build.
    """
    name = group_name(folder)
    for top in (*_ROOT.glob(name), *_ROOT.glob(f"*/{name}")):
        groups = [path for path in top.glob("**/") if path.is_dir()]
        for group in sorted(groups, reverse=True):  # the inner ones first
            with contextlib.suppress(OSError):
                group.rmdir()
