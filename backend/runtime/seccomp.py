"""The filter of system calls that containers get, and its compiler for the built-in runtime.

The default has the effect of Docker's: calls that reach into the kernel's or the host's own
business are refused, unless a capability says otherwise.  It is written as a list of what is
refused; a container can then use what newer kernels add, within its capabilities.  Beyond
Docker's it refuses the two requests that push input into a terminal.

``linux.seccomp`` of the runtime specification 1.0 is the form; crun and runc take it as it is.
"""

from __future__ import annotations

import errno
import os
import struct

from backend.errors import LaunchError
from backend.escape import one_line

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

_NEVER = (
    "_sysctl add_key afs_syscall create_module get_kernel_syms getpmsg io_uring_enter "
    "io_uring_register io_uring_setup kexec_file_load kexec_load keyctl move_pages nfsservctl "
    "pivot_root putpmsg query_module request_key security swapoff swapon sysfs tuxcall uselib "
    "userfaultfd ustat vm86 vm86old vserver"
)
"""Refused whatever the capabilities are."""

_WITH_CAPABILITY = {
    "CAP_SYS_ADMIN": (
        "bpf fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr "
        "move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns "
        "syslog umount umount2 unshare"
    ),
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": (
        "clock_adjtime clock_adjtime64 clock_settime clock_settime64 settimeofday stime"
    ),
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
}
"""Refused unless the container has one of the capabilities that name the call."""

_NEW_NAMESPACES = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
"""Flags of clone: mount, cgroup, UTS, IPC, user, pid and network namespace."""

_PERSONALITIES = 0x0002_0008
"""Bits of personality that may be set: 32-bit Linux, and an old version's name."""
_TOP = 1 << 31
_LOW = 0xFFFFFFFF
_TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX."""
_AF_VSOCK = 40

_ARCHITECTURES = {
    "x86_64": (("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")),
    "aarch64": (("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM")),
}


def default_profile(capabilities: frozenset[str]) -> dict[str, Any]:
    """Return the filter for a container with these capabilities (``CAP_X``)."""
    refused = set(_NEVER.split())
    granted: set[str] = set()
    for capability, names in _WITH_CAPABILITY.items():
        (granted if capability in capabilities else refused).update(names.split())
    rules = [_refuse(sorted(refused - granted))]
    if "CAP_SYS_ADMIN" not in capabilities:
        rules += [_refuse(["clone"], (0, flag, flag)) for flag in _NEW_NAMESPACES]
        # Its flags are out of a filter's sight; libc then falls back to clone.
        rules.append(_refuse(["clone3"], error=errno.ENOSYS))
    rules += [_refuse(["personality"], *pair) for pair in _bad_personalities()]
    rules += [_refuse(["ioctl"], (1, _LOW, request)) for request in _TERMINAL_INPUT]
    rules.append(_refuse(["socket"], (0, _LOW, _AF_VSOCK)))
    architectures = _ARCHITECTURES.get(os.uname().machine)
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        **({"architectures": list(architectures)} if architectures else {}),
        "syscalls": rules,
    }


def _bad_personalities() -> list[tuple[tuple[int, int, int]]]:
    """Return the conditions under which personality sets what it should not.

    All bits set is a question, not a setting.  So a bit that may not be set is refused where the
    top one is clear; and the top one, where any other is clear.
    """
    bits = [1 << number for number in range(31)]
    below: list[tuple[tuple[int, int, int]]] = [
        ((0, bit | _TOP, bit),) for bit in bits if not bit & _PERSONALITIES
    ]
    return below + [((0, bit | _TOP, _TOP),) for bit in bits]


def _refuse(
    names: Sequence[str], *conditions: tuple[int, int, int], error: int = errno.EPERM
) -> dict[str, Any]:
    """Return a rule; each condition is (argument, mask, value under the mask)."""
    rule: dict[str, Any] = {
        "names": list(names),
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": error,
    }
    if conditions:
        rule["args"] = [
            {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
            for index, mask, value in conditions
        ]
    return rule


# -- the compiler -------------------------------------------------------------------------

_LOAD, _JUMP, _EQUAL, _AND, _RETURN = 0x20, 0x05, 0x15, 0x54, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_INSTRUCTION = struct.Struct("=HBBI")
_MAX_INSTRUCTIONS = 4096

_RETURNS = {
    "SCMP_ACT_ALLOW": 0x7FFF_0000,
    "SCMP_ACT_LOG": 0x7FFC_0000,
    "SCMP_ACT_TRAP": 0x0003_0000,
    "SCMP_ACT_KILL": 0x0000_0000,
    "SCMP_ACT_KILL_THREAD": 0x0000_0000,
    "SCMP_ACT_KILL_PROCESS": 0x8000_0000,
}
_ERRNO_RETURN = 0x0005_0000
_AUDIT = {
    "x86_64": ((0xC000_003E, 1), (0x4000_0003, 2)),
    "aarch64": ((0xC000_00B7, 3),),
}
"""By machine: the architectures a process can call with, and their columns in the table."""

Code = tuple[int, int, int, int]
"""An instruction of classic BPF: code, jump if true, jump if false, constant."""


def compile_filter(profile: dict[str, Any]) -> bytes:
    """Return the program that :func:`backend.runtime.kernel.install_filter` takes.

    Raises:
        LaunchError: The profile uses what only libseccomp can do, or this machine is unknown.
    """
    machine = os.uname().machine
    if machine not in _AUDIT:
        raise LaunchError(
            f"the built-in runtime has no system call table for {machine}",
            hint="install crun or runc, or use --security seccomp:unconfined",
        )
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    program: list[Code] = [(_LOAD, 0, 0, _ARCHITECTURE_AT)]
    for number, column in _AUDIT[machine]:
        section = _section(profile, _numbers(column), default)
        program += [(_EQUAL, 1, 0, number), (_JUMP, 0, 0, len(section)), *section]
    program.append((_RETURN, 0, 0, _ERRNO_RETURN | errno.ENOSYS))
    if len(program) > _MAX_INSTRUCTIONS:
        raise LaunchError("the seccomp profile is too long for the kernel")
    return b"".join(_INSTRUCTION.pack(*code) for code in program)


def _numbers(column: int) -> dict[str, int]:
    """Return the numbers of the system calls of one architecture, by name."""
    path = os.path.join(os.path.dirname(__file__), "syscalls.tsv")
    with open(path, encoding="ascii") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines if not line.startswith("#")]
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


def _section(profile: dict[str, Any], numbers: dict[str, int], default: int) -> list[Code]:
    """Return the rules for one architecture; the first that applies decides."""
    section: list[Code] = [(_LOAD, 0, 0, _NUMBER_AT)]
    for rule in profile.get("syscalls", []):
        action = _action(rule["action"], rule.get("errnoRet"))
        tests = [test for one in rule.get("args") or [] for test in _compare(one)]
        for name in rule["names"]:
            if name in numbers:
                section += _block(numbers[name], tests, action)
    return [*section, (_RETURN, 0, 0, default)]


def _block(number: int, tests: list[Code], action: int) -> list[Code]:
    """Return the code that ends with ``action`` if the call and all tests match.

    A test's jumps are filled in here: where it fails, to the reload of the number at the end.
    """
    if not tests:
        return [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, action)]
    body = [*tests, (_RETURN, 0, 0, action), (_LOAD, 0, 0, _NUMBER_AT)]
    reload = len(body) - 1
    code: list[Code] = [(_EQUAL, 0, len(body), number)]
    for position, (kind, _, _, constant) in enumerate(body):
        code.append((kind, 0, reload - position - 1 if kind == _EQUAL else 0, constant))
    return code


def _compare(argument: dict[str, Any]) -> Iterable[Code]:
    """Yield the test of one argument, both halves of its 64 bits."""
    operation, index = argument["op"], argument["index"]
    if operation == "SCMP_CMP_MASKED_EQ":
        mask, value = argument["value"], argument.get("valueTwo", 0)
    elif operation == "SCMP_CMP_EQ":
        mask, value = (1 << 64) - 1, argument["value"]
    else:
        raise LaunchError(
            f"the built-in runtime cannot compare with {one_line(str(operation), limit=40)}",
            why="the seccomp profile asks for it",
            hint="use crun or runc",
        )
    for half in range(2):  # little endian: the low half comes first
        shift = 32 * half
        if mask >> shift & _LOW:
            yield (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * index + 4 * half)
            yield (_AND, 0, 0, mask >> shift & _LOW)
            yield (_EQUAL, 0, 0, value >> shift & _LOW)


def _action(name: str, number: int | None) -> int:
    if name == "SCMP_ACT_ERRNO":
        return _ERRNO_RETURN | (errno.EPERM if number is None else number) & 0xFFFF
    if name not in _RETURNS:
        raise LaunchError(
            f"the built-in runtime does not know the action {one_line(str(name), limit=40)}",
            why="the seccomp profile asks for it",
            hint="use crun or runc",
        )
    return _RETURNS[name]
