"""A whole build: from the request to the OCI-SIF file, nothing of it left elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from backend.build.credentials import base_references, find_logins, write_auth_file
from backend.build.detect import choose
from backend.build.dockerfile import read_dockerfile
from backend.errors import ExistsError
from backend.escape import quoted
from backend.events import Note
from backend.pull import pull_image
from backend.registry.push import open_destination
from backend.sources.opened import open_source
from backend.transfer import copy_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backend.build.request import BuildRequest
    from backend.events import Report
    from backend.pull import PullOptions
    from backend.reference import Reference
    from backend.sif.ocisif import WrittenImage


def build_image(
    request: BuildRequest,
    target: Path,
    *,
    builder: str,
    tags: Sequence[Reference] = (),
    options: PullOptions,
    report: Report,
) -> WrittenImage:
    """Build an image, write it to ``target`` and push it.

    Args:
        request: What to build.
        target: The file to write.
        builder: The builder's name; empty for the best there is.
        tags: Where the image is pushed, with its layers as the builder made them.
        options: What to make of the result, and where logins are looked up.
        report: Gets the events.

    Raises:
        ExistsError: ``target`` exists and ``options.overwrite`` is not set.
        BuildError: An instruction failed.
        ToolMissingError: Nobody can build here.
        BackendError: As :func:`backend.pull.pull_image`.
    """
    if not options.overwrite and os.path.lexists(target):
        raise ExistsError(
            f"build target {quoted(str(target))} already exists",
            hint="choose another name, or overwrite it with -F",
        )
    chosen = choose(request, builder)
    report(Note(level="info", text=f"Building with {chosen.name}"))
    with _work_folder() as folder:
        bases = base_references(read_dockerfile(request).images(request.target))
        logins = find_logins(bases, options.access.credentials)
        request = replace(request, auth_folder=write_auth_file(logins, folder))
        image = chosen.build(request, folder, report)
        written = pull_image(image, target, options, report)
        for tag in tags:
            asyncio.run(_push(image, tag, options, report))
        return written


async def _push(image: Reference, target: Reference, options: PullOptions, report: Report) -> None:
    opened = open_source(image, options.access, cache=options.cache, report=report)
    async with opened as source, options.access.client() as client:
        destination = await open_destination(client, target)
        digest = await copy_image(source, image, destination, target, report)
    report(Note(level="info", text=f"Pushed {target} ({digest})"))


def commit_time(context: Path) -> int | None:
    """Return when the commit that is checked out in a folder was made, seconds since 1970.

    None where there is no git, or no repository of this user's.
    """
    argv = ["git", "-C", str(context), "log", "-1", "--format=%ct"]
    try:
        result = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
            # A repository of somebody else must not run its hooks or pagers here.
            env=os.environ | {"GIT_CONFIG_NOSYSTEM": "1", "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    text = result.stdout.strip()
    return int(text) if result.returncode == 0 and text.isdecimal() else None


@contextlib.contextmanager
def _work_folder() -> Iterator[Path]:
    """Give a folder for the builder's output and temporary files, and remove it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="sifdeck-build-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
