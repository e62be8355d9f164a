"""What the tests of containers share: a folder that every user reaches, an image, the runtimes."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import containers, images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.containers import Start
    from tests.support.users import Somebody


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """Give a folder that every user can enter and read."""
    path = Path(tempfile.mkdtemp(prefix="sifdeck-e2e-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def busybox_squashfs(open_folder: Path) -> bytes:
    """Give the squashfs of :func:`images.busybox_layer`."""
    return containers.squashfs(open_folder, images.busybox_layer())


@pytest.fixture(scope="session")
def busybox(open_folder: Path, busybox_squashfs: bytes) -> Path:
    """Give an image that runs a shell."""
    return containers.oci_sif(open_folder / "busybox.oci.sif", [busybox_squashfs], {"Cmd": ["sh"]})


@pytest.fixture(params=containers.RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Give each runtime in turn."""
    name: str = request.param
    return containers.need_runtime(name)


@pytest.fixture
def start() -> Iterator[Start]:
    """Start containers; whatever still runs at the end of the test is killed."""
    with contextlib.ExitStack() as stack:

        def begin(who: Somebody, *arguments: str | Path) -> containers.Started:
            started = containers.Started(who, *arguments)
            stack.callback(started.close)
            started.wait_for_line()
            return started

        yield begin
