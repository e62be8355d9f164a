"""The images on this machine: every SIF file in the current folder and the image folders.

Reading the header of a file takes under a millisecond, that of 10,000 files many seconds on
a parallel file system.  So what was read is kept in the cache, one index per folder, and used
as long as a file has the size and the time of change it had.  The index may be deleted, cut
short or made up by somebody: what does not fit is read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from collections import deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from backend.errors import BackendError, NotFoundError, UsageError
from backend.escape import one_line
from backend.history import read_journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from backend.history import Known
    from backend.sif.file import SifFile

SUFFIXES = (".sif",)
"""Endings of the files we look into; ``.oci.sif`` is one of them."""
MAX_IMAGES = 200_000
"""Of one folder.  Nobody reads a longer list, and a loop of links must end."""

_VERSION = 2
_MAX_INDEX = 256 << 20
_MAX_LABELS = 1 << 20
_LAST_SECOND = 253402300799
"""The end of the year 9999, the last that a datetime holds."""
_BATCH_S = 0.2
"""Seconds of reading after which a caller gets to see what there is."""

Kind = Literal["oci-sif", "sif", "unreadable"]

_VERDICTS = {
    "verified": "verified",
    "bad signature": "BAD SIG",
    "damaged": "DAMAGED",
    "equal": "=source",
    "differs": "DIFFERS",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image file.

    Attributes:
        path: Absolute.
        kind: What it is; ``unreadable`` when it is no SIF file in spite of its name.
        name: The reference it came from without tag, else the name of the file.
        tag: Of that reference; empty when the file does not say where it came from.
        digest: Of its manifest; empty for a native SIF.
        architecture: GOARCH, such as ``amd64``; empty when unknown.
        created: RFC 3339, as the image says; empty when it does not.
        layers: Squashed or not, as many as it has.
        signatures: How many signature objects the file has.
        cosigned: How many signatures of cosign's it has.
        source: The reference that it was made from; empty when it does not say.
        problem: Why it cannot be read; empty when it can.
        size: Bytes of the file.
        modified_ns: Of the file, nanoseconds since 1970.
        used: When it was last run on this machine, seconds since 1970; 0 for never.
        verdict: How its last check ended, while the file is as it was; empty for none.
    """

    path: str
    kind: Kind
    name: str
    tag: str = ""
    digest: str = ""
    architecture: str = ""
    created: str = ""
    layers: int = 0
    signatures: int = 0
    cosigned: int = 0
    source: str = ""
    problem: str = ""
    size: int = 0
    modified_ns: int = 0
    used: float = 0.0
    verdict: str = ""

    @property
    def title(self) -> str:
        """What a person calls it: ``NAME:TAG``, or the file's name."""
        return f"{self.name}:{self.tag}" if self.tag else self.name

    @property
    def trust(self) -> str:
        """What is known of who made it, in a word: checked, signed, or where it is from."""
        if self.verdict in _VERDICTS:
            return _VERDICTS[self.verdict]
        if self.signatures or self.cosigned:
            return "signed" if self.signatures else "cosign"
        return "intact" if self.verdict == "intact" else "source" if self.source else ""

    @property
    def file_name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]


class Catalog:
    """What image files a few folders hold.

    Args:
        folders: Where to look, not in the folders inside them; one that is not there is empty.
        index_home: Folder of the indexes; made when there is something to write.

    Attributes:
        known: What the last scan has found so far.
    """

    def __init__(self, folders: Sequence[Path], index_home: Path) -> None:
        self.folders = tuple(dict.fromkeys(Path(os.path.abspath(folder)) for folder in folders))  # noqa: PTH100  (links stay)
        self._home = index_home
        self.known: tuple[Image, ...] = ()
        self._done: Mapping[str, Known] = {}

    def scan(self, should_stop: Callable[[], bool] = lambda: False) -> Iterator[tuple[Image, ...]]:
        """Yield all images known so far: once from the indexes, then again as files are read.

        The last tuple is complete, unless ``should_stop`` said yes.  Files that vanish while
        they are read are left out.
        """
        known: list[Image] = []
        unread: list[tuple[Path, str, int, int]] = []
        self._done = read_journal()
        for folder in self.folders:
            images, new = self._known(folder)
            known += images
            unread += ((folder, *one) for one in new)
        yield self._found(known)
        if not unread:
            return
        then = time.monotonic()
        for _, path, size, modified_ns in unread:
            if should_stop():
                return
            if image := read_image(path, size=size, modified_ns=modified_ns):
                known.append(image)
            if time.monotonic() - then > _BATCH_S:
                yield self._found(known)
                then = time.monotonic()
        self._remember(known)
        yield self._found(known)

    def _found(self, images: list[Image]) -> tuple[Image, ...]:
        done = self._done
        self.known = tuple(
            _with(image, done[image.path]) if image.path in done else image for image in images
        )
        return self.known

    def images(self) -> tuple[Image, ...]:
        """Return all images, having read whatever is new."""
        return deque(self.scan(), maxlen=1).pop()

    def _known(self, folder: Path) -> tuple[list[Image], list[tuple[str, int, int]]]:
        """Return a folder's images that the index has, and (path, size, time) of the others."""
        index = self._load(folder)
        images: list[Image] = []
        unread: list[tuple[str, int, int]] = []
        for path, size, modified_ns in _files(folder):
            image = index.get(path)
            if image and image.size == size and image.modified_ns == modified_ns:
                images.append(image)
            else:
                unread.append((path, size, modified_ns))
        if len(images) < len(index):
            # Files went away; write what is left, so that the index does not grow for ever.
            self._write(folder, images)
        return images, unread

    def _index(self, folder: Path) -> Path:
        name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:24]
        return self._home / f"{name}.json"

    def _load(self, folder: Path) -> dict[str, Image]:
        """Return the images of a folder's index, by path; nothing when it is broken."""
        try:
            with self._index(folder).open("rb") as file:
                document = json.loads(file.read(_MAX_INDEX))
            if document["version"] != _VERSION or document["folder"] != str(folder):
                return {}
            images = (_decode(str(folder), fields) for fields in document["images"])
            return {image.path: image for image in images}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}

    def _remember(self, images: Iterable[Image]) -> None:
        for folder in self.folders:
            prefix = f"{str(folder).rstrip('/')}/"
            inside = [one for one in images if one.path.rpartition("/")[0] + "/" == prefix]
            self._write(folder, inside)

    def _write(self, folder: Path, images: Sequence[Image]) -> None:
        """Write a folder's index; a cache that cannot be written costs time and nothing else."""
        document = {
            "version": _VERSION,
            "folder": str(folder),
            "images": [_encode(image) for image in images],
        }
        target = self._index(folder)
        partial = target.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError, ValueError):
            self._home.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(document, separators=(",", ":")))
            partial.replace(target)
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _with(image: Image, known: Known) -> Image:
    """Return an image with what was done with it; a check of another content says nothing."""
    is_same = (known.size, known.modified_ns) == (image.size, image.modified_ns)
    return replace(image, used=known.used, verdict=known.verdict if is_same else "")


def read_image(path: str, *, size: int, modified_ns: int) -> Image | None:
    """Read what one file says about itself; None when it is no longer there.

    Never raises because of what is in the file: a file that cannot be read is an image whose
    ``problem`` says why.
    """
    try:
        fields = _describe(Path(path))
    except NotFoundError:
        return None
    except BackendError as error:
        fields = {"kind": "unreadable", "problem": one_line(error.message)}
    except OSError as error:
        fields = {"kind": "unreadable", "problem": one_line(error.strerror or "cannot be read")}
    name = path.rpartition("/")[2]
    return Image(path=path, size=size, modified_ns=modified_ns, **{"name": name, **fields})  # type: ignore[arg-type]


def _describe(path: Path) -> dict[str, object]:
    """Return the fields of an image that come out of its file."""
    from backend.sif.file import SifFile
    from backend.sif.records import DataType

    with SifFile(path) as sif:
        fields: dict[str, object] = {"signatures": len(sif.of_kind(DataType.SIGNATURE))}
        native = not sif.of_kind(DataType.OCI_ROOT_INDEX)
        return fields | (_native(sif) if native else _oci(sif))


def _oci(sif: SifFile) -> dict[str, object]:
    """Return what an OCI-SIF says: its image, and the reference that it was pulled from."""
    from backend.sif.ocisif import image_of, is_cosign
    from backend.sif.provenance import read_provenance

    image = image_of(sif)
    source = _as_docker(read_provenance(image.manifest.annotations).reference)
    name, tag = _split(source)
    return {
        "kind": "oci-sif",
        "digest": str(image.manifest_digest),
        "architecture": one_line(image.config.platform.architecture, limit=40),
        "created": one_line(image.config.created, limit=40),
        "layers": len(image.layers),
        "cosigned": sum(map(is_cosign, image.index.manifests)),
        "source": one_line(source, limit=400),
        **({"name": name, "tag": tag} if name else {}),
    }


def _as_docker(reference: str) -> str:
    return reference if "://" in reference or not reference else f"docker://{reference}"


def _native(sif: SifFile) -> dict[str, object]:
    """Return what a native SIF says: its architecture, and where SingularityCE built it from."""
    from backend.sif.records import DataType

    fields: dict[str, object] = {"kind": "sif", "layers": 1}
    if sif.header.architecture != "unknown":
        fields["architecture"] = sif.header.architecture
    if sif.header.created > 0:
        created = datetime.fromtimestamp(min(sif.header.created, _LAST_SECOND), tz=UTC)
        fields["created"] = created.isoformat().replace("+00:00", "Z")
    labels = sif.of_kind(DataType.LABELS)
    if labels and labels[0].size <= _MAX_LABELS:
        source = _built_from(sif.read(labels[0], limit=_MAX_LABELS))
        name, tag = _split(source)
        fields |= {"name": name, "tag": tag, "source": one_line(source, limit=400)} if name else {}
    return fields


def _built_from(data: bytes) -> str:
    """Return the reference in the labels that a build leaves in a native SIF; "" for none."""
    try:
        labels = json.loads(data)
        source = labels["org.label-schema.usage.singularity.deffile.from"]
        bootstrap = labels["org.label-schema.usage.singularity.deffile.bootstrap"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return f"{bootstrap}://{source}" if bootstrap in {"docker", "library"} else ""


def _split(text: str) -> tuple[str, str]:
    """Return name and tag of a reference; twice nothing when it is none."""
    from backend.reference import parse

    try:
        reference = parse(text)
    except UsageError:
        return "", ""
    return (reference.name, reference.tag) if reference.name else ("", "")


def _files(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Yield (path, size, time of change) of each file in a folder that may be an image, by name.

    The order in which a folder gives its files differs from one file system to the next.
    """
    found = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        named = [entry for entry in entries if entry.name.endswith(SUFFIXES)]
        for entry in sorted(named, key=lambda entry: entry.name):
            try:
                status = entry.stat()
            except OSError:  # gone, or a link to nothing
                continue
            if stat.S_ISREG(status.st_mode):
                yield entry.path, status.st_size, status.st_mtime_ns
                found += 1
            if found >= MAX_IMAGES:
                return


def _encode(image: Image) -> list[object]:
    """Return an image as the index keeps it: short, for 10,000 of them are read at each start."""
    return [
        image.file_name,
        image.size,
        image.modified_ns,
        image.kind,
        image.name,
        image.tag,
        image.digest,
        image.architecture,
        image.created,
        image.layers,
        image.signatures,
        image.cosigned,
        image.source,
        image.problem,
    ]


_TYPES = (str, int, int, str, str, str, str, str, str, int, int, int, str, str)


def _decode(folder: str, fields: list[object]) -> Image:
    """Return the image of :func:`_encode`.

    Raises:
        ValueError: The fields are not those of an image.
    """
    if tuple(map(type, fields)) != _TYPES:
        raise ValueError("not an image")
    file, size, changed, kind, name, tag, digest, machine, created, layers, *rest = fields
    signed, cosigned, source, problem = rest
    return Image(  # each has the type that _TYPES says
        path=f"{folder.rstrip('/')}/{file}",
        size=size,  # type: ignore[arg-type]
        modified_ns=changed,  # type: ignore[arg-type]
        kind=kind,  # type: ignore[arg-type]
        name=name,  # type: ignore[arg-type]
        tag=tag,  # type: ignore[arg-type]
        digest=digest,  # type: ignore[arg-type]
        architecture=machine,  # type: ignore[arg-type]
        created=created,  # type: ignore[arg-type]
        layers=layers,  # type: ignore[arg-type]
        signatures=signed,  # type: ignore[arg-type]
        cosigned=cosigned,  # type: ignore[arg-type]
        source=source,  # type: ignore[arg-type]
        problem=problem,  # type: ignore[arg-type]
    )
