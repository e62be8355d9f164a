"""The compiler of system call filters, for the built-in runtime; crun and runc have libseccomp."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING, Any

from backend.errors import LaunchError
from backend.escape import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

_LOW = 0xFFFFFFFF
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
