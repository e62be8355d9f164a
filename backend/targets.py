"""Images of tar layers on disk: OCI layouts, OCI archives and Docker archives.

Layers go through as a stream: what they are called and how long they are is known when they
have passed, so an archive's header is written then, in front of them.  A target appears when
it is complete, under the rules of :mod:`backend.staging`.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self

from backend.assembly import layer_sources
from backend.copying import copy_range
from backend.errors import FormatError
from backend.events import Phase
from backend.layers.inflate import InflatedLayer
from backend.oci import media
from backend.oci.digest import Digest, digest_of, digest_of_range
from backend.oci.image import Descriptor, parse_config, parse_manifest
from backend.oci.json import dump, load
from backend.sif.provenance import of_archives
from backend.staging import StagedFile, StagedFolder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future
    from pathlib import Path
    from types import TracebackType

    from backend.assembly import Assembly
    from backend.events import Report

_CHUNK = 1 << 20
_BLOCK = 512
_TAR_END = bytes(2 * _BLOCK)
_MAX_OCTAL = 0o77777777777
_LEVEL = 4
"""Of gzip: half the time of 6 for 3 % more bytes.  zlib's, whose bytes are the same on every
processor, which isal does not promise."""
_WINDOW = 1 << 15
_GZIP_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_LAST_BLOCK = b"\x03\0"
"""An empty deflate block that says it is the last."""


class Sink(Protocol):
    """Takes the files of an image."""

    def add(self, name: str, data: bytes) -> None:
        """Write a small file."""

    def stream(self, name: str, chunks: Iterable[bytes]) -> tuple[Digest, int]:
        """Write a file whose name holds ``{}`` for its SHA-256; return digest and size."""

    def copy(self, name: str, file: BinaryIO) -> tuple[Digest, int]:
        """Do the same with a file's bytes."""


class FolderSink:
    """A new folder; a context manager whose ``commit`` gives it its name."""

    def __init__(self, target: Path) -> None:
        self._staged = StagedFolder(target)

    def __enter__(self) -> Self:
        self._staged.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._staged.__exit__(kind, error, trace)

    def add(self, name: str, data: bytes) -> None:  # noqa: D102  (as the protocol says)
        path = self._staged.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def stream(self, name: str, chunks: Iterable[bytes]) -> tuple[Digest, int]:  # noqa: D102
        digest, size = hashlib.sha256(), 0
        part = self._staged.path / "part"
        with part.open("wb") as out:
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                out.write(chunk)
        return self._named(part, name, Digest(f"sha256:{digest.hexdigest()}")), size

    def copy(self, name: str, file: BinaryIO) -> tuple[Digest, int]:  # noqa: D102
        size = os.fstat(file.fileno()).st_size
        part = self._staged.path / "part"
        with part.open("w+b") as out:
            copy_range(file.fileno(), out.fileno(), start=0, size=size, at=0)
            digest = digest_of_range(out.fileno(), 0, size)
        return self._named(part, name, digest), size

    def _named(self, part: Path, name: str, digest: Digest) -> Digest:
        path = self._staged.path / name.format(digest.partition(":")[2])
        path.parent.mkdir(parents=True, exist_ok=True)
        part.replace(path)
        return digest

    def commit(self) -> None:
        """Let the folder appear."""
        umask = os.umask(0)
        os.umask(umask)
        self._staged.path.chmod(0o777 & ~umask)
        self._staged.commit()


class ArchiveSink:
    """A new tar archive; a context manager whose ``commit`` gives it its name."""

    def __init__(self, target: Path, *, overwrite: bool) -> None:
        self._staged = StagedFile(target, overwrite=overwrite, mode=0o666)
        self._names: set[str] = set()

    def __enter__(self) -> Self:
        self._staged.__enter__()
        self._out = os.fdopen(self._staged.fd, "r+b", buffering=0, closefd=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._staged.__exit__(kind, error, trace)

    def add(self, name: str, data: bytes) -> None:  # noqa: D102  (as the protocol says)
        self.stream(name, [data])

    def stream(self, name: str, chunks: Iterable[bytes]) -> tuple[Digest, int]:  # noqa: D102
        digest, size = hashlib.sha256(), 0
        self._enter(name.rpartition("/")[0])
        start = self._out.tell()
        self._out.seek(start + _BLOCK)
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            self._write(chunk)
        named = name.format(digest.hexdigest())
        if named in self._names:  # the same layer twice
            self._out.seek(start)
            self._out.truncate()
        else:
            self._names.add(named)
            self._write(bytes(-size % _BLOCK))
            end = self._out.tell()
            self._out.seek(start)
            self._write(_header(named, size))
            self._out.seek(end)
        return Digest(f"sha256:{digest.hexdigest()}"), size

    def copy(self, name: str, file: BinaryIO) -> tuple[Digest, int]:  # noqa: D102
        return self.stream(name, iter(lambda: file.read(_CHUNK), b""))

    def commit(self) -> None:
        """End the archive and let it appear."""
        self._write(_TAR_END)
        self._staged.commit()

    def _enter(self, folder: str) -> None:
        """Write entries for a folder and those above it: some readers do not make them."""
        if folder and folder not in self._names:
            self._enter(folder.rpartition("/")[0])
            self._names.add(folder)
            self._write(_header(folder + "/", 0, kind=b"5", mode=b"0000755\0"))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._out.write(view) :]


def _header(name: str, size: int, *, kind: bytes = b"0", mode: bytes = b"0000644\0") -> bytes:
    """Return a ustar header; a large size in GNU's base 256."""
    sized = b"%011o\0" % size if size <= _MAX_OCTAL else b"\x80" + size.to_bytes(11, "big")
    head = name.encode().ljust(100, b"\0") + mode + 2 * b"0000000\0" + sized
    head += b"%011o\0" % 0 + b" " * 8 + kind
    block = (head.ljust(257, b"\0") + b"ustar\x0000").ljust(_BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def write_layout(image: Assembly, sink: Sink, tag: str, report: Report) -> Digest:
    """Write an image as an OCI layout and return its digest.

    An image whose layers are archives already keeps its documents and layers to the byte.

    Raises:
        FormatError: The image breaks its specification.
        VerificationError: A layer is not what its diffID says.
    """
    sink.add("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    blob = "blobs/sha256/{}"
    counter = _Counter(report)
    if image.has_diff_ids:
        for index, layer in enumerate(image.layers):
            with image.open_layer(index) as packed:
                found = sink.copy(blob, packed)
            if found != (layer.digest, layer.size):
                raise FormatError(f"{layer.digest} has other content")
            counter.add(layer.size)
        raw_config, raw_manifest = image.source.raw_config, image.source.raw_manifest
    else:
        raw_config, raw_manifest = _packed(image, sink, blob, counter)
    counter.end()
    manifest = parse_manifest(raw_manifest, image.source.media_type)
    for data in (raw_config, raw_manifest):
        sink.add(blob.format(digest_of(data).partition(":")[2]), data)
    entry = Descriptor(
        media_type=manifest.media_type,
        digest=digest_of(raw_manifest),
        size=len(raw_manifest),
        annotations={"org.opencontainers.image.ref.name": tag or "latest"},
    )
    listed = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [entry.to_json()]}
    sink.add("index.json", dump(listed))
    return entry.digest


def write_docker_archive(image: Assembly, sink: Sink, name: str, report: Report) -> Digest:
    """Write an image as ``docker save`` does and return the digest of its configuration.

    Args:
        image: The image.
        sink: The archive.
        name: ``repository:tag`` that ``docker load`` gives the image; empty for none.
        report: Gets the events of the phase ``convert``.

    Raises:
        FormatError: The image breaks its specification.
        VerificationError: A layer is not what its diffID says.
    """
    config = parse_config(image.source.raw_config)
    layers: list[str] = []
    diff_ids: list[Digest] = []
    counter = _Counter(report)
    for number, source in enumerate(layer_sources(image, config), 1):
        with InflatedLayer(source, label=f"layer {number} of {len(image.layers)}") as layer:
            diff_id, _ = sink.stream("{}.tar", counter.count(layer))
            layer.verify()
        layers.append(f"{diff_id.partition(':')[2]}.tar")
        diff_ids.append(diff_id)
    counter.end()
    raw = image.source.raw_config
    if not image.has_diff_ids:
        raw = _with_diff_ids(raw, diff_ids)
    digest = digest_of(raw)
    file = f"{digest.partition(':')[2]}.json"
    sink.add(file, raw)
    listed = [{"Config": file, "RepoTags": [name] if name else None, "Layers": layers}]
    sink.add("manifest.json", dump(listed))
    return digest


class _Counter:
    """Tells how many bytes of the layers went through."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._done = 0

    def count(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the chunks, counted."""
        for chunk in chunks:
            self.add(len(chunk))
            yield chunk

    def add(self, size: int) -> None:
        """Tell of some more."""
        self._done += size
        self._report(Phase(name="convert", done=self._done))

    def end(self) -> None:
        """Tell that it was all."""
        self._report(Phase(name="convert", done=self._done, state="done"))


def _packed(image: Assembly, sink: Sink, blob: str, counter: _Counter) -> tuple[bytes, bytes]:
    """Pack layers that are made as they are read; return configuration and manifest."""
    layers: list[Descriptor] = []
    diff_ids: list[Digest] = []
    for index, _ in enumerate(image.layers):
        with image.open_layer(index) as opened:
            chunks = iter(lambda opened=opened: opened.read(_CHUNK), b"")  # type: ignore[misc]
            packing = _Packing(counter.count(chunks))
            digest, size = sink.stream(blob, packing)
        layers.append(Descriptor(media_type=media.OCI_LAYER + "+gzip", digest=digest, size=size))
        diff_ids.append(packing.diff_id())
    config = _with_diff_ids(image.source.raw_config, diff_ids)
    manifest = load(image.source.raw_manifest, "the manifest").object()
    described = Descriptor(media_type=media.OCI_CONFIG, digest=digest_of(config), size=len(config))
    if manifest.get("annotations"):
        manifest["annotations"] = of_archives(manifest["annotations"])
    manifest |= {
        "mediaType": media.OCI_MANIFEST,
        "config": described.to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    return config, dump(manifest)


class _Packing:
    """Compresses an archive on its way, on all cores, and knows what it was before.

    One gzip member of pieces that are deflated side by side, each with the end of the one
    before as its dictionary, as pigz does it.  The pieces do not depend on the threads.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self._digest = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        threads = len(os.sched_getaffinity(0))
        waiting: deque[Future[bytes]] = deque()
        window, check, size = b"", 0, 0
        yield _GZIP_HEAD
        with ThreadPoolExecutor(threads, thread_name_prefix="gzip") as pool:
            for piece in _pieces(self._chunks):
                self._digest.update(piece)
                check, size = zlib.crc32(piece, check), size + len(piece)
                waiting.append(pool.submit(_deflate, piece, window))
                window = piece[-_WINDOW:]
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            for packed in waiting:
                yield packed.result()
        yield _LAST_BLOCK + struct.pack("<II", check, size & 0xFFFFFFFF)

    def diff_id(self) -> Digest:
        """Return the digest of what was packed."""
        return Digest(f"sha256:{self._digest.hexdigest()}")


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes in pieces of one size, the last one shorter."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        while len(held) >= _CHUNK:
            yield bytes(held[:_CHUNK])
            del held[:_CHUNK]
    if held:
        yield bytes(held)


def _deflate(piece: bytes, window: bytes) -> bytes:
    """Return a piece as deflate blocks that end on a byte, and do not end the stream."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=window)
    return packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH)


def _with_diff_ids(raw_config: bytes, diff_ids: list[Digest]) -> bytes:
    """Return a configuration for other layers; a history that does not fit them is left out."""
    config = load(raw_config, "the image configuration").object()
    config["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
    history = parse_config(raw_config).history
    if sum(not entry.empty_layer for entry in history) != len(diff_ids):
        config.pop("history", None)
    return dump(config)
