"""Progress stays, survives damage by an error only, and belongs to one learner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backend.errors import FormatError, NotFoundError, UsageError
from backend.labs.progress import Progress, StepProgress, read_progress, write_progress
from backend.labs.workshop import find_place, opened

if TYPE_CHECKING:
    from pathlib import Path

LAB = """\
+++
title = "Small"
+++
## First
```sifdeck
echo done > first.txt
```
```check
file = "first.txt"
```
## Second
```step
needs = ["builder"]
```
```check
file = "second.txt"
```
"""


def test_what_was_done_stays_done(tmp_path: Path) -> None:
    progress = Progress(learner="ada", lab="x", started=5, port=6)
    progress = progress.tried("a", passed=False).tried("a", passed=False)
    assert not progress.is_done("a")
    progress = progress.tried("a", passed=True).tried("a", passed=False)
    assert progress.is_done("a")
    assert progress.steps["a"].tries == 3
    write_progress(tmp_path, progress)
    assert read_progress(tmp_path, "ada", "x") == progress
    assert [path.name for path in tmp_path.glob("prog*")] == ["progress.json"]


def test_damaged_progress_is_an_error(tmp_path: Path) -> None:
    assert read_progress(tmp_path, "ada", "x") == Progress(learner="ada", lab="x")
    for text in ("", "[]", "{}", '{"started": -1, "port": 0, "steps": {}}'):
        (tmp_path / "progress.json").write_text(text)
        with pytest.raises(FormatError):
            read_progress(tmp_path, "ada", "x")
    text = '{"started": 1, "port": 2, "steps": {"a": 3, "b": {"tries": "x", "done": true}}}'
    (tmp_path / "progress.json").write_text(text)
    found = read_progress(tmp_path, "ada", "x")
    assert found.steps == {"a": StepProgress(), "b": StepProgress()}


def test_a_lab_is_done_left_and_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIFDECK_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "labs").mkdir()
    (tmp_path / "labs/small.md").write_text(LAB)
    place = find_place(tmp_path / "labs", learner="ada")
    missing = frozenset({"builder"})
    with opened(place, "small") as workshop:
        registry = workshop.playground.registry
        first, second = workshop.lab.steps
        assert [one.state for one in workshop.check([first, second], missing)] == [
            *("open", "skipped"),
        ]
        (workshop.playground.work / "first.txt").write_text("done")
        # Inside the lab the environment names the same place, though its state is elsewhere.
        for name, value in workshop.environment.items():
            if name.startswith("SIFDECK_"):
                monkeypatch.setenv(name, value)
        inside = find_place(tmp_path / "labs")
        assert (inside.home, inside.learner) == (place.home, place.learner)
        # A second process looks at the lab that is open already.
        with opened(inside, "small") as again:
            assert again.playground.registry == registry
            assert [one.state for one in again.check([first], missing)] == ["done"]
    (workshop.playground.work / "first.txt").unlink()
    with opened(place, "small") as workshop:
        assert workshop.playground.registry == registry
        assert [one.state for one in workshop.check([first], missing)] == ["done"]
    assert place.progress("small").steps["first"].tries == 2
    assert place.reset("small")
    assert not place.reset("small")
    assert not place.progress("small").started


def test_a_teachers_folder_comes_first(tmp_path: Path) -> None:
    for folder, title in (("own", "Mine"), ("shipped", "Theirs")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "small.md").write_text(LAB.replace("Small", title))
    (tmp_path / "shipped/other.md").write_text(LAB)
    place = find_place(tmp_path / "shipped", folder=tmp_path / "own", learner="ada")
    assert place.names() == ["small", "other"]
    assert place.read("small").title == "Mine"
    for name in ("none", "../own/small", ".", ""):
        with pytest.raises(NotFoundError):
            place.read(name)


@pytest.mark.parametrize("name", ["..", "a/b", "", "-x", "a" * 65, "a\n"])
def test_learners_cannot_be_called_anything(name: str, tmp_path: Path) -> None:
    from backend.labs.progress import check_learner

    with pytest.raises(UsageError):
        check_learner(name)
    assert not list(tmp_path.glob("*/*"))


@pytest.mark.parametrize(
    ("user", "learner"),
    [("ada", "ada"), ("SITE\\ada", "SITE_ada"), ("-x", "_x"), ("ada@site.org", "ada@site.org")],
)
def test_any_user_can_learn(
    user: str, learner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, user)
    assert find_place(tmp_path).learner == learner
