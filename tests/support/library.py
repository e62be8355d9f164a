"""A small Sylabs library on loopback: what scs-library-client asks of one, and no more."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "library-token"


@dataclass(kw_only=True)
class Library:
    """A running library.

    Attributes:
        url: Its address.
        places: Ids of entities, collections and containers by their kind and whole name.
        images: Entries by id.
        files: Bytes by the id of their entry.
        tags: Ids of entries by container, processor and tag.
        uploads: How many files were sent.
    """

    url: str = ""
    places: dict[tuple[str, str], str] = field(default_factory=dict)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    tags: dict[tuple[str, str, str], str] = field(default_factory=dict)
    uploads: int = 0

    def find(self, name: str, architecture: str) -> dict[str, Any] | None:
        """Return the entry of ``entity/collection/name:TAG``, or of ``...:sha256.HEX``."""
        place, _, version = name.partition(":")
        container = self.places.get(("containers", place), "")
        if version.startswith("sha256."):
            for entry in self.images.values():
                if (entry["container"], entry["hash"]) == (container, version):
                    return entry
            return None
        return self.images.get(self.tags.get((container, architecture, version), ""))

    def create(self, kind: str, document: dict[str, Any]) -> dict[str, Any]:
        """Make what a POST asks for."""
        number = f"id{len(self.places) + len(self.images)}"
        if kind == "images":
            entry = document | {"id": number, "uploaded": False, "size": 0}
            return self.images.setdefault(number, entry)
        above = document.get("entity") or document.get("collection") or ""
        over = next((name for (_, name), one in self.places.items() if one == above), "")
        name = "/".join(part for part in (over, document["name"]) if part)
        self.places[kind, name] = number
        return {"id": number}


class _Handler(BaseHTTPRequestHandler):
    library: Library  # of the class that serves one

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        _, version, kind, name = unquote(url.path).split("/", 3)
        architecture = parse_qs(url.query).get("arch", [""])[0]
        if kind in {"images", "imagefile"}:
            found = self.library.find(name, architecture)
            if found and kind == "imagefile":
                self._send(200, self.library.files[found["id"]])
                return
            self._answer(200 if found else 404, found)
            return
        known = self.library.places.get((kind, name))
        self._answer(200 if known and version == "v1" else 404, {"id": known})

    def do_POST(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._body()
            self._answer(401, None)
            return
        _, version, kind, *rest = self.path.split("/")
        document = json.loads(self._body())
        if kind == "imagefile" and version == "v2":
            self._answer(200, {"uploadURL": f"{self.library.url}/store/{rest[0]}?signature=x"})
        elif kind == "tags" and version == "v2":
            self.library.tags[rest[0], document["Arch"], document["Tag"]] = document["ImageID"]
            self._answer(200, {})
        else:
            self._answer(201, self.library.create(kind, document))

    def do_PUT(self) -> None:
        parts = urlsplit(self.path).path.split("/")
        data = self._body()
        if parts[1] == "store":  # another host in real life: no token comes here
            assert "Authorization" not in self.headers
            self.library.files[parts[2]] = data
            self.library.uploads += 1
            self._send(200, b"")
            return
        assert parts[-1] == "_complete"
        entry = self.library.images[parts[3]]
        data = self.library.files[parts[3]]
        right = entry["hash"] == f"sha256.{hashlib.sha256(data).hexdigest()}"
        entry |= {"uploaded": right, "size": len(data)}
        self._answer(200 if right else 400, {})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, data: object) -> None:
        self._send(status, json.dumps({"data": data}).encode())

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@contextlib.contextmanager
def serve_library() -> Iterator[Library]:
    """Serve an empty library until the block ends; whoever writes needs TOKEN."""
    library = Library()
    handler = type("Handler", (_Handler,), {"library": library})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        library.url = f"http://127.0.0.1:{httpd.server_address[1]}"
        thread = threading.Thread(target=httpd.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield library
        finally:
            httpd.shutdown()
            thread.join()
