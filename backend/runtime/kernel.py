"""The system calls that Python 3.11 lacks, through ctypes; shared by the launcher and its children.

Every function raises ``OSError`` whose ``filename`` says what was attempted.  Imports are
kept to what a start of a container can afford: no typing, no enum, no pathlib.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False  # importing typing costs the launcher 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_VERSION_3 = 0x2008_0522
_LAST_CAP = 40
_SYS_PIDFD_GETFD = 438  # the same number on every architecture
_SIGKILL = 9
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def unshare(flags: int, what: str) -> None:
    """Leave the namespaces in ``flags`` for new ones; ``what`` names them in an error."""
    _check(_libc.unshare(flags), f"new {what}")


def enter(descriptor: int, flags: int, what: str) -> None:
    """Join the namespaces that a pidfd or a namespace file stands for."""
    _check(_libc.setns(descriptor, flags), f"join {what}")


def mount(
    source: str | None, target: str, kind: str | None, flags: int = 0, data: str = ""
) -> None:
    """Mount a file system, or change a mount, by its flags."""
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    _check(
        _libc.mount(*texts[:3], ctypes.c_ulong(flags), texts[3]),
        f"mount {kind or 'bind'} on {target}",
    )


def bind(source: str, target: str, flags: int = 0, *, recursive: bool = True) -> None:
    """Bind ``source`` on ``target``; further flags take a second call, the kernel says."""
    mount(source, target, None, MS_BIND | (MS_REC if recursive else 0))
    if flags:
        mount(None, target, None, MS_BIND | MS_REMOUNT | flags)


def unmount(target: str) -> None:
    """Detach what is mounted on ``target``."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), f"unmount {target}")


def pivot_here() -> None:
    """Make the current directory the root, and detach the old root."""
    # pivot_root(".", ".") stacks the old root on the new one; pivot_root(2), Notes.
    number = {"x86_64": 155, "ppc64le": 203, "s390x": 217}.get(os.uname().machine, 41)
    _check(_libc.syscall(number, b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "unmount the old root")


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends.

    A change of uid clears the setting, so call it again after one.

    Args:
        parent: The pid of the one that forked us; if it has ended already, this process ends
            at once.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() not in {parent, 0}:  # 0: the parent is outside our pid namespace
        os._exit(1)


def keep_capabilities() -> None:
    """Let the next exec keep every capability that this process has in its user namespace."""
    header = (ctypes.c_uint32 * 2)(_CAP_VERSION_3, 0)
    held = (ctypes.c_uint32 * 6)()
    _check(_libc.capget(header, held), "capget")
    held[2], held[5] = held[1], held[4]  # inheritable = permitted
    _check(_libc.capset(header, held), "capset")
    _raise_ambient(range(_LAST_CAP + 1))


def hold_only(numbers: AbstractSet[int]) -> None:
    """Hold these capabilities and no others, and let the next exec keep them."""
    low = sum(1 << number for number in numbers if number < 32)
    high = sum(1 << number - 32 for number in numbers if number >= 32)
    header = (ctypes.c_uint32 * 2)(_CAP_VERSION_3, 0)
    held = (ctypes.c_uint32 * 6)(low, low, low, high, high, high)
    _check(_libc.capset(header, held), "capset")
    _raise_ambient(numbers)


def _raise_ambient(numbers: Iterable[int]) -> None:
    for number in numbers:
        _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0)


def limit_bounding(numbers: AbstractSet[int]) -> None:
    """Give up for good every capability but these."""
    for number in range(64):
        if number not in numbers and _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            _check(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), "drop a capability")


def keep_over_setuid() -> None:
    """Let the next change of uid leave the permitted capabilities as they are."""
    _check(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0), "keep capabilities")


def forbid_new_privileges() -> None:
    """Make setuid programs and file capabilities ineffective from now on."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def install_filter(code: bytes) -> None:
    """Filter the system calls of this process and its children from now on.

    Args:
        code: Instructions of classic BPF, 8 bytes each.
    """

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))

    program = Program(len(code) // 8, code)
    _check(
        _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
        "system call filter",
    )


def set_hostname(name: str) -> None:
    """Name the host of our UTS namespace."""
    data = os.fsencode(name)
    _check(_libc.sethostname(data, len(data)), "hostname")


def raise_loopback() -> None:
    """Switch on the loopback interface of a new network namespace."""
    import fcntl
    import socket
    import struct

    request = struct.pack("16sh14x", b"lo", 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        flags = struct.unpack("16sh14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def steal_descriptor(pid: int, number: int) -> int:
    """Return a duplicate of another process's open file."""
    process = os.pidfd_open(pid)
    try:
        return _check(_libc.syscall(_SYS_PIDFD_GETFD, process, number, 0), "pidfd_getfd")
    finally:
        os.close(process)
