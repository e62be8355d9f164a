"""What ``sifdeck ls IMAGE [PATH...]`` prints: the files in an image."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backend.sif.contents import File, ImageTree


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """How to list files.

    Attributes:
        is_long: With mode, owner, size and time.
        recursive: With everything below.
        itself: A directory itself, not what is in it.
        layers: Instead, what each layer brought and what of it is wasted.
        as_json: One JSON object a line.
    """

    is_long: bool = False
    recursive: bool = False
    itself: bool = False
    layers: bool = False
    as_json: bool = False


def list_files(image: Path, paths: tuple[str, ...], how: Listing) -> None:
    """Print what is at ``paths`` in an image, the root by default."""
    from backend.sif.contents import ImageTree

    with ImageTree(image) as tree:
        if tree.overlay_problem:
            click.echo(f"WARNING: Without the writable overlay: {tree.overlay_problem}", err=True)
        if how.layers:
            _echo_layers(tree, as_json=how.as_json)
            return
        shown = _json_line if how.as_json else _long_line if how.is_long else _short_line
        for path in paths or ("/",):
            top, file = tree.need(path)
            for name, found in _chosen(tree, top, file, how):
                click.echo(shown(tree, name, found))


def _chosen(tree: ImageTree, top: bytes, file: File, how: Listing) -> Iterator[tuple[bytes, File]]:
    """Yield what is to be listed, under the names to be shown."""
    from backend.squashfs.inode import Kind

    if how.itself or file.kind is not Kind.DIRECTORY:
        yield top or b"/", file
    elif how.recursive:
        for name, found in tree.walk(top, file):
            if name != top:
                yield name, found
    else:
        yield from tree.entries(file)


def _short_line(_tree: ImageTree, name: bytes, _file: File) -> str:
    from backend.escape import one_line

    return one_line(os.fsdecode(name), limit=70000)


def _long_line(tree: ImageTree, name: bytes, file: File) -> str:
    from datetime import UTC, datetime

    from backend.escape import one_line
    from backend.squashfs.inode import Kind, split_device

    node = file.node
    size = str(node.size)
    if node.kind in {Kind.BLOCK_DEVICE, Kind.CHARACTER_DEVICE}:
        size = "{}, {}".format(*split_device(node.device))
    time = datetime.fromtimestamp(node.mtime, UTC).strftime("%Y-%m-%d %H:%M")
    layer = f" {file.layer + 1:>3}" if len(tree.stack) > 1 else ""
    shown = one_line(os.fsdecode(name), limit=70000)
    if node.kind is Kind.SYMLINK:
        shown += f" -> {one_line(os.fsdecode(tree.readlink(file)), limit=70000)}"
    return (
        f"{file.mode} {node.links:>3} {node.uid:>5} {node.gid:>5} {size:>11} {time}{layer} {shown}"
    )


def _json_line(tree: ImageTree, name: bytes, file: File) -> str:
    import json

    from backend.squashfs.inode import Kind, split_device

    node = file.node
    found: dict[str, Any] = {
        "path": os.fsdecode(name),
        "type": node.kind.name.lower(),
        "mode": f"{node.mode:04o}",
        "uid": node.uid,
        "gid": node.gid,
        "size": node.size,
        "mtime": node.mtime,
        "links": node.links,
        "layer": file.layer + 1,
    }
    if node.kind is Kind.SYMLINK:
        found["target"] = os.fsdecode(tree.readlink(file))
    if node.kind in {Kind.BLOCK_DEVICE, Kind.CHARACTER_DEVICE}:
        found["device"] = list(split_device(node.device))
    xattrs = {
        os.fsdecode(key): value.decode("utf-8", "surrogateescape")
        for key, value in tree.xattrs(file)
    }
    if xattrs:
        found["xattrs"] = xattrs
    return json.dumps(found)


def _echo_layers(tree: ImageTree, *, as_json: bool) -> None:
    import dataclasses
    import json

    from backend.escape import one_line
    from backend.sif.contents import survey

    found = survey(tree)
    if as_json:
        for number, layer in enumerate(found.layers, 1):
            click.echo(json.dumps({"layer": number, **dataclasses.asdict(layer)}))
        return
    click.echo("LAYER      FILES         BYTES        WASTED  REMOVED")
    for number, layer in enumerate(found.layers, 1):
        click.echo(
            f"{number:>5} {layer.files:>10} {layer.size:>13} {layer.wasted:>13} {layer.removed:>8}"
        )
    for waste in found.waste[:_SHOWN_WASTE]:
        path = one_line(os.fsdecode(waste.path))
        click.echo(f"wasted: {waste.size:>13}  layer {waste.layer + 1}  {path}")


_SHOWN_WASTE = 20
"""Hidden files that are named."""
