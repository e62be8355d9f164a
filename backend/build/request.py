"""What to build, independent of who builds it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from backend.errors import UsageError
from backend.escape import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from backend.events import Report
    from backend.oci.platform import Platform
    from backend.reference import Reference

_REMOTE = re.compile(r"(?:https?|git|ssh)://|git@")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What to build.

    Attributes:
        dockerfile: A file; empty for a remote context, whose own is used.
        context: A folder, or a git or tar address that the builder fetches.
        build_args: Values of ``ARG``, by name.
        labels: Labels of the image, by name.
        target: The stage to stop at; empty means the last.
        platform: What to build for; None means this machine.
        secrets: ``id=NAME[,src=FILE|env=VARIABLE]``, as ``docker build`` takes them.
        ssh: ``default`` or ``ID=SOCKET|KEY``, as ``docker build`` takes them.
        no_cache: Build every step anew.
        pull: Ask the registry for base images that are here already.
        network: Of ``RUN``: ``host``, ``none`` or ``default``; empty leaves it to us.
        plain_http: Talk HTTP to registries, where the builder lets us say so.
        source_date_epoch: The time to write into the image, seconds since 1970; None for now.
        compressed: Pack the layers, for a registry; we would only unpack them again.
        auth_folder: Holds ``config.json`` with logins for this build; None when there are none.
    """

    dockerfile: Path | None
    context: str
    build_args: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    target: str = ""
    platform: Platform | None = None
    secrets: tuple[str, ...] = ()
    ssh: tuple[str, ...] = ()
    no_cache: bool = False
    pull: bool = False
    network: str = ""
    plain_http: bool = False
    source_date_epoch: int | None = None
    compressed: bool = False
    auth_folder: Path | None = None

    @property
    def is_remote(self) -> bool:
        """Whether the builder has to fetch the context."""
        return is_remote(self.context)


class Builder(Protocol):
    """A program or daemon that builds images."""

    @property
    def name(self) -> str:
        """What ``--builder`` calls it."""

    def lacks(self, request: BuildRequest) -> str:
        """Return what it cannot do of the request, as a sentence; empty when it can do all."""

    def build(self, request: BuildRequest, folder: Path, report: Report) -> Reference:
        """Build the image and return where it is: in ``folder``, an empty folder of ours.

        Whatever ends this call early ends the build, and leaves no process, container or
        mount behind.

        Raises:
            BuildError: An instruction failed.
            ToolError: The builder itself failed.
        """


def is_remote(context: str) -> bool:
    """Tell whether a context is an address rather than a folder."""
    return _REMOTE.match(context) is not None


def parse_assignments(texts: tuple[str, ...], what: str) -> dict[str, str]:
    """Return ``NAME=VALUE`` texts as a mapping; the last of a name wins.

    Args:
        texts: As typed.
        what: The option, for the error.

    Raises:
        UsageError: One has no ``=``, or no name.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{what} {quoted(text)} is not NAME=VALUE")
        found[name.strip()] = value
    return found


def assignments(values: Mapping[str, str]) -> list[str]:
    """Return a mapping as ``NAME=VALUE`` texts, sorted."""
    return [f"{name}={value}" for name, value in sorted(values.items())]


def each(option: str, values: Iterable[str]) -> list[str]:
    """Return an option once before each value, as words of a command line."""
    return [word for value in values for word in (option, value)]


def flag(option: str, value: object) -> list[str]:
    """Return an option and its value; nothing when the value is None or empty."""
    return [] if value is None or value == "" else [option, str(value)]


def read_assignments(path: Path) -> dict[str, str]:
    """Return the ``NAME=VALUE`` lines of a file; blank lines and ``#`` comments are skipped.

    Raises:
        UsageError: The file cannot be read, or a line says something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read", why=str(error)) from error
    texts = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return parse_assignments(tuple(texts), f"{path}: line")
