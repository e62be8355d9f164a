"""From an image and the user's options to a plan, and from the plan into the launcher."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from backend.errors import LaunchError
from backend.runtime import engine, host, image, plan
from backend.runtime.environment import compose_environment
from backend.runtime.identity import (
    Identity,
    User,
    default_user,
    identify,
    read_caller,
    resolve_user,
)
from backend.runtime.options import Bind
from backend.runtime.spec import Container, describe

if TYPE_CHECKING:
    from backend.events import Report
    from backend.runtime.identity import Caller
    from backend.runtime.image import RunnableImage
    from backend.runtime.options import RunOptions
    from backend.runtime.plan import Layer, Plan, Rootfs

_SHELL = 'if test -x /bin/bash; then exec /bin/bash --norc "$@"; fi; exec /bin/sh "$@"'
_AS_ROOT = "uid=0,gid=0,kernel_cache,attr_timeout=86400,entry_timeout=86400,negative_timeout=86400"
"""Options of the high-level squashfuse, which by itself caches nothing; an image never changes."""
_HOST_FILES = ("/etc/resolv.conf", "/etc/hosts")
"""Shown in the container, which shares the host's network."""


def plan_image(path: Path, options: RunOptions, report: Report) -> Plan:
    """Return what the launcher shall do for an image file.

    Args:
        path: An OCI-SIF file.
        options: What the user asked for.
        report: Hears of the extraction, where the host cannot mount.

    Raises:
        LaunchError: This host or this image cannot.
        FormatError: The file is not what it should be.
    """
    return make_plan(image.read_image(path), options, report)


def become_launcher(wanted: Plan) -> NoReturn:
    """Replace this process by the launcher, which ends with the container's status."""
    descriptor = plan.store(wanted)
    launcher = str(Path(__file__).with_name("launch.py"))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-I", "-S", launcher, str(descriptor)])


def make_plan(runnable: RunnableImage, options: RunOptions, report: Report) -> Plan:
    """Return what the launcher shall do.

    Raises:
        LaunchError: This host or this image cannot.
    """
    caller = read_caller(host.find_map_tools() if os.getuid() else ())
    identity = identify(caller, _choose_user(runnable, options, caller))
    arguments = choose_arguments(runnable, options)
    environment = compose_environment(runnable, options, identity.user.home)
    working_dir = options.working_dir or runnable.config.working_dir or "/"
    memory = host.memory_limit()
    session = find_session()
    binds = [*_host_files(options), *options.binds]
    terminal = os.get_terminal_size(0) if os.isatty(0) and os.isatty(1) else None
    runtime = engine.choose_engine(options.runtime, identity)
    document = describe(
        Container(
            identity=identity,
            arguments=arguments,
            environment=environment,
            working_dir=working_dir,
            terminal=(terminal.lines, terminal.columns) if terminal else None,
            binds=[
                replace(bind, source=f"{session}/binds/{number}")
                for number, bind in enumerate(binds)
            ],
            memory=memory,
            real_root=caller.real_root,
            hostname=options.hostname,
        )
    )
    squashfuse = _find_squashfuse(identity)
    return {
        "image": str(runnable.path),
        "layers": _layers(runnable, squashfuse, identity, caller, report),
        "squashfuse": squashfuse,
        "overlayfuse": host.find_program("fuse-overlayfs"),
        "session": session,
        "namespace": None
        if identity.mode == "root"
        else {
            "uids": list(identity.uids),
            "gids": list(identity.gids),
            "tools": list(caller.map_tools) if identity.mode == "subordinate" else [],
        },
        "become_root": identity.mode == "subordinate" and identity.user.uid != 0,
        "memory": memory,
        "rootfs": _rootfs(identity, arguments[0], environment["PATH"], working_dir),
        "binds": [bind.source for bind in binds],
        "config": json.dumps(document),
        "runtime": engine.run_command(runtime, session=session, name=f"sifdeck-{os.getpid()}"),
        "runtime_kind": runtime.kind,
        "terminal": terminal is not None,
    }


def choose_arguments(runnable: RunnableImage, options: RunOptions) -> tuple[str, ...]:
    """Return the program and its arguments, as Docker puts them together.

    Raises:
        LaunchError: The image has no command and the user gave none.
    """
    if options.action == "shell":
        return ("/bin/sh", "-c", _SHELL, "sh", *options.arguments)
    if options.action == "exec":
        return options.arguments
    config = runnable.config
    arguments = (*config.entrypoint, *(options.arguments or config.cmd))
    if not arguments or not arguments[0]:
        raise LaunchError(
            f"{runnable.path.name} says no command to run",
            why="it has neither ENTRYPOINT nor CMD",
            hint=f"name one: sifdeck exec {runnable.path.name} COMMAND",
        )
    return arguments


def _choose_user(runnable: RunnableImage, options: RunOptions, caller: Caller) -> User:
    spec = "0" if options.fakeroot else options.user or runnable.config.user
    if not spec:
        return default_user(caller)
    if spec in {"0", "0:0"}:
        return User(uid=0, gid=0, home="/root")
    return resolve_user(spec, *image.read_accounts(runnable))


def _find_squashfuse(identity: Identity) -> list[str]:
    """Return the FUSE server and its options; empty when this host cannot mount."""
    if not host.can_open_fuse():
        return []
    if identity.mode != "single":
        server = host.find_program("squashfuse_ll", "squashfuse")
        return [server] if server else []
    # With one id, the files of all others must look like root's; squashfuse_ll cannot do that.
    server = host.find_program("squashfuse")
    return [server, _AS_ROOT] if server else []


def _layers(
    runnable: RunnableImage,
    squashfuse: list[str],
    identity: Identity,
    caller: Caller,
    report: Report,
) -> list[Layer]:
    if squashfuse:
        return [{"source": str(runnable.path), "offset": layer.offset} for layer in runnable.layers]
    from backend.runtime.extraction import extract_layers

    folders = extract_layers(runnable, identity, caller, report)
    return [{"source": str(folder), "offset": -1} for folder in folders]


def _rootfs(identity: Identity, program: str, path: str, working_dir: str) -> Rootfs:
    user = identity.user
    known = {"passwd": "", "group": ""}
    if user.name:
        known["passwd"] = f"{user.name}:x:{user.uid}:{user.gid}:{user.name}:{user.home}:/bin/sh"
        known["group"] = f"{user.name}:x:{user.gid}:"
    return {
        "passwd": known["passwd"],
        "group": known["group"],
        "home": user.home if user.name else "",
        "owner": (0, 0) if identity.nested else (user.uid, user.gid),
        "program": program,
        "path": path,
        "cwd": working_dir,
    }


def _host_files(options: RunOptions) -> list[Bind]:
    taken = {bind.target for bind in options.binds}
    return [
        Bind(source=path, target=path, read_only=True)
        for path in _HOST_FILES
        if path not in taken and os.path.isfile(path)
    ]


def find_session() -> str:
    """Return a folder on which the launcher may mount its tmpfs.

    One that ships with us, so that it hides nothing; unless another id of the container could
    not reach it, because a folder above it is closed to others.
    """
    own = Path(__file__).with_name("session")
    if all(folder.stat().st_mode & 0o001 for folder in own.parents):
        return str(own)
    for other in ("/mnt", "/media", "/srv", "/opt"):
        if os.path.isdir(other):
            return other
    raise LaunchError(
        "there is no folder to work on",
        why=f"others cannot reach {own}, and /mnt, /media, /srv and /opt do not exist",
        hint="install sifdeck in a folder that everybody may enter (chmod o+x)",
    )
