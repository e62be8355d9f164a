"""``sifdeck copy SRC DST``: an image from one place to another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.common import job_option, json_option
from app.cli.images import choosing, find_reference, image_options, pull_options
from app.cli.progress import reporting

if TYPE_CHECKING:
    from backend.events import Report
    from backend.oci.digest import Digest
    from backend.pull import PullOptions
    from backend.reference import Reference


@click.command("copy", short_help="Copy an image between registries, layouts, archives, files.")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("-F", "--force", is_flag=True, help="Overwrite a file that exists.")
@image_options
@json_option
@job_option("source")
@click.pass_context
def copy(
    ctx: click.Context,
    /,
    *,
    source: str,
    target: str,
    force: bool,
    as_json: bool,
    **options: object,
) -> None:
    r"""Copy the image SRC to DST.

    \b
    sifdeck copy docker://ubuntu:24.04 docker://registry.example.org/ubuntu:24.04
    sifdeck copy docker://ubuntu:24.04 oci:ubuntu:24.04
    sifdeck copy docker-archive:saved.tar tools.oci.sif
    sifdeck copy tools.oci.sif oci-archive:tools.tar
    sifdeck copy tools.oci.sif docker-daemon:tools:1.0

    All platforms are copied, and the digest stays what it is, unless --arch or --platform
    chooses one.  A DST that is a file becomes an OCI-SIF, as by pull; in a Docker daemon or
    archive, which know tar layers and one platform only, the layers of a SIF become those.
    """
    from backend.cache import hold_cache
    from backend.events import Finished
    from backend.reference import parse
    from backend.settings import flag

    overwrite = force or flag("FORCE")
    chosen = pull_options(options, overwrite=overwrite)
    origin = find_reference(source, chosen.access, offline=chosen.offline)
    there = parse(target)
    one_platform = bool(options["arch"] or options["platform"])

    def work(image: Reference) -> None:
        with reporting(
            ctx, verb="copy", title=str(image), target=str(there), as_json=as_json
        ) as report:
            if there.transport == "file":
                from backend.pull import pull_image

                made = pull_image(image, Path(there.path), chosen, report)
                report(Finished(path=there.path, digest=made.digest, size=made.size))
                return
            with hold_cache(chosen.cache):  # nobody cleans away what is made on the way
                digest = _run(image, there, chosen, report, one_platform=one_platform)
            report(Finished(path=str(there), digest=digest))

    choosing(origin, work, ask=not as_json)


def _run(
    origin: Reference,
    there: Reference,
    options: PullOptions,
    report: Report,
    *,
    one_platform: bool,
) -> Digest:
    from app.cli.access import run_async
    from backend.sources.copied import copy_between

    work = copy_between(
        origin,
        there,
        options,
        platform=options.platform if one_platform else None,
        report=report,
    )
    return run_async(work)
