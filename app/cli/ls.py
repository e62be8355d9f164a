"""``sifdeck ls`` and ``sifdeck rm``: the image files on this machine, and what is in one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli.common import json_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from backend.catalog import Catalog, Image

_ORDERS: dict[str, Callable[[Image], Any]] = {
    "name": lambda image: image.title,
    "size": lambda image: -image.size,
    "created": lambda image: image.created,
    "format": lambda image: image.kind,
    "arch": lambda image: image.architecture,
}


def image_folders() -> list[Path]:
    """Return where images are looked for: the current folder, then those of the environment."""
    import os

    from backend.settings import variable

    folders = [Path.cwd()]
    for place in (os.environ.get("SIFDECK_IMAGES"), variable("PULLDIR"), variable("PULLFOLDER")):
        folders += [Path(one).expanduser() for one in (place or "").split(":") if one]
    return folders


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
@click.option("-l", "--long", "is_long", is_flag=True, help="In an image: mode, owner, size, time.")
@click.option("-R", "--recursive", is_flag=True, help="In an image: everything below PATH.")
@click.option("-d", "--directory", "itself", is_flag=True, help="In an image: PATH itself.")
@click.option("--layers", is_flag=True, help="What each layer brought, and what is wasted.")
@json_option
def ls(*, places: tuple[str, ...], wanted: str, sort: str, as_json: bool, **how: bool) -> None:
    r"""List the image files of folders, or the files in an image.

    \b
    sifdeck ls                          # images here and in $SIFDECK_IMAGES
    sifdeck ls tools.sif                # what is in its root directory
    sifdeck ls -l tools.sif /usr/bin    # with mode, owner, size, time and layer
    sifdeck ls --layers tools.sif       # what each layer brought

    A word in --filter must occur, !word must not, ~wrd allows letters in between.
    """
    if places and not Path(places[0]).is_dir():
        from app.cli.files import Listing, list_files

        list_files(Path(places[0]), places[1:], Listing(as_json=as_json, **how))
        return
    _list_images([Path(place) for place in places], wanted, sort, as_json=as_json)


def _list_images(folders: list[Path], wanted: str, sort: str, *, as_json: bool) -> None:
    from backend.matching import matcher

    matches = matcher(wanted)
    found = make_catalog(folders or image_folders()).images()
    images = sorted(
        (image for image in found if matches(f"{image.title} {image.path} {image.kind}".lower())),
        key=_ORDERS[sort],
    )
    if as_json:
        click.echo(json.dumps([_document(image) for image in images], indent=2))
        return
    for line in _table(images):
        click.echo(line)


def _document(image: Image) -> dict[str, object]:
    import dataclasses

    return dataclasses.asdict(image)


def _table(images: list[Image]) -> list[str]:
    from backend.escape import one_line

    rows = [("IMAGE", "FORMAT", "ARCH", "SIZE", "FILE")]
    rows += [
        (
            one_line(image.title),
            image.kind,
            image.architecture or "-",
            str(image.size),
            one_line(image.path),
        )
        for image in images
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:{widths[2]}}  "
        f"{row[3]:>{widths[3]}}  {row[4]}"
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
