"""The cache of blobs: content-addressed, verified, shared by every process of a user.

``blobs/ALGORITHM/HEX`` are whole and verified; ``partial/ALGORITHM-HEX`` are on the way.  A
partial file belongs to whoever holds ``flock`` on it, so each blob is downloaded once however
many processes want it, and the kernel gives the lock back when its holder is killed.  What a
killed or cut download left is hashed again and gone on with.  Where the file system knows no
locks, every process downloads into a file of its own, and the last rename wins.

Bytes are hashed and written in worker threads (hashlib and ``write`` leave the interpreter
lock), while the event loop receives the next ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import functools
import hashlib
import os
import tempfile
import threading
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

from humanize import naturalsize

from backend.arrival import Arrival
from backend.blobprogress import BlobProgress
from backend.errors import BackendError, NetworkError, SpaceError, VerificationError
from backend.oci.digest import hasher
from backend.registry.client import wrong_size
from backend.registry.retry import ATTEMPTS, wait_before

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator
    from pathlib import Path

    from backend.events import Report
    from backend.oci.digest import Digest
    from backend.oci.image import Descriptor
    from backend.oci.source import BlobSource, RemoteImage
    from backend.reference import Reference

    OnArrival = Callable[[Arrival], None]

_BATCH = 2 << 20
"""Bytes handed to a worker thread at once; smaller ones cost more in hand-over than in work."""
_POLL_S = (0.05, 0.5)
"""Seconds between looks at a lock that another process holds: at first, and at most."""
_PACE_S, _PACE_BYTES = 60.0, 64 << 10
"""A connection that brings less than so many bytes in so many seconds is given up."""
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class Store:
    """The blobs under one folder.

    Args:
        root: Created when the first blob comes.
        parallel: How many layers of an image are fetched at once.
    """

    def __init__(self, root: Path, *, parallel: int = 4) -> None:
        self._root = root
        self._parallel = parallel

    def blob_path(self, digest: Digest) -> Path:
        """Return where a blob is, or would be."""
        algorithm, _, value = digest.partition(":")
        return self._root / "blobs" / algorithm / value

    def has(self, digest: Digest) -> bool:
        """Tell whether a blob is here, whole and verified."""
        return self.blob_path(digest).is_file()

    async def fetch(  # noqa: PLR0913  (what, from where, and who is told of it)
        self,
        client: BlobSource,
        reference: Reference,
        descriptor: Descriptor,
        *,
        role: str,
        index: int,
        report: Report,
        on_arrival: OnArrival | None = None,
    ) -> Path:
        """Return the file of a blob, downloaded if it is not here.

        Args:
            client: Where it comes from.
            reference: The image it belongs to.
            descriptor: Names it, and its size.
            role: For the events: ``layer``, ``config`` ...
            index: For the events: its position among the blobs of its role.
            report: Gets :class:`backend.events.Blob` events.
            on_arrival: Called when the download of the whole blob begins.

        Raises:
            VerificationError: What came does not have the digest or size; nothing is kept.
            NetworkError: The connection failed more often than we try; what came is kept.
            NotFoundError: There is no such blob.
            AuthenticationError: We are not let in.
            SpaceError: The file system is full; see :meth:`fetch_layers`.
        """
        progress = BlobProgress(descriptor, role, index, report)
        if local := client.local_file(descriptor):
            await asyncio.to_thread(_verify_file, local, descriptor)
            progress.tell("exists", descriptor.size)
            return local
        try:
            here = await self._fetch(client, reference, descriptor, progress, on_arrival)
        except OSError as error:
            raise progress.failed(unusable(error, self._root)) from error
        except BackendError as error:
            raise progress.failed(error) from error.__cause__
        progress.tell("exists" if here else "done", descriptor.size)
        path = self.blob_path(descriptor.digest)
        with contextlib.suppress(OSError):  # a cache that is shared may be read-only
            os.utime(path)  # it forgets what was not used for longest
        return path

    async def fetch_layers(
        self,
        client: BlobSource,
        image: RemoteImage,
        *,
        report: Report,
        on_layer: Callable[[int, Path], None],
        on_arrival: Callable[[int, Arrival], None] | None = None,
        base_first: bool = False,
    ) -> None:
        """Fetch all layers of an image, several at once.

        Args:
            client: Where the layers come from.
            image: Whose layers.
            report: Gets :class:`backend.events.Blob` events.
            on_layer: Called with a layer's position, from 0 for the base, and its file, the
                moment the file is complete and verified.
            on_arrival: Called with a layer's position when its download begins, so that it can
                be read along; not for what is here already or in part.
            base_first: Begin with the base layer; else with the top, where squashing begins.

        Raises:
            BackendError: As :meth:`fetch`; the other downloads are stopped.
            SpaceError: The file system is full; whole layers are kept, parts of others not.
        """
        reference, layers = image.reference, image.manifest.layers
        for number, layer in enumerate(layers):
            BlobProgress(layer, "layer", number, report).tell("waiting", 0)
        places = asyncio.Semaphore(self._parallel)

        async def fetch_layer(number: int) -> None:
            async with places:
                path = await self.fetch(
                    client,
                    reference,
                    layers[number],
                    role="layer",
                    index=number,
                    report=report,
                    on_arrival=functools.partial(on_arrival, number) if on_arrival else None,
                )
            on_layer(number, path)

        order = range(len(layers)) if base_first else reversed(range(len(layers)))
        try:
            await _all_or_none(fetch_layer(number) for number in order)
        except BackendError as error:
            if isinstance(error, SpaceError):
                self._discard_parts(layers)
            whole = sum(self.has(layer.digest) for layer in layers)
            kept = f"{whole} of {len(layers)} layers are in the cache"
            error.kept = "; ".join(part for part in (kept, error.kept) if part)
            raise

    def _partial_path(self, digest: Digest) -> Path:
        return self._root / "partial" / digest.replace(":", "-")

    def _discard_parts(self, layers: Iterable[Descriptor]) -> None:
        """Remove the parts of layers that nobody downloads: room is worth more than they are."""
        for layer in layers:
            path = self._partial_path(layer.digest)
            if path.exists() and (partial := _claim(path, layer)):
                with contextlib.closing(partial):
                    partial.discard()

    async def _fetch(
        self,
        client: BlobSource,
        reference: Reference,
        descriptor: Descriptor,
        progress: BlobProgress,
        on_arrival: OnArrival | None,
    ) -> bool:
        """Bring a blob here; return whether it was, or another process brought it."""
        path = self.blob_path(descriptor.digest)
        place = self._partial_path(descriptor.digest)
        polls = _poll_intervals()
        while not _is_whole(path, descriptor):
            partial = await asyncio.to_thread(_claim, place, descriptor)
            if partial:
                with contextlib.closing(partial):
                    # Between the first look and the lock its last holder may have finished.
                    if _is_whole(path, descriptor):
                        partial.discard()
                        return True
                    await asyncio.to_thread(partial.load)
                    # A part may be damaged, which shows only at the end of the download.
                    if on_arrival and not partial.size:
                        on_arrival(partial.arrival)
                    await _download(client, reference, partial, progress)
                    await asyncio.to_thread(partial.publish, path)
                return False
            progress.tell("waiting", _size(place), note="another process downloads it")
            await asyncio.sleep(next(polls))
        return True


class _Partial:
    """The part of a blob that is here, and its hash.

    Its methods may run in worker threads; a lock keeps :meth:`close` from pulling the file
    from under a write that a cancelled download left behind.

    Attributes:
        descriptor: Of the blob.
        size: Of the part that is here, in bytes.
        arrival: For those who read along.
    """

    def __init__(self, fd: int, path: Path, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self.size = 0
        self._fd = fd
        self._path = path
        self.arrival = Arrival(fd, descriptor)
        self._hash: hashlib._Hash = hasher(descriptor.digest)
        self._busy = threading.Lock()

    def load(self) -> None:
        """Hash what an earlier download left; what goes beyond the blob's size is cut off."""
        with self._busy:
            while self._fd >= 0 and self.size < self.descriptor.size:
                chunk = os.read(self._fd, min(_BATCH, self.descriptor.size - self.size))
                if not chunk:
                    return
                self._hash.update(chunk)
                self.size += len(chunk)
            os.ftruncate(self._fd, self.size)

    def append(self, chunks: Iterable[bytes]) -> None:
        """Hash and write chunks at the end."""
        with self._busy:
            if self._fd < 0:
                return
            for chunk in chunks:
                self._hash.update(chunk)
                _write_all(self._fd, chunk)
                self.size += len(chunk)
        self.arrival.grow(self.size)

    def verify(self) -> None:
        """Check size and digest of the whole.

        Raises:
            VerificationError: One of them is wrong.
        """
        wanted = self.descriptor
        if self.size != wanted.size:
            raise wrong_size(wanted, self.size)
        _check_digest(wanted.digest, self._hash)

    def restart(self) -> None:
        """Throw away what is here and begin at 0."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        os.ftruncate(self._fd, 0)
        self._hash = hasher(self.descriptor.digest)
        self.size = 0

    def publish(self, path: Path) -> None:
        """Give the whole blob its final name, on disk before it is visible."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._busy:
            if self._fd < 0:
                return
            os.fsync(self._fd)
            self._path.replace(path)
        self.arrival.end(is_whole=True)

    def discard(self) -> None:
        """Remove the file; whoever waits for its lock will see that it is gone."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file, which gives its lock back."""
        self.arrival.end(is_whole=False)
        with self._busy:
            os.close(self._fd)
            self._fd = -1


def _claim(path: Path, descriptor: Descriptor) -> _Partial | None:
    """Return a partial file that is ours alone, or None while another process has it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno == errno.EWOULDBLOCK:
            return None
        if error.errno in _NO_LOCKS:
            fd, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
            return _Partial(fd, path.parent / name, descriptor)
        raise
    # Its last holder may have renamed or removed the file that we opened.
    if not _is_at(fd, path):
        os.close(fd)
        return None
    return _Partial(fd, path, descriptor)


def _verify_file(path: Path, descriptor: Descriptor) -> None:
    """Check a blob that is used where it lies.

    Raises:
        VerificationError: It has another digest or size.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size != descriptor.size:
            raise wrong_size(descriptor, size)
        found = hashlib.file_digest(file, lambda: hasher(descriptor.digest))
    _check_digest(descriptor.digest, found)


def _check_digest(wanted: Digest, found: hashlib._Hash) -> None:
    got = f"{wanted.partition(':')[0]}:{found.hexdigest()}"
    if got != wanted:
        raise VerificationError(
            f"blob {wanted} was damaged on the way",
            why=f"expected {wanted}, got {got}",
            hint="try again; if it stays, tell the registry's administrator",
        )


async def _download(
    source: BlobSource, reference: Reference, partial: _Partial, progress: BlobProgress
) -> None:
    """Complete and verify a partial file.

    Raises:
        VerificationError: What came is wrong; the file is gone.
        NetworkError: As often as we try.
    """
    kept = partial.size
    while True:
        await _receive_all(source, reference, partial, progress)
        try:
            partial.verify()
        except VerificationError:
            if not kept:
                partial.discard()
                progress.done = 0
                raise
        else:
            return
        # A machine that lost power may have kept a part that was never written.
        partial.restart()
        kept = 0


async def _receive_all(
    source: BlobSource, reference: Reference, partial: _Partial, progress: BlobProgress
) -> None:
    """Receive the rest of a blob, in several requests when connections are cut."""
    attempt = 1
    while partial.size < partial.descriptor.size:
        before = partial.size
        try:
            await _receive(source, reference, partial, progress)
        except VerificationError:
            partial.discard()
            progress.done = 0
            raise
        except NetworkError as error:
            # A connection that brought something starts the count anew.
            attempt = 1 if partial.size - before >= _BATCH else attempt
            wait = wait_before(error, attempt)
            if wait is None:
                raise
            attempt += 1
            place = naturalsize(partial.size)
            note = f"{error.message}; attempt {attempt} of {ATTEMPTS} resumes at {place}"
            progress.tell("retry", partial.size, note=note)
            await asyncio.sleep(wait)


async def _receive(
    source: BlobSource, reference: Reference, partial: _Partial, progress: BlobProgress
) -> None:
    """Receive bytes from one request until they end."""
    wanted = partial.descriptor
    waiting: list[bytes] = []
    here = partial.size
    progress.tell("downloading", here)
    pace = _Pace(here)
    try:
        async with aclosing(source.stream_blob(reference, wanted, here)) as chunks:
            async for chunk in chunks:
                waiting.append(chunk)
                here += len(chunk)
                if here > wanted.size:
                    raise wrong_size(wanted, here)
                pace.check(here)
                if here - partial.size >= _BATCH:
                    batch, waiting = waiting, []
                    await asyncio.to_thread(partial.append, batch)
                progress.tell("downloading", here)
    finally:
        # After a cut, too: these bytes need not come again.
        partial.append(waiting)
    if partial.size < wanted.size:
        raise NetworkError(f"{reference.registry} ended {wanted.digest} early", transient=True)


class _Pace:
    """Ends a connection that trickles: a byte now and then keeps it from being silent."""

    def __init__(self, here: int) -> None:
        self._since = time.monotonic()
        self._from = here

    def check(self, here: int) -> None:
        """Look at how much came since the last look.

        Raises:
            NetworkError: Too little.
        """
        now = time.monotonic()
        if now - self._since < _PACE_S:
            return
        if here - self._from < _PACE_BYTES:
            raise NetworkError(
                f"only {here - self._from} bytes came in {_PACE_S:g} s", transient=True
            )
        self._since, self._from = now, here


async def _all_or_none(works: Iterable[Coroutine[object, object, None]]) -> None:
    """Await all; when one fails, stop the others before its error goes on."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_whole(path: Path, descriptor: Descriptor) -> bool:
    """Tell whether a blob is here, and not cut short by a broken file system."""
    return _size(path) == descriptor.size


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _is_at(fd: int, path: Path) -> bool:
    """Tell whether an open file is what stands at ``path``."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _poll_intervals() -> Iterator[float]:
    interval, most = _POLL_S
    while True:
        yield interval
        interval = min(most, interval * 1.5)


def unusable(error: OSError, root: Path) -> BackendError:
    """Return the error that tells why the cache in ``root`` cannot be written."""
    hint = "free some, or name another place in SIFDECK_CACHE_DIR"
    if error.errno in _NO_SPACE:
        return SpaceError(f"no space left in {root}", why=error.strerror or "", hint=hint)
    hint = "name a folder of yours in SIFDECK_CACHE_DIR"
    return BackendError(f"the cache in {root} cannot be used", why=str(error), hint=hint)
