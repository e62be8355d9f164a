"""What this host can and cannot do for containers, found out by doing it.

Each probe runs in a child, so that nothing changes for the caller, and all run at once: the
examination takes as long as the slowest.  A finding says what follows and what would help;
messages of the runtime name ``sifdeck doctor``, where they are spelt out.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from backend.errors import BackendError
from backend.escape import one_line
from backend.paths import cache_home
from backend.runtime import host, kernel, namespaces
from backend.runtime.identity import MIN_SUBORDINATE, Caller, User, identify, read_caller

if TYPE_CHECKING:
    from collections.abc import Callable

State = Literal["ok", "limited", "missing"]

_LIMIT = 4096
"""Bytes of what a probe has to say."""
_SLOW_S = 5.0
"""Seconds after which a program that only prints its version has hung."""
_OLD_CRUN = (1, 8, 7)
"""The first version that copies the size of the terminal."""
_LIMITING = frozenset({"cpu", "cpuset", "memory", "pids", "io", "blkio"})
"""Controllers of cgroups that limits are made with."""
_ROOMY = 2 << 30
"""Bytes that a cache should have free: a large image, unpacked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is known of one thing.

    Attributes:
        key: Names it for programs.
        title: Names it for people.
        state: ``limited`` means that we go on without, ``missing`` that something cannot be done.
        found: What there is.
        follows: What it means here; empty when all is well.
        fix: The command or step that helps; empty when none is needed or known.
        who: Who can do that: ``you`` or ``administrator``.
    """

    key: str
    title: str
    state: State
    found: str
    follows: str = ""
    fix: str = ""
    who: Literal["", "you", "administrator"] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probe:
    """One question: how it is tried, and what a failure means.

    ``work`` returns what it found and raises OSError or BackendError when it fails.
    """

    key: str
    title: str
    work: Callable[[], str]
    state: State
    follows: str
    fix: str
    who: Literal["", "you", "administrator"] = "administrator"


def examine() -> tuple[Finding, ...]:
    """Try everything and return the findings, most fundamental first."""
    caller = read_caller(host.find_map_tools() if os.getuid() else ())
    probes = _probes(caller)
    # The last ones run other programs and take longest, so they start first.
    running = {probe.key: _start(probe.work) for probe in reversed(probes)}
    return tuple(_collect(probe, *running[probe.key]) for probe in probes)


def _start(work: Callable[[], str]) -> tuple[int, int]:
    """Try something in a child; return its pid and where its answer can be read."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, _answer(work).encode("utf-8", "replace")[:_LIMIT])
        finally:
            os._exit(0)
    os.close(writing)
    return pid, reading


def _answer(work: Callable[[], str]) -> str:
    """Return ``+`` and what was found, ``~`` and what is limited, or ``-`` and what failed."""
    try:
        return f"+{work()}"
    except _Limited as error:
        return f"~{error}"
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "?")
        return f"-{error.filename or 'it'}: {name} ({error.strerror})"
    except (BackendError, namespaces.MapRefusedError, subprocess.SubprocessError) as error:
        return f"-{error}"


class _Limited(Exception):  # noqa: N818  (never leaves this module; no failure)
    """A probe found something that works in part; the text says how."""


def _collect(probe: _Probe, pid: int, reading: int) -> Finding:
    with open(reading, encoding="utf-8", errors="replace") as pipe:
        answer = pipe.read(_LIMIT) or "-the probe died"
    os.waitpid(pid, 0)
    found = one_line(answer[1:].strip())
    if answer[0] == "+":
        return Finding(key=probe.key, title=probe.title, state="ok", found=found)
    return Finding(
        key=probe.key,
        title=probe.title,
        state="limited" if answer[0] == "~" else probe.state,
        found=found,
        follows=probe.follows,
        fix=probe.fix,
        who=probe.who,
    )


def _probes(caller: Caller) -> list[_Probe]:
    return [*_kernel_probes(caller), *_id_probes(caller), *_program_probes(), *_place_probes()]


def _kernel_probes(caller: Caller) -> list[_Probe]:
    return [
        _Probe(
            key="user-namespace",
            title="User namespaces",
            work=lambda: _in_namespace(caller, lambda: "an ordinary user gets one"),
            state="missing",
            follows="no container can be started without root",
            fix=_namespace_fix(),
        ),
        _Probe(
            key="mount",
            title="Mounting in a namespace",
            work=lambda: _in_namespace(caller, _try_tmpfs),
            state="missing",
            follows="no container can be started",
            fix="let this program have a user namespace with capabilities (AppArmor, SELinux)",
        ),
        _Probe(
            key="proc",
            title="A /proc of its own",
            work=lambda: _in_namespace(caller, _try_proc),
            state="limited",
            follows="containers see the processes of this host (--no-pid), as inside a container",
            fix="start the outer container with an unmasked /proc",
        ),
        _Probe(
            key="overlay",
            title="Kernel overlay",
            work=lambda: _in_namespace(caller, _try_overlay),
            state="limited",
            follows="changes go to disk (TMPDIR) or through fuse-overlayfs, which is slower",
            fix="Linux 6.6 or later; or apt install fuse-overlayfs",
        ),
        _Probe(
            key="fuse",
            title="FUSE",
            work=lambda: _in_namespace(caller, _try_fuse),
            state="limited",
            follows="images are unpacked into the cache before their first start",
            fix="modprobe fuse && chmod 666 /dev/fuse",
        ),
        _Probe(
            key="seccomp",
            title="System call filter",
            work=_try_seccomp,
            state="missing",
            follows="containers start with --security seccomp:unconfined only",
            fix="a kernel with CONFIG_SECCOMP_FILTER",
        ),
        _Probe(
            key="cgroups",
            title="Cgroups",
            work=_look_at_cgroups,
            state="limited",
            follows="--memory, --cpus and the like are refused",
            fix="a session with a delegated cgroup: systemd-run --user --scope, or a batch job",
            who="you",
        ),
    ]


def _id_probes(caller: Caller) -> list[_Probe]:
    name = caller.name
    return [
        _Probe(
            key="subordinate-ids",
            title="Subordinate ids",
            work=lambda: _try_map(caller),
            state="limited",
            follows=(
                "every file in a container belongs to one user; "
                "su, chown to others and package managers that need them fail"
            ),
            fix=(
                f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"
                " && apt install uidmap"
            ),
        ),
        _Probe(
            key="privileges",
            title="New privileges",
            work=_look_at_privileges,
            state="limited",
            follows="newuidmap has no effect, so there is one id only",
            fix="start this program outside of a service with NoNewPrivileges",
            who="you",
        ),
    ]


def _program_probes() -> list[_Probe]:
    install = "apt install {0}, dnf install {0}"
    return [
        _Probe(
            key="crun",
            title="crun",
            work=_look_at_crun,
            state="limited",
            follows="runc or the built-in runtime starts containers",
            fix=install.format("crun"),
        ),
        _Probe(
            key="runc",
            title="runc",
            work=lambda: _version("runc", "--version"),
            state="limited",
            follows="--runtime runc is not there; crun or the built-in one is used",
            fix=install.format("runc"),
        ),
        _Probe(
            key="build",
            title="builders",
            work=_look_at_builders,
            state="limited",
            follows="sifdeck build has nobody to do the work",
            fix=install.format("buildah"),
        ),
        *(
            _Probe(
                key=key,
                title=key,
                work=lambda names=names: _need(*names),  # type: ignore[misc]  # mypy#12557
                state="limited",
                follows=follows,
                fix=install.format(package),
            )
            for key, names, follows, package in (
                (
                    "squashfuse",
                    ("squashfuse_ll", "squashfuse"),
                    "images are unpacked into the cache before their first start",
                    "squashfuse",
                ),
                (
                    "fuse-overlayfs",
                    ("fuse-overlayfs",),
                    "needed on old kernels and for ext3 overlays only",
                    "fuse-overlayfs",
                ),
                ("fuse2fs", ("fuse2fs",), "ext3 overlays cannot be mounted", "fuse2fs"),
                (
                    "network",
                    ("pasta", "slirp4netns"),
                    "--net is refused, but for --network none",
                    "passt",
                ),
            )
        ),
    ]


def _place_probes() -> list[_Probe]:
    return [
        _Probe(
            key="cache",
            title="Cache",
            work=_look_at_cache,
            state="missing",
            follows="nothing can be pulled or unpacked",
            fix="make room, or name another folder: SIFDECK_CACHE_DIR",
            who="you",
        ),
        _Probe(
            key="runtime-folder",
            title="Runtime folder",
            work=_look_at_runtime_folder,
            state="limited",
            follows="records of containers in the background are kept in /tmp",
            fix="log in by a way that sets XDG_RUNTIME_DIR (loginctl enable-linger)",
            who="you",
        ),
    ]


# -- tried in a child ------------------------------------------------------------------------


def _in_namespace(caller: Caller, work: Callable[[], str]) -> str:
    """Do ``work`` in a mount namespace, and as a user in a user namespace of one id."""
    if caller.uid == 0:
        kernel.unshare(kernel.CLONE_NEWNS, "mount namespace")
    else:
        ids = ((0, caller.uid, 1),), ((0, caller.gid, 1),)
        namespaces.enter_user(*ids, (), kernel.CLONE_NEWNS)
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_SLAVE)
    return work()


def _scratch() -> str:
    """Mount an empty file system on a folder that every host has, and return the folder."""
    kernel.mount("sifdeck", "/tmp", "tmpfs", kernel.MS_NODEV)  # noqa: S108
    return "/tmp"  # noqa: S108


def _try_tmpfs() -> str:
    _scratch()
    return "tmpfs can be mounted"


def _try_proc() -> str:
    kernel.unshare(kernel.CLONE_NEWPID, "pid namespace")
    pid = os.fork()
    if pid == 0:
        try:
            kernel.mount("proc", "/proc", "proc")
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise OSError(status, os.strerror(status), "mount proc")
    return "proc can be mounted in a pid namespace"


def _try_overlay() -> str:
    folder = _scratch()
    for name in ("lower/x/y", "upper", "work", "merged"):
        os.makedirs(f"{folder}/{name}")  # noqa: PTH103
    options = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work,userxattr"
    kernel.mount("overlay", f"{folder}/merged", "overlay", kernel.MS_NODEV, options)
    # What old kernels cannot do on tmpfs: remove a folder of the lower layer.
    os.rmdir(f"{folder}/merged/x/y")  # noqa: PTH106
    os.rmdir(f"{folder}/merged/x")  # noqa: PTH106
    return "on tmpfs, with removal of folders"


def _try_fuse() -> str:
    device = os.open("/dev/fuse", os.O_RDWR)
    folder = _scratch()
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    kernel.mount("sifdeck", folder, "fuse.probe", kernel.MS_RDONLY | kernel.MS_NODEV, options)
    return "can be mounted without a setuid helper"


def _try_seccomp() -> str:
    from backend.runtime.bpf import compile_filter
    from backend.runtime.seccomp import default_profile

    code = compile_filter(default_profile(frozenset()))
    kernel.forbid_new_privileges()
    kernel.install_filter(code)
    return "the default filter can be installed"


def _try_map(caller: Caller) -> str:
    if caller.uid == 0:
        return "root needs none"
    identity = identify(caller, User(uid=0, gid=0))
    if identity.mode == "single":
        raise OSError(errno.ENOENT, _why_single(caller), f"65536 ids for {caller.name}")
    namespaces.enter_user(identity.uids, identity.gids, caller.map_tools, 0)
    count = sum(entry[2] for entry in identity.uids)
    return f"{count} ids can be mapped"


def _why_single(caller: Caller) -> str:
    if not caller.map_tools:
        return "newuidmap and newgidmap are not installed, or have no privilege"
    return f"no range of {MIN_SUBORDINATE} in /etc/subuid and /etc/subgid"


# -- looked at -------------------------------------------------------------------------------


def _namespace_fix() -> str:
    """Return what switches user namespaces on, by what switches them off here."""
    if _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        return "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile"
    if _read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        return "sysctl kernel.unprivileged_userns_clone=1"
    return "sysctl user.max_user_namespaces=15000; in Docker: --security-opt seccomp=unconfined"


def _look_at_privileges() -> str:
    if host.no_new_privileges():
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), "no_new_privs is set")
    return "setuid programs have an effect"


def _look_at_cgroups() -> str:
    from backend.runtime.cgroups import find_hierarchies
    from backend.runtime.limits import find_scope

    if scope := find_scope():
        return f"a scope of systemd, by {scope[0]}"
    usable = []
    refused = OSError(errno.ENOENT, "no cgroup controllers are delegated to you")
    for hierarchy in find_hierarchies():
        try:
            hierarchy.check()
        except OSError as error:
            refused = error
        else:
            usable += sorted(hierarchy.controllers & _LIMITING)
    if not usable:
        raise refused
    return f"{' '.join(usable)}"


def _look_at_crun() -> str:
    text = _version("crun", "--version")
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    if match and tuple(int(part or 0) for part in match.groups()) < _OLD_CRUN:
        return f"{text}; older than 1.8.7, so we copy the terminal's size for it"
    return text


def _look_at_builders() -> str:
    from backend.build.detect import summary

    return summary()


def _version(name: str, option: str) -> str:
    path = _need(name)
    done = subprocess.run(
        [path, option], capture_output=True, text=True, timeout=_SLOW_S, check=True
    )
    return f"{path} ({done.stdout.partition(chr(10))[0][:80]})"


def _need(*names: str) -> str:
    path = host.find_program(*names)
    if not path:
        raise OSError(errno.ENOENT, "not installed", " or ".join(names))
    return path


def _look_at_cache() -> str:
    folder = cache_home()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not os.access(folder, os.W_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    free = shutil.disk_usage(folder).free
    if free < _ROOMY:
        raise _Limited(f"{free >> 20} MiB free in {folder}")
    return f"{free >> 30} GiB free in {folder}"


def _look_at_runtime_folder() -> str:
    folder = os.environ.get("XDG_RUNTIME_DIR", "")
    if not folder or not os.access(folder, os.W_OK):
        raise OSError(errno.ENOENT, "unset or not writable", "XDG_RUNTIME_DIR")
    return folder


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read(_LIMIT).strip()
    except OSError:
        return ""


# -- told ------------------------------------------------------------------------------------


def findings_json(findings: tuple[Finding, ...]) -> str:
    """Return the findings as one JSON array."""
    return json.dumps([asdict(finding) for finding in findings], indent=2)


def findings_text(findings: tuple[Finding, ...]) -> str:
    """Return the findings as lines for a person."""
    marks = {"ok": "ok", "limited": "limited", "missing": "MISSING"}
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.state]:8} {finding.title:24} {finding.found}")
        if finding.follows:
            lines.append(f"{'':33} -> {finding.follows}")
        if finding.fix:
            lines.append(f"{'':33} fix ({finding.who}): {finding.fix}")
    return "\n".join(lines)


def support_report(findings: tuple[Finding, ...]) -> str:
    """Return a report to paste: versions, findings, names of options in the environment.

    It holds no value of the environment, and neither the user's name nor their home.
    """
    import platform

    from backend.settings import PREFIXES
    from backend.version import __version__

    release = dict(
        line.split("=", 1) for line in _read("/etc/os-release").splitlines() if "=" in line
    )
    names = sorted(name for name in os.environ if name.startswith(PREFIXES))
    lines = [
        f"sifdeck {__version__}, Python {platform.python_version()}",
        f"{release.get('PRETTY_NAME', 'Linux').strip(chr(34))}, kernel {platform.release()}",
        f"{platform.machine()}, {os.cpu_count()} processors, {host.memory_limit() >> 20} MiB",
        f"started as {'root' if os.getuid() == 0 else 'an ordinary user'}",
        f"variables set: {' '.join(names) or 'none'}",
        "",
        findings_text(findings),
    ]
    return _without_names("\n".join(lines))


def _without_names(text: str) -> str:
    caller = read_caller(())
    for home in {os.path.expanduser("~"), caller.home} - {"/", ""}:  # noqa: PTH111
        text = text.replace(home, "~")
    if caller.uid:
        text = re.sub(rf"\b{re.escape(caller.name)}\b", "USER", text)
    return text
