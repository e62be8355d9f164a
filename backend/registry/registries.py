"""``registries.conf``: mirrors, blocked registries and short names, as Podman reads them.

containers-registries.conf(5), version 2: ``$CONTAINERS_REGISTRIES_CONF``, else
``~/.config/containers/registries.conf``, else ``/etc/containers/registries.conf``; then the
``*.conf`` of the folder ``registries.conf.d`` beside each, in order, later ones on top.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.errors import UsageError
from backend.escape import one_line
from backend.reference import parse_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from backend.reference import Reference

SYSTEM_FILE = Path("/etc/containers/registries.conf")
_MAX_FILE = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an image may be had.

    Attributes:
        reference: The image there.
        insecure: Plain HTTP and untrusted certificates are accepted there.
    """

    reference: Reference
    insecure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """Another registry with the same images.

    Attributes:
        location: ``host[:port][/path]``, which takes the place of the rule's prefix.
        insecure: As for :class:`Place`.
        pulls: What it is asked for: ``all``, ``digest-only`` or ``tag-only``.
    """

    location: str
    insecure: bool = False
    pulls: str = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One ``[[registry]]`` table.

    Attributes:
        prefix: ``host``, ``host/path`` or ``*.domain``; the longest that fits an image counts.
        location: What takes the prefix's place.
        insecure: As for :class:`Place`.
        blocked: Nothing is pulled from there.
        mirrors: Asked first, in order.
    """

    prefix: str
    location: str
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()

    def fits(self, name: str) -> bool:
        """Tell whether the rule is for ``host/repository``."""
        if self.prefix.startswith("*."):
            return name.partition("/")[0].endswith(self.prefix[1:])
        return name == self.prefix or name.startswith((f"{self.prefix}/", f"{self.prefix}:"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Registries:
    """All rules together.

    Attributes:
        rules: Longest prefix first.
        search: Where names without a registry are looked for, in order.
        aliases: Short names and what they stand for.
    """

    rules: tuple[Rule, ...] = ()
    search: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)

    def places(self, reference: Reference) -> tuple[Place, ...]:
        """Return where to ask for an image, mirrors first.

        Raises:
            UsageError: The registry is blocked.
        """
        rule = next((one for one in self.rules if one.fits(reference.name)), None)
        if rule is None:
            return (Place(reference=reference),)
        if rule.blocked:
            raise UsageError(
                f"{reference.name} is blocked on this machine",
                hint=f"ask your administrator about {rule.prefix} in registries.conf",
            )
        kind = "digest-only" if reference.digest else "tag-only"
        mirrors = [one for one in rule.mirrors if one.pulls in {"all", kind}]
        found = [_moved(reference, rule, one.location, one.insecure) for one in mirrors]
        return (*found, _moved(reference, rule, rule.location, rule.insecure))

    def expand(self, name: str) -> tuple[Reference, ...]:
        """Return what a name without a registry, ``tools:1``, may stand for, best first."""
        base, _, digest = name.partition("@")
        stem, colon, tag = base.partition(":")
        tail = f"{colon}{tag}" + (f"@{digest}" if digest else "")
        if stem in self.aliases:
            return (parse_name(f"{self.aliases[stem]}{tail}"),)
        return tuple(parse_name(f"{registry}/{name}") for registry in self.search)


def load_registries() -> Registries:
    """Return the rules of this machine and user; none when there is no file.

    Raises:
        UsageError: A file is not what it should be.
    """
    rules: dict[str, Rule] = {}
    search: tuple[str, ...] = ()
    aliases: dict[str, str] = {}
    for path in _files():
        document = _read(path)
        search = tuple(_strings(document.get("unqualified-search-registries"))) or search
        aliases |= {str(key): str(value) for key, value in _table(document, "aliases").items()}
        for table in _tables(document, "registry"):
            rule = _rule(table)
            rules[rule.prefix] = rule
    ordered = sorted(rules.values(), key=lambda rule: -len(rule.prefix))
    return Registries(rules=tuple(ordered), search=search, aliases=aliases)


def _files() -> Iterator[Path]:
    named = os.environ.get("CONTAINERS_REGISTRIES_CONF")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    own = config / "containers/registries.conf"
    main = Path(named) if named else own if own.is_file() else SYSTEM_FILE
    if main.is_file():
        yield main
    if named:
        return
    for place in (SYSTEM_FILE, own):
        yield from sorted(place.with_name("registries.conf.d").glob("*.conf"))


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.loads(file.read(_MAX_FILE).decode())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path} cannot be read: {one_line(str(error), limit=200)}",
            hint="see containers-registries.conf(5)",
        ) from error


def _rule(table: dict[str, Any]) -> Rule:
    location = str(table.get("location") or "")
    prefix = str(table.get("prefix") or location)
    mirrors = tuple(
        Mirror(
            location=str(mirror.get("location") or ""),
            insecure=mirror.get("insecure") is True,
            pulls=str(mirror.get("pull-from-mirror") or _default_pulls(table)),
        )
        for mirror in _tables(table, "mirror")
    )
    return Rule(
        prefix=prefix,
        location=location or prefix,
        insecure=table.get("insecure") is True,
        blocked=table.get("blocked") is True,
        mirrors=mirrors,
    )


def _default_pulls(table: dict[str, Any]) -> str:
    return "digest-only" if table.get("mirror-by-digest-only") is True else "all"


def _moved(reference: Reference, rule: Rule, location: str, insecure: bool) -> Place:
    """Return the same image below another location."""
    if rule.prefix.startswith("*."):
        rest = reference.repository
        host, _, path = (location if location != rule.prefix else reference.registry).partition("/")
    else:
        rest = reference.name.removeprefix(rule.prefix).lstrip("/")
        host, _, path = location.partition("/")
    repository = "/".join(part for part in (path, rest) if part)
    return Place(
        reference=replace(reference, registry=host, repository=repository), insecure=insecure
    )


def _table(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _tables(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = document.get(key)
    found = value if isinstance(value, list) else []
    return [one for one in found if isinstance(one, dict)]


def _strings(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []
