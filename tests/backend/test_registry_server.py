"""The lab registry: its specification by hand, and skopeo, podman and oras as judges."""

from __future__ import annotations

import base64
import contextlib
import gc
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import ExistsError, FormatError, NetworkError
from backend.events import ignore
from backend.labregistry.access import htpasswd_line, parse_htpasswd
from backend.labregistry.server import Options, serving
from backend.labregistry.tls import load_context, make_certificate
from backend.pull import PullOptions, pull_image
from backend.reference import parse
from backend.registry.access import Access
from backend.registry.credentials import Credentials, given_login
from tests.support.embedded import embedded_registry, start_embedded
from tests.support.flaky import Fault, flaky_proxy
from tests.support.images import (
    Entry,
    MadeImage,
    busybox_layer,
    digest,
    image,
    layer,
    write_layout,
)
from tests.support.registry import PASSWORD, USER, Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["embedded_registry"]

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DATA = bytes(range(256)) * 40


def errors(body: bytes) -> list[str]:
    return [error["code"] for error in json.loads(body)["errors"]]


def basic(user: str = USER, password: str = PASSWORD) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture
def made() -> MadeImage:
    return image([b"\0" * 1024, b"\0" * 2048], config={"Cmd": ["true"]})


# Blobs


def test_a_blob_comes_back_whole_and_in_parts(embedded_registry: Registry) -> None:
    name = embedded_registry.push_blob("a/b", DATA)
    where = f"/v2/a/b/blobs/{name}"
    status, headers, body = embedded_registry.request("GET", where)
    assert (status, body, headers["docker-content-digest"]) == (200, DATA, name)
    assert headers["content-length"] == str(len(DATA))
    status, headers, body = embedded_registry.request("HEAD", where)
    assert (status, body, headers["content-length"]) == (200, b"", str(len(DATA)))
    for text, part in {
        "bytes=0-0": DATA[:1],
        "bytes=100-199": DATA[100:200],
        "bytes=10000-": DATA[10000:],
        "bytes=-7": DATA[-7:],
        "bytes=10000-99999999": DATA[10000:],
    }.items():
        status, headers, body = embedded_registry.request("GET", where, headers={"Range": text})
        assert (status, body) == (206, part), text
        assert headers["content-range"].endswith(f"/{len(DATA)}")
    for text in ("bytes=20000-", "bytes=-0"):
        status, headers, body = embedded_registry.request("GET", where, headers={"Range": text})
        assert (status, headers["content-range"]) == (416, f"bytes */{len(DATA)}"), text
    for text in ("bytes=9-3", "bytes=-", "bytes=0-1,4-5", "items=0-1", "bytes=a-b"):
        status, _, body = embedded_registry.request("GET", where, headers={"Range": text})
        assert (status, body) == (200, DATA), text
    stale = {"Range": "bytes=0-0", "If-Range": '"other"'}
    assert embedded_registry.request("GET", where, headers=stale)[2] == DATA


def test_an_empty_blob_is_a_blob(embedded_registry: Registry) -> None:
    assert embedded_registry.get_blob("a", embedded_registry.push_blob("a", b"")) == b""


def test_blobs_in_one_request(embedded_registry: Registry) -> None:
    query = f"/v2/a/blobs/uploads/?digest={digest(DATA)}"
    _, headers, _ = embedded_registry.request("POST", query, DATA, status=201)
    assert embedded_registry.request("GET", headers["location"])[2] == DATA
    wrong = f"/v2/a/blobs/uploads/?digest={digest(b'other')}"
    _, _, body = embedded_registry.request("POST", wrong, DATA, status=400)
    assert errors(body) == ["DIGEST_INVALID"]
    assert not list((embedded_registry.storage / "uploads").iterdir())


def test_blobs_of_sha512(embedded_registry: Registry) -> None:
    import hashlib

    name = f"sha512:{hashlib.sha512(DATA).hexdigest()}"
    assert embedded_registry.push_blob("a", DATA, name) == name
    assert embedded_registry.get_blob("a", name) == DATA


def test_a_blob_in_chunks_goes_on_where_it_ended(embedded_registry: Registry) -> None:
    request = embedded_registry.request
    _, headers, _ = request("POST", "/v2/a/blobs/uploads/", status=202)
    where = headers["location"]
    first, second, third = DATA[:4000], DATA[4000:9000], DATA[9000:]
    _, headers, _ = request("PATCH", where, first, headers={"Content-Range": "0-3999"}, status=202)
    assert headers["range"] == "0-3999"
    # The chunk again, and a chunk that leaves a gap, are refused with the place to go on.
    for text, chunk in (("0-3999", first), ("5000-9999", DATA[5000:10000])):
        status, headers, _ = request("PATCH", where, chunk, headers={"Content-Range": text})
        assert (status, headers["range"]) == (416, "0-3999")
    status, headers, _ = request("GET", where)
    assert (status, headers["range"], headers["location"]) == (204, "0-3999", where)
    request("PATCH", where, second, status=202)
    named = f"{where}?digest={digest(DATA)}"
    last = {"Content-Range": f"9000-{len(DATA) - 1}"}
    request("PUT", named, third, headers=last, status=201)
    assert embedded_registry.get_blob("a", digest(DATA)) == DATA
    assert request("GET", where)[0] == 404


def test_a_chunk_that_lies_about_its_length_is_taken_back(embedded_registry: Registry) -> None:
    request = embedded_registry.request
    where = request("POST", "/v2/a/blobs/uploads/", status=202)[1]["location"]
    request("PATCH", where, DATA[:100], status=202)
    status, _, body = request("PATCH", where, b"x" * 7, headers={"Content-Range": "100-109"})
    assert (status, errors(body)) == (400, ["SIZE_INVALID"])
    status, _, body = request("PATCH", where, b"x", headers={"Content-Range": "nonsense"})
    assert (status, errors(body)) == (400, ["BLOB_UPLOAD_INVALID"])
    request("PUT", f"{where}?digest={digest(DATA)}", DATA[100:], status=201)


def test_what_came_before_the_line_was_cut_is_kept(embedded_registry: Registry) -> None:
    request = embedded_registry.request
    where = request("POST", "/v2/a/blobs/uploads/", status=202)[1]["location"]
    host, port = embedded_registry.host.split(":")
    with socket.create_connection((host, int(port))) as line:
        head = f"PATCH {where} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(DATA)}\r\n\r\n"
        line.sendall(head.encode() + DATA[:5000])
        line.shutdown(socket.SHUT_WR)
        assert line.recv(100)  # answered: the server has seen the end
    while request("GET", where)[1]["range"] != "0-4999":
        pass
    request("PATCH", where, DATA[5000:], headers={"Content-Range": f"5000-{len(DATA) - 1}"})
    request("PUT", f"{where}?digest={digest(DATA)}", status=201)
    assert embedded_registry.get_blob("a", digest(DATA)) == DATA


def test_an_upload_can_be_given_up(embedded_registry: Registry) -> None:
    request = embedded_registry.request
    where = request("POST", "/v2/a/blobs/uploads/", status=202)[1]["location"]
    request("DELETE", where, status=204)
    status, _, body = request("PATCH", where, b"x")
    assert (status, errors(body)) == (404, ["BLOB_UPLOAD_UNKNOWN"])
    other = request("POST", "/v2/a/blobs/uploads/", status=202)[1]["location"]
    assert request("GET", other.replace("/v2/a/", "/v2/b/"))[0] == 404


def test_a_blob_is_mounted_from_another_repository(embedded_registry: Registry) -> None:
    request = embedded_registry.request
    name = embedded_registry.push_blob("first", DATA)
    assert request("HEAD", f"/v2/second/blobs/{name}")[0] == 404
    query = f"/v2/second/blobs/uploads/?mount={name}&from=first"
    _, headers, _ = request("POST", query, status=201)
    assert request("GET", headers["location"])[2] == DATA
    # What is not there to mount begins an ordinary upload.
    for source in ("nowhere", "..", "first/../../x"):
        missing = f"/v2/third/blobs/uploads/?mount={name}&from={source}"
        assert request("POST", missing)[0] == 202


def test_deleted_bytes_stay_while_somebody_has_them(embedded_registry: Registry) -> None:
    request = embedded_registry.request
    name = embedded_registry.push_blob("first", DATA)
    request("POST", f"/v2/second/blobs/uploads/?mount={name}&from=first", status=201)
    request("DELETE", f"/v2/first/blobs/{name}", status=202)
    assert request("GET", f"/v2/first/blobs/{name}")[0] == 404
    assert embedded_registry.get_blob("second", name) == DATA
    request("DELETE", f"/v2/second/blobs/{name}", status=202)
    assert not list((embedded_registry.storage / "blobs/sha256").iterdir())
    assert request("DELETE", f"/v2/second/blobs/{name}")[0] == 404


def test_the_same_blob_pushed_by_many_at_once(embedded_registry: Registry) -> None:
    big = os.urandom(1 << 20)
    failed: list[BaseException] = []

    def push(number: int) -> None:
        try:
            embedded_registry.push_blob(f"many/{number % 3}", big)
        except BaseException as error:  # noqa: BLE001  (a thread's errors would be lost)
            failed.append(error)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for number in range(3):
        assert embedded_registry.get_blob(f"many/{number}", digest(big)) == big
    assert len(list((embedded_registry.storage / "blobs/sha256").iterdir())) == 1


# Manifests, tags, referrers


def test_manifests_by_tag_and_digest(embedded_registry: Registry, made: MadeImage) -> None:
    # Spaces that no serialiser would write: the digest is over the bytes received.
    made.manifest = b"  " + made.manifest + b"\n\n"
    assert embedded_registry.push(made, "group/app", "1.0") == made.digest
    for version in ("1.0", made.digest):
        where = f"/v2/group/app/manifests/{version}"
        status, headers, body = embedded_registry.request("GET", where)
        assert (status, body, headers["content-type"]) == (200, made.manifest, MANIFEST)
        assert headers["docker-content-digest"] == made.digest
        status, headers, body = embedded_registry.request("HEAD", where)
        assert (status, body, headers["content-length"]) == (200, b"", str(len(made.manifest)))
    status, _, body = embedded_registry.request("GET", "/v2/group/app/manifests/2.0")
    assert (status, errors(body)) == (404, ["MANIFEST_UNKNOWN"])
    status, _, body = embedded_registry.request("GET", "/v2/group/none/manifests/2.0")
    assert (status, errors(body)) == (404, ["NAME_UNKNOWN"])


def test_an_index_needs_its_manifests(embedded_registry: Registry, made: MadeImage) -> None:
    name = embedded_registry.push_index("app", "multi", (made, "linux/amd64"))
    assert digest(embedded_registry.get_manifest("app", "multi")[0]) == name
    data, _ = embedded_registry.get_manifest("app", "multi")
    status, _, body = embedded_registry.request(
        "PUT", "/v2/other/manifests/x", data, headers={"Content-Type": INDEX}
    )
    assert (status, errors(body)) == (404, ["MANIFEST_BLOB_UNKNOWN"])


@pytest.mark.parametrize(
    ("data", "media_type", "status", "code"),
    [
        (b"{", MANIFEST, 400, "MANIFEST_INVALID"),
        (b"[]", MANIFEST, 400, "MANIFEST_INVALID"),
        pytest.param(b"[" * 100_000, MANIFEST, 400, "MANIFEST_INVALID", id="too deep"),
        (b"\xff\xfe", MANIFEST, 400, "MANIFEST_INVALID"),
        (b'{"config":{}}', MANIFEST, 400, "MANIFEST_INVALID"),
        (b'{"manifests":[{"digest":"md5:1","size":1}]}', INDEX, 400, "MANIFEST_INVALID"),
        (b'{"manifests":[],"mediaType":"x"}', INDEX, 400, "MANIFEST_INVALID"),
        (b'{"manifests":[],"subject":3}', INDEX, 400, "MANIFEST_INVALID"),
        (b"{}", "text/plain", 400, "MANIFEST_INVALID"),
        pytest.param(b" " * (5 << 20), MANIFEST, 413, "SIZE_INVALID", id="too long"),
    ],
)
def test_what_is_no_manifest_is_refused(
    embedded_registry: Registry, data: bytes, media_type: str, status: int, code: str
) -> None:
    got, _, body = embedded_registry.request(
        "PUT", "/v2/app/manifests/x", data, headers={"Content-Type": media_type}
    )
    assert (got, errors(body)) == (status, [code])


def test_a_manifest_needs_its_blobs_and_its_digest(
    embedded_registry: Registry, made: MadeImage
) -> None:
    head = {"Content-Type": made.media_type}
    put = f"/v2/app/manifests/{made.digest}"
    status, _, body = embedded_registry.request("PUT", put, made.manifest, headers=head)
    assert (status, errors(body)) == (404, ["MANIFEST_BLOB_UNKNOWN"])
    embedded_registry.push(made, "app")
    wrong = f"/v2/app/manifests/{digest(b'x')}"
    status, _, body = embedded_registry.request("PUT", wrong, made.manifest, headers=head)
    assert (status, errors(body)) == (400, ["DIGEST_INVALID"])
    status, _, body = embedded_registry.request("PUT", "/v2/app/manifests/.x", b"", headers=head)
    assert status == 400


def test_deleting_tags_and_manifests(embedded_registry: Registry, made: MadeImage) -> None:
    for tag in ("a", "b", "c"):
        embedded_registry.push(made, "app", tag)
    embedded_registry.request("DELETE", "/v2/app/manifests/a", status=202)
    assert embedded_registry.request("DELETE", "/v2/app/manifests/a")[0] == 404
    _, _, body = embedded_registry.request("GET", "/v2/app/tags/list")
    assert json.loads(body) == {"name": "app", "tags": ["b", "c"]}
    embedded_registry.request("DELETE", f"/v2/app/manifests/{made.digest}", status=202)
    assert embedded_registry.request("GET", f"/v2/app/manifests/{made.digest}")[0] == 404
    _, _, body = embedded_registry.request("GET", "/v2/app/tags/list")
    assert json.loads(body)["tags"] == []


def pages(registry: Registry, where: str, key: str) -> list[list[str]]:
    found: list[list[str]] = []
    while where:
        _, headers, body = registry.request("GET", where, status=200)
        found.append(json.loads(body)[key])
        link = headers.get("link", "")
        assert not link or link.endswith('>; rel="next"')
        where = link.partition(">")[0].removeprefix("<")
    return found


def test_tags_and_catalogue_come_in_pages(embedded_registry: Registry, made: MadeImage) -> None:
    for tag in ("10", "9", "a", "B", "a.b", "a-b"):
        embedded_registry.push(made, "app", tag)
    in_order = ["10", "9", "B", "a", "a-b", "a.b"]
    assert pages(embedded_registry, "/v2/app/tags/list", "tags") == [in_order]
    assert pages(embedded_registry, "/v2/app/tags/list?n=4", "tags") == [in_order[:4], in_order[4:]]
    assert pages(embedded_registry, "/v2/app/tags/list?n=3&last=9", "tags") == [
        in_order[2:5],
        in_order[5:],
    ]
    assert pages(embedded_registry, "/v2/app/tags/list?n=6", "tags") == [in_order]
    assert pages(embedded_registry, "/v2/app/tags/list?n=0", "tags") == [[]]
    for wrong in ("x", "-1", "1e3", ""):
        status, _, body = embedded_registry.request("GET", f"/v2/app/tags/list?n={wrong}")
        assert (status, errors(body)) == (400, ["PAGINATION_NUMBER_INVALID"]), wrong
    assert embedded_registry.request("GET", "/v2/none/tags/list")[0] == 404
    for name in ("app/deeper/still", "other"):
        embedded_registry.push(made, name)
    assert pages(embedded_registry, "/v2/_catalog?n=2", "repositories") == [
        ["app", "app/deeper/still"],
        ["other"],
    ]


def put_referrer(registry: Registry, subject: MadeImage, kind: str, note: str) -> dict[str, Any]:
    empty = registry.push_blob("app", b"{}")
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind,
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": empty,
            "size": 2,
        },
        "layers": [],
        "subject": {
            "mediaType": subject.media_type,
            "digest": subject.digest,
            "size": len(subject.manifest),
        },
        "annotations": {"note": note},
    }
    if not kind:
        del manifest["artifactType"]
    data = json.dumps(manifest).encode()
    _, headers, _ = registry.request(
        "PUT",
        f"/v2/app/manifests/{digest(data)}",
        data,
        headers={"Content-Type": MANIFEST},
        status=201,
    )
    assert headers["oci-subject"] == subject.digest
    return {
        "mediaType": MANIFEST,
        "digest": digest(data),
        "size": len(data),
        "artifactType": kind or "application/vnd.oci.empty.v1+json",
        "annotations": {"note": note},
    }


def test_referrers(embedded_registry: Registry, made: MadeImage) -> None:
    where = f"/v2/app/referrers/{made.digest}"
    _, headers, body = embedded_registry.request("GET", where, status=200)
    assert headers["content-type"] == INDEX
    assert json.loads(body) == {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
    # The subject may come after what is about it.
    signature = put_referrer(embedded_registry, made, "application/x.signature+json", "one")
    sbom = put_referrer(embedded_registry, made, "application/x.sbom", "two")
    plain = put_referrer(embedded_registry, made, "", "three")
    embedded_registry.push(made, "app")
    _, headers, body = embedded_registry.request("GET", where, status=200)
    by_digest = sorted((signature, sbom, plain), key=lambda entry: str(entry["digest"]))
    assert json.loads(body)["manifests"] == by_digest
    assert "oci-filters-applied" not in headers
    query = f"{where}?artifactType=application%2Fx.signature%2Bjson"
    _, headers, body = embedded_registry.request("GET", query, status=200)
    assert json.loads(body)["manifests"] == [signature]
    assert headers["oci-filters-applied"] == "artifactType"
    embedded_registry.request("DELETE", f"/v2/app/manifests/{sbom['digest']}", status=202)
    _, _, body = embedded_registry.request("GET", where, status=200)
    assert sbom not in json.loads(body)["manifests"]
    assert embedded_registry.request("GET", "/v2/app/referrers/latest")[0] == 400


def test_long_lists_of_referrers_come_in_pages(
    embedded_registry: Registry, made: MadeImage
) -> None:
    notes = [str(number) + "x" * 1_500_000 for number in range(4)]
    put = [put_referrer(embedded_registry, made, "application/x.a+b", note) for note in notes]
    found = pages(
        embedded_registry,
        f"/v2/app/referrers/{made.digest}?artifactType=application/x.a%2Bb",
        "manifests",
    )
    assert [len(page) for page in found] == [2, 2]
    everything = [entry for page in found for entry in page]
    assert sorted(map(str, everything)) == sorted(map(str, put))


# Whatever comes


def test_the_root_and_unknown_addresses(embedded_registry: Registry) -> None:
    status, headers, body = embedded_registry.request("GET", "/v2/")
    assert (status, body) == (200, b"{}")
    assert headers["docker-distribution-api-version"] == "registry/2.0"
    for where in ("/", "/v1/", "/v2/x", "/token", "/v2/../../etc/passwd"):
        status, _, body = embedded_registry.request("GET", where)
        assert (status, errors(body)) == (404, ["UNSUPPORTED"]), where
    for where in (
        "/v2/A/tags/list",
        "/v2/../x/tags/list",
        "/v2/a//b/tags/list",
        "/v2/%00/tags/list",
    ):
        status, _, body = embedded_registry.request("GET", where)
        assert (status, errors(body)) == (400, ["NAME_INVALID"]), where
    long = "a" * 256
    assert embedded_registry.request("GET", f"/v2/{long}/tags/list")[0] == 400
    status, headers, _ = embedded_registry.request("POST", "/v2/a/tags/list", b"x")
    assert (status, headers["allow"]) == (405, "GET")
    status, _, body = embedded_registry.request("GET", "/v2/a/blobs/sha256:123")
    assert (status, errors(body)) == (400, ["DIGEST_INVALID"])
    status, _, _ = embedded_registry.request("GET", "/v2/?" + "&".join("a=b" for _ in range(200)))
    assert status == 400


@pytest.mark.parametrize(
    "text",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /v2/ HTTP/1.1\r\n\r\n",
        pytest.param(
            b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 300_000 + b"\r\n\r\n", id="long head"
        ),
        b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"PUT /v2/a/manifests/b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PUT /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"GET http://[x/ HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_no_http_ends_the_connection_only(embedded_registry: Registry, text: bytes) -> None:
    assert b" 4" in raw(embedded_registry, text) or not text.strip()
    assert embedded_registry.request("GET", "/v2/")[0] == 200


def raw(registry: Registry, text: bytes) -> bytes:
    """Send bytes, close our side and return all that comes back."""
    host, port = registry.host.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as line:
        line.sendall(text)
        line.shutdown(socket.SHUT_WR)
        found = b""
        try:
            while chunk := line.recv(65536):
                found += chunk
        except ConnectionResetError:
            pass
        return found


@settings(max_examples=60)
@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "BREW"]),
    where=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60),
    value=st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60),
    body=st.binary(max_size=100),
)
def test_any_request_gets_an_answer(
    embedded_registry: Registry, method: str, where: str, value: str, body: bytes
) -> None:
    head = {"Range": value, "Content-Range": value, "Content-Type": value, "Authorization": value}
    clean = {name: text.strip() for name, text in head.items()}
    for target in (f"/v2/{where}", f"/v2/a/manifests/{where}", f"/v2/a/blobs/uploads/?{where}"):
        status, _, _ = embedded_registry.request(method, target, body, headers=clean)
        assert status < 500, target


def test_requests_share_a_connection(embedded_registry: Registry) -> None:
    connection = http.client.HTTPConnection(embedded_registry.host, timeout=20)
    connection.connect()
    line = connection.sock
    for where in ("/v2/", "/v2/none/tags/list", "/v2/a/blobs/sha256:1", "/v2/"):
        connection.request("GET", where)
        connection.getresponse().read()
        assert connection.sock is line
    connection.close()


def test_a_client_that_asks_first_is_told_to_go_on(embedded_registry: Registry) -> None:
    head = (
        f"POST /v2/a/blobs/uploads/?digest={digest(b'abc')} HTTP/1.1\r\nHost: x\r\n"
        "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    )
    host, port = embedded_registry.host.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as line:
        line.sendall(head.encode())
        assert line.recv(1000).startswith(b"HTTP/1.1 100")
        line.sendall(b"abc")
        assert line.recv(1000).startswith(b"HTTP/1.1 201")
    refused = raw(embedded_registry, head.replace("/v2/a", "/v2/A").encode())
    assert refused.startswith(b"HTTP/1.1 400")
    assert b"connection: close" in refused.lower()


def test_a_full_disk_is_an_answer(
    embedded_registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("backend.labregistry.storage.Upload.append", full)
    status, _, body = embedded_registry.request(
        "POST", f"/v2/a/blobs/uploads/?digest={digest(b'a')}", b"a"
    )
    assert (status, errors(body)) == (507, ["UNKNOWN"])


def test_what_it_says_is_stored_is_on_the_disk(
    embedded_registry: Registry, made: MadeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is synced before it has its name, and its folder after."""
    done: list[tuple[str, str]] = []
    sync, replace = os.fsync, Path.replace

    def synced(fd: int) -> None:
        done.append(("sync", str(Path(f"/proc/self/fd/{fd}").readlink())))
        sync(fd)

    def replaced(old: Path, new: Path) -> Path:
        done.append((str(old), str(new)))
        return replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    embedded_registry.push(made, "a", "v1")
    named = [step for step in done if step[0] != "sync"]
    assert len(named) >= len(made.blobs) + 3  # the manifest, its type, the tag
    for old, new in named:
        place = done.index((old, new))
        assert ("sync", old) in done[:place]
        assert ("sync", str(Path(new).parent)) in done[place:]


# Who may do what


@pytest.fixture(params=["basic", "bearer"])
def locked(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    with start_embedded(tmp_path / "locked", scheme=request.param) as running:
        yield running


def token(registry: Registry, scope: str, **more: str) -> str:
    where = f"/token?service=sifdeck&scope={scope}"
    _, _, body = registry.request("GET", where, headers=basic(**more), status=200)
    return str(json.loads(body)["token"])


def test_nobody_comes_in_without_a_login(locked: Registry) -> None:
    for method, where in (
        ("GET", "/v2/"),
        ("GET", "/v2/_catalog"),
        ("GET", "/v2/a/tags/list"),
        ("POST", "/v2/a/blobs/uploads/"),
    ):
        for head in ({}, {"Authorization": "Basic !!"}, {"Authorization": "Bearer a.b.c"}):
            status, headers, body = locked.request(method, where, headers=head)
            assert (status, errors(body)) == (401, ["UNAUTHORIZED"])
            assert headers["www-authenticate"].startswith(("Basic realm=", "Bearer realm="))


def test_basic_takes_the_right_password_only(tmp_path: Path) -> None:
    with start_embedded(tmp_path / "r", scheme="basic") as locked:
        assert locked.request("GET", "/v2/", headers=basic())[0] == 200
        for wrong in (basic(password="x"), basic(user="x"), basic(password="x" * 500)):
            assert locked.request("GET", "/v2/", headers=wrong)[0] == 401


def test_tokens_are_for_what_they_say(tmp_path: Path) -> None:
    with start_embedded(tmp_path / "r", scheme="bearer") as locked:
        _, headers, _ = locked.request("POST", "/v2/a/b/blobs/uploads/", status=401)
        assert headers["www-authenticate"] == (
            f'Bearer realm="http://{locked.host}/token",service="sifdeck",'
            'scope="repository:a/b:pull,push"'
        )
        assert locked.request("GET", "/token", headers=basic(password="x"))[0] == 401
        pull = {"Authorization": f"Bearer {token(locked, 'repository:a/b:pull')}"}
        both = {"Authorization": f"Bearer {token(locked, 'repository:a/b:pull,push')}"}
        assert locked.request("GET", "/v2/", headers=pull)[0] == 200
        assert locked.request("POST", "/v2/a/b/blobs/uploads/", headers=pull)[0] == 401
        locked.headers = both
        name = locked.push_blob("a/b", DATA)
        assert locked.request("GET", f"/v2/a/b/blobs/{name}", headers=pull)[2] == DATA
        assert locked.request("GET", f"/v2/other/blobs/{name}")[0] == 401
        # A token for another repository mounts nothing from this one.
        other = {"Authorization": f"Bearer {token(locked, 'repository:other:pull,push')}"}
        mount = f"/v2/other/blobs/uploads/?mount={name}&from=a/b"
        assert locked.request("POST", mount, headers=other)[0] == 202
        wide = token(locked, "repository:other:pull,push&scope=repository:a/b:pull")
        assert locked.request("POST", mount, headers={"Authorization": f"Bearer {wide}"})[0] == 201


def test_tokens_end_and_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with start_embedded(tmp_path / "r", scheme="bearer") as locked:
        good = token(locked, "repository:a:pull")
        head, claims, seal = good.split(".")
        said = json.loads(base64.urlsafe_b64decode(claims + "=="))
        more = base64.urlsafe_b64encode(json.dumps(said | {"exp": 2**40}).encode()).decode()
        for forged in (f"{head}.{more.rstrip('=')}.{seal}", f"{head}.{claims}.", "..", good[:-1]):
            bearer = {"Authorization": f"Bearer {forged}"}
            assert locked.request("GET", "/v2/", headers=bearer)[0] == 401
        bearer = {"Authorization": f"Bearer {good}"}
        assert locked.request("GET", "/v2/", headers=bearer)[0] == 200
        later = said["exp"] + 1
        monkeypatch.setattr("backend.labregistry.access.time.time", lambda: later)
        assert locked.request("GET", "/v2/", headers=bearer)[0] == 401


def test_a_strange_host_is_not_sent_back(tmp_path: Path) -> None:
    with start_embedded(tmp_path / "r", scheme="bearer") as locked:
        text = b'GET /v2/ HTTP/1.1\r\nHost: x"/evil\r\n\r\n'
        assert raw(locked, text).startswith(b"HTTP/1.1 400")


def test_read_only_serves_and_takes_nothing(tmp_path: Path, made: MadeImage) -> None:
    with start_embedded(tmp_path / "r") as writable:
        writable.push(made, "app", "1.0")
    with start_embedded(tmp_path / "r", read_only=True) as registry:
        assert registry.get_manifest("app", "1.0")[0] == made.manifest
        for method, where in (
            ("POST", "/v2/app/blobs/uploads/"),
            ("PUT", "/v2/app/manifests/1.0"),
            ("DELETE", "/v2/app/manifests/1.0"),
            ("DELETE", f"/v2/app/blobs/{next(iter(made.blobs))}"),
        ):
            status, _, body = registry.request(method, where, b"")
            assert (status, errors(body)) == (405, ["UNSUPPORTED"])


async def test_password_files() -> None:
    sha = "{SHA}" + base64.b64encode(__import__("hashlib").sha1(b"secret").digest()).decode()
    users = parse_htpasswd(f"# a comment\n\n{htpasswd_line('ann', 'pass:word')}bob:{sha}\n")
    assert await users.knows("ann", "pass:word")
    assert await users.knows("ann", "pass:word")
    assert await users.knows("bob", "secret")
    assert not await users.knows("bob", "Secret")
    assert not await users.knows("ann", "")
    assert not await users.knows("eve", "secret")
    assert "pass" not in repr(users)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nobody\n",
        "ann\n",
        "ann:secret\n",
        "ann:$apr1$x$y\n",
        ":{SHA}x\n",
        "a:$2y$05$\n",
        f"a:$2b$99${'.' * 53}\n",
        f"a:$2x$05${'.' * 53}\n",
    ],
)
def test_other_password_files_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_htpasswd(text)


# Starting and stopping


def test_one_folder_has_one_server(embedded_registry: Registry) -> None:
    with (
        pytest.raises(ExistsError, match="another process"),
        serving(Options(root=embedded_registry.storage)),
    ):
        pass


@pytest.mark.parametrize("_round", range(3))
def test_who_comes_at_the_very_end_is_let_go(_round: int, tmp_path: Path) -> None:
    """No connection stays open; the collector's warning of one would fail this test."""

    def come(host: str, port: int) -> None:
        with contextlib.suppress(OSError):
            while not over.is_set():
                socket.create_connection((host, port), timeout=1).close()

    over = threading.Event()
    with start_embedded(tmp_path / "root") as running:
        host, _, port = running.host.partition(":")
        guests = [threading.Thread(target=come, args=(host, int(port))) for _ in range(2)]
        for guest in guests:
            guest.start()
    over.set()
    for guest in guests:
        guest.join()
    gc.collect()


def test_a_taken_port_is_an_error(embedded_registry: Registry, tmp_path: Path) -> None:
    port = int(embedded_registry.host.partition(":")[2])
    with pytest.raises(NetworkError), serving(Options(root=tmp_path / "x", port=port)):
        pass
    with serving(Options(root=tmp_path / "x")):
        pass  # the folder was let go


def test_tls_with_a_certificate_made_here(tmp_path: Path) -> None:
    certificate, key = tmp_path / "registry.crt", tmp_path / "registry.key"
    make_certificate(certificate, key, "lab.example")
    assert key.stat().st_mode & 0o777 == 0o600
    with start_embedded(tmp_path / "r", tls=load_context(certificate, key)) as registry:
        context = ssl.create_default_context(cafile=str(certificate))
        connection = http.client.HTTPSConnection(registry.host, timeout=20, context=context)
        connection.request("POST", f"/v2/a/blobs/uploads/?digest={digest(DATA)}", DATA)
        assert connection.getresponse().status == 201
        connection.close()
        strange = http.client.HTTPSConnection(registry.host, timeout=20)
        with pytest.raises(ssl.SSLCertVerificationError):
            strange.request("GET", "/v2/")
        strange.close()
    with pytest.raises(FormatError):
        load_context(key, certificate)


# Judges


def run(*argv: str, env: dict[str, str] | None = None) -> str:
    if shutil.which(argv[0]) is None:
        pytest.skip(f"no {argv[0]}")
    done = subprocess.run(
        argv,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        timeout=120,
    )
    assert done.returncode == 0, (argv, done.stderr)
    return done.stdout


@pytest.mark.registry
def test_skopeo_pushes_and_pulls(locked: Registry, tmp_path: Path, made: MadeImage) -> None:
    layout = write_layout(tmp_path / "in", made)
    login = f"{USER}:{PASSWORD}"
    there = f"docker://{locked.host}/deep/er/app:1.0"
    away = ("--dest-tls-verify=false", "--dest-creds", login)
    back = ("--src-tls-verify=false", "--src-creds", login)
    run("skopeo", "copy", "-q", *away, f"oci:{layout}:latest", there)
    run("skopeo", "copy", "-q", *back, there, f"oci:{tmp_path / 'out'}:latest")
    index = json.loads((tmp_path / "out/index.json").read_text())
    assert index["manifests"][0]["digest"] == made.digest
    # A second repository gets its blobs mounted; Docker's media types are taken as well.
    other = f"docker://{locked.host}/second:1.0"
    both = ("--src-tls-verify=false", "--dest-tls-verify=false", "--src-creds", login)
    run("skopeo", "copy", "-q", *both, "--dest-creds", login, "-f", "v2s2", there, other)
    listed = run("skopeo", "list-tags", "--tls-verify=false", "--creds", login, there[:-4])
    assert json.loads(listed)["Tags"] == ["1.0"]
    asked = ("--tls-verify=false", "--creds", login)
    assert "application/vnd.docker" in run("skopeo", "inspect", "--raw", *asked, other)
    run("skopeo", "delete", *asked, other)


@pytest.mark.registry
def test_skopeo_trusts_the_certificate(tmp_path: Path, made: MadeImage) -> None:
    make_certificate(tmp_path / "ca.crt", tmp_path / "ca.key", "127.0.0.1")
    context = load_context(tmp_path / "ca.crt", tmp_path / "ca.key")
    layout = write_layout(tmp_path / "in", made)
    with start_embedded(tmp_path / "r", tls=context) as registry:
        there = f"docker://{registry.host}/app:1.0"
        trust = {"SSL_CERT_FILE": str(tmp_path / "ca.crt")}
        run("skopeo", "copy", "-q", f"oci:{layout}:latest", there, env=trust)
        assert made.digest in run("skopeo", "inspect", there, env=trust)


@pytest.mark.registry
def test_podman_pushes_and_pulls(
    request: pytest.FixtureRequest, embedded_registry: Registry, tmp_path: Path
) -> None:
    made = image([busybox_layer()], config={"Cmd": ["true"]})
    layout = write_layout(tmp_path / "in", made)
    # podman takes no --runroot of more than 50 characters.
    short = tempfile.mkdtemp(prefix="podman")
    request.addfinalizer(lambda: shutil.rmtree(short))
    own = ("--root", str(tmp_path / "root"), "--runroot", short)
    podman = ("podman", *own, "--storage-driver", "vfs")
    there = f"{embedded_registry.host}/podman/app:1.0"
    run(*podman, "pull", "-q", f"oci:{layout}")
    name = run(*podman, "images", "-q").strip()
    run(*podman, "push", "-q", "--tls-verify=false", name, there)
    run(*podman, "rmi", "-f", name)
    assert run(*podman, "pull", "-q", "--tls-verify=false", there).strip().startswith(name)


@pytest.mark.registry
def test_oras_pushes_and_pulls(locked: Registry, tmp_path: Path) -> None:
    from oras.client import OrasClient

    headers = locked.request("GET", "/v2/")[1]
    scheme = "token" if headers["www-authenticate"].startswith("Bearer") else "basic"
    note = tmp_path / "note.txt"
    note.write_text("hello")
    there = f"{locked.host}/notes/first:1"
    client = OrasClient(hostname=locked.host, insecure=True, auth_backend=scheme)
    client.auth.set_basic_auth(USER, PASSWORD)
    if scheme == "token":
        # This client keeps its first token, which would be one for reading only.
        client.auth.set_token_auth(token(locked, "repository:notes/first:pull,push"))
    client.push(there, files=[str(note)], disable_path_validation=True)
    reader = OrasClient(hostname=locked.host, insecure=True, auth_backend=scheme)
    reader.auth.set_basic_auth(USER, PASSWORD)
    (found,) = reader.pull(there, outdir=str(tmp_path / "out"))
    assert Path(found).read_text() == "hello"
    assert reader.get_tags(there) == ["1"]


@pytest.mark.registry
def test_our_own_pull_through_a_bad_line(locked: Registry, tmp_path: Path) -> None:
    locked.headers = basic()
    if locked.request("GET", "/v2/")[0] == 401:
        locked.headers = {"Authorization": f"Bearer {token(locked, 'repository:app:pull,push')}"}
    noise = layer(Entry(name="noise", data=os.urandom(1 << 19)))
    made = image([noise, busybox_layer()], config={"Cmd": ["true"]})
    locked.push(made, "app", "1.0")
    base = json.loads(made.manifest)["layers"][0]["digest"]
    cut = Fault(path=f"GET .*{base}", kind="cut", after=300_000)
    busy = Fault(path="GET /v2/app/manifests", kind="status", status=503)
    with flaky_proxy(locked.host, cut, busy) as proxy:
        options = PullOptions(
            access=Access(credentials=Credentials(login=given_login(USER, PASSWORD))),
            cache=tmp_path / "cache",
        )
        reference = parse(f"docker://{proxy.host}/app:1.0")
        pull_image(reference, tmp_path / "app.sif", options, ignore)
        resumed = [one.headers["range"] for one in proxy.requests if "range" in one.headers]
    assert resumed == ["bytes=300000-"]
    assert (tmp_path / "app.sif").stat().st_size > 1 << 19
