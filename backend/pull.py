"""From a registry to one OCI-SIF file, in one streaming pass (design.md, "How data flows").

The download runs in a thread with an event loop of its own; the calling thread converts.
Between them stands one future per layer: the converter walks the layers top first and reads
each while it arrives, so that compression starts long before the first of them is complete.
The end of a layer comes to the converter when its digest has been verified, and no file gets
its name before that.  Whichever side fails ends the other.

A conversion is a function of the source manifest's digest, the options and the version of our
format.  ``run docker://...`` keeps its results in the cache under that key
(:func:`cached_image`), and :func:`pull_image` takes the layers from there when it finds them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import hashlib
import logging
import os
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeVar, cast

from backend import events
from backend.assembly import assembly_of, least_packed, write_image, write_native_image
from backend.cache import hold_cache, keep_within
from backend.copying import copy_range
from backend.errors import BackendError, ExistsError, FormatError, VerificationError
from backend.oci import media
from backend.oci.platform import Platform, host_platform
from backend.oci.source import check_document_size, read_blob, resolve
from backend.paths import cache_home, shared_cache
from backend.registry.access import Access
from backend.registry.memory import Remembering, memory_of
from backend.sif.ocisif import read_ocisif
from backend.sif.ocisifwriter import OciSifWriter
from backend.sif.provenance import Source, convert_documents
from backend.sources.opened import open_source
from backend.sources.siffile import SIF_TRANSPORTS, copy_sif, fetch_sif
from backend.space import Need, check_space
from backend.squashfs.compression import Compression
from backend.staging import exists_error
from backend.store import Store, unusable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from backend.arrival import Arrival
    from backend.assembly import Assembly
    from backend.oci import source as oci
    from backend.oci.digest import Digest
    from backend.oci.image import Descriptor
    from backend.oci.source import RemoteImage
    from backend.reference import Reference
    from backend.sif.ocisif import OciSif
    from backend.sif.ocisifwriter import WrittenImage
    from backend.sif.provenance import Documents

    MakeDocuments = Callable[[Sequence[Descriptor]], Documents]

T = TypeVar("T")

_log = logging.getLogger(__name__)


FORMAT_VERSION = 2
"""Raised when the same source and options would give other bytes than before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullOptions:
    """How to get an image and what to make of it.

    Attributes:
        platform: Chosen from an index.
        compression: Of the squashfs blocks.
        overwrite: Whether a target that exists is replaced.
        native: Write a native SIF instead of an OCI-SIF.
        keep_layers: Make a file system of each layer instead of one of all.
        offline: Use what is in the cache, and no network.
        access: How to get at registries.
        cache: The cache's folder.
        shared_cache: One more, whose conversions are used and which is never written to.
        recorded: What the file says of its source, where that is not what is asked for.
        cache_limit: Bytes that the cache has afterwards at most; None for no limit.
    """

    platform: Platform = field(default_factory=host_platform)
    compression: Compression = field(default_factory=Compression)
    overwrite: bool = False
    native: bool = False
    keep_layers: bool = False
    offline: bool = False
    access: Access = field(default_factory=Access)
    cache: Path = field(default_factory=cache_home)
    shared_cache: Path | None = field(default_factory=shared_cache)
    recorded: str = ""
    cache_limit: int | None = None

    def key(self, digest: str) -> str:
        """Return the name under which the conversion of ``digest`` is kept in the cache."""
        kept = " layers" if self.keep_layers else ""
        text = f"{FORMAT_VERSION} {digest} {self.compression}{kept}"
        return hashlib.sha256(text.encode()).hexdigest()


def pull_image(
    reference: Reference, target: Path, options: PullOptions, report: events.Report
) -> WrittenImage:
    """Pull ``reference`` and write it to ``target``.

    Either the whole file stands there afterwards or what was there before; verified blobs stay
    in the cache for the next try.

    Args:
        reference: An image anywhere: in a registry, a layout, an archive, a daemon, or a SIF.
        target: The file to write; its folder must exist.
        options: See :class:`PullOptions`.
        report: Gets the events.

    Raises:
        ExistsError: ``target`` exists and ``options.overwrite`` is not set.
        NotFoundError: The registry has no such image, or not for the platform.
        AuthenticationError: The registry wants other credentials.
        NetworkError: The connection failed too often.
        VerificationError: A blob is not what its digest says.
        FormatError: The image breaks its specification.
        SpaceError: A file system is full.
    """
    if not options.overwrite and os.path.lexists(target):
        raise exists_error(target)
    if reference.transport in SIF_TRANSPORTS:
        source = _fetch_sif(reference, options, report)
        return copy_sif(source, target, overwrite=options.overwrite)
    with _Download(reference, options, report) as download:
        image = download.image()
        converted = None if options.native else _find_converted(options, image.digest)
        if converted:
            return _copy_converted(converted, download, target, options)
        return _convert(download, _recorded_name(reference, options), target, options)


@contextlib.contextmanager
def fetched_image(
    reference: Reference,
    options: PullOptions,
    report: events.Report,
    *,
    needs: Callable[[Sequence[Descriptor]], Iterable[Need]],
) -> Iterator[Assembly]:
    """Fetch the blobs of an image of layers, and give them as they are.

    There has to be room for them, and for what will be made of them.

    Args:
        reference: The image.
        options: See :class:`PullOptions`.
        report: Gets the events.
        needs: Given an image's layers, returns what has to have room beside the cache.

    Raises:
        BackendError: As :func:`pull_image`, but for ExistsError.
    """
    with _Download(reference, options, report) as download:
        name = str(reference) if reference.is_remote else ""
        image = download.image()
        check_space([_download_need(image, options), *needs(image.manifest.layers)])
        download.begin()
        yield assembly_of(_source(download, name), lambda index: download.layer(index).open("rb"))


def cached_image(reference: Reference, options: PullOptions, report: events.Report) -> Path:
    """Return an OCI-SIF of ``reference`` in the cache, made now if it is not there.

    A reference with a digest that is there needs no network.  The caller holds nothing:
    whoever cleans the cache meanwhile leaves an open file readable.

    Raises:
        BackendError: As :func:`pull_image`, but for ExistsError.
    """
    path = _known_image(reference, options) or _make_image(reference, options, report)
    with contextlib.suppress(OSError):  # a cache that is shared may be read-only
        os.utime(path)  # it forgets what was not used for longest
    return path


def _make_image(reference: Reference, options: PullOptions, report: events.Report) -> Path:
    """Look the reference up, and convert the image unless a cache has it."""
    if reference.transport in SIF_TRANSPORTS:
        return _fetch_sif(reference, options, report)
    with _Download(reference, options, report) as download:
        digest = download.image().digest
        path = _find_converted(options, digest) or _converted_path(options, digest)
        if not path.exists():
            with _alone(path, report):
                if not path.exists():
                    with contextlib.suppress(ExistsError):  # made meanwhile, without locks
                        _convert(download, "", path, options)
        return path


def _fetch_sif(reference: Reference, options: PullOptions, report: events.Report) -> Path:
    """Return a SIF file from somewhere, which is taken as it is."""
    path = asyncio.run(
        fetch_sif(
            reference,
            options.access,
            platform=options.platform,
            cache=options.cache,
            report=report,
            offline=options.offline,
        )
    )
    _tidy(options)
    return path


def _tidy(options: PullOptions) -> None:
    """Keep the cache within its limit."""
    if options.cache_limit is not None:
        for entry in keep_within(options.cache, options.cache_limit).removed:
            _log.debug("removed %s from the cache, which is full", entry.name)


@contextlib.contextmanager
def _alone(path: Path, report: events.Report) -> Iterator[None]:
    """Let one process at a time make ``path``; thirty learners convert an image once."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable(error, path.parent) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(events.Note(level="info", text="Waiting for the process that converts it"))
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError:  # no locks here: two may convert it, to the same bytes
            _log.debug("no locks in %s", path.parent)
        yield
    finally:
        os.close(fd)


class _Download:
    """The download side: a thread that resolves the image and fetches its blobs.

    Leaving the block ends the thread, whatever it is waiting for.
    """

    def __init__(self, reference: Reference, options: PullOptions, report: events.Report) -> None:
        self.reference = reference
        self._options = options
        self.report = report
        self._image: Future[RemoteImage] = Future()
        self._config: Future[bytes] = Future()
        self._layers: dict[int, Future[Path]] = {}
        self._arrivals: dict[int, Future[Arrival | None]] = {}
        self._opened: set[int] = set()
        self._loop = asyncio.new_event_loop()
        self._is_over = False
        self._go = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "download")
        self._end: Future[None] = Future()
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            self._held.enter_context(hold_cache(self._options.cache))
            self._end = self._thread.submit(self._run)
        except BaseException:  # a signal, while the thread starts
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RuntimeError):  # closed: it has ended by itself
            self._loop.call_soon_threadsafe(self._cancel)
        self._thread.shutdown()
        self._held.close()
        _tidy(self._options)

    def image(self) -> RemoteImage:
        """Wait for the image that the reference means."""
        return self._wait(self._image)

    def begin(self, *, layers: bool = True) -> None:
        """Let the configuration be fetched, and the layers unless they are not needed."""
        count = len(self.image().manifest.layers) if layers else 0
        self._layers = {index: Future() for index in range(count)}
        self._arrivals = {index: Future() for index in range(count)}
        self._loop.call_soon_threadsafe(self._go.set)

    def config(self) -> bytes:
        """Wait for the image configuration, as received."""
        return self._wait(self._config)

    def layer(self, index: int) -> Path:
        """Wait for a layer and return its file, which is complete and verified."""
        return self._wait(self._layers[index])

    def open_layer(self, index: int) -> BinaryIO:
        """Open a layer, which may still be on its way: then its end comes when it is verified."""
        arrival = self._wait(self._arrivals[index])
        is_tar = self.image().manifest.layers[index].media_type != media.SQUASHFS_LAYER
        if arrival and is_tar and (file := arrival.open()):
            self._opened.add(index)
            return cast("BinaryIO", file)
        return self.layer(index).open("rb")

    @contextlib.contextmanager
    def judged(self) -> Iterator[None]:
        """Say of a layer that was read on its way, and makes no sense, that it was damaged."""
        try:
            yield
        except FormatError:
            for index in self._opened:
                self.layer(index)
            raise

    def _wait(self, wanted: Future[T]) -> T:
        """Return what ``wanted`` gets, or raise what ended the download before that."""
        either: Iterable[Future[Any]] = (wanted, self._end)
        wait(either, return_when=FIRST_COMPLETED)
        if not wanted.done():
            self._end.result()
        return wanted.result()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._work())
            finally:
                self._is_over = True

    def _cancel(self) -> None:
        """End the work, but not what the loop does of its own to come to an end."""
        if self._is_over:
            return
        for task in asyncio.all_tasks(self._loop):
            task.cancel()

    async def _work(self) -> None:
        async with remembered_source(self.reference, self._options, self.report) as source:
            self.report(events.Phase(name="resolve"))
            image = await resolve(
                source, self.reference, self._options.platform, read=self._read_config
            )
            self.report(events.Phase(name="resolve", state="done"))
            self.report(_resolved(image))
            self._image.set_result(image)
            await self._go.wait()
            await self._fetch(source, image)

    async def _fetch(self, source: oci.Source, image: RemoteImage) -> None:
        """Fetch the configuration, which the converter needs first, and then the layers."""
        config = image.manifest.config
        data = await self._read_config(source, image.reference, config, report=self.report)
        self._config.set_result(data)
        if self._layers:
            store = Store(self._options.cache)
            await store.fetch_layers(
                source,
                image,
                report=self.report,
                on_layer=self._arrived,
                on_arrival=self._begun,
                base_first=self._options.keep_layers,
            )

    async def _read_config(
        self,
        source: oci.Source,
        reference: Reference,
        descriptor: Descriptor,
        *,
        report: events.Report = events.ignore,
    ) -> bytes:
        """Return a configuration, which the store downloads once for every process."""
        check_document_size(descriptor)
        try:
            path = await Store(self._options.cache).fetch(
                source, reference, descriptor, role="config", index=0, report=report
            )
        except BackendError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            # The cache cannot be written; a shared one may have the converted image.
            return await read_blob(source, reference, descriptor)
        return path.read_bytes()

    def _begun(self, index: int, arrival: Arrival) -> None:
        self._arrivals[index].set_result(arrival)

    def _arrived(self, index: int, path: Path) -> None:
        self._layers[index].set_result(path)
        if not self._arrivals[index].done():
            self._arrivals[index].set_result(None)


@contextlib.asynccontextmanager
async def remembered_source(
    reference: Reference, options: PullOptions, report: events.Report
) -> AsyncIterator[oci.Source]:
    """Give what holds the image; the cache remembers a registry's answers, and stands in."""
    memory = memory_of(options.cache)
    if options.offline and reference.is_remote:
        yield memory
        return
    opened = open_source(reference, options.access, cache=options.cache, report=report)
    async with opened as source:
        yield Remembering(source, memory) if reference.is_remote else source


def _known_image(reference: Reference, options: PullOptions) -> Path | None:
    """Return the converted image of a reference with a digest, if it needs no network."""
    if not reference.digest:
        return None
    try:
        image = asyncio.run(resolve(memory_of(options.cache), reference, options.platform))
    except BackendError:  # whatever is wrong there, the registry will tell
        return None
    return _find_converted(options, image.digest)


def _recorded_name(reference: Reference, options: PullOptions) -> str:
    """Return what the file says of its source; a path on this machine says nothing elsewhere."""
    return options.recorded or (str(reference) if reference.is_remote else "")


def _resolved(image: RemoteImage) -> events.Resolved:
    return events.Resolved(
        reference=str(image.reference),
        digest=image.digest,
        platform=str(image.platform),
        total=sum(layer.size for layer in image.manifest.layers),
    )


def _converted_path(options: PullOptions, digest: str) -> Path:
    return options.cache / "oci-sif" / f"{options.key(digest)}.oci.sif"


def _convert(download: _Download, name: str, target: Path, options: PullOptions) -> WrittenImage:
    """Fetch the blobs and write the SIF; ``name`` is recorded as the source's reference."""
    layers = download.image().manifest.layers
    made = Need(folder=target.parent, size=least_packed(layers), purpose="the image", is_file=True)
    check_space([made, _download_need(download.image(), options)])
    download.begin()
    image = assembly_of(_source(download, name), download.open_layer)
    write = write_native_image
    if not options.native:
        write = functools.partial(write_image, keep_layers=options.keep_layers)
    with download.judged():
        return write(
            image,
            target,
            compression=options.compression,
            overwrite=options.overwrite,
            report=download.report,
        )


def _download_need(image: RemoteImage, options: PullOptions) -> Need:
    """Return what the cache has to take; a layout's blobs are used where they lie."""
    store = Store(options.cache)
    layers = {layer.digest: layer for layer in image.manifest.layers}.values()
    missing = 0
    if image.reference.transport != "oci":
        missing = sum(layer.size for layer in layers if not store.has(layer.digest))
    return Need(folder=options.cache, size=missing, purpose="the download")


def _find_converted(options: PullOptions, digest: str) -> Path | None:
    """Return an earlier conversion from the user's cache or from a shared one."""
    own = _converted_path(options, digest)
    caches = (options.cache, options.shared_cache)
    paths = (cache / own.relative_to(options.cache) for cache in caches if cache)
    return next((path for path in paths if path.exists()), None)


def _copy_converted(
    converted: Path, download: _Download, target: Path, options: PullOptions
) -> WrittenImage:
    """Write the image with the layers of an earlier conversion, which have the same bytes."""
    download.begin(layers=False)
    image = read_ocisif(converted)
    documents = functools.partial(
        convert_documents,
        _source(download, _recorded_name(download.reference, options)),
        compression=str(options.compression),
    )
    with (
        OciSifWriter(target, layer_count=len(image.layers), overwrite=options.overwrite) as writer,
        converted.open("rb") as source,
    ):
        for layer in image.layers:
            with writer.layer(layer.media_type) as out:
                start = out.tell()
                copy_range(
                    source.fileno(), out.fileno(), start=layer.offset, size=layer.size, at=start
                )
        return writer.finish(functools.partial(_checked, documents, image))


def _checked(make: MakeDocuments, image: OciSif, layers: Sequence[Descriptor]) -> Documents:
    """Return the documents, unless the cache gave other bytes than were once written to it."""
    if [layer.digest for layer in layers] != [layer.digest for layer in image.layers]:
        raise VerificationError(
            f"{image.path} in the cache is damaged", hint=f"remove it: rm {image.path}"
        )
    return make(layers)


def _source(download: _Download, name: str) -> Source:
    image = download.image()
    return Source(
        raw_manifest=image.raw_manifest,
        media_type=image.media_type,
        raw_config=download.config(),
        reference=name,
        local=_local_name(download.reference, image.digest),
    )


def _local_name(reference: Reference, digest: Digest) -> tuple[str, str]:
    """Return agent and name for a definition file: ``oci``, ``sha256:...``."""
    is_named = reference.transport == "docker-daemon"
    return reference.transport, str(reference).partition(":")[2] if is_named else digest
