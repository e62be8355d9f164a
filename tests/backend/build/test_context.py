from __future__ import annotations

import gzip
import io
import socket
import tarfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.build.context import name_in_context, write_context
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


def texts(data: bytes) -> dict[str, bytes]:
    """Return the regular files of an archive."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        files = [(entry.name, archive.extractfile(entry)) for entry in archive if entry.isreg()]
        return {name: file.read() for name, file in files if file}


class TestContext:
    def pack(self, context: Path, dockerfile: Path, *, for_buildkit: bool = False) -> bytes:
        out = io.BytesIO()
        write_context(context, dockerfile, out, for_buildkit=for_buildkit)
        return out.getvalue()

    @pytest.fixture
    def context(self, tmp_path: Path) -> Path:
        context = tmp_path / "c"
        (context / "sub" / "deep").mkdir(parents=True)
        for name in ("Dockerfile", "a", "sub/b", "sub/deep/c"):
            (context / name).write_text(name)
        return context

    def test_what_is_sent(self, context: Path) -> None:
        (context / "link").symlink_to("a")
        (context / "loop").symlink_to(".")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(context / "s"))
        (context / ".dockerignore").write_text("sub\n!sub/deep\n")
        for for_buildkit in (False, True):
            data = self.pack(context, context / "Dockerfile", for_buildkit=for_buildkit)
            assert (data[:2] == b"\x1f\x8b") == for_buildkit
            data = gzip.decompress(data) if for_buildkit else data
            assert set(names(data)) == {
                *(".dockerignore", "Dockerfile", "a", "link", "loop"),
                *("sub/deep", "sub/deep/c"),
            }
            assert len(set(names(data))) == len(names(data))
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                assert {(entry.uid, entry.gid, entry.uname) for entry in archive} == {(0, 0, "")}

    @pytest.mark.parametrize(
        ("own", "sent"),
        [
            (None, b".dockerignore\nDockerfile\n"),
            ("Docker*\n", b"Docker*\n\nDockerfile\n"),
            ("*\n!a\n", b".dockerignore\nDockerfile\n"),
        ],
    )
    def test_a_dockerfile_that_is_ignored_is_sent_for_the_builder_only(
        self, own: str | None, sent: bytes, context: Path
    ) -> None:
        (context / "Dockerfile.dockerignore").write_text("Docker*\n")
        if own is not None:
            (context / "Dockerfile.dockerignore").unlink()
            (context / ".dockerignore").write_text(own)
        data = texts(self.pack(context, context / "Dockerfile"))
        assert data["Dockerfile"] == b"Dockerfile"
        assert data[".dockerignore"] == sent
        packed = self.pack(context, context / "Dockerfile", for_buildkit=True)
        assert texts(gzip.decompress(packed))["Dockerfile"] == b"Dockerfile"

    def test_a_dockerfile_from_elsewhere_has_one_name(self, context: Path, tmp_path: Path) -> None:
        other = tmp_path / "Dockerfile"
        other.write_text("FROM scratch\n")
        for place in (other, context / ".." / "Dockerfile"):
            assert name_in_context(context, place) == ".dockerfile.sifdeck"
        assert name_in_context(context, context / "sub" / ".." / "Dockerfile") == "Dockerfile"
        data = texts(self.pack(context, other))
        assert data[".dockerfile.sifdeck"] == b"FROM scratch\n"
        assert data["Dockerfile"] == b"Dockerfile"
        assert data[".dockerignore"] == b".dockerignore\n.dockerfile.sifdeck\n"
        packed = self.pack(context, other, for_buildkit=True)
        assert ".dockerignore" not in names(gzip.decompress(packed))

    def test_its_own_ignore_file_comes_first(self, tmp_path: Path) -> None:
        (tmp_path / ".dockerignore").write_text("a\n")
        assert read_ignore(tmp_path, tmp_path / "Dockerfile").ignores("a")
        (tmp_path / "Dockerfile.dockerignore").write_text("b\n")
        ignore = read_ignore(tmp_path, tmp_path / "Dockerfile")
        assert (ignore.ignores("a"), ignore.ignores("b")) == (False, True)
