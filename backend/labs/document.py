"""A lab as its author writes it: one Markdown file.

::

    +++
    title = "Images as files"
    summary = "One sentence for the list."
    minutes = 20
    +++
    What this lab is about.

    ## Pull an image

    Text, as long as it has to be.

    ```step
    id = "pull"
    needs = ["builder"]
    ```
    ```sifdeck
    sifdeck pull docker://{{registry}}/lab/hello:1.0
    ```
    ```singularity
    singularity pull --oci docker://{{registry}}/lab/hello:1.0
    ```
    ```check
    file = "hello_1.0.oci.sif"
    ```
    ```hint
    Look at ...
    ```

The part between the ``+++`` lines, ``step`` and ``check`` blocks are TOML; ``check`` may stand
several times, its words are those of :mod:`backend.labs.checks`.  ``step`` gives the step a
name that stays when its title changes, and names what it cannot be done without.
``{{registry}}``, ``{{user}}``, ``{{password}}`` and ``{{project}}`` are filled in.  Everything
else is text, other code blocks too.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from backend.errors import FormatError
from backend.escape import one_line, quoted
from backend.labs.checks import Check, parse_check

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MAX_SIZE = 1 << 20
"""Bytes of a lab's file."""

NEEDS = ("builder",)
"""What a step may need that not every machine has: a program that builds Dockerfiles."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_FENCE = re.compile(r"^(`{3,}|~{3,})[ \t]*([A-Za-z]*)[ \t]*$")
_BLOCKS = ("step", "sifdeck", "singularity", "check", "hint")
_PLACE = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step.

    Attributes:
        id: Names it in progress files.
        title: The heading.
        text: Markdown.
        commands: What to type, one shell line or script each.
        singularity: The same for SingularityCE; None where the author gives none.
        checks: All must pass; a step without any is read, not done.
        hints: Markdown, from gentle to plain.
        needs: Some of :data:`NEEDS`.
    """

    id: str
    title: str
    text: str
    commands: tuple[str, ...] = ()
    singularity: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    hints: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """A lab.

    Attributes:
        name: The file's name without ``.md``.
        title: For people.
        summary: One sentence; may be empty.
        minutes: How long it takes; 0 when the author does not say.
        introduction: Markdown before the first step.
        steps: In order.
    """

    name: str
    title: str
    summary: str = ""
    minutes: int = 0
    introduction: str = ""
    steps: tuple[Step, ...] = field(default=())

    def step(self, name: str) -> Step | None:
        """Return the step with an id."""
        return next((step for step in self.steps if step.id == name), None)


def parse_lab(name: str, data: bytes, values: Mapping[str, str]) -> Lab:
    """Read a lab's file.

    Args:
        name: Of the lab.
        data: The file.
        values: Fill in what stands in double braces.

    Raises:
        FormatError: It is no lab; the text names the line or the step.
    """
    if not _NAME.fullmatch(name):
        raise FormatError(f"a lab cannot be called {quoted(name)}: a-z, 0-9 and - only")
    if len(data) > MAX_SIZE:
        raise FormatError(f"lab {name} is larger than 1 MiB")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"lab {name} is not UTF-8", offset=error.start) from error
    text = _PLACE.sub(lambda found: values.get(found[1], found[0]), text.replace("\r\n", "\n"))
    head, body, line = _front(name, text)
    parts = list(_sections(body.split("\n"), line))
    steps = [_step(f"lab {name}", title, lines, at) for title, lines, at in parts[1:]]
    ids = [step.id for step in steps]
    twice = next((one for one in ids if ids.count(one) > 1), None)
    if twice:
        raise FormatError(f"lab {name} has two steps called {quoted(twice)}")
    if not steps:
        raise FormatError(f"lab {name} has no step", hint="a step begins with '## Title'")
    return Lab(
        name=name,
        title=_word(head, "title") or name,
        summary=_word(head, "summary"),
        minutes=head["minutes"] if isinstance(head.get("minutes"), int) else 0,
        introduction="\n".join(parts[0][1]).strip(),
        steps=tuple(steps),
    )


def _front(name: str, text: str) -> tuple[dict[str, Any], str, int]:
    """Return the table at the top, the rest, and the number of the rest's first line."""
    found = re.match(r"\+\+\+\n(.*?)^\+\+\+\n", text, re.DOTALL | re.MULTILINE)
    if not found:
        raise FormatError(f"lab {name} does not begin with a table between two lines of +++")
    table = _toml(found[1], f"the table of lab {name}")
    unknown = set(table) - {"title", "summary", "minutes"}
    if unknown:
        raise FormatError(f"the table of lab {name} has an unknown word: {one_line(min(unknown))}")
    return table, text[found.end() :], found[0].count("\n") + 1


def _sections(lines: Sequence[str], first: int) -> Iterator[tuple[str, list[str], int]]:
    """Yield title, lines and line number of what stands between second-level headings."""
    title, start, held, fence = "", first, list[str](), ""
    for number, line in enumerate(lines, first):
        mark = _FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
        elif fence and line.strip() == fence:
            fence = ""
        if not fence and line.startswith("## "):
            yield title, held, start
            title, start, held = line[3:].strip(), number, []
        else:
            held.append(line)
    yield title, held, start


def _step(where: str, title: str, lines: Sequence[str], number: int) -> Step:
    """Read one step."""
    place = f"{where}, step {quoted(title, limit=60)} (line {number})"
    text, blocks = _split_blocks(place, lines)
    settings = _settings(place, blocks["step"])
    return Step(
        id=settings.get("id") or re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:64],
        title=title,
        text=text,
        commands=tuple(blocks["sifdeck"]),
        singularity=tuple(blocks["singularity"]),
        checks=tuple(parse_check(place, _toml(block, place)) for block in blocks["check"]),
        hints=tuple(blocks["hint"]),
        needs=tuple(settings.get("needs", ())),
    )


def _split_blocks(place: str, lines: Sequence[str]) -> tuple[str, dict[str, list[str]]]:
    """Return the text without our code blocks, and those by their word."""
    blocks: dict[str, list[str]] = {word: [] for word in _BLOCKS}
    kept: list[str] = []
    word, fence, held = "", "", list[str]()
    for line in lines:
        mark = _FENCE.match(line)
        if not fence and mark and mark[2] in blocks:
            word, fence, held = mark[2], mark[1], []
        elif fence and line.strip() == fence:
            blocks[word].append("\n".join(held).strip())
            fence = ""
        elif fence:
            held.append(line)
        else:
            kept.append(line)
    if fence:
        raise FormatError(f"{place}: a {word} block does not end")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip(), blocks


def _settings(place: str, blocks: Sequence[str]) -> dict[str, Any]:
    """Read the ``step`` block; there need not be one."""
    if len(blocks) > 1:
        raise FormatError(f"{place}: two step blocks")
    table = _toml(blocks[0], place) if blocks else {}
    if set(table) - {"id", "needs"}:
        raise FormatError(f"{place}: the step block has an unknown word")
    if "id" in table and not (isinstance(table["id"], str) and _NAME.fullmatch(table["id"])):
        raise FormatError(f"{place}: id is not a name of a-z, 0-9 and -")
    needs = table.get("needs", [])
    if not isinstance(needs, list) or any(need not in NEEDS for need in needs):
        raise FormatError(f"{place}: needs is not a list of {', '.join(NEEDS)}")
    return table


def _toml(text: str, place: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise FormatError(f"{place}: {one_line(str(error), limit=120)}") from error


def _word(table: Mapping[str, Any], key: str) -> str:
    value = table.get(key, "")
    return value if isinstance(value, str) else ""
