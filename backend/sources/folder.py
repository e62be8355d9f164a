"""A folder as a source: its files as one layer of an image.

It gives what a squashfs reader gives, so that the same exporter makes an archive of it.
Nothing outside of the folder is read: links are taken as links, and files are opened
without following one.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from typing import TYPE_CHECKING

from backend.assembly import Assembly
from backend.errors import BackendError, NotFoundError
from backend.escape import one_line
from backend.layers.export import GeneratedFile, tar_chunks
from backend.oci import media
from backend.oci.digest import digest_of
from backend.oci.image import Descriptor, Manifest
from backend.oci.json import dump
from backend.oci.platform import host_platform
from backend.sif.provenance import Source
from backend.squashfs.inode import Kind, device_number
from backend.squashfs.reader import Node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CHUNK = 1 << 20
_KINDS = {
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFREG: Kind.FILE,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFBLK: Kind.BLOCK_DEVICE,
    stat.S_IFCHR: Kind.CHARACTER_DEVICE,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
}


def opened_folder(folder: Path) -> Assembly:
    """Return a folder as an image without a configuration of its own, for this machine.

    Raises:
        NotFoundError: There is no such folder.
    """
    if not folder.is_dir():
        raise NotFoundError(f"there is no folder {one_line(str(folder))}")
    platform = host_platform()
    anything = digest_of(b"")
    config = dump(
        {
            "architecture": platform.architecture,
            "os": platform.os,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [anything]},
            "history": [{"created_by": "sifdeck convert"}],
        }
    )
    layer = Descriptor(media_type=media.OCI_LAYER, digest=anything, size=0)
    described = Descriptor(media_type=media.OCI_CONFIG, digest=digest_of(config), size=len(config))
    manifest = Manifest(media_type=media.OCI_MANIFEST, config=described, layers=(layer,))
    return Assembly(
        source=Source(
            raw_manifest=dump(manifest.to_json()),
            raw_config=config,
            local=("localimage", "a folder"),
        ),
        layers=manifest.layers,
        open_layer=lambda _: io.BufferedReader(
            GeneratedFile(tar_chunks(FolderReader(folder), is_layer=False)), _CHUNK
        ),
        has_diff_ids=False,
    )


class FolderReader:
    """Reads a folder as a squashfs reader reads an image; names sorted, devices and all."""

    def __init__(self, folder: Path) -> None:
        self._folder = os.fsencode(folder)
        self._paths: dict[int, bytes] = {}

    def walk(self) -> Iterator[tuple[bytes, Node]]:
        """Yield every path and what it stands for; directories first.

        Raises:
            BackendError: Something cannot be read.
        """
        yield b"", self._node(b"")
        waiting = [b""]
        while waiting:
            parent = waiting.pop()
            for name in self._names(parent):
                path = parent + b"/" + name if parent else name
                node = self._node(path)
                yield path, node
                if node.kind is Kind.DIRECTORY:
                    waiting.append(path)

    def read(self, node: Node) -> Iterator[bytes]:
        """Yield the bytes of a file, neither more nor fewer than it was said to have.

        Raises:
            BackendError: It cannot be read, or has changed.
        """
        path = self._paths[node.number]
        left = node.size
        with _reading(path):
            fd = os.open(self._folder + b"/" + path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            with os.fdopen(fd, "rb", buffering=0) as file:
                while left and (data := file.read(min(_CHUNK, left))):
                    left -= len(data)
                    yield data
        if left:
            raise BackendError(f"{_shown(path)} became shorter while it was read")

    def data_parts(self, node: Node) -> list[tuple[int, int]]:
        """Return the whole of a file: what is a hole on this disk is none elsewhere."""
        return [(0, node.size)] if node.size else []

    def readlink(self, node: Node) -> bytes:
        """Return the target of a symbolic link."""
        path = self._paths[node.number]
        with _reading(path):
            return os.readlink(self._folder + b"/" + path)  # noqa: PTH115  (bytes)

    def xattrs(self, node: Node) -> tuple[tuple[bytes, bytes], ...]:
        """Return the extended attributes that this process may see, sorted."""
        path = self._folder + b"/" + self._paths[node.number]
        try:
            names = sorted(os.listxattr(path, follow_symlinks=False))
            return tuple(
                (os.fsencode(name), os.getxattr(path, name, follow_symlinks=False))
                for name in names
            )
        except OSError:  # a file system without any
            return ()

    def _names(self, parent: bytes) -> list[bytes]:
        with _reading(parent):
            return sorted(os.listdir(self._folder + b"/" + parent))  # noqa: PTH208  (bytes)

    def _node(self, path: bytes) -> Node:
        with _reading(path):
            found = os.lstat(self._folder + b"/" + path)
        kind = _KINDS[stat.S_IFMT(found.st_mode)]
        number = found.st_dev << 64 | found.st_ino
        self._paths.setdefault(number, path)
        return Node(
            kind=kind,
            mode=stat.S_IMODE(found.st_mode),
            # What an ordinary user unpacked is theirs, whoever owned it in the image.
            uid=0 if found.st_uid == os.geteuid() else found.st_uid,
            gid=0 if found.st_gid == os.getegid() else found.st_gid,
            mtime=min(max(int(found.st_mtime), 0), 0xFFFFFFFF),
            number=number,
            links=found.st_nlink,
            size=found.st_size if kind is Kind.FILE else 0,
            device=device_number(os.major(found.st_rdev), os.minor(found.st_rdev)),
        )


@contextlib.contextmanager
def _reading(path: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackendError(f"cannot read {_shown(path)}", why=error.strerror or "") from error


def _shown(path: bytes) -> str:
    return one_line(os.fsdecode(path) or "the folder")
