"""``sifdeck verify IMAGE``: is an image file what it says it is?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.access import access_options
from app.cli.progress import reporting

if TYPE_CHECKING:
    from backend.sif.verification import SourceCheck


@click.command(short_help="Check the digests in an image, or compare it with its source.")
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--source", is_flag=True, help="Make it again from the registry, and compare.")
@click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.")
@access_options
@click.pass_context
def verify(
    ctx: click.Context, /, *, image: Path, source: bool, as_json: bool, **access: object
) -> int:
    """Check that every OCI object in IMAGE has the digest that it should.

    With --source: pull what the image says it was made from, past all caches, convert it in
    the same way and tell what differs.  Status 0 means that nothing does, 14 that something
    does.
    """
    if source:
        return _verify_source(ctx, image, access, as_json=as_json)
    return _verify_blobs(ctx, image, as_json=as_json)


def _verify_blobs(ctx: click.Context, image: Path, *, as_json: bool) -> int:
    import dataclasses
    import json

    from backend.errors import ExitCode
    from backend.escape import one_line
    from backend.sif.ocisif import read_ocisif
    from backend.sif.verification import verify_blobs

    checks = verify_blobs(image)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(one) for one in checks], indent=4))
    for one in () if as_json else checks:
        state = "ok" if one.is_sound else "CHANGED"
        click.echo(f"{one.id:<4} {state:<8} {one.expected}")
    bad = [one for one in checks if not one.is_sound]
    for one in bad:
        click.echo(f"ERROR:   Object {one.id} is {one.actual}", err=True)
        if one.is_overlay:
            click.echo(f"next:    sifdeck overlay sync {one_line(str(image))}", err=True)
    if read_ocisif(image).signed and not ctx.obj["quiet"]:
        click.echo("INFO:    The file holds a signature, which was not checked", err=True)
    if bad:
        return ExitCode.VERIFICATION
    if not ctx.obj["quiet"]:
        click.echo(f"INFO:    All {len(checks)} objects are as their digests say", err=True)
    return ExitCode.OK


def _verify_source(
    ctx: click.Context, image: Path, access: dict[str, object], *, as_json: bool
) -> int:
    from app.cli.access import make_access
    from backend.errors import ExitCode
    from backend.pull import PullOptions
    from backend.sif.verification import verify_source

    with reporting(ctx, verb="verify", title=str(image)) as report:
        found = verify_source(image, PullOptions(access=make_access(access)), report)
    if as_json:
        _echo_json(found)
    else:
        _echo(found)
    return ExitCode.VERIFICATION if found.differences else ExitCode.OK


def _echo_json(found: SourceCheck) -> None:
    import json

    changes = [
        {"state": one.state, "path": os.fsdecode(b"/" + one.path), "what": list(one.what)}
        for one in found.changes
    ]
    document = {
        "source": found.reference,
        "equal": not found.differences,
        "differences": list(found.differences),
        "files": changes,
    }
    click.echo(json.dumps(document, indent=4))


def _echo(found: SourceCheck) -> None:
    from backend.escape import one_line

    if not found.differences:
        click.echo(f"equal to {one_line(found.reference)}")
        return
    click.echo(f"differs from {one_line(found.reference)}:")
    for difference in found.differences:
        click.echo(f"  {one_line(difference)}")
    for one in found.changes:
        words = f"  ({', '.join(one.what)})" if one.what else ""
        click.echo(f"  {one.state} /{one_line(os.fsdecode(one.path))}{words}")
