"""The flags of run, exec and shell, parsed."""

from __future__ import annotations

import contextlib
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import UsageError
from backend.runtime.envfile import read_env_file
from backend.runtime.options import (
    Bind,
    check_user,
    parse_binds,
    parse_environment,
    split_environment,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_binds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / "a:b,c"
    odd.mkdir()
    monkeypatch.chdir(tmp_path)
    place = str(tmp_path)
    escaped = str(odd).replace(":", "\\:").replace(",", "\\,")
    assert parse_binds((f"{place}:/data:ro,{place}", ".:/here/../there")) == (
        Bind(source=place, target="/data", read_only=True),
        Bind(source=place, target=place),
        Bind(source=place, target="/there"),
    )
    assert parse_binds((f"{escaped}:/odd",)) == (Bind(source=str(odd), target="/odd"),)


@pytest.mark.parametrize(
    "text", ["/nosuch", "/tmp:rel", "/tmp:/x:rx", "/tmp:/a:ro:b", ":/x", "/tmp:/x:ro:"]
)
def test_binds_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        parse_binds((text,))


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HOST", "h")
    assert parse_environment(("A=1=2", "FROM_HOST", "UNSET_HERE", "E=")) == (
        ("A", "1=2"),
        ("FROM_HOST", "h"),
        ("E", ""),
    )
    with pytest.raises(UsageError):
        parse_environment(("1A=x",))
    several = split_environment(("A=1,B=2", "C=x,y", "D=a b,1=2"))
    assert several == ("A=1", "B=2", "C=x,y", "D=a b,1=2")


def test_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HOST", "h")
    file = tmp_path / "env"
    file.write_bytes(
        b"\n# no\nexport A='1 $x 2'\nB=\"x\"y # why\nC=\xff\nD=${A}-$FROM_HOST-${NONE:-d}\n"
        b'FROM_HOST\nUNSET_HERE\nE=two words \nF=\nG=a#b\\ c\nH="one\ntwo \\$A"\nI="$B"\n'
    )
    assert read_env_file(str(file)) == (
        ("A", "1 $x 2"), ("B", "xy"), ("C", "\udcff"), ("D", "1 $x 2-h-d"), ("FROM_HOST", "h"),
        ("E", "two words"), ("F", ""), ("G", "a#b c"), ("H", "one\ntwo $A"), ("I", "xy"),
    )  # fmt: skip
    file.write_bytes(b"x" * (1 << 21))
    with pytest.raises(UsageError, match="larger"):
        read_env_file(str(file))
    with pytest.raises(UsageError, match="cannot read"):
        read_env_file(str(tmp_path / "nosuch"))


@pytest.mark.parametrize(
    "text", ["A=$(id)", 'A="`id`"', "A='x", 'A="x', "1A=x", "A B", "A=${x/y}", "= x"]
)
def test_env_files_that_are_none(text: str, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text(text)
    with pytest.raises(UsageError):
        read_env_file(str(file))


@given(st.binary(max_size=200))
def test_any_env_file_is_read_or_refused(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with contextlib.suppress(UsageError):
            read_env_file(file.name)


def test_users() -> None:
    assert [check_user(text) for text in ("", "a", "1:2")] == ["", "a", "1:2"]
    for text in (":1", "a:", "a:b:c", "a\nb"):
        with pytest.raises(UsageError):
            check_user(text)
