"""The folder of a registry: bytes by their digest, and small files that say who has what.

::

    blobs/sha256/HEX                              the bytes of blobs and manifests
    repositories/NAME/_blobs/sha256/HEX           empty: the repository has this blob
    repositories/NAME/_manifests/sha256/HEX       media type of this manifest
    repositories/NAME/_tags/TAG                   digest
    repositories/NAME/_referrers/sha256/HEX/...   empty: manifests whose subject HEX is
    uploads/ID                                    what arrived of an upload
    lock                                          held by the one process that serves

No component of a repository's name starts with an underscore, so the names cannot meet.
Every file is complete, and on the disk, when its name appears (temporary file, fsync,
rename), so a reader sees the old or the new state, and what a client was told is there stays
there when the machine stops.  One process serves a folder (``lock``), on one thread, and each
method here runs from start to end without waiting: that is what makes concurrent pushes safe.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from backend.errors import ExistsError, FormatError
from backend.labregistry.answers import RefusedError
from backend.oci.digest import Digest, parse_digest
from backend.staging import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_MANIFEST = 4 << 20
"""Bytes of a manifest; the specification asks registries to take at least this much."""
_MAX_BLOB = 64 << 30
_MAX_UPLOADS = 512
_UPLOAD_AGE_S = 3600.0
"""Seconds without a byte after which an unfinished upload makes room for others."""


@dataclass(slots=True, kw_only=True)
class Upload:
    """An upload that is not finished.

    Attributes:
        id: In the upload's address; cannot be guessed.
        name: The repository.
        path: Where its bytes are.
        file: Open for appending.
        size: Bytes so far.
        hash: SHA-256 of them.
        touched: When the last of them came (monotonic clock).
        is_busy: A request is sending bytes right now.
    """

    id: str
    name: str
    path: Path
    file: BinaryIO
    size: int = 0
    hash: hashlib._Hash = field(default_factory=hashlib.sha256)
    touched: float = field(default_factory=time.monotonic)
    is_busy: bool = False

    def append(self, data: bytes) -> None:
        """Write the next bytes.

        Raises:
            RefusedError: The blob becomes larger than any we take.
        """
        if self.size + len(data) > _MAX_BLOB:
            raise RefusedError(
                413, "SIZE_INVALID", f"blobs over {_MAX_BLOB >> 30} GiB are not taken"
            )
        self.file.write(data)
        self.hash.update(data)
        self.size += len(data)
        self.touched = time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredManifest:
    """A manifest as it was pushed."""

    digest: Digest
    media_type: str
    data: bytes


def is_served(root: Path) -> bool:
    """Tell whether a process serves the registry in a folder."""
    try:
        lock = os.open(root / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


class Storage:
    """One folder of a registry.

    Args:
        root: Made when it is not there.

    Raises:
        ExistsError: Another process serves the folder.
        OSError: The folder cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._uploads: dict[str, Upload] = {}
        for folder in ("blobs/sha256", "blobs/sha512", "repositories", "uploads"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        self._lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise ExistsError(
                f"another process serves {root}", hint="stop it, or name another --root"
            ) from error
        for left in (root / "uploads").iterdir():
            left.unlink()

    def close(self) -> None:
        """Drop unfinished uploads and let another process serve the folder."""
        for upload in list(self._uploads.values()):
            self.drop_upload(upload)
        os.close(self._lock)

    # Blobs

    def blob(self, name: str, digest: Digest) -> Path | None:
        """Return the file of a blob, if the repository has it."""
        return self._bytes(digest) if self.has_blob(name, digest) else None

    def has_blob(self, name: str, digest: Digest) -> bool:
        """Tell whether the repository has the blob."""
        return self._marker(name, "_blobs", digest).exists()

    def link_blob(self, name: str, digest: Digest) -> None:
        """Give a repository a blob that another has."""
        self._mark(name, "_blobs", digest)

    def remove_blob(self, name: str, digest: Digest) -> bool:
        """Take a blob from a repository; return whether it had it."""
        return self._unmark(name, "_blobs", digest)

    # Uploads

    def start_upload(self, name: str) -> Upload:
        """Return a new, empty upload to a repository.

        Raises:
            RefusedError: Too many are under way.
        """
        oldest = time.monotonic() - _UPLOAD_AGE_S
        for upload in list(self._uploads.values()):
            if upload.touched < oldest and not upload.is_busy:
                self.drop_upload(upload)
        if len(self._uploads) >= _MAX_UPLOADS:
            raise RefusedError(429, "TOOMANYREQUESTS", "too many unfinished uploads")
        identity = secrets.token_hex(16)
        path = self._root / "uploads" / identity
        upload = Upload(id=identity, name=name, path=path, file=path.open("xb"))
        self._uploads[identity] = upload
        return upload

    def upload(self, name: str, identity: str) -> Upload | None:
        """Return an unfinished upload of a repository."""
        found = self._uploads.get(identity)
        return found if found and found.name == name else None

    def cut_upload(self, upload: Upload, size: int) -> None:
        """Take back what came after the first ``size`` bytes."""
        upload.file.flush()
        upload.file.truncate(size)
        upload.file.seek(size)
        upload.size = size
        upload.hash = _hash_file(upload.path, "sha256")

    def finish_upload(self, upload: Upload, digest: Digest) -> None:
        """Make the upload a blob of its repository.

        Raises:
            RefusedError: The bytes do not have this digest; the upload is dropped.
        """
        upload.file.flush()
        algorithm = digest.partition(":")[0]
        hashed = upload.hash if algorithm == "sha256" else _hash_file(upload.path, algorithm)
        if f"{algorithm}:{hashed.hexdigest()}" != digest:
            self.drop_upload(upload)
            raise RefusedError(
                400, "DIGEST_INVALID", f"the {upload.size} bytes do not have {digest}"
            )
        os.fsync(upload.file.fileno())
        _appear(upload.path, self._bytes(digest))
        self._mark(upload.name, "_blobs", digest)
        self.drop_upload(upload)

    def drop_upload(self, upload: Upload) -> None:
        """Forget an upload and the bytes that came."""
        self._uploads.pop(upload.id, None)
        upload.file.close()
        upload.path.unlink(missing_ok=True)

    # Manifests and tags

    def manifest(self, name: str, digest: Digest) -> StoredManifest | None:
        """Return a manifest of a repository."""
        marker = self._marker(name, "_manifests", digest)
        try:
            media_type = marker.read_text()
        except FileNotFoundError:
            return None
        data = self._bytes(digest).read_bytes()
        return StoredManifest(digest=digest, media_type=media_type, data=data)

    def has_manifest(self, name: str, digest: Digest) -> bool:
        """Tell whether the repository has the manifest."""
        return self._marker(name, "_manifests", digest).exists()

    def put_manifest(
        self, name: str, manifest: StoredManifest, *, tag: str = "", subject: Digest | None = None
    ) -> None:
        """Keep a manifest, and point the tag and the subject's list of referrers at it."""
        self._write(self._bytes(manifest.digest), manifest.data)
        marker = self._marker(name, "_manifests", manifest.digest)
        self._write(marker, manifest.media_type.encode())
        if subject:
            self._mark(name, f"_referrers/{subject.replace(':', '/')}", manifest.digest)
        if tag:
            self._write(self._repository(name) / "_tags" / tag, manifest.digest.encode())

    def remove_manifest(self, name: str, digest: Digest, subject: Digest | None) -> bool:
        """Take a manifest and its tags from a repository; return whether it was there."""
        if subject:
            place = f"_referrers/{subject.replace(':', '/')}"
            self._marker(name, place, digest).unlink(missing_ok=True)
        for tag in self.tags(name):
            if self.tag(name, tag) == digest:
                self.remove_tag(name, tag)
        return self._unmark(name, "_manifests", digest)

    def tag(self, name: str, tag: str) -> Digest | None:
        """Return the digest of the manifest that has the tag."""
        try:
            return parse_digest((self._repository(name) / "_tags" / tag).read_text())
        except (FileNotFoundError, FormatError):
            return None

    def remove_tag(self, name: str, tag: str) -> bool:
        """Remove a tag; return whether it was there."""
        try:
            (self._repository(name) / "_tags" / tag).unlink()
        except FileNotFoundError:
            return False
        return True

    def tags(self, name: str) -> list[str]:
        """Return a repository's tags in ASCII order."""
        return _names(self._repository(name) / "_tags")

    def has_repository(self, name: str) -> bool:
        """Tell whether anything was ever pushed to a repository."""
        folder = self._repository(name)
        return (folder / "_manifests").is_dir() or (folder / "_blobs").is_dir()

    def repositories(self) -> list[str]:
        """Return the names of the repositories in ASCII order."""
        top = self._root / "repositories"
        found = []
        for folder, below, _files in os.walk(top):
            if "_manifests" in below or "_blobs" in below:
                found.append(os.path.relpath(folder, top))
            below[:] = [name for name in below if not name.startswith("_")]
        return sorted(found)

    def referrers(self, name: str, subject: Digest) -> Iterator[StoredManifest]:
        """Yield the manifests of a repository that are about ``subject``, by digest."""
        folder = self._repository(name) / "_referrers" / subject.replace(":", "/")
        for algorithm in _names(folder):
            for value in _names(folder / algorithm):
                found = self.manifest(name, Digest(f"{algorithm}:{value}"))
                if found:
                    yield found

    # Files

    def _repository(self, name: str) -> Path:
        return self._root / "repositories" / name

    def _bytes(self, digest: Digest) -> Path:
        return self._root / "blobs" / digest.replace(":", "/")

    def _marker(self, name: str, kind: str, digest: Digest) -> Path:
        return self._repository(name) / kind / digest.replace(":", "/")

    def _mark(self, name: str, kind: str, digest: Digest) -> None:
        marker = self._marker(name, kind, digest)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        sync_folder(marker.parent)

    def _unmark(self, name: str, kind: str, digest: Digest) -> bool:
        """Remove a marker, and the bytes when no repository has them any more."""
        try:
            self._marker(name, kind, digest).unlink()
        except FileNotFoundError:
            return False
        kinds = ("_blobs", "_manifests")
        kept = (self._marker(other, own, digest) for other in self.repositories() for own in kinds)
        if not any(marker.exists() for marker in kept):
            self._bytes(digest).unlink(missing_ok=True)
        return True

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file so that it appears whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._root / "uploads" / secrets.token_hex(16)
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _appear(temporary, path)


def _appear(temporary: Path, path: Path) -> None:
    """Give a file that is on the disk its name, for good."""
    temporary.replace(path)
    sync_folder(path.parent)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _hash_file(path: Path, algorithm: str) -> hashlib._Hash:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm)
