"""``sifdeck overlay``: writable overlays in images."""

from __future__ import annotations

from pathlib import Path

import click

IMAGE = click.Path(path_type=Path)


@click.group()
def overlay() -> None:
    """Make, update and seal writable overlays."""


@overlay.command("create")
@click.argument("image", type=IMAGE)
@click.option("-s", "--size", type=int, default=64, show_default=True, help="In MiB.")
@click.option("-S", "--sparse", is_flag=True, help="Take disk space when it is written to.")
@click.option("--create-dir", "folders", multiple=True, metavar="DIR", help="Make DIR in it.")
@click.option("-f", "--fakeroot", is_flag=True, help="For containers that run with --fakeroot.")
def create(
    image: Path, *, size: int, sparse: bool, folders: tuple[str, ...], fakeroot: bool
) -> None:
    """Add an empty overlay to IMAGE, or write it to a file of that name if there is none.

    What is in it belongs to you in a container.  With --fakeroot, and where you have no
    subordinate ids, it belongs to the container's root.
    """
    from backend.runtime.identity import has_one_id
    from backend.settings import flag
    from backend.sif.overlay import NewOverlay, create_overlay

    _warn_of_cosign(image)
    new = NewOverlay(
        size_mib=size,
        is_sparse=sparse or flag("SPARSE"),
        folders=folders,
        for_root=fakeroot or flag("FAKEROOT") or has_one_id(),
    )
    create_overlay(image, new)


@overlay.command("sync")
@click.argument("image", type=IMAGE)
@click.pass_context
def sync(ctx: click.Context, image: Path) -> None:
    """Bring the digest of IMAGE's overlay up to date after a container wrote to it."""
    from backend.sif.overlay import sync_overlay

    _warn_of_signatures(image)
    if not sync_overlay(image) and not ctx.obj["quiet"]:
        click.echo("INFO:    OCI digest matches overlay, no update required.", err=True)


@overlay.command("seal")
@click.argument("image", type=IMAGE)
@click.option("--compression", metavar="NAME[:LEVEL]", help="zstd, gzip, xz or lz4.")
def seal(image: Path, *, compression: str | None) -> None:
    """Turn the overlay of IMAGE into a layer that nobody can write to any more."""
    from backend.sif.overlay import seal_overlay
    from backend.squashfs.compression import parse_compression

    _warn_of_signatures(image)
    chosen = parse_compression(compression) if compression else None
    seal_overlay(image, compression=chosen)


def _warn_of_signatures(image: Path) -> None:
    """Tell, before anything is changed, what becomes of signatures of both kinds."""
    from backend.errors import BackendError
    from backend.sif.ocisif import read_ocisif

    try:
        is_signed = read_ocisif(image).signed
    except BackendError:  # whoever changes it will say what is wrong
        return
    if is_signed:
        click.echo(
            "WARNING: The image's documents change: the signature of the file stays in it, but "
            "does not match it any more",
            err=True,
        )
    _warn_of_cosign(image)


def _warn_of_cosign(image: Path) -> None:
    """Tell what becomes of cosign's signatures, which name the image's digest."""
    from backend.errors import BackendError
    from backend.sif.ocisif import read_ocisif
    from backend.sif.revision import count_cosign

    try:
        count = count_cosign(read_ocisif(image))
    except BackendError:  # no OCI-SIF, or none yet: it has no such signatures
        return
    if count:
        click.echo(
            "WARNING: The image gets another digest: the cosign signatures in the file stay, "
            "but do not match it any more",
            err=True,
        )
