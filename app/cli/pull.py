"""``sifdeck pull [OUTPUT] URI``: an image from a registry as one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.common import job_option, json_option
from app.cli.images import choosing, find_reference, image_options, pull_options
from app.cli.progress import reporting

if TYPE_CHECKING:
    from backend.reference import Reference


@click.command(short_help="Pull an image from a registry into one OCI-SIF file.")
@click.argument("arguments", metavar="[OUTPUT] URI", nargs=-1, required=True)
@click.option("-F", "--force", is_flag=True, help="Overwrite a file that exists.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder to write to.  [default: the current one]",
)
@click.option(
    "--keep-layers", is_flag=True, help="Make a file system of each layer, not one of all."
)
@click.option("--native", is_flag=True, help="Write a native SIF instead of an OCI-SIF.")
@image_options
@json_option
@job_option("arguments")
@click.pass_context
def pull(
    ctx: click.Context,
    /,
    *,
    arguments: tuple[str, ...],
    force: bool,
    folder: Path | None,
    as_json: bool,
    **options: object,
) -> None:
    r"""Pull the image URI and write it to OUTPUT, one OCI-SIF file.

    \b
    sifdeck pull docker://ubuntu:24.04                  # ubuntu_24.04.oci.sif
    sifdeck pull tools.sif docker://ghcr.io/lab/tools
    sifdeck pull --arch arm64 docker://alpine
    sifdeck pull --native docker://alpine               # alpine_latest.sif, for apptainer, too

    The file appears when it is complete; what was downloaded stays in the cache, so that a
    pull that was cut goes on where it was.
    """
    from backend import pull as pulling
    from backend.events import Finished
    from backend.settings import flag, variable

    if len(arguments) > 2:
        raise click.UsageError("pull takes one image, and before it at most one file to write")
    if options["native"] and options["keep_layers"]:
        raise click.UsageError("a native SIF has one file system; leave --keep-layers out")
    chosen = pull_options(options, overwrite=force or flag("FORCE"))
    reference = find_reference(arguments[-1], chosen.access, offline=chosen.offline)
    place = folder or Path(variable("PULLDIR") or variable("PULLFOLDER") or "")
    suffix = ".sif" if options["native"] else ".oci.sif"

    def work(image: Reference) -> None:
        name = arguments[0] if len(arguments) > 1 else image.file_name(suffix=suffix)
        target = place / name
        with reporting(
            ctx, verb="pull", title=str(image), target=str(target), as_json=as_json
        ) as report:
            made = pulling.pull_image(image, target, chosen, report)
            report(Finished(path=str(target), digest=made.digest, size=made.size))

    choosing(reference, work, ask=not as_json)
