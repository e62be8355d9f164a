"""``sifdeck convert SRC DST``: any form of an image into any other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from app.cli.common import job_option, json_option
from app.cli.images import choosing, image_options, pull_options
from app.cli.progress import reporting

if TYPE_CHECKING:
    from backend.reference import Reference


@click.command(short_help="Convert an image: SIF, OCI-SIF, layout, archive, folder.")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("-F", "--force", is_flag=True, help="Overwrite a file that exists.")
@click.option(
    "--keep-layers", is_flag=True, help="Make a file system of each layer, not one of all."
)
@click.option("--native", is_flag=True, help="DST is a native SIF.")
@click.option("-s", "--sandbox", is_flag=True, help="DST is a folder with the image's files.")
@image_options
@json_option
@job_option("source")
@click.pass_context
def convert(  # noqa: PLR0913  (one parameter for each option)
    ctx: click.Context,
    /,
    *,
    source: str,
    target: str,
    force: bool,
    native: bool,
    sandbox: bool,
    as_json: bool,
    **options: object,
) -> None:
    r"""Convert the image SRC to DST; what DST is called says what it becomes.

    SRC is a SIF of either kind, a folder, or anything that pull takes.  DST is a file (an
    OCI-SIF, unless --native), oci:FOLDER, oci-archive:FILE or docker-archive:FILE, each with
    :TAG if you like.  A folder that was not made by root has lost its owners: what is yours
    in it becomes root's in an image.

    \b
    sifdeck convert docker-archive:saved.tar tools.oci.sif
    sifdeck convert tools.oci.sif docker-archive:tools.tar:tools:1.0   # then: docker load
    sifdeck convert tools.oci.sif oci:layout
    sifdeck convert --native tools.oci.sif tools.sif
    sifdeck convert --sandbox tools.oci.sif ./tools
    """
    from backend.convert import convert_image, parse_target
    from backend.events import Finished
    from backend.reference import parse
    from backend.settings import flag

    reference = parse(source)
    wanted = parse_target(target, native=native, sandbox=sandbox)
    chosen = replace(pull_options(options, overwrite=force or flag("FORCE")), native=False)

    def work(image: Reference) -> None:
        with reporting(
            ctx, verb="convert", title=str(image), target=str(wanted.path), as_json=as_json
        ) as report:
            made = convert_image(image, wanted, chosen, report)
            report(Finished(path=str(made.path), digest=made.digest, size=made.size))

    choosing(reference, work, ask=not as_json)
