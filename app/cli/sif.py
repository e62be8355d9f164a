"""``sifdeck sif``: SIF files as ``singularity sif`` shows and changes them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.common import echo_json

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    from backend.sif.records import DataType

FILE = click.Path(path_type=Path)
MAX_ID = (1 << 28) - 1
"""Four bits of the number that a file holds say what it is."""

DATATYPES = (
    "What it is: 1-Deffile, 2-EnvVar, 3-Labels, 4-Partition, 5-Signature, 6-GenericJSON, "
    "7-Generic, 8-CryptoMessage, 9-SBOM, 10-OCI.RootIndex, 11-OCI.Blob."
)
PARTTYPES = "Type 4: 1-System, 2-PrimSys, 3-Data, 4-Overlay."
PARTFS = "Type 4: 1-Squash, 2-Ext3, 3-ImmuObj, 4-Raw."
PARTARCH = (
    "Type 4: 1-386, 2-amd64, 3-arm, 4-arm64, 5-ppc64, 6-ppc64le, 7-mips, 8-mipsle, 9-mips64, "
    "10-mips64le, 11-s390x, 12-riscv64, 13-loong64."
)
SIGNHASH = "Type 5: 1-SHA256, 2-SHA384, 3-SHA512, 4-BLAKE2S, 5-BLAKE2B."
SBOMFORMAT = (
    "Type 9: cyclonedx-json, cyclonedx-xml, github-json, spdx-json, spdx-rdf, spdx-tag-value, "
    "spdx-yaml, syft-json."
)


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
            echo_json([describe(one) for one in opened.descriptors])
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
        echo_json(describe(found))
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


@sif.command("new")
@click.argument("file", type=FILE)
@click.option("-F", "--force", is_flag=True, help="Replace a file that exists.")
def new(file: Path, *, force: bool) -> None:
    """Write a SIF file without objects."""
    from backend.sif.edit import create_sif

    create_sif(file, overwrite=force)


@sif.command("add")
@click.argument("file", type=FILE)
@click.argument("object_", metavar="OBJECT")
@click.option("--datatype", type=click.IntRange(1, 11), required=True, help=DATATYPES)
@click.option("--parttype", type=click.IntRange(1, 4), help=PARTTYPES)
@click.option("--partfs", type=click.IntRange(1, 4), help=PARTFS)
@click.option("--partarch", type=click.IntRange(1, 13), help=PARTARCH)
@click.option("--signhash", type=click.IntRange(1, 5), help=SIGNHASH)
@click.option("--signentity", metavar="HEX", help="Fingerprint of the key that signed; type 5.")
@click.option("--sbomformat", metavar="FORMAT", help=SBOMFORMAT)
@click.option("--groupid", type=click.IntRange(0, MAX_ID), default=0, help="Group; 0 for none.")
@click.option("--link", type=click.IntRange(0, MAX_ID), default=0, help="Object it belongs to.")
@click.option(
    "--alignment",
    type=click.IntRange(0, 1 << 30),
    default=0,
    help="Of its first byte.  [default: 4096 for type 4, none for others]",
)
@click.option("--filename", help="Name of the object.  [default: that of the file]")
def add(  # noqa: PLR0913  (SingularityCE's options)
    *,
    file: Path,
    object_: str,
    datatype: int,
    groupid: int,
    link: int,
    alignment: int,
    filename: str | None,
    **details: int | str | None,
) -> None:
    """Add the file OBJECT, or standard input for -, to FILE."""
    import os

    from backend.sif.edit import NewObject, edit_sif
    from backend.sif.records import DataType

    kind = DataType(DataType.DEFINITION + datatype - 1)
    own_name = "" if object_ == "-" else Path(object_).name
    name = own_name if filename is None else filename
    described = NewObject(
        kind=kind,
        group=groupid,
        link=link,
        alignment=alignment,
        name=os.fsencode(name),
        extra=_extra(kind, details),
    )
    with _opened(object_) as source, edit_sif(file) as editor:
        editor.add(described, source)


def _opened(name: str) -> AbstractContextManager[BinaryIO]:
    """Open a file to be added; ``-`` is standard input."""
    import contextlib
    import os

    from backend.sif.file import open_regular

    if name == "-":
        return contextlib.nullcontext(sys.stdin.buffer)
    return os.fdopen(open_regular(Path(name)), "rb")


def _extra(kind: DataType, details: dict[str, int | str | None]) -> bytes:
    """Return the type's own fields from the options that say them."""
    from backend.sif.records import ARCHITECTURES, DataType, Partition, Signature, pack_number
    from backend.sif.text import SBOM_FORMATS

    def need(*names: str) -> list[int]:
        missing = [f"--{name}" for name in names if details[name] is None]
        if missing:
            raise click.UsageError(
                f"with --datatype {kind - 0x4000}, {', '.join(missing)} is needed"
            )
        return [int(details[name] or 0) for name in names]

    if kind == DataType.PARTITION:
        part, fs, arch = need("parttype", "partfs", "partarch")
        return Partition(fs=fs, kind=part, architecture=ARCHITECTURES[arch]).pack()
    if kind == DataType.SIGNATURE:
        (algorithm,) = need("signhash")
        return Signature(algorithm=algorithm, entity=_fingerprint(details["signentity"])).pack()
    if kind == DataType.SBOM:
        names = {text: number for number, text in SBOM_FORMATS.items()}
        wanted = str(details["sbomformat"] or "")
        number = names.get(wanted, int(wanted) if wanted.isdigit() else 0)
        if number not in SBOM_FORMATS:
            raise click.UsageError(f"--sbomformat is one of {', '.join(names)}")
        return pack_number(number)
    return b""


def _fingerprint(text: int | str | None) -> bytes:
    try:
        found = bytes.fromhex(str(text))
    except ValueError:
        found = b""
    if len(found) != 20:
        raise click.UsageError("--signentity is a fingerprint of 40 hexadecimal digits")
    return found


@sif.command("del")
@click.argument("number", metavar="ID", type=click.IntRange(min=0))
@click.argument("file", type=FILE)
def delete(number: int, file: Path) -> None:
    """Remove an object; the file keeps its size."""
    from backend.sif.edit import edit_sif

    with edit_sif(file) as editor:
        editor.delete(number)


@sif.command("setprim")
@click.argument("number", metavar="ID", type=click.IntRange(min=0))
@click.argument("file", type=FILE)
def set_primary(number: int, file: Path) -> None:
    """Make a system partition the primary one."""
    from backend.sif.edit import edit_sif

    with edit_sif(file) as editor:
        editor.set_primary(number)
