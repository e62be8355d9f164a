"""Log files: by line number, while they grow, whatever is in them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.logfile import LINE_LIMIT, LogFile, StepLines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def log(path: Path) -> Iterator[LogFile]:
    with LogFile(path) as opened:
        yield opened


def lines(log: LogFile) -> list[str]:
    return [log.line(number) for number in range(len(log))]


def test_a_file_that_is_not_there_has_no_lines_until_it_is(log: LogFile, path: Path) -> None:
    assert (len(log), log.refresh()) == (0, False)
    path.write_bytes(b"one\ntwo")
    assert log.refresh()
    assert lines(log) == ["one", "two"]


def test_lines_are_added_where_they_were_left(log: LogFile, path: Path) -> None:
    path.write_bytes(b"one\nhal")
    log.refresh()
    assert lines(log) == ["one", "hal"]
    with path.open("ab") as out:
        out.write(b"f\n\nlast\n")
    assert log.refresh()
    assert lines(log) == ["one", "half", "", "last"]
    assert not log.refresh()


@pytest.mark.parametrize("again", [b"new\n", b"a longer text than before\n"])
def test_a_file_begun_anew_is_read_anew(log: LogFile, path: Path, again: bytes) -> None:
    path.write_bytes(b"old one\nold two\n")
    log.refresh()
    path.unlink()
    path.with_name("other").write_bytes(b"keeps the inode away")
    path.write_bytes(again)
    assert log.refresh()
    assert lines(log) == [again.decode().rstrip()]


def test_the_last_version_of_a_line_counts(log: LogFile, path: Path) -> None:
    path.write_bytes(b" 10%\r 50%\r100%\nplain\r\nwait 3\r")
    log.refresh()
    assert lines(log) == ["100%", "plain", "wait 3"]


def test_a_line_of_ninety_thousand_characters_is_cut(log: LogFile, path: Path) -> None:
    path.write_bytes(b"x" * 90_000 + b"\nend\n")
    log.refresh()
    assert len(log.line(0)) == LINE_LIMIT + 3
    assert log.line(1) == "end"


def test_of_a_long_progress_line_the_end_is_shown(log: LogFile, path: Path) -> None:
    path.write_bytes(b"".join(b"\rstep %06d" % number for number in range(90_000)))
    log.refresh()
    assert lines(log) == ["step 089999"]


def test_lines_are_found_across_blocks(log: LogFile, path: Path) -> None:
    path.write_bytes((b"y" * 1000 + b"\n") * 2000 + b"ERROR here\n" + b"z" * 500 + b"error")
    log.refresh()
    assert list(log.find(re.compile(b"error", re.IGNORECASE))) == [2000, 2001]
    assert list(log.find(re.compile(b"(?i)error"), 2001)) == [2001]


@given(data=st.binary(max_size=300), more=st.binary(max_size=300))
@settings(max_examples=50)
def test_any_bytes_are_lines(path: Path, data: bytes, more: bytes) -> None:
    path.write_bytes(data)
    with LogFile(path) as log:
        with path.open("ab") as out:
            out.write(more)
        log.refresh()
        assert len(lines(log)) == len((data + more).split(b"\n")) - (
            not data + more or (data + more).endswith(b"\n")
        )


STAMP = b"2026-11-23T18:00:00.123Z "


def lines_of(step: StepLines) -> list[str]:
    return [step.line(number) for number in range(len(step))]


def test_the_lines_of_a_step_come_as_the_log_grows(log: LogFile, path: Path) -> None:
    first, eleventh = StepLines(log, 1), StepLines(log, 11)
    path.write_bytes(
        STAMP + b"INFO: Build\n" + STAMP + b"#1 [1/2] FROM a\n" + STAMP + b"#11 error: #1 b\n#1 ha"
    )
    for step in (first, eleventh):
        log.refresh()
        step.refresh()
    assert lines_of(first) == [f"{STAMP.decode()}[1/2] FROM a", "ha"]
    assert lines_of(eleventh) == [f"{STAMP.decode()}error: #1 b"]
    with path.open("ab") as file:
        file.write(b"lf #1\nelse\n#1 error\n")
    log.refresh()
    first.refresh()
    assert lines_of(first)[1:] == ["half #1", "error"]
    assert list(first.find(re.compile(b"error"))) == [2]
    assert list(first.find(re.compile(b"FROM|half"), 1)) == [1]
    assert list(first.find(re.compile(b"FROM"), 3)) == []
    copy = first.again()
    assert lines_of(copy) == lines_of(first)
    copy.close()
    path.write_bytes(b"#1 anew\n")
    log.refresh()
    first.refresh()
    assert lines_of(first) == ["anew"]
