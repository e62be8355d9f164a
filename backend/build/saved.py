"""What ``docker save`` sends, as an OCI layout, made while it comes in.

Docker 25 and later send the files of a layout, and ``manifest.json`` for readers of the old
form.  Older daemons and Podman send that form alone: layers are files that it names, and the
manifest is made from it.  Either way a blob is written once, under the digest of the bytes that
came, and the archive itself is never on the disk.
"""

from __future__ import annotations

import hashlib
import posixpath
import tarfile
from typing import IO, TYPE_CHECKING

from backend.errors import FormatError
from backend.escape import quoted
from backend.oci import media
from backend.oci.digest import Digest
from backend.oci.image import Descriptor, Manifest
from backend.oci.json import MAX_DOCUMENT, dump, load

if TYPE_CHECKING:
    from pathlib import Path

_CHUNK = 1 << 20
_MAX_MEMBERS = 100_000
_LAYOUT = ("oci-layout", "index.json")
_LISTING = "manifest.json"


def write_saved(stream: IO[bytes], layout: Path) -> None:
    """Write an image that ``docker save`` sends into a new layout.

    Args:
        stream: The archive, of one image; read forwards only, to its end.
        layout: A folder that is not there yet.

    Raises:
        FormatError: This is no such archive.
    """
    saved = _Saved(layout)
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK) as archive:
            for count, member in enumerate(archive):
                if count == _MAX_MEMBERS:
                    raise FormatError(f"the archive has more than {_MAX_MEMBERS:,} members")
                saved.take(archive, member)
    except tarfile.TarError as error:
        raise FormatError(f"what the daemon saved is no tar archive: {error}") from error
    saved.finish()


class _Saved:
    """The members of an archive, as they come.

    Args:
        layout: Gets the blobs.
    """

    def __init__(self, layout: Path) -> None:
        self._layout = layout
        self._blobs = layout / "blobs" / "sha256"
        self._blobs.mkdir(parents=True)
        self._documents: dict[str, bytes] = {}
        self._found: dict[str, Descriptor] = {}
        self._links: dict[str, str] = {}

    def take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Take the next member."""
        name = posixpath.normpath(member.name)
        if member.issym() or member.islnk():
            folder = posixpath.dirname(name) if member.issym() else ""
            self._links[name] = posixpath.normpath(posixpath.join(folder, member.linkname))
            return
        file = archive.extractfile(member) if member.isreg() else None
        if file is None:
            return
        if name in {*_LAYOUT, _LISTING}:
            if member.size > MAX_DOCUMENT:
                raise FormatError(f"{name} is {member.size} bytes large")
            self._documents[name] = file.read()
        else:
            self._found[name] = self._put(file)

    def finish(self) -> None:
        """Write what makes the blobs a layout.

        Raises:
            FormatError: Neither form is complete.
        """
        if not all(name in self._documents for name in _LAYOUT):
            self._documents |= {
                "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
                "index.json": dump({"schemaVersion": 2, "manifests": [self._manifest().to_json()]}),
            }
        for name in _LAYOUT:
            (self._layout / name).write_bytes(self._documents[name])

    def _manifest(self) -> Descriptor:
        """Write a manifest for the image of the old form, and return where it is."""
        images = load(self._documents.get(_LISTING, b"[]"), _LISTING).items()
        if not images:
            raise FormatError("what the daemon saved holds no image")
        image = images[0]
        manifest = Manifest(
            media_type=media.OCI_MANIFEST,
            config=self._blob(image.need("Config").text(), media.OCI_CONFIG),
            layers=tuple(
                self._blob(name, media.OCI_LAYER) for name in image.need("Layers").texts()
            ),
        )
        raw = dump(manifest.to_json())
        digest = hashlib.sha256(raw).hexdigest()
        (self._blobs / digest).write_bytes(raw)
        return Descriptor(
            media_type=media.OCI_MANIFEST, digest=Digest(f"sha256:{digest}"), size=len(raw)
        )

    def _blob(self, name: str, media_type: str) -> Descriptor:
        """Return the blob that a member became, through the link that Docker may put there."""
        name = posixpath.normpath(name)
        found = self._found.get(name) or self._found.get(self._links.get(name, ""))
        if found is None:
            raise FormatError(f"what the daemon saved lacks {quoted(name, limit=120)}")
        return Descriptor(media_type=media_type, digest=found.digest, size=found.size)

    def _put(self, file: IO[bytes]) -> Descriptor:
        """Write a blob under the digest of its bytes."""
        hasher, size = hashlib.sha256(), 0
        arriving = self._blobs / "arriving"
        with arriving.open("wb") as out:
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
                size += out.write(chunk)
        digest = hasher.hexdigest()
        arriving.rename(self._blobs / digest)
        return Descriptor(media_type="", digest=Digest(f"sha256:{digest}"), size=size)
