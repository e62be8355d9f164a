"""The registry client against a real registry, and behind a proxy that spoils answers."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest

from backend import values
from backend.errors import (
    AuthenticationError,
    FormatError,
    NetworkError,
    NotFoundError,
    RegistryError,
    UsageError,
    VerificationError,
)
from backend.oci import media
from backend.oci.digest import Digest
from backend.oci.platform import parse_platform
from backend.reference import parse
from backend.registry.client import RegistryClient
from backend.registry.credentials import Credentials, given_login
from backend.registry.tls import Trust
from backend.registry.transport import Transport
from tests.support.certificates import make_authority
from tests.support.embedded import start_embedded
from tests.support.flaky import Fault, flaky_proxy
from tests.support.images import MadeImage, digest, image, index, layer
from tests.support.registry import PASSWORD, USER, start_registry
from tests.support.tokens import REFRESH_TOKEN, grant, token_registry

if TYPE_CHECKING:
    from pathlib import Path

    from backend.oci.source import RawManifest, RemoteImage
    from tests.support.registry import Registry

AMD = parse_platform("linux/amd64")
ALWAYS = 1_000_000


def make(text: str = "x", **more: str) -> MadeImage:
    return image([layer()], config={"Cmd": [text]}, **more)  # type: ignore[arg-type]


def client(**more: object) -> RegistryClient:
    return RegistryClient(credentials=Credentials(), **more)  # type: ignore[arg-type]


async def fetch(host: str, name: str) -> RawManifest:
    async with client() as reading:
        return await reading.fetch_manifest(parse(f"docker://{host}/{name}"))


async def resolve(host: str, name: str, platform: str = "linux/amd64") -> RemoteImage:
    async with client() as reading:
        return await reading.resolve(parse(f"docker://{host}/{name}"), parse_platform(platform))


async def read(reading: RegistryClient, found: RemoteImage, offset: int = 0) -> bytes:
    wanted = found.manifest.layers[0]
    stream = reading.stream_blob(found.reference, wanted, offset)
    return b"".join([chunk async for chunk in stream])


@pytest.mark.parametrize("docker", [False, True])
async def test_manifest_is_kept_byte_for_byte(registry: Registry, docker: bool) -> None:
    made = image([layer()], docker=docker)
    registry.push(made, "client/bytes", f"docker-{docker}".lower())
    raw = await fetch(registry.host, f"client/bytes:docker-{docker}".lower())
    assert (raw.data, raw.media_type, raw.digest) == (made.manifest, made.media_type, made.digest)


@pytest.mark.parametrize("docker", [False, True])
async def test_index_resolves_to_the_platform(registry: Registry, docker: bool) -> None:
    amd, arm = make("amd"), image([layer()], config={"Cmd": ["arm"]}, architecture="arm64")
    pairs = ((amd, "linux/amd64"), (arm, "linux/arm64/v8"))
    registry.push_index("client/index", "both", *pairs, docker=docker)
    found = await resolve(registry.host, "client/index:both", "linux/arm64")
    assert found.digest == arm.digest
    assert found.raw_manifest == arm.manifest
    assert str(found.platform) == "linux/arm64/v8"


async def test_missing_platform_lists_what_there_is(registry: Registry) -> None:
    registry.push_index("client/missing", "x", (make(), "linux/amd64"), (make(), "linux/arm/v7"))
    with pytest.raises(NotFoundError, match="no image for linux/s390x") as caught:
        await resolve(registry.host, "client/missing:x", "linux/s390x")
    assert caught.value.why == "it is for: linux/amd64, linux/arm/v7"
    assert "--platform" in caught.value.hint


async def test_plain_manifest_of_another_platform(registry: Registry) -> None:
    registry.push(image([layer()], architecture="riscv64"), "client/riscv")
    with pytest.raises(NotFoundError, match="no image for linux/amd64") as caught:
        await resolve(registry.host, "client/riscv:latest")
    assert "linux/riscv64" in caught.value.why


async def test_nested_index(registry: Registry) -> None:
    made = make("nested")
    registry.push(made, "client/nested", "a")
    data = index((made, "linux/amd64"))
    for depth in range(5):
        registry.put_manifest("client/nested", f"depth{depth}", data, media.OCI_INDEX)
        entry = {"mediaType": media.OCI_INDEX, "size": len(data), "digest": digest(data)}
        data = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    assert (await resolve(registry.host, "client/nested:depth3")).digest == made.digest
    with pytest.raises(NotFoundError) as caught:
        await resolve(registry.host, "client/nested:depth3", "linux/s390x")
    assert "linux/amd64" in caught.value.why
    with pytest.raises(FormatError, match="nested more than"):
        await resolve(registry.host, "client/nested:depth4")


async def test_what_is_not_there(registry: Registry) -> None:
    with pytest.raises(NotFoundError, match="client/none:latest") as caught:
        await fetch(registry.host, "client/none:latest")
    assert "manifest unknown" in caught.value.why
    async with client() as reading:
        with pytest.raises(NotFoundError):
            await reading.tags(parse(f"docker://{registry.host}/client/none"))


async def test_tags_come_in_pages(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.registry.client._PAGE", 7)
    made = make("tags")
    tags = {f"v{number}" for number in range(30)}
    for tag in tags:
        registry.push(made, "client/tags", tag)
    async with client() as reading:
        found = await reading.tags(parse(f"docker://{registry.host}/client/tags"))
    assert len(found) == 30
    assert set(found) == tags


def signature(about: MadeImage, note: str) -> bytes:
    """Return the manifest of an artifact about an image."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "artifactType": "application/x.signature",
        "config": {"mediaType": media.OCI_EMPTY, "size": 2, "digest": digest(b"{}")},
        "layers": [],
        "subject": {
            "mediaType": about.media_type,
            "size": len(about.manifest),
            "digest": about.digest,
        },
        "annotations": {"note": note},
    }
    return json.dumps(manifest).encode()


async def test_all_pages_of_referrers_are_read(tmp_path: Path) -> None:
    with start_embedded(tmp_path / "embedded") as running:
        made = make("signed")
        running.push(made, "signed")
        running.push_blob("signed", b"{}")
        for number in range(5):
            data = signature(made, f"{number}" + "x" * 1_500_000)  # two fill a page
            running.put_manifest("signed", digest(data), data, media.OCI_MANIFEST)
        reference = parse(f"docker://{running.host}/signed@{made.digest}")
        async with client() as reading:
            found = await reading.referrers(reference, "application/x.signature")
            assert sorted(one.annotations["note"][0] for one in found) == list("01234")
            assert await reading.referrers(reference, "application/x.other") == ()


@pytest.mark.parametrize("status", [404, 400, 405])
async def test_a_tag_stands_in_for_the_list_of_referrers(registry: Registry, status: int) -> None:
    """``sha256-HEX`` names an index, where a registry has no interface for them."""
    made = make(f"signed {status}")
    registry.push(made, "client/signed")
    data = signature(made, "one")
    entry = {
        "mediaType": media.OCI_MANIFEST,
        "size": len(data),
        "digest": digest(data),
        "artifactType": "application/x.signature",
    }
    listed = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [entry]}
    fault = Fault(path="referrers", kind="status", status=status, times=ALWAYS)
    with flaky_proxy(registry.host, fault) as proxy:
        reference = parse(f"docker://{proxy.host}/client/signed@{made.digest}")
        async with client() as reading:
            assert await reading.referrers(reference) == ()
            registry.push_blob("client/signed", b"{}")
            registry.put_manifest("client/signed", digest(data), data, media.OCI_MANIFEST)
            tag = made.digest.replace(":", "-")
            registry.put_manifest(
                "client/signed", tag, json.dumps(listed).encode(), media.OCI_INDEX
            )
            (found,) = await reading.referrers(reference)
            assert (found.digest, found.artifact_type) == (digest(data), entry["artifactType"])


async def test_trouble_with_referrers_is_not_taken_for_none(registry: Registry) -> None:
    fault = Fault(path="referrers", kind="status", status=500, times=ALWAYS)
    with flaky_proxy(registry.host, fault) as proxy:
        reference = parse(f"docker://{proxy.host}/client/signed@{digest(b'x')}")
        async with client() as reading:
            with pytest.raises(RegistryError, match="answered 500"):
                await reading.referrers(reference)


async def test_pages_that_lead_in_a_circle_end(registry: Registry) -> None:
    registry.push(make("circle"), "client/circle")
    link = {"link": '</v2/elsewhere?n=1000&last=a>; rel="next"'}
    fault = Fault(path="tags/list", kind="headers", headers=link, times=ALWAYS)
    with flaky_proxy(registry.host, fault) as proxy:
        async with client() as reading:
            tags = await reading.tags(parse(f"docker://{proxy.host}/client/circle"))
    assert tags == ("latest",)
    assert [request.line for request in proxy.seen("tags/list")] == [
        "GET /v2/client/circle/tags/list?n=1000",
        "GET /v2/client/circle/tags/list?n=1000&last=a",
    ]


async def test_changed_manifest_is_found_out(registry: Registry) -> None:
    made = make("changed")
    registry.push(made, "client/changed")
    fault = Fault(path="manifests", kind="corrupt", after=5, times=ALWAYS)
    with flaky_proxy(registry.host, fault) as proxy:
        for version in (":latest", f"@{made.digest}"):
            with pytest.raises(VerificationError, match=made.digest):
                await fetch(proxy.host, f"client/changed{version}")


async def test_ambiguous_manifest_is_refused() -> None:
    from backend.oci.source import document_type

    document = json.loads(make().manifest) | {"manifests": []}
    with pytest.raises(FormatError, match="at once"):
        document_type(json.dumps(document).encode(), media.OCI_MANIFEST)
    with pytest.raises(FormatError, match="schema 1"):
        document_type(b'{"schemaVersion": 1}', media.DOCKER_SCHEMA1)


async def test_blob_from_an_offset(registry: Registry) -> None:
    made = make("offset")
    registry.push(made, "client/offset")
    async with client() as reading:
        found = await reading.resolve(parse(f"docker://{registry.host}/client/offset"), AMD)
        whole = made.blobs[found.manifest.layers[0].digest]
        assert await read(reading, found) == whole
        assert await read(reading, found, 10) == whole[10:]


async def test_registry_without_ranges(registry: Registry) -> None:
    made = make("ranges")
    registry.push(made, "client/ranges")
    fault = Fault(path="blobs", kind="no_range", times=ALWAYS)
    with flaky_proxy(registry.host, fault) as proxy:
        async with client() as reading:
            found = await reading.resolve(parse(f"docker://{proxy.host}/client/ranges"), AMD)
            whole = made.blobs[found.manifest.layers[0].digest]
            assert await read(reading, found, 10) == whole[10:]


async def test_wrong_range_is_refused(registry: Registry) -> None:
    registry.push(make("range"), "client/range")
    fault = Fault(path="blobs", kind="headers", headers={"content-range": "bytes 1-9/99"})
    fault.skip = 1  # the configuration
    with flaky_proxy(registry.host, fault) as proxy:
        async with client() as reading:
            found = await reading.resolve(parse(f"docker://{proxy.host}/client/range"), AMD)
            with pytest.raises(NetworkError, match="another part"):
                await read(reading, found, 10)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_passing_trouble_is_tried_again(registry: Registry, status: int) -> None:
    made = make("again")
    registry.push(made, "client/again")
    headers = {"retry-after": "0"}
    fault = Fault(path="manifests", kind="status", status=status, times=2, headers=headers)
    with flaky_proxy(registry.host, fault, Fault(path="manifests", kind="refuse")) as proxy:
        raw = await fetch(proxy.host, "client/again")
        assert raw.digest == made.digest
        assert len(proxy.seen("manifests")) == 4


async def test_trouble_that_stays_is_reported(registry: Registry) -> None:
    body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow \\u001b[31mdown"}]}'
    fault = Fault(path="manifests", kind="status", status=429, times=ALWAYS, body=body)
    with (
        flaky_proxy(registry.host, fault) as proxy,
        pytest.raises(RegistryError, match="429") as caught,
    ):
        await fetch(proxy.host, "client/again")
    assert caught.value.why == "slow \\x1b[31mdown"
    assert "limit" in caught.value.hint


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("21600", "6 hours"),
        (f"{time.time() + 9 * 86400 + 43200:.0f}", "9 days"),  # as a date
        ("9" * 400, "32 years"),
    ],
    ids=["seconds", "date", "for ever"],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_long_waits_are_told_and_not_waited_for(
    registry: Registry, status: int, asked: str, told: str
) -> None:
    if told == "9 days":
        asked = formatdate(int(asked), usegmt=True)
    headers = {"retry-after": asked}
    fault = Fault(path="manifests", kind="status", status=status, times=ALWAYS, headers=headers)
    with flaky_proxy(registry.host, fault) as proxy:
        with pytest.raises(RegistryError) as caught:
            await fetch(proxy.host, "client/again")
        assert len(proxy.seen("manifests")) == 1
    assert f"try again in {told}, as it asks" in caught.value.hint


async def test_a_date_that_is_near_is_waited_for(registry: Registry) -> None:
    made = make("near")
    registry.push(made, "client/near")
    headers = {"retry-after": formatdate(time.time() + 1, usegmt=True)}
    fault = Fault(path="manifests", kind="status", status=503, headers=headers)
    with flaky_proxy(registry.host, fault) as proxy:
        assert (await fetch(proxy.host, "client/near")).digest == made.digest
        assert len(proxy.seen("manifests")) == 2


async def test_a_login_page_is_no_manifest(registry: Registry) -> None:
    page = Fault(
        path="manifests",
        kind="status",
        status=200,
        headers={"content-type": "text/html"},
        body=b"<html>Welcome to our guest network</html>",
    )
    with (
        flaky_proxy(registry.host, page) as proxy,
        pytest.raises(FormatError, match="something else than a manifest") as caught,
    ):
        await fetch(proxy.host, "client/again")
    assert caught.value.why == "it is called text/html, and is no JSON"
    assert "login page" in caught.value.hint


@pytest.mark.parametrize(
    ("location", "word"),
    [
        ("ftp://elsewhere/x", "redirects to 'ftp://elsewhere/x'"),
        ("http://[::1", "redirects to no address"),
        ("http://127.0.0.1:99999/x", "there is no port 99999"),
        ("/v2/client/again/manifests/latest", "more than 5 times"),
        ("", "answered 302"),
    ],
)
async def test_redirects_that_lead_nowhere(registry: Registry, location: str, word: str) -> None:
    headers = {"location": location} if location else {}
    fault = Fault(path="manifests", kind="status", status=302, times=ALWAYS, headers=headers)
    with (
        flaky_proxy(registry.host, fault) as proxy,
        pytest.raises(NetworkError, match=word) as caught,
    ):
        await fetch(proxy.host, "client/again")
    assert not caught.value.transient


async def test_what_is_no_image_is_called_by_its_name(registry: Registry) -> None:
    made = make("artifact")
    registry.push(made, "client/artifact")
    for tag, place, value, word in (
        ("chart", "config", "application/vnd.cncf.helm.config.v1+json", "helm.config"),
        ("secret", "layer", "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "encrypted"),
    ):
        document = json.loads(made.manifest)
        entry = document["config"] if place == "config" else document["layers"][0]
        entry["mediaType"] = value
        data = json.dumps(document).encode()
        registry.put_manifest("client/artifact", tag, data, made.media_type)
        with pytest.raises(FormatError, match=word) as caught:
            await resolve(registry.host, f"client/artifact:{tag}")
        assert caught.value.hint


async def test_what_is_missing_there_has_a_hint(registry: Registry) -> None:
    made = make("lost")
    registry.push(made, "client/lost")
    with pytest.raises(NotFoundError) as caught:
        await fetch(registry.host, "client/lost:none")
    assert caught.value.hint == f"its tags: sifdeck tags docker://{registry.host}/client/lost"
    lost = json.loads(made.manifest)["layers"][0]["digest"]
    gone = Fault(path=f"blobs/{lost}", kind="status", status=404, times=ALWAYS)
    with flaky_proxy(registry.host, gone) as proxy:
        async with client() as reading:
            found = await reading.resolve(parse(f"docker://{proxy.host}/client/lost"), AMD)
            foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
            for kind, word in ((media.OCI_LAYER, "push it again"), (foreign, "licence")):
                wanted = values.replace(found.manifest.layers[0], media_type=kind)
                with pytest.raises(NotFoundError) as caught:
                    await anext(reading.stream_blob(found.reference, wanted))
                assert word in caught.value.hint


async def test_silence_ends(registry: Registry) -> None:
    registry.push(make("silence"), "client/silence")
    fault = Fault(path="manifests", kind="stall", after=1, times=ALWAYS)
    with flaky_proxy(registry.host, fault) as proxy:
        async with client(plain_http=True, transport=Transport(silence_s=0.05)) as reading:
            with pytest.raises(NetworkError, match="does not answer") as caught:
                await reading.fetch_manifest(parse(f"docker://{proxy.host}/client/silence"))
    assert "what came is not fetched again" in caught.value.hint


async def test_nobody_there_is_said_at_once() -> None:
    async with client(plain_http=True) as reading:
        with pytest.raises(NetworkError, match=r"no connection to 127\.0\.0\.1:1$") as caught:
            await reading.fetch_manifest(parse("docker://127.0.0.1:1/x/y"))
    assert caught.value.why == "Connection refused"
    assert "check the name and the port" in caught.value.hint


async def test_endless_manifest_is_cut(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.push(make("endless"), "client/endless")
    monkeypatch.setattr(
        "backend.registry.session.Session.read.__kwdefaults__", {"accept": "x", "limit": 100}
    )
    reference = parse(f"docker://{registry.host}/client/endless")
    async with client() as reading:
        with pytest.raises(FormatError, match="more than 100 bytes"):
            await reading.fetch_manifest(reference)


async def test_basic_login(locked_registry: Registry) -> None:
    made = make("basic")
    locked_registry.push(made, "client/basic")
    reference = parse(f"docker://{locked_registry.host}/client/basic")
    good, bad = given_login(USER, PASSWORD), given_login(USER, "planted-secret")
    async with RegistryClient(credentials=Credentials(login=good)) as reading:
        found = await reading.resolve(reference, AMD)
        assert await read(reading, found) == made.blobs[found.manifest.layers[0].digest]
    for login, text in ((bad, "refuses the login of alice"), (None, "wants a login")):
        async with RegistryClient(credentials=Credentials(login=login)) as reading:
            with pytest.raises(AuthenticationError, match=text) as caught:
                await reading.resolve(reference, AMD)
        assert "registry login" in caught.value.hint
        assert "planted" not in repr(caught.value) + caught.value.why


async def test_token_login(tmp_path: Path) -> None:
    with token_registry(tmp_path) as (running, server):
        made = make("token")
        grant(running, server, "client/token")
        running.push(made, "client/token")
        reference = parse(f"docker://{running.host}/client/token")

        async def pull(**login: object) -> None:
            async with RegistryClient(credentials=Credentials(**login)) as reading:  # type: ignore[arg-type]
                found = await reading.resolve(reference, AMD)
                assert await read(reading, found) == made.blobs[found.manifest.layers[0].digest]

        await pull()
        assert server.requests == [("GET", "repository:client/token:pull", "")]  # one for all
        server.anonymous, server.name = False, "access_token"
        await pull(login=given_login(USER, PASSWORD))
        assert server.requests[-1] == ("GET", "repository:client/token:pull", USER)
        with pytest.raises(AuthenticationError, match=f"{running.host} wants a login"):
            await pull()
        with pytest.raises(AuthenticationError, match=f"{running.host} refuses the login of alice"):
            await pull(login=given_login(USER, "wrong"))
        await pull(login=replace(given_login("", REFRESH_TOKEN), kind="identity"))
        assert server.requests[-1][0] == "POST"


async def test_token_that_ends_is_renewed_once(tmp_path: Path) -> None:
    with token_registry(tmp_path) as (running, server):
        made = make("renew")
        grant(running, server, "client/renew")
        running.push(made, "client/renew")
        async with client() as reading:
            found = await reading.resolve(parse(f"docker://{running.host}/client/renew"), AMD)
            # The registry ends the token while the client still believes in it.
            key = (running.host, "repository:client/renew:pull")
            old = reading.session._auth._tokens[key]
            reading.session._auth._tokens[key] = replace(old, value=type(old.value)("a.b.c"))
            many = await asyncio.gather(*(read(reading, found) for _ in range(4)))
        assert set(many) == {made.blobs[found.manifest.layers[0].digest]}
        assert len(server.requests) == 2


async def test_redirect_takes_no_credentials_along(
    locked_registry: Registry, registry: Registry
) -> None:
    """A registry keeps its blobs elsewhere, as most do; elsewhere gets no password."""
    made = make("redirect")
    for one in (locked_registry, registry):
        one.push(made, "client/redirect")
    with flaky_proxy(registry.host) as elsewhere:
        target = f"http://{elsewhere.host}/v2/client/redirect/blobs/{_layer(made)}?signed=1"
        moved = Fault(path="blobs", kind="status", status=307, headers={"location": target})
        moved.skip = 2  # the configuration, without and with the login
        with flaky_proxy(locked_registry.host, moved) as proxy:
            login = given_login(USER, PASSWORD)
            async with RegistryClient(credentials=Credentials(login=login)) as reading:
                reference = parse(f"docker://{proxy.host}/client/redirect")
                found = await reading.resolve(reference, AMD)
                moved.skip = 0
                assert await read(reading, found) == made.blobs[_layer(made)]
        assert "authorization" in proxy.seen("blobs")[-1].headers
        assert [list(request.headers) for request in elsewhere.requests]
        assert "authorization" not in elsewhere.requests[0].headers


async def test_redirect_from_https_to_http_is_refused() -> None:
    import httpx

    from backend.registry.transport import _redirect_target

    with pytest.raises(NetworkError, match="from HTTPS to HTTP"):
        _redirect_target(httpx.URL("https://a/b"), "http://a/c")
    with pytest.raises(NetworkError, match="redirects to"):
        _redirect_target(httpx.URL("https://a/b"), "file:///etc/passwd")
    assert str(_redirect_target(httpx.URL("https://a/b"), "/c?d")) == "https://a/c?d"


async def test_untrusted_certificate(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    folder.mkdir()
    with (
        start_registry(folder, authority=make_authority(tmp_path)) as running,
        pytest.raises(NetworkError, match="is not trusted") as caught,
    ):
        await fetch(running.host, "client/tls")
    assert "--ca-cert" in caught.value.hint


async def test_tls_is_spoken_of_in_words(tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    folder.mkdir()
    broken = tmp_path / "broken.crt"
    broken.write_text("no certificate")
    with start_registry(folder, authority=make_authority(tmp_path)) as running:
        reference = parse(f"docker://{running.host}/x/y")
        async with client() as reading:
            with pytest.raises(NetworkError) as untrusted:
                await reading.fetch_manifest(reference)
        async with client(plain_http=True) as reading:
            with pytest.raises(NetworkError) as plain:
                await reading.fetch_manifest(reference)
        for file, words in ((broken, "no certificate or crl found"), (tmp_path / "x", "No such")):
            async with client(transport=Transport(trust=Trust(ca_cert=file))) as reading:
                with pytest.raises(UsageError, match="cannot be used") as unreadable:
                    await reading.fetch_manifest(reference)
            assert words in unreadable.value.why
    assert untrusted.value.why.startswith("certificate verify failed: ")
    assert "_ssl.c" not in untrusted.value.why
    assert "leave --no-https out" in plain.value.hint


async def test_a_digest_in_the_reference(registry: Registry) -> None:
    made = make("digest")
    registry.push(made, "client/digest")
    assert (await resolve(registry.host, f"client/digest@{made.digest}")).digest == made.digest
    other = Digest(f"sha256:{'0' * 64}")
    with pytest.raises(NotFoundError):
        await resolve(registry.host, f"client/digest@{other}")


def _layer(made: MadeImage) -> str:
    named: str = json.loads(made.manifest)["layers"][0]["digest"]
    return named
