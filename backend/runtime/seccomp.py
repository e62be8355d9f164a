"""The filter of system calls that containers get.

The default has the effect of Docker's: calls that reach into the kernel's or the host's own
business are refused, unless a capability says otherwise.  It is written as a list of what is
refused; a container can then use what newer kernels add, within its capabilities.  Beyond
Docker's it refuses the two requests that push input into a terminal.

``linux.seccomp`` of the runtime specification 1.0 is the form; crun and runc take it as it is,
and ``backend.runtime.bpf`` compiles it for the built-in runtime.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
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
