"""``sifdeck lab`` on the command line, with a teacher's lab that is done in no time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.main import main

SIFDECK = str(Path(sys.executable).with_name("sifdeck"))

LAB = """\
+++
title = "Small"
summary = "Nothing much."
minutes = 3
+++
Welcome.

## Write a file

Write `a.txt`.

```step
id = "write"
```
```sifdeck
echo "\x1b[31mred" > a.txt
sifdeck --version
```
```singularity
singularity --version
```
```check
file = "a.txt"
```
```check
did = "--version"
```
```hint
Use echo.
```

## Look at it

```step
id = "look"
```
```sifdeck
wc -c a.txt > b.txt
```
```check
file = "b.txt"
contains = "a.txt"
```
"""


@pytest.fixture
def teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "teacher"
    folder.mkdir()
    (folder / "small.md").write_text(LAB)
    monkeypatch.setenv("SIFDECK_LAB_DIR", str(folder))
    monkeypatch.setenv("SIFDECK_LEARNER", "ada")
    monkeypatch.setenv("SHELL", "/bin/sh")
    return folder


def lab(*argv: str, typed: str = "", status: int = 0) -> str:
    """Run ``sifdeck lab``; return what it printed on standard output."""
    done = subprocess.run(
        [SIFDECK, "lab", *argv],
        check=False,
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.usefixtures("teacher")
def test_a_lab_from_start_to_report() -> None:
    rows = json.loads(lab("list", "--json"))
    assert {row["name"] for row in rows} == {"small", "oci-mode", "inside-images"}
    assert "small             0/2   Small" in lab("list")
    shown = lab("show", "small")
    assert "Welcome." in shown
    assert "singularity --version" in shown
    assert "\x1b" not in shown
    missing = lab("check", "small", status=1)
    assert missing.splitlines() == [
        "..  Write a file",
        "    no  a.txt is not there",
        "    no  `sifdeck --version` has not been typed",
        "    hint: Use echo.",
    ]
    # In the lab's shell its name need not be said, and what is typed is noted.
    lab("start", "--shell", "small", typed="echo x > a.txt\nsifdeck --version\nexit 3\n", status=3)
    checked = lab("start", "--shell", "small", typed="sifdeck lab check\n", status=1)
    assert checked.splitlines() == [
        "ok  Write a file",
        "..  Look at it",
        "    no  b.txt is not there",
    ]
    lab("start", "--shell", "small", typed="wc -c a.txt > b.txt\n")
    found = json.loads(lab("check", "--json", "small"))
    assert [one["state"] for one in found] == ["done", "done"]
    (report,) = json.loads(lab("report"))
    assert (report["learner"], report["lab"], report["finished"]) == ("ada", "small", True)
    assert [step["step"] for step in report["steps"]] == ["write", "look"]
    assert report["steps"][1]["tries"] == 2
    lab("reset", "small")
    assert json.loads(lab("report")) == []
    lab("check", "small", status=1)


def test_a_step_that_cannot_be_done_here_holds_nobody_up(
    teacher: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lab(*argv: str, status: int = 0) -> str:
        assert main(["lab", *argv]) == status
        return capsys.readouterr().out

    first = 'id = "build"\nneeds = ["builder"]'
    assert 'id = "write"' in LAB
    (teacher / "small.md").write_text(LAB.replace('id = "write"', first))
    monkeypatch.setattr("backend.build.detect.candidates", lambda: ())
    shown = lab("show", "small")
    assert "step 2 of 2" in shown
    shown = lab("show", "small", "build")
    assert "This machine cannot do this step: it has no builder (" in shown
    assert "Read this step, and go on." in shown
    checked = lab("check", "small", status=1).splitlines()
    assert checked[0] == "--  Write a file"
    assert checked[1].startswith("    This machine cannot do this step: it has no builder (")
    assert checked[2] == "..  Look at it"
    (report,) = json.loads(lab("report"))
    assert not report["finished"]
    home = Path(os.environ["HOME"]) / ".local/state/sifdeck/labs"
    home.joinpath("ada", "small", "work", "b.txt").write_text("a.txt")
    lab("check", "small")
    (report,) = json.loads(lab("report"))
    assert report["finished"]
    assert [(one["step"], one["skipped"]) for one in report["steps"]] == [
        ("build", True),
        ("look", False),
    ]


@pytest.mark.usefixtures("teacher")
def test_a_lab_that_is_open_is_not_removed() -> None:
    line = "echo mine > a.txt; sifdeck lab reset small || cat a.txt\n"
    assert lab("start", "--shell", "small", typed=line) == "mine\n"
    lab("reset", "small")


def test_a_report_of_everybody(teacher: Path, tmp_path: Path) -> None:
    lab("check", "small", status=1)
    lab("--learner", "bob", "check", "small", "write", status=1)
    home = Path(os.environ["HOME"]) / ".local/state/sifdeck/labs"
    (teacher / "small.md").unlink()
    rows = json.loads(lab("report", str(home)))
    assert [(row["learner"], row["finished"]) for row in rows] == [("ada", False), ("bob", False)]
    assert rows[0]["steps"] == [{"step": "write", "done": None, "skipped": False, "tries": 1}]
    assert json.loads(lab("report", str(tmp_path))) == []


def test_a_rehearsal_finds_what_is_wrong(teacher: Path) -> None:
    assert lab("rehearse", "small").splitlines() == ["ok  write", "ok  look"]
    broken = LAB.replace("wc -c a.txt", "true").replace('file = "a.txt"', 'file = "c.txt"')
    (teacher / "small.md").write_text(broken)
    told = lab("rehearse", "small", status=1)
    assert told.splitlines() == ["no  write: c.txt is not there", "no  look: b.txt is empty"]
    (teacher / "small.md").write_text(
        LAB.replace('file = "a.txt"', 'file = "z.txt"\nabsent = true').replace(
            'did = "--version"', 'file = "y.txt"\nabsent = true'
        )
    )
    told = lab("rehearse", "small", status=1)
    assert told.splitlines()[0] == "no  write: its checks pass before it is done"
    # Nothing of it stays, and the learner's own progress is untouched.
    assert json.loads(lab("report")) == []


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (("check", "none"), 11),
        (("check", "small", "none"), 11),
        (("start", "../small"), 11),
        (("reset", "none"), 11),
        (("--learner", "a/b", "list"), 2),
        (("--dir", "/nowhere", "list"), 2),
        (("check",), 2),
    ],
)
def test_mistakes_are_sentences(teacher: Path, argv: tuple[str, ...], status: int) -> None:
    assert teacher.is_dir()
    lab(*argv, status=status)


def test_a_damaged_lab_is_named(teacher: Path) -> None:
    (teacher / "broken.md").write_text("no table")
    done = subprocess.run(
        [SIFDECK, "lab", "check", "broken"], check=False, capture_output=True, text=True
    )
    assert (done.returncode, "broken" in done.stderr) == (1, True)
    listed = subprocess.run([SIFDECK, "lab", "list"], check=True, capture_output=True, text=True)
    assert "small" in listed.stdout
    assert "broken" in listed.stderr


def test_a_teachers_folder_from_the_settings(
    teacher: Path, clean_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIFDECK_LAB_DIR")
    assert "small" not in lab("list")
    settings = clean_home / ".config/sifdeck/config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f'labs = "{teacher}"\n')
    assert "small" in lab("list")
    assert "small" in lab("--dir", str(teacher), "list")
