"""``sifdeck diff OLD NEW``: what changed between the files of two images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from backend.sif.comparison import Change

IMAGE = click.Path(path_type=Path)
_MARKS = {"added": "A", "removed": "D", "changed": "C"}


@click.command(short_help="Show which files differ between two images.")
@click.argument("old", type=IMAGE)
@click.argument("new", type=IMAGE)
@click.option("-j", "--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.pass_context
def diff(ctx: click.Context, *, old: Path, new: Path, as_json: bool) -> None:
    """Show which files the image NEW adds (A), lacks (D) or has changed (C) against OLD.

    Kind, mode, owner, content, link target and extended attributes count, times do not.
    Files are compared byte by byte; nothing is mounted.
    """
    from backend.sif.comparison import compare
    from backend.sif.contents import ImageTree

    counts = dict.fromkeys(_MARKS, 0)
    growth = 0
    with ImageTree(old) as before, ImageTree(new) as after:
        for change in compare(before, after):
            counts[change.state] += 1
            growth += change.new_size - change.old_size
            click.echo(_json_line(change) if as_json else _line(change))
    if not ctx.obj["quiet"]:
        numbers = ", ".join(f"{count} {state}" for state, count in counts.items())
        click.echo(f"INFO:    {numbers}; {growth:+d} bytes", err=True)


def _line(change: Change) -> str:
    from backend.escape import one_line

    path = one_line(os.fsdecode(b"/" + change.path), limit=70000)
    words = f"  ({', '.join(change.what)})" if change.what else ""
    size = change.new_size - change.old_size
    return f"{_MARKS[change.state]} {size:>+13d}  {path}{words}"


def _json_line(change: Change) -> str:
    import json

    return json.dumps(
        {
            "state": change.state,
            "path": os.fsdecode(b"/" + change.path),
            "type": change.kind.name.lower(),
            "old_size": change.old_size,
            "new_size": change.new_size,
            "what": list(change.what),
        }
    )
