"""Just enough of the Dockerfile grammar to know its lines, stages and base images.

Builders report instructions by their text; a person wants the line.  Continuations, comments
between them, the ``escape`` directive and heredocs are those of the Dockerfile reference.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from backend.build.request import BuildRequest

MAX_BYTES = 4 << 20
"""Bytes of a Dockerfile that we look at."""

_DIRECTIVE = re.compile(r"#\s*([A-Za-z]+)\s*=\s*(\S+)\s*")
_HEREDOC = re.compile(r"\s\d*<<-?([\"']?)([^\s\"'<]+)\1(?=\s|$)")
_MOUNT = re.compile(r"\s--mount=(\S+)")
_MOUNT_TYPE = re.compile(r"(?:^|,)type=([^,]+)")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?([-+])([^}]*))?\})")
_FROM = re.compile(r"FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?", re.IGNORECASE)
_SOURCE = re.compile(r"--(?:from=|mount=\S*?\bfrom=)([^\s,]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction.

    Attributes:
        line: Where it begins, from 1.
        keyword: In capitals.
        text: The whole instruction in one line, keyword included, blanks collapsed.
        stage: The stage it is in, from 0; -1 before the first ``FROM``.
        heredocs: Whether lines of text follow it.
    """

    line: int
    keyword: str
    text: str
    stage: int
    heredocs: bool = False

    @property
    def mounts(self) -> tuple[str, ...]:
        """The types of its ``--mount`` options."""
        if self.keyword != "RUN":
            return ()
        types = [_MOUNT_TYPE.search(options) for options in _MOUNT.findall(self.text)]
        return tuple(found[1] if found else "bind" for found in types)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage.

    Attributes:
        base: What stands behind ``FROM``, variables replaced.
        name: Behind ``AS``, in small letters; empty for none.
        instructions: Its instructions, ``FROM`` included.
        sources: Stages and images that it copies or mounts from.
    """

    base: str
    name: str
    instructions: tuple[Instruction, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    """A Dockerfile.

    Attributes:
        stages: In order.
        syntax: What ``# syntax=`` names; empty for none.
    """

    stages: tuple[Stage, ...]
    syntax: str = ""

    @property
    def stage_names(self) -> tuple[str, ...]:
        """What BuildKit calls the stages."""
        return tuple(stage.name or f"stage-{n}" for n, stage in enumerate(self.stages))

    def needed(self, target: str = "") -> tuple[Stage, ...]:
        """Return the stages that a target is made of, in order.

        Args:
            target: A stage's name or number; empty means the last.
        """
        if not self.stages:
            return ()
        wanted = {self._index(target, len(self.stages)) if target else len(self.stages) - 1}
        for index in range(len(self.stages) - 1, -1, -1):
            if index in wanted:
                stage = self.stages[index]
                wanted |= {self._index(name, index) for name in (stage.base, *stage.sources)}
        return tuple(stage for index, stage in enumerate(self.stages) if index in wanted)

    def heredoc_line(self, target: str = "") -> int:
        """Return the first line with a heredoc that a target needs; 0 for none."""
        return next((one.line for one in self._instructions(target) if one.heredocs), 0)

    def mount_line(self, types: Collection[str] | None = None, target: str = "") -> int:
        """Return the first line with a mount that a target needs; 0 for none.

        Args:
            types: Which mounts count; None for all.
            target: A stage's name or number; empty means the last.
        """
        for one in self._instructions(target):
            if any(types is None or mount in types for mount in one.mounts):
                return one.line
        return 0

    def _instructions(self, target: str) -> Iterator[Instruction]:
        for stage in self.needed(target):
            yield from stage.instructions

    def images(self, target: str = "") -> tuple[str, ...]:
        """Return the references of the images that a target starts from, each once."""
        names = [stage.name for stage in self.stages]
        found = dict.fromkeys(
            name
            for stage in self.needed(target)
            for name in (stage.base, *stage.sources)
            if name.lower() not in {*names, "scratch"} and not name.isdecimal() and "$" not in name
        )
        return tuple(found) + ((self.syntax,) if self.syntax else ())

    def _index(self, name: str, before: int) -> int:
        """Return which stage a name or number means, among the first ``before``; -1 for none."""
        for index in range(before - 1, -1, -1):
            if self.stages[index].name == name.lower() or name == str(index):
                return index
        return -1


class Locator:
    """Finds the instruction that a builder names, each once."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._left = [
            (stage.name, instruction) for stage in stages for instruction in stage.instructions
        ]

    def find(self, text: str, stage: str = "") -> Instruction | None:
        """Return the instruction; None when it cannot be told.

        Args:
            text: As the builder gives it, keyword first; variables may be replaced in it.
            stage: The name of its stage, if the builder gives it.
        """
        wanted = collapse(text)
        keyword = wanted.partition(" ")[0].upper()
        close = [
            entry
            for entry in self._left
            if entry[1].keyword == keyword and (not stage or entry[0] in {"", stage.lower()})
        ]
        same = [entry for entry in close if _is_same(entry[1], wanted)]
        for entry in (same or close)[:1]:
            self._left.remove(entry)
            return entry[1]
        return None


def _is_same(instruction: Instruction, text: str) -> bool:
    """Tell whether a builder means an instruction; behind a heredoc it tells of its text."""
    heredoc = instruction.heredocs and text.startswith(f"{instruction.text} (")
    return heredoc or text == instruction.text


def parse_dockerfile(text: str, arguments: Mapping[str, str] | None = None) -> Dockerfile:
    """Return the stages of a Dockerfile; what makes no sense is left to the builder.

    Args:
        text: The file.
        arguments: Values of ``--build-arg``, for the names of base images.
    """
    directives = _directives(text)
    instructions = list(_instructions(text, directives.get("escape", "\\")))
    known: dict[str, str] = {}
    stages = []
    for index in range(-1, max((i.stage for i in instructions), default=-1) + 1):
        own = tuple(i for i in instructions if i.stage == index)
        if index < 0:
            known = _defaults(own, arguments or {})
        else:
            stages.append(_stage(own, known))
    return Dockerfile(stages=tuple(stages), syntax=directives.get("syntax", ""))


def read_dockerfile(request: BuildRequest) -> Dockerfile:
    """Return what a request builds; without stages when only the builder can see it.

    Raises:
        NotFoundError: There is no such file.
    """
    if request.dockerfile is None:
        return Dockerfile(stages=())
    try:
        with request.dockerfile.open("rb") as file:
            text = file.read(MAX_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise NotFoundError(
            f"{request.dockerfile} cannot be read", why=error.strerror or ""
        ) from error
    return parse_dockerfile(text, request.build_args)


def collapse(text: str) -> str:
    """Return text with every run of blanks as one space."""
    return " ".join(text.split())


def _stage(instructions: tuple[Instruction, ...], known: Mapping[str, str]) -> Stage:
    match = _FROM.match(instructions[0].text)
    base, name = (match[1], match[2] or "") if match else ("", "")
    sources = dict.fromkeys(
        source for instruction in instructions for source in _SOURCE.findall(instruction.text)
    )
    return Stage(
        base=_expand(base, known),
        name=name.lower(),
        instructions=instructions,
        sources=tuple(_expand(source, known) for source in sources),
    )


def _defaults(
    instructions: tuple[Instruction, ...], arguments: Mapping[str, str]
) -> dict[str, str]:
    """Return the values of the ARGs before the first FROM."""
    known: dict[str, str] = {}
    for instruction in instructions:
        if instruction.keyword == "ARG":
            name, _, value = instruction.text.partition(" ")[2].partition("=")
            known[name] = arguments.get(name, _expand(value.strip("\"'"), known))
    return known


def _expand(text: str, known: Mapping[str, str]) -> str:
    """Replace variables whose value is known."""

    def value(match: re.Match[str]) -> str:
        found = known.get(match[1] or match[2], "")
        if match[3] == "-":
            return found or match[4]
        if match[3] == "+":
            return match[4] if found else ""
        return found or match[0]

    return _VARIABLE.sub(value, text)


def _directives(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = _DIRECTIVE.fullmatch(line.strip())
        if match is None:
            break
        found.setdefault(match[1].lower(), match[2])
    return found


def _instructions(text: str, escape: str) -> Iterator[Instruction]:
    """Yield the instructions of a file."""
    lines = iter(enumerate(text[:MAX_BYTES].splitlines(), start=1))
    stage = -1
    for number, line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        joined = collapse(" ".join(_continued(line, lines, escape)))
        keyword = joined.partition(" ")[0].upper()
        heredocs = _HEREDOC.findall(joined) if keyword in {"RUN", "COPY", "ADD"} else []
        for _, end in heredocs:
            _skip_heredoc(lines, end)
        stage += keyword == "FROM"
        yield Instruction(
            line=number, keyword=keyword, text=joined, stage=stage, heredocs=bool(heredocs)
        )


def _continued(first: str, lines: Iterator[tuple[int, str]], escape: str) -> Iterator[str]:
    """Yield the lines of one instruction without the characters that continue them."""
    line = first
    while line.rstrip().endswith(escape):
        yield line.rstrip()[: -len(escape)]
        for _, line in lines:
            if line.strip() and not line.lstrip().startswith("#"):
                break
        else:
            return
    yield line


def _skip_heredoc(lines: Iterator[tuple[int, str]], end: str) -> None:
    for _, line in lines:
        if line.lstrip("\t") == end:
            return
