"""``sifdeck data``: data containers."""

from __future__ import annotations

from pathlib import Path

import click

from app.cli.common import json_option
from app.cli.progress import reporting


@click.group()
def data() -> None:
    """Make data containers: files for `run --data FILE:PLACE`."""


@data.command("package")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("-F", "--force", is_flag=True, help="Overwrite a file that exists.")
@click.option("--compression", metavar="NAME[:LEVEL]", help="zstd, gzip, xz or lz4.")
@json_option
@click.pass_context
def package(
    ctx: click.Context,
    *,
    source: Path,
    target: Path,
    force: bool,
    compression: str | None,
    as_json: bool,
) -> None:
    """Pack the folder SOURCE, or one file, into TARGET, a data container."""
    from backend.events import Finished
    from backend.sif.packing import package_data
    from backend.squashfs.compression import parse_compression

    chosen = parse_compression(compression) if compression else None
    with reporting(
        ctx, verb="data package", title=str(source), target=str(target), as_json=as_json
    ) as report:
        made = package_data(source, target, compression=chosen, overwrite=force, report=report)
        report(Finished(path=str(made.path), digest=made.digest, size=made.size))
