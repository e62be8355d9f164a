"""``python -m tests.readme``: write the README's key sheet."""

from __future__ import annotations

from pathlib import Path

from app import keysheet
from app.commands import actions_of

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- keys -->\n", "<!-- /keys -->\n"


def section() -> str:
    """Return the key sheet, without the marks around it."""
    sheets = ("\n".join(keysheet.markdown(view)) for view in keysheet.TITLES if actions_of(view))
    return "\n\n".join(sheets) + "\n"


def main() -> None:
    """Put the section between its marks."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}{section()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
