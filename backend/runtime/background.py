"""Starting a container in the background, and a program in one that runs."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Any, NoReturn

from backend.errors import LaunchError
from backend.runtime import builtin, console, container, instances, kernel, relay
from backend.runtime.bpf import compile_filter
from backend.runtime.cgroups import open_doors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backend.runtime.instances import Instance
    from backend.runtime.plan import Plan

_SPACES = {
    "user": kernel.CLONE_NEWUSER,
    "mnt": kernel.CLONE_NEWNS,
    "pid": kernel.CLONE_NEWPID,
    "ipc": kernel.CLONE_NEWIPC,
    "uts": kernel.CLONE_NEWUTS,
    "net": kernel.CLONE_NEWNET,
}
_MAX_LOG = 4096


def start_detached(plan: Plan, name: str, *, keep_input: bool) -> str:
    """Start the plan in a session of its own and return the container's name.

    Args:
        plan: With a terminal, it gets one that users can attach to.
        name: Empty to have one chosen.
        keep_input: Without a terminal: leave its input open for those who attach.

    Raises:
        LaunchError: The container did not start; its log says why.
        ExistsError: A container of that name runs.
    """
    name, folder = instances.reserve(name)
    plan["exit_file"] = f"{folder}/exit"
    reading, writing = os.pipe()
    plan["ready"] = writing
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            _detach(plan, name, folder, keep_input=keep_input)
        finally:
            os._exit(125)
    os.close(writing)
    with open(reading, "rb") as pipe:
        ready = pipe.read(1)
    if not ready:
        os.waitpid(pid, 0)
        with open(f"{folder}/log", encoding="utf-8", errors="replace") as log:
            lines = log.read(_MAX_LOG).splitlines()
        shutil.rmtree(folder, ignore_errors=True)
        raise LaunchError(
            "the container did not start", why="; ".join(line[9:].strip() for line in lines)
        )
    return name


def _detach(plan: Plan, name: str, folder: str, *, keep_input: bool) -> NoReturn:
    """Leave the caller's session and become the launcher."""
    document = json.loads(plan["config"])
    os.setsid()
    log = os.open(f"{folder}/log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    if plan["terminal"]:
        size = document["process"]["consoleSize"]
        console.serve(folder, log, size["height"], size["width"])
    else:
        nowhere = os.open(os.devnull, os.O_RDONLY)
        source = console.open_input(folder) if keep_input else nowhere
        for descriptor, target in ((source, 0), (log, 1), (log, 2)):
            os.dup2(descriptor, target)
    os.set_inheritable(plan["ready"], True)
    record = instances.Record(
        name=name,
        image=plan["image"],
        command=tuple(document["process"]["args"]),
        pid=os.getpid(),
        started_ticks=instances.started_ticks(os.getpid()),
        created=int(time.time()),
        runtime=plan["runtime_kind"],
        document=document,
    )
    instances.write_record(folder, record)
    container.become_launcher(plan)


def join(
    instance: Instance, arguments: Sequence[str], environment: Mapping[str, str], cwd: str
) -> int:
    """Run a program in a container that runs, with the same rights; return its status.

    Args:
        instance: The container.
        arguments: Program and arguments.
        environment: Set over the container's.
        cwd: Empty for the container's.

    Raises:
        LaunchError: The container cannot be joined.
        NotFoundError: It has just ended.
    """
    import socket
    import termios

    record = instance.record
    document = _changed(record.document, arguments, environment, cwd)
    seccomp = document["linux"].get("seccomp")
    filter_code = compile_filter(seccomp) if seccomp else b""
    target = instances.first_process(instance)
    on_terminal = os.isatty(0) and os.isatty(1)
    modes = termios.tcgetattr(0) if on_terminal else None
    ours, theirs = socket.socketpair()
    copier = relay.start(ours) if on_terminal else 0
    ours.close()
    try:
        doors = open_doors(target)
        _enter(target)
    except OSError as error:
        raise LaunchError(
            f"cannot join the container {record.name}",
            why=f"{error.filename}: {error.strerror}",
            hint="it belongs to the user who started it",
        ) from error
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            kernel.die_with_parent(parent)
            for door in doors:
                os.write(door, b"0")
            builtin.join(document, theirs if on_terminal else None, filter_code)
        finally:
            os._exit(125)
    theirs.close()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if copier and modes:
        os.waitpid(copier, 0)
        termios.tcsetattr(0, termios.TCSANOW, modes)
    return 128 - status if status < 0 else status


def _changed(
    document: dict[str, Any], arguments: Sequence[str], environment: Mapping[str, str], cwd: str
) -> dict[str, Any]:
    process = document["process"]
    present = dict(entry.split("=", 1) for entry in process["env"])
    present.update(environment)
    changes = {
        "args": list(arguments),
        "env": [f"{name}={value}" for name, value in present.items()],
        "cwd": cwd or process["cwd"],
    }
    return document | {"process": process | changes}


def _enter(target: int) -> None:
    """Join every namespace of a process that is not ours already."""
    flags = 0
    for name, flag in _SPACES.items():
        theirs, ours = (
            os.readlink(f"/proc/{target}/ns/{name}"),
            os.readlink(f"/proc/self/ns/{name}"),
        )
        flags |= flag if theirs != ours else 0
    process = os.pidfd_open(target)
    try:
        kernel.enter(process, flags, f"namespaces of process {target}")
    finally:
        os.close(process)
