"""The filter of system calls, call by call: by our own compiler, in a child of the test."""

from __future__ import annotations

import ctypes
import errno
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from backend.errors import LaunchError
from backend.runtime import bpf, kernel, seccomp
from backend.runtime.capabilities import DEFAULT, NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

if os.uname().machine != "x86_64":
    pytest.skip("the numbers below are those of x86_64", allow_module_level=True)

ROWS = [
    line.split("\t")
    for line in Path(seccomp.__file__).with_name("syscalls.tsv").read_text().splitlines()[1:]
]
NUMBERS = {row[0]: int(row[1]) for row in ROWS if row[1] != "-"}


def words(text: str) -> list[str]:
    return text.split()


# What Docker's default profile refuses with its default capabilities; a fact of its
# documentation (docs.docker.com/engine/security/seccomp) and of moby's default.json.
REFUSED = words(
    """
acct add_key bpf clock_adjtime clock_settime create_module delete_module fanotify_init
finit_module fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy init_module
io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load
keyctl lookup_dcookie mbind mount mount_setattr move_mount move_pages nfsservctl
open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root query_module quotactl
reboot request_key set_mempolicy setdomainname sethostname setns settimeofday swapoff swapon
sysfs syslog _sysctl umount2 unshare uselib userfaultfd ustat vhangup
"""
)

ALLOWED = words(
    """
read write open close stat mmap mprotect brk ioctl access pipe select dup socket connect
accept sendto recvfrom bind listen fcntl flock fsync truncate getdents getcwd chdir rename mkdir
rmdir link unlink symlink readlink chmod chown umask getpid getuid setuid setgid setgroups
capget capset statfs prctl arch_prctl chroot mknod personality ptrace process_vm_readv futex
epoll_wait inotify_init splice timerfd_create eventfd2 pidfd_open openat2 memfd_create
landlock_create_ruleset seccomp name_to_handle_at setxattr nanosleep kill getrandom statx rseq
"""
)


def answers(profile: dict[str, Any], calls: list[tuple[int, ...]]) -> list[int]:
    """Return the error number of each call in a child under the filter, 0 for success."""

    def work() -> list[int]:
        libc = ctypes.CDLL(None, use_errno=True)
        kernel.forbid_new_privileges()
        kernel.install_filter(bpf.compile_filter(profile))
        found = []
        for number, *arguments in calls:
            ctypes.set_errno(0)
            result = libc.syscall(number, *(ctypes.c_ulong(value) for value in arguments))
            found.append(ctypes.get_errno() if result == -1 else 0)
        return found

    return in_child(work)


def in_child(work: Callable[[], list[int]]) -> list[int]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    found: list[int] = json.loads(text)
    return found


BAD = (2**64 - 1,) * 6


def test_what_docker_refuses_is_refused() -> None:
    profile = seccomp.default_profile(frozenset(DEFAULT))
    found = answers(profile, [(NUMBERS[name], *BAD) for name in REFUSED])
    assert {name for name, number in zip(REFUSED, found, strict=True) if number != errno.EPERM} == (
        set()
    )


def test_what_programs_need_is_not_touched() -> None:
    profile = seccomp.default_profile(frozenset(DEFAULT))
    blocked = {name for rule in profile["syscalls"] if "args" not in rule for name in rule["names"]}
    assert blocked & set(ALLOWED) == set()
    harmless = [NUMBERS[name] for name in ("getpid", "getuid", "umask", "sched_yield", "getcwd")]
    assert errno.EPERM not in answers(profile, [(number, 0, 0) for number in harmless])


@pytest.mark.parametrize(
    ("capability", "names"), [(key, text.split()) for key, text in seccomp._WITH_CAPABILITY.items()]
)
def test_a_capability_opens_its_calls(capability: str, names: list[str]) -> None:
    profile = seccomp.default_profile(frozenset({capability}))
    blocked = {name for rule in profile["syscalls"] if "args" not in rule for name in rule["names"]}
    assert blocked & set(names) == set()
    others = {n for key, text in seccomp._WITH_CAPABILITY.items() for n in text.split()}
    assert others - set(names) <= blocked | set(names)


def test_namespaces_by_clone() -> None:
    clone, clone3 = NUMBERS["clone"], NUMBERS["clone3"]
    flags = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
    profile = seccomp.default_profile(frozenset(DEFAULT))
    found = answers(profile, [*((clone, flag) for flag in flags), (clone3, 0, 0)])
    assert found == [errno.EPERM] * len(flags) + [errno.ENOSYS]


def test_personality_terminal_input_and_vsock() -> None:
    profile = seccomp.default_profile(frozenset(NAMES))
    personality, ioctl, socket = (NUMBERS[name] for name in ("personality", "ioctl", "socket"))
    asked = [0xFFFFFFFF, 0, 8, 0x20000, 0x20008, 0xFFFFFFFF, 0]
    refused = [1, 0x40000, 0x400000, 0x20009, 0x80000000, 0xFFFFFFFE, 0x7FFFFFFF, 0x80000008]
    found = answers(profile, [(personality, value) for value in asked + refused])
    assert found == [0] * len(asked) + [errno.EPERM] * len(refused)
    # The upper half of a request is not looked at by the kernel, so it must not fool us.
    requests = [0x5412, 0x541C, 0x1_0000_5412]
    found = answers(profile, [(ioctl, 99, value, 0) for value in requests])
    assert found == [errno.EPERM] * 3
    assert answers(profile, [(ioctl, 99, 0x5413, 0)]) == [errno.EBADF]
    assert answers(profile, [(socket, 40, 1, 0)]) == [errno.EPERM]
    assert answers(profile, [(socket, 2, 1, 0)]) == [0]


def test_other_profiles() -> None:
    deny = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {
                "names": ["getpriority", "no_such_call"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 77,
                "args": [
                    {"index": 0, "value": 5, "op": "SCMP_CMP_EQ"},
                    {"index": 1, "value": 0xFF, "valueTwo": 0x10, "op": "SCMP_CMP_MASKED_EQ"},
                ],
            }
        ],
    }
    call = NUMBERS["getpriority"]
    found = answers(
        deny, [(call, 5, 0xA10), (call, 5, 0x11), (call, 6, 0x10), (call, 5 + 2**32, 0)]
    )
    assert found[0] == 77
    assert 77 not in found[1:]


@pytest.mark.parametrize(
    "rule",
    [
        {"names": ["read"], "action": "SCMP_ACT_NOTIFY"},
        {
            "names": ["read"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 1, "op": "x"}],
        },
    ],
)
def test_what_only_libseccomp_can_is_an_error(rule: dict[str, Any]) -> None:
    with pytest.raises(LaunchError, match="built-in runtime"):
        bpf.compile_filter({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
