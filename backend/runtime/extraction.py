"""Where no FUSE can be had: layers unpacked into the cache, once, by digest.

A child does it inside a user namespace like the container's, so that every file gets the
owner that the container will see, and inside a root of its own, so that no path can lead out.
A layer's folder appears when it is complete; two processes do not unpack the same one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import time
from typing import TYPE_CHECKING

from backend.errors import BackendError, LaunchError, SpaceError, VerificationError
from backend.events import Note, Phase
from backend.paths import cache_home
from backend.runtime import namespaces
from backend.runtime.identity import User, identify
from backend.runtime.unpacking import measure, unpack
from backend.space import Need, check_space
from backend.squashfs.reader import SquashfsReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from backend.events import Report
    from backend.runtime.identity import Caller, Identity
    from backend.runtime.image import Layer, RunnableImage

_HASH_CHUNK = 1 << 20
_REPORT_S = 0.1


def extracted_home() -> Path:
    """Return the folder of unpacked layers; delete it with :func:`remove_extracted` only."""
    return cache_home() / "rootfs"


def extract_layers(
    runnable: RunnableImage, identity: Identity, caller: Caller, cause: str, report: Report
) -> list[Path]:
    """Return a folder for each layer, base first, unpacked now where it is not in the cache.

    Args:
        runnable: The image.
        identity: Decides who owns the files.
        caller: Whose map tools are used.
        cause: Why the image cannot be mounted, for the user.
        report: Gets the events.

    Raises:
        VerificationError: A layer has not the digest that the manifest says.
        SpaceError: The disk is full.
        LaunchError: The host does not allow it.
        FormatError: A layer is damaged.
    """
    home = extracted_home()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    folders = []
    for layer in runnable.layers:
        digest = layer.digest or _digest(runnable.path, layer)
        target = home / _folder_name(digest, identity)
        if not target.is_dir():
            report(Note(level="info", text=f"Extracting a layer instead of mounting it: {cause}"))
            with _locked(target):
                if not target.is_dir():  # another process may have done it while we waited
                    _extract(runnable.path, layer, target, (identity, caller), report)
        with contextlib.suppress(OSError):  # a cache that is shared may be read-only
            _lock_path(target).touch()  # it forgets what was not used for longest
        folders.append(target)
    return folders


def _folder_name(digest: str, identity: Identity) -> str:
    """Return the name that a layer has, with the owners that the identity gives it."""
    user = identity.user
    owners = f"{user.uid}.{user.gid}" if identity.mode == "subordinate" else identity.mode
    return f"{digest.partition(':')[2]}-{owners}"


def _extract(
    image: str, layer: Layer, target: Path, who: tuple[Identity, Caller], report: Report
) -> None:
    if layer.digest:
        _verify(image, layer)
    with open(image, "rb") as file:
        reader = SquashfsReader(file, offset=layer.offset)
        size, count = measure(reader)
        need = Need(folder=target.parent, size=size, files=count, purpose="the extracted image")
        check_space([need])
        keep_owners = who[0].mode != "single"

        def work(pipe: int) -> None:
            _unpack(reader, target, pipe, keep_owners=keep_owners)

        total = reader.superblock.inode_count
        for done in _in_child(work, *who):
            report(Phase(name="extract", done=done, total=total, unit="files"))
        report(Phase(name="extract", done=total, total=total, unit="files", state="done"))


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the lock of one layer; the kernel drops it when the process ends."""
    descriptor = os.open(_lock_path(target), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


def _digest(image: str, layer: Layer) -> str:
    """Return the SHA-256 digest of a layer's bytes."""
    found = hashlib.sha256()
    with open(image, "rb") as file:
        for position in range(layer.offset, layer.offset + layer.size, _HASH_CHUNK):
            size = min(_HASH_CHUNK, layer.offset + layer.size - position)
            found.update(os.pread(file.fileno(), size, position))
    return f"sha256:{found.hexdigest()}"


def _verify(image: str, layer: Layer) -> None:
    """Hold the layer's bytes against its digest, since other images will trust the folder."""
    found = _digest(image, layer)
    if found != layer.digest:
        raise VerificationError(
            "a layer of the image is damaged",
            why=f"its digest is {found}, not {layer.digest}",
            hint="pull the image again",
        )


def _in_child(work: Callable[[int], None], identity: Identity, caller: Caller) -> Iterator[int]:
    """Do ``work`` in the identity's user namespace and yield the counts that it reports.

    Raises:
        SpaceError: The disk is full.
        LaunchError: It failed otherwise.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reading)
            _enter(identity, caller)
            work(writing)
            status = 0
        except OSError as error:
            status = 2 if error.errno in {errno.ENOSPC, errno.EDQUOT} else 1
            os.write(writing, os.fsencode(f"!{error}\n"))
        except (BackendError, namespaces.MapRefusedError) as error:
            os.write(writing, os.fsencode(f"!{error}\n"))
        finally:
            os._exit(status)
    os.close(writing)
    reason = ""
    with open(reading, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("!"):
                reason = line[1:].strip()
            else:
                yield int(line)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == 2:
        raise SpaceError("no space left for the extracted image", why=reason)
    if status:
        raise LaunchError("cannot extract the image", why=reason, hint="see: sifdeck doctor")


def _enter(identity: Identity, caller: Caller) -> None:
    if identity.mode != "root":
        tools = caller.map_tools if identity.mode == "subordinate" else ()
        namespaces.enter_user(identity.uids, identity.gids, tools, 0)


def _unpack(reader: SquashfsReader, target: Path, pipe: int, *, keep_owners: bool) -> None:
    """Write the tree into a folder beside the target, then give it the target's name."""
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    part.mkdir(mode=0o700)
    home = os.open(part.parent, os.O_RDONLY | os.O_DIRECTORY)
    os.chroot(part)
    os.chdir("/")
    told = 0.0
    for count in unpack(reader, keep_owners=keep_owners):
        if time.monotonic() - told > _REPORT_S:
            told = time.monotonic()
            os.write(pipe, b"%d\n" % count)
    os.rename(part.name, target.name, src_dir_fd=home, dst_dir_fd=home)


def remove_extracted(caller: Caller, folder: Path | None = None) -> None:
    """Delete every unpacked layer; the files belong to subordinate ids, so it takes a namespace.

    Args:
        caller: Whose map tools are used.
        folder: Of the layers, in a cache that is not the user's; None means the user's.

    Raises:
        LaunchError: The host does not allow it.
    """
    home = folder or extracted_home()
    if not home.is_dir():
        return
    nobody = identify(caller, User(uid=0, gid=0))
    for _ in _in_child(lambda _pipe: shutil.rmtree(home), nobody, caller):
        pass
