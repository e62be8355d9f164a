"""A whole build: from the request to the OCI-SIF file, nothing of it left elsewhere."""

from __future__ import annotations

import asyncio
import os
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from backend.build.credentials import base_references, find_logins, write_auth_file
from backend.build.detect import choose
from backend.build.dockerfile import read_dockerfile
from backend.errors import BackendError, ExistsError
from backend.escape import one_line, quoted
from backend.events import Note
from backend.pull import pull_image
from backend.registry.push import open_destination
from backend.sources.opened import open_source
from backend.transfer import copy_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from backend.build.request import BuildRequest
    from backend.events import Report
    from backend.pull import PullOptions
    from backend.reference import Reference
    from backend.sif.ocisifwriter import WrittenImage


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """What becomes of an image that was built.

    Attributes:
        target: The file to write.
        tags: Where it is pushed, with its layers as the builder made them.
    """

    target: Path
    tags: Sequence[Reference] = ()


def build_image(
    request: BuildRequest,
    product: Product,
    folder: Path,
    *,
    builder: str,
    options: PullOptions,
    report: Report,
) -> WrittenImage:
    """Build an image, write it to its file and push it.

    Args:
        request: What to build.
        product: What to make of it.
        folder: Of :func:`backend.build.keeper.work_folder`.
        builder: The builder's name; empty for the best there is.
        options: What the file is to be like, and where logins are looked up.
        report: Gets the events.

    Raises:
        ExistsError: The file exists and ``options.overwrite`` is not set.
        BuildError: An instruction failed.
        ToolMissingError: Nobody can build here.
        BackendError: As :func:`backend.pull.pull_image`.
    """
    if not options.overwrite and os.path.lexists(product.target):
        raise ExistsError(
            f"build target {quoted(str(product.target))} already exists",
            hint="choose another name, or overwrite it with -F",
        )
    chosen = choose(request, builder)
    report(Note(level="info", text=f"Building with {chosen.name}"))
    bases = base_references(read_dockerfile(request).images(request.target))
    logins = find_logins(bases, options.access.credentials)
    request = replace(request, auth_folder=write_auth_file(logins, folder))
    image = chosen.build(request, folder, report)
    written = pull_image(image, product.target, options, report)
    for tag in product.tags:
        try:
            asyncio.run(_push(image, tag, options, report))
        except BackendError as error:
            error.kept = error.kept or f"{one_line(str(product.target))} is complete"
            raise
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
