"""``sifdeck search TERM``: repositories by name."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from app.cli.access import access_options, make_access, registry_of, run_async
from app.cli.common import json_option

if TYPE_CHECKING:
    from backend.registry.access import Access
    from backend.registry.browse import Hit


@click.command(short_help="Search a registry for repositories.")
@click.argument("term")
@click.option(
    "--registry",
    "uri",
    default="docker.io",
    show_default=True,
    help="Where to search: docker.io, quay.io, or a registry that lists its repositories.",
)
@click.option("-n", "--limit", type=click.IntRange(min=1), default=25, show_default=True)
@access_options
@json_option
def search(*, term: str, uri: str, limit: int, as_json: bool, **options: object) -> None:
    r"""Search a registry for repositories with TERM in their name.

    \b
    sifdeck search blast
    sifdeck search solver --registry registry.example.org
    """
    from backend.escape import one_line

    registry, _ = registry_of(uri)
    found = run_async(_search(make_access(options), term, registry, limit))
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(one) for one in found]))
        return
    width = max((len(one.name) for one in found), default=0)
    for one in found:
        stars = f"{one.stars:>6} *" if one.stars >= 0 else ""
        official = "official" if one.is_official else ""
        cells = (one_line(one.name).ljust(width), stars, official, one.description)
        click.echo("  ".join(one_line(cell, limit=100) for cell in cells if cell).rstrip())


async def _search(access: Access, term: str, registry: str, limit: int) -> tuple[Hit, ...]:
    from backend.registry.browse import search

    async with access.client() as client:
        return await search(client, term, registry, limit)
