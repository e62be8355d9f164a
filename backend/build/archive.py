"""What ``docker save`` writes, turned into an OCI layout while it streams in.

Every Docker names the configuration and the layers of an image in ``manifest.json``, which
comes last; the members before it are kept under their names until then.  Layers are plain tar
there and stay that, so nothing is packed that is unpacked a moment later.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from typing import IO, TYPE_CHECKING

from backend.errors import FormatError
from backend.oci import media
from backend.oci.json import MAX_DOCUMENT, load

if TYPE_CHECKING:
    from pathlib import Path

_CHUNK = 1 << 20
_MAX_MEMBERS = 10_000


def unpack_archive(stream: IO[bytes], layout: Path) -> None:
    """Read a Docker archive of one image and leave it as an OCI layout.

    Args:
        stream: The archive; read once, forwards.
        layout: The folder to make.

    Raises:
        FormatError: It is no such archive.
    """
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    try:
        members = _members(stream, blobs)
    except tarfile.TarError as error:
        raise FormatError(f"the builder's archive is damaged: {error}") from error
    listing = members.get("manifest.json")
    if listing is None:
        raise FormatError("the builder's archive has no manifest.json")
    images = load((blobs / listing).read_bytes()[:MAX_DOCUMENT], "manifest.json").items()
    if len(images) != 1:
        raise FormatError(f"the builder's archive has {len(images)} images")
    config = _found(members, images[0].need("Config").text())
    layers = [_found(members, name) for name in images[0].need("Layers").texts()]
    _write_layout(layout, config, layers)


def _members(stream: IO[bytes], blobs: Path) -> dict[str, str]:
    """Store every file of an archive under its digest; return the digests by name."""
    found: dict[str, str] = {}
    links: dict[str, str] = {}
    with tarfile.open(fileobj=stream, mode="r|*") as archive:
        for count, member in enumerate(archive):
            if count > _MAX_MEMBERS:
                raise FormatError("the builder's archive has too many members")
            name = os.path.normpath(member.name)
            if member.issym() or member.islnk():
                base = name.rpartition("/")[0] if member.issym() else ""
                links[name] = os.path.normpath(os.path.join(base, member.linkname))
            elif member.isreg() and (file := archive.extractfile(member)):
                found[name] = _store(file, blobs)
    # A layer that occurs twice is a link the second time.
    return found | {name: found[to] for name, to in links.items() if to in found}


def _store(file: IO[bytes], blobs: Path) -> str:
    """Write a blob and return the hexadecimal digits of its digest."""
    temporary = blobs / ".incoming"
    hasher = hashlib.sha256()
    with temporary.open("wb") as out:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
            out.write(chunk)
    temporary.replace(blobs / hasher.hexdigest())
    return hasher.hexdigest()


def _found(members: dict[str, str], name: str) -> str:
    digest = members.get(os.path.normpath(name))
    if digest is None:
        raise FormatError(f"the builder's archive lacks {name!r}")
    return digest


def _write_layout(layout: Path, config: str, layers: list[str]) -> None:
    blobs = layout / "blobs" / "sha256"

    def described(digest: str, kind: str) -> dict[str, object]:
        size = (blobs / digest).stat().st_size
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": size}

    def layer_kind(digest: str) -> str:
        with (blobs / digest).open("rb") as file:
            return media.OCI_LAYER + ("+gzip" if file.read(2) == b"\x1f\x8b" else "")

    manifest = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": described(config, media.OCI_CONFIG),
        "layers": [described(digest, layer_kind(digest)) for digest in layers],
    }
    raw = json.dumps(manifest, separators=(",", ":")).encode()
    name = hashlib.sha256(raw).hexdigest()
    (blobs / name).write_bytes(raw)
    index = {"schemaVersion": 2, "manifests": [described(name, media.OCI_MANIFEST)]}
    (layout / "index.json").write_text(json.dumps(index), encoding="ascii")
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}', encoding="ascii")
