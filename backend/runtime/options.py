"""What a user may ask of ``run``, ``exec`` and ``shell``, parsed and checked."""

from __future__ import annotations

import os

from backend.errors import UsageError
from backend.escape import quoted
from backend.values import Value, replace

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from typing import Literal

    Action = Literal["run", "exec", "shell"]
    Unpack = Literal["if needed", "always", "never"]
    Network = Literal["host", "none", "private", "pasta", "slirp4netns"]

NO_MOUNT = frozenset({"proc", "sys", "dev", "tmp", "home", "cwd", "hostfs", "bind-paths"})
"""Names that --no-mount takes, besides paths; ``dev`` is the host's, which --no-compat shows."""

_HOSTNAME = r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62}[A-Za-z0-9])?"
_SIZE = r"([0-9]+)([bkmgt]?)i?b?"
_BIND_OPTIONS = frozenset({"ro", "rw"})


class Bind(Value):
    """A host file or folder shown in the container.

    Attributes:
        source: Absolute path on the host.
        target: Absolute path in the container.
        read_only: Whether the container may only read it.
        is_image: The source is a squashfs or a data container, whose content is shown.
    """

    source: str
    target: str
    read_only: bool = False
    is_image: bool = False


class Overlay(Value):
    """A layer over the image.

    Attributes:
        source: Absolute path of a folder, or of a file with squashfs or ext3.
        read_only: Whether changes go elsewhere; squashfs always is.
    """

    source: str
    read_only: bool = False


class Publish(Value):
    """A port of a private network that the host shows.

    Attributes:
        host: Port on the host.
        container: Port in the container.
        protocol: Of both.
        address: Of the host; empty for all.
    """

    host: int
    container: int
    protocol: Literal["tcp", "udp"] = "tcp"
    address: str = ""


class Limits(Value):
    """What a container may use, as far as its cgroup can hold it to that; None for no limit.

    Attributes:
        cpus: Processors' worth of time.
        cpu_shares: Weight, 2 to 262144.
        cpuset_cpus: Such as ``0-3,8``.
        cpuset_mems: Memory nodes.
        memory: Bytes.
        memory_reservation: Bytes.
        memory_swap: Bytes of memory and swap together; -1 for no limit.
        oom_kill_disable: Let programs wait for memory instead of being killed.
        pids: Processes; 0 and -1 for no limit.
        blkio_weight: 10 to 1000.
        blkio_devices: ``MAJOR:MINOR WEIGHT``, the same for one device.
        unified: Other files of cgroup version 2, by name.
    """

    cpus: float | None = None
    cpu_shares: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    memory: int | None = None
    memory_reservation: int | None = None
    memory_swap: int | None = None
    oom_kill_disable: bool = False
    pids: int | None = None
    blkio_weight: int | None = None
    blkio_devices: tuple[str, ...] = ()
    unified: tuple[tuple[str, str], ...] = ()


class RunOptions(Value):
    """How to start a container.

    Attributes:
        action: ``run`` takes the image's entrypoint, ``exec`` the arguments only.
        arguments: After the image on the command line.
        runtime: ``crun``, ``runc``, ``builtin`` or a path; empty to choose.
        app: The SCIF app to run; empty for none.
        detach: Run in the background.
        terminal: Have a terminal, in the background too.
        keep_input: Leave the input open, in the background.
        compat: Behave like Docker; else show the host's home, /tmp and folder, as native
            SingularityCE does.

        binds: Later ones cover earlier ones.
        overlays: The first one is on top.
        home: ``[SRC:]DEST``; empty for the user's.
        no_home: Make no home.
        workdir: Host folder for /tmp, /var/tmp and scratch folders; empty for memory.
        scratch: Folders that begin empty.
        writable: Changes go into the image's own overlay.
        writable_tmpfs: Changes go to memory; matters without ``compat`` only.
        no_mount: Names of mounts (``tmp``, ``proc`` ...) or absolute paths to leave out.

        environment: Set in the container over the image's, in order.
        clean_environment: Take nothing of the host's environment but the terminal's type.
        working_dir: Absolute path in the container; empty for the image's.

        user: ``UID|name[:GID|group]``; empty for the image's ``USER``.
        fakeroot: Be root in the container.
        keep_groups: Keep the host's supplementary groups.
        add_caps: Capabilities, as ``CAP_X``.
        drop_caps: Capabilities, as ``CAP_X``.
        keep_privs: Keep every capability.
        no_privs: Have no capability, and gain none.
        allow_setuid: Let setuid programs of binds be so.
        seccomp: ``default``, ``unconfined`` or the path of a profile.
        umask: Of the process; None for 0022.

        hostname: Empty for the host's.
        dns: Addresses of name servers; none for the host's file.
        share_pids: See the host's processes.
        network: ``host``, ``none``, ``private``, or a private one by the program that connects it.
        publish: Ports of a private network.
        devices: CDI names, or paths of device nodes.
        cdi_folders: Where CDI files are; none for the usual places.
        gpu: ``nv`` and ``rocm`` as asked for.
        libraries: Absolute paths of files for the container's library path.
        unpack: Whether the image is unpacked instead of mounted.
        limits: See :class:`Limits`.
    """

    action: Action
    arguments: tuple[str, ...] = ()
    runtime: str = ""
    app: str = ""
    detach: bool = False
    terminal: bool = False
    keep_input: bool = False
    compat: bool = True

    binds: tuple[Bind, ...] = ()
    overlays: tuple[Overlay, ...] = ()
    home: str = ""
    no_home: bool = False
    workdir: str = ""
    scratch: tuple[str, ...] = ()
    writable: bool = False
    writable_tmpfs: bool = False
    no_mount: frozenset[str] = frozenset()

    environment: tuple[tuple[str, str], ...] = ()
    clean_environment: bool = False
    working_dir: str = ""

    user: str = ""
    fakeroot: bool = False
    keep_groups: bool = False
    add_caps: frozenset[str] = frozenset()
    drop_caps: frozenset[str] = frozenset()
    keep_privs: bool = False
    no_privs: bool = False
    allow_setuid: bool = False
    seccomp: str = "default"
    umask: int | None = None

    hostname: str = ""
    dns: tuple[str, ...] = ()
    share_pids: bool = False
    network: Network = "host"
    publish: tuple[Publish, ...] = ()
    devices: tuple[str, ...] = ()
    cdi_folders: tuple[str, ...] = ()
    gpu: frozenset[Literal["nv", "rocm"]] = frozenset()
    libraries: tuple[str, ...] = ()
    unpack: Unpack = "if needed"
    limits: Limits = Limits()

    @property
    def has_private_network(self) -> bool:
        """Whether the container has a network of its own that reaches the world."""
        return self.network not in {"host", "none"}


def parse_binds(texts: tuple[str, ...]) -> tuple[Bind, ...]:
    """Parse ``SRC[:DST[:ro|rw]]`` entries, each possibly several separated by commas.

    A backslash before a colon or comma takes it literally.

    Raises:
        UsageError: An entry has another form, or its source does not exist.
    """
    return tuple(_parse_bind(entry) for text in texts for entry in _split(text, ",") if entry)


def _parse_bind(text: str) -> Bind:
    fields = [_unescape(field) for field in _split(text, ":")]
    options = set(fields[2].split(",")) if len(fields) > 2 else set()
    if len(fields) > 3 or not fields[0] or not options <= _BIND_OPTIONS:
        raise UsageError(
            f"not a bind: {quoted(text, limit=120)}", hint="write it as SRC[:DST[:ro]]"
        )
    source = os.path.abspath(os.path.expanduser(fields[0]))
    target = fields[1] if len(fields) > 1 and fields[1] else source
    return check_bind(source, target, read_only="ro" in options)


def check_bind(source: str, target: str, *, read_only: bool) -> Bind:
    """Return the bind, if its source is there and its target absolute.

    Raises:
        UsageError: It is not.
    """
    if not target.startswith("/"):
        raise UsageError(f"a bind's place in the container is absolute, not {quoted(target)}")
    if not os.path.exists(source):
        raise UsageError(f"cannot bind {quoted(source)}: it does not exist on this host")
    return Bind(source=source, target=os.path.normpath(target), read_only=read_only)


def _split(text: str, separator: str) -> list[str]:
    """Split at separators that no backslash precedes; backslashes stay."""
    parts: list[str] = []
    for part in text.split(separator):
        if parts and parts[-1].endswith("\\"):
            parts[-1] += separator + part
        else:
            parts.append(part)
    return parts


def _unescape(text: str) -> str:
    parts = text.split("\\\\")
    return "\\".join(part.replace("\\:", ":").replace("\\,", ",") for part in parts)


def parse_environment(texts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Parse ``NAME=value`` entries; a lone ``NAME`` takes the host's value, as Docker does.

    Raises:
        UsageError: A name is none.
    """
    found = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.isascii() and name.isidentifier()):
            raise UsageError(
                f"not a variable: {quoted(name, limit=60)}", hint="write it as --env NAME=value"
            )
        if equals or name in os.environ:
            found.append((name, value if equals else os.environ[name]))
    return tuple(found)


def split_environment(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the entries of ``--env``, where SingularityCE takes several: ``A=1,B=2``.

    A comma that no ``NAME=`` follows is a part of the value, as with Docker.
    """
    return tuple(entry for text in texts for entry in _entries(text))


def _entries(text: str) -> list[str]:
    entries: list[str] = []
    for part in text.split(","):
        name, equals, _ = part.partition("=")
        is_entry = equals and name.isascii() and name.isidentifier()
        if is_entry or not entries:
            entries.append(part)
        else:
            entries[-1] += f",{part}"
    return entries


def check_absolute(path: str, option: str) -> str:
    """Return ``path`` if it is absolute or empty.

    Raises:
        UsageError: It is neither.
    """
    if path and not path.startswith("/"):
        raise UsageError(f"{option} takes an absolute path of the container, not {quoted(path)}")
    return path


def check_user(spec: str) -> str:
    """Return ``spec`` if it has the form ``USER[:GROUP]`` or is empty.

    Raises:
        UsageError: It has another form.
    """
    user, colon, group = spec.partition(":")
    if (not user and spec) or (colon and not group) or ":" in group or "\n" in spec:
        raise UsageError(
            f"not a user: {quoted(spec, limit=60)}", hint="write --user UID|NAME[:GID|GROUP]"
        )
    return spec


def parse_mounts(texts: tuple[str, ...]) -> tuple[Bind, ...]:
    """Parse ``type=bind,source=SRC,destination=DST[,ro]`` entries.

    Raises:
        UsageError: An entry has another form, or its source does not exist.
    """
    return tuple(_parse_mount(text) for text in texts)


def _parse_mount(text: str) -> Bind:
    import csv

    row = next(csv.reader([text]), [])
    pairs = {key.lower(): value for key, _, value in (field.partition("=") for field in row)}
    source = pairs.pop("source", "") or pairs.pop("src", "")
    target = pairs.pop("destination", "") or pairs.pop("dst", "") or pairs.pop("target", "")
    read_only = pairs.pop("ro", None) is not None or pairs.pop("readonly", None) is not None
    image_source = pairs.pop("image-src", "")
    if pairs.pop("type", "bind") != "bind" or pairs or not source or not target:
        raise UsageError(
            f"not a mount: {quoted(text, limit=120)}",
            hint="write it as type=bind,source=SRC,destination=DST[,ro]",
        )
    if image_source not in {"", "/"}:
        raise UsageError("image-src can only be / : a part of an image cannot be mounted")
    bind = check_bind(os.path.abspath(source), target, read_only=read_only)
    return replace(bind, is_image=bool(image_source))


def parse_data(texts: tuple[str, ...]) -> tuple[Bind, ...]:
    """Parse ``FILE:DEST`` entries of ``--data``.

    Raises:
        UsageError: An entry has another form, or its file does not exist.
    """
    found = []
    for text in texts:
        source, colon, target = text.rpartition(":")
        if not colon or not source:
            raise UsageError(
                f"not a data container: {quoted(text, limit=120)}", hint="write FILE:DEST"
            )
        bind = check_bind(os.path.abspath(source), target, read_only=True)
        found.append(replace(bind, is_image=True))
    return tuple(found)


def parse_overlays(texts: tuple[str, ...]) -> tuple[Overlay, ...]:
    """Parse ``PATH[:ro|rw]`` entries.

    Raises:
        UsageError: There is no such file or folder, one is given twice, or two are writable.
    """
    found = []
    for text in texts:
        path, _, access = text.rpartition(":")
        if access not in {"ro", "rw"} or not path:
            path, access = text, "rw"
        source = os.path.realpath(os.path.expanduser(path))
        if not os.path.exists(source):
            raise UsageError(f"no such overlay: {quoted(path)}")
        found.append(Overlay(source=source, read_only=access == "ro"))
    sources = [overlay.source for overlay in found]
    if len(set(sources)) < len(sources):
        raise UsageError("an overlay is given twice")
    return tuple(found)


def parse_publish(texts: tuple[str, ...]) -> tuple[Publish, ...]:
    """Parse ``[ADDRESS:]HOST:CONTAINER[/udp]`` entries.

    Raises:
        UsageError: An entry has another form.
    """
    found = []
    for text in texts:
        ports, _, protocol = text.partition("/")
        address, _, rest = ports.rpartition(":")[0].rpartition(":")
        numbers = (rest, ports.rpartition(":")[2])
        address = address.removeprefix("[").removesuffix("]")
        is_port = all(_is_port(number) for number in numbers) and _is_address(address or "::")
        if protocol not in {"", "tcp", "udp"} or not is_port:
            raise UsageError(
                f"not a port: {quoted(text, limit=60)}", hint="write -p HOST:CONTAINER[/udp]"
            )
        kind: Literal["tcp", "udp"] = "udp" if protocol == "udp" else "tcp"
        host, container = (int(number) for number in numbers)
        found.append(Publish(host=host, container=container, protocol=kind, address=address))
    return tuple(found)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65536


def parse_size(text: str) -> int:
    """Return the bytes that ``512m`` or ``2G`` means; ``-1`` stays.

    Raises:
        UsageError: It is no size.
    """
    if text == "-1":
        return -1
    import re

    match = re.fullmatch(_SIZE, text.strip(), re.IGNORECASE)
    if not match:
        raise UsageError(f"not a size: {quoted(text, limit=40)}", hint="such as 512m or 2g")
    return int(match[1]) << 10 * "bkmgt".index(match[2].lower() or "b")


def parse_capabilities(texts: tuple[str, ...]) -> frozenset[str]:
    """Return ``CAP_X`` names of comma-separated lists; ``all`` is all of them.

    Raises:
        UsageError: There is no such capability.
    """
    from backend.runtime.capabilities import NAMES

    found: set[str] = set()
    for name in (word.strip().upper() for text in texts for word in text.split(",")):
        short = name.removeprefix("CAP_")
        if short == "ALL":
            found.update(f"CAP_{known}" for known in NAMES)
        elif short in NAMES:
            found.add(f"CAP_{short}")
        elif short:
            raise UsageError(f"no such capability: {quoted(name, limit=60)}")
    return frozenset(found)


def parse_no_mount(texts: tuple[str, ...]) -> frozenset[str]:
    """Return the names and paths of comma-separated lists.

    Raises:
        UsageError: A name is not one of those that can be left out.
    """
    words = {word.strip() for text in texts for word in text.split(",")} - {""}
    for word in words:
        if not word.startswith("/") and word not in NO_MOUNT:
            raise UsageError(
                f"--no-mount cannot leave out {quoted(word, limit=60)}",
                hint=f"it takes {', '.join(sorted(NO_MOUNT))}, or an absolute path",
            )
    return frozenset(words)


def check_dns(text: str) -> tuple[str, ...]:
    """Return the addresses of a comma-separated list.

    Raises:
        UsageError: One is no IP address.
    """
    if not text:
        return ()
    found = tuple(word.strip() for word in text.split(",") if word.strip())
    for word in found:
        if not _is_address(word):
            raise UsageError(f"not an address: {quoted(word, limit=60)}")
    return found


def _is_address(text: str) -> bool:
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def check_libraries(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Return absolute paths of files that are there.

    Raises:
        UsageError: One is not.
    """
    for path in paths:
        if not os.path.isfile(path):
            raise UsageError(f"no such library for --containlibs: {quoted(path)}")
    return tuple(os.path.abspath(path) for path in paths)


def check_hostname(name: str, *, own: bool) -> str:
    """Return the host name to give, empty to share the host's.

    Args:
        name: As given.
        own: A UTS namespace is wanted even without a name.

    Raises:
        UsageError: It is no host name.
    """
    if not name:
        return os.uname().nodename if own else ""
    import re

    if not re.fullmatch(_HOSTNAME, name):
        raise UsageError(f"not a host name: {quoted(name, limit=80)}")
    return name


def choose_network(wanted: str, *, own: bool) -> Network:
    """Return which network ``--net`` and ``--network`` together ask for.

    Raises:
        UsageError: There is no such network.
    """
    known: dict[str, Network] = {
        "": "private" if own else "host",
        "host": "host",
        "none": "none",
        "private": "private",
        "pasta": "pasta",
        "slirp4netns": "slirp4netns",
    }
    if wanted not in known:
        raise UsageError(
            f"no such network: {quoted(wanted, limit=60)}",
            hint="it is host, none, private, pasta or slirp4netns",
        )
    return known[wanted]


def check_number(text: str, option: str, low: float, high: float) -> float:
    """Return the number, which must lie between ``low`` and ``high``.

    Raises:
        UsageError: It is none, or lies elsewhere.
    """
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        name = option.replace("_", "-")
        raise UsageError(f"{name} takes a number from {low:g} to {high:g}, not {quoted(text)}")
    return value
