"""What a pull does when the machine does not play along; e2e/test_pull.py has the rest."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from backend.errors import BackendError, FormatError
from backend.events import ignore
from backend.oci.platform import host_platform
from backend.pull import PullOptions, _Download, cached_image, pull_image
from backend.reference import parse
from backend.sif.contents import ImageTree
from tests.support import images
from tests.support.flaky import Fault, flaky_proxy
from tests.support.images import Entry, layer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registry import Registry


class Interrupted(ThreadPoolExecutor):
    """Is interrupted by a signal as soon as its thread runs."""

    def submit(self, *args: Any, **more: Any) -> Any:
        super().submit(*args, **more)
        raise KeyboardInterrupt


def test_a_signal_while_the_download_starts_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.pull.ThreadPoolExecutor", Interrupted)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        reference = parse(f"docker://127.0.0.1:{silent.getsockname()[1]}/x")
        with pytest.raises(KeyboardInterrupt):
            pull_image(reference, tmp_path / "x.sif", PullOptions(cache=tmp_path), ignore)
    assert not [one for one in threading.enumerate() if one.name.startswith("download")]


@pytest.mark.registry
def test_an_end_that_comes_while_the_loop_ends_disturbs_nothing(
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The block is left while the thread has done its work and closes its loop."""
    loops = []

    class Closing(_Download):
        def _run(self) -> None:
            loops.append((self._loop, self._cancel))
            super()._run()

    closing = asyncio.BaseEventLoop.shutdown_default_executor

    async def shut_down(loop: asyncio.BaseEventLoop, *args: Any) -> None:
        for other, cancel in loops:
            if other is loop:
                loop.call_soon(cancel)
        await closing(loop, *args)

    monkeypatch.setattr("backend.pull._Download", Closing)
    monkeypatch.setattr(asyncio.BaseEventLoop, "shutdown_default_executor", shut_down)
    registry.push(images.image([layer(Entry(name="a"))]), "pull/end")
    reference = parse(f"docker://{registry.host}/pull/end")
    pull_image(reference, tmp_path / "x.sif", PullOptions(cache=tmp_path), ignore)
    assert len(loops) == 1
    assert not caplog.records


@pytest.mark.registry
def test_each_blob_is_downloaded_once(registry: Registry, tmp_path: Path) -> None:
    made = images.image([layer(Entry(name="a"))])
    registry.push(made, "pull/once")
    reference = parse(f"docker://{registry.host}/pull/once")
    for name in ("first", "second"):
        pull_image(reference, tmp_path / name, PullOptions(cache=tmp_path / "cache"), ignore)
    for blob in made.blobs:
        asked = registry.requests_for(f'"GET /v2/pull/once/blobs/{blob}')
        assert len(asked) == 1, asked


PLAIN = "application/vnd.oci.image.layer.v1.tar"
FILES = layer(Entry(name="a", data=b"x"))
DOCKERS_EMPTY = bytes.fromhex("1f8b080000096e8800ff621805a360148c5800080000ffff2eafb5ef00040000")
"""The layer of instructions that change nothing, as Docker wrote it for years."""


def name_of(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


@pytest.mark.registry
@pytest.mark.parametrize(
    ("kind", "packed", "plain", "algorithm"),
    [
        (PLAIN, b"", b"", "sha256"),
        (f"{PLAIN}+gzip", b"", b"", "sha256"),
        (f"{PLAIN}+gzip", gzip.compress(bytes(1024)), bytes(1024), "sha256"),
        (f"{PLAIN}+gzip", DOCKERS_EMPTY, bytes(1024), "sha256"),
        (f"{PLAIN}+gzip", gzip.compress(FILES), FILES, "sha512"),
    ],
    ids=["nothing", "nothing called gzip", "no files", "docker", "sha512"],
)
def test_layers_that_are_seldom(
    kind: str, packed: bytes, plain: bytes, algorithm: str, registry: Registry, tmp_path: Path
) -> None:
    config = json.dumps(
        {
            "architecture": host_platform().architecture,
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [name_of(plain)]},
        }
    ).encode()

    def describe(media_type: str, data: bytes) -> dict[str, object]:
        digest = registry.push_blob("pull/seldom", data, name_of(data, algorithm))
        return {"mediaType": media_type, "size": len(data), "digest": digest}

    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": describe("application/vnd.oci.image.config.v1+json", config),
        "layers": [describe(kind, packed)],
    }
    data = json.dumps(manifest).encode()
    registry.put_manifest("pull/seldom", "x", data, str(manifest["mediaType"]))
    reference = parse(f"docker://{registry.host}/pull/seldom:x")
    made = pull_image(reference, tmp_path / "x.sif", PullOptions(cache=tmp_path / "c"), ignore)
    with ImageTree(made.path) as tree:
        found = [path for path, _ in tree.layers[0].walk()]
    assert [path for path in found if path.strip(b"/")] == ([b"a"] if plain is FILES else [])


@pytest.mark.registry
def test_headers_of_a_proxy_change_no_byte(registry: Registry, tmp_path: Path) -> None:
    """Object stores label layers as gzip-encoded, which they are; httpx would unpack them."""
    registry.push(images.image([FILES]), "pull/labelled")
    faults = Fault(path="GET", kind="headers", times=100, headers={"content-encoding": "gzip"})
    with flaky_proxy(registry.host, faults) as proxy:
        for number, host in enumerate((registry.host, proxy.host)):
            reference = parse(f"docker://{host}/pull/labelled")
            options = PullOptions(cache=tmp_path / host, recorded="docker://x")
            pull_image(reference, tmp_path / f"{number}.sif", options, ignore)
    assert (tmp_path / "0.sif").read_bytes() == (tmp_path / "1.sif").read_bytes()


@pytest.mark.registry
def test_a_configuration_beyond_all_bounds_is_refused(registry: Registry, tmp_path: Path) -> None:
    made = images.image([layer(Entry(name="a"))])
    manifest = json.loads(made.manifest)
    blob = manifest["config"]["digest"]
    manifest["config"]["size"] = 5 << 30
    made.manifest = json.dumps(manifest).encode()
    registry.push_index("pull/huge", "latest", (made, "linux/amd64"))
    reference = parse(f"docker://{registry.host}/pull/huge")
    with pytest.raises(FormatError, match="larger than"):
        pull_image(reference, tmp_path / "x", PullOptions(cache=tmp_path), ignore)
    assert registry.requests_for(f'"GET /v2/pull/huge/blobs/{blob}') == []


@pytest.mark.registry
def test_a_cache_that_cannot_be_written_is_named(registry: Registry, tmp_path: Path) -> None:
    registry.push(images.image([layer(Entry(name="a"))]), "pull/unwritable")
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "oci-sif").write_text("a file where a folder should be")
    reference = parse(f"docker://{registry.host}/pull/unwritable")
    with pytest.raises(BackendError, match=r"the cache in .* cannot be used") as caught:
        cached_image(reference, PullOptions(cache=cache), ignore)
    assert "SIFDECK_CACHE_DIR" in caught.value.hint
