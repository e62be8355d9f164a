from __future__ import annotations

import gzip
import io
import socket
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.build.context import write_context
from backend.build.ignore import Ignore, read_ignore

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("lines", "ignored", "kept"),
    [
        (["*.o"], ["a.o"], ["sub/a.o", "a.oo"]),
        (["**/*.o"], ["a.o", "x/y/a.o"], ["a.oo"]),
        (["node_modules"], ["node_modules", "node_modules/x/y"], ["sub/node_modules", "node"]),
        (["/top", "./here/", "a/../b"], ["top", "here/x", "b"], ["a"]),
        (["*", "!keep", "!sub/x"], ["other", "sub"], ["keep", "keep/inner", "sub/x"]),
        (["!x", "x"], ["x"], []),
        (["# comment", "", "   "], [], ["# comment"]),
        (["a?c", "[ab].txt", "[^x].md"], ["abc", "a.txt", "y.md"], ["a/c", "c.txt", "x.md"]),
        (["sub/**"], ["sub/a", "sub/a/b"], ["sub"]),
        (["a\\*b"], ["a*b"], ["axb"]),
        (["temp*/*.log"], ["temp1/a.log"], ["temp1/x/a.log"]),
        (["[", "a[]b"], ["["], ["x"]),
    ],
)
def test_patterns(lines: list[str], ignored: list[str], kept: list[str]) -> None:
    ignore = Ignore(lines)
    assert [path for path in ignored if not ignore.ignores(path)] == []
    assert [path for path in kept if ignore.ignores(path)] == []


@given(st.lists(st.text(alphabet="*?[]^!\\/.ab-")), st.text(alphabet="/.ab"))
def test_any_patterns_are_taken(lines: list[str], path: str) -> None:
    assert Ignore(lines).ignores(path) in {True, False}


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getnames()


class TestContext:
    def pack(self, context: Path, dockerfile: Path, *, compressed: bool = False) -> bytes:
        out = io.BytesIO()
        write_context(context, dockerfile, ".dockerfile.x", out, compressed=compressed)
        return out.getvalue()

    def test_what_is_sent(self, tmp_path: Path) -> None:
        context = tmp_path / "c"
        (context / "sub" / "deep").mkdir(parents=True)
        for name in ("a", "sub/b", "sub/deep/c"):
            (context / name).write_text(name)
        (context / "link").symlink_to("a")
        (context / "loop").symlink_to(".")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(context / "s"))
        (context / ".dockerignore").write_text("sub\n!sub/deep\nDockerfile\n")
        (tmp_path / "Dockerfile").write_text("FROM scratch\n")
        data = self.pack(context, tmp_path / "Dockerfile")
        assert names(data) == [
            ".dockerignore",
            "a",
            "link",
            "loop",
            "sub/deep",
            "sub/deep/c",
            ".dockerfile.x",
        ] or set(names(data)) == {
            ".dockerignore",
            "a",
            "link",
            "loop",
            "sub/deep",
            "sub/deep/c",
            ".dockerfile.x",
        }
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            assert {(entry.uid, entry.gid, entry.uname) for entry in archive} == {(0, 0, "")}
            file = archive.extractfile(".dockerfile.x")
            assert file
            assert file.read() == b"FROM scratch\n"

    def test_packed_with_gzip(self, tmp_path: Path) -> None:
        (tmp_path / "Dockerfile").write_text("FROM scratch\n")
        data = self.pack(tmp_path, tmp_path / "Dockerfile", compressed=True)
        assert data[:2] == b"\x1f\x8b"
        assert ".dockerfile.x" in names(gzip.decompress(data))

    def test_its_own_ignore_file_comes_first(self, tmp_path: Path) -> None:
        (tmp_path / ".dockerignore").write_text("a\n")
        assert read_ignore(tmp_path, tmp_path / "Dockerfile").ignores("a")
        (tmp_path / "Dockerfile.dockerignore").write_text("b\n")
        ignore = read_ignore(tmp_path, tmp_path / "Dockerfile")
        assert (ignore.ignores("a"), ignore.ignores("b")) == (False, True)
