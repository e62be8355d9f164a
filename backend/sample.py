r"""Images made of this machine's own shell and tools: something to pull where no network is.

Programs and the libraries they load are copied; what loads what is read from the ELF files
(:mod:`backend.elf`), no program is run.  Inside, ``/bin``, ``/lib`` and ``/lib64`` are links
into ``/usr`` whatever they are here, so that a loader finds its libraries under the path
that it has compiled in.

Three images, each on top of the one before:

* ``shell``: the tools, ``/etc/passwd`` with root and ``learner``; CMD is ``sh``
* ``hello`` 1.0: three layers more, ENTRYPOINT, USER and labels; the last deletes a file
  (``.wh.draft.txt``) and empties a folder (``.wh..wh..opq``)
* ``hello`` 2.0: the same with another greeting

The same machine gives the same bytes: names are sorted, times and owners are fixed.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from backend.elf import Elf, is_elf, read_elf
from backend.errors import FormatError, NotFoundError
from backend.escape import quoted
from backend.oci import media
from backend.oci.digest import Digest, digest_of
from backend.oci.json import dump
from backend.oci.platform import host_platform

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TOOLS = (
    *("sh", "cat", "ls", "echo", "pwd", "id", "env", "true", "false", "mkdir", "rm", "cp", "mv"),
    *("ln", "touch", "chmod", "sleep", "uname", "wc", "head", "tail", "sort", "stat", "test"),
    *("tr", "date", "whoami", "seq", "basename", "sha256sum"),
)
"""Programs that are copied, as far as they are here and are no scripts; ``sh`` must be."""

USER = "learner"
UID = 1000

_CREATED = "2024-01-01T00:00:00Z"
_MTIME = 1_704_067_200
_MERGED = ("bin", "lib", "lib32", "lib64", "sbin")
"""Top folders that are links into /usr in the image."""
_MAX_FILE = 64 << 20
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TOOL_PATH = "/usr/bin:/bin:/usr/sbin:/sbin:/run/current-system/sw/bin"
"""The last is NixOS, which has little else than ``sh`` in the usual places."""

_GREET = """\
#!/bin/sh
# The entry point: greets, says who it is, and ends as it is told.
name=${{1:-world}}
echo "{word}, $name!"
echo "I am uid $(id -u) in $(pwd)."
exit "${{2:-0}}"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleImage:
    """An image, complete.

    Attributes:
        manifest: Its bytes.
        media_type: Of the manifest.
        blobs: Configuration and layers by digest.
    """

    manifest: bytes
    media_type: str
    blobs: Mapping[Digest, bytes]

    @property
    def digest(self) -> Digest:
        """Of the manifest."""
        return digest_of(self.manifest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member of a layer.

    Attributes:
        name: Path without a leading slash.
        kind: What it is.
        data: A file's content.
        link: A symbolic link's target.
        mode: Permission bits.
        uid: Owner, and group.
    """

    name: str
    kind: Literal["file", "folder", "link"] = "file"
    data: bytes = b""
    link: str = ""
    mode: int = 0o644
    uid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """A layer, plain and packed, and what its line of history says."""

    plain: bytes
    packed: bytes
    created_by: str


def _layer(created_by: str, *members: Member) -> _Layer:
    plain = tar(members)
    return _Layer(plain=plain, packed=gzip.compress(plain, 6, mtime=0), created_by=created_by)


def make_samples() -> dict[str, SampleImage]:
    """Return the images by ``name:tag``.

    Raises:
        NotFoundError: This machine has no shell that can be copied.
    """
    base = _layer("COPY tools /usr/bin/", *_skeleton(), *copy_programs(TOOLS))
    shell = {"Cmd": ["sh"], "Env": [f"PATH={_PATH}"]}
    first, second = _hello("Hello", "1.0"), _hello("Good day", "2.0")
    return {
        "shell:1.0": _image([base], shell),
        "hello:1.0": _image([base, *first], _hello_config("1.0")),
        "hello:2.0": _image([base, *second], _hello_config("2.0")),
        "hello:latest": _image([base, *second], _hello_config("2.0")),
    }


def _skeleton() -> list[Member]:
    """Return the folders and files that every system has."""
    folders = ("dev", "etc", "home", "proc", "run", "sys", "usr", "usr/bin", "usr/local", "var")
    passwd = f"root:x:0:0:root:/root:/bin/sh\n{USER}:x:{UID}:{UID}:{USER}:/home/{USER}:/bin/sh\n"
    group = f"root:x:0:\n{USER}:x:{UID}:\n"
    release = 'ID=sifdeck-sample\nNAME="sifdeck sample"\nPRETTY_NAME="sifdeck sample image"\n'
    return [
        *(Member(name=name, kind="folder", mode=0o755) for name in folders),
        *(Member(name=name, kind="link", link=f"usr/{name}", mode=0o777) for name in _MERGED),
        *(Member(name=f"usr/{name}", kind="folder", mode=0o755) for name in _MERGED[1:]),
        Member(name="root", kind="folder", mode=0o700),
        Member(name="tmp", kind="folder", mode=0o1777),
        Member(name=f"home/{USER}", kind="folder", mode=0o755, uid=UID),
        Member(name="etc/passwd", data=passwd.encode()),
        Member(name="etc/group", data=group.encode()),
        Member(name="etc/os-release", data=release.encode()),
    ]


def _hello(word: str, version: str) -> list[_Layer]:
    """Return the layers of ``hello``: a program, notes, and a tidying up."""
    program = Member(name="usr/local/bin/greet", data=_GREET.format(word=word).encode(), mode=0o755)
    notes = "srv/notes"
    written = (
        Member(name="srv", kind="folder", mode=0o755),
        Member(name=notes, kind="folder", mode=0o755),
        Member(name=f"{notes}/draft.txt", data=b"not for you\n" * 500),
        Member(name=f"{notes}/version.txt", data=f"{version}\n".encode()),
        Member(name="srv/cache", kind="folder", mode=0o755),
        Member(name="srv/cache/old", data=b"stale\n" * 500),
    )
    tidied = (
        Member(name=f"{notes}/.wh.draft.txt"),
        Member(name="srv/cache", kind="folder", mode=0o755),
        Member(name="srv/cache/.wh..wh..opq"),
        Member(name="srv/cache/new", data=b"fresh\n"),
    )
    place = Member(name="usr/local/bin", kind="folder", mode=0o755)
    return [
        _layer("COPY greet /usr/local/bin/", place, program),
        _layer("COPY notes /srv/notes/", *written),
        _layer("RUN rm /srv/notes/draft.txt && rm -r /srv/cache/*", *tidied),
    ]


def _hello_config(version: str) -> dict[str, object]:
    return {
        "Entrypoint": ["/usr/local/bin/greet"],
        "Cmd": ["world"],
        "User": USER,
        "WorkingDir": f"/home/{USER}",
        "Env": [f"PATH={_PATH}", "GREETING=sample"],
        "Labels": {
            "org.opencontainers.image.title": "hello",
            "org.opencontainers.image.version": version,
            "org.opencontainers.image.description": "Made by sifdeck of this machine's own tools",
        },
    }


# Images and layers


def _image(layers: list[_Layer], config: Mapping[str, object]) -> SampleImage:
    packed = [layer.packed for layer in layers]
    platform = host_platform()
    document: dict[str, object] = {
        "created": _CREATED,
        "architecture": platform.architecture,
        "os": platform.os,
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer.plain) for layer in layers]},
        "history": [{"created": _CREATED, "created_by": layer.created_by} for layer in layers],
    }
    if platform.variant:
        document["variant"] = platform.variant
    raw = dump(document)
    manifest = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": _descriptor(media.OCI_CONFIG, raw),
        "layers": [_descriptor(f"{media.OCI_LAYER}+gzip", data) for data in packed],
    }
    return SampleImage(
        manifest=dump(manifest),
        media_type=media.OCI_MANIFEST,
        blobs={digest_of(data): data for data in (raw, *packed)},
    )


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "size": len(data), "digest": digest_of(data)}


def tar(members: Iterable[Member]) -> bytes:
    """Return the members as a POSIX ustar archive, each name once, sorted.

    Raises:
        FormatError: A name is longer than ustar has room for.
    """
    by_name = {member.name: member for member in members}
    parts = []
    for name in sorted(by_name):
        member = by_name[name]
        parts += [_header(member), member.data, bytes(-len(member.data) % 512)]
    return b"".join((*parts, bytes(1024)))


def _header(member: Member) -> bytes:
    """Return the 512 bytes before a member (POSIX.1-1988, section 10.1.1)."""
    kind = {"file": b"0", "folder": b"5", "link": b"2"}[member.kind]
    name = os.fsencode(member.name + ("/" if member.kind == "folder" else ""))
    prefix = b""
    if len(name) > 100:
        cut = name.find(b"/", len(name) - 101)
        prefix, name = name[:cut], name[cut + 1 :]
    link = os.fsencode(member.link)
    if len(prefix) > 155 or len(name) > 100 or len(link) > 100:
        raise FormatError(f"the name {quoted(member.name)} is too long for a layer")
    numbers = b"".join(
        b"%0*o\0" % (width, value)
        for width, value in (
            *((7, member.mode), (7, member.uid), (7, member.uid)),
            *((11, len(member.data)), (11, _MTIME)),
        )
    )
    owners = bytes(64)
    devices = b"0000000\0" * 2
    head = name.ljust(100, b"\0") + numbers
    tail = kind + link.ljust(100, b"\0") + b"ustar\x0000" + owners + devices
    tail += prefix.ljust(155, b"\0") + bytes(12)
    total = sum(head) + sum(tail) + 8 * ord(" ")
    return head + b"%06o\0 " % total + tail


# Programs and libraries


def copy_programs(names: Iterable[str], *, path: str = _TOOL_PATH) -> list[Member]:
    """Return programs and all the libraries they load, as members of a layer.

    Scripts, and programs that are not here, are left out.

    Args:
        names: Of programs; ``sh`` must be among those that can be copied.
        path: Where to look for them.

    Raises:
        NotFoundError: There is no shell to copy.
    """
    collected = _Collection()
    for name in names:
        found = shutil.which(name, path=path)
        if found:
            # A damaged program is as good as none.
            with contextlib.suppress(FormatError):
                collected.add_program(name, Path(found))
    if "usr/bin/sh" not in collected.members:
        raise NotFoundError(
            "this machine has no shell that could be copied into an image",
            why=f"no program sh in {path}",
            hint="busybox, as a static program called sh in one of these, is enough",
        )
    return list(collected.members.values())


class _Collection:
    """Programs and libraries copied so far, by their path in the image."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self._folders = _library_folders()
        self._home = ""
        """Where the libraries go that were found in the system's folders: there the loader
        of the image finds them, which knows nothing of this machine's ld.so.conf."""

    def add_program(self, name: str, path: Path) -> None:
        """Copy a program to ``/usr/bin``; one file with several names becomes links."""
        # busybox and the like are one program that looks at its name: the file keeps the
        # name that it has here, the others point to it.
        real = Path(os.path.realpath(path))
        target = f"usr/bin/{real.name}"
        if target not in self.members:
            data = _read(real)
            if data is None or not is_elf(data):
                return
            elf = read_elf(data)
            if not self._add_needed(elf, real, elf.interpreter):
                return
            self._add(target, data)
        if real.name != name:
            link = Member(name=f"usr/bin/{name}", kind="link", link=real.name, mode=0o777)
            self.members[link.name] = link

    def _add_needed(self, elf: Elf, owner: Path, interpreter: str) -> bool:
        """Copy the loader and the libraries of a program; return whether all are here."""
        if interpreter and not self._add_file(interpreter, Path(interpreter)):
            return False
        waiting = [(elf, owner)]
        while waiting:
            current, place = waiting.pop()
            for name in (*current.needed, *_opened(place)):
                found = self._find(name, current, place)
                if found is None:
                    if Path(interpreter).name != name:
                        return False
                    continue
                target = self._place(found)
                if _inside(target) not in self.members:
                    data = self._add_file(target, found)
                    if not data:
                        return False
                    waiting.append((read_elf(data), found))
        return True

    def _find(self, name: str, elf: Elf, owner: Path) -> Path | None:
        """Return the library that a loader would take for ``name`` (ld.so(8))."""
        if "/" in name:
            return Path(name)
        origin = str(Path(os.path.realpath(owner)).parent)
        own = [
            folder.replace("$ORIGIN", origin).replace("${ORIGIN}", origin)
            for folder in elf.run_path
        ]
        for folder in (*own, *self._folders):
            candidate = Path(folder, name)
            data = _read(candidate, 4096)
            if data and is_elf(data) and _kind(data) == elf.kind:
                return candidate
        return None

    def _place(self, library: Path) -> str:
        """Return the path of a library in the image."""
        folder = str(library.parent)
        if folder not in self._folders:
            return str(library)
        self._home = self._home or folder
        return f"{self._home}/{library.name}"

    def _add_file(self, name: str, path: Path) -> bytes:
        data = _read(path)
        if data is None or not is_elf(data):
            return b""
        self._add(_inside(name), data)
        return data

    def _add(self, target: str, data: bytes) -> None:
        parent = target.rpartition("/")[0]
        while parent and parent not in self.members:
            self.members[parent] = Member(name=parent, kind="folder", mode=0o755)
            parent = parent.rpartition("/")[0]
        self.members[target] = Member(name=target, data=data, mode=0o755)


def _opened(library: Path) -> tuple[str, ...]:
    """Return what a library opens when it runs: glibc before 2.34, to read passwd."""
    beside = library.with_name("libnss_files.so.2")
    return (str(beside),) if library.name == "libc.so.6" and beside.exists() else ()


def _kind(data: bytes) -> tuple[int, int, int]:
    return data[4], data[5], int.from_bytes(data[18:20], "little" if data[5] == 1 else "big")


def _inside(path: str) -> str:
    """Return the path in the image of a path here, where ``/lib`` is a link to ``/usr/lib``."""
    clean = os.path.normpath(path).lstrip("/")
    top = clean.partition("/")[0]
    return f"usr/{clean}" if top in _MERGED else clean


def _read(path: Path, size: int = _MAX_FILE) -> bytes | None:
    """Return the first bytes of a regular file; None when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return None


def _library_folders() -> list[str]:
    """Return the folders that this machine's loaders look in, glibc's and musl's."""
    found = ["/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib"]
    found += ["/lib64/lp64d", "/usr/lib64/lp64d"]  # compiled into the loader on riscv64
    # Debian's multiarch folders are compiled into its loader; elsewhere there are none.
    for top in ("/lib", "/usr/lib"):
        found += sorted(str(path) for path in Path(top).glob("*-linux-*") if path.is_dir())
    for path in sorted(Path("/etc").glob("ld-musl-*.path")):
        found += path.read_text(errors="replace").replace(":", "\n").split()
    conf = [Path("/etc/ld.so.conf"), *sorted(Path("/etc/ld.so.conf.d").glob("*.conf"))]
    for path in conf:
        if path.is_file():
            lines = path.read_text(errors="replace").splitlines()
            found += [line.strip() for line in lines if line.startswith("/")]
    return list(dict.fromkeys(found))
