"""Builds in tests: a base image of busybox, a context, and the command line that builds it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from backend.events import Event, Step, decode
from backend.sif.ocisif import read_ocisif
from backend.squashfs.reader import SquashfsReader
from tests.support.images import busybox_layer, image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.support.registry import Registry
    from tests.support.users import Somebody

SIFDECK = (sys.executable, "-P", "-c", "import sys, sifdeck; sys.exit(sifdeck.main())")


@pytest.fixture(scope="session")
def base(registry: Registry) -> str:
    """The reference of a small image with a shell."""
    made = image([busybox_layer()], config={"Cmd": ["sh"], "Env": ["PATH=/bin", "BASE=yes"]})
    registry.push(made, "base")
    return f"{registry.host}/base:latest"


@pytest.fixture(scope="session")
def container_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A ``storage.conf`` that gives root's buildah and podman a store of the tests' own."""
    folder = tmp_path_factory.mktemp("storage")
    conf = folder / "storage.conf"
    conf.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/root"\nrunroot = "{folder}/run"\n'
    )
    yield conf
    # The store keeps its overlay folder bind-mounted on itself.
    subprocess.run(["umount", "-l", folder / "root/overlay"], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def build(
    folder: Path, *words: str, user: Somebody | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run ``sifdeck build`` in a folder."""
    argv = [*SIFDECK, "build", *words]
    environment = dict(os.environ)
    if user is not None:
        argv = user.command(argv)
        environment = user.environment()
    return subprocess.run(
        argv,
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


def events(output: str) -> list[Event]:
    """Return the events that ``--json`` printed."""
    return [decode(line) for line in output.splitlines()]


def last_steps(happened: Sequence[Event]) -> dict[str, Step]:
    """Return what became of each step, by its name."""
    return {event.name: event for event in happened if isinstance(event, Step)}


def content(path: Path, name: str) -> str | None:
    """Return a file of the image in an OCI-SIF; None when there is none."""
    (layer,) = read_ocisif(path).layers
    with path.open("rb") as file:
        reader = SquashfsReader(file, offset=layer.offset)
        node = reader.lookup(name)
        return None if node is None else b"".join(reader.read(node)).decode()
