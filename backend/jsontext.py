"""Values as JSON text, without the parts of ``json`` that a start of a container does not need.

``json`` brings its decoder and with it ``re`` and ``enum``, 8 ms in all.  What it writes and
what is written here are equal, but for the spaces.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs 5 ms
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Json = str | int | float | None | Sequence["Json"] | Mapping[str, "Json"]


def write_json(value: Json) -> str:
    """Return the JSON text of strings, numbers, None, and lists, tuples and dicts of them.

    Raises:
        TypeError: There is something else in it.
    """
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, dict):
        return f"{{{','.join([f'{_quoted(key)}:{write_json(value[key])}' for key in value])}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join([write_json(item) for item in value])}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _quoted(text: str) -> str:
    if text.isascii() and text.isprintable():
        if '"' in text or "\\" in text:
            text = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"'
    import json  # worth its time for other alphabets, and bytes that are no text

    return json.dumps(text)
