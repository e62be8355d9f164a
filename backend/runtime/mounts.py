"""What is mounted in a container, in order: the system's, then the user's.

Two halves of one thing: the entries of ``config.json``, and the sources that the launcher
opens by the caller's own rights and shows to the runtime below its session folder.
"""

from __future__ import annotations

import os

from backend.errors import UsageError
from backend.escape import quoted
from backend.runtime.plan import PRIVATE_DNS
from backend.values import Value

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from backend.runtime.identity import Identity
    from backend.runtime.options import RunOptions
    from backend.runtime.plan import Source
    from backend.runtime.spec import Grants

STRICT = ("nosuid", "noexec", "nodev")
_SYSTEM_FOLDERS = frozenset(
    {"/", "/bin", "/etc", "/lib", "/lib64", "/mnt", "/opt", "/sbin", "/usr", "/var"}
)
"""Those that are the image's, even when the user starts in one of the host's."""
_CDI_OPTIONS = frozenset({"ro", "rw", "noexec"})
"""Options of a mount in a CDI file that are taken over; the others are ours anyway."""


class Place(Value):
    """Where a container is started.

    Attributes:
        session: The launcher's folder.
        memory: Bytes that a tmpfs may grow to.
        real_root: By the machine's root, who may do more.
        home: Of the container's user; empty for none.
        host_home: Of the caller.
        cwd: Of the caller.
        host_devices: Whether the host's /dev is the container's.
    """

    session: str
    memory: int
    real_root: bool
    home: str
    host_home: str
    cwd: str
    host_devices: bool = False


class Mounts:
    """The two halves, filled from top to bottom.

    Attributes:
        place: Where the container is started.
        entries: Of ``config.json``.
        sources: Of the launcher; the one at index N appears as ``binds/N``.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.entries: list[dict[str, Any]] = []
        self.sources: list[Source] = []

    def add(self, target: str, kind: str, source: str, *options: str) -> None:
        """Add an entry as it is."""
        entry = {"destination": target, "type": kind, "source": source, "options": list(options)}
        self.entries.append(entry)

    def places(self) -> list[tuple[str, bool]]:
        """Return where things are mounted, and whether these are folders."""
        shown = {
            f"{self.place.session}/binds/{number}": source["kind"] == "squashfs"
            or (source["kind"] == "folder" and os.path.isdir(source["path"]))
            for number, source in enumerate(self.sources)
        }
        return [(one["destination"], shown.get(one["source"], True)) for one in self.entries]

    def tmpfs(self, target: str, mode: str) -> None:
        """Add an empty folder in memory."""
        size = f"size={self.place.memory}"
        self.add(target, "tmpfs", "tmpfs", "nosuid", "nodev", f"mode={mode}", size)

    def bind(self, source: Source, target: str, *options: str) -> None:
        """Add something of the host, opened by the launcher."""
        name = f"{self.place.session}/binds/{len(self.sources)}"
        self.sources.append(source)
        self.add(target, "none", name, "rbind", *options)


def plain(path: str) -> Source:
    """Return the source that is a file or folder of the host."""
    return {"kind": "folder", "path": path, "offset": 0, "text": ""}


def plan_mounts(
    options: RunOptions,
    identity: Identity,
    place: Place,
    data: Sequence[Source],
    devices: Grants,
) -> Mounts:
    """Return everything that is mounted.

    Args:
        options: What the user asked for.
        identity: Who runs.
        place: Where.
        data: What each bind of an image, in order, is for the launcher.
        devices: What the container's devices need.

    Raises:
        UsageError: Options that exclude each other.
    """
    mounts = Mounts(place)
    _system(mounts, options)
    _temporary(mounts, options)
    if options.compat:
        _home(mounts, options, identity)
    else:
        _host_folders(mounts, options)
    images = iter(data)
    for bind in options.binds:
        access = ["ro" if bind.read_only else "rw", "nodev"]
        access += [] if options.allow_setuid else ["nosuid"]
        source = next(images) if bind.is_image else plain(bind.source)
        mounts.bind(source, bind.target, *access)
    for host_path, target in devices.nodes:
        mounts.bind(plain(host_path), target, "nosuid", "noexec", "rw")
    for host_path, target, more in devices.mounts:
        safe = [option for option in more if option in _CDI_OPTIONS]
        mounts.bind(plain(host_path), target, "nosuid", "nodev", *safe)
    _network_files(mounts, options)
    return mounts


def _system(mounts: Mounts, options: RunOptions) -> None:
    real_root = mounts.place.real_root
    if "proc" not in options.no_mount:
        if options.share_pids:
            mounts.add("/proc", "none", "/proc", "rbind", *STRICT)
        else:
            mounts.add("/proc", "proc", "proc", *STRICT)
    if "sys" not in options.no_mount:
        if real_root and options.network == "host":
            mounts.add("/sys", "sysfs", "sysfs", *STRICT, "ro")
        else:  # a new sysfs takes a network namespace of our own
            mounts.add("/sys", "none", "/sys", "rbind", *STRICT, "ro")
    if mounts.place.host_devices:
        mounts.add("/dev", "none", "/dev", "rbind", "nosuid")
        return
    mounts.add("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k")
    # Group 5 is tty in the initial namespace only; elsewhere it may not be mapped.
    group = ("gid=5",) if real_root else ()
    terminals = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *group)
    mounts.add("/dev/pts", "devpts", "devpts", *terminals)
    size = f"size={mounts.place.memory}"
    mounts.add("/dev/shm", "tmpfs", "shm", *STRICT, "mode=1777", size)
    mounts.add("/dev/mqueue", "mqueue", "mqueue", *STRICT)


def _temporary(mounts: Mounts, options: RunOptions) -> None:
    """Mount /tmp, /var/tmp and the scratch folders: from --workdir, the host, or memory."""
    scratch = [(path, f"scratch{path}") for path in options.scratch]
    folders = [] if "tmp" in options.no_mount else [("/tmp", "tmp"), ("/var/tmp", "var_tmp")]
    for target, name in (*folders, *scratch):
        if options.workdir:
            source = f"{options.workdir}/{name}"
            os.makedirs(source, exist_ok=True)
            os.chmod(source, 0o1777)  # noqa: S103  (as every /tmp)
            mounts.bind(plain(source), target, "nosuid", "nodev", "rw")
        elif not options.compat and (target, name) in folders:
            mounts.bind(plain(target), target, "nosuid", "nodev", "rw")
        else:
            mounts.tmpfs(target, "1777")


def _home(mounts: Mounts, options: RunOptions, identity: Identity) -> None:
    """Mount the home that was asked for; without one, the image's shows through."""
    if not options.home or "home" in options.no_mount:
        return
    source, colon, _ = options.home.rpartition(":")
    if colon:
        mounts.bind(plain(os.path.abspath(source)), mounts.place.home, "nosuid", "nodev", "rw")
        return
    size = f"size={mounts.place.memory}"
    # In a namespace of one id the mount belongs to that id by itself.
    user = identity.user
    owner = () if identity.nested else (f"uid={user.uid}", f"gid={user.gid}")
    mounts.add(mounts.place.home, "tmpfs", "tmpfs", "nosuid", "nodev", "mode=755", size, *owner)


def _host_folders(mounts: Mounts, options: RunOptions) -> None:
    """Show the caller's home and folder, as native SingularityCE does."""
    place = mounts.place
    if not options.no_home and "home" not in options.no_mount:
        mounts.bind(plain(place.host_home), place.home, "nosuid", "nodev", "rw")
    is_own = place.cwd in _SYSTEM_FOLDERS or place.cwd.startswith(("/proc", "/sys", "/dev"))
    localtime = "/etc/localtime"
    if not options.no_mount & {"bind-paths", localtime} and os.path.exists(localtime):
        mounts.bind(plain(localtime), localtime, "ro", "nosuid", "nodev")
    if "cwd" not in options.no_mount and not is_own:
        mounts.bind(plain(place.cwd), place.cwd, "nosuid", "nodev", "rw")


def _network_files(mounts: Mounts, options: RunOptions) -> None:
    """Show how to find other hosts, unless the user has shown something else there."""
    taken = {bind.target for bind in options.binds} | options.no_mount
    servers = options.dns or ((PRIVATE_DNS,) if options.has_private_network else ())
    if servers and "/etc/resolv.conf" not in taken:
        text = "".join(f"nameserver {address}\n" for address in servers)
        source: Source = {"kind": "text", "path": "", "offset": 0, "text": text}
        mounts.bind(source, "/etc/resolv.conf", "ro", *STRICT)
        taken.add("/etc/resolv.conf")
    if options.network == "none":
        return
    for path in ("/etc/resolv.conf", "/etc/hosts"):
        if path not in taken and os.path.isfile(path):
            mounts.bind(plain(path), path, "ro", "nosuid", "nodev")


def check_home(text: str) -> str:
    """Return ``[SRC:]DEST`` if its parts are what they should be, or an empty text.

    Raises:
        UsageError: They are not.
    """
    source, colon, target = text.rpartition(":")
    if text and not target.startswith("/"):
        raise UsageError(f"--home takes an absolute path, not {quoted(target)}")
    if colon and not os.path.isdir(source):
        raise UsageError(f"no such folder for --home: {quoted(source)}")
    return text
