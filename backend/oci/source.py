"""Where images come from: what a registry, a layout and an archive have in common.

A :class:`Source` gives manifests and blobs; :func:`resolve` turns a reference into the one
image for a platform, whatever the source is.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from backend.errors import FormatError, NotFoundError, VerificationError
from backend.escape import one_line
from backend.oci import media
from backend.oci.digest import Digest, hasher
from backend.oci.image import Manifest, parse_config, parse_index, parse_manifest
from backend.oci.json import MAX_DOCUMENT, load

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from backend.oci.image import Descriptor, Index
    from backend.oci.platform import Platform
    from backend.reference import Reference

    ReadBlob = Callable[["Source", Reference, Descriptor], Awaitable[bytes]]

_MAX_DEPTH = 4
"""Indexes within indexes; the specification sets no limit, and nobody needs more than two."""


_BROKEN = "where it comes from, or something on the way, is broken; try again, and tell its owner"


@dataclass(frozen=True, slots=True, kw_only=True)
class RawManifest:
    """A manifest or index as it was received.

    Attributes:
        data: The bytes.
        media_type: What it is, by its own word or that of its source.
        digest: Over ``data``.
    """

    data: bytes
    media_type: str
    digest: Digest

    @property
    def is_index(self) -> bool:
        """Whether it is an index (Docker: manifest list)."""
        return self.media_type in media.INDEXES


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteImage:
    """One image for one platform, found at its source.

    Attributes:
        reference: As it was asked for.
        digest: Of the platform's manifest.
        media_type: Of the platform's manifest.
        raw_manifest: The platform's manifest as received.
        manifest: The same, parsed.
        platform: What the image is for.
    """

    reference: Reference
    digest: Digest
    media_type: str
    raw_manifest: bytes
    manifest: Manifest
    platform: Platform


class BlobSource(Protocol):
    """Something that holds blobs."""

    def stream_blob(
        self, reference: Reference, descriptor: Descriptor, offset: int = 0
    ) -> AsyncGenerator[bytes]:
        """Yield a blob's bytes from ``offset`` on, not verified.

        Raises:
            NotFoundError: There is no such blob.
            NetworkError: The bytes ended too early.
        """

    def local_file(self, descriptor: Descriptor) -> Path | None:
        """Return a file that is this blob, to be used where it lies; None when there is none."""


class Source(BlobSource, Protocol):
    """Something that holds images."""

    async def fetch_manifest(self, reference: Reference) -> RawManifest:
        """Return the manifest or index that ``reference`` names.

        Raises:
            NotFoundError: There is none.
            VerificationError: It does not have the digest asked for.
        """


async def read_blob(source: Source, reference: Reference, descriptor: Descriptor) -> bytes:
    """Return a small blob, such as an image configuration, verified.

    Raises:
        FormatError: It is larger than a document may be.
        VerificationError: It does not have its digest or size.
    """
    check_document_size(descriptor)
    data = bytearray()
    async with aclosing(source.stream_blob(reference, descriptor)) as chunks:
        async for chunk in chunks:
            data += chunk
            if len(data) > descriptor.size:
                break
    verify(bytes(data), descriptor.digest, size=descriptor.size)
    return bytes(data)


async def resolve(
    source: Source, reference: Reference, platform: Platform, *, read: ReadBlob = read_blob
) -> RemoteImage:
    """Return the image that ``reference`` means on ``platform``.

    Args:
        source: Where it is.
        reference: Names it.
        platform: Chosen from an index.
        read: Reads a configuration, where only that says what an image is for.

    Raises:
        NotFoundError: There is none, or none for the platform; the hint says what there is.
        FormatError: What is there is no image.
        VerificationError: A document does not have the digest that names it.
    """
    raw = await source.fetch_manifest(reference)
    if raw.is_index:
        found, named = await _choose(source, reference, raw, platform, depth=1)
        if found is None:
            raise await _not_for(source, reference, raw, platform)
        raw = found
    else:
        named = None
    if raw.media_type not in media.MANIFESTS:
        raise FormatError(f"{reference} is no image but {one_line(raw.media_type, limit=120)}")
    manifest = parse_manifest(raw.data, raw.media_type)
    _check_is_image(manifest, reference)
    if named is None or not named.architecture:
        named = await _configured(source, reference, manifest, read)
        if named and not platform.accepts(named):
            raise missing_platform(reference, platform, [named])
    return RemoteImage(
        reference=reference,
        digest=raw.digest,
        media_type=manifest.media_type,
        raw_manifest=raw.data,
        manifest=manifest,
        platform=named or platform,
    )


def _check_is_image(manifest: Manifest, reference: Reference) -> None:
    """Refuse what registries hold besides images of layers.

    Raises:
        FormatError: It is a SIF file, or another artifact, or nobody can read its layers.
    """
    kind = manifest.config.media_type
    if kind == media.SIF_CONFIG:
        artifact = str(reference).replace("docker://", "oras://", 1)
        raise FormatError(
            f"{reference} is a SIF file, not an image of layers", hint=f"try {artifact}"
        )
    if manifest.artifact_type != media.DATA_CONTAINER and kind not in media.CONFIGS:
        named = one_line(manifest.artifact_type or kind, limit=120)
        raise FormatError(
            f"{reference} is no container image but an artifact: {named}",
            hint=f"sifdeck manifest {reference} shows what it holds",
        )
    if any(layer.media_type.endswith("+encrypted") for layer in manifest.layers):
        raise FormatError(
            f"the layers of {reference} are encrypted",
            hint="decrypt them first: skopeo copy --decryption-key",
        )


def check_document_size(descriptor: Descriptor) -> None:
    """Check that a blob is small enough to be read into memory.

    Raises:
        FormatError: It is larger than a document may be.
    """
    if descriptor.size > MAX_DOCUMENT:
        raise FormatError(f"{descriptor.digest} is larger than {MAX_DOCUMENT >> 20} MiB")


def verify(data: bytes, digest: Digest, *, size: int | None = None) -> None:
    """Check that ``data`` has a digest, and a size.

    Raises:
        VerificationError: It has not.
    """
    if size is not None and len(data) != size:
        raise VerificationError(
            f"{digest} has the wrong size",
            why=f"expected {size} bytes, got {len(data)} or more",
            hint=_BROKEN,
        )
    found = hasher(digest)
    found.update(data)
    got = f"{digest.partition(':')[0]}:{found.hexdigest()}"
    if got != digest:
        raise VerificationError(
            f"{digest} has other content", why=f"its digest is {got}", hint=_BROKEN
        )


def document_type(data: bytes, declared: str) -> str:
    """Return what a manifest document is: its own ``mediaType``, else ``declared``.

    A document that can be read as both a manifest and an index is refused (CVE-2021-41190).

    Raises:
        FormatError: It is neither, or both.
    """
    root = load(data, "the manifest")
    members = root.object()
    if "manifests" in members and ("layers" in members or "config" in members):
        raise FormatError("the manifest claims to be an image and an index at once")
    own = root.get("mediaType")
    named = own.text() if own else declared
    if members.get("schemaVersion") == 1 or named == media.DOCKER_SCHEMA1:
        raise FormatError(
            "the image is in Docker's schema 1, which was given up in 2017",
            hint="pull and push it with a current Docker, or ask its owner to",
        )
    if named in media.MANIFESTS | media.INDEXES:
        return named
    return media.OCI_INDEX if "manifests" in members else media.OCI_MANIFEST


def missing_platform(
    reference: Reference, wanted: Platform, offered: list[Platform]
) -> NotFoundError:
    """Return the error that lists the platforms there are."""
    there = ", ".join(sorted({one_line(str(one), limit=40) for one in offered}))
    if not there:
        return NotFoundError(f"{reference} has no image for {wanted}", why="it holds no images")
    return NotFoundError(
        f"{reference} has no image for {wanted}",
        why=f"it is for: {there}",
        hint="choose one with --platform",
    )


async def _choose(
    source: Source, reference: Reference, raw: RawManifest, platform: Platform, *, depth: int
) -> tuple[RawManifest | None, Platform | None]:
    """Return the manifest for a platform, looked for in nested indexes after direct entries."""
    index = parse_index(raw.data, raw.media_type)
    if direct := _best(index, platform):
        return await _fetch(source, reference, direct), direct.platform
    for entry in index.manifests:
        fits = entry.platform is None or platform.accepts(entry.platform)
        if entry.media_type in media.INDEXES and fits:
            if depth == _MAX_DEPTH:
                raise FormatError(f"{reference} has indexes nested more than {_MAX_DEPTH} deep")
            inner = await _fetch(source, reference, entry)
            found = await _choose(source, reference, inner, platform, depth=depth + 1)
            if found[0]:
                return found
    return None, None


def _best(index: Index, platform: Platform) -> Descriptor | None:
    """Return the entry for a platform; of several variants the highest that it can run."""
    images = [entry for entry in index.manifests if entry.media_type not in media.INDEXES]
    fitting = [entry for entry in images if entry.platform and platform.accepts(entry.platform)]
    if fitting:
        return max(fitting, key=lambda entry: entry.platform.variant if entry.platform else "")
    # An index of one image often does not say what it is for; its configuration does.
    return images[0] if len(images) == 1 and images[0].platform is None else None


async def _fetch(source: Source, reference: Reference, entry: Descriptor) -> RawManifest:
    check_document_size(entry)
    return await source.fetch_manifest(reference.with_digest(entry.digest))


async def _configured(
    source: Source, reference: Reference, manifest: Manifest, read: ReadBlob
) -> Platform | None:
    """Return what an image's configuration says it is for; None when that says nothing."""
    if manifest.config.media_type not in {media.OCI_CONFIG, media.DOCKER_CONFIG}:
        return None
    config = parse_config(await read(source, reference, manifest.config))
    return config.platform if config.platform.architecture else None


async def _not_for(
    source: Source, reference: Reference, raw: RawManifest, platform: Platform
) -> NotFoundError:
    offered = await platforms(source, reference, raw)
    return missing_platform(reference, platform, offered)


async def platforms(
    source: Source, reference: Reference, raw: RawManifest, *, depth: int = 1
) -> list[Platform]:
    """Return the platforms of an index, nested ones included, without attestations."""
    found: list[Platform] = []
    for entry in parse_index(raw.data, raw.media_type).manifests:
        if entry.media_type in media.INDEXES and depth < _MAX_DEPTH:
            inner = await _fetch(source, reference, entry)
            found += await platforms(source, reference, inner, depth=depth + 1)
        elif entry.platform and entry.platform.architecture not in {"", "unknown"}:
            found.append(entry.platform)
    return found
