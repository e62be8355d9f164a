"""The two parsers of run's options agree: click's, and the one of a plain start."""

from __future__ import annotations

import os

import click
import pytest

from app.cli import run as verbs
from app.cli.runflags import OPTIONS, blank, interpret, parse_plainly
from backend.errors import UsageError

LINES = [
    ["img"],
    ["img", "-x", "--bind", "y"],
    ["-B", "/:/a", "--bind=/:/b", "-e", "img", "a"],
    ["--env", "A=1", "--env", "B=2", "--pwd", "/x", "img"],
    ["-f", "--runtime=crun", "--net", "--network", "none", "img", "--", "c"],
    ["-p", "80:80", "-n", "-w", "-H", "/h", "-W", "/tmp", "-S", "/s", "-o", "/o", "img"],
]


@pytest.mark.parametrize("line", LINES)
def test_both_parsers_agree(line: list[str]) -> None:
    plain = parse_plainly(line)
    assert plain is not None
    flags, (image, *words) = plain
    assert isinstance(verbs.run, click.Command)
    with verbs.run.make_context("run", list(line)) as context:
        found = dict(context.params)
    assert found.pop("image") == image
    assert list(found.pop("arguments")) == words
    assert found == flags


@pytest.mark.parametrize(
    "line",
    [[], ["--bind"], ["--nonsense", "img"], ["--help"], ["--fakeroot=yes", "img"], ["-ef", "i"]],
)
def test_what_is_not_plain_is_left_to_click(line: list[str]) -> None:
    assert parse_plainly(line) is None


def test_the_environment_stands_behind_the_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SINGULARITY_BIND", "/:/env")
    monkeypatch.setenv("APPTAINER_CLEANENV", "1")
    monkeypatch.setenv("SIFDECK_CWD", "/there")
    flags = blank() | {"bind": ("/:/flag",)}
    options = interpret("run", (), flags)
    assert [bind.target for bind in options.binds] == ["/flag", "/env"]
    assert (options.clean_environment, options.working_dir) == (True, "/there")


def test_every_option_has_one_meaning() -> None:
    names = [name for option in OPTIONS for name in option.names]
    assert len(names) == len(set(names))
    with pytest.raises(UsageError):
        interpret("run", (), blank() | {"user": "a:b:c"})


def test_root_is_told_that_it_gets_no_user_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = blank() | {"userns": True}
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(UsageError, match="--userns"):
        interpret("run", (), flags)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert interpret("run", (), flags).action == "run"
