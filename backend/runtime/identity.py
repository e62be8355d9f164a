"""Who the container's process is: the image's ``USER``, and the map between its ids and ours.

The rule: ids in the image are always shown right, and the container's process *is* the caller
on the host.  With subordinate ids, the container's id T is the caller's and every other id, in
order, is the next subordinate one.  With one id only, everything in the image belongs to the
process.  Real root needs no map.
"""

from __future__ import annotations

import os

from backend.errors import LaunchError
from backend.escape import quoted
from backend.values import Value, replace

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from typing import Literal

    Mode = Literal["root", "subordinate", "single"]

IdMap = tuple[tuple[int, int, int], ...]
"""Entries of (inside, outside, count), as in ``/proc/PID/uid_map``."""

MIN_SUBORDINATE = 65536
"""Ids that an ordinary image needs; fewer are as good as none."""
_ALL_IDS = (1 << 32) - 1
"""As many as the machine's own user namespace has."""
_MAX_ID = (1 << 32) - 2
_MAX_GROUPS = 64
"""Supplementary groups taken from an image's group file."""


class User(Value):
    """A user of the container.

    Attributes:
        uid: In the container.
        gid: In the container.
        groups: Supplementary ones, in the container.
        home: Absolute path in the container.
        name: Of the caller, when the container is to know them; else empty.
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"
    name: str = ""


class Caller(Value):
    """Who asks, as the host knows them.

    Attributes:
        uid: On the host, or in the user namespace that we were started in.
        gid: Their current group.
        name: Login name; the number when the host knows none.
        home: Absolute path.
        groups: Supplementary groups.
        uid_range: (first, count) of the subordinate uids; None when there are not enough.
        gid_range: The same for gids.
        map_tools: Paths of newuidmap and newgidmap; empty when they cannot be used.
        real_root: Root of the machine, not of a user namespace.
        lone: Alone in the user namespace we were started in, as ``unshare -r`` makes it.
    """

    uid: int
    gid: int
    name: str
    home: str
    groups: tuple[int, ...] = ()
    uid_range: tuple[int, int] | None = None
    gid_range: tuple[int, int] | None = None
    map_tools: tuple[str, ...] = ()
    real_root: bool = False
    lone: bool = False

    @property
    def mode(self) -> Mode:
        """Which of the three ways of mapping this caller has."""
        if self.uid == 0 and not self.lone:
            return "root"
        return "subordinate" if self.uid_range and self.gid_range and self.map_tools else "single"


class Identity(Value):
    """A user of the container and how they are reached from the host.

    Attributes:
        user: Who the process is.
        mode: How ids are mapped.
        uids: Map of the launcher's user namespace; empty for root, which gets none.
        gids: The same for groups.
        nested: The container needs a user namespace of its own, because the launcher's has
            only id 0 and the process is somebody else.
    """

    user: User
    mode: Mode
    uids: IdMap = ()
    gids: IdMap = ()
    nested: bool = False


def map_ids(target: int, own: int, subordinate: tuple[int, int]) -> IdMap:
    """Map ``target`` to the caller's own id, and every other id to the next subordinate one."""
    first, count = subordinate
    low = min(target, count)
    parts = ((0, first, low), (target, own, 1), (target + 1, first + low, count - low))
    return tuple(part for part in parts if part[2] > 0)


def identify(caller: Caller, user: User) -> Identity:
    """Return how the container's ``user`` is reached from ``caller``."""
    if caller.mode == "root":
        return Identity(user=user, mode="root")
    if caller.uid_range and caller.gid_range and caller.map_tools:
        return Identity(
            user=user,
            mode="subordinate",
            uids=map_ids(user.uid, caller.uid, caller.uid_range),
            gids=map_ids(user.gid, caller.gid, caller.gid_range),
        )
    return Identity(
        # setgroups is denied in a map of one id, so the image's groups cannot be had.
        user=replace(user, groups=()),
        mode="single",
        uids=((0, caller.uid, 1),),
        gids=((0, caller.gid, 1),),
        nested=(user.uid, user.gid) != (0, 0),
    )


def has_one_id() -> bool:
    """Tell whether whoever started this process has no id but their own in a container."""
    from backend.runtime.host import find_map_tools

    caller = read_caller(find_map_tools())
    return identify(caller, default_user(caller)).mode == "single"


def default_user(caller: Caller) -> User:
    """Return who runs an image that names no ``USER``: the caller, and root as root."""
    if caller.uid == 0:
        return User(uid=0, gid=0, home="/root")
    return User(uid=caller.uid, gid=caller.gid, home=caller.home, name=caller.name)


def resolve_user(spec: str, passwd: bytes, group: bytes) -> User:
    """Look up a Dockerfile ``USER`` (``name|uid[:group|gid]``) in the image's own files.

    As Docker does: a number need not be in the files and then has group 0; supplementary
    groups count only when no group is given.

    Raises:
        LaunchError: The image has no such user or group.
    """
    wanted, _, wanted_group = spec.partition(":")
    users = _rows(passwd, 7)
    groups = _rows(group, 4)
    row = _find(users, wanted)
    if row is None and not _is_id(wanted):
        raise LaunchError(
            f"the image has no user {quoted(wanted, limit=60)}",
            why="its USER, or --user, names somebody who is not in its /etc/passwd",
            hint="give a number: --user UID[:GID]",
        )
    uid = int(row[2]) if row else int(wanted)
    gid = int(row[3]) if row else 0
    home = row[5] if row and row[5].startswith("/") else "/"
    if wanted_group:
        return User(uid=uid, gid=_group_id(groups, wanted_group), home=home)
    name = row[0] if row else ""
    extra = [int(g[2]) for g in groups if name and name in g[3].split(",") and int(g[2]) != gid]
    return User(uid=uid, gid=gid, groups=tuple(extra[:_MAX_GROUPS]), home=home)


def _group_id(groups: list[list[str]], wanted: str) -> int:
    row = _find(groups, wanted)
    if row is None and not _is_id(wanted):
        raise LaunchError(
            f"the image has no group {quoted(wanted, limit=60)}",
            why="its USER, or --user, names a group that is not in its /etc/group",
            hint="give a number: --user UID:GID",
        )
    return int(row[2]) if row else int(wanted)


def _rows(data: bytes, columns: int) -> list[list[str]]:
    """Return the well-formed lines of a passwd or group file, split; ids are valid numbers."""
    rows = (line.split(":") for line in data.decode("utf-8", "surrogateescape").splitlines())
    numbers = (2, 3) if columns == 7 else (2,)
    return [
        row
        for row in rows
        if len(row) == columns and row[0] and all(_is_id(row[i]) for i in numbers)
    ]


def _find(rows: list[list[str]], wanted: str) -> list[str] | None:
    named = next((row for row in rows if row[0] == wanted), None)
    return named or next(
        (row for row in rows if _is_id(wanted) and int(row[2]) == int(wanted)), None
    )


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 11 and int(text) <= _MAX_ID


def read_caller(map_tools: tuple[str, ...]) -> Caller:
    """Return who started this process.

    Args:
        map_tools: Paths of newuidmap and newgidmap, empty where they cannot be used.
    """
    import pwd

    uid, gid = os.getuid(), os.getgid()
    try:
        entry = pwd.getpwuid(uid)
        name, home = entry.pw_name, entry.pw_dir
    except KeyError:  # no passwd entry: a user of LDAP on a bad day, or of a container
        name, home = str(uid), os.environ.get("HOME") or "/"
    ranges = uid != 0 and bool(map_tools)
    known = _known_ids()
    return Caller(
        uid=uid,
        gid=gid,
        name=name,
        home=home if home.startswith("/") else "/",
        groups=tuple(os.getgroups()),
        uid_range=_subordinate("/etc/subuid", name, uid) if ranges else None,
        gid_range=_subordinate("/etc/subgid", name, uid) if ranges else None,
        map_tools=map_tools,
        real_root=uid == 0 and known == _ALL_IDS,
        lone=known == 1,
    )


def _known_ids() -> int:
    """Return how many user ids our user namespace has."""
    with open("/proc/self/uid_map", "rb") as lines:
        return sum(int(line.split()[2]) for line in lines)


def _subordinate(path: str, name: str, uid: int) -> tuple[int, int] | None:
    """Return the first range of at least 65536 ids that belongs to the user."""
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            rows = [line.strip().split(":") for line in lines]
    except OSError:
        rows = []
    for row in rows:
        own = len(row) == 3 and row[0] in {name, str(uid)} and _is_id(row[1]) and _is_id(row[2])
        if own and int(row[2]) >= MIN_SUBORDINATE:
            return int(row[1]), int(row[2])
    return None
