"""What a person wants to know of registries before a pull: short look-ups, all cancellable."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlencode

from backend.errors import AuthenticationError, BackendError, FormatError, NotFoundError
from backend.oci import media
from backend.oci.image import Descriptor, parse_config, parse_index, parse_manifest
from backend.oci.json import Node, load
from backend.oci.source import read_blob
from backend.reference import DOCKER_HUB, Reference, parse_name
from backend.registry.transport import read_body

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from backend.oci.digest import Digest
    from backend.oci.image import ImageConfig
    from backend.oci.platform import Platform
    from backend.oci.source import Source
    from backend.registry.client import RegistryClient

Standing = Literal["ok", "refused", "none", "needed", "unreachable"]

_HUB_SEARCH = "https://hub.docker.com/v2/search/repositories/"
_QUAY_SEARCH = "https://quay.io/api/v1/find/repositories"
_AT_ONCE = 16
"""Look-ups at a time; more bring rate limits rather than speed."""
_MAX_ANSWER = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformImage:
    """An image for one platform.

    Attributes:
        platform: What it is for; None when nothing says.
        digest: Of its manifest.
        size: Bytes of its layers; None when they were not looked up.
    """

    platform: Platform | None
    digest: Digest
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What stands behind a tag.

    Attributes:
        reference: As asked for.
        digest: Of the manifest or index that the tag names.
        media_type: Of the same.
        images: All platforms.
        chosen: Of the image that the rest describes.
        layers: Base first.
        config: None for artifacts that are no images.
        annotations: Of the manifest; hostile.
        raw: The manifest or index that the tag names.
    """

    reference: Reference
    digest: Digest
    media_type: str
    images: tuple[PlatformImage, ...]
    chosen: Digest
    layers: tuple[Descriptor, ...]
    config: ImageConfig | None
    annotations: Mapping[str, str]
    raw: bytes

    @property
    def size(self) -> int:
        """Bytes of all layers."""
        return sum(layer.size for layer in self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A tag and what is known of it.

    Attributes:
        name: Of the tag.
        digest: "" when it was not looked up.
        created: RFC 3339, from the image's configuration; "" when it was not looked up.
        same_as: The tag, before it in the list, that names the same digest; "" for none.
    """

    name: str
    digest: str = ""
    created: str = ""
    same_as: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A repository that a search found.

    Attributes:
        name: With the registry.
        description: Of its owner; hostile.
        stars: How many people like it; -1 where the registry does not count.
        is_official: Whether the registry's makers vouch for it.
    """

    name: str
    description: str = ""
    stars: int = -1
    is_official: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How we stand with a registry.

    Attributes:
        login: ``ok`` (our login was accepted), ``refused``, ``none`` (it lets everybody in and
            asked for no login), ``needed``, or ``unreachable``.
        detail: Why, unless all is well.
        is_secure: Whether we talk HTTPS to it.
    """

    login: Standing
    detail: str = ""
    is_secure: bool = True


async def preview(client: Source, reference: Reference, wanted: Platform) -> Preview:
    """Return what stands behind ``reference``; of several platforms, ``wanted`` or the first.

    Raises:
        BackendError: As :meth:`RegistryClient.fetch_manifest`.
    """
    raw = top = await client.fetch_manifest(reference)
    images: tuple[PlatformImage, ...] = (PlatformImage(platform=None, digest=top.digest),)
    depth = 0
    while raw.is_index:
        entries = _images(parse_index(raw.data).manifests)
        if not entries:
            hint = "its owner has to push images first"
            raise NotFoundError(f"{reference} is an index without images", hint=hint)
        if not depth:
            images = tuple(
                PlatformImage(platform=one.platform, digest=one.digest) for one in entries
            )
        fitting = [one for one in entries if one.platform and wanted.accepts(one.platform)]
        entry = (fitting or entries)[0]
        raw = await client.fetch_manifest(reference.with_digest(entry.digest))
        depth += 1
        if depth > 4:
            raise FormatError(f"{reference} has indexes nested too deep")
    manifest = parse_manifest(raw.data, raw.media_type)
    config = None
    if manifest.config.media_type in {media.OCI_CONFIG, media.DOCKER_CONFIG}:
        config = parse_config(await read_blob(client, reference, manifest.config))
        if not top.is_index:
            images = (replace(images[0], platform=config.platform),)
    size = sum(layer.size for layer in manifest.layers)
    return Preview(
        reference=reference,
        digest=top.digest,
        media_type=top.media_type,
        images=tuple(
            replace(one, size=size) if one.digest == raw.digest else one for one in images
        ),
        chosen=raw.digest,
        layers=manifest.layers,
        config=config,
        annotations=manifest.annotations,
        raw=top.data,
    )


async def platform_sizes(client: RegistryClient, found: Preview) -> tuple[PlatformImage, ...]:
    """Return the images of a preview with the sizes of all of them looked up."""

    async def measure(one: PlatformImage) -> PlatformImage:
        if one.size is not None:
            return one
        raw = await client.fetch_manifest(found.reference.with_digest(one.digest))
        if raw.is_index:
            return one
        manifest = parse_manifest(raw.data, raw.media_type)
        return replace(one, size=sum(layer.size for layer in manifest.layers))

    return tuple(await asyncio.gather(*(measure(one) for one in found.images)))


async def describe_tags(
    client: RegistryClient,
    reference: Reference,
    names: Iterable[str],
    wanted: Platform,
    *,
    dates: bool = False,
) -> tuple[Tag, ...]:
    """Return tags with their digests, in the order given; a tag that has gone has none.

    Args:
        client: Asks.
        reference: Of the repository.
        names: The tags.
        wanted: The platform whose image's date counts.
        dates: Look up when the images were made as well: two more requests for each digest.
    """
    places = asyncio.Semaphore(_AT_ONCE)

    async def describe(name: str) -> Tag:
        async with places:
            there = replace(reference, tag=name, digest=None)
            digest = await client.find_digest(there)
            return Tag(name=name, digest=digest)

    tags = mark_aliases(await asyncio.gather(*(describe(name) for name in names)))
    if not dates:
        return tags

    async def date(digest: str) -> tuple[str, str]:
        async with places:
            there = replace(reference, tag=next(t.name for t in tags if t.digest == digest))
            try:
                found = await preview(client, there, wanted)
            except BackendError:
                return digest, ""
            return digest, found.config.created if found.config else ""

    digests = {tag.digest for tag in tags if tag.digest}
    created = dict(await asyncio.gather(*(date(digest) for digest in digests)))
    return tuple(replace(tag, created=created.get(tag.digest, "")) for tag in tags)


def mark_aliases(tags: Iterable[Tag]) -> tuple[Tag, ...]:
    """Return the tags, those that name the digest of an earlier one marked."""
    first: dict[str, str] = {}
    marked = []
    for tag in tags:
        earlier = first.setdefault(tag.digest, tag.name) if tag.digest else tag.name
        marked.append(replace(tag, same_as=earlier if earlier != tag.name else ""))
    return tuple(marked)


def version_key(tag: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key that sorts tags as versions: numbers by value, ``1.2-rc1`` before ``1.2``."""
    parts = re.findall(r"\d+|[A-Za-z]+", tag)
    key = [(1, int(part[:18]), "") if part.isdigit() else (0, 0, part.lower()) for part in parts]
    starts_with_word = bool(key) and key[0][0] == 0 and key[0][2] != "v"
    if key and key[0] == (0, 0, "v"):
        key = key[1:]
    # Words before numbers at the front: "latest" is no version, and stands last when reversed.
    head = [(0, 0, "")] if starts_with_word or not key else [(1, 0, "")]
    # The end of a version counts more than a word after it, and less than a number.
    return (*head, *key, (0, 1, ""))


async def search(client: RegistryClient, term: str, registry: str, limit: int) -> tuple[Hit, ...]:
    """Return repositories whose name or description has ``term``.

    Docker Hub and Quay have search interfaces of their own; of others the catalogue is read.

    Raises:
        NotFoundError: The registry can neither search nor list.
        NetworkError: It cannot be reached.
    """
    if registry == DOCKER_HUB:
        return await _search_hub(client, term, limit)
    if registry == "quay.io":
        return await _search_quay(client, term, limit)
    names = await client.repositories(registry)
    found = [name for name in names if term.lower() in name.lower()]
    return tuple(Hit(name=f"{registry}/{name}") for name in found[:limit])


async def check(client: RegistryClient, registry: str, *, has_login: bool) -> State:
    """Return how we stand with a registry, by its ``/v2/``.

    Args:
        client: Knows the login, if there is one.
        registry: Host and port.
        has_login: Whether the client will find a login for it.
    """
    lacking: Standing = "refused" if has_login else "needed"
    try:
        await client.admit(Reference(transport="docker", registry=registry))
        url = await client.session.base(registry)
        async with client.session.transport.open("GET", f"{url}/v2/", {}) as response:
            is_open = response.status_code == 200
        async with client.session.open("GET", registry, "/v2/", scope="") as response:
            status = response.status_code
    except AuthenticationError as error:
        is_secure = (await client.session.base(registry)).startswith("https:")
        return State(login=lacking, detail=error.message, is_secure=is_secure)
    except BackendError as error:
        return State(login="unreachable", detail=": ".join(filter(None, (str(error), error.why))))
    is_secure = url.startswith("https:")
    if status in {401, 403}:
        return State(login=lacking, detail=f"it answered {status}", is_secure=is_secure)
    if status >= 400:
        return State(login="unreachable", detail=f"it answered {status} to /v2/")
    return State(login="none" if is_open else "ok", is_secure=is_secure)


async def _search_hub(client: RegistryClient, term: str, limit: int) -> tuple[Hit, ...]:
    query = urlencode({"query": term, "page_size": min(limit, 100)})
    root = await _ask(client, f"{_HUB_SEARCH}?{query}")
    return tuple(
        Hit(
            name=str(parse_name(_text(one, "repo_name")))
            .removeprefix("docker://")
            .partition(":")[0],
            description=_text(one, "short_description"),
            stars=_number(one, "star_count"),
            is_official=one.object().get("is_official") is True,
        )
        for one in root.need("results").items()[:limit]
    )


async def _search_quay(client: RegistryClient, term: str, limit: int) -> tuple[Hit, ...]:
    query = urlencode({"query": term})
    root = await _ask(client, f"{_QUAY_SEARCH}?{query}")
    return tuple(
        Hit(
            name=f"quay.io/{_text(one.need('namespace'), 'name')}/{_text(one, 'name')}",
            description=_text(one, "description"),
            stars=_number(one, "stars"),
        )
        for one in root.need("results").items()[:limit]
    )


async def _ask(client: RegistryClient, url: str) -> Node:
    """Return a JSON document from an address that is no registry; nobody's login goes there."""
    from backend.registry.session import problem

    headers = {"Accept": "application/json"}
    async with client.session.transport.open("GET", url, headers) as response:
        if response.status_code != 200:
            raise await problem(response, "search")
        return load(await read_body(response, _MAX_ANSWER), "the answer to the search")


def _images(entries: Iterable[Descriptor]) -> list[Descriptor]:
    """Return the entries of an index that are images, not attestations of images."""
    return [
        entry
        for entry in entries
        if not (entry.platform and entry.platform.architecture == "unknown")
        and not entry.artifact_type
    ]


def _text(node: Node, key: str) -> str:
    found = node.get(key)
    return found.text() if found else ""


def _number(node: Node, key: str) -> int:
    value = node.object().get(key)
    return value if type(value) is int else -1


async def find_referrers(
    client: RegistryClient, reference: Reference, artifact_type: str = ""
) -> tuple[Descriptor, ...]:
    """Return what refers to an image, and what cosign stored beside it under its tags.

    Args:
        client: Asks.
        reference: A tag is looked up first.
        artifact_type: Only what is of this type; "" for all.

    Raises:
        BackendError: As :meth:`RegistryClient.fetch_manifest`.
    """
    top = await client.fetch_manifest(reference)
    there = reference.with_digest(top.digest)
    found = list(await client.referrers(there, artifact_type))
    for suffix in ("sig", "att", "sbom"):
        tag = f"{top.digest.replace(':', '-')}.{suffix}"
        try:
            raw = await client.fetch_manifest(replace(reference, tag=tag, digest=None))
        except NotFoundError:
            continue
        found.append(
            Descriptor(
                media_type=raw.media_type,
                digest=raw.digest,
                size=len(raw.data),
                artifact_type=f"application/vnd.dev.cosign.{suffix}",
            )
        )
    return tuple(one for one in found if artifact_type in {"", one.artifact_type})
