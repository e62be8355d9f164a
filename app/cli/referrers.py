"""``sifdeck referrers REF``: signatures, SBOMs and attestations of an image."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from app.cli.access import access_options, make_access, run_async
from app.cli.common import json_option
from app.cli.images import find_in_registry

if TYPE_CHECKING:
    from backend.oci.image import Descriptor
    from backend.reference import Reference
    from backend.registry.access import Access


@click.command(short_help="List signatures, SBOMs and attestations of an image.")
@click.argument("reference", metavar="REF")
@click.option("--type", "artifact_type", default="", help="Only artifacts of this type.")
@access_options
@json_option
def referrers(*, reference: str, artifact_type: str, as_json: bool, **options: object) -> None:
    """List what refers to the image REF: signatures, SBOMs, attestations."""
    from humanize import naturalsize

    from backend.escape import one_line

    access = make_access(options)
    named = find_in_registry(reference, access)
    found = run_async(_referrers(access, named, artifact_type))
    if as_json:
        click.echo(json.dumps([one.to_json() for one in found]))
        return
    for one in found:
        kind = one.artifact_type or one.media_type
        click.echo(f"{one.digest}  {naturalsize(one.size):>9}  {one_line(kind)}")
        for name, value in one.annotations.items():
            click.echo(f"    {one_line(name)}={one_line(value)}")


async def _referrers(
    access: Access, reference: Reference, artifact_type: str
) -> tuple[Descriptor, ...]:
    from backend.registry.browse import find_referrers

    async with access.client() as client:
        return await find_referrers(client, reference, artifact_type)
