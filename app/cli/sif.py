"""``sifdeck sif``: SIF files as ``singularity sif`` shows and changes them."""

from __future__ import annotations

import sys
from pathlib import Path

import click

FILE = click.Path(path_type=Path)


@click.group()
def sif() -> None:
    """Show and change what is in a SIF file (siftool)."""


@sif.command("header")
@click.argument("file", type=FILE)
def header(file: Path) -> None:
    """Show the global header."""
    from backend.sif.file import SifFile
    from backend.sif.text import header_text

    with SifFile(file) as opened:
        click.echo(header_text(opened.header), nl=False)


@sif.command("list")
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
def list_(file: Path, *, as_json: bool) -> None:
    """List the objects."""
    from backend.sif.file import SifFile
    from backend.sif.text import describe, list_text

    with SifFile(file) as opened:
        if as_json:
            _echo_json([describe(one) for one in opened.descriptors])
        else:
            click.echo(list_text(opened.descriptors), nl=False)


@sif.command("info")
@click.argument("number", metavar="ID", type=click.IntRange(min=0))
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print an object.")
def info(number: int, file: Path, *, as_json: bool) -> None:
    """Show one object's descriptor."""
    from backend.sif.file import SifFile
    from backend.sif.text import describe, info_text

    with SifFile(file) as opened:
        found = opened.find(number)
    if as_json:
        _echo_json(describe(found))
    else:
        click.echo(info_text(found), nl=False)


@sif.command("dump")
@click.argument("number", metavar="ID", type=click.IntRange(min=0))
@click.argument("file", type=FILE)
def dump(number: int, file: Path) -> None:
    """Write one object's bytes to standard output."""
    from backend.sif.file import SifFile

    out = sys.stdout.buffer
    with SifFile(file) as opened:
        for chunk in opened.chunks(opened.find(number)):
            out.write(chunk)
    out.flush()


def _echo_json(value: object) -> None:
    import json

    click.echo(json.dumps(value, indent=2))
