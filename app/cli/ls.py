"""``sifdeck ls`` and ``sifdeck rm``: the image files on this machine, and what is in one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli.common import json_option
from backend.selection import SELECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from backend.catalog import Catalog, Image

_ORDERS: dict[str, Callable[[Image], Any]] = {
    "name": lambda image: image.title,
    "size": lambda image: -image.size,
    "created": lambda image: image.created,
    "format": lambda image: image.kind,
    "arch": lambda image: image.architecture,
    "trust": lambda image: image.trust,
    "used": lambda image: -image.used,
}


def image_folders(more: Sequence[str]) -> list[Path]:
    """Return where images are looked for: here, as the environment says, as the settings say.

    Args:
        more: The ``folders`` of the settings.
    """
    import os

    from backend.settings import variable

    folders = [Path.cwd()]
    for place in (os.environ.get("SIFDECK_IMAGES"), variable("PULLDIR"), variable("PULLFOLDER")):
        folders += [Path(one).expanduser() for one in (place or "").split(":") if one]
    return [*folders, *(Path(one).expanduser() for one in more)]


def make_catalog(folders: list[Path]) -> Catalog:
    """Return the catalogue of these folders, with its index in the cache."""
    from backend.catalog import Catalog
    from backend.paths import cache_home

    return Catalog(folders, cache_home() / "catalog")


@click.command(short_help="List image files, or the files in an image.")
@click.argument("places", nargs=-1, metavar="[FOLDER...] | IMAGE [PATH...]")
@click.option(
    "--filter", "wanted", default="", metavar="WORDS", help="Only images with these words."
)
@click.option("--sort", type=click.Choice(list(_ORDERS)), default="name", show_default=True)
@click.option("--only", type=click.Choice(list(SELECTIONS)), help="Only images of this kind.")
@click.option("--csv", "as_csv", is_flag=True, help="Of images: print comma-separated values.")
@click.option("-l", "--long", "is_long", is_flag=True, help="In an image: mode, owner, size, time.")
@click.option("-R", "--recursive", is_flag=True, help="In an image: everything below PATH.")
@click.option("-d", "--directory", "itself", is_flag=True, help="In an image: PATH itself.")
@click.option("--layers", is_flag=True, help="What each layer brought, and what is wasted.")
@json_option
def ls(
    *,
    places: tuple[str, ...],
    wanted: str,
    sort: str,
    only: str | None,
    as_csv: bool,
    as_json: bool,
    **how: bool,
) -> None:
    r"""List the image files of folders, or the files in an image.

    \b
    sifdeck ls                          # images here, in $SIFDECK_IMAGES and the settings' folders
    sifdeck ls --only unused --sort size  # what nobody ran for 90 days, largest first
    sifdeck ls tools.sif                # what is in its root directory
    sifdeck ls -l tools.sif /usr/bin    # with mode, owner, size, time and layer
    sifdeck ls --layers tools.sif       # what each layer brought

    A word in --filter must occur, !word must not, ~wrd allows letters in between.
    """
    if places and not Path(places[0]).is_dir():
        from app.cli.files import Listing, list_files

        list_files(Path(places[0]), places[1:], Listing(as_json=as_json, **how))
        return
    from app import imagelist

    found = _find([Path(place) for place in places] or _usual_folders(), wanted, only)
    images = sorted(found, key=_ORDERS[sort])
    if as_json or as_csv:
        click.echo(imagelist.as_json(images) if as_json else imagelist.as_csv(images), nl=as_json)
        return
    for line in _table(images):
        click.echo(line)


def _usual_folders() -> list[Path]:
    from backend.config import load_config
    from backend.paths import config_home, site_config

    return image_folders(load_config(config_home() / "config.toml", site_config()).folders)


def _find(folders: list[Path], wanted: str, only: str | None) -> list[Image]:
    from backend.matching import matcher

    matches, now = matcher(wanted), time.time()
    return [
        image
        for image in make_catalog(folders).images()
        if matches(f"{image.title} {image.path} {image.kind}".lower())
        and (only is None or SELECTIONS[only].takes(image, now))
    ]


def _table(images: list[Image]) -> list[str]:
    from backend.escape import one_line

    rows = [("IMAGE", "FORMAT", "ARCH", "TRUST", "SIZE", "FILE")]
    rows += [
        (
            one_line(image.title),
            image.kind,
            image.architecture or "-",
            image.trust or "-",
            str(image.size),
            one_line(image.path),
        )
        for image in images
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return [
        f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:{widths[2]}}  "
        f"{row[3]:{widths[3]}}  {row[4]:>{widths[4]}}  {row[5]}"
        for row in rows
    ]


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--now", "for_good", is_flag=True, help="Do not keep them in the trash for a day.")
@click.option("--undo", is_flag=True, help="Bring the files back that were deleted.")
def rm(*, files: tuple[Path, ...], for_good: bool, undo: bool) -> None:
    """Delete image files; they are kept for a day, in .sifdeck-trash beside them.

    Where less than a tenth of the file system is free they are removed at once.
    """
    from backend.escape import one_line
    from backend.trash import delete, restore

    for file in files:
        if undo:
            click.echo(f"INFO:    {one_line(str(restore(file)))} is back", err=True)
            continue
        gone = delete(file, for_good=for_good)
        fate = "kept for a day: sifdeck rm --undo brings it back" if gone.kept else "for good"
        click.echo(f"INFO:    Deleted {one_line(str(file))}, {gone.size} bytes, {fate}", err=True)
