"""Images that tests make: layers as tar bytes, a configuration, a manifest, an OCI layout.

Everything is deterministic, and built from the specifications rather than with our own code.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."


@dataclass(kw_only=True)
class Entry:
    """One member of a layer; ``kind`` is a tarfile type."""

    name: str
    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    kind: bytes = tarfile.REGTYPE
    link: str = ""
    mtime: int = 1_600_000_000
    device: tuple[int, int] = (0, 0)
    pax: dict[str, str] = field(default_factory=dict)


def directory(name: str, mode: int = 0o755, **more: Any) -> Entry:
    return Entry(name=name, mode=mode, kind=tarfile.DIRTYPE, **more)


def symlink(name: str, target: str, **more: Any) -> Entry:
    return Entry(name=name, link=target, mode=0o777, kind=tarfile.SYMTYPE, **more)


def hardlink(name: str, target: str, **more: Any) -> Entry:
    return Entry(name=name, link=target, kind=tarfile.LNKTYPE, **more)


def layer(*entries: Entry) -> bytes:
    """Return an uncompressed PAX tar of the entries."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.mode, info.uid, info.gid, info.mtime = (
                entry.mode,
                entry.uid,
                entry.gid,
                entry.mtime,
            )
            info.type, info.linkname, info.pax_headers = entry.kind, entry.link, entry.pax
            info.devmajor, info.devminor = entry.device
            info.size = len(entry.data) if entry.kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(entry.data))
    return out.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(kw_only=True)
class MadeImage:
    """A complete image: every blob by digest, and the manifest that names them."""

    manifest: bytes
    media_type: str
    blobs: dict[str, bytes]

    @property
    def digest(self) -> str:
        return digest(self.manifest)


def image(
    layers: list[bytes],
    *,
    config: dict[str, Any] | None = None,
    compress: str = "gzip",
    docker: bool = False,
    architecture: str = "amd64",
    history: list[dict[str, Any]] | None = None,
    created: str = "2024-05-06T07:08:09Z",
) -> MadeImage:
    """Make an image of uncompressed tar layers (base first) and a config section (``Cmd`` ...)."""
    kind = "rootfs.diff.tar" if docker else "layer.v1.tar"
    suffix = {"gzip": ".gzip" if docker else "+gzip", "zstd": "+zstd", "": ""}[compress]
    media = (DOCKER + "image." if docker else OCI) + kind + suffix
    blobs: dict[str, bytes] = {}
    described = []
    for data in layers:
        packed = _pack(data, compress)
        blobs[digest(packed)] = packed
        described.append({"mediaType": media, "size": len(packed), "digest": digest(packed)})
    document = {
        "architecture": architecture,
        "os": "linux",
        "created": created,
        "config": config or {},
        "rootfs": {"type": "layers", "diff_ids": [digest(data) for data in layers]},
        "history": history
        or [
            {"created_by": f"layer {i}", "created": "2024-05-06T07:08:09Z"}
            for i, _ in enumerate(layers)
        ],
    }
    raw = json.dumps(document).encode()
    blobs[digest(raw)] = raw
    manifest_type = DOCKER + "distribution.manifest.v2+json" if docker else OCI + "manifest.v1+json"
    config_type = DOCKER + "container.image.v1+json" if docker else OCI + "config.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": {"mediaType": config_type, "size": len(raw), "digest": digest(raw)},
        "layers": described,
    }
    return MadeImage(manifest=json.dumps(manifest).encode(), media_type=manifest_type, blobs=blobs)


def _pack(data: bytes, compress: str) -> bytes:
    if compress == "gzip":
        return gzip.compress(data, 6, mtime=0)
    if compress == "zstd":
        import zstandard

        return zstandard.ZstdCompressor().compress(data)
    return data


def index(*images: tuple[MadeImage, str], docker: bool = False) -> bytes:
    """Return an index of (image, ``linux/arm64``) pairs."""
    entries = []
    for made, platform in images:
        os, architecture, *variant = platform.split("/")
        named = {"os": os, "architecture": architecture} | (
            {"variant": variant[0]} if variant else {}
        )
        entries.append(
            {
                "mediaType": made.media_type,
                "size": len(made.manifest),
                "digest": made.digest,
                "platform": named,
            }
        )
    media = DOCKER + "distribution.manifest.list.v2+json" if docker else OCI + "index.v1+json"
    return json.dumps({"schemaVersion": 2, "mediaType": media, "manifests": entries}).encode()


def write_layout(folder: Path, made: MadeImage, tag: str = "latest") -> Path:
    """Write an image as an OCI layout and return the folder."""
    store = folder / "blobs" / "sha256"
    store.mkdir(parents=True)
    for name, data in {**made.blobs, made.digest: made.manifest}.items():
        (store / name.removeprefix("sha256:")).write_bytes(data)
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    entry = {
        "mediaType": made.media_type,
        "size": len(made.manifest),
        "digest": made.digest,
        "annotations": {"org.opencontainers.image.ref.name": tag},
    }
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return folder


BUSYBOX = shutil.which("busybox") or "/bin/busybox"
APPLETS = (
    "sh ls cat id env echo pwd sleep true false mkdir rm touch stat mount kill tty stty test wc "
    "head ps dd"
)


def busybox_layer() -> bytes:
    """Return a layer that can run: Debian's busybox-static, /etc/passwd and /etc/group."""
    passwd = (
        b"root:x:0:0:root:/root:/bin/sh\n"
        b"daemon:x:1:1:daemon:/usr/sbin:/bin/sh\n"
        b"appuser:x:1000:1000:app:/home/appuser:/bin/sh\n"
    )
    group = b"root:x:0:\ndaemon:x:1:\nmail:x:8:appuser\nappuser:x:1000:\n"
    return layer(
        *(directory(name) for name in ("bin", "etc", "home", "proc", "dev", "sys", "usr", "var")),
        directory("home/appuser", uid=1000, gid=1000),
        directory("root", 0o700),
        directory("tmp", 0o1777),
        Entry(name="bin/busybox", data=Path(BUSYBOX).read_bytes(), mode=0o755),
        *(symlink(f"bin/{name}", "busybox") for name in APPLETS.split()),
        Entry(name="etc/passwd", data=passwd),
        Entry(name="etc/group", data=group),
    )
