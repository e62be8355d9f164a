"""``sifdeck tags REF``: the tags of a repository."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from app.cli.access import access_options, make_access, run_async
from app.cli.common import json_option
from app.cli.images import find_in_registry

if TYPE_CHECKING:
    from backend.reference import Reference
    from backend.registry.access import Access
    from backend.registry.browse import Tag

_LOOK_UP = 100
"""Up to so many tags have their digests looked up without being asked for."""


@click.command(short_help="List the tags of a repository.")
@click.argument("reference", metavar="REF")
@click.option(
    "--sort", type=click.Choice(["version", "name", "date"]), default="version", show_default=True
)
@click.option("--filter", "wanted", default="", metavar="WORDS", help="Only tags that match.")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="The first N only.")
@click.option(
    "--digests/--no-digests",
    default=None,
    help=f"Mark tags that name the same digest.  [default: up to {_LOOK_UP} tags]",
)
@access_options
@json_option
def tags(*, reference: str, as_json: bool, **options: Any) -> None:  # noqa: ANN401  (click's values)
    r"""List the tags of a repository, newest version first.

    \b
    sifdeck tags docker://ubuntu
    sifdeck tags docker://ghcr.io/lab/tools --sort date -n 20
    """
    from backend.escape import one_line

    access = make_access(options)
    found = run_async(_tags(access, find_in_registry(reference, access), options))
    if as_json:
        rows = [
            {"tag": t.name, "digest": t.digest, "created": t.created, "same_as": t.same_as}
            for t in found
        ]
        click.echo(json.dumps(rows))
        return
    width = max((len(tag.name) for tag in found), default=0)
    for tag in found:
        alias = f"= {tag.same_as}" if tag.same_as else tag.digest[:19]
        cells = (tag.name.ljust(width), tag.created[:16].replace("T", " "), alias)
        click.echo("  ".join(one_line(cell) for cell in cells if cell).rstrip())


async def _tags(access: Access, reference: Reference, options: dict[str, Any]) -> list[Tag]:
    from backend.oci.platform import host_platform
    from backend.registry.browse import Tag, describe_tags, mark_aliases, version_key

    order, limit = options["sort"], options["limit"]
    async with access.client() as client:
        names = [name for name in await client.tags(reference) if options["wanted"] in name]
        names.sort(key=version_key if order != "name" else None, reverse=order != "name")
        if order != "date":
            names = names[:limit]
        look_up = options["digests"]
        if look_up is None:
            look_up = len(names) <= _LOOK_UP
        if order != "date" and not look_up:
            return [Tag(name=name) for name in names]
        found = list(
            await describe_tags(client, reference, names, host_platform(), dates=order == "date")
        )
    if order == "date":
        found.sort(key=lambda tag: tag.created, reverse=True)
        found = list(mark_aliases(found))[:limit]
    return found
