"""``sifdeck push IMAGE URI``: an image file into a registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.access import access_options, make_access, run_async
from app.cli.common import job_option, json_option
from app.cli.progress import reporting

if TYPE_CHECKING:
    from backend.events import Report
    from backend.oci.digest import Digest
    from backend.reference import Reference
    from backend.registry.access import Access
    from backend.sources.stored import StoredImage
    from backend.sources.tarlayers import TarFormat


@click.command(short_help="Push an image file to a registry.")
@click.argument("image", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("uri", metavar="docker://...|oras://...|library://...")
@click.option(
    "--layer-format",
    type=click.Choice(["squashfs", "tar", "tar+gzip", "tar+zstd"]),
    help="squashfs: refuse other layers; tar: for Docker and Podman.  [default: as they are]",
)
@click.option(
    "--with-cosign", is_flag=True, help="Push cosign's signatures in the file, too, to their tags."
)
@click.option("--library", metavar="URL", help="The library that library:// means.")
@access_options
@json_option
@job_option("image")
@click.pass_context
def push(ctx: click.Context, /, *, image: Path, uri: str, as_json: bool, **options: object) -> None:
    r"""Push the file IMAGE to a registry, byte for byte.

    \b
    sifdeck push tools.oci.sif docker://ghcr.io/lab/tools:1.0   # an OCI image
    sifdeck push tools.sif oras://ghcr.io/lab/tools:1.0         # the file as an artifact
    sifdeck push --layer-format tar tools.oci.sif docker://ghcr.io/lab/tools:docker
    sifdeck push tools.sif library://alice/tools/solver:1.0     # with $SIFDECK_LIBRARY_TOKEN

    Blobs that the registry has are not sent again; an upload that is cut goes on.
    """
    from backend.errors import UsageError
    from backend.events import Finished
    from backend.reference import parse
    from backend.settings import flag, variable

    target = parse(uri)
    if target.transport not in {"docker", "oras", "library"}:
        hint = "copy takes other places; registries are docker:// and oras://"
        raise UsageError(f"{target.transport} transport is not supported for push", hint=hint)
    access = make_access(options)
    with reporting(
        ctx, verb="push", title=str(image), target=str(target), as_json=as_json
    ) as report:
        digest = run_async(
            _push(
                access,
                image,
                target,
                report,
                str(options["layer_format"] or variable("LAYER_FORMAT") or ""),
                with_cosign=bool(options["with_cosign"]) or flag("WITH_COSIGN"),
            )
        )
        report(Finished(path=str(target), digest=digest, size=image.stat().st_size))
    if not as_json and not (ctx.obj or {}).get("quiet"):
        click.echo("INFO:    Upload complete", err=True)


async def _push(
    access: Access,
    image: Path,
    target: Reference,
    report: Report,
    layer_format: str,
    *,
    with_cosign: bool,
) -> Digest:
    from dataclasses import replace

    from backend.cache import scratch_folder
    from backend.events import Note
    from backend.paths import cache_home
    from backend.reference import Reference
    from backend.registry.push import open_destination
    from backend.sources.library import push_to_library
    from backend.transfer import copy_image

    signatures = _signatures(image, target, layer_format) if with_cosign else {}
    if target.transport == "library":
        _refuse_format(layer_format, target)
        return await push_to_library(image, target, access, report)
    with scratch_folder(cache_home(), "push") as folder:
        source = _source(image, target, layer_format, folder, report)
        origin = Reference(transport="file", path=str(image))
        async with access.client() as client:
            destination = await open_destination(client, target)
            digest = await copy_image(source, origin, destination, target, report)
            for tag, signature in signatures.items():
                where = replace(target, tag=tag, digest=None)
                report(Note(level="info", text=f"Writing cosign signatures: {where}"))
                await copy_image(signature, origin, destination, where, report)
            return digest


def _signatures(image: Path, target: Reference, layer_format: str) -> dict[str, StoredImage]:
    """Return cosign's signatures in the file by tag; they are of the image as it is stored.

    Raises:
        UsageError: Something else is pushed.
    """
    from backend.errors import UsageError
    from backend.sources.stored import stored_signatures

    if target.transport != "docker" or layer_format.startswith("tar"):
        why = "the signatures are of the image with the layers that are in the file"
        raise UsageError("--with-cosign needs docker:// and no --layer-format tar", why=why)
    found = stored_signatures(image)
    if not found:
        raise UsageError(f"{image} holds no cosign signatures", hint="leave --with-cosign out")
    return found


def _source(
    image: Path, target: Reference, layer_format: str, scratch: Path, report: Report
) -> StoredImage:
    from backend.sources.stored import open_artifact, open_ocisif, require_squashfs
    from backend.sources.tarlayers import convert_to_tar

    if target.transport == "oras":
        _refuse_format(layer_format, target)
        return open_artifact(image)
    source = open_ocisif(image)
    if layer_format == "squashfs":
        require_squashfs(source)
    elif layer_format:
        form: TarFormat = "tar+zstd" if layer_format == "tar+zstd" else "tar+gzip"
        return convert_to_tar(image, scratch, form, report)
    return source


def _refuse_format(layer_format: str, target: Reference) -> None:
    from backend.errors import UsageError

    if layer_format:
        raise UsageError(f"{target.transport}:// takes the file as it is, without --layer-format")
