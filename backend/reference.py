"""References: what a person types to name an image, wherever it is.

``docker://registry/name:tag@digest``, ``oras://...``, ``oci:DIR[:TAG|@DIGEST]``,
``oci-archive:FILE[:TAG]``, ``docker-archive:FILE[:REF]``, ``docker-daemon:REF``,
``library://...``, ``http(s)://...`` and the path of a file.

The grammar of registry names is that of the distribution specification 1.1 and of Docker's
``reference`` package; ``ubuntu`` means ``docker.io/library/ubuntu:latest``, as it does there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, get_args

from backend.errors import FormatError, UsageError
from backend.escape import one_line, quoted
from backend.masking import mask_url
from backend.oci.digest import Digest, parse_digest

Transport = Literal[
    "docker",
    "oras",
    "library",
    "oci",
    "oci-archive",
    "docker-archive",
    "docker-daemon",
    "http",
    "https",
    "file",
]

DOCKER_HUB = "docker.io"
DOCKER_HUB_HOST = "registry-1.docker.io"
"""Where the registry that is called docker.io answers."""

_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
    r"|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
)
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MAX_TEXT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One image, somewhere; as text without the secrets that an address may hold.

    Attributes:
        transport: How to get at it.
        registry: Host and port (``docker``, ``oras``); empty for the others.
        repository: Path in the registry; for archives and layouts empty.
        tag: Empty when the text names a digest only, or none is needed.
        digest: None when the text names no digest.
        path: Of a file or directory, or the whole URL for ``http`` and ``https``.
    """

    transport: Transport
    registry: str = ""
    repository: str = ""
    tag: str = ""
    digest: Digest | None = None
    path: str = ""

    def __str__(self) -> str:
        tail = (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")
        if self.transport in {"docker", "oras", "library"}:
            return f"{self.transport}://{self.name}{tail}"
        if self.transport == "file":
            return self.path
        if self.transport in {"http", "https"}:
            return mask_url(self.path)
        return f"{self.transport}:{self.path or self.name}{tail}"

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return "/".join(part for part in (self.registry, self.repository) if part)

    @property
    def version(self) -> str:
        """What to ask a registry for: the digest when there is one, else the tag."""
        return self.digest or self.tag

    @property
    def is_remote(self) -> bool:
        """Whether it takes a network to read it."""
        return self.transport in {"docker", "oras", "library", "http", "https"}

    def with_digest(self, digest: Digest) -> Reference:
        """Return the same image, fixed to ``digest``."""
        return replace(self, digest=digest)

    def file_name(self, *, suffix: str = ".oci.sif") -> str:
        """Return SingularityCE's default name for the file that a pull writes.

        ``docker://ubuntu`` gives ``ubuntu_latest.oci.sif``, a digest ``ubuntu@sha256_HEX...``.
        """
        if self.transport in {"http", "https"}:
            last = self.path.partition("?")[0].rstrip("/").rpartition("/")[2]
            return last or f"image{suffix}"
        base = (self.repository or self.path.rstrip("/")).rpartition("/")[2] or "image"
        if self.digest and not self.tag:
            return f"{base}@{self.digest.replace(':', '_')}{suffix}"
        for ending in (".tar", ".tar.gz", ".oci.tar"):
            base = base.removesuffix(ending) if self.path else base
        tag = self.tag.replace("/", "_").replace(":", "_") or "latest"
        return f"{base}_{tag}{suffix}"


def parse(text: str) -> Reference:
    """Return what ``text`` names.

    Text without a transport is a file when it looks like a path (``./x``, ``/x``, ``x.sif``) or
    exists; otherwise the error says how to write a registry reference.

    Raises:
        UsageError: The text names nothing; the hint says how it would.
    """
    if not text or len(text) > _MAX_TEXT or any(ord(char) < 0x20 for char in text):
        hint = "write docker://NAME[:TAG], or the name of a file"
        raise UsageError(f"not an image: {quoted(text, limit=80)}", hint=hint)
    scheme, found, rest = text.partition(":")
    if not found or scheme not in get_args(Transport):
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
            raise _unknown(scheme, rest)
        return _file(text)
    if scheme in {"docker", "oras", "library"}:
        if not rest.startswith("//"):
            right = f"{scheme}://{one_line(rest.lstrip('/'))}"
            raise UsageError(f"{quoted(text)} lacks two slashes", hint=f"write {right}")
        name = rest.removeprefix("//")
        if scheme == "docker":
            if re.fullmatch(r"(localhost|[^/]*\.[^/]*):\d+", name):
                hint = f"write {scheme}://{one_line(name)}/NAME:TAG"
                raise UsageError(f"{quoted(name)} names a registry and no image in it", hint=hint)
            return parse_name(name)
        return _remote(name, "oras" if scheme == "oras" else "library", default_registry="")
    return _other(scheme, rest, text)


def _unknown(scheme: str, rest: str) -> UsageError:
    """Return the error for a transport that we do not know."""
    known = get_args(Transport)
    hint = f"known are {', '.join(known)}"
    if scheme.lower() in known:
        hint = f"write {scheme.lower()}:{one_line(rest)}"
    return UsageError(f"there is no transport {quoted(scheme, limit=40)}", hint=hint)


def parse_name(name: str) -> Reference:
    """Return the registry image that ``name`` (``ubuntu:22.04``, ``ghcr.io/x/y``) means.

    Raises:
        UsageError: It is no valid name.
    """
    return _remote(name, "docker", default_registry=DOCKER_HUB)


def _remote(name: str, transport: Transport, *, default_registry: str) -> Reference:
    rest, _, digest_text = name.partition("@")
    if "/" in digest_text:
        raise UsageError(
            "a login does not stand in the name of an image",
            hint=f"sifdeck registry login -u USER docker://{one_line(digest_text.partition('/')[0])}",
        )
    head, slash, tail = rest.partition("/")
    if slash and (
        head == "localhost" or any(char in head for char in ".:[") or head != head.lower()
    ):
        registry, rest = head, tail
    else:
        registry = default_registry
    repository, _, tag = rest.partition(":")
    if registry in {"index.docker.io", DOCKER_HUB_HOST}:
        registry = DOCKER_HUB
    if registry == DOCKER_HUB and "/" not in repository and repository:
        repository = f"library/{repository}"
    _check(name, registry, repository, tag)
    if ":" in rest and not tag:
        hint = "write it after the colon, or leave the colon out for latest"
        raise UsageError(f"the tag of {quoted(name)} is empty", hint=hint)
    return Reference(
        transport=transport,
        registry=registry,
        repository=repository,
        tag=tag or ("" if digest_text else "latest"),
        digest=_digest(digest_text, name) if "@" in name else None,
    )


def _check(name: str, registry: str, repository: str, tag: str) -> None:
    """Raise the UsageError that says which part of a name is wrong."""
    shown = quoted(name, limit=120)
    if registry and not _is_host(registry):
        raise UsageError(
            f"{quoted(registry)} in {shown} is not a registry host",
            hint="it is a name or an address, with a port where needed, as localhost:5000",
        )
    if not repository:
        raise UsageError("the image has no name", hint="as docker://ghcr.io/group/name:tag has one")
    if not _REPOSITORY.fullmatch(repository) or len(repository) > 255:
        hint = "names are lower case, as in docker://ghcr.io/group/name:tag"
        raise UsageError(f"{quoted(repository)} in {shown} is not a repository", hint=hint)
    if tag and not _TAG.fullmatch(tag):
        hint = "tags are letters, digits, _ . and -, at most 128"
        raise UsageError(f"{quoted(tag)} in {shown} is not a tag", hint=hint)


def _is_host(text: str) -> bool:
    port = text.rpartition("]")[2].partition(":")[2]
    return bool(_HOST.fullmatch(text)) and (not port or 0 < int(port) < 1 << 16)


def _digest(text: str, name: str) -> Digest:
    try:
        return parse_digest(text)
    except FormatError as error:
        hint = "it is sha256: and 64 digits from 0 to f"
        raise UsageError(
            f"the digest of {quoted(name, limit=120)} is not one", hint=hint
        ) from error


def _other(scheme: str, rest: str, text: str) -> Reference:
    """Parse the transports that are no registry."""
    if scheme in {"http", "https"}:
        if not re.fullmatch(r"//[^/\s]+(/\S*)?", rest):
            hint = f"write {scheme}://HOST/PATH"
            raise UsageError(f"not an address: {quoted(mask_url(text))}", hint=hint)
        return Reference(transport="https" if scheme == "https" else "http", path=text)
    if scheme == "file":
        return _file(rest.removeprefix("//"))
    if not rest:
        raise UsageError(f"{scheme}: names no file", hint=f"write {scheme}:PATH")
    if scheme == "docker-daemon":
        return replace(parse_name(rest), transport="docker-daemon")
    path, at, digest = rest.partition("@")
    if at:
        return Reference(transport=_archive(scheme), path=path, digest=_digest(digest, rest))
    head, colon, tag = rest.partition(":")
    return Reference(transport=_archive(scheme), path=head if colon else rest, tag=tag)


def _archive(scheme: str) -> Transport:
    if scheme == "oci":
        return "oci"
    return "oci-archive" if scheme == "oci-archive" else "docker-archive"


def _file(text: str) -> Reference:
    return Reference(transport="file", path=text)
