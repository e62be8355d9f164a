"""Text from outside, made safe to show: no escape sequence of an image reaches a terminal."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    import re

_UNSAFE = (
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline, DEL, C1
    # Invisible and bidirectional controls.
    "\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f"
    "\ud800-\udfff]"  # lone surrogates: bytes that were no UTF-8
)


def printable(text: str, *, limit: int = 4096) -> str:
    r"""Return ``text`` with control characters written as ``\x1b`` or ``\u202e``.

    Tabs and newlines stay; text over ``limit`` characters is cut, with a word that says so.
    """
    cut = text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
    if cut.isprintable():  # as nearly all text is; loading re takes a while
        return cut
    import re

    return re.sub(_UNSAFE, _escape, cut)


def one_line(text: str, *, limit: int = 400) -> str:
    """Return :func:`printable` text with newlines and tabs escaped as well."""
    return printable(text, limit=limit).replace("\n", "\\n").replace("\t", "\\t")


def quoted(text: str, *, limit: int = 400) -> str:
    """Return :func:`one_line` text in quotes, for names in a sentence: escaped once."""
    shown = one_line(text, limit=limit)
    mark = '"' if "'" in shown else "'"
    return f"{mark}{shown}{mark}"


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:  # a byte that surrogateescape carried
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
