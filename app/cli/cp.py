"""``sifdeck cp IMAGE:PATH TARGET``: files out of an image."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command(short_help="Copy files out of an image.")
@click.argument("source", metavar="IMAGE:PATH")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("-F", "--force", is_flag=True, help="Replace a file that exists.")
@click.pass_context
def cp(ctx: click.Context, *, source: str, target: Path, force: bool) -> None:
    r"""Copy the file or folder PATH in IMAGE to TARGET; nothing is mounted.

    The copy is yours: owners, setuid bits and devices stay behind.

    \b
    sifdeck cp tools.sif:/etc/passwd .
    sifdeck cp tools.sif:/opt/tool ~/tool
    """
    from backend.escape import one_line
    from backend.sif.contents import ImageTree
    from backend.sif.extraction import extract

    image, path = split_source(source)
    with ImageTree(image) as tree:
        done = extract(tree, path, target, overwrite=force)
    for left in done.left[:_SHOWN]:
        name = one_line(os.fsdecode(left))
        click.echo(f"WARNING: Not copied, a device, pipe or socket: {name}", err=True)
    if len(done.left) > _SHOWN:
        click.echo(f"WARNING: Not copied: {len(done.left) - _SHOWN} more of them", err=True)
    if not ctx.obj["quiet"]:
        what = "1 file" if done.files == 1 else f"{done.files} files"
        shown = one_line(str(done.target))
        click.echo(f"INFO:    Copied {what}, {done.size} bytes, to {shown}", err=True)


_SHOWN = 10
"""Files left behind that are named."""


def split_source(text: str) -> tuple[Path, str]:
    """Return the image and the path that ``IMAGE:PATH`` names; the image may hold colons."""
    at = text.find(":")
    while at > 0:
        if Path(text[:at]).is_file():
            return Path(text[:at]), text[at + 1 :] or "/"
        at = text.find(":", at + 1)
    image, colon, path = text.partition(":")
    if not colon:
        raise click.UsageError("the source is written as IMAGE:PATH, such as tools.sif:/etc/passwd")
    return Path(image), path
