"""The SCIF apps of an image: what `inspect --app` shows, as SingularityCE has it.

An app is a folder in ``/scif/apps``, whose own ``scif`` folder holds its scripts, its labels
and its environment.  Builders of native SIF files record all of it in the file's metadata; for
images of others the files themselves answer.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any

from backend.errors import FormatError, NotFoundError
from backend.escape import quoted
from backend.oci.json import load
from backend.sif.contents import ImageTree
from backend.squashfs.inode import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backend.sif.inspection import Inspection

_FOLDER = b"scif/apps"
_SCRIPTS = {"runscript": b"runscript", "test": b"test", "helpfile": b"runscript.help"}
_MAX_APPS = 256
_MAX_TEXT = 1 << 20
"""Bytes of a script."""


def apps_of(found: Inspection) -> dict[str, dict[str, Any]]:
    """Return an image's apps by name, each with ``environment``, ``labels``, ``runscript`` ...

    Raises:
        FormatError: The image is damaged, or its file system is one that we cannot read.
    """
    recorded = found.attributes.get("apps")
    if isinstance(recorded, dict):
        return {name: app for name, app in recorded.items() if isinstance(app, dict)}
    with ImageTree(found.path) as tree:
        return {name: _read(tree, name) for name in _names(tree, _FOLDER, Kind.DIRECTORY)}


def app_of(found: Inspection, name: str) -> Mapping[str, Any]:
    """Return one app of an image.

    Raises:
        NotFoundError: The image has no such app.
        FormatError: As :func:`apps_of`.
    """
    apps = apps_of(found)
    if name not in apps:
        hint = f"it has {', '.join(map(quoted, sorted(apps)))}" if apps else "it has no apps"
        raise NotFoundError(f"the image has no app {quoted(name)}", hint=hint)
    return apps[name]


def _read(tree: ImageTree, name: str) -> dict[str, Any]:
    folder = b"%s/%s/scif" % (_FOLDER, os.fsencode(name))
    app: dict[str, Any] = {}
    for key, file in _SCRIPTS.items():
        if text := _text(tree, folder + b"/" + file):
            app[key] = text
    scripts = {
        f"/{os.fsdecode(folder)}/env/{script}": _text(tree, folder + b"/env/" + os.fsencode(script))
        for script in _names(tree, folder + b"/env", Kind.FILE)
        if script.endswith(".sh")
    }
    if scripts:
        app["environment"] = scripts
    if labels := _text(tree, folder + b"/labels.json"):
        app["labels"] = load(labels.encode(errors="surrogateescape"), "labels.json").value
    return app


def _names(tree: ImageTree, path: bytes, kind: Kind) -> list[str]:
    folder = tree.lookup(path)
    if folder is None or folder.kind is not Kind.DIRECTORY:
        return []
    entries = (name for name, file in tree.entries(folder) if file.kind is kind)
    return [os.fsdecode(name) for name in itertools.islice(entries, _MAX_APPS)]


def _text(tree: ImageTree, path: bytes) -> str:
    file = tree.lookup(path)
    if file is None or file.kind is not Kind.FILE:
        return ""
    if file.size > _MAX_TEXT:
        raise FormatError(f"{quoted(os.fsdecode(path))} has {file.size} bytes")
    return b"".join(tree.read(file)).decode("utf-8", "surrogateescape")
