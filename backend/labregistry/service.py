"""The end points of the distribution specification 1.1, on a :class:`Storage`.

The numbers in comments are those of the specification's table of end points.
"""

from __future__ import annotations

import errno
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

from backend.errors import FormatError
from backend.escape import quoted
from backend.labregistry.access import Access, Action, Need
from backend.labregistry.answers import Answer, FilePart, Headers, RefusedError, json_answer
from backend.labregistry.storage import MAX_MANIFEST, Storage, StoredManifest, Upload
from backend.oci import media
from backend.oci.digest import Digest, digest_of, hasher, parse_digest
from backend.oci.image import parse_index, parse_manifest
from backend.oci.json import dump, load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from backend.labregistry.wire import Request

_log = logging.getLogger(__name__)

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"(?=.{{1,255}}$){_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_PAGE = 1000
"""Entries of a page when the client does not say."""
_MAX_REFERRERS = MAX_MANIFEST - 4096
"""Bytes of one page of referrers: an index that any client must be able to read."""

_READS = frozenset({"GET", "HEAD"})
_ACTIONS: dict[str, Action] = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A request whose address was understood.

    Attributes:
        request: As it came.
        name: The repository; empty where the address has none.
        item: The last part of the address: a tag, a digest, an upload.
    """

    request: Request
    name: str = ""
    item: str = ""

    @property
    def digest(self) -> Digest:
        """The item, which must be a digest."""
        return _digest(self.item)


_Handler: TypeAlias = "Callable[[_Call], Awaitable[Answer]]"


class Service:
    """Answers requests.

    Args:
        storage: The registry's folder.
        access: Who may come in.
        read_only: Refuse whatever would change something.
    """

    def __init__(self, storage: Storage, access: Access, *, read_only: bool) -> None:
        self._storage = storage
        self._access = access
        self._read_only = read_only
        manifest: dict[str, _Handler] = {"GET": self._get_manifest, "PUT": self._put_manifest}
        upload: dict[str, _Handler] = {"GET": self._upload_status, "PATCH": self._append}
        self._routes: tuple[tuple[re.Pattern[str], dict[str, _Handler]], ...] = (
            (_route(""), {"GET": self._version}),  # end-1
            (_route("_catalog"), {"GET": self._catalog}),
            (_route("(?P<name>.+)/tags/list"), {"GET": self._tags}),  # end-8
            (
                _route("(?P<name>.+)/manifests/(?P<item>[^/]+)"),
                manifest | {"DELETE": self._delete_manifest},  # end-3, 7, 9
            ),
            (_route("(?P<name>.+)/blobs/uploads"), {"POST": self._start}),  # end-4, 11
            (
                _route("(?P<name>.+)/blobs/uploads/(?P<item>[^/]+)"),
                upload | {"PUT": self._finish, "DELETE": self._cancel},  # end-5, 6, 13
            ),
            (
                _route("(?P<name>.+)/blobs/(?P<item>[^/]+)"),
                {"GET": self._get_blob, "DELETE": self._delete_blob},  # end-2, 10
            ),
            (
                _route("(?P<name>.+)/referrers/(?P<item>[^/]+)"),
                {"GET": self._referrers},  # end-12
            ),
        )

    async def answer(self, request: Request) -> Answer:
        """Answer one request.

        Raises:
            RefusedError: It gets an error for an answer.
        """
        try:
            if request.path == "/token" and request.method == "GET":
                return await self._access.token(request)
            handler, call = self._find(request)
            await self._access.check(request, Need(repository=call.name, action=_action(request)))
            if self._read_only and request.method not in _READS:
                raise RefusedError(405, "UNSUPPORTED", "this registry is read-only")
            return await handler(call)
        except ConnectionError:
            raise
        except OSError as error:
            raise _storage_failed(error) from error

    def _find(self, request: Request) -> tuple[_Handler, _Call]:
        """Return the end point that an address and a method mean."""
        for pattern, handlers in self._routes:
            found = pattern.fullmatch(request.path)
            if not found:
                continue
            parts = found.groupdict()
            name = parts.get("name") or ""
            if "name" in parts and not _NAME.fullmatch(name):
                raise RefusedError(
                    400, "NAME_INVALID", f"not a repository: {quoted(name, limit=100)}"
                )
            handler = handlers.get("GET" if request.method == "HEAD" else request.method)
            if handler is None:
                allowed = (("Allow", ", ".join(sorted(handlers))),)
                raise RefusedError(405, "UNSUPPORTED", "not with this method", headers=allowed)
            return handler, _Call(request=request, name=name, item=parts.get("item") or "")
        raise RefusedError(404, "UNSUPPORTED", "there is nothing at this address")

    # Reading

    async def _version(self, _call: _Call) -> Answer:
        return json_answer({}, headers=(("Docker-Distribution-API-Version", "registry/2.0"),))

    async def _catalog(self, call: _Call) -> Answer:
        names, link = _page(call.request, self._storage.repositories(), "/v2/_catalog")
        return json_answer({"repositories": names}, headers=link)

    async def _tags(self, call: _Call) -> Answer:
        self._need_repository(call.name)
        tags = self._storage.tags(call.name)
        found, link = _page(call.request, tags, f"/v2/{call.name}/tags/list")
        return json_answer({"name": call.name, "tags": found}, headers=link)

    async def _get_blob(self, call: _Call) -> Answer:
        digest = call.digest
        path = self._storage.blob(call.name, digest)
        if path is None:
            raise RefusedError(404, "BLOB_UNKNOWN", f"{call.name} has no blob {digest}")
        size = path.stat().st_size
        headers: Headers = (
            ("Content-Type", "application/octet-stream"),
            ("Docker-Content-Digest", digest),
            ("ETag", f'"{digest}"'),
            ("Accept-Ranges", "bytes"),
        )
        part = _byte_range(call.request, size, digest)
        if part is None:
            whole = FilePart(path=path, offset=0, size=size)
            return Answer(status=200, headers=headers, body=whole)
        first, last = part
        headers += (("Content-Range", f"bytes {first}-{last}/{size}"),)
        body = FilePart(path=path, offset=first, size=last - first + 1)
        return Answer(status=206, headers=headers, body=body)

    async def _get_manifest(self, call: _Call) -> Answer:
        manifest = self._manifest(call)
        headers = (
            ("Content-Type", manifest.media_type),
            ("Docker-Content-Digest", manifest.digest),
            ("ETag", f'"{manifest.digest}"'),
        )
        return Answer(status=200, headers=headers, body=manifest.data)

    async def _referrers(self, call: _Call) -> Answer:
        subject, query = call.digest, call.request.query
        wanted, last = query.get("artifactType", ""), query.get("last", "")
        headers: Headers = (("Content-Type", media.OCI_INDEX),)
        if wanted:
            headers += (("OCI-Filters-Applied", "artifactType"),)
        entries: list[dict[str, object]] = []
        size = 0
        for manifest in self._storage.referrers(call.name, subject):
            entry = _describe(manifest)
            if manifest.digest <= last or (wanted and entry.get("artifactType") != wanted):
                continue
            size += len(dump(entry))
            if entries and size > _MAX_REFERRERS:
                after = f"last={entries[-1]['digest']}"
                after += f"&artifactType={quote(wanted, safe='')}" if wanted else ""
                headers += (_next(f"/v2/{call.name}/referrers/{subject}", after),)
                break
            entries.append(entry)
        index = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": entries}
        return json_answer(index, headers=headers)

    def _manifest(self, call: _Call) -> StoredManifest:
        digest = self._resolve(call)
        found = self._storage.manifest(call.name, digest) if digest else None
        if found is None:
            self._need_repository(call.name)
            raise RefusedError(404, "MANIFEST_UNKNOWN", f"{call.name} has no manifest {call.item}")
        return found

    def _resolve(self, call: _Call) -> Digest | None:
        if ":" in call.item:
            return call.digest
        return self._storage.tag(call.name, _tag(call.item))

    def _need_repository(self, name: str) -> None:
        if not self._storage.has_repository(name):
            raise RefusedError(404, "NAME_UNKNOWN", f"there is no repository {name}")

    # Blobs in

    async def _start(self, call: _Call) -> Answer:
        query = call.request.query
        mounted = query.get("mount")
        if mounted and self._mount(call, _digest(mounted)):
            return _created(f"/v2/{call.name}/blobs/{mounted}", _digest(mounted))
        upload = self._storage.start_upload(call.name)
        if "digest" not in query or mounted:
            return _accepted(upload)
        try:
            return await self._receive_rest(call.request, upload)
        except BaseException:
            # Nobody was told of this upload: nobody can go on with it.
            self._storage.drop_upload(upload)
            raise

    def _mount(self, call: _Call, digest: Digest) -> bool:
        """Take a blob from the repository that the client names; it may read that one too."""
        source = call.request.query.get("from", "")
        if not _NAME.fullmatch(source) or not self._storage.has_blob(source, digest):
            return False
        _, _, token = call.request.headers.get("authorization", "").partition(" ")
        if self._access.gives_tokens and not self._access.allows(token, Need(repository=source)):
            return False
        self._storage.link_blob(call.name, digest)
        return True

    async def _upload_status(self, call: _Call) -> Answer:
        return _accepted(self._upload(call), status=204)

    async def _append(self, call: _Call) -> Answer:
        upload = self._upload(call)
        await self._receive(call.request, upload)
        return _accepted(upload)

    async def _finish(self, call: _Call) -> Answer:
        upload = self._upload(call)
        return await self._receive_rest(call.request, upload)

    async def _cancel(self, call: _Call) -> Answer:
        self._storage.drop_upload(self._upload(call))
        return Answer(status=204)

    async def _receive_rest(self, request: Request, upload: Upload) -> Answer:
        digest = _digest(request.query.get("digest", ""))
        await self._receive(request, upload)
        self._storage.finish_upload(upload, digest)
        return _created(f"/v2/{upload.name}/blobs/{digest}", digest)

    async def _receive(self, request: Request, upload: Upload) -> None:
        """Append a request's body; what came before a broken connection is kept."""
        if upload.is_busy:
            raise RefusedError(409, "BLOB_UPLOAD_INVALID", "another request is sending this upload")
        start, expected = upload.size, _chunk_size(request, upload)
        upload.is_busy = True
        try:
            async for data in request.chunks():
                upload.append(data)
        finally:
            upload.is_busy = False
        if expected is not None and upload.size - start != expected:
            self._storage.cut_upload(upload, start)
            raise RefusedError(
                400, "SIZE_INVALID", "the chunk is not as long as Content-Range says"
            )

    def _upload(self, call: _Call) -> Upload:
        found = self._storage.upload(call.name, call.item)
        if found is None:
            raise RefusedError(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload, or no longer")
        return found

    # Manifests in

    async def _put_manifest(self, call: _Call) -> Answer:
        data = await call.request.body(MAX_MANIFEST)
        media_type = call.request.headers.get("content-type", "").partition(";")[0].strip()
        named = call.digest if ":" in call.item else None
        digest = digest_of(data) if named is None else _verified(named, data)
        blobs, manifests, subject = _pointers(data, media_type)
        for blob in blobs:
            if not self._storage.has_blob(call.name, blob):
                raise RefusedError(404, "MANIFEST_BLOB_UNKNOWN", f"{call.name} has no blob {blob}")
        for below in manifests:
            if not self._storage.has_manifest(call.name, below):
                raise RefusedError(
                    404, "MANIFEST_BLOB_UNKNOWN", f"{call.name} has no manifest {below}"
                )
        manifest = StoredManifest(digest=digest, media_type=media_type, data=data)
        tag = "" if named else _tag(call.item)
        self._storage.put_manifest(call.name, manifest, tag=tag, subject=subject)
        extra: Headers = (("OCI-Subject", subject),) if subject else ()
        return _created(f"/v2/{call.name}/manifests/{digest}", digest, extra)

    # Deleting

    async def _delete_manifest(self, call: _Call) -> Answer:
        if ":" not in call.item:
            if not self._storage.remove_tag(call.name, _tag(call.item)):
                raise RefusedError(404, "MANIFEST_UNKNOWN", f"{call.name} has no tag {call.item}")
            return Answer(status=202)
        manifest = self._manifest(call)
        subject = _pointers(manifest.data, manifest.media_type)[2]
        self._storage.remove_manifest(call.name, manifest.digest, subject)
        return Answer(status=202)

    async def _delete_blob(self, call: _Call) -> Answer:
        if not self._storage.remove_blob(call.name, call.digest):
            raise RefusedError(404, "BLOB_UNKNOWN", f"{call.name} has no blob {call.item}")
        return Answer(status=202)


def _route(path: str) -> re.Pattern[str]:
    return re.compile(rf"/v2/{path}/?" if path else r"/v2/?", re.DOTALL)


def _action(request: Request) -> Action:
    """Return what a request does to its repository; asking after or ending a push is pushing."""
    if "/blobs/uploads/" in request.path:
        return "push"
    return _ACTIONS.get(request.method, "push")


def _digest(text: str) -> Digest:
    try:
        return parse_digest(text)
    except FormatError as error:
        raise RefusedError(400, "DIGEST_INVALID", error.message) from error


def _tag(text: str) -> str:
    if not _TAG.fullmatch(text):
        raise RefusedError(400, "MANIFEST_INVALID", f"not a tag: {quoted(text, limit=130)}")
    return text


def _verified(named: Digest, data: bytes) -> Digest:
    hashed = hasher(named)
    hashed.update(data)
    if not named.endswith(f":{hashed.hexdigest()}"):
        raise RefusedError(400, "DIGEST_INVALID", f"the manifest does not have {named}")
    return named


def _page(request: Request, names: list[str], path: str) -> tuple[list[str], Headers]:
    """Return the page of sorted names that a request asks for, and the link to the next."""
    asked = request.query.get("n")
    if asked is not None and not re.fullmatch(r"\d{1,9}", asked):
        raise RefusedError(400, "PAGINATION_NUMBER_INVALID", "n is not a number")
    size = _PAGE if asked is None else int(asked)
    last = request.query.get("last", "")
    rest = [name for name in names if name > last]
    page = rest[:size]
    if not page or len(rest) == len(page):
        return page, ()
    return page, (_next(path, f"n={size}&last={quote(page[-1], safe='')}"),)


def _next(path: str, query: str) -> tuple[str, str]:
    return ("Link", f'<{path}?{query}>; rel="next"')


def _byte_range(request: Request, size: int, digest: Digest) -> tuple[int, int] | None:
    """Return first and last byte of the one range asked for (RFC 9110 section 14); None for all."""
    if request.headers.get("if-range", f'"{digest}"') != f'"{digest}"':
        return None
    found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", request.headers.get("range", ""))
    if not found or found[0] == "bytes=-":
        return None
    if not found[1]:
        first, last = max(size - int(found[2]), 0), size - 1
    else:
        first, last = int(found[1]), min(int(found[2] or size), size - 1)
        if found[2] and int(found[2]) < first:
            return None
    if first > last:
        headers = (("Content-Range", f"bytes */{size}"),)
        raise RefusedError(416, "SIZE_INVALID", f"the blob has {size} bytes", headers=headers)
    return first, last


def _chunk_size(request: Request, upload: Upload) -> int | None:
    """Return the bytes that Content-Range promises; None when the request has none.

    Raises:
        RefusedError: 416 when the chunk does not start where the last one ended.
    """
    text = request.headers.get("content-range")
    if text is None:
        return None
    found = re.fullmatch(r"(?:bytes )?(\d{1,18})-(\d{1,18})(?:/(?:\d+|\*))?", text)
    if not found or int(found[2]) < int(found[1]):
        raise RefusedError(400, "BLOB_UPLOAD_INVALID", "Content-Range is not START-END")
    first, last = int(found[1]), int(found[2])
    if first != upload.size:
        raise RefusedError(
            416,
            "BLOB_UPLOAD_INVALID",
            f"the next byte is {upload.size}",
            headers=_accepted(upload).headers,
        )
    return last - first + 1


def _accepted(upload: Upload, *, status: int = 202) -> Answer:
    headers = (
        ("Location", f"/v2/{upload.name}/blobs/uploads/{upload.id}"),
        ("Range", f"0-{max(upload.size - 1, 0)}"),
        ("Docker-Upload-UUID", upload.id),
    )
    return Answer(status=status, headers=headers)


def _created(location: str, digest: Digest, extra: Headers = ()) -> Answer:
    headers = (("Location", location), ("Docker-Content-Digest", digest), *extra)
    return Answer(status=201, headers=headers)


def _pointers(
    data: bytes, media_type: str
) -> tuple[Iterable[Digest], Iterable[Digest], Digest | None]:
    """Return the blobs and manifests that a manifest needs, and its subject.

    Raises:
        RefusedError: It is no manifest of a kind that is taken.
    """
    if media_type not in media.MANIFESTS | media.INDEXES:
        raise RefusedError(400, "MANIFEST_INVALID", f"not taken: {quoted(media_type, limit=100)}")
    try:
        said = load(data, "the manifest").get("mediaType")
        if said and said.text() != media_type:
            raise RefusedError(400, "MANIFEST_INVALID", "mediaType is not what Content-Type says")
        if media_type in media.INDEXES:
            index = parse_index(data)
            subject = load(data, "the index").get("subject")
            about = parse_digest(subject.need("digest").text()) if subject else None
            return (), [entry.digest for entry in index.manifests], about
        manifest = parse_manifest(data)
    except FormatError as error:
        raise RefusedError(400, "MANIFEST_INVALID", error.message) from error
    # A layer with addresses of its own (a Windows base layer) need not be here.
    needed = [entry.digest for entry in (manifest.config, *manifest.layers) if not entry.urls]
    return needed, (), manifest.subject.digest if manifest.subject else None


def _describe(manifest: StoredManifest) -> dict[str, object]:
    """Return the descriptor of a referrer, as the specification's end-12 wants it."""
    document = load(manifest.data, "the manifest").object()
    kind = document.get("artifactType")
    if not kind and manifest.media_type in media.MANIFESTS:
        kind = document["config"].get("mediaType")
    entry = {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": len(manifest.data),
    }
    if kind:
        entry["artifactType"] = kind
    if annotations := document.get("annotations"):
        entry["annotations"] = annotations
    return entry


def _storage_failed(error: OSError) -> RefusedError:
    _log.warning("storage: %s", error)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return RefusedError(507, "UNKNOWN", "the registry has no space left")
    return RefusedError(500, "UNKNOWN", "the registry cannot read or write its folder")
