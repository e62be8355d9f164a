"""Descriptors, manifests, indexes and image configurations, parsed from the bytes received.

OCI image specification 1.1 and Docker's ``manifest.v2``, which differ in media types only.
Parsing keeps what the specification names; whoever needs the rest has the bytes.
"""

from __future__ import annotations

from types import MappingProxyType

from backend.errors import FormatError
from backend.oci import media
from backend.oci.digest import parse_digest
from backend.oci.json import Node, load
from backend.oci.platform import Platform
from backend.values import Value

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

    from backend.oci.digest import Digest

MAX_LAYERS = 1024
"""Docker stops at 127, overlayfs at 500; more is an attack."""
MAX_ENTRIES = 4096
"""Entries of one index."""
_NOTHING: Mapping[str, str] = MappingProxyType({})


class Descriptor(Value):
    """A pointer to a blob, manifest or index.

    Attributes:
        media_type: Of what it points to.
        digest: Over the bytes it points to.
        size: Of those bytes.
        annotations: Free text by key; hostile.
        platform: In an index; None when the index does not say.
        artifact_type: What the thing is, where it is no image.
        urls: Other places of the same bytes; we never follow them.
    """

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = _NOTHING
    platform: Platform | None = None
    artifact_type: str = ""
    urls: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the members in ggcr's order, absent ones left out."""
        out: dict[str, object] = {
            "mediaType": self.media_type,
            "size": self.size,
            "digest": self.digest,
        }
        if self.annotations:
            out["annotations"] = dict(self.annotations)
        if self.platform:
            members = {"architecture": self.platform.architecture, "os": self.platform.os}
            if self.platform.variant:
                members["variant"] = self.platform.variant
            out["platform"] = members
        if self.artifact_type:
            out["artifactType"] = self.artifact_type
        return out


class Manifest(Value):
    """An image manifest.

    Attributes:
        media_type: OCI's or Docker's.
        config: Points to the image configuration.
        layers: Base layer first.
        annotations: Free text by key; hostile.
        artifact_type: What it is, where it is no image.
        subject: What it is about (a signature's image).
    """

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = _NOTHING
    artifact_type: str = ""
    subject: Descriptor | None = None

    def to_json(self) -> dict[str, object]:
        """Return the members in ggcr's order, absent ones left out."""
        out: dict[str, object] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }
        if self.annotations:
            out["annotations"] = dict(self.annotations)
        if self.subject:
            out["subject"] = self.subject.to_json()
        if self.artifact_type:
            out["artifactType"] = self.artifact_type
        return out


class Index(Value):
    """An image index (Docker: manifest list)."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = _NOTHING


class History(Value):
    """One line of ``docker history``.

    Attributes:
        created: RFC 3339, as it stands in the file; empty when absent.
        created_by: The instruction.
        comment: Free text.
        author: Free text.
        empty_layer: No layer belongs to it.
    """

    created: str = ""
    created_by: str = ""
    comment: str = ""
    author: str = ""
    empty_layer: bool = False


class ImageConfig(Value):
    """An image configuration, the parts that say how to run it.

    Attributes:
        platform: What it was built for.
        created: RFC 3339, as it stands in the file; empty when absent.
        env: ``NAME=value`` entries in order.
        entrypoint: Empty when the image has none.
        cmd: Default arguments.
        working_dir: Empty when the image names none.
        user: Dockerfile ``USER`` as written; empty when absent.
        labels: Free text by key; hostile.
        exposed_ports: Such as ``80/tcp``.
        volumes: Absolute paths.
        stop_signal: Such as ``SIGTERM``; empty when absent.
        shell: Dockerfile ``SHELL``.
        diff_ids: Of the uncompressed layers, base first.
        history: Base first.
    """

    platform: Platform
    created: str = ""
    author: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    labels: Mapping[str, str] = _NOTHING
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    shell: tuple[str, ...] = ()
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[History, ...] = ()


def parse_manifest(data: bytes, media_type: str = "") -> Manifest:
    """Parse an image manifest.

    Args:
        data: As received.
        media_type: From the Content-Type or the descriptor; used where the document says none.

    Raises:
        FormatError: It is no manifest; the text names the place.
    """
    root = load(data, "the manifest")
    layers = root.need("layers").items()
    if len(layers) > MAX_LAYERS:
        raise FormatError(f"the manifest has {len(layers)} layers; at most {MAX_LAYERS} are read")
    subject = root.get("subject")
    return Manifest(
        media_type=_text(root, "mediaType") or media_type or media.OCI_MANIFEST,
        config=parse_descriptor(root.need("config")),
        layers=tuple(parse_descriptor(layer) for layer in layers),
        annotations=_mapping(root, "annotations"),
        artifact_type=_text(root, "artifactType"),
        subject=parse_descriptor(subject) if subject else None,
    )


def parse_index(data: bytes, media_type: str = "") -> Index:
    """Parse an image index or a Docker manifest list.

    Raises:
        FormatError: It is none; the text names the place.
    """
    root = load(data, "the index")
    manifests = root.need("manifests").items()
    if len(manifests) > MAX_ENTRIES:
        raise FormatError(f"the index has {len(manifests)} entries; at most {MAX_ENTRIES} are read")
    return Index(
        media_type=_text(root, "mediaType") or media_type or media.OCI_INDEX,
        manifests=tuple(parse_descriptor(entry) for entry in manifests),
        annotations=_mapping(root, "annotations"),
    )


def parse_descriptor(node: Node) -> Descriptor:
    """Parse one descriptor.

    Raises:
        FormatError: It is none; the text names the place.
    """
    try:
        digest = parse_digest(node.need("digest").text())
    except FormatError as error:
        raise FormatError(f"{node.path}: {error.message}") from error
    platform = node.get("platform")
    urls = node.get("urls")
    return Descriptor(
        media_type=_text(node, "mediaType"),
        digest=digest,
        size=node.need("size").size(),
        annotations=_mapping(node, "annotations"),
        platform=_platform(platform) if platform else None,
        artifact_type=_text(node, "artifactType"),
        urls=urls.texts() if urls else (),
    )


def parse_config(data: bytes) -> ImageConfig:
    """Parse an image configuration.

    Raises:
        FormatError: It is none; the text names the place.
    """
    root = load(data, "the image configuration")
    config = root.get("config") or Node({}, "config")
    rootfs = root.get("rootfs") or Node({}, "rootfs")
    diff_ids = rootfs.get("diff_ids")
    history = root.get("history")
    return ImageConfig(
        platform=_platform(root),
        created=_text(root, "created"),
        author=_text(root, "author"),
        env=_texts(config, "Env"),
        entrypoint=_texts(config, "Entrypoint"),
        cmd=_texts(config, "Cmd"),
        working_dir=_text(config, "WorkingDir"),
        user=_text(config, "User"),
        labels=_mapping(config, "Labels"),
        exposed_ports=_keys(config, "ExposedPorts"),
        volumes=_keys(config, "Volumes"),
        stop_signal=_text(config, "StopSignal"),
        shell=_texts(config, "Shell"),
        diff_ids=tuple(parse_digest(item.text()) for item in diff_ids.items()) if diff_ids else (),
        history=tuple(_history(item) for item in history.items()) if history else (),
    )


def _history(node: Node) -> History:
    empty = node.get("empty_layer")
    return History(
        created=_text(node, "created"),
        created_by=_text(node, "created_by"),
        comment=_text(node, "comment"),
        author=_text(node, "author"),
        empty_layer=bool(empty and empty.value is True),
    )


def _platform(node: Node) -> Platform:
    return Platform(
        os=_text(node, "os"),
        architecture=_text(node, "architecture"),
        variant=_text(node, "variant"),
    )


def _text(node: Node, key: str) -> str:
    found = node.get(key)
    return found.text() if found else ""


def _texts(node: Node, key: str) -> tuple[str, ...]:
    found = node.get(key)
    if found is None:
        return ()
    # Old builders wrote a plain string where the specification wants an array.
    return (found.text(),) if isinstance(found.value, str) else found.texts()


def _mapping(node: Node, key: str) -> dict[str, str]:
    found = node.get(key)
    return found.mapping() if found else {}


def _keys(node: Node, key: str) -> tuple[str, ...]:
    found = node.get(key)
    return tuple(found.object()) if found else ()
