"""The image's file systems: squashfs through FUSE, and an overlay to write into.

No setuid helper: we open /dev/fuse and mount it ourselves, in our own namespaces, and the
server only answers.  Servers are children of the launcher, never of the runtime, which would
wait for them for ever.
"""

from __future__ import annotations

import os

from backend.errors import LaunchError
from backend.runtime import kernel

TYPE_CHECKING = False  # importing typing costs the launcher 5 ms
if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.runtime.plan import Layer


class Servers:
    """The processes that serve one container; they end with the launcher, whatever ends it.

    Attributes:
        running: Their pids.
        relay: Which of them copies between the terminals; 0 for none.
        broken: One that the container needs has ended.
    """

    def __init__(self) -> None:
        self.running: set[int] = set()
        self.relay = 0
        self.broken = False

    def start(self, argv: list[str], *, keep: int = -1, may_mount: bool = False) -> None:
        """Start a server in a session of its own, so that no Ctrl-C reaches it.

        Args:
            argv: Absolute path and arguments.
            keep: Descriptor that the server inherits.
            may_mount: Let it keep our capabilities, to mount by itself.
        """
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self.running.add(pid)
            return
        try:
            os.setsid()
            kernel.die_with_parent(parent)
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, 0)
            os.dup2(nowhere, 1)
            if keep >= 0:
                os.set_inheritable(keep, True)
            if may_mount:
                kernel.keep_capabilities()
            os.execv(argv[0], argv)
        finally:
            os._exit(127)

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


def mount_squashfs(servers: Servers, layer: Layer, target: str, command: Sequence[str]) -> None:
    """Mount the squashfs at ``layer`` on the folder ``target``.

    Args:
        servers: Gets the server.
        layer: With an offset.
        target: An empty folder.
        command: The server and its options; the offset and the files are added.

    Raises:
        OSError: FUSE cannot be used.
    """
    options = ",".join([*command[1:], f"offset={layer['offset']}"])
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
        server = [command[0], "-f", "-o", options, layer["source"], f"/dev/fd/{device}"]
        servers.start(server, keep=device)
    finally:
        os.close(device)


def mount_overlay(servers: Servers, lowers: Sequence[str], session: str, overlayfuse: str) -> None:
    """Lay a writable tmpfs over ``lowers`` (top first), at ``session``/rootfs.

    Raises:
        LaunchError: Neither the kernel nor fuse-overlayfs can do it.
    """
    upper, work, rootfs = f"{session}/upper", f"{session}/work", f"{session}/bundle/rootfs"
    options = f"lowerdir={':'.join(lowers)},upperdir={upper},workdir={work}"
    try:
        # Without user xattrs (tmpfs before Linux 6.6) removing a folder of the image fails.
        os.setxattr(upper, "user.sifdeck", b"")
        kernel.mount("overlay", rootfs, "overlay", kernel.MS_NODEV, f"{options},userxattr")
    except OSError as error:
        if not overlayfuse:
            raise LaunchError(
                "cannot lay a writable layer over the image",
                why=f"the kernel cannot ({error.strerror}), and there is no fuse-overlayfs",
                hint="install fuse-overlayfs, or use Linux 6.6 or later; see: sifdeck doctor",
            ) from error
        _serve_overlay(servers, [overlayfuse, "-f", "-o", f"{options},noacl,allow_other", rootfs])


def _serve_overlay(servers: Servers, argv: list[str]) -> None:
    """Start fuse-overlayfs, which mounts by itself, and wait until it has."""
    import time

    rootfs = argv[-1]
    outside = os.stat(os.path.dirname(rootfs)).st_dev
    servers.start(argv, may_mount=True)
    for _ in range(2000):
        if os.stat(rootfs).st_dev != outside:
            return
        time.sleep(0.002)
    raise LaunchError(
        "fuse-overlayfs did not mount the writable layer within 4 seconds",
        hint="see: sifdeck doctor",
    )
