"""From any form of an image to any other.

Every source is an :class:`~backend.assembly.Assembly`: documents, and layers that can be
opened.  A SIF file's layers are its file systems as they are, or, where the target wants
archives, archives that are made while they are read.  Every target takes an assembly.  So
nothing is unpacked on the way, and only a folder takes a second step: its layers are squashed
into a file beside it, which is then unpacked and removed.
"""

from __future__ import annotations

import contextlib
import functools
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from backend.assembly import least_packed, write_image, write_native_image
from backend.errors import ExistsError, NotFoundError, UsageError
from backend.escape import one_line
from backend.events import Note, Phase
from backend.pull import fetched_image
from backend.reference import parse
from backend.runtime.unpacking import measure, unpack
from backend.sif.contents import ImageTree
from backend.sif.inspection import inspect_file
from backend.sources.folder import opened_folder
from backend.sources.sifimage import opened_sif
from backend.space import LEAST_OF_FILES, Need, check_space, measure_folder
from backend.squashfs.compression import Compression
from backend.staging import StagedFolder
from backend.targets import ArchiveSink, FolderSink, write_docker_archive, write_layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backend.assembly import Assembly
    from backend.events import Report
    from backend.oci.image import Descriptor
    from backend.pull import PullOptions
    from backend.reference import Reference

Form = Literal["oci-sif", "sif", "sandbox", "oci", "oci-archive", "docker-archive"]


_LEAST_OF_SIF = 0.8
"""What an image made of a SIF file has of its bytes, at the least as a rule."""


_QUICKEST = Compression("lz4", 1)
"""Of what is read once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What to make.

    Attributes:
        form: Of the image.
        path: Of the file or folder.
        tag: The name of the image in a layout or an archive; empty for the usual one.
    """

    form: Form
    path: Path
    tag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What was made.

    Attributes:
        path: As in the target.
        digest: Of the image's manifest; of its configuration in a Docker archive; empty for a
            folder.
        size: Bytes of the file; 0 for a folder.
    """

    path: Path
    digest: str
    size: int


def parse_target(text: str, *, native: bool = False, sandbox: bool = False) -> Target:
    """Return the target that a user named.

    Args:
        text: ``oci:FOLDER[:TAG]``, ``oci-archive:FILE[:TAG]``, ``docker-archive:FILE[:NAME]``,
            or a path.
        native: A path means a native SIF.
        sandbox: A path means a folder with the image's files.

    Raises:
        UsageError: An image cannot be converted to that.
    """
    reference = parse(text)
    if reference.transport in {"oci", "oci-archive", "docker-archive"}:
        if native or sandbox or reference.digest:
            raise UsageError(f"{one_line(text)} says itself what to make")
        form: Form = "oci" if reference.transport == "oci" else "oci-archive"
        if reference.transport == "docker-archive":
            form = "docker-archive"
        return Target(form=form, path=Path(reference.path), tag=reference.tag)
    if reference.transport != "file":
        raise UsageError(
            f"an image cannot be converted to {one_line(text)}",
            hint="convert it to a file, and push that",
        )
    if native and sandbox:
        raise UsageError("a target is a native SIF or a folder, not both")
    form = "sif" if native else "sandbox" if sandbox else "oci-sif"
    return Target(form=form, path=Path(reference.path))


def convert_image(
    source: Reference, target: Target, options: PullOptions, report: Report
) -> Converted:
    """Convert an image.

    Args:
        source: An image in a registry, a layout, an archive, a daemon, a SIF file or a folder.
        target: What to make.
        options: Platform, compression, layers, overwriting; ``native`` says nothing here.
        report: Gets the events.

    Raises:
        ExistsError: The target exists and may not be replaced.
        NotFoundError: There is no such image.
        FormatError: The image breaks its specification.
        VerificationError: A layer is not what its digest says.
        UsageError: The source is no image that can be converted.
        SpaceError: A file system is full.
    """
    _check_target(target, options)
    with _opened(source, target, options, report) as image:
        match target.form:
            case "oci-sif":
                return _to_oci_sif(image, target.path, options, report)
            case "sif":
                return _to_native(image, target.path, options, report)
            case "sandbox":
                return _to_folder(image, target.path, options, report)
            case _:
                return _to_archive(image, target, options, report)


def _check_target(target: Target, options: PullOptions) -> None:
    """Say before the work that it would be in vain."""
    if not target.path.absolute().parent.is_dir():
        raise NotFoundError(f"there is no folder {one_line(str(target.path.parent))}")
    is_folder = target.form in {"sandbox", "oci"} or target.path.is_dir()
    if os.path.lexists(target.path) and (is_folder or not options.overwrite):
        hint = "remove it, or choose another name"
        if not is_folder:
            hint = "choose another name, or overwrite it with -F"
        raise ExistsError(f"{one_line(str(target.path))} exists already", hint=hint)


@contextlib.contextmanager
def _opened(
    source: Reference, target: Target, options: PullOptions, report: Report
) -> Iterator[Assembly]:
    path = Path(source.path)
    if source.transport != "file":
        needs = functools.partial(_needs_of_layers, target)
        with fetched_image(source, options, report, needs=needs) as image:
            yield image
    elif path.is_dir():
        size, count = measure_folder(path)
        check_space(_needs(target, int(size * LEAST_OF_FILES), size, count))
        yield opened_folder(path)
    else:
        check_space(_needs_of_sif(path, target))
        with opened_sif(path, as_tar=_wants_tar(path, target, options)) as image:
            yield image


def _needs_of_layers(target: Target, layers: Sequence[Descriptor]) -> list[Need]:
    unpacked = sum(layer.size for layer in layers)  # at the least: it is more than it was packed
    return _needs(target, least_packed(layers), unpacked)


def _needs_of_sif(path: Path, target: Target) -> list[Need]:
    layers = inspect_file(path).layers
    count = layers[0].inodes if len(layers) == 1 else 0  # upper layers may hide any number
    found = path.stat()
    size = min(found.st_size, found.st_blocks * 512)  # an overlay in it may have holes
    return _needs(target, int(size * _LEAST_OF_SIF), size, count)


def _needs(target: Target, packed: int, unpacked: int, files: int = 0) -> list[Need]:
    """Return what a conversion is going to write.

    Args:
        target: What is made.
        packed: Bytes of the image when compressed.
        unpacked: Bytes of its files.
        files: How many these are.
    """
    folder = target.path.absolute().parent
    image = Need(folder=folder, size=packed, purpose="the image", is_file=target.form != "oci")
    match target.form:
        case "docker-archive":
            return [replace(image, size=unpacked)]
        case "sandbox":
            return [
                replace(image, purpose="the squashed image"),
                Need(folder=folder, size=unpacked, files=files, purpose="the files"),
            ]
        case _:
            return [image]


def _wants_tar(path: Path, target: Target, options: PullOptions) -> bool:
    """Tell whether a SIF file's layers are needed as archives."""
    if target.form in {"oci-sif", "sandbox"}:
        return len(inspect_file(path).layers) > 1 and not options.keep_layers
    return True


def _to_oci_sif(image: Assembly, path: Path, options: PullOptions, report: Report) -> Converted:
    made = write_image(
        image,
        path,
        compression=options.compression,
        overwrite=options.overwrite,
        report=report,
        keep_layers=options.keep_layers,
    )
    return Converted(path=path, digest=made.digest, size=made.size)


def _to_native(image: Assembly, path: Path, options: PullOptions, report: Report) -> Converted:
    made = write_native_image(
        image,
        path,
        compression=options.compression,
        overwrite=options.overwrite,
        report=report,
    )
    return Converted(path=path, digest=made.digest, size=made.size)


def _to_archive(image: Assembly, target: Target, options: PullOptions, report: Report) -> Converted:
    if target.form == "oci":
        with FolderSink(target.path) as folder:
            digest = write_layout(image, folder, target.tag, report)
            folder.commit()
        return Converted(path=target.path, digest=digest, size=0)
    with ArchiveSink(target.path, overwrite=options.overwrite) as archive:
        if target.form == "oci-archive":
            digest = write_layout(image, archive, target.tag, report)
        else:
            digest = write_docker_archive(image, archive, _docker_name(target), report)
        archive.commit()
    return Converted(path=target.path, digest=digest, size=target.path.stat().st_size)


def _docker_name(target: Target) -> str:
    if not target.tag or ":" in target.tag.rpartition("/")[2]:
        return target.tag
    return f"{target.tag}:latest"


def _to_folder(image: Assembly, path: Path, options: PullOptions, report: Report) -> Converted:
    """Squash the image into a file beside the folder, and unpack that."""
    with StagedFolder(path.absolute()) as staged:
        squashed, folder = staged.path / "image", staged.path / "folder"
        _to_oci_sif(image, squashed, replace(options, compression=_QUICKEST), report)
        is_root = os.geteuid() == 0
        if not is_root:
            report(Note(level="info", text="You are not root: all files will be yours"))
        with ImageTree(squashed) as tree:
            size, count = measure(tree.layers[0])
            check_space([Need(folder=staged.path, size=size, files=count, purpose="the files")])
            folder.mkdir()
            root = os.fsencode(folder)
            for count in unpack(tree.layers[0], keep_owners=is_root, root=root):
                report(Phase(name="extract", done=count, unit="files"))
            report(Phase(name="extract", done=count, unit="files", state="done"))
        staged.commit(folder)
    return Converted(path=path, digest="", size=0)
