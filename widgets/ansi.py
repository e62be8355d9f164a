"""Text that a program printed, as coloured segments: colours stay, everything else goes.

Only SGR (``ESC [ ... m``) is understood.  Any other control sequence is dropped, complete or
not, and what control characters are left is shown as an escape, so that a hostile line can
neither move the cursor nor talk to the terminal.
"""

from __future__ import annotations

import re
from functools import lru_cache

from rich.color import Color
from rich.errors import StyleSyntaxError
from rich.segment import Segment
from rich.style import Style

from backend.escape import printable

_SEQUENCE = re.compile(
    r"\x1b\[([0-9;:]*)m"  # SGR
    r"|\x1b\[[0-?]*[ -/]*[@-~]?"  # other CSI
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC, DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-~]?"  # two or three characters
    r"|\x9b[0-?]*[ -/]*[@-~]?"  # CSI as one character
)
_ON = {1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "reverse", 9: "strike"}
_OFF = {22: ("bold", "dim"), 23: ("italic",), 24: ("underline",), 27: ("reverse",), 29: ("strike",)}


@lru_cache(maxsize=4096)
def segments(line: str) -> tuple[Segment, ...]:
    """Return a line's text with the colours that it asks for, tabs as spaces; remembered."""
    return pieces(line)


def pieces(line: str) -> tuple[Segment, ...]:
    """Return the same of a line that nobody will ask for again."""
    out: list[Segment] = []
    style = Style.null()
    place = 0
    for match in _SEQUENCE.finditer(line):
        _add(out, line[place : match.start()], style)
        place = match.end()
        if match.group(1) is not None:
            style = _applied(style, match.group(1))
    _add(out, line[place:], style)
    return tuple(out)


def plain(line: str) -> str:
    """Return a line's text without colours."""
    return "".join(segment.text for segment in segments(line))


def _add(out: list[Segment], text: str, style: Style) -> None:
    if text:
        out.append(Segment(printable(text.expandtabs(8), limit=1 << 20).replace("\n", ""), style))


def _applied(style: Style, codes: str) -> Style:
    """Return ``style`` changed by the numbers of one SGR sequence."""
    numbers = [int(part[:5]) if part.isdigit() else 0 for part in re.split("[;:]", codes[:256])]
    changes: dict[str, object] = {}
    place = 0
    while place < len(numbers):
        code = numbers[place]
        place += 1
        if code == 0:
            style, changes = Style.null(), {}
        elif code in _ON:
            changes[_ON[code]] = True
        elif code in _OFF:
            changes |= dict.fromkeys(_OFF[code], False)
        elif code in {38, 48}:
            colour, used = _extended(numbers[place:])
            place += used
            changes["color" if code == 38 else "bgcolor"] = colour
        else:
            changes |= _basic(code)
    try:
        return style + Style(**changes)  # type: ignore[arg-type]
    except StyleSyntaxError:
        return style


def _basic(code: int) -> dict[str, object]:
    """Return what a code for one of the 16 colours, or for none, changes."""
    for first, name, offset in (
        (30, "color", 0),
        (40, "bgcolor", 0),
        (90, "color", 8),
        (100, "bgcolor", 8),
    ):
        if first <= code < first + 8:
            return {name: Color.from_ansi(code - first + offset)}
    if code in {39, 49}:
        return {"color" if code == 39 else "bgcolor": Color.default()}
    return {}


def _extended(rest: list[int]) -> tuple[Color | None, int]:
    """Return the colour of ``5;N`` or ``2;R;G;B`` and how many numbers that was."""
    if len(rest) >= 2 and rest[0] == 5:
        return Color.from_ansi(min(rest[1], 255)), 2
    if len(rest) >= 4 and rest[0] == 2:
        red, green, blue = (min(value, 255) for value in rest[1:4])
        return Color.from_rgb(red, green, blue), 4
    return None, len(rest)
