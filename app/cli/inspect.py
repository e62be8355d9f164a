"""``sifdeck inspect IMAGE``: what an image file says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from app.cli.common import echo_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from backend.sif.inspection import Inspection, LayerDetail


@click.command(short_help="Show what an image file says of itself.")
@click.argument("image", type=click.Path(path_type=Path))
@click.option("-l", "--labels", is_flag=True, help="Show the labels only.")
@click.option("-e", "--environment", is_flag=True, help="Show the environment only.")
@click.option("-r", "--runscript", is_flag=True, help="Show what `run` starts.")
@click.option("-d", "--deffile", is_flag=True, help="Show how it was built.")
@click.option("-s", "--startscript", is_flag=True, help="Show what `instance start` starts.")
@click.option("-t", "--test", is_flag=True, help="Show the test script.")
@click.option("-H", "--helpfile", is_flag=True, help="Show the image's help text.")
@click.option("--app", metavar="NAME", help="Show these of one SCIF app; its labels by default.")
@click.option("--list-apps", is_flag=True, help="List the image's SCIF apps.")
@click.option("--all", "everything", is_flag=True, help="All of these, as JSON.")
@click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(
    image: Path,
    *,
    app: str | None,
    list_apps: bool,
    everything: bool,
    as_json: bool,
    **wanted: bool,
) -> None:
    """Show what IMAGE, an OCI-SIF or a native SIF, says of itself; nothing is mounted or run.

    Without options: an overview.  The options are those of `singularity inspect`; with them,
    --json prints the same JSON as it does.
    """
    from backend.sif.inspection import inspect_file, inspection_json

    found = inspect_file(image)
    chosen = [name for name, is_wanted in wanted.items() if is_wanted]
    if app is not None:
        _show_app(found, app, list(wanted) if everything else chosen or ["labels"], as_json)
    elif list_apps:
        _show_apps(found, as_json=as_json)
    elif everything:
        echo_json(_attributes(_with_apps(found)))
    elif chosen and as_json:
        echo_json(_attributes(_picked(found.attributes, chosen)))
    elif chosen:
        for line in _chosen_lines(found.attributes, chosen, is_named=found.kind == "sif"):
            click.echo(line)
    elif as_json:
        echo_json(inspection_json(found))
    else:
        for line in _overview(found):
            click.echo(line)


def _attributes(attributes: object) -> dict[str, object]:
    return {"data": {"attributes": attributes}, "type": "container"}


def _picked(attributes: Mapping[str, object], chosen: Iterable[str]) -> dict[str, object]:
    return {key: attributes[key] for key in chosen if key in attributes}


def _with_apps(found: Inspection) -> dict[str, object]:
    """Return all attributes, those of the apps too where the file system can be read."""
    from backend.errors import FormatError
    from backend.sif.apps import apps_of

    try:
        apps = apps_of(found)
    except FormatError:
        apps = {}
    return {**({"apps": apps} if apps else {}), **found.attributes}


def _show_apps(found: Inspection, *, as_json: bool) -> None:
    from backend.escape import one_line
    from backend.sif.apps import apps_of

    names = sorted(apps_of(found))
    if as_json:
        echo_json(_attributes({"apps": {name: {} for name in names}}))
        return
    for name in names:
        click.echo(one_line(name))


def _show_app(found: Inspection, name: str, chosen: list[str], as_json: bool) -> None:
    from backend.sif.apps import app_of

    app = app_of(found, name)
    if as_json:
        echo_json(_attributes({"apps": {name: _picked(app, chosen)}}))
        return
    for line in _chosen_lines(app, chosen, is_named=True):
        click.echo(line)


def _chosen_lines(
    attributes: Mapping[str, object], chosen: Iterable[str], *, is_named: bool
) -> Iterator[str]:
    """Yield the attributes as text, with the names of scripts where there are several."""
    from backend.escape import one_line, printable

    for name in chosen:
        attribute = attributes.get(name)
        texts = attribute if isinstance(attribute, dict) else {"": attribute}
        for path, text in sorted(texts.items()):
            if name == "labels":
                if isinstance(text, str):
                    yield f"{one_line(path)}: {one_line(text)}"
                continue
            if path and is_named:
                yield f"=== {one_line(path)} ==="
            if isinstance(text, str):
                yield printable(text, limit=_LIMIT).rstrip("\n")


_LIMIT = 1 << 20
"""Characters of a script that are shown."""


def _overview(found: Inspection) -> Iterator[str]:
    from backend.escape import one_line

    config = found.config
    rows = [
        ("Image", str(found.path)),
        (
            "Format",
            {"oci-sif": "OCI-SIF", "sif": "native SIF", "data": "data container"}[found.kind],
        ),
        ("Digest", found.digest),
        ("Platform", str(config.platform) if config.platform.architecture else ""),
        ("Size", _size(found.size)),
        ("Created", config.created),
        ("Author", config.author),
        ("Source", found.provenance.reference),
        ("Source digest", found.provenance.digest),
        ("Signatures", str(found.signatures or "")),
        ("Entrypoint", _words(config.entrypoint)),
        ("Cmd", _words(config.cmd)),
        ("User", config.user),
        ("Working dir", config.working_dir),
        ("Ports", " ".join(config.exposed_ports)),
        ("Volumes", " ".join(config.volumes)),
        ("Stop signal", config.stop_signal),
    ]
    for label, value in rows:
        if value:
            yield f"{label + ':':15}{one_line(value)}"
    yield from _section("Environment", config.env, one_line)
    yield from _section(
        "Labels", (f"{key}={value}" for key, value in sorted(found.labels.items())), one_line
    )
    yield from _layers(found.layers)
    yield from _section("History", _history(found), one_line)


def _section(title: str, lines: Iterable[str], escape: Callable[[str], str]) -> Iterator[str]:
    shown = [f"  {escape(line)}" for line in lines]
    if shown:
        yield from ("", f"{title}:", *shown)


def _layers(layers: Iterable[LayerDetail]) -> Iterator[str]:
    from backend.escape import one_line

    yield from ("", "Layers, base first:")
    for number, layer in enumerate(layers, 1):
        packed = f" {layer.compression}" if layer.compression else ""
        blocks = f", blocks of {_size(layer.block_size)}" if layer.block_size else ""
        things = f", {layer.inodes} inodes" if layer.inodes else ""
        yield f"  {number}  {_size(layer.size):>10}  {layer.filesystem}{packed}{blocks}{things}"
        if layer.digest:
            yield f"     {layer.digest}"
        for source in layer.sources:
            kind = one_line(source.media_type)
            yield f"       from {source.digest}  {_size(source.size)}  {kind}"


def _history(found: Inspection) -> Iterator[str]:
    for entry in found.config.history:
        mark = " " if entry.empty_layer else "*"
        text = " ".join(part for part in (entry.created_by, entry.comment) if part)
        yield f"{mark} {entry.created[:10]:10}  {text}"


def _words(words: tuple[str, ...]) -> str:
    import shlex

    return " ".join(shlex.quote(word) for word in words)


def _size(size: int) -> str:
    import humanize

    return humanize.naturalsize(size, binary=True)
