"""The image's file systems: squashfs through FUSE, and an overlay to write into.

No setuid helper: we open /dev/fuse and mount it ourselves, in our own namespaces, and the
server only answers.  Servers are children of the launcher, never of the runtime, which would
wait for them for ever.
"""

from __future__ import annotations

import fcntl
import os
import signal

from backend.errors import LaunchError
from backend.runtime import kernel

TYPE_CHECKING = False  # importing typing costs the launcher 5 ms
if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.runtime.keeper import Keeper
    from backend.runtime.plan import Plan, Source

_PATIENCE_S = 60.0
_PAUSE_S = 0.002
"""How long a server may take that mounts by itself, and the time between two looks at it."""
_MAX_LOG = 4096
_MAX_PROGRAM = 4 << 20


class Servers:
    """The processes that serve one container; they end with the launcher, whatever ends it.

    Attributes:
        running: Their pids.
        relay: Which of them copies between the terminals; 0 for none.
        broken: One that the container needs has ended.
        logs: Folder for what talkative ones have to say.
        keeper: Tidies up what they need on disk; None when that is nothing.
    """

    def __init__(self, logs: str) -> None:
        self.logs = logs
        self.keeper: Keeper | None = None
        self.running: set[int] = set()
        self.relay = 0
        self.broken = False

    def start(
        self,
        argv: list[str],
        *,
        keep: int = -1,
        may_mount: bool = False,
        after: tuple[int, int] = (-1, -1),
        log: str = "",
    ) -> None:
        """Start a server in a session of its own, so that no Ctrl-C reaches it.

        Args:
            argv: Absolute path and arguments.
            keep: Descriptor that the server inherits.
            may_mount: Let it keep our capabilities, to mount by itself.
            log: Where a talkative server's messages go; without, they are the user's to see.
            after: A pipe; the server starts when its writing end, the second, is closed here.
        """
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self.running.add(pid)
            return
        try:
            os.setsid()
            kernel.die_with_parent(parent)
            if after[0] >= 0:
                os.close(after[1])
                os.read(after[0], 1)
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, 0)
            os.dup2(nowhere, 1)
            if log:
                os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), 2)
            if keep >= 0:
                os.set_inheritable(keep, True)
            if may_mount:
                kernel.keep_capabilities()
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec keeps that
            os.execv(argv[0], argv)
        finally:
            os._exit(127)

    def has_lost_one(self) -> bool:
        """Tell whether one has ended since the last look."""
        pid = os.waitpid(-1, os.WNOHANG)[0]
        self.running.discard(pid)
        return pid != 0

    def drain(self) -> None:
        """Wait until the relay has copied all output."""
        if self.relay in self.running:
            os.waitpid(self.relay, 0)
            self.running.remove(self.relay)

    def stop(self) -> None:
        """End every server; what it serves must be in use no more."""
        for pid in self.running:
            os.kill(pid, 9)
        for pid in self.running:
            os.waitpid(pid, 0)
        self.running.clear()
        if self.keeper:
            self.keeper.finish()


def mount_layer(servers: Servers, layer: Source, target: str, plan: Plan) -> str:
    """Mount a layer of the root on the folder ``target``; return the folder with its files.

    Raises:
        OSError: FUSE cannot be used, or a folder is not there.
        LaunchError: An ext3 could not be mounted.
    """
    if layer["kind"] == "squashfs":
        mount_squashfs(servers, layer, target, plan["squashfuse"])
    elif layer["kind"] == "folder":
        kernel.bind(layer["path"], target)
        _hold(layer["path"])
    else:
        mount_ext3(servers, layer["path"], layer["offset"], target, plan["ext3fuse"], "ro")
        return f"{target}/upper"
    return target


def _hold(folder: str) -> None:
    """Keep the cache from removing an unpacked layer for as long as this process lives."""
    home, name = os.path.split(folder)
    try:
        lock = os.open(f"{home}/.{name}.lock", os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_SH)
    except OSError:  # a folder that is not from the cache has no lock
        pass


def mount_squashfs(servers: Servers, source: Source, target: str, command: Sequence[str]) -> None:
    """Mount the squashfs in ``source`` on the folder ``target``.

    Args:
        servers: Gets the server.
        source: With an offset.
        target: An empty folder.
        command: The server and its options; the offset and the files are added.

    Raises:
        OSError: FUSE cannot be used.
        LaunchError: A server that mounts by itself could not.
    """
    options = ",".join([*command[1:], f"offset={source['offset']}"])
    if _mounts_by_itself(command[0]):
        options += ",ro,allow_other,default_permissions"
        argv = [command[0], "-f", "-o", options, source["path"], target]
        return _serve_and_wait(servers, argv, "squashfuse")
    device = os.open("/dev/fuse", os.O_RDWR)
    try:
        kernel.mount(
            "sifdeck",
            target,
            "fuse.squashfuse",
            kernel.MS_RDONLY | kernel.MS_NODEV,
            f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
            # Other ids of the container may look, within the image's own permissions.
            ",allow_other,default_permissions",
        )
        server = [command[0], "-f", "-o", options, source["path"], f"/dev/fd/{device}"]
        servers.start(server, keep=device)
    finally:
        os.close(device)


def _mounts_by_itself(program: str) -> bool:
    """Tell whether a server is made with libfuse 2, which takes no file system that is mounted."""
    with open(program, "rb") as file:
        code = file.read(_MAX_PROGRAM)
    return b"libfuse.so.2" in code and b"libfuse3" not in code


def mount_ext3(
    servers: Servers, file: str, offset: int, target: str, program: str, access: str
) -> None:
    """Mount the ext3 in ``file`` on the folder ``target``; ``access`` is ``ro`` or ``rw``.

    Raises:
        LaunchError: It is in use, damaged, or cannot be written to.
    """
    options = f"fakeroot,{access},allow_other,default_permissions,offset={offset}"
    _serve_and_wait(servers, [program, "-f", "-o", options, file, target], "fuse2fs")


def mount_overlay(servers: Servers, lowers: Sequence[str], session: str, plan: Plan) -> None:
    """Lay the plan's writable layer over ``lowers`` (top first), at ``session``/rootfs.

    Raises:
        LaunchError: Neither the kernel nor fuse-overlayfs can do it.
    """
    rootfs = f"{session}/bundle/rootfs"
    place = _upper(servers, session, plan)
    # Seen from the session: mount(2) takes no more than a page of options, which 60 layers fill.
    os.chdir(session)
    folders = [lower.removeprefix(f"{session}/") for lower in lowers]
    options = f"lowerdir={':'.join(folders)}"
    reason = _mount_by_kernel(servers, options, place, session, plan)
    if not reason:
        return
    if not plan["overlayfuse"]:
        raise LaunchError(
            "cannot lay a writable layer over the image",
            why=f"the kernel cannot ({reason}), and there is no fuse-overlayfs",
            hint="install fuse-overlayfs, or use Linux 6.6 or later; see: sifdeck doctor",
        )
    options += f",{_changes(place)},noacl,allow_other"
    argv = [plan["overlayfuse"], "-f", "-o", options, rootfs]
    _serve_and_wait(servers, argv, "fuse-overlayfs")


def _mount_by_kernel(servers: Servers, options: str, place: str, session: str, plan: Plan) -> str:
    """Mount the overlay and return an empty text, or why the kernel cannot."""
    rootfs = f"{session}/bundle/rootfs"
    # It takes no upper layer from FUSE, nor knows whiteouts of fuse-overlayfs in an ext3.
    if plan["upper"]["offset"] >= 0 or any(one["kind"] == "ext3" for one in plan["layers"]):
        return "it takes no ext3 of FUSE"
    try:
        _mount_kernel_overlay(place, rootfs, options)
    except OSError as error:
        if plan["upper"]["path"]:
            return error.strerror or ""
    else:
        return ""
    try:
        _mount_kernel_overlay(_place_on_disk(servers, session), rootfs, options)
    except OSError as error:
        return error.strerror or ""
    return ""


def _mount_kernel_overlay(place: str, rootfs: str, options: str) -> None:
    data = f"{options},{_changes(place)}{_attributes(f'{place}/upper')}"
    kernel.mount("overlay", rootfs, "overlay", kernel.MS_NODEV, data)


def _changes(place: str) -> str:
    """Return where changes go, as an option, seen from the session."""
    folder = os.path.relpath(place)
    return f"upperdir={folder}/upper,workdir={folder}/work"


def _attributes(upper: str) -> str:
    """Return the option that says in which extended attributes the overlay keeps its notes.

    Without any, removing a folder of the image fails.  A tmpfs has those of users since Linux
    6.6 only, and those that the machine's root may set since long ago.

    Raises:
        OSError: The file system has neither for us.
    """
    try:
        os.setxattr(upper, "user.sifdeck", b"")
    except OSError:
        os.setxattr(upper, "trusted.sifdeck", b"")
        return ""
    return ",userxattr"


def _place_on_disk(servers: Servers, session: str) -> str:
    """Return a place for changes on disk, which is gone when the container is.

    Raises:
        OSError: The disk has no room for one.
    """
    from backend.runtime.keeper import Keeper

    base = os.environ.get("TMPDIR", "")
    folder = f"{base if base.startswith('/') else '/var/tmp'}/sifdeck-{os.urandom(8).hex()}"
    servers.keeper = Keeper(lambda: _remove_tree(folder))
    os.mkdir(folder, 0o700)
    place = f"{session}/overlay"
    kernel.bind(folder, place)
    _make_upper(place)
    return place


def _remove_tree(folder: str) -> bool:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    return not os.path.lexists(folder)


def _upper(servers: Servers, session: str, plan: Plan) -> str:
    """Return the folder with ``upper`` and ``work``."""
    upper = plan["upper"]
    if not upper["path"]:
        place = session
    elif upper["offset"] < 0:
        place = f"{session}/overlay"
        kernel.bind(upper["path"], place)
    else:
        place = f"{session}/overlay"
        mount_ext3(servers, upper["path"], upper["offset"], place, plan["ext3fuse"], "rw")
    _make_upper(place)
    return place


def _make_upper(place: str) -> None:
    for name in ("upper", "work"):
        if not os.path.isdir(f"{place}/{name}"):
            os.mkdir(f"{place}/{name}", 0o755)
            os.chown(f"{place}/{name}", 0, 0)


def _serve_and_wait(servers: Servers, argv: list[str], name: str) -> None:
    """Start a FUSE server that mounts by itself on its last argument; wait until it has."""
    import time

    target = argv[-1]
    log = f"{servers.logs}/{name}.log"
    outside = os.stat(os.path.dirname(target)).st_dev
    servers.start(argv, may_mount=True, log=log)
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        if os.stat(target).st_dev != outside:
            return
        if servers.has_lost_one():
            break
        time.sleep(_PAUSE_S)
    raise LaunchError(
        f"{name} did not mount {os.path.basename(target)}",
        why=last_line(log) or "it gave no reason",
        hint="see: sifdeck doctor",
    )


def last_line(log: str) -> str:
    """Return the last thing that a server said, fit for a message."""
    from backend.escape import one_line

    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = file.read(_MAX_LOG).splitlines()
    except OSError:
        return ""
    return one_line(([line for line in lines if "syslog" not in line] or [""])[-1])
