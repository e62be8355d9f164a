"""An image file as pages of text: what the deck shows when it looks inside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from app.words import short_path, size
from backend.escape import one_line, printable

if TYPE_CHECKING:
    from pathlib import Path

    from backend.oci.image import ImageConfig
    from backend.registry.browse import PlatformImage, Preview
    from backend.sif.file import SifFile
    from backend.sif.inspection import Inspection
    from backend.sif.ocisif import OciSif

Pages = Mapping[str, Sequence[str]]
"""Title of a page to its lines; every line is safe to show."""

_MAX_TEXT = 1 << 20


def inspect_file(path: Path) -> Pages:
    """Return the pages of an image file, OCI-SIF or native.

    Raises:
        NotFoundError: It is not there.
        FormatError: It is no SIF file, or a broken one.
    """
    from backend.sif import inspection
    from backend.sif.file import SifFile
    from backend.sif.ocisif import image_of
    from backend.sif.records import DataType
    from backend.sif.text import header_text, list_text

    found = inspection.inspect_file(path)
    with SifFile(path) as sif:
        pages: dict[str, Sequence[str]] = {
            "Overview": _overview(found),
            "Descriptors": list_text(sif.descriptors).splitlines(),
            "Header": header_text(sif.header).splitlines(),
        }
        if sif.of_kind(DataType.OCI_ROOT_INDEX):
            image = image_of(sif)
            return {**pages, **image_pages(image), **_attached(sif), **_signatures(sif, image)}
        return {**pages, **_native_pages(found), **_attached(sif), **_signatures(sif, None)}


_KINDS = {"oci-sif": "OCI-SIF", "sif": "native SIF", "data": "data in an OCI-SIF"}


def _overview(found: Inspection) -> list[str]:
    source, config = found.provenance, found.config
    rows = {
        "file": short_path(str(found.path)),
        "format": f"{_KINDS[found.kind]}, {size(found.size)}",
        "digest": found.digest,
        "platform": str(config.platform),
        "created": config.created or "-",
        "source": source.reference or "-",
        "": f"@{source.digest}" if source.digest not in source.reference else "",
        "layers": f"{len(found.layers)} here, {len(source.layers) or '-'} at the source",
        "signatures": str(found.signatures or ""),
    }
    if found.kind == "sif":
        rows["layers"] = ""
    lines = [_row(name, value) for name, value in rows.items() if value]
    return [*lines, "", *_process(config)]


def _process(config: ImageConfig) -> list[str]:
    """Return what a container of the image runs."""
    return [
        _row("entrypoint", json.dumps(config.entrypoint) if config.entrypoint else "-"),
        _row("cmd", json.dumps(config.cmd) if config.cmd else "-"),
        _row("user", config.user or "-"),
        _row("workdir", config.working_dir or "-"),
        _row("ports", " ".join(config.exposed_ports) or "-"),
        _row("volumes", " ".join(config.volumes) or "-"),
        _row("stop", config.stop_signal or "-"),
    ]


def image_pages(image: OciSif) -> Pages:
    """Return the pages of what an OCI-SIF says beyond its header."""
    config = image.config
    return {
        "Config": _json(image.raw_config),
        "Labels": _pairs(config.labels),
        "Env": [one_line(entry) for entry in config.env] or ["(no variables)"],
        "Layers": _layers(image),
        "History": _history(config),
    }


def _layers(image: OciSif) -> list[str]:
    from backend.sif.provenance import read_provenance

    lines = ["IN THIS FILE", "ID        OFFSET   SIZE  TYPE"]
    lines += [
        f"{layer.object_id:<4} {layer.offset:>11}  {size(layer.size):>5}  "
        f"{one_line(layer.media_type)}\n{'':18}{layer.digest}"
        for layer in image.layers
    ]
    source = read_provenance(image.manifest.annotations)
    if source.layers:
        lines += ["", f"AT THE SOURCE  {one_line(source.reference)}"]
        lines += [
            f"{number:<4} {size(layer.size):>5}  {one_line(layer.digest)}"
            for number, layer in enumerate(source.layers, 1)
        ]
    return [part for line in lines for part in line.split("\n")]


def _history(config: ImageConfig) -> list[str]:
    lines = []
    for entry in config.history:
        mark = "-" if entry.empty_layer else "#"
        text = entry.created_by or entry.comment
        time = one_line(entry.created[:19])  # to the second
        lines.append(f"{mark} {time:19}  {one_line(text, limit=2000)}")
        if entry.comment and entry.created_by:
            lines.append(f"{'':23}{one_line(entry.comment, limit=2000)}")
    return lines or ["(no history)"]


def _native_pages(found: Inspection) -> Pages:
    """Return the texts that a native SIF holds beside its file system."""
    pages: dict[str, list[str]] = {}
    for name, attribute in _SCRIPTS.items():
        if text := found.attributes.get(attribute):
            pages[name] = _text(str(text).encode("utf-8", "surrogateescape"))
    pages["Labels"] = _pairs(found.labels)
    scripts = found.attributes.get("environment")
    if isinstance(scripts, Mapping):
        parts = (f"# {path}\n{script}\n" for path, script in sorted(scripts.items()))
        pages["Env"] = _text("".join(parts).encode("utf-8", "surrogateescape"))
    return pages


def _attached(sif: SifFile) -> Pages:
    """Return the documents that somebody added to a file of either kind."""
    from backend.sif.records import DataType

    pages: dict[str, list[str]] = {}
    for kind, name in ((DataType.JSON, "JSON"), (DataType.SBOM, "SBOM")):
        for descriptor in sif.of_kind(kind):
            data = sif.read(descriptor, limit=_MAX_TEXT)
            text = _json(data) if data.lstrip()[:1] in {b"{", b"["} else _text(data)
            pages.setdefault(name, []).extend(text)
    return pages


def _signatures(sif: SifFile, image: OciSif | None) -> Pages:
    """Return who says to have signed what; nothing of it has been checked."""
    from backend.sif.ocisif import is_cosign
    from backend.sif.records import DataType

    lines = []
    for one in sif.of_kind(DataType.SIGNATURE):
        entity = one.signature().entity.hex().upper()
        signed = f"{'group' if one.link_is_group else 'object'} {one.link}"
        by = f"OpenPGP key {entity}" if entity else "a key pair (DSSE)"
        lines.append(f"{one.id:<4} {signed:12} by {by}, {one.size} bytes")
    if image:
        lines += [f"cosign       {one.digest}" for one in image.index.manifests if is_cosign(one)]
    if not lines:
        return {"Signatures": ["(not signed)"]}
    return {"Signatures": [*lines, "", "v  checks them, and what they cover"]}


_SCRIPTS = {
    "Definition": "deffile",
    "Runscript": "runscript",
    "Help": "helpfile",
    "Test": "test",
}
"""Pages of a native SIF, and what SingularityCE's ``inspect --all`` calls their texts."""


def _json(data: bytes) -> list[str]:
    """Return a document with a member a line; as it is when it is no JSON."""
    try:
        return _text(json.dumps(json.loads(data), indent=2, ensure_ascii=False).encode())
    except (ValueError, RecursionError):
        return _text(data)


def _text(data: bytes) -> list[str]:
    text = printable(data.decode("utf-8", "replace"), limit=_MAX_TEXT)
    return [one_line(line, limit=4096) for line in text.splitlines()]


def _pairs(pairs: Mapping[str, str]) -> list[str]:
    return [f"{one_line(key)}: {one_line(value)}" for key, value in sorted(pairs.items())] or [
        "(no labels)"
    ]


def _row(name: str, value: str) -> str:
    return f"{name:11}{one_line(value, limit=1000)}"


def remote_pages(found: Preview, images: Sequence[PlatformImage]) -> Pages:
    """Return the pages of an image at a registry, with the sizes that are known so far."""
    overview = [
        _row("reference", str(found.reference)),
        _row("digest", found.digest),
        _row("type", found.media_type),
        _row("layers", f"{len(found.layers)}, {size(found.size)} to download"),
    ]
    if found.config:
        overview += [
            _row("created", found.config.created or "-"),
            "",
            *_process(found.config),
        ]
    pages: dict[str, Sequence[str]] = {
        "Overview": overview,
        "Platforms": [
            f"{one_line(str(one.platform or '-')):16} "
            f"{size(one.size) if one.size is not None else '':>6}  {one.digest}"
            for one in images
        ],
        "Layers": [
            f"{number:<4} {size(layer.size):>5}  {layer.digest}  {one_line(layer.media_type)}"
            for number, layer in enumerate(found.layers, 1)
        ],
        "Manifest": _json(found.raw),
        "Annotations": _pairs(found.annotations),
    }
    if found.config:
        pages |= {
            "Labels": _pairs(found.config.labels),
            "Env": [one_line(entry) for entry in found.config.env] or ["(no variables)"],
            "History": _history(found.config),
        }
    return pages
