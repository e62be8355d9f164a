"""A runtime of our own, for hosts that have neither crun nor runc.

It does what ``config.json`` says, as far as :mod:`backend.runtime.spec` writes it, in the
process that then becomes the container's first: no monitor stays, the launcher is one.
Called in a new pid namespace that has its /proc, as id 0 of the launcher's user namespace.
Once the root has changed nothing can be imported any more, not even a codec.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import struct
import termios

from backend.runtime import inside, kernel
from backend.runtime.capabilities import NAMES
from backend.runtime.hooks import Hooks

TYPE_CHECKING = False  # importing typing costs the launcher 5 ms
if TYPE_CHECKING:
    from typing import Any, NoReturn

_FLAGS = {
    "ro": kernel.MS_RDONLY,
    "nosuid": kernel.MS_NOSUID,
    "nodev": kernel.MS_NODEV,
    "noexec": kernel.MS_NOEXEC,
    "strictatime": 1 << 24,
    "relatime": 1 << 21,
}
_PASSED_OVER = frozenset({"rw", "bind", "rbind", "suid", "dev", "exec"})
_NODES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = (
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
)
_UNSHARED = {"ipc": kernel.CLONE_NEWIPC, "uts": kernel.CLONE_NEWUTS, "network": kernel.CLONE_NEWNET}
_STRICTER = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC


def run(
    bundle: str, document: dict[str, Any], terminal: socket.socket | None, filter_code: bytes
) -> NoReturn:
    """Become the container's process; leaves only by exception or exit.

    Args:
        bundle: The folder with ``rootfs``.
        document: What ``config.json`` holds.
        terminal: Where the other side of the container's terminal is sent to; None for pipes.
        filter_code: Program of the system call filter; empty for none.

    Raises:
        OSError: The host does not allow a step; ``filename`` names it.
    """
    namespaces = {entry["type"] for entry in document["linux"]["namespaces"]}
    flags = sum(flag for name, flag in _UNSHARED.items() if name in namespaces)
    hooks = Hooks(document.get("hooks", {}), bundle) if "hooks" in document else None
    kernel.unshare(kernel.CLONE_NEWNS | flags, "namespaces")
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    if "network" in namespaces:
        kernel.raise_loopback()
    if "hostname" in document:
        kernel.set_hostname(document["hostname"])
    _mount_root(f"{bundle}/rootfs", document, hooks)
    process = document["process"]
    if hooks:
        hooks.call("startContainer")
    os.setsid()
    if terminal:
        _take_terminal(terminal, owner=0 if "user" in namespaces else process["user"]["uid"])
    _become(document, filter_code, nested="user" in namespaces)
    _execute(process)


def join(document: dict[str, Any], terminal: socket.socket | None, filter_code: bytes) -> NoReturn:
    """Run a program in a container whose namespaces this process has joined; as :func:`run`."""
    os.chdir("/")
    os.setsid()
    if terminal:
        _take_terminal(terminal, owner=document["process"]["user"]["uid"], is_console=False)
    _become(document, filter_code, nested=False)
    _execute(document["process"])


def _mount_root(root: str, document: dict[str, Any], hooks: Hooks | None) -> None:
    """Mount everything below ``root`` and make it our root."""
    kernel.bind(root, root)
    for entry in document["mounts"]:
        target = _mount(root, entry)
        if entry["destination"] == "/dev" and entry["type"] == "tmpfs":
            _fill_dev(target)
    for node in document["linux"].get("devices", []):
        target = inside.place(root, node["path"], as_folder=False)
        kernel.bind(node["path"], target)
    if hooks:
        hooks.call_outside()
        hooks.call("createContainer")
    os.chdir(root)
    kernel.pivot_here()
    for path in document["linux"].get("maskedPaths", []):
        _mask(path)
    for path in document["linux"].get("readonlyPaths", []):
        if os.path.exists(path):
            kernel.bind(path, path)
            _restrict(path, kernel.MS_RDONLY | _STRICTER)
    if document["root"].get("readonly"):
        _restrict("/", kernel.MS_RDONLY)


def _mount(root: str, entry: dict[str, Any]) -> str:
    """Mount one entry and return where, as we see it."""
    options = entry["options"]
    flags = sum(_FLAGS.get(option, 0) for option in options)
    source = entry["source"]
    if "bind" in options or "rbind" in options:
        target = inside.place(root, entry["destination"], as_folder=os.path.isdir(source))
        kernel.bind(source, target, recursive="rbind" in options)
        _restrict(target, flags)
        return target
    target = inside.place(root, entry["destination"], as_folder=True)
    data = [option for option in options if option not in _FLAGS and option not in _PASSED_OVER]
    kernel.mount(source, target, entry["type"], flags, ",".join(data))
    return target


def _restrict(target: str, flags: int) -> None:
    """Add flags to a bind; those that the kernel has locked on its source stay."""
    locked = os.statvfs(target).f_flag & (_STRICTER | kernel.MS_RDONLY)  # the same numbers
    kernel.mount(None, target, None, kernel.MS_BIND | kernel.MS_REMOUNT | flags | locked)


def _fill_dev(folder: str) -> None:
    for name in _NODES:
        os.close(os.open(f"{folder}/{name}", os.O_CREAT | os.O_WRONLY, 0o666))
        kernel.bind(f"/dev/{name}", f"{folder}/{name}")
    for target, name in _LINKS:
        os.symlink(target, f"{folder}/{name}")


def _mask(path: str) -> None:
    """Cover a path: a file with nothing, a folder with an empty one."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    if stat.S_ISDIR(mode):
        kernel.mount("sifdeck", path, "tmpfs", kernel.MS_RDONLY | _STRICTER, "size=0k")
    else:
        kernel.bind("/dev/null", path)


def _take_terminal(peer: socket.socket, *, owner: int, is_console: bool = True) -> None:
    """Open a terminal of the container's own and send its other side to the launcher."""
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, 0x4004_5431, struct.pack("i", 0))  # TIOCSPTLCK
    number = struct.unpack("i", fcntl.ioctl(master, 0x8004_5430, bytes(4)))[0]  # TIOCGPTN
    slave = os.open(f"/dev/pts/{number}", os.O_RDWR)
    os.fchown(slave, owner, -1)
    socket.send_fds(peer, [b"m"], [master])
    peer.recv(1)  # the size is set and the relay runs
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for descriptor in range(3):
        os.dup2(slave, descriptor)
    if not is_console:
        return
    console = os.open("/dev/console", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    os.close(console)
    kernel.bind(f"/dev/pts/{number}", "/dev/console")


def _become(document: dict[str, Any], filter_code: bytes, *, nested: bool) -> None:
    """Become the container's user, with the capabilities that the document grants."""
    process = document["process"]
    user, held = process["user"], process["capabilities"]
    if _may_set_groups() and "annotations" not in document:  # which ask to keep the groups
        os.setgroups(user.get("additionalGids", []))
    if nested:
        kernel.unshare(kernel.CLONE_NEWUSER, "user namespace")
        _map_self(document["linux"])
    kernel.limit_bounding({_number(name) for name in held["bounding"]})
    if process["noNewPrivileges"]:
        kernel.forbid_new_privileges()
    os.umask(user["umask"])
    if filter_code:  # now, since it takes a capability that goes with the change of user
        kernel.install_filter(filter_code)
    os.setresgid(user["gid"], user["gid"], user["gid"])
    ambient = {_number(name) for name in held["ambient"]}
    if user["uid"]:
        kernel.keep_over_setuid()
    os.setresuid(user["uid"], user["uid"], user["uid"])
    if user["uid"]:
        kernel.hold_only(ambient)
    kernel.die_with_parent(os.getppid())


def _may_set_groups() -> bool:
    with open("/proc/self/setgroups", "rb") as file:
        return file.read().strip() == b"allow"


def _map_self(linux: dict[str, Any]) -> None:
    """Write our own map of one id, which the owner of the outer namespace may."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", _map_line(linux["uidMappings"][0])),
        ("gid_map", _map_line(linux["gidMappings"][0])),
    ):
        with open(f"/proc/self/{name}", "wb") as file:
            file.write(text.encode())


def _map_line(entry: dict[str, int]) -> str:
    return f"{entry['containerID']} {entry['hostID']} {entry['size']}"


def _number(name: str) -> int:
    return NAMES.index(name.removeprefix("CAP_"))


def _execute(process: dict[str, Any]) -> NoReturn:
    """Replace this process by the container's program; end with 126 or 127 where that fails."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        # Python ignores SIGPIPE, and a script's `command &` SIGINT and SIGQUIT.
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    environment = dict(entry.split("=", 1) for entry in process["env"])
    os.makedirs(process["cwd"], exist_ok=True)
    os.chdir(process["cwd"])
    program, arguments = process["args"][0], process["args"]
    path = [""] if "/" in program else environment.get("PATH", "").split(":")
    status, reason = 127, "not found in the image"
    for folder in path:
        try:
            os.execve(os.path.join(folder, program), arguments, environment)
        except FileNotFoundError:
            continue
        except OSError as error:
            status, reason = 126, error.strerror or ""
    os.write(2, os.fsencode(f"ERROR:   {program}: {reason}\n"))
    os._exit(status)
