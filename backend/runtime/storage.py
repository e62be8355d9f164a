"""What the container's root is made of: the image's layers, overlays, and where changes go."""

from __future__ import annotations

import errno
import os

from backend.errors import LaunchError, UsageError
from backend.escape import quoted
from backend.runtime import host

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypedDict

    from backend.events import Report
    from backend.runtime.identity import Caller, Identity
    from backend.runtime.image import RunnableImage
    from backend.runtime.options import Bind, Overlay, RunOptions
    from backend.runtime.plan import Source, Upper

    class FileSystems(TypedDict):
        """The part of a plan that says what the root is made of."""

        layers: list[Source]
        squashfuse: list[str]
        overlayfuse: str
        ext3fuse: str
        upper: Upper


_AS_ROOT = "uid=0,gid=0,kernel_cache,attr_timeout=86400,entry_timeout=86400,negative_timeout=86400"
"""Options of the high-level squashfuse, which by itself caches nothing; an image never changes."""
_SQUASHFS, _EXT, _SIF = b"hsqs", b"\x53\xef", b"SIF_MAGIC"
_EXT_AT, _SIF_AT = 1080, 32


def choose(
    runnable: RunnableImage,
    options: RunOptions,
    identity: Identity,
    caller: Caller,
    report: Report,
) -> FileSystems:
    """Return what is mounted, and with which programs.

    Raises:
        LaunchError: A program is missing.
        UsageError: Overlays that cannot be had together.
    """
    squashfuse = _find_squashfuse(identity)
    if options.unpack == "never" and not squashfuse:
        raise LaunchError("the image cannot be mounted", why=_why_not_mounted())
    mounting = [] if options.unpack == "always" else squashfuse
    cause = "--tmp-sandbox asks for it" if squashfuse else _why_not_mounted()
    layers = _image_layers(runnable, mounting, (identity, caller), cause, report)
    upper: Upper = {"path": "", "offset": -1}
    embedded = runnable.overlay
    if options.writable:
        if embedded is None:
            raise UsageError(
                f"image {runnable.name} does not contain a writable overlay",
                hint=f"add one: sifdeck overlay create {runnable.name}",
            )
        upper = {"path": runnable.path, "offset": embedded.offset}
    elif embedded:
        layers.append(
            {"kind": "ext3", "path": runnable.path, "offset": embedded.offset, "text": ""}
        )
    for overlay in reversed(options.overlays):
        layer, changes = _overlay(overlay)
        if layer:
            layers.append(layer)
        if changes:
            if upper["path"]:
                raise UsageError("only one overlay can be writable", hint="add :ro to the others")
            upper = changes
    needs_ext3 = upper["offset"] >= 0 or any(layer["kind"] == "ext3" for layer in layers)
    needs_fuse = any(layer["kind"] == "squashfs" for layer in layers)
    _need_programs(squashfuse, needs_ext3=needs_ext3, needs_squashfs=needs_fuse)
    return {
        "layers": layers,
        "squashfuse": squashfuse,
        "overlayfuse": host.find_program("fuse-overlayfs"),
        "ext3fuse": host.find_program("fuse2fs"),
        "upper": upper,
    }


def find_data(binds: Sequence[Bind]) -> list[Source]:
    """Return, for each bind that is an image, the squashfs in it.

    Raises:
        UsageError: A file holds none, or several.
    """
    return [_data(bind.source) for bind in binds if bind.is_image]


def _data(path: str) -> Source:
    kind = _kind(path)
    if kind == "squashfs":
        return {"kind": "squashfs", "path": path, "offset": 0, "text": ""}
    if kind == "sif":
        from pathlib import Path

        from backend.sif.ocisif import read_ocisif

        layers = read_ocisif(Path(path)).layers
        if len(layers) == 1 and not layers[0].is_overlay:
            offset = layers[0].offset
            return {"kind": "squashfs", "path": path, "offset": offset, "text": ""}
        raise UsageError(
            f"only single layer data containers are supported, found {len(layers)} layers"
        )
    raise UsageError(f"{quoted(path)} is neither a data container nor a squashfs")


def _overlay(overlay: Overlay) -> tuple[Source | None, Upper | None]:
    """Return the layer that an overlay adds, or the place for changes that it is."""
    path = overlay.source
    if os.path.isdir(path):
        if not overlay.read_only:
            if not os.access(path, os.W_OK):
                raise UsageError(f"cannot write to {quoted(path)}", hint="add :ro to it")
            return None, {"path": path, "offset": -1}
        upper = f"{path}/upper"
        source = upper if os.path.isdir(upper) else path
        return {"kind": "folder", "path": source, "offset": 0, "text": ""}, None
    kind = _kind(path)
    if kind == "squashfs":
        return {"kind": "squashfs", "path": path, "offset": 0, "text": ""}, None
    if kind == "ext3":
        if overlay.read_only:
            return {"kind": "ext3", "path": path, "offset": 0, "text": ""}, None
        return None, {"path": path, "offset": 0}
    raise UsageError(f"an overlay is a folder, a squashfs or ext3; {quoted(path)} is none")


def _kind(path: str) -> str:
    with open(path, "rb") as file:
        head = file.read(2048)
    if head.startswith(_SQUASHFS):
        return "squashfs"
    if head[_EXT_AT:].startswith(_EXT):
        return "ext3"
    return "sif" if head[_SIF_AT:].startswith(_SIF) else ""


def _find_squashfuse(identity: Identity) -> list[str]:
    """Return the FUSE server and its options; empty when this host cannot mount."""
    if not host.can_open_fuse():
        return []
    if identity.mode != "single":
        server = host.find_program("squashfuse_ll", "squashfuse")
        return [server] if server else []
    # With one id, the files of all others must look like root's; squashfuse_ll cannot do that.
    server = host.find_program("squashfuse")
    return [server, _AS_ROOT] if server else []


def _why_not_mounted() -> str:
    """Return what keeps this host from mounting an image, and who can change that."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        fix = "chmod 666 /dev/fuse" if error.errno == errno.EACCES else "modprobe fuse"
        return f"/dev/fuse cannot be opened ({error.strerror}); an administrator can: {fix}"
    return "squashfuse is not installed; an administrator can: apt install squashfuse"


def _image_layers(
    runnable: RunnableImage,
    squashfuse: list[str],
    who: tuple[Identity, Caller],
    cause: str,
    report: Report,
) -> list[Source]:
    if squashfuse:
        return [
            {"kind": "squashfs", "path": runnable.path, "offset": layer.offset, "text": ""}
            for layer in runnable.layers
        ]
    from backend.runtime.extraction import extract_layers

    folders = extract_layers(runnable, *who, cause, report)
    # Equal layers have one folder, which overlayfs takes once; the upper one hides the lower.
    upper_first = dict.fromkeys(reversed(folders))
    return [
        {"kind": "folder", "path": str(folder), "offset": 0, "text": ""}
        for folder in reversed(upper_first)
    ]


def _need_programs(squashfuse: list[str], *, needs_ext3: bool, needs_squashfs: bool) -> None:
    if needs_squashfs and not squashfuse:
        raise LaunchError(
            "cannot mount a squashfs",
            why="squashfuse is not installed, or /dev/fuse cannot be opened",
            hint="an administrator can install squashfuse and open /dev/fuse: sifdeck doctor",
        )
    if needs_ext3 and not host.find_program("fuse2fs"):
        raise LaunchError(
            "cannot mount an ext3 overlay",
            why="fuse2fs is not installed",
            hint="an administrator can install it (apt install fuse2fs); a folder works without",
        )
    if needs_ext3 and not host.can_open_fuse():
        raise LaunchError(
            "cannot mount an ext3 overlay",
            why="/dev/fuse cannot be opened",
            hint="an administrator can open it: sifdeck doctor",
        )
