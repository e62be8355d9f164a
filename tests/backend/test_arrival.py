"""Blobs that are read while they arrive."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from backend.arrival import Arrival
from backend.errors import FormatError, VerificationError
from backend.events import Event, Phase
from backend.oci.digest import digest_of
from backend.oci.image import Descriptor
from backend.pull import PullOptions, pull_image
from backend.reference import parse
from tests.support import images
from tests.support.flaky import Fault, flaky_proxy
from tests.support.images import Entry, layer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registry import Registry

WAIT_S = 60
DATA = b"0123456789"


@pytest.fixture
def arriving(tmp_path: Path) -> tuple[Arrival, int]:
    """Return an arrival of ``DATA``, of which nothing is there, and the file it goes to."""
    fd = os.open(tmp_path / "blob", os.O_RDWR | os.O_CREAT)
    descriptor = Descriptor(media_type="x", size=len(DATA), digest=digest_of(DATA))
    return Arrival(fd, descriptor), fd


def test_a_read_waits_for_its_bytes_and_the_end_for_the_verdict(
    arriving: tuple[Arrival, int],
) -> None:
    arrival, fd = arriving
    file = arrival.open()
    assert file
    with file, ThreadPoolExecutor(1) as reader:
        first = reader.submit(file.read, 100)
        os.write(fd, DATA[:4])
        arrival.grow(4)
        assert first.result(WAIT_S) == DATA[:4]
        assert (file.seek(1), file.read(2), file.seek(-1, 1)) == (1, DATA[1:3], 2)
        os.write(fd, DATA[4:])
        arrival.grow(10)
        assert reader.submit(file.read, 100).result(WAIT_S) == DATA[2:]
        end = reader.submit(file.read, 100)
        assert not end.done()
        arrival.end(is_whole=True)
        arrival.end(is_whole=False)  # only the first verdict counts
        os.close(fd)
        assert end.result(WAIT_S) == b""
        assert file.seek(0, 2) == len(DATA)
    assert arrival.open() is None


@pytest.mark.parametrize("ending", ["broken", "stopped"])
def test_a_read_that_waits_for_nothing_ends_with_an_error(
    ending: str, arriving: tuple[Arrival, int]
) -> None:
    arrival, fd = arriving
    file = arrival.open()
    assert file
    with file, ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(file.read, 1)
        if ending == "broken":
            arrival.end(is_whole=False)
        else:
            file.stop()
        with pytest.raises(FormatError, match="did not arrive"):
            waiting.result(WAIT_S)
    os.close(fd)


@pytest.mark.registry
def test_a_layer_is_converted_while_it_arrives(registry: Registry, tmp_path: Path) -> None:
    registry.push(images.image([layer(Entry(name="a", data=os.urandom(9_000_000)))]), "arrival/x")
    progress = threading.Event()

    def report(event: Event) -> None:
        if isinstance(event, Phase) and event.name == "convert" and event.done:
            progress.set()

    meter = Fault(path="GET /v2/arrival/x/blobs", kind="meter", times=9, skip=1)
    with flaky_proxy(registry.host, meter) as proxy, ThreadPoolExecutor(1) as pulling:
        reference = parse(f"docker://{proxy.host}/arrival/x")
        options = PullOptions(cache=tmp_path / "cache")
        proxy.allow(6_000_000)
        pulled = pulling.submit(pull_image, reference, tmp_path / "x.sif", options, report)
        assert progress.wait(WAIT_S)
        assert not (tmp_path / "x.sif").exists()
        proxy.allow(1 << 30)
        pulled.result(WAIT_S)
        again = pull_image(reference, tmp_path / "y.sif", options, report)
    assert again.path.read_bytes() == (tmp_path / "x.sif").read_bytes()


@pytest.mark.registry
@pytest.mark.parametrize("pack", ["", "gzip"])
@pytest.mark.parametrize("at", [0, 3_000_000])
def test_what_makes_no_sense_because_it_was_damaged_is_called_damaged(
    at: int, pack: str, registry: Registry, tmp_path: Path
) -> None:
    made = images.image([layer(Entry(name="a", data=os.urandom(5_000_000)))], compress=pack)
    name = f"arrival/{pack or 'plain'}-{at}"
    registry.push(made, name)
    fault = Fault(path=f"GET /v2/{name}/blobs", kind="corrupt", after=at, times=99, skip=1)
    with flaky_proxy(registry.host, fault) as proxy:
        reference = parse(f"docker://{proxy.host}/{name}")
        with pytest.raises(VerificationError, match="was damaged on the way"):
            pull_image(
                reference, tmp_path / "x.sif", PullOptions(cache=tmp_path), lambda _event: None
            )
    assert not (tmp_path / "x.sif").exists()
