"""The command line as a program: what it imports, how it ends, what it says."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from app.cli import main as command_line
from backend.errors import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = ("textual", "rich", "asyncio", "httpx", "zstandard", "isal", "keyring")


def sifdeck(*args: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, without a terminal."""
    return subprocess.run(
        [sys.executable, "-m", "app", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_importing_the_command_line_is_light() -> None:
    script = (
        "import sys, importlib\n"
        "import app.cli.main as main\n"
        "for target in main.VERBS.values():\n"
        "    importlib.import_module(target.partition(':')[0])\n"
        f"print(','.join(m for m in {HEAVY!r} if m in sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("verb", sorted(command_line.VERBS))
def test_every_verb_has_help(verb: str) -> None:
    module, _, attribute = command_line.VERBS[verb].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert command.help
    assert command.get_short_help_str()


@pytest.mark.parametrize("words", [["pull"], ["ls"], ["registry", "login"]])
def test_each_example_has_a_line_of_its_own(words: list[str]) -> None:
    lines = sifdeck(*words, "--help").stdout.splitlines()
    examples = [line for line in lines if line.startswith(f"  sifdeck {' '.join(words)} ")]
    assert len(examples) >= 2
    assert not any("\\b" in line for line in lines)


def test_version() -> None:
    assert sifdeck("--version").stdout.startswith("sifdeck version ")


def test_without_a_terminal_help_is_printed() -> None:
    done = sifdeck()
    assert done.returncode == 0
    assert "Usage: sifdeck" in done.stdout


def test_a_wrong_verb_is_usage() -> None:
    done = sifdeck("pul")
    assert done.returncode == ExitCode.USAGE
    assert "Did you mean 'pull'?" in done.stderr


def test_an_error_of_ours_has_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    status = command_line.main(["pull", "docker:ubuntu"])
    assert status == ExitCode.USAGE
    told = capsys.readouterr().err
    assert "ERROR:" in told
    assert "next:" in told


def test_what_the_system_says_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "file"
    place.touch()
    monkeypatch.setenv("SIFDECK_STATE_DIR", str(place))
    status = command_line.main(["pull", "--job", "x", "docker://127.0.0.1:1/x"])
    assert status == ExitCode.FAILED
    assert capsys.readouterr().err == f"ERROR:   {place}/jobs: Not a directory\n"


def test_a_closed_pipe_ends_quietly() -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m app --help | true; exit 0"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": "."},
        check=False,
        timeout=60,
    )
    assert done.stderr == ""


def test_a_reader_that_goes_ends_us_as_it_ends_others() -> None:
    """The status that a shell gives a program that SIGPIPE ended."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "app", "keys"],
            stdout=out, stderr=subprocess.PIPE, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (141, b"")
