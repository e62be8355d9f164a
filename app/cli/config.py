"""``sifdeck config``: the settings as they are, and what they may be."""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--schema", is_flag=True, help="Print the JSON schema of config.toml.")
def config(*, schema: bool) -> None:
    """Print the settings, those of the site's and the user's config.toml together, as JSON."""
    import dataclasses

    from app.commands import check_keys
    from backend import config as settings
    from backend.paths import config_home, site_config

    if schema:
        click.echo(json.dumps(settings.schema(), indent=2))
        return
    user = config_home() / "config.toml"
    found = settings.load_config(user, site_config())
    click.echo(f"INFO:    {user}, above {site_config()}", err=True)
    for clash in check_keys(found.keys):
        click.echo(f"WARNING: {clash}", err=True)
    click.echo(json.dumps(dataclasses.asdict(found), indent=2))
