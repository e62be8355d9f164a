"""Labs as their authors write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import FormatError
from backend.labs.document import parse_lab

LAB = """\
+++
title = "Images"
summary = "All about them."
minutes = 20
+++
Welcome to {{registry}}.

```console
## not a step, in a code block
```

## Pull an image

Text with `code`
and {{unknown}} words.

```step
id = "get"
needs = ["builder"]
```

```sifdeck
sifdeck pull docker://{{registry}}/x
cat <<END
## neither is this
END
```
```singularity
singularity pull docker://{{registry}}/x
```
```check
file = "x.sif"
```
```hint
Look.
```
```hint
Closer.
```
```check
login = "{{registry}}"
absent = true
```

More text.

## Read this

Only text.
"""


def test_a_lab_is_read() -> None:
    lab = parse_lab("images", LAB.encode(), {"registry": "127.0.0.1:5000"})
    assert (lab.name, lab.title, lab.summary, lab.minutes) == (
        *("images", "Images", "All about them.", 20),
    )
    assert lab.introduction.startswith("Welcome to 127.0.0.1:5000.")
    assert "## not a step" in lab.introduction
    pull, read = lab.steps
    assert (pull.id, pull.title, pull.needs) == ("get", "Pull an image", ("builder",))
    assert pull.text == "Text with `code`\nand {{unknown}} words.\n\nMore text."
    assert pull.commands == (
        "sifdeck pull docker://127.0.0.1:5000/x\ncat <<END\n## neither is this\nEND",
    )
    assert pull.singularity == ("singularity pull docker://127.0.0.1:5000/x",)
    assert pull.hints == ("Look.", "Closer.")
    assert len(pull.checks) == 2
    assert (read.id, read.checks) == ("read-this", ())
    assert lab.step("get") is pull
    assert lab.step("none") is None


def test_line_ends_of_other_systems() -> None:
    windows = LAB.replace("\n", "\r\n").encode()
    assert parse_lab("images", windows, {}) == parse_lab("images", LAB.encode(), {})


HEAD = '+++\ntitle = "x"\n+++\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# No table", "does not begin with a table"),
        ("+++\ntitle = \n+++\n## a\n", "the table of lab x"),
        ('+++\ncolour = "red"\n+++\n## a\n', "unknown word: colour"),
        (HEAD, "has no step"),
        (f"{HEAD}## a\n## a\n", "two steps called 'a'"),
        (f"{HEAD}## a\n```check\nfile = 3\n```\n", "step 'a' \\(line 4\\): file is not"),
        (f'{HEAD}## a\n```check\nfile = "/etc/passwd"\n```\n', "not in the lab's folder"),
        (f'{HEAD}## a\n```check\nfile = "a/../../b"\n```\n', "not in the lab's folder"),
        (f'{HEAD}## a\n```check\nfiles = "b"\n```\n', "none of the words"),
        (f'{HEAD}## a\n```check\nfile = "b"\nsize = 3\n```\n', "unknown word size"),
        (f'{HEAD}## a\n```check\nrun = "rm -rf x"\n```\n', "does not begin with sifdeck"),
        (f'{HEAD}## a\n```check\nrun = "sifdeck \'x"\n```\n', "run: No closing"),
        (f'{HEAD}## a\n```check\nsif = "b"\nformat = "zip"\n```\n', "neither oci-sif nor"),
        (f'{HEAD}## a\n```check\nsif = "b"\nhas = "FS"\n```\n', "has is not"),
        (f'{HEAD}## a\n```check\nsif = "b"\nobjects = true\n```\n', "objects is not"),
        (f'{HEAD}## a\n```check\nsame = ["b"]\n```\n', "two files or more"),
        (f'{HEAD}## a\n```check\ndid = " "\n```\n', "names no command"),
        (f'{HEAD}## a\n```check\nfile = "b"\n', "a check block does not end"),
        (f'{HEAD}## a\n```step\nneeds = ["gpu"]\n```\n', "needs is not a list"),
        (f'{HEAD}## a\n```step\nid = "A b"\n```\n', "id is not a name"),
        (f'{HEAD}## a\n```step\nname = "A b"\n```\n', "unknown word"),
        (f"{HEAD}## a\n```step\n```\n```step\n```\n", "two step blocks"),
    ],
)
def test_mistakes_are_named(text: str, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        parse_lab("x", text.encode(), {})


def test_other_files_are_refused() -> None:
    for name, data in (("x", b"\xff"), ("x", b"+" * (2 << 20)), ("../x", b""), ("X", b"")):
        with pytest.raises(FormatError):
            parse_lab(name, data, {})


@given(st.lists(st.sampled_from([*LAB.splitlines(), "```", "~~~~check", "+++", "## x", "x = [["])))
def test_any_text_is_a_lab_or_an_error(lines: list[str]) -> None:
    for text in ("\n".join(lines), HEAD + "\n".join(lines)):
        try:
            lab = parse_lab("x", text.encode(), {})
        except FormatError:
            continue
        assert lab.steps


@pytest.mark.parametrize("name", ["oci-mode", "inside-images"])
def test_the_shipped_labs_are_complete(name: str) -> None:
    path = Path(__file__).parents[3] / "app" / "labs" / f"{name}.md"
    lab = parse_lab(name, path.read_bytes(), {"registry": "127.0.0.1:5000"})
    assert lab.summary
    assert lab.introduction
    for step in lab.steps:
        assert step.checks, step.id
        assert step.commands, step.id
        assert step.singularity or step.id == "diff", step.id  # SingularityCE compares nothing
        assert len(step.text) > 40, step.id
        assert step.id != step.title
