"""A file to run, as far as running it needs to know.

What was found is remembered in the cache until the file changes: a start then need not load
the parsers, which takes longer than the container itself.
"""

from __future__ import annotations

import os

from backend.cachefolder import cache_place
from backend.errors import FormatError, NotFoundError
from backend.runtime.identity import User, resolve_user
from backend.values import Value

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from backend.sif.contents import ImageTree
    from backend.sif.file import SifFile
    from backend.sif.records import Descriptor

_VERSION = 2
"""Of the form in which images are remembered."""
_MAX_MEMORY = 1 << 20
"""Bytes of what is remembered of one image."""
_MAX_ACCOUNTS = 1 << 20
"""Bytes of an image's passwd or group that are read."""


class Layer(Value):
    """A file system inside the file.

    Attributes:
        offset: Byte at which it starts.
        size: Its bytes.
        digest: As the manifest names it, not verified; empty in a native SIF, which has none.
    """

    offset: int
    size: int
    digest: str = ""


class RunnableImage(Value):
    """An image file and how to run it.

    Attributes:
        path: Absolute.
        layers: Squashfs, base first.
        overlay: The writable ext3 layer in the file; None when there is none.
        is_native: A native SIF, which brings its own ``/.singularity.d`` to start with.
        env: ``NAME=value`` entries in order.
        entrypoint: Empty when the image has none.
        cmd: Default arguments.
        working_dir: Empty when the image names none.
        user: Dockerfile ``USER`` as written; empty when absent.
        users: What was found for a ``USER`` before, by its text.
    """

    path: str
    layers: tuple[Layer, ...]
    overlay: Layer | None = None
    is_native: bool = False
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    users: dict[str, User]

    @property
    def name(self) -> str:
        """The file's own name."""
        return os.path.basename(self.path)


def read_image(path: str) -> RunnableImage:
    """Read an OCI-SIF file or a native SIF file.

    Raises:
        NotFoundError: There is no such file.
        FormatError: It is neither, or holds something that cannot be run.
    """
    path = os.path.abspath(path)
    try:
        state = os.stat(path)
    except OSError as error:
        raise NotFoundError(f"cannot read {path}: {error.strerror}") from error
    memory = _memory(state)
    remembered = _recall(memory, state, path)
    if remembered:
        return remembered
    image = _read(path)
    _remember(memory, state, image)
    return image


def mark_used(path: str) -> None:
    """Mark a file of the cache as used now, which is no change to what is remembered of it."""
    state = os.stat(path)
    remembered = _recall(_memory(state), state, path)
    try:
        os.utime(path)  # the cache forgets what was not for longest
    except OSError:  # a cache that is shared may be read-only
        return
    if remembered:
        _remember(_memory(state), os.stat(path), remembered)


def find_user(image: RunnableImage, spec: str) -> User:
    """Look up ``USER`` (``name|uid[:group|gid]``) in the image's own passwd and group.

    Raises:
        LaunchError: The image has no such user or group.
        FormatError: A layer is damaged, or a file is too large.
    """
    if spec in {"0", "0:0"}:
        return User(uid=0, gid=0, home="/root")
    if spec in image.users:
        return image.users[spec]
    from pathlib import Path

    from backend.sif.contents import ImageTree

    with ImageTree(Path(image.path)) as tree:
        user = resolve_user(spec, _content(tree, "etc/passwd"), _content(tree, "etc/group"))
    image.users[spec] = user
    state = os.stat(image.path)
    _remember(_memory(state), state, image)
    return user


def _content(tree: ImageTree, path: str) -> bytes:
    """Return the bytes of a file in the image, or none where there is none."""
    from backend.squashfs.inode import Kind

    file = tree.lookup(path)
    if file is None or file.kind is not Kind.FILE:
        return b""
    if file.size > _MAX_ACCOUNTS:
        raise FormatError(f"the image's /{path} is larger than 1 MiB")
    return b"".join(tree.read(file))


# -- the file ----------------------------------------------------------------------------


def _read(path: str) -> RunnableImage:
    from backend.sif.file import SifFile
    from backend.sif.records import DataType

    with SifFile(path) as sif:
        native = not sif.of_kind(DataType.OCI_ROOT_INDEX)
        return _read_native(path, sif) if native else _read_oci(path, sif)


def _read_oci(path: str, sif: SifFile) -> RunnableImage:
    from backend.oci import media
    from backend.sif.ocisif import image_of

    image = image_of(sif)
    name = os.path.basename(path)
    if image.is_data_container:
        raise FormatError(f"{name} holds data, nothing to run", hint=f"use --data {name}:/data")
    stored = [layer for layer in image.layers if not layer.is_overlay]
    for layer in stored:
        if layer.media_type != media.SQUASHFS_LAYER:
            raise FormatError(
                f"{name} has layers of type {layer.media_type}, which cannot be mounted",
                hint="pull the image again without --layer-format tar",
            )
    if not stored:
        raise FormatError(f"{name} has no layer to run")
    overlay = next((layer for layer in image.layers if layer.is_overlay), None)
    config = image.config
    return RunnableImage(
        path=path,
        layers=tuple(Layer(offset=one.offset, size=one.size, digest=one.digest) for one in stored),
        overlay=Layer(offset=overlay.offset, size=overlay.size) if overlay else None,
        env=config.env,
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        working_dir=config.working_dir,
        user=config.user,
        users={},
    )


def _read_native(path: str, sif: SifFile) -> RunnableImage:
    from backend.sif.records import DataType, FileSystem, PartitionKind

    parts = [(one, one.partition()) for one in sif.of_kind(DataType.PARTITION)]
    primary = [one for one, part in parts if part.kind == PartitionKind.PRIMARY]
    name = os.path.basename(path)
    if not primary:
        raise FormatError(f"{name} has no file system to run")
    if primary[0].partition().fs != FileSystem.SQUASHFS:
        raise FormatError(f"the file system in {name} is no squashfs, and others are not run")
    overlays = [one for one, part in parts if part.kind == PartitionKind.OVERLAY]
    return RunnableImage(
        path=path,
        layers=(_place(primary[0]),),
        overlay=_place(overlays[0]) if overlays else None,
        is_native=True,
        users={},
    )


def _place(one: Descriptor) -> Layer:
    return Layer(offset=one.offset, size=one.size)


# -- what is remembered ------------------------------------------------------------------
#
# Entries of NAME=VALUE, ended by NUL; a name that stands several times makes a list.  The
# stamp comes last, so that what was cut short has none.


def _memory(state: os.stat_result) -> str:
    return f"{cache_place()}/runtime/{state.st_dev:x}-{state.st_ino:x}"


def _stamp(state: os.stat_result) -> str:
    return f"{_VERSION} {state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}"


def _recall(memory: str, state: os.stat_result, path: str) -> RunnableImage | None:
    """Return what is known of a file, if it has not changed since."""
    try:
        with open(memory, "rb") as file:
            text = file.read(_MAX_MEMORY).decode("utf-8", "surrogateescape")
    except OSError:
        return None
    known: dict[str, list[str]] = {}
    for entry in text.split("\0")[:-1]:
        name, _, value = entry.partition("=")
        known.setdefault(name, []).append(value)
    if known.get("stamp") != [_stamp(state)]:
        return None
    try:
        return RunnableImage(
            path=path,
            layers=tuple(_parse_layer(layer) for layer in known["layer"]),
            overlay=next((_parse_layer(layer) for layer in known.get("overlay", ())), None),
            is_native="native" in known,
            env=tuple(known.get("env", ())),
            entrypoint=tuple(known.get("entrypoint", ())),
            cmd=tuple(known.get("cmd", ())),
            working_dir=known["working_dir"][0],
            user=known["user"][0],
            users=dict(_parse_found(found) for found in known.get("found", ())),
        )
    except (ValueError, KeyError):
        return None  # not ours: it is made again


def _remember(memory: str, state: os.stat_result, image: RunnableImage) -> None:
    """Write down what is known of a file; a cache that cannot be written to is no error."""
    entries = [
        *(f"layer={_layer_text(layer)}" for layer in image.layers),
        *([f"overlay={_layer_text(image.overlay)}"] if image.overlay else []),
        *(["native="] if image.is_native else []),
        *(f"env={entry}" for entry in image.env),
        *(f"entrypoint={word}" for word in image.entrypoint),
        *(f"cmd={word}" for word in image.cmd),
        f"working_dir={image.working_dir}",
        f"user={image.user}",
        *(f"found={_found_text(spec, user)}" for spec, user in image.users.items()),
        f"stamp={_stamp(state)}",
    ]
    if any("\0" in entry for entry in entries):
        return
    part = f"{memory}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(memory), 0o700, exist_ok=True)
        with open(part, "wb") as file:
            file.writelines(f"{entry}\0".encode("utf-8", "surrogateescape") for entry in entries)
        os.replace(part, memory)
    except (OSError, ValueError):
        return


def _layer_text(layer: Layer) -> str:
    return f"{layer.offset} {layer.size} {layer.digest}"


def _parse_layer(text: str) -> Layer:
    offset, size, digest = text.split(" ")
    return Layer(offset=int(offset), size=int(size), digest=digest)


def _found_text(spec: str, user: User) -> str:
    groups = ",".join(str(group) for group in user.groups)
    return f"{user.uid} {user.gid} {groups} {user.home}\n{spec}"


def _parse_found(text: str) -> tuple[str, User]:
    head, _, spec = text.partition("\n")
    uid, gid, groups, home = head.split(" ", 3)
    numbers = tuple(int(group) for group in groups.split(",") if group)
    return spec, User(uid=int(uid), gid=int(gid), groups=numbers, home=home)
