"""The flags of run, exec and shell, parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backend.errors import UsageError
from backend.runtime.options import (
    Bind,
    check_user,
    parse_binds,
    parse_environment,
    read_env_file,
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


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HOST", "h")
    assert parse_environment(("A=1=2", "FROM_HOST", "UNSET_HERE", "E=")) == (
        ("A", "1=2"),
        ("FROM_HOST", "h"),
        ("E", ""),
    )
    with pytest.raises(UsageError):
        parse_environment(("1A=x",))
    file = tmp_path / "env"
    file.write_bytes(b"\n# no\nexport A='1 2'\nB=\"x\"\nC=\xff\n")
    assert read_env_file(str(file)) == (("A", "1 2"), ("B", "x"), ("C", "\udcff"))
    file.write_bytes(b"x" * (1 << 21))
    with pytest.raises(UsageError, match="larger"):
        read_env_file(str(file))
    with pytest.raises(UsageError, match="cannot read"):
        read_env_file(str(tmp_path / "nosuch"))


def test_users() -> None:
    assert [check_user(text) for text in ("", "a", "1:2")] == ["", "a", "1:2"]
    for text in (":1", "a:", "a:b:c", "a\nb"):
        with pytest.raises(UsageError):
            check_user(text)
