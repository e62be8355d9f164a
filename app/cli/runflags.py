"""The options of ``run``, ``exec`` and ``shell``: one table, and what it means.

A table, because two parsers read it: click for help and errors, and :func:`parse_plainly`,
which lets an ordinary start of a container do without loading click.
"""

from __future__ import annotations

import os

from backend.values import Value

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal

    from backend.runtime.options import Action, Limits, RunOptions, Unpack

Flags = dict[str, bool | str | tuple[str, ...]]
"""By destination: a switch's state, a text (empty when not given), or a list's entries."""


class Option(Value):
    """One option.

    Attributes:
        names: As typed, the long one first.
        kind: A ``switch``, one ``text``, or a ``list`` that grows with each use.
        help: What it does.
        metavar: What its value is.
        variable: Names of the environment variables without their prefix; empty for none.
    """

    names: tuple[str, ...]
    kind: Literal["switch", "text", "list"]
    help: str
    metavar: str = ""
    variable: str = ""

    @property
    def dest(self) -> str:
        """The key of its value in :data:`Flags`."""
        return self.names[0].lstrip("-").replace("-", "_")

    @property
    def is_accepted(self) -> bool:
        """Whether it asks for what is so anyway."""
        return self.help.startswith("Accepted")


def _switch(names: str, text: str, variable: str = "") -> Option:
    return Option(names=tuple(names.split()), kind="switch", help=text, variable=variable)


def _text(names: str, metavar: str, text: str, variable: str = "") -> Option:
    words = tuple(names.split())
    return Option(names=words, kind="text", help=text, metavar=metavar, variable=variable)


def _list(names: str, metavar: str, text: str, variable: str = "") -> Option:
    words = tuple(names.split())
    return Option(names=words, kind="list", help=text, metavar=metavar, variable=variable)


OPTIONS = (
    _text("--profile", "NAME", "Also the flags of this name in config.toml."),
    _text("--runtime", "NAME|PATH", "crun, runc, builtin, or the path of one.", "RUNTIME"),
    _list("--bind -B", "SRC[:DST[:ro]]", "Show a file or folder of the host.", "BIND BINDPATH"),
    _list("--mount", "type=bind,source=SRC,destination=DST[,ro]", "The same, spelt out.", "MOUNT"),
    _list("--data", "FILE:DEST", "Show the content of a data container."),
    _list(
        "--overlay -o",
        "PATH[:ro]",
        "Lay a folder, squashfs or ext3 over it.",
        "OVERLAY OVERLAYIMAGE",
    ),
    _switch("--writable -w", "Change the image's own overlay.", "WRITABLE"),
    _switch("--writable-tmpfs", "Keep changes in memory; the default.", "WRITABLE_TMPFS"),
    _text("--home -H", "[SRC:]DEST", "Another home, empty or from the host.", "HOME"),
    _switch("--no-home", "Make no home.", "NO_HOME"),
    _text("--workdir -W", "DIR", "Host folder for /tmp, /var/tmp and scratch.", "WORKDIR"),
    _list("--scratch -S", "DIR", "A folder that begins empty.", "SCRATCH SCRATCHDIR"),
    _list("--no-mount", "NAME|PATH", "Leave out a mount: tmp, proc, sys, home, ...", "NO_MOUNT"),
    _list("--env", "NAME=VALUE", "Set a variable."),
    _list("--env-file", "FILE", "Set the variables of a file.", "ENV_FILE"),
    _switch("--cleanenv -e", "Take nothing from the host's environment.", "CLEANENV"),
    _text("--cwd --pwd", "DIR", "Begin in this folder of the container.", "CWD TARGET_CWD"),
    _text("--user", "UID|NAME[:GROUP]", "Be this user of the image, not its USER."),
    _switch("--fakeroot -f", "Be root in the container.", "FAKEROOT"),
    _switch("--keep-groups --no-setgroups", "Keep the host's groups.", "NO_SETGROUPS"),
    _list("--add-caps", "CAP", "Give capabilities.", "ADD_CAPS"),
    _list("--drop-caps", "CAP", "Take capabilities away.", "DROP_CAPS"),
    _switch("--keep-privs", "Keep every capability.", "KEEP_PRIVS"),
    _switch("--no-privs", "Have no capability, and gain none.", "NO_PRIVS"),
    _switch("--allow-setuid", "Honour setuid programs in binds.", "ALLOW_SETUID"),
    _list("--security", "seccomp:FILE", "Another system call filter, or seccomp:unconfined."),
    _switch("--no-umask", "Do not take over the host's umask.", "NO_UMASK"),
    _switch("--no-compat", "Show the host's home, /tmp, folder and environment.", "NO_COMPAT"),
    _text("--app", "NAME", "Run an app of the image (SCIF).", "APPNAME"),
    _text("--hostname", "NAME", "A host name of its own.", "HOSTNAME"),
    _text("--dns", "ADDRESS[,...]", "Name servers.", "DNS"),
    _switch("--no-pid", "See the host's processes.", "NO_PID"),
    _switch("--net -n", "A network of its own.", "NET"),
    _text("--network", "none|private", "What --net gives; also pasta, slirp4netns.", "NETWORK"),
    _list("--publish -p", "HOST:CONTAINER", "Show a port of a private network on the host."),
    _switch("--nv", "Give NVIDIA's devices and libraries.", "NV"),
    _switch("--rocm", "Give AMD's devices and libraries.", "ROCM"),
    _switch("--no-nv", "Not, whatever SIFDECK_NV says."),
    _switch("--no-rocm", "Not, whatever SIFDECK_ROCM says."),
    _list("--containlibs", "PATH[,...]", "Give libraries of the host.", "CONTAINLIBS"),
    _list("--device", "VENDOR/CLASS=NAME|/dev/X", "Give a device, by CDI or path.", "DEVICE"),
    _list("--cdi-dirs", "DIR", "Where CDI files are.", "CDI_DIRS"),
    _text("--cpus", "N", "Processors' worth of time.", "CPUS"),
    _text("--cpu-shares", "N", "Weight against others.", "CPU_SHARES"),
    _text("--cpuset-cpus", "LIST", "Processors, such as 0-3,8.", "CPUSET_CPUS"),
    _text("--cpuset-mems", "LIST", "Memory nodes.", "CPUSET_MEMS"),
    _text("--memory", "SIZE", "Memory, such as 2g.", "MEMORY"),
    _text("--memory-reservation", "SIZE", "Memory that is not taken back.", "MEMORY_RESERVATION"),
    _text("--memory-swap", "SIZE", "Memory and swap together.", "MEMORY_SWAP"),
    _text("--pids-limit", "N", "Processes.", "PIDS_LIMIT"),
    _text("--blkio-weight", "N", "Weight of its disk traffic, 10 to 1000.", "BLKIO_WEIGHT"),
    _list("--blkio-weight-device", "DEVICE:WEIGHT", "The same for one device.", "BLKIO_DEVICE"),
    _switch("--oom-kill-disable", "Let programs wait for memory, not die.", "OOM_KILL_DISABLE"),
    _text("--apply-cgroups", "FILE", "Limits in a TOML file, as SingularityCE's.", "APPLY_CGROUPS"),
    _switch("--detach -d", "Run in the background and print the name."),
    _text("--name", "NAME", "Of a container in the background."),
    _switch("--tty -t", "With --detach: a terminal, for attach."),
    _switch("--interactive -i", "With --detach: keep its input open, for attach."),
    _switch("--no-https", "Talk HTTP to the registry.", "NO_HTTPS"),
    _text("--authfile", "FILE", "Look for registry logins in this file first."),
    _text("--ca-cert", "FILE", "Trust the authorities in this PEM file too."),
    _switch("--insecure", "Accept any certificate.  Dangerous."),
    _switch("--offline", "Ask no registry: the image is in the cache.", "OFFLINE"),
    _switch("--oci", "Accepted: the default."),
    _switch("--userns -u", "Accepted: an ordinary user has one anyway."),
    _switch("--no-eval", "Accepted: variables are never evaluated."),
    _switch("--tmp-sandbox", "Unpack the image, even where it could be mounted.", "TMP_SANDBOX"),
    _switch("--no-tmp-sandbox", "Mount the image, or fail.", "NO_TMP_SANDBOX"),
    _switch("--uts", "A host name of its own, which --hostname implies."),
    _switch("--ipc", "Accepted: every container has its own."),
    _switch("--pid", "Accepted: every container has its own."),
    _switch("--compat", "Accepted: the default."),
)


def blank() -> Flags:
    """Return the state in which nothing was given."""
    empty: dict[str, bool | str | tuple[str, ...]] = {"switch": False, "text": "", "list": ()}
    return {option.dest: empty[option.kind] for option in OPTIONS}


def parse_plainly(arguments: Sequence[str]) -> tuple[Flags, list[str]] | None:
    """Parse options up to the first word that is none; None where click should have a look.

    Args:
        arguments: What follows the verb.

    Returns:
        The flags, and the image with what follows it.
    """
    known = {name: option for option in OPTIONS for name in option.names}
    flags = blank()
    waiting = list(arguments)
    while waiting and waiting[0].startswith("-"):
        name, equals, value = waiting.pop(0).partition("=")
        option = known.get(name)
        if option is None or (equals and option.kind == "switch"):
            return None
        if option.kind == "switch":
            flags[option.dest] = True
            continue
        if not equals:
            if not waiting:
                return None
            value = waiting.pop(0)
        before = flags[option.dest]
        flags[option.dest] = (*before, value) if isinstance(before, tuple) else value
    return (flags, waiting) if waiting else None


class _Reader:
    """Flags, with the environment behind them."""

    def __init__(self, flags: Flags) -> None:
        self._flags = flags
        self._variables = {option.dest: option.variable for option in OPTIONS}

    def is_on(self, dest: str) -> bool:
        from backend import settings

        return bool(self._flags[dest]) or any(map(settings.flag, self._variables[dest].split()))

    def text(self, dest: str) -> str:
        return str(self._flags[dest]) or next(iter(self._from_environment(dest)), "")

    def entries(self, dest: str) -> tuple[str, ...]:
        given = self._flags[dest]
        return (*(given if isinstance(given, tuple) else ()), *self._from_environment(dest))

    def words(self, dest: str) -> tuple[str, ...]:
        """Return the entries of a list whose entries may be separated by commas."""
        return tuple(word for text in self.entries(dest) for word in text.split(",") if word)

    def _from_environment(self, dest: str) -> list[str]:
        from backend import settings

        found = [settings.variable(name) for name in self._variables[dest].split()]
        return [value for value in found if value]


def _check(read: _Reader) -> None:
    """Refuse what we cannot give."""
    from backend.errors import UsageError

    if read.is_on("userns") and os.geteuid() == 0:  # its containers share the host's
        raise UsageError(
            "--userns cannot be honoured for root",
            hint="run it as an ordinary user, or inside: unshare -r",
        )
    if read.text("name") and not read.is_on("detach"):
        raise UsageError("--name is for a container in the background", hint="add --detach")


def interpret(action: Action, arguments: tuple[str, ...], flags: Flags) -> RunOptions:
    """Return what the flags and the environment ask for.

    Raises:
        UsageError: Something that makes no sense.
    """
    from backend.runtime import mounts, options

    read = _Reader(flags)
    _check(read)
    files = [pair for file in read.words("env_file") for pair in _env_file(file)]
    compat = not read.is_on("no_compat")
    return options.RunOptions(
        action=action,
        arguments=arguments,
        runtime=read.text("runtime"),
        app=read.text("app"),
        detach=bool(flags["detach"]),
        terminal=bool(flags["tty"]),
        keep_input=bool(flags["interactive"]),
        compat=compat,
        binds=(
            *options.parse_binds(read.entries("bind")),
            *options.parse_data(read.entries("data")),
            *options.parse_mounts(read.entries("mount")),
        ),
        overlays=options.parse_overlays(read.words("overlay")),
        home=mounts.check_home(read.text("home")),
        no_home=read.is_on("no_home"),
        workdir=_existing(read.text("workdir")),
        scratch=tuple(options.check_absolute(p, "--scratch") for p in read.words("scratch")),
        writable=read.is_on("writable"),
        writable_tmpfs=read.is_on("writable_tmpfs"),
        no_mount=options.parse_no_mount(read.entries("no_mount")),
        environment=(
            *files,
            *options.parse_environment(options.split_environment(read.entries("env"))),
        ),
        clean_environment=read.is_on("cleanenv"),
        working_dir=options.check_absolute(read.text("cwd"), "--cwd"),
        user=options.check_user(read.text("user")),
        fakeroot=read.is_on("fakeroot"),
        keep_groups=read.is_on("keep_groups"),
        add_caps=options.parse_capabilities(read.entries("add_caps")),
        drop_caps=options.parse_capabilities(read.entries("drop_caps")),
        keep_privs=read.is_on("keep_privs"),
        no_privs=read.is_on("no_privs"),
        allow_setuid=read.is_on("allow_setuid"),
        seccomp=_seccomp(read.entries("security")),
        umask=None if compat or read.is_on("no_umask") else _umask(),
        hostname=options.check_hostname(read.text("hostname"), own=read.is_on("uts")),
        dns=options.check_dns(read.text("dns")),
        share_pids=read.is_on("no_pid"),
        network=options.choose_network(read.text("network"), own=read.is_on("net")),
        publish=options.parse_publish(read.entries("publish")),
        devices=read.words("device"),
        cdi_folders=read.words("cdi_dirs"),
        gpu=frozenset(
            name for name in ("nv", "rocm") if read.is_on(name) and not read.is_on(f"no_{name}")
        ),
        libraries=options.check_libraries(read.words("containlibs")),
        unpack=_unpack(read),
        limits=_limits(read),
    )


def _env_file(path: str) -> tuple[tuple[str, str], ...]:
    from backend.runtime.envfile import read_env_file

    return read_env_file(path)


def _unpack(read: _Reader) -> Unpack:
    if read.is_on("tmp_sandbox"):
        return "always"
    return "never" if read.is_on("no_tmp_sandbox") else "if needed"


def _existing(folder: str) -> str:
    from backend.errors import UsageError
    from backend.escape import quoted

    if folder and not os.path.isdir(folder):
        raise UsageError(f"no such folder for --workdir: {quoted(folder)}")
    return os.path.realpath(folder) if folder else ""


def _seccomp(entries: tuple[str, ...]) -> str:
    from backend.errors import UsageError
    from backend.escape import quoted

    for entry in entries:
        kind, _, value = entry.partition(":")
        if kind != "seccomp" or not value:
            raise UsageError(f"--security cannot do {quoted(entry)}", hint="it takes seccomp:FILE")
        return value
    return "default"


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _limits(read: _Reader) -> Limits:
    from backend.runtime import options

    def size(dest: str) -> int | None:
        text = read.text(dest)
        return options.parse_size(text) if text else None

    def number(dest: str, low: int, high: int) -> int | None:
        text = read.text(dest)
        return int(options.check_number(text, f"--{dest}", low, high)) if text else None

    cpus, file = read.text("cpus"), read.text("apply_cgroups")
    given: dict[str, Any] = {
        "cpus": options.check_number(cpus, "--cpus", 0.01, os.cpu_count() or 1) if cpus else None,
        "cpu_shares": number("cpu_shares", 2, 262144),
        "cpuset_cpus": read.text("cpuset_cpus"),
        "cpuset_mems": read.text("cpuset_mems"),
        "memory": size("memory"),
        "memory_reservation": size("memory_reservation"),
        "memory_swap": size("memory_swap"),
        "oom_kill_disable": read.is_on("oom_kill_disable"),
        "pids": number("pids_limit", -1, 1 << 22),
        "blkio_weight": number("blkio_weight", 10, 1000),
    }
    present = {name: value for name, value in given.items() if value}
    weights = read.entries("blkio_weight_device")
    if not file and not weights:
        return options.Limits(**present)
    from backend.runtime.limits import parse_device_weights, read_limits

    from_file = read_limits(file) if file else {}
    return options.Limits(**from_file | present | {"blkio_devices": parse_device_weights(weights)})
