"""Who can build on this machine, best first, and what to install where nobody can."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.errors import BackendError, ToolMissingError, UsageError
from backend.escape import quoted
from backend.runtime.host import find_map_tools, find_program
from backend.runtime.identity import read_caller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from backend.build.docker import DockerApi
    from backend.build.request import Builder, BuildRequest

NAMES = ("buildctl", "buildx", "docker", "buildah", "podman")

_INSTALL = {
    "debian": "apt install buildah",
    "ubuntu": "apt install buildah",
    "fedora": "dnf install buildah",
    "rhel": "dnf install buildah",
    "suse": "zypper install buildah",
    "arch": "pacman -S buildah",
    "alpine": "apk add buildah",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A builder that could be used, and how that was found out.

    Attributes:
        name: What ``--builder`` calls it.
        make: Returns the builder, whose module is loaded then; None when it cannot be used here.
        reason: Where it was found, or why not.
    """

    name: str
    make: Callable[[], Builder] | None
    reason: str


def candidates(name: str = "") -> Iterator[Candidate]:
    """Yield the builders that we know, best first, each probed when it is asked for.

    Args:
        name: The only one that is wanted; empty means all.
    """
    probes: tuple[tuple[str, Callable[[], Candidate]], ...] = (
        ("buildctl", _buildctl),
        ("buildx", _buildx),
        ("docker", lambda: _socket(docker_sockets())),
        ("buildah", lambda: _program("buildah")),
        ("podman", lambda: _program("podman")),
        ("docker", lambda: _socket(podman_sockets())),
    )
    for known, probe in probes:
        if name in {"", known}:
            yield probe()


def choose(request: BuildRequest, name: str = "") -> Builder:
    """Return the builder for a request.

    Args:
        request: What it must be able to do.
        name: The one that the user wants; empty means the best.

    Raises:
        UsageError: There is no such builder, or none here can do what is asked for.
        ToolMissingError: The one that is wanted is not here, or none is.
    """
    if name and name not in NAMES:
        raise UsageError(f"there is no builder {quoted(name)}", hint=f"known: {', '.join(NAMES)}")
    reasons, able = [], False
    for candidate in candidates(name):
        builder = candidate.make() if candidate.make else None
        lack = builder.lacks(request) if builder else ""
        if builder and not lack:
            return builder
        able = able or builder is not None
        reasons.append(f"{candidate.name}: {lack or candidate.reason}")
    raise _refusal(name, reasons, able=able)


def _refusal(name: str, reasons: Sequence[str], *, able: bool) -> BackendError:
    """Return the error for when no builder will do.

    Args:
        name: The one that was wanted; empty for any.
        reasons: Why each will not.
        able: Whether one is here that could build something else.
    """
    why = "; ".join(reasons)
    if able and name:
        return UsageError(
            f"{name} cannot build this", why=why, hint="leave out --builder: another one may"
        )
    if able:
        return UsageError("no builder here can build this", why=why)
    return ToolMissingError(
        f"the builder {name} cannot be used here" if name else "no builder can be used here",
        argv=[name or "build"],
        why=why,
        hint=install_hint(),
    )


def summary() -> str:
    """Return which builders can be used here and which not, and why, in one line.

    Raises:
        ToolMissingError: None can.
    """
    found = list(candidates())
    usable = [f"{one.name} ({one.reason})" for one in found if one.make]
    missing = [f"{one.name} ({one.reason})" for one in found if not one.make]
    if not usable:
        raise ToolMissingError("; ".join(missing), argv=["build"], hint=install_hint())
    return f"{', then '.join(usable)}; not {', '.join(missing)}"


def install_hint() -> str:
    """Return what installs a builder on this distribution."""
    known = release()
    for family in (known.get("ID", ""), *known.get("ID_LIKE", "").split()):
        if family in _INSTALL:
            return f"{_INSTALL[family]}, as an administrator"
    return "install buildah, podman or BuildKit"


def release() -> dict[str, str]:
    """Return what ``/etc/os-release`` says; nothing where it is missing."""
    import platform

    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _buildctl() -> Candidate:
    program = find_program("buildctl")
    if not program:
        return Candidate(name="buildctl", make=None, reason="buildctl is not installed")
    from backend.build.buildkit import Buildctl

    address = os.environ.get("BUILDKIT_HOST") or next(
        (f"unix://{path}" for path in buildkit_sockets()), ""
    )
    if address:
        return Candidate(
            name="buildctl",
            make=lambda: Buildctl(program, address),
            reason=f"daemon at {address}",
        )
    daemon, kit = find_program("buildkitd"), find_program("rootlesskit")
    caller = read_caller(find_map_tools())
    if daemon and (caller.mode == "root" or (kit and caller.mode == "subordinate")):
        argv = (kit, daemon) if os.geteuid() else (daemon,)
        return Candidate(
            name="buildctl",
            make=lambda: Buildctl(program, "", daemon=argv),
            reason=f"starts {daemon}",
        )
    return Candidate(name="buildctl", make=None, reason=_no_daemon(daemon, kit))


def _no_daemon(daemon: str, kit: str) -> str:
    """Return why we start no BuildKit daemon."""
    if not daemon:
        return "no buildkitd runs, and there is none to start"
    return "rootlesskit has no subordinate ids" if kit else "rootlesskit is not installed"


def buildkit_sockets() -> list[str]:
    """Return where a BuildKit daemon usually listens, and we may speak to it."""
    found = [*_in_runtime_folder("buildkit/buildkitd.sock"), "/run/buildkit/buildkitd.sock"]
    return [path for path in found if os.access(path, os.R_OK | os.W_OK)]


def docker_sockets() -> list[str]:
    """Return where a daemon may listen, the one that the user names first."""
    named = [os.environ.get("DOCKER_HOST"), os.environ.get("CONTAINER_HOST")]
    return [
        *(host.removeprefix("unix://") for host in named if host and host.startswith("unix://")),
        "/var/run/docker.sock",
        *_in_runtime_folder("docker.sock"),
    ]


def podman_sockets() -> list[str]:
    """Return where Podman's service listens."""
    return ["/run/podman/podman.sock", *_in_runtime_folder("podman/podman.sock")]


def _in_runtime_folder(name: str) -> list[str]:
    folder = os.environ.get("XDG_RUNTIME_DIR")
    return [f"{folder}/{name}"] if folder else []


def answers(path: str) -> DockerApi | None:
    """Return the daemon behind a socket; None when none answers."""
    if not os.path.exists(path):
        return None
    from backend.build import docker

    return docker.answers(path)


def _buildx() -> Candidate:
    program = find_program("docker")
    if not program:
        return Candidate(name="buildx", make=None, reason="docker is not installed")
    from backend.build.buildx import find_buildx

    make, reason = find_buildx(program)
    return Candidate(name="buildx", make=make, reason=reason)


def _given(builder: Builder) -> Callable[[], Builder]:
    return lambda: builder


def _program(name: str) -> Candidate:
    path = find_program(name)

    def make() -> Builder:
        from backend.build.buildah import Buildah

        return Buildah(name)

    return Candidate(name=name, make=make if path else None, reason=path or "not installed")


def _socket(paths: Sequence[str]) -> Candidate:
    for path in paths:
        daemon = answers(path)
        if daemon:
            return Candidate(name="docker", make=_given(daemon), reason=str(daemon))
    return Candidate(name="docker", make=None, reason=f"no daemon answers at {paths[0]}")
