"""Checks of a lab: each looks at a real result, none takes a learner's word.

A check is a table of TOML; its first word says what it looks at:

``file = "NAME"``
    A file in the lab's folder.  It must be there and not be empty; with ``contains = "TEXT"``
    it must hold the text; with ``like = "sifdeck ..."`` what that command prints now; with
    ``absent = true`` it must not be there.
``sif = "NAME"``
    A SIF file.  ``format`` is ``"oci-sif"`` or ``"native"``; ``objects`` how many descriptors it
    has; ``has`` and ``lacks`` list types as ``sif list`` shows them (``"OCI.RootIndex"``); of an
    OCI-SIF ``layers``, ``user``, ``entrypoint`` and ``labels`` (a table) can be compared.
``same = ["NAME", "NAME"]``
    Files with the same bytes; with ``differ = true``, files whose bytes differ.
``digest = "NAME"``
    The SHA-256 of a file, which must stand in the text of the file ``in``.
``login = "HOST"``
    A login that is stored for a registry; with ``absent = true``, none.
``did = "run hello"``
    A command that was typed in the lab: these words in this order among its arguments, each as
    a part of one.  ``exit`` is its exit status, 0 unless told.
``run = "sifdeck ..."``
    A command that is run now.  ``exit`` is its exit status, 0 unless told, and ``output`` a
    text in what it prints.

``say = "SENTENCE"`` stands for the sentence that is shown while the check fails.
"""

from __future__ import annotations

import filecmp
import hashlib
import os
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from backend.errors import BackendError, FormatError, NotFoundError
from backend.escape import one_line, printable, quoted
from backend.program import OURSELVES
from backend.registry.credentials import lookup_keys, read_auth_file
from backend.sif.file import SifFile
from backend.sif.ocisif import read_ocisif
from backend.sif.records import DataType
from backend.sif.text import type_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")

_MAX_TEXT = 4 << 20
"""Bytes of a file or an output that are looked at."""
_RUN_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """A command that a learner typed in the lab.

    Attributes:
        argv: Arguments of ``sifdeck``, passwords taken out.
        status: Its exit status.
    """

    argv: tuple[str, ...]
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What checks look at.

    Attributes:
        folder: Where the learner works.
        environment: For commands that checks run.
        typed: Commands of the learner, oldest first.
    """

    folder: Path
    environment: Mapping[str, str]
    typed: Sequence[Typed] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check found.

    Attributes:
        passed: Whether all is as it should be.
        text: A sentence: what is there, or what is missing.
    """

    passed: bool
    text: str


class Check(Protocol):
    """Looks at one thing."""

    def look(self, scene: Scene) -> Finding:
        """Return what is there."""


def parse_check(place: str, table: dict[str, Any]) -> Check:
    """Return the check that a table describes.

    Args:
        place: Where it stands, for errors.
        table: TOML.

    Raises:
        FormatError: It describes none.
    """
    words = _Words(place, dict(table))
    kind = next((name for name in _KINDS if name in table), None)
    if kind is None:
        raise FormatError(f"{place}: a check has none of the words {', '.join(_KINDS)}")
    say = words.take("say", str, "")
    check = _KINDS[kind](words)
    words.end()
    return _Said(check=check, say=say) if say else check


class _Words:
    """The words of a check, taken one by one; what is left over is an error."""

    def __init__(self, place: str, table: dict[str, Any]) -> None:
        self.place = place
        self._table = table

    def take(self, name: str, kind: type[T], default: T) -> T:
        """Return a value of the wanted type."""
        value = self._table.pop(name, default)
        # To Python true is a number, to a lab's author it is not.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise FormatError(f"{self.place}: {name} is not what it should be")
        return value

    def has(self, name: str) -> bool:
        """Tell whether a word is there."""
        return name in self._table

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        values = self.take(name, list, [])
        if not all(isinstance(value, str) for value in values):
            raise FormatError(f"{self.place}: {name} is not a list of texts")
        return tuple(values)

    def number(self, name: str) -> int | None:
        """Return a number; None when it is not there."""
        return self.take(name, int, 0) if self.has(name) else None

    def switch(self, name: str) -> bool:
        """Return whether something is switched on."""
        return self.take(name, bool, default=False)

    def path(self, name: str) -> str:
        """Return a path inside the lab's folder."""
        return self.inside(self.take(name, str, ""))

    def inside(self, text: str) -> str:
        """Return a path that does not leave the lab's folder."""
        path = PurePosixPath(text)
        if not text or path.is_absolute() or ".." in path.parts:
            raise FormatError(f"{self.place}: {quoted(text)} is not in the lab's folder")
        return text

    def command(self, name: str) -> tuple[str, ...]:
        """Return the arguments of ``sifdeck`` in a command line."""
        try:
            words = shlex.split(self.take(name, str, ""))
        except ValueError as error:
            raise FormatError(f"{self.place}: {name}: {error}") from error
        if words[:1] != ["sifdeck"]:
            raise FormatError(f"{self.place}: {name} does not begin with sifdeck")
        return tuple(words[1:])

    def end(self) -> None:
        """Raise the error about words that nobody took."""
        if self._table:
            word = one_line(min(self._table))
            raise FormatError(f"{self.place}: a check has the unknown word {word}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """A check whose author says what is shown while it fails."""

    check: Check
    say: str

    def look(self, scene: Scene) -> Finding:
        found = self.check.look(scene)
        return found if found.passed else Finding(passed=False, text=self.say)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCheck:
    """``file``."""

    name: str
    contains: str
    like: tuple[str, ...]
    absent: bool

    def look(self, scene: Scene) -> Finding:
        """Return whether the file is there and holds what it should."""
        path = scene.folder / self.name
        if self.absent:
            gone = not os.path.lexists(path)
            text = "is gone" if gone else "is still there"
            return Finding(passed=gone, text=f"{self.name} {text}")
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_TEXT)
        except OSError:
            return Finding(passed=False, text=f"{self.name} is not there")
        text = data.decode("utf-8", "replace")
        if not text.strip():
            return Finding(passed=False, text=f"{self.name} is empty")
        if self.contains not in text:
            return Finding(passed=False, text=f"{self.name} does not hold {quoted(self.contains)}")
        if self.like and text.split() != _run(self.like, scene).stdout.split():
            line = shlex.join(("sifdeck", *self.like))
            return Finding(passed=False, text=f"{self.name} is not what `{line}` prints")
        return Finding(passed=True, text=f"{self.name} is there")


@dataclass(frozen=True, slots=True, kw_only=True)
class SifCheck:
    """``sif``."""

    name: str
    format: str
    objects: int | None
    has: tuple[str, ...]
    lacks: tuple[str, ...]
    image: Mapping[str, object] = field(default_factory=dict)

    def look(self, scene: Scene) -> Finding:
        """Return whether the file has the descriptors and the configuration that it should."""
        path = scene.folder / self.name
        try:
            wrong = self._wrong_objects(path) or self._wrong_image(path)
        except (OSError, NotFoundError):
            wrong = "is not there"
        except BackendError as error:
            wrong = f"is not readable: {error.message}"
        return Finding(passed=not wrong, text=f"{self.name} {wrong or 'is as it should be'}")

    def _wrong_objects(self, path: Path) -> str:
        with SifFile(path) as sif:
            found = [type_text(one) for one in sif.descriptors]
            is_oci = bool(sif.of_kind(DataType.OCI_ROOT_INDEX))
        if self.format and is_oci != (self.format == "oci-sif"):
            return "is an OCI-SIF" if is_oci else "is a native SIF"
        if self.objects is not None and len(found) != self.objects:
            return f"has {len(found)} objects, not {self.objects}"
        for wanted in self.has:
            if not any(text.startswith(wanted) for text in found):
                return f"has no object of type {wanted}"
        for unwanted in self.lacks:
            if any(text.startswith(unwanted) for text in found):
                return f"has an object of type {unwanted}"
        return ""

    def _wrong_image(self, path: Path) -> str:
        if not self.image:
            return ""
        image = read_ocisif(path)
        facts: dict[str, object] = {
            "layers": len(image.layers),
            "user": image.config.user,
            "entrypoint": list(image.config.entrypoint),
        }
        labels = image.config.labels
        for word, wanted in self.image.items():
            if word == "labels" and isinstance(wanted, dict):
                for key, value in wanted.items():
                    if labels.get(key) != value:
                        return f"has not the label {key}={value}"
            elif facts.get(word) != wanted:
                return f"has {word} {facts.get(word)!r}, not {wanted!r}"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SameCheck:
    """``same``."""

    names: tuple[str, ...]
    differ: bool

    def look(self, scene: Scene) -> Finding:
        """Return whether the files have the same bytes."""
        first, *others = (scene.folder / name for name in self.names)
        try:
            equal = [filecmp.cmp(first, other, shallow=False) for other in others]
        except OSError as error:
            name = Path(error.filename).name if error.filename else self.names[0]
            return Finding(passed=False, text=f"{name} is not there")
        passed = not any(equal) if self.differ else all(equal)
        word = "have the same bytes" if all(equal) else "differ"
        return Finding(passed=passed, text=f"{' and '.join(self.names)} {word}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestCheck:
    """``digest``."""

    name: str
    place: str

    def look(self, scene: Scene) -> Finding:
        """Return whether the file's digest stands in the other file."""
        try:
            with (scene.folder / self.name).open("rb") as file:
                value = hashlib.file_digest(file, "sha256").hexdigest()
            with (scene.folder / self.place).open("rb") as file:
                found = value.encode() in file.read(_MAX_TEXT)
        except OSError as error:
            return Finding(passed=False, text=f"{Path(error.filename).name} is not there")
        word = "stands" if found else "does not stand"
        return Finding(passed=found, text=f"the digest of {self.name} {word} in {self.place}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginCheck:
    """``login``."""

    host: str
    absent: bool

    def look(self, scene: Scene) -> Finding:
        """Return whether a login is stored for the registry."""
        path = Path(scene.environment.get("SINGULARITY_CONFIGDIR", "")) / "docker-config.json"
        try:
            root = read_auth_file(path)
            document = root.object() if root else {}
        except (BackendError, OSError):
            document = {}
        keys = lookup_keys(self.host)
        stored = any(
            key in (document.get(place) or {}) for place in ("auths", "credHelpers") for key in keys
        )
        word = "is" if stored else "is not"
        return Finding(passed=stored != self.absent, text=f"a login for {self.host} {word} stored")


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedCheck:
    """``did``."""

    words: tuple[str, ...]
    status: int

    def look(self, scene: Scene) -> Finding:
        """Return whether the learner has typed such a command, with such an end."""
        ends = [typed.status for typed in scene.typed if self._fits(typed.argv)]
        line = f"sifdeck {' '.join(self.words)}"
        if self.status in ends:
            return Finding(passed=True, text=f"`{line}` was done")
        if ends:
            text = f"`{line}` ended with {ends[-1]}, not {self.status}"
            return Finding(passed=False, text=text)
        return Finding(passed=False, text=f"`{line}` has not been typed")

    def _fits(self, argv: Sequence[str]) -> bool:
        rest = iter(argv)
        return all(any(word in argument for argument in rest) for word in self.words)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCheck:
    """``run``."""

    argv: tuple[str, ...]
    status: int
    output: str

    def look(self, scene: Scene) -> Finding:
        """Run the command; return whether it ends and prints as it should."""
        line = shlex.join(("sifdeck", *self.argv))
        done = _run(self.argv, scene)
        if done.returncode != self.status:
            last = (done.stderr.strip().splitlines() or [""])[0]
            text = f"`{line}` ends with {done.returncode}, not {self.status}"
            return Finding(passed=False, text=f"{text}: {one_line(last)}" if last else text)
        if self.output not in done.stdout:
            return Finding(passed=False, text=f"`{line}` does not print {quoted(self.output)}")
        return Finding(passed=True, text=f"`{line}` does what it should")


def _run(argv: Sequence[str], scene: Scene) -> subprocess.CompletedProcess[str]:
    """Run ``sifdeck`` in the lab's folder."""
    try:
        done = subprocess.run(
            [*OURSELVES, *argv],
            check=False,
            cwd=scene.folder,
            env=dict(scene.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_RUN_S,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 124, "", f"took longer than {_RUN_S:g} s")
    texts = (data[:_MAX_TEXT].decode("utf-8", "replace") for data in (done.stdout, done.stderr))
    stdout, stderr = (printable(text, limit=_MAX_TEXT) for text in texts)
    return subprocess.CompletedProcess(argv, done.returncode, stdout, stderr)


def _file(words: _Words) -> Check:
    return FileCheck(
        name=words.path("file"),
        contains=words.take("contains", str, ""),
        like=words.command("like") if words.has("like") else (),
        absent=words.switch("absent"),
    )


def _sif(words: _Words) -> Check:
    name, kind = words.path("sif"), words.take("format", str, "")
    if kind not in {"", "oci-sif", "native"}:
        raise FormatError(f"{words.place}: format is neither oci-sif nor native")
    image: dict[str, object] = {}
    for word, form in (("layers", int), ("user", str), ("entrypoint", list), ("labels", dict)):
        if words.has(word):
            image[word] = words.take(word, form, form())
    return SifCheck(
        name=name,
        format=kind,
        objects=words.number("objects"),
        has=words.texts("has"),
        lacks=words.texts("lacks"),
        image=image,
    )


def _same(words: _Words) -> Check:
    names = words.texts("same")
    if len(names) < 2:
        raise FormatError(f"{words.place}: same takes two files or more")
    checked = tuple(words.inside(name) for name in names)
    return SameCheck(names=checked, differ=words.switch("differ"))


def _digest(words: _Words) -> Check:
    return DigestCheck(name=words.path("digest"), place=words.path("in"))


def _login(words: _Words) -> Check:
    host = words.take("login", str, "")
    return LoginCheck(host=host, absent=words.switch("absent"))


def _typed(words: _Words) -> Check:
    text = words.take("did", str, "").split()
    if not text:
        raise FormatError(f"{words.place}: did names no command")
    return TypedCheck(words=tuple(text), status=words.take("exit", int, 0))


def _command(words: _Words) -> Check:
    return RunCheck(
        argv=words.command("run"),
        status=words.take("exit", int, 0),
        output=words.take("output", str, ""),
    )


_KINDS: dict[str, Callable[[_Words], Check]] = {
    "file": _file,
    "sif": _sif,
    "same": _same,
    "digest": _digest,
    "login": _login,
    "did": _typed,
    "run": _command,
}
