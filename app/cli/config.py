"""``sifdeck config``: the settings as they are, and what they may be."""

from __future__ import annotations

import json

import click


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--schema", is_flag=True, help="Print the JSON schema of config.toml.")
@click.option("--profile", metavar="NAME", help="Keep FLAGS for run --profile NAME; none: forget.")
@click.argument("flags", nargs=-1, metavar="[FLAGS...]", type=click.UNPROCESSED)
def config(*, schema: bool, profile: str | None, flags: tuple[str, ...]) -> None:
    r"""Print the settings, those of the site's and the user's config.toml together, as JSON.

    \b
    sifdeck config --profile train -- --nv --bind /scratch:/data
    sifdeck run --profile train tools.oci.sif
    """
    from backend import config as settings

    if schema:
        click.echo(json.dumps(settings.schema(), indent=2))
    elif profile is not None:
        _keep(profile, flags)
    elif flags:
        raise click.UsageError(f"Got unexpected extra argument ({flags[0]})")
    else:
        _show()


def _show() -> None:
    import dataclasses

    from app.commands import check_keys
    from backend import config as settings
    from backend.paths import config_home, site_config

    user = config_home() / "config.toml"
    found = settings.load_config(user, site_config())
    click.echo(f"INFO:    {user}, above {site_config()}", err=True)
    for clash in check_keys(found.keys):
        click.echo(f"WARNING: {clash}", err=True)
    click.echo(json.dumps(dataclasses.asdict(found), indent=2))


def _keep(name: str, flags: tuple[str, ...]) -> None:
    from app.cli.profiles import parse_profile
    from backend.paths import config_home
    from backend.profiles import save_profile

    words = flags[1:] if flags[:1] == ("--",) else flags
    parse_profile(name, words)
    path = config_home() / "config.toml"
    save_profile(path, name, words)
    click.echo(f"INFO:    profile {name} {'kept in' if words else 'is not in'} {path}", err=True)
