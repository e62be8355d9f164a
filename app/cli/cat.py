"""``sifdeck cat IMAGE PATH...``: files in an image, to standard output."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command(short_help="Print files in an image.")
@click.argument("image", type=click.Path(path_type=Path))
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
def cat(image: Path, paths: tuple[str, ...]) -> None:
    """Print the files PATH... in IMAGE, which is not mounted.

    A terminal gets control characters escaped; a pipe or a file gets the bytes as they are.
    """
    import codecs

    from backend.errors import UsageError
    from backend.escape import one_line, printable
    from backend.sif.contents import ImageTree
    from backend.squashfs.inode import Kind

    with ImageTree(image) as tree:
        for path in paths:
            _, file = tree.need(path)
            if file.kind is not Kind.FILE:
                kind = file.kind.name.lower().replace("_", " ")
                raise UsageError(f"{one_line(path)} is a {kind}, not a file")
            if not sys.stdout.isatty():
                for chunk in tree.read(file):
                    sys.stdout.buffer.write(chunk)
                continue
            decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
            for chunk in tree.read(file):
                click.echo(printable(decoder.decode(chunk), limit=sys.maxsize), nl=False)
            click.echo(printable(decoder.decode(b"", final=True)), nl=False)
    sys.stdout.flush()
