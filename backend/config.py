"""``config.toml``: what a site, and above it a user, sets once and for all.

Every setting has a type, a range and a sentence (:data:`SETTINGS`); ``sifdeck config --schema``
prints them as a JSON schema for editors.  A key that nobody knows is an error that names the
nearest one: a setting that is silently ignored is worse than none.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from backend.errors import UsageError
from backend.escape import one_line, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A question that a custom command asks.

    Attributes:
        name: Stands in braces in the command's ``argv``.
        label: What is asked.
        value: The answer at first.
        choices: The possible answers; none means any text.
    """

    name: str
    label: str
    value: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomCommand:
    """A command of the user's own, in the palette of a view.

    Attributes:
        name: What the palette calls it.
        argv: Program and arguments; ``{image}``, ``{reference}``, ``{job}`` and the names of
            inputs are filled in within a word.  No shell ever sees them.
        view: ``images``, ``registries``, ``jobs`` ...; empty for all.
        inputs: What is asked first.
        confirm: Whether to ask before it runs.
        changes: Whether it changes anything: not offered in ``--readonly``.
    """

    name: str
    argv: tuple[str, ...]
    view: str = ""
    inputs: tuple[Input, ...] = ()
    confirm: bool = False
    changes: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings; the attributes are described in :data:`SETTINGS`."""

    theme: str = "auto"
    glyphs: str = "unicode"
    mouse: bool = True
    readonly: bool = False
    progress_hz: int = 5
    folders: tuple[str, ...] = ()
    registries: tuple[str, ...] = ()
    terminal: str = "window"
    labs: str = ""
    cache_limit: int | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    profiles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    commands: tuple[CustomCommand, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What one setting may be.

    Attributes:
        schema: A JSON schema, of which we check ``type``, ``enum``, ``minimum``, ``maximum``,
            ``items`` and ``properties``.
        help: One sentence.
    """

    schema: Mapping[str, Any]
    help: str


_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_COUNT = {"type": "integer", "minimum": 1, "maximum": 64}
_INPUT = {
    "type": "object",
    "properties": {"name": _TEXT, "label": _TEXT, "value": _TEXT, "choices": _TEXTS},
    "required": ["name", "label"],
}
_COMMAND = {
    "type": "object",
    "properties": {
        "name": _TEXT,
        "argv": {**_TEXTS, "minItems": 1},
        "view": _TEXT,
        "inputs": {"type": "array", "items": _INPUT},
        "confirm": {"type": "boolean"},
        "changes": {"type": "boolean"},
    },
    "required": ["name", "argv"],
}

SETTINGS: Mapping[str, Setting] = {
    "theme": Setting(
        schema=_TEXT, help="Name of a theme; auto takes the one that fits the terminal."
    ),
    "glyphs": Setting(
        schema={"type": "string", "enum": ["ascii", "unicode"]},
        help="What frames are drawn with: box-drawing characters, or plain ASCII.",
    ),
    "mouse": Setting(schema={"type": "boolean"}, help="Whether the deck takes the mouse."),
    "readonly": Setting(
        schema={"type": "boolean"},
        help="Change nothing; a site's yes cannot be undone by a user.",
    ),
    "progress_hz": Setting(
        schema={"type": "integer", "minimum": 1, "maximum": 30},
        help="How often a second progress is drawn; slow connections want 2.",
    ),
    "folders": Setting(schema=_TEXTS, help="Folders with images, besides the current one."),
    "registries": Setting(schema=_TEXTS, help="Registries and repositories to browse."),
    "terminal": Setting(
        schema={"type": "string", "enum": ["window", "here"]},
        help="Where containers are opened inside tmux: in a new window, or in place of the deck.",
    ),
    "labs": Setting(schema=_TEXT, help="Folder with a teacher's own labs, offered before ours."),
    "cache_limit": Setting(
        schema=_TEXT,
        help="Size that a pull leaves the cache at, as 20G: what was not used for longest goes.",
    ),
    "limits": Setting(
        schema={
            "type": "object",
            "properties": dict.fromkeys(("network", "build", "local"), _COUNT),
        },
        help="Jobs that run at once on a host: network (pulls; 2), build (2), local (converts; 1).",
    ),
    "keys": Setting(
        schema={"type": "object", "additionalProperties": _TEXT},
        help="Id of an action (sifdeck keys lists them) to its keys, with commas between.",
    ),
    "columns": Setting(
        schema={
            "type": "object",
            "properties": dict.fromkeys(("images", "registries", "jobs", "running"), _TEXTS),
        },
        help="Columns of a view's list, in order, as the sort dialog calls them.",
    ),
    "profiles": Setting(
        schema={"type": "object", "additionalProperties": _TEXTS},
        help="Flags of run under a name, as gpu = ['--nv', '--bind', '/data']: run --profile gpu.",
    ),
    "commands": Setting(
        schema={"type": "array", "items": _COMMAND},
        help="Commands of your own for the palette, as argument lists.",
    ),
}


def schema() -> dict[str, object]:
    """Return the JSON schema of ``config.toml``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sifdeck config.toml",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: {**setting.schema, "description": setting.help}
            for name, setting in SETTINGS.items()
        },
    }


def load_config(user: Path, site: Path) -> Config:
    """Read the site's file and above it the user's; either may be missing.

    Raises:
        UsageError: A file is no TOML, has a key that nobody knows, or a value of a wrong kind.
    """
    theirs, ours = _read(site), _read(user)
    values = {**theirs, **ours}
    for name in ("folders", "registries", "commands"):
        values[name] = (*theirs.get(name, ()), *ours.get(name, ()))
    for name in ("limits", "keys", "profiles", "columns"):
        values[name] = {**theirs.get(name, {}), **ours.get(name, {})}
    config = Config(**values)
    return replace(config, readonly=True) if theirs.get("readonly") else config


def _read(path: Path) -> dict[str, Any]:
    """Return a file's settings as arguments of :class:`Config`."""
    shown = one_line(str(path))
    try:
        with path.open("rb") as file:
            document = tomllib.loads(file.read(_MAX_BYTES).decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"cannot read {shown}", why=str(error.strerror)) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{shown} is no TOML", why=one_line(str(error))) from error
    for name, value in document.items():
        if name not in SETTINGS:
            raise UsageError(f"{shown}: nobody knows {quoted(name)}{nearest(name, SETTINGS)}")
        _check(value, SETTINGS[name].schema, f"{shown}: {name}")
    return {name: _converted(name, value, f"{shown}: {name}") for name, value in document.items()}


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the words that suggest the name that may have been meant; "" when none is near."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {quoted(found[0])}?" if found else ""


_KINDS: dict[str, type] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "array": list,
    "object": dict,
}


def _check(value: object, rule: Mapping[str, Any], place: str) -> None:
    """Raise the UsageError that says where and how a value breaks its schema."""
    kind = rule["type"]
    if type(value) is not _KINDS[kind]:
        raise UsageError(f"{place} takes {_a(kind)}, not {one_line(repr(value), limit=60)}")
    choices = rule.get("enum")
    if choices and value not in choices:
        raise UsageError(f"{place} is {quoted(str(value))}; it takes {' or '.join(choices)}")
    if isinstance(value, int) and not (
        rule.get("minimum", value) <= value <= rule.get("maximum", value)
    ):
        raise UsageError(f"{place} takes {rule['minimum']} to {rule['maximum']}, not {value}")
    if isinstance(value, list):
        if len(value) < rule.get("minItems", 0):
            raise UsageError(f"{place} is empty")
        for number, item in enumerate(value):
            _check(item, rule["items"], f"{place}[{number}]")
    if isinstance(value, dict):
        _check_members(value, rule, place)


def _check_members(value: dict[str, object], rule: Mapping[str, Any], place: str) -> None:
    known = rule.get("properties", {})
    for name, item in value.items():
        member = known.get(name, rule.get("additionalProperties"))
        if member is None:
            raise UsageError(f"{place}: nobody knows {quoted(name)}{nearest(name, known)}")
        _check(item, member, f"{place}.{name}")
    for name in rule.get("required", ()):
        if name not in value:
            raise UsageError(f"{place} lacks {quoted(name)}")


def _a(kind: str) -> str:
    words = {"boolean": "true or false", "integer": "a whole number", "string": "a text"}
    return words.get(kind, "a list" if kind == "array" else "a table")


def _converted(name: str, value: Any, place: str) -> Any:  # noqa: ANN401  (checked)
    if name == "cache_limit":
        return _size(value, place)
    if name == "commands":
        return tuple(_command(table) for table in value)
    if name in {"profiles", "columns"}:
        return {key: tuple(words) for key, words in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _size(text: str, place: str) -> int:
    from backend.cache import parse_size  # not before somebody needs it: the deck starts quickly

    try:
        return parse_size(text)
    except UsageError as error:
        raise UsageError(f"{place}: {error.message}", hint=error.hint) from error


def _command(table: dict[str, Any]) -> CustomCommand:
    inputs = tuple(
        Input(**{**one, "choices": tuple(one.get("choices", ()))})
        for one in table.get("inputs", ())
    )
    return CustomCommand(**{**table, "argv": tuple(table["argv"]), "inputs": inputs})
