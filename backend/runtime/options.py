"""What a user may ask of ``run``, ``exec`` and ``shell``, parsed and checked."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

from backend.errors import UsageError
from backend.escape import one_line

Action = Literal["run", "exec", "shell"]

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BIND_OPTIONS = frozenset({"ro", "rw"})
_MAX_ENV_FILE = 1 << 20
"""Bytes of one --env-file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A host file or folder shown in the container.

    Attributes:
        source: Absolute path on the host.
        target: Absolute path in the container.
        read_only: Whether the container may only read it.
    """

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How to start a container.

    Attributes:
        action: ``run`` takes the image's entrypoint, ``exec`` the arguments only.
        arguments: After the image on the command line.
        runtime: ``crun``, ``runc`` or a path; empty to choose.
        binds: Later ones cover earlier ones.
        environment: Set in the container over the image's, in order.
        clean_environment: Take nothing of the host's environment but the terminal's type.
        working_dir: Absolute path in the container; empty for the image's.
        user: ``UID|name[:GID|group]``; empty for the image's ``USER``.
        fakeroot: Be root in the container.
        hostname: Empty for the host's.
    """

    action: Action
    arguments: tuple[str, ...] = ()
    runtime: str = ""
    binds: tuple[Bind, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    clean_environment: bool = False
    working_dir: str = ""
    user: str = ""
    fakeroot: bool = False
    hostname: str = ""


def parse_binds(texts: tuple[str, ...]) -> tuple[Bind, ...]:
    """Parse ``SRC[:DST[:ro|rw]]`` entries, each possibly several separated by commas.

    A backslash before a colon or comma takes it literally.

    Raises:
        UsageError: An entry has another form, or its source does not exist.
    """
    return tuple(_parse_bind(entry) for text in texts for entry in _split(text, ",") if entry)


def _parse_bind(text: str) -> Bind:
    fields = [_unescape(field) for field in _split(text, ":")]
    options = set(fields[2].split(",")) if len(fields) > 2 else set()
    if len(fields) > 3 or not fields[0] or not options <= _BIND_OPTIONS:
        raise UsageError(
            f"not a bind: {one_line(text, limit=120)!r}", hint="write it as SRC[:DST[:ro]]"
        )
    source = os.path.abspath(os.path.expanduser(fields[0]))
    target = fields[1] if len(fields) > 1 and fields[1] else source
    return check_bind(source, target, read_only="ro" in options)


def check_bind(source: str, target: str, *, read_only: bool) -> Bind:
    """Return the bind, if its source is there and its target absolute.

    Raises:
        UsageError: It is not.
    """
    if not target.startswith("/"):
        raise UsageError(f"a bind's place in the container is absolute, not {one_line(target)!r}")
    if not os.path.exists(source):
        raise UsageError(f"cannot bind {one_line(source)!r}: it does not exist on this host")
    return Bind(source=source, target=os.path.normpath(target), read_only=read_only)


def _split(text: str, separator: str) -> list[str]:
    """Split at separators that no backslash precedes; backslashes stay."""
    return re.split(rf"(?<!\\){separator}", text)


def _unescape(text: str) -> str:
    return re.sub(r"\\([:,\\])", r"\1", text)


def parse_environment(texts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Parse ``NAME=value`` entries; a lone ``NAME`` takes the host's value, as Docker does.

    Raises:
        UsageError: A name is none.
    """
    found = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not _VARIABLE.fullmatch(name):
            raise UsageError(
                f"not a variable: {one_line(name, limit=60)!r}", hint="write it as --env NAME=value"
            )
        if equals or name in os.environ:
            found.append((name, value if equals else os.environ[name]))
    return tuple(found)


def read_env_file(path: str) -> tuple[tuple[str, str], ...]:
    """Read ``NAME=value`` lines; blank lines and ``#`` comments are passed over.

    Raises:
        UsageError: It cannot be read, or a line has another form.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_ENV_FILE + 1)
    except OSError as error:
        raise UsageError(
            f"cannot read the env file {one_line(path)!r}: {error.strerror}"
        ) from error
    if len(data) > _MAX_ENV_FILE:
        raise UsageError(f"the env file {one_line(path)!r} is larger than 1 MiB")
    lines = (line.strip() for line in data.decode("utf-8", "surrogateescape").splitlines())
    wanted = [line.removeprefix("export ") for line in lines if line and not line.startswith("#")]
    return tuple((name, _unquote(value)) for name, value in parse_environment(tuple(wanted)))


def _unquote(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value


def check_absolute(path: str, option: str) -> str:
    """Return ``path`` if it is absolute or empty.

    Raises:
        UsageError: It is neither.
    """
    if path and not path.startswith("/"):
        raise UsageError(
            f"{option} takes an absolute path of the container, not {one_line(path)!r}"
        )
    return path


def check_user(spec: str) -> str:
    """Return ``spec`` if it has the form ``USER[:GROUP]`` or is empty.

    Raises:
        UsageError: It has another form.
    """
    user, colon, group = spec.partition(":")
    if (not user and spec) or (colon and not group) or ":" in group or "\n" in spec:
        raise UsageError(
            f"not a user: {one_line(spec, limit=60)!r}", hint="write --user UID|NAME[:GID|GROUP]"
        )
    return spec
