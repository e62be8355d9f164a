"""From an image and the user's options to a plan, and from the plan into the launcher."""

from __future__ import annotations

import os
import sys

from backend.errors import LaunchError, UsageError
from backend.escape import one_line
from backend.jsontext import write_json
from backend.runtime import engine, host, plan, storage
from backend.runtime.arguments import choose_arguments
from backend.runtime.environment import compose_environment
from backend.runtime.identity import User, default_user, identify, read_caller
from backend.runtime.image import find_user, read_image
from backend.runtime.mounts import Place, plan_mounts
from backend.runtime.options import Limits
from backend.runtime.privileges import grant
from backend.runtime.spec import Container, Grants, describe
from backend.values import replace

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from typing import NoReturn

    from backend.events import Report
    from backend.runtime.engine import Engine
    from backend.runtime.identity import Caller, Identity
    from backend.runtime.image import RunnableImage
    from backend.runtime.mounts import Mounts
    from backend.runtime.options import RunOptions
    from backend.runtime.plan import Limit, Namespace, Plan, Rootfs

_DEFAULT_UMASK = 0o022
_ROWS, _COLUMNS = 24, 80
"""Of a terminal in the background that is started from none."""


def plan_image(path: str, options: RunOptions, report: Report) -> Plan:
    """Return what the launcher shall do for an image file.

    Args:
        path: An OCI-SIF or a native SIF file.
        options: What the user asked for.
        report: Hears of the extraction, where the host cannot mount.

    Raises:
        LaunchError: This host or this image cannot.
        FormatError: The file is not what it should be.
        UsageError: Options that exclude each other.
    """
    runnable = read_image(path)
    if runnable.is_native:
        from backend.events import Note

        # As SingularityCE says it.
        hint = "See user guide for compatibility information."
        report(Note(level="info", text=f"Running a non-OCI SIF in OCI mode. {hint}"))
    caller = _find_caller(report)
    identity = identify(caller, _choose_user(runnable, options, caller))
    runtime = engine.choose_engine(options.runtime, identity)
    _check(options, runtime, caller)
    if not caller.real_root and host.has_masked_proc():
        options = replace(options, share_pids=True)
    place = Place(
        session=find_session(),
        memory=host.memory_limit(),
        real_root=caller.real_root,
        home=_home(options, identity.user),
        host_home=caller.home,
        cwd=os.getcwd(),
        # As in SingularityCE; the others can give no terminal then.
        host_devices=not options.compat
        and runtime.kind == "crun"
        and "dev" not in options.no_mount,
    )
    grants = _find_devices(options)
    if runtime.kind == "builtin":
        _check_hooks(grants)
    data = storage.find_data(options.binds)
    mounts = plan_mounts(options, identity, place, data, grants)
    container = _describe(runnable, options, identity, mounts, grants)
    return _assemble(container, mounts, runtime, (runnable, options, caller), report)


def _find_caller(report: Report) -> Caller:
    """Return who asks, with their subordinate ids only if the host really maps these."""
    caller = read_caller(host.find_map_tools() if os.getuid() else ())
    if caller.mode != "subordinate":
        return caller
    from backend.runtime.mapping import find_refusal

    if not (reason := find_refusal(caller)):
        return caller
    from backend.events import Note

    text = (
        f"Your subordinate ids cannot be used ({one_line(reason, limit=200)}): every file in the "
        "container belongs to one user. Who can mend it: sifdeck doctor"
    )
    report(Note(level="warning", text=text))
    return replace(caller, map_tools=())


def become_launcher(wanted: Plan) -> NoReturn:
    """Replace this process by the launcher, which ends with the container's status."""
    descriptor = plan.store(wanted)
    launcher = os.path.join(os.path.dirname(__file__), "launch.py")
    sys.stdout.flush()
    sys.stderr.flush()
    command = [*wanted["scope"], sys.executable, "-I", "-S", launcher, str(descriptor)]
    os.execv(command[0], command)


def _find_devices(options: RunOptions) -> Grants:
    if not options.devices and not options.gpu and not options.libraries:
        return Grants()
    from backend.runtime.devices import find_devices

    return find_devices(options)


def _check_hooks(grants: Grants) -> None:
    from backend.runtime.hooks import CALLED

    if unknown := grants.hooks.keys() - CALLED:
        raise LaunchError(
            f"the built-in runtime calls no {' or '.join(sorted(unknown))} hooks",
            why="a device's CDI file asks for them",
            hint="use crun or runc",
        )


def _choose_user(runnable: RunnableImage, options: RunOptions, caller: Caller) -> User:
    spec = "0" if options.fakeroot else options.user or runnable.user
    return find_user(runnable, spec) if spec else default_user(caller)


def _check(options: RunOptions, runtime: Engine, caller: Caller) -> None:
    """Refuse what this runtime or this user cannot have.

    Raises:
        UsageError: An option cannot be honoured.
    """
    if options.keep_groups and runtime.kind == "runc":
        raise UsageError("runc cannot keep the host's groups", hint="use crun or builtin")
    if options.keep_groups and caller.uid == 0:
        raise UsageError("--keep-groups is for ordinary users; root has no groups to keep")
    if options.terminal and not options.detach and not (os.isatty(0) and os.isatty(1)):
        raise UsageError("--tty needs a terminal", hint="run sifdeck on one, or use --detach")
    if options.publish and not options.has_private_network:
        raise UsageError("a port can only be published from a private network", hint="add --net")


def _home(options: RunOptions, user: User) -> str:
    """Return the home of the container's user; empty for none."""
    if options.no_home or "home" in options.no_mount:
        return ""
    return options.home.rpartition(":")[2] or user.home


def _describe(
    runnable: RunnableImage,
    options: RunOptions,
    identity: Identity,
    mounts: Mounts,
    devices: Grants,
) -> Container:
    """Return what config.json says."""
    place = mounts.place
    on_terminal = os.isatty(0) and os.isatty(1)
    size = (_ROWS, _COLUMNS)
    if on_terminal:
        columns, rows = os.get_terminal_size(0)
        size = (rows, columns)
    working_dir = options.working_dir or runnable.working_dir or "/"
    if not options.compat and not options.working_dir:
        working_dir = place.cwd
    return Container(
        identity=identity,
        arguments=choose_arguments(runnable, options),
        environment=compose_environment(runnable, options, place.home or "/", devices),
        working_dir=working_dir,
        terminal=size if (options.terminal if options.detach else on_terminal) else None,
        umask=_DEFAULT_UMASK if options.umask is None else options.umask,
        privileges=grant(options, identity),
        mounts=mounts.entries,
        hostname=options.hostname,
        share_pids=options.share_pids,
        own_network=options.network == "none",
        read_only=not (options.compat or options.writable or options.writable_tmpfs),
        keep_groups=options.keep_groups,
        hooks=devices.hooks,
    )


def _assemble(
    container: Container,
    mounts: Mounts,
    runtime: Engine,
    asked: tuple[RunnableImage, RunOptions, Caller],
    report: Report,
) -> Plan:
    runnable, options, caller = asked
    identity, session = container.identity, mounts.place.session
    document = describe(container)
    limits, scope = _limits(options, runtime)
    file_systems = storage.choose(runnable, options, identity, caller, report)
    return {
        "image": runnable.path,
        **file_systems,
        "session": session,
        "namespace": _namespace(identity, caller),
        "become_root": identity.mode == "subordinate" and identity.user.uid != 0,
        "memory": mounts.place.memory,
        "rootfs": _rootfs(container, mounts),
        "sources": mounts.sources,
        "share_pids": container.share_pids,
        "keep_groups": container.keep_groups,
        "filter": _filter(runtime, document),
        "config": write_json(document),
        "runtime": engine.run_command(runtime, session=session, name=f"sifdeck-{os.getpid()}"),
        "runtime_kind": runtime.kind,
        "terminal": container.terminal is not None,
        "network": _network(options),
        "ports": [
            {
                "host": port.host,
                "container": port.container,
                "protocol": port.protocol,
                "address": port.address,
            }
            for port in options.publish
        ],
        "limits": limits,
        "scope": scope,
        "exit_file": "",
        "ready": -1,
    }


def _namespace(identity: Identity, caller: Caller) -> Namespace | None:
    if identity.mode == "root":
        return None
    return {
        "uids": list(identity.uids),
        "gids": list(identity.gids),
        "tools": list(caller.map_tools) if identity.mode == "subordinate" else [],
    }


def _filter(runtime: Engine, document: dict[str, object]) -> bytes:
    """Return the system call filter for the built-in runtime; the others make their own."""
    linux = document["linux"]
    if runtime.kind != "builtin" or not isinstance(linux, dict) or "seccomp" not in linux:
        return b""
    from backend.runtime.bpf import compile_filter

    return compile_filter(linux["seccomp"])


def _network(options: RunOptions) -> str:
    """Return the program that connects a private network; empty without one.

    Raises:
        LaunchError: There is none.
    """
    if not options.has_private_network:
        return ""
    wanted = ("pasta", "slirp4netns") if options.network == "private" else (options.network,)
    program = host.find_program(*wanted)
    if not program:
        raise LaunchError(
            "cannot connect a private network",
            why=f"{' or '.join(wanted)} is not installed",
            hint="an administrator can install it (apt install passt, or slirp4netns); "
            "--net --network none needs nothing",
        )
    return program


def _limits(options: RunOptions, runtime: Engine) -> tuple[list[Limit], list[str]]:
    """Return what holds the container to its limits, and what the launcher starts through.

    Raises:
        LaunchError: This host cannot do that.
    """
    if options.limits == Limits():
        return [], []
    from backend.runtime import cgroups, limits

    wanted = limits.describe_limits(options.limits, runtime.kind)
    scope = limits.find_scope()
    if not scope:
        cgroups.choose_groups(wanted)
    return wanted, scope


def _rootfs(container: Container, mounts: Mounts) -> Rootfs:
    user, home = container.identity.user, mounts.place.home
    passwd = group = ""
    if user.name:
        passwd = f"{user.name}:x:{user.uid}:{user.gid}:{user.name}:{home or '/'}:/bin/sh"
        group = f"{user.name}:x:{user.gid}:"
    return {
        "passwd": passwd,
        "group": group,
        "home": home if user.name else "",
        "owner": (0, 0) if container.identity.nested else (user.uid, user.gid),
        "places": mounts.places(),
        "program": container.arguments[0],
        "path": container.environment["PATH"],
        "cwd": container.working_dir,
    }


def find_session() -> str:
    """Return a folder on which the launcher may mount its tmpfs.

    One that ships with us, so that it hides nothing; unless another id of the container could
    not reach it, because a folder above it is closed to others.
    """
    own = os.path.join(os.path.dirname(os.path.abspath(__file__)), "session")
    if all(os.stat(folder).st_mode & 0o001 for folder in _above(own)):
        return own
    for other in ("/mnt", "/media", "/srv", "/opt"):
        if os.path.isdir(other):
            return other
    raise LaunchError(
        "there is no folder to work on",
        why=f"others cannot reach {own}, and /mnt, /media, /srv and /opt do not exist",
        hint="install sifdeck in a folder that everybody may enter (chmod o+x)",
    )


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) or "/" for count in range(1, len(parts))]
