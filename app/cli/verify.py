"""``sifdeck verify IMAGE``: is an image file what it says it is?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.access import access_options
from app.cli.common import echo_json
from app.cli.progress import reporting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backend.journal import Verdict
    from backend.sif.signature import SignatureCheck
    from backend.sif.verification import BlobCheck, SourceCheck


@click.command(
    short_help="Check digests and signatures in an image, or compare it with its source."
)
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--source", is_flag=True, help="Make it again from the registry, and compare.")
@click.option(
    "--key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A public key (PEM) for signatures that were made with a key pair.",
)
@click.option("-c", "--cosign", is_flag=True, help="Check cosign's signatures, with --key.")
@click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.")
@access_options
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    *,
    image: Path,
    source: bool,
    key: Path | None,
    cosign: bool,
    as_json: bool,
    **access: object,
) -> int:
    """Check that every OCI object in IMAGE has its digest, and that every signature is valid.

    OpenPGP keys are taken from SingularityCE's keyring and from gpg's.  With --cosign the
    signatures that cosign made are checked, and what they say is printed as JSON.

    With --source: pull what the image says it was made from, past all caches, convert it in
    the same way and tell what differs.

    Status 0 means that all is well, 14 that something is not, or could not be checked.
    """
    if source:
        return _verify_source(ctx, image, access, as_json=as_json)
    from backend.settings import variable

    named = key or variable("VERIFY_KEY")
    if cosign:
        return _verify_cosign(image, Path(named) if named else None)
    return _verify_file(ctx, image, Path(named) if named else None, as_json=as_json)


def _verify_cosign(image: Path, key: Path | None) -> int:
    import json

    from backend.errors import ExitCode
    from backend.escape import one_line
    from backend.journal import note_check
    from backend.sif.cosign import check_cosign
    from backend.sif.file import SifFile
    from backend.sif.verification import verify_blobs

    if key is None:
        raise click.UsageError("--cosign needs the signer's public key: --key FILE")
    damaged = [one for one in verify_blobs(image) if not one.is_sound]
    for one in damaged:
        click.echo(f"ERROR:   OCI blob digest mismatch: object {one.id}", err=True)
    with SifFile(image) as sif:
        checks = check_cosign(sif, key)
    for check in checks:
        if check.problem:
            click.echo(f"WARNING: Signature {check.digest}: {one_line(check.problem)}", err=True)
    valid = [check.payload for check in checks if check.is_sound]
    note_check(str(image), _cosign_verdict(damaged, checks, valid))
    if damaged or not valid:
        click.echo("ERROR:   no valid signatures found", err=True)
        return ExitCode.VERIFICATION
    click.echo(json.dumps(valid))
    return ExitCode.OK


def _verify_file(ctx: click.Context, image: Path, key: Path | None, *, as_json: bool) -> int:
    from backend.errors import ExitCode
    from backend.escape import one_line
    from backend.journal import note_check
    from backend.sif.file import SifFile
    from backend.sif.signature import check_signatures, default_keyrings
    from backend.sif.verification import verify_blobs

    blobs = verify_blobs(image)
    with SifFile(image) as sif:
        signatures = check_signatures(sif, keyrings=default_keyrings(), key=key)
    if blobs or signatures:
        note_check(str(image), _verdict(blobs, signatures))
    if as_json:
        _echo_checks_json(blobs, signatures)
    else:
        _echo_checks(blobs, signatures)
    if not all([one.is_sound for one in blobs] + [one.is_sound for one in signatures]):
        if any(one.is_overlay and not one.is_sound for one in blobs):
            click.echo(f"next:    sifdeck overlay sync {one_line(str(image))}", err=True)
        return ExitCode.VERIFICATION
    if not blobs and not signatures:
        click.echo("ERROR:   The file holds neither digests nor signatures", err=True)
        return ExitCode.VERIFICATION
    if not ctx.obj["quiet"]:
        counts = f"{len(blobs)} objects" + (f", {len(signatures)} signatures" if signatures else "")
        click.echo(f"INFO:    All is well: {counts} checked", err=True)
    return ExitCode.OK


def _cosign_verdict(damaged: object, checks: object, valid: object) -> Verdict:
    if damaged:
        return "damaged"
    return "verified" if valid else "bad signature" if checks else "intact"


def _verdict(blobs: Sequence[BlobCheck], signatures: Sequence[SignatureCheck]) -> Verdict:
    """Return what the deck shows of a check: the worst that was found."""
    if not all(one.is_sound or one.is_overlay for one in blobs):
        return "damaged"
    if any(one.state == "bad" or one.problems for one in signatures):
        return "bad signature"
    if any(one.state == "unknown key" for one in signatures):
        return "unknown key"
    return "verified" if signatures else "intact"


def _echo_checks(blobs: Sequence[BlobCheck], signatures: Sequence[SignatureCheck]) -> None:
    from backend.escape import one_line

    for one in blobs:
        click.echo(f"{one.id:<4} {'ok' if one.is_sound else 'CHANGED':<12} {one.expected}")
        if not one.is_sound:
            click.echo(f"ERROR:   Object {one.id} is {one.actual}", err=True)
    for signature in signatures:
        state = "ok" if signature.is_sound else signature.state.upper()
        state = "CHANGED" if signature.problems and signature.state == "valid" else state
        covered = ", ".join(map(str, signature.objects)) or "nothing"
        click.echo(
            f"{signature.id:<4} {state:<12} {signature.form} signature of objects {covered} "
            f"by {one_line(signature.signer) or 'an unknown key'}"
        )
        for problem in signature.problems:
            click.echo(f"ERROR:   Signature {signature.id}: {one_line(problem)}", err=True)
        if signature.state == "unknown key":
            how = "gpg --import FILE" if signature.form == "OpenPGP" else "sifdeck verify --key"
            click.echo(f"next:    get the signer's public key; then {how}", err=True)


def _echo_checks_json(blobs: Sequence[BlobCheck], signatures: Sequence[SignatureCheck]) -> None:
    import dataclasses

    document = {
        "objects": [dataclasses.asdict(one) | {"sound": one.is_sound} for one in blobs],
        "signatures": [dataclasses.asdict(one) | {"sound": one.is_sound} for one in signatures],
    }
    echo_json(document)


def _verify_source(
    ctx: click.Context, image: Path, access: dict[str, object], *, as_json: bool
) -> int:
    from app.cli.access import make_access
    from backend.errors import ExitCode
    from backend.journal import note_check
    from backend.pull import PullOptions
    from backend.sif.verification import verify_source

    with reporting(ctx, verb="verify", title=str(image)) as report:
        found = verify_source(image, PullOptions(access=make_access(access)), report)
    note_check(str(image), "differs" if found.differences else "equal")
    if as_json:
        _echo_json(found)
    else:
        _echo(found)
    return ExitCode.VERIFICATION if found.differences else ExitCode.OK


def _echo_json(found: SourceCheck) -> None:
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
    echo_json(document)


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
