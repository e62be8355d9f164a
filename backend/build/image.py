"""A whole build: from the request to the OCI-SIF file, nothing of it left elsewhere."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from backend.build.credentials import base_references, find_logins, write_auth_file
from backend.build.detect import choose
from backend.build.dockerfile import read_dockerfile
from backend.build.result import convert_layout
from backend.errors import ExistsError
from backend.events import Note
from backend.registry.credentials import Credentials
from backend.squashfs.compression import Compression

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backend.build.request import BuildRequest
    from backend.events import Report
    from backend.sif.ocisif import WrittenImage


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """How to build, and what to make of the result.

    Attributes:
        builder: The builder's name; empty for the best there is.
        compression: Of the squashfs blocks.
        overwrite: Whether a target that exists is replaced.
        credentials: Where logins for base images are looked up.
    """

    builder: str = ""
    compression: Compression = field(default_factory=Compression)
    overwrite: bool = False
    credentials: Credentials = field(default_factory=Credentials)


def build_image(
    request: BuildRequest, target: Path, options: BuildOptions, report: Report
) -> WrittenImage:
    """Build an image and write it to ``target``.

    Args:
        request: What to build.
        target: The file to write.
        options: See :class:`BuildOptions`.
        report: Gets the events.

    Raises:
        ExistsError: ``target`` exists and ``options.overwrite`` is not set.
        BuildError: An instruction failed.
        ToolMissingError: Nobody can build here.
        BackendError: As :func:`backend.build.result.convert_layout`.
    """
    if not options.overwrite and os.path.lexists(target):
        raise ExistsError(
            f"build target {str(target)!r} already exists",
            hint="choose another name, or overwrite it with -F",
        )
    builder = choose(request, options.builder)
    report(Note(level="info", text=f"Building with {builder.name}"))
    with _work_folder() as folder:
        dockerfile = read_dockerfile(request)
        logins = find_logins(
            base_references(dockerfile.images(request.target)), options.credentials
        )
        request = replace(request, auth_folder=write_auth_file(logins, folder))
        layout = builder.build(request, folder, report)
        return convert_layout(
            Path(layout.path),
            target,
            compression=options.compression,
            overwrite=options.overwrite,
            report=report,
        )


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
