"""From a plan to a running container: namespaces, mounts, the runtime, and the wait for its end.

One chain of processes, no daemon, nothing to clean up::

    launcher            user and mount namespace; waits, relays signals
      + squashfuse_ll   answers for the image's files
      + crun | runc     pid 1 of a new pid namespace; the container's processes are its children

Every child asks the kernel to be killed when the launcher ends, and the end of a pid
namespace's first process ends all others in it.  With the last process goes the mount
namespace, and with that every mount.  So whatever is killed, nothing is left.

The process must stay single-threaded (a user namespace takes that) and small (it waits as
long as the container runs), hence its own interpreter and the meagre imports: what only some
containers need is imported where it is used.
"""

from __future__ import annotations

import os
import signal
import sys

from backend.errors import LaunchError, explain
from backend.runtime import attached, filesystems, kernel, namespaces, plan, rootfs

TYPE_CHECKING = False  # importing typing costs the launcher 5 ms
if TYPE_CHECKING:
    import socket
    from typing import NoReturn

    from backend.runtime.plan import Plan
    from backend.runtime.terminal import Terminal

_LOG_LIMIT = 4096
"""Bytes of the runtime's log that are looked at."""


def main(descriptor: int) -> int:
    """Run the plan in ``descriptor`` and return the exit status."""
    wanted = plan.load(descriptor)
    os.umask(0o022)  # what we make is for all ids of the container; its own is in the config
    status = _run(wanted)
    if wanted["exit_file"]:
        import contextlib

        with contextlib.suppress(OSError):  # somebody has cleared the record away
            _write(wanted["exit_file"], str(status))
    return status


def _run(wanted: Plan) -> int:
    try:
        return _launch(wanted)
    except LaunchError as error:
        os.write(2, os.fsencode(explain(error) + "\n"))
        return int(error.status)
    except OSError as error:
        reason = _translate(wanted, error)
        os.write(2, os.fsencode(explain(reason) + "\n"))
        return int(reason.status)


def _translate(wanted: Plan, error: OSError) -> LaunchError:
    return LaunchError(
        f"cannot set up the container for {wanted['image']}",
        why=f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror),
        hint="see what this host lacks: sifdeck doctor",
    )


def _launch(wanted: Plan) -> int:
    if not wanted["limits"]:
        return _contain(wanted, [])
    from backend.runtime.cgroups import Groups

    groups = Groups(wanted["limits"])
    try:
        return _contain(wanted, groups.doors)
    finally:
        groups.remove()


def _contain(wanted: Plan, doors: list[int]) -> int:
    """Run the container in the groups behind ``doors`` and return its status."""
    kind = wanted["runtime_kind"]
    terminal = _terminal() if wanted["terminal"] else None
    _enter(wanted)
    servers = filesystems.Servers(f"{wanted['session']}/state")
    try:
        _mount_all(wanted, servers)
        if wanted["network"]:
            from backend.runtime import network

            network.connect(servers, wanted["network"], wanted["ports"], wanted["session"])
        rootfs.prepare(f"{wanted['session']}/bundle/rootfs", wanted["rootfs"])
        config = f"{wanted['session']}/bundle/config.json"
        _write(config, wanted["config"])
        os.chown(config, 0, 0)
        peer = _start_relay(servers) if terminal and kind == "builtin" else None
        everything = set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}
        before: set[int | signal.Signals] = signal.pthread_sigmask(signal.SIG_BLOCK, everything)
        if not wanted["share_pids"]:
            kernel.unshare(kernel.CLONE_NEWPID, "pid namespace")
        runtime = _start_runtime(wanted, before, peer, doors)
        if wanted["ready"] >= 0:
            os.write(wanted["ready"], b"r")
            os.close(wanted["ready"])
        status = attached.wait(runtime, servers, terminal, is_container=kind == "builtin")
        if peer and terminal:
            servers.drain()
            terminal.restore()
        return status if kind == "builtin" else _judge(wanted, status)
    finally:
        servers.stop()


def _enter(wanted: Plan) -> None:
    """Enter the namespaces in which everything below happens."""
    namespace = wanted["namespace"]
    if namespace is None:
        kernel.unshare(kernel.CLONE_NEWNS, "mount namespace")
    else:
        try:
            namespaces.enter_user(
                namespace["uids"], namespace["gids"], namespace["tools"], kernel.CLONE_NEWNS
            )
        except namespaces.MapRefusedError as error:
            raise LaunchError(
                "the host did not accept the map of user ids",
                why=str(error),
                hint="see who can allow it: sifdeck doctor",
            ) from error
        except OSError as error:
            raise LaunchError(
                "this host gives an ordinary user no user namespace",
                why=f"{error.filename}: {error.strerror}",
                hint="an administrator can allow it; sifdeck doctor says how",
            ) from error
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_SLAVE)


def _mount_all(wanted: Plan, servers: filesystems.Servers) -> None:
    """Mount the image and everything else that the runtime will find."""
    opened = [_open(source["path"]) for source in wanted["sources"]]
    session = wanted["session"]
    # A tmpfs over a folder that is always there: seen in our namespace only, gone with it.
    kernel.mount(
        "sifdeck",
        session,
        "tmpfs",
        kernel.MS_NOSUID | kernel.MS_NODEV,
        f"mode=711,uid=0,gid=0,size={wanted['memory']}",
    )
    for name in ("overlay", "state", "layers", "binds", "bundle", "bundle/rootfs"):
        _make_folder(f"{session}/{name}")
    lowers: list[str] = []
    for number, layer in enumerate(wanted["layers"]):
        target = f"{session}/layers/{number}"
        _make_folder(target)
        lowers.insert(0, filesystems.mount_layer(servers, layer, target, wanted))
    filesystems.mount_overlay(servers, lowers, session, wanted)
    for number, source in enumerate(wanted["sources"]):
        target = f"{session}/binds/{number}"
        if source["kind"] == "squashfs":
            _make_folder(target)
            filesystems.mount_squashfs(servers, source, target, wanted["squashfuse"])
        elif source["kind"] == "folder":
            _bind(opened[number], target)
        else:
            _write(target, source["text"], 0o644)
    _keep_cgroups_out(wanted["runtime_kind"])


def _keep_cgroups_out(runtime: str) -> None:
    """Have the runtime leave the cgroups alone, as far as its options do not."""
    if runtime == "crun" and os.path.isdir("/sys/fs/cgroup/unified"):
        # crun refuses a hybrid hierarchy with version 2 controllers, even told not to touch it.
        kernel.mount("sifdeck", "/sys/fs/cgroup/unified", "tmpfs", kernel.MS_RDONLY)
    elif runtime == "runc":
        import contextlib

        # runc makes groups wherever it can, and leaves them when it is killed.
        with open("/proc/self/mounts", "rb") as lines:
            mounts = [line.split(b" ")[1:3] for line in lines]
        for target, kind in mounts:
            if kind in {b"cgroup", b"cgroup2"}:
                flags = kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_RDONLY
                with contextlib.suppress(OSError):  # locked by an outer container: read-only
                    kernel.mount(None, os.fsdecode(target), None, flags)


def _open(path: str) -> int:
    """Return a handle that stays good when our tmpfs covers the path; -1 for no path."""
    return os.open(path, os.O_PATH | os.O_CLOEXEC) if path else -1


def _bind(source: int, target: str) -> None:
    """Bind an open file or folder, by the caller's own rights, to where the runtime finds it."""
    path = f"/proc/self/fd/{source}"
    if os.path.isdir(path):
        _make_folder(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    kernel.bind(path, target)
    os.close(source)


def _make_folder(path: str) -> None:
    os.mkdir(path, 0o755)
    os.chown(path, 0, 0)


def _write(path: str, text: str, mode: int = 0o600) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, mode)
    try:
        with open(
            descriptor, "w", encoding="utf-8", errors="surrogateescape", closefd=False
        ) as file:
            file.write(text)
    finally:
        os.close(descriptor)


def _terminal() -> Terminal:
    from backend.runtime.terminal import Terminal

    return Terminal()


def _start_relay(servers: filesystems.Servers) -> socket.socket:
    """Start the relay of a terminal; return where the built-in runtime finds it."""
    import socket

    from backend.runtime import relay

    ours, theirs = socket.socketpair()
    servers.relay = relay.start(ours)
    servers.running.add(servers.relay)
    ours.close()
    return theirs


def _start_runtime(
    wanted: Plan, mask: set[int | signal.Signals], peer: socket.socket | None, doors: list[int]
) -> int:
    """Start the runtime as the first process of the new pid namespace; return its pid."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        if wanted["ready"] >= 0:
            os.close(wanted["ready"])
        kernel.die_with_parent(parent)
        for door in doors:
            os.write(door, b"0")
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # fuse-overlayfs needs the outer /proc, so the new one gets a mount namespace more.
        kernel.unshare(kernel.CLONE_NEWNS, "mount namespace")
        if not wanted["share_pids"]:
            flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
            kernel.mount("proc", "/proc", "proc", flags)
        if wanted["become_root"]:
            if not wanted["keep_groups"]:
                os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            kernel.die_with_parent(parent)
        if wanted["runtime_kind"] == "builtin":
            _run_builtin(wanted, peer)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec keeps that
        os.chdir(f"{wanted['session']}/bundle")
        os.execv(wanted["runtime"][0], wanted["runtime"])
    except OSError as error:
        os.write(2, os.fsencode(explain(_translate(wanted, error)) + "\n"))
    finally:
        if sys.exc_info()[0]:  # a bug of ours: say so, but never return into the launcher's part
            sys.excepthook(*sys.exc_info())
        os._exit(125)


def _run_builtin(wanted: Plan, peer: socket.socket | None) -> NoReturn:
    import json

    from backend.runtime import builtin

    document = json.loads(wanted["config"])
    builtin.run(f"{wanted['session']}/bundle", document, peer, wanted["filter"])


def _judge(wanted: Plan, status: int) -> int:
    """Return the exit status; the runtime's own failure is told from the container's.

    Raises:
        LaunchError: The container was never started.
    """
    if status == 0 or os.path.exists(f"{wanted['session']}/state/pid"):
        return status
    raise LaunchError(
        f"{wanted['runtime_kind']} could not start the container",
        why=_read_log(f"{wanted['session']}/state/log"),
        hint="try another runtime (--runtime), and see what this host lacks: sifdeck doctor",
    )


def _read_log(path: str) -> str:
    from backend.escape import one_line

    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(_LOG_LIMIT).splitlines()
    except OSError:
        return ""
    # runc: time="..." level=error msg="...".
    return "; ".join(one_line(line.partition(' msg="')[2].rstrip('"') or line) for line in lines)
