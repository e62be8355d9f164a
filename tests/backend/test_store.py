"""The store: every way in which a download can end, and processes that share one cache."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from backend import events, values
from backend.errors import BackendError, NetworkError, SpaceError, VerificationError
from backend.oci.digest import Digest
from backend.oci.platform import parse_platform
from backend.reference import parse
from backend.registry.client import RegistryClient
from backend.registry.credentials import Credentials
from backend.registry.transport import Transport
from backend.store import Store
from tests.support.flaky import Fault, flaky_proxy
from tests.support.images import Entry, MadeImage, image, layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from backend.oci.source import RemoteImage
    from tests.support.flaky import FlakyProxy
    from tests.support.registry import Registry

AMD = parse_platform("linux/amd64")
SIZE = 5_000_000
"""Bytes of a layer: more than one batch of the store."""


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.registry.retry._FIRST_WAIT_S", 0.001)


@pytest.fixture(scope="module")
def made() -> MadeImage:
    files = [Entry(name=f"f{i}", data=bytes([i]) * 1000 + os.urandom(SIZE)) for i in range(3)]
    return image([layer(file) for file in files], compress="")


class Pull:
    """One pull of an image into a store, with what it reported."""

    def __init__(self, root: Path, host: str, name: str) -> None:
        self.store = Store(root)
        self.events: list[events.Event] = []
        self.arrived: list[int] = []
        self._reference = parse(f"docker://{host}/{name}")
        self._transport = Transport(silence_s=2)

    async def run(self, *, base_first: bool = False) -> RemoteImage:
        async with RegistryClient(
            credentials=Credentials(), plain_http=True, transport=self._transport
        ) as client:
            found = await client.resolve(self._reference, AMD)
            await self.store.fetch_layers(
                client,
                found,
                report=self.events.append,
                on_layer=lambda number, _path: self.arrived.append(number),
                base_first=base_first,
            )
            return found

    def states(self, index: int) -> list[str]:
        """Return the states of one blob, repetitions left out."""
        found: list[str] = []
        for event in self.events:
            if isinstance(event, events.Blob) and (event.role, event.index) == ("layer", index):
                found += [event.state] if found[-1:] != [event.state] else []
        return found


@contextlib.contextmanager
def spoilt(registry: Registry, *faults: Fault) -> Iterator[FlakyProxy]:
    with flaky_proxy(registry.host, *faults) as proxy:
        yield proxy


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, but not for ever."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  (files and processes set no events)
            await asyncio.sleep(0.01)


def layers(made: MadeImage) -> list[str]:
    """Return the layers' digests, base first; the configuration is the last blob."""
    return list(made.blobs)[:-1]


def check(root: Path, made: MadeImage) -> None:
    """Check that the store holds every layer, bit for bit, and nothing half."""
    for digest in layers(made):
        assert Store(root).blob_path(Digest(digest)).read_bytes() == made.blobs[digest]
    assert list((root / "partial").iterdir()) == []


async def test_whole_image(registry: Registry, made: MadeImage, tmp_path: Path) -> None:
    registry.push(made, "store/whole")
    pull = Pull(tmp_path, registry.host, "store/whole")
    found = await pull.run()
    check(tmp_path, made)
    assert sorted(pull.arrived) == [0, 1, 2]
    assert pull.states(0) == ["waiting", "downloading", "done"]
    last = [event for event in pull.events if isinstance(event, events.Blob)][-1]
    assert last.done == last.size
    again = Pull(tmp_path, registry.host, "store/whole")
    await again.run()
    assert again.states(2) == ["waiting", "exists"]
    assert found.manifest.layers[0].size == len(made.blobs[layers(made)[0]])


async def test_layers_come_in_the_order_in_which_they_are_needed(
    registry: Registry, made: MadeImage, tmp_path: Path
) -> None:
    registry.push(made, "store/order")
    for base_first, order in {False: [2, 1, 0], True: [0, 1, 2]}.items():
        pull = Pull(tmp_path, registry.host, "store/order")
        pull.store = Store(tmp_path / str(base_first), parallel=1)
        await pull.run(base_first=base_first)
        assert pull.arrived == order


async def test_the_same_layer_twice(registry: Registry, tmp_path: Path) -> None:
    same = layer(Entry(name="x", data=os.urandom(SIZE)))
    made = image([same, same], compress="")
    registry.push(made, "store/twice")
    with spoilt(registry) as proxy:
        pull = Pull(tmp_path, proxy.host, "store/twice")
        await pull.run()
        assert sorted(pull.arrived) == [0, 1]
        assert len(proxy.seen(f"blobs/{layers(made)[0]}")) == 1
    check(tmp_path, made)


async def test_cut_connection_goes_on(registry: Registry, made: MadeImage, tmp_path: Path) -> None:
    registry.push(made, "store/cut")
    base = layers(made)[0]
    cuts = [Fault(path=f"blobs/{base}", kind="cut", after=at) for at in (1_000_000, 10, 3_000_000)]
    with spoilt(registry, *cuts) as proxy:
        pull = Pull(tmp_path, proxy.host, "store/cut")
        await pull.run()
        ranges = [request.headers.get("range") for request in proxy.seen(f"blobs/{base}")]
    assert ranges == [None, "bytes=1000000-", "bytes=1000010-", "bytes=4000010-"]
    assert "retry" in pull.states(0)
    notes = [e.note for e in pull.events if isinstance(e, events.Blob) and e.state == "retry"]
    assert "attempt 2 of 5 resumes at 1.0 MB" in notes[0]
    check(tmp_path, made)


async def test_stalled_connection_goes_on(
    registry: Registry, made: MadeImage, tmp_path: Path
) -> None:
    registry.push(made, "store/stall")
    stall = Fault(path=f"blobs/{layers(made)[1]}", kind="stall", after=100)
    with spoilt(registry, stall) as proxy:
        pull = Pull(tmp_path, proxy.host, "store/stall")
        pull._transport = Transport(silence_s=0.2)
        await pull.run()
    check(tmp_path, made)


async def test_trickling_connection_is_given_up(
    registry: Registry, made: MadeImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.push(made, "store/trickle")
    monkeypatch.setattr("backend.store._PACE_S", 0.0)
    monkeypatch.setattr("backend.store._PACE_BYTES", SIZE * 2)
    with pytest.raises(NetworkError, match="bytes came in 0 s"):
        await Pull(tmp_path, registry.host, "store/trickle").run()


async def test_connection_that_always_breaks_keeps_what_came(
    registry: Registry, made: MadeImage, tmp_path: Path
) -> None:
    registry.push(made, "store/breaks")
    base = layers(made)[0]
    fault = Fault(path=f"blobs/{base}", kind="cut", after=1000, times=100)
    with spoilt(registry, fault) as proxy:
        with pytest.raises(NetworkError, match="cut") as caught:
            await Pull(tmp_path, proxy.host, "store/breaks").run()
        assert len(proxy.seen(f"blobs/{base}")) == 5
        assert "of 3 layers are in the cache" in caught.value.kept
        fault.times = 0
        await Pull(tmp_path, proxy.host, "store/breaks").run()
        assert proxy.seen(f"blobs/{base}")[-1].headers["range"] == "bytes=5000-"
    check(tmp_path, made)


async def test_damage_is_found_and_thrown_away(
    registry: Registry, made: MadeImage, tmp_path: Path
) -> None:
    registry.push(made, "store/damage")
    base = layers(made)[0]
    fault = Fault(path=f"blobs/{base}", kind="corrupt", after=4_000_000)
    with spoilt(registry, fault) as proxy:
        pull = Pull(tmp_path, proxy.host, "store/damage")
        with pytest.raises(VerificationError, match=base) as caught:
            await pull.run()
        assert f"expected {base}, got sha256:" in caught.value.why
        assert pull.states(0)[-1] == "failed"
        assert not any(path.name.endswith(base[7:]) for path in (tmp_path / "partial").iterdir())
        await Pull(tmp_path, proxy.host, "store/damage").run()
    check(tmp_path, made)


@pytest.mark.parametrize("lie", [-7, 7])
async def test_lying_length(registry: Registry, made: MadeImage, tmp_path: Path, lie: int) -> None:
    registry.push(made, "store/lie")
    base = layers(made)[0]
    fault = Fault(path=f"blobs/{base}", kind="length", after=lie, times=100)
    with (
        spoilt(registry, fault) as proxy,
        pytest.raises(VerificationError, match="wrong size") as caught,
    ):
        await Pull(tmp_path, proxy.host, "store/lie").run()
    size = len(made.blobs[base])
    assert caught.value.why == f"expected {size} bytes, got {size + lie}"
    assert base in caught.value.message


async def test_blob_longer_than_the_manifest_says(
    registry: Registry, made: MadeImage, tmp_path: Path
) -> None:
    """Without a Content-Length the lie is seen only as the bytes come."""
    registry.push(made, "store/long")
    async with RegistryClient(credentials=Credentials()) as client:
        found = await client.resolve(parse(f"docker://{registry.host}/store/long"), AMD)
        short = values.replace(found.manifest.layers[0], size=1_000_000)

        class Endless:
            local_file = client.local_file

            async def stream_blob(self, *_args: object):  # type: ignore[no-untyped-def]  # noqa: ANN202
                while True:
                    yield bytes(300_000)

        with pytest.raises(VerificationError, match="wrong size"):
            await Store(tmp_path).fetch(
                Endless(), found.reference, short, role="layer", index=0, report=events.ignore
            )
    assert list((tmp_path / "partial").iterdir()) == []


async def test_kept_part_that_is_wrong_costs_only_time(
    registry: Registry, made: MadeImage, tmp_path: Path
) -> None:
    registry.push(made, "store/kept")
    base = layers(made)[0]
    partial = tmp_path / "partial" / base.replace(":", "-")
    partial.parent.mkdir()
    partial.write_bytes(b"never written by us")
    await Pull(tmp_path, registry.host, "store/kept").run()
    check(tmp_path, made)
    # ... and one that is too long is cut.
    Store(tmp_path).blob_path(Digest(base)).unlink()
    partial.write_bytes(made.blobs[base] + b"more")
    with spoilt(registry) as proxy:
        await Pull(tmp_path, proxy.host, "store/kept").run()
        assert proxy.seen(f"blobs/{base}") == []
    check(tmp_path, made)


async def test_full_disk_leaves_whole_blobs_only(
    registry: Registry, made: MadeImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.push(made, "store/full")
    real, written = os.write, 0

    def full(fd: int, data: memoryview) -> int:
        nonlocal written
        written += len(data)
        if written > 6_000_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr("backend.store.os.write", full)
    with pytest.raises(SpaceError, match="no space left") as caught:
        await Pull(tmp_path, registry.host, "store/full").run()
    assert "SIFDECK_CACHE_DIR" in caught.value.hint
    assert re.fullmatch(r"\d of \d layers are in the cache", caught.value.kept)
    assert list((tmp_path / "partial").iterdir()) == []
    monkeypatch.undo()
    await Pull(tmp_path, registry.host, "store/full").run()
    check(tmp_path, made)


async def test_folder_that_is_not_ours(registry: Registry, made: MadeImage, tmp_path: Path) -> None:
    registry.push(made, "store/file")
    (tmp_path / "blobs").write_text("a file where a folder should be")
    with pytest.raises(BackendError, match="cannot be used"):
        await Pull(tmp_path, registry.host, "store/file").run()


async def test_file_system_without_locks(
    registry: Registry, made: MadeImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.push(made, "store/nolocks")

    def refuse(_fd: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("backend.store.fcntl.flock", refuse)
    pulls = [Pull(tmp_path, registry.host, "store/nolocks") for _ in range(2)]
    await asyncio.gather(*(pull.run() for pull in pulls))
    for digest in layers(made):
        assert Store(tmp_path).blob_path(Digest(digest)).read_bytes() == made.blobs[digest]


async def test_cancelled_download_lets_go(
    registry: Registry, made: MadeImage, tmp_path: Path
) -> None:
    registry.push(made, "store/cancel")
    stall = Fault(path=f"blobs/{layers(made)[0]}", kind="stall", after=3_000_000)
    with spoilt(registry, stall) as proxy:
        pull = Pull(tmp_path, proxy.host, "store/cancel")
        task = asyncio.create_task(pull.run())
        await until(lambda: "done" in pull.states(2))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        again = Pull(tmp_path, proxy.host, "store/cancel")
        await again.run()
    check(tmp_path, made)


PULLER = """
import asyncio, sys
from pathlib import Path
from backend.events import ignore
from backend.oci.platform import parse_platform
from backend.reference import parse
from backend.registry.client import RegistryClient
from backend.registry.credentials import Credentials
from backend.store import Store

async def main(root, name):
    async with RegistryClient(credentials=Credentials(), plain_http=True) as client:
        image = await client.resolve(parse(name), parse_platform("linux/amd64"))
        await Store(Path(root)).fetch_layers(
            client, image, report=ignore, on_layer=lambda number, path: None)

asyncio.run(main(*sys.argv[1:]))
"""


def puller(root: Path, host: str, name: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", PULLER, str(root), f"docker://{host}/{name}"]
    return subprocess.Popen(argv)


async def test_killed_download_goes_on(registry: Registry, made: MadeImage, tmp_path: Path) -> None:
    registry.push(made, "store/kill")
    base = layers(made)[0]
    stall = Fault(path=f"blobs/{base}", kind="stall", after=4_000_000)
    with spoilt(registry, stall) as proxy:
        process = puller(tmp_path, proxy.host, "store/kill")
        partial = tmp_path / "partial" / base.replace(":", "-")
        await until(lambda: partial.exists() and partial.stat().st_size >= 2_000_000)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = partial.stat().st_size
        await Pull(tmp_path, proxy.host, "store/kill").run()
        assert proxy.seen(f"blobs/{base}")[-1].headers["range"] == f"bytes={kept}-"
    check(tmp_path, made)


def test_processes_share_downloads(registry: Registry, made: MadeImage, tmp_path: Path) -> None:
    registry.push(made, "store/share")
    with spoilt(registry) as proxy:
        processes = [puller(tmp_path, proxy.host, "store/share") for _ in range(6)]
        assert [process.wait(60) for process in processes] == [0] * 6
        for digest in layers(made):
            assert len(proxy.seen(f"GET .*blobs/{digest}")) == 1
    check(tmp_path, made)


async def test_two_hundred_pulls_in_one_process(
    registry: Registry, made: MadeImage, tmp_path: Path
) -> None:
    registry.push(made, "store/many")
    async with RegistryClient(credentials=Credentials()) as client:
        found = await client.resolve(parse(f"docker://{registry.host}/store/many"), AMD)
        with spoilt(registry) as proxy:
            there = replace(found.reference, registry=proxy.host)
            image = replace(found, reference=there)
            await asyncio.gather(
                *(
                    Store(tmp_path).fetch_layers(
                        client, image, report=events.ignore, on_layer=lambda _i, _p: None
                    )
                    for _ in range(200)
                )
            )
            assert len(proxy.seen("GET .*blobs")) == 3
    check(tmp_path, made)
