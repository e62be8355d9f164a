"""``sifdeck manifest REF``: what stands behind a tag, without pulling it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from app.cli.access import access_options, make_access, run_async
from app.cli.common import json_option
from app.cli.images import find_in_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backend.oci.platform import Platform
    from backend.reference import Reference
    from backend.registry.access import Access
    from backend.registry.browse import Preview


@click.command(short_help="Show platforms, layers and configuration of an image in a registry.")
@click.argument("reference", metavar="REF")
@click.option("--raw", is_flag=True, help="Print the manifest or index as the registry sent it.")
@click.option("--platform", help="The platform to describe, as linux/arm64.")
@access_options
@json_option
def manifest(
    *, reference: str, raw: bool, platform: str | None, as_json: bool, **options: object
) -> None:
    r"""Show what stands behind REF: platforms, layers, sizes, configuration, annotations.

    \b
    sifdeck manifest docker://ubuntu:24.04
    sifdeck manifest --raw docker://ghcr.io/lab/tools > index.json
    """
    from backend.oci.platform import host_platform, parse_platform

    access = make_access(options)
    named = find_in_registry(reference, access)
    if raw:
        sys.stdout.buffer.write(run_async(_raw(access, named)))
        return
    wanted = parse_platform(platform) if platform else host_platform()
    found = run_async(_preview(access, named, wanted))
    if as_json:
        click.echo(json.dumps(_document(found)))
        return
    for line in _lines(found):
        click.echo(line)


async def _raw(access: Access, reference: Reference) -> bytes:
    async with access.client() as client:
        return (await client.fetch_manifest(reference)).data


async def _preview(access: Access, reference: Reference, wanted: Platform) -> Preview:
    from dataclasses import replace

    from backend.registry.browse import platform_sizes, preview

    async with access.client() as client:
        found = await preview(client, reference, wanted)
        return replace(found, images=await platform_sizes(client, found))


def _document(found: Preview) -> dict[str, Any]:
    config = found.config
    return {
        "reference": str(found.reference),
        "digest": found.digest,
        "media_type": found.media_type,
        "platforms": [
            {"platform": str(one.platform or ""), "digest": one.digest, "size": one.size}
            for one in found.images
        ],
        "manifest": found.chosen,
        "size": found.size,
        "layers": [layer.to_json() for layer in found.layers],
        "config": config
        and {
            "platform": str(config.platform),
            "created": config.created,
            "entrypoint": config.entrypoint,
            "cmd": config.cmd,
            "env": config.env,
            "user": config.user,
            "working_dir": config.working_dir,
            "labels": dict(config.labels),
        },
        "annotations": dict(found.annotations),
    }


def _lines(found: Preview) -> Iterator[str]:
    """Yield the description for people, escaped."""
    from humanize import naturalsize

    from backend.escape import one_line

    yield f"{'Reference:':14}{found.reference}"
    yield f"{'Digest:':14}{found.digest}"
    yield f"{'Media type:':14}{one_line(found.media_type)}"
    for number, one in enumerate(found.images):
        mark = "*" if one.digest == found.chosen and len(found.images) > 1 else " "
        size = "" if one.size is None else naturalsize(one.size)
        label = "Platforms:" if not number else ""
        name = one_line(str(one.platform or "not said"), limit=40)
        yield f"{label:13}{mark}{name:16} {size:>9}  {one.digest}"
    yield f"{'Layers:':14}{len(found.layers)}, {naturalsize(found.size)}"
    for layer in found.layers:
        yield f"{'':14}{naturalsize(layer.size):>9}  {layer.digest}  {one_line(layer.media_type)}"
    for name, value in _config_lines(found):
        yield f"{name + ':':14}{one_line(value)}"
    for name, value in found.annotations.items():
        yield f"{'Annotation:':14}{one_line(name)}={one_line(value)}"


def _config_lines(found: Preview) -> Iterator[tuple[str, str]]:
    config = found.config
    if config is None:
        return
    yield "Created", config.created or "not said"
    for name, value in (
        ("Entrypoint", json.dumps(config.entrypoint) if config.entrypoint else ""),
        ("Cmd", json.dumps(config.cmd) if config.cmd else ""),
        ("User", config.user),
        ("Workdir", config.working_dir),
    ):
        if value:
            yield name, value
    for entry in config.env:
        yield "Env", entry
    for key, value in config.labels.items():
        yield "Label", f"{key}={value}"
