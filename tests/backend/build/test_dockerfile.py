from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backend.build.dockerfile import Locator, parse_dockerfile

TEXT = """\
# syntax=docker/dockerfile:1.7
# a comment that ends the directives
ARG VERSION=12
# in between

ARG BASE=debian:${VERSION}
FROM ${BASE} AS Build
RUN echo one && \\
    # why
    echo two
RUN <<EOF1 cat <<-EOF2
RUN not me
EOF1
\tEOF2
COPY --from=tools /bin/x /x
FROM golang AS tools
FROM scratch AS lost
RUN false
FROM Build
COPY --from=0 /y /y
RUN --mount=type=bind,from=ghcr.io/x/y:1,target=/z true
run echo one && echo two
"""


def test_stages_lines_and_texts() -> None:
    parsed = parse_dockerfile(TEXT)
    assert parsed.syntax == "docker/dockerfile:1.7"
    assert [(stage.base, stage.name) for stage in parsed.stages] == [
        ("debian:12", "build"),
        ("golang", "tools"),
        ("scratch", "lost"),
        ("Build", ""),
    ]
    found = [(i.line, i.keyword) for stage in parsed.stages for i in stage.instructions]
    assert found == [
        (7, "FROM"),
        (8, "RUN"),
        (11, "RUN"),
        (15, "COPY"),
        (16, "FROM"),
        (17, "FROM"),
        (18, "RUN"),
        (19, "FROM"),
        (20, "COPY"),
        (21, "RUN"),
        (22, "RUN"),
    ]
    assert parsed.stages[0].instructions[1].text == "RUN echo one && echo two"


def test_a_later_stage_may_not_be_copied_from_by_name() -> None:
    # ``tools`` comes after the stage that names it: there it is an image.
    assert "tools" not in [stage.name for stage in parse_dockerfile(TEXT).needed()]


def test_only_what_the_target_needs() -> None:
    parsed = parse_dockerfile(TEXT)
    assert [stage.name for stage in parsed.needed()] == ["build", ""]
    assert [stage.name for stage in parsed.needed("LOST")] == ["lost"]
    assert [stage.name for stage in parsed.needed("1")] == ["tools"]
    assert parse_dockerfile("").needed() == ()


def test_images_to_pull() -> None:
    text = "ARG A\nFROM $A\nCOPY --from=docker.io/library/x /a /b\nFROM scratch\nFROM 0\n"
    assert parse_dockerfile(text, {"A": "mine:1"}).images("0") == (
        "mine:1",
        "docker.io/library/x",
    )
    assert parse_dockerfile(text).images("0") == ("docker.io/library/x",)
    assert "docker/dockerfile:1.7" in parse_dockerfile(TEXT).images()
    assert parse_dockerfile("ARG A=\nFROM ${A:-b}-${A:+c}x").images() == ("b-x",)


def test_another_escape_character() -> None:
    parsed = parse_dockerfile("# escape=`\nFROM a\nRUN dir C:\\\nRUN x `\n  y\n")
    texts = [instruction.text for instruction in parsed.stages[0].instructions]
    assert texts == ["FROM a", "RUN dir C:\\", "RUN x y"]


def line_of(locator: Locator, text: str, stage: str = "") -> int:
    found = locator.find(text, stage)
    return found.line if found else 0


class TestLocator:
    def test_an_instruction_is_found_once(self) -> None:
        locator = Locator(parse_dockerfile("FROM a\nRUN make\nRUN x\nRUN make\n").stages)
        assert [line_of(locator, text) for text in ("RUN make", "RUN  make", "RUN x")] == [2, 4, 3]
        assert line_of(locator, "RUN make") == 0

    def test_a_heredoc_is_told_with_its_text(self) -> None:
        text = "FROM a\nRUN x\nRUN <<EOF\nmake\nEOF\nRUN <<END\nclean\nEND\n"
        locator = Locator(parse_dockerfile(text).stages)
        assert line_of(locator, "RUN <<END (clean)") == 6
        assert line_of(locator, "RUN <<EOF (make)") == 3
        assert line_of(locator, "RUN x (y)") == 2  # no more than a guess

    def test_its_stage_tells_it_from_the_same_elsewhere(self) -> None:
        text = "FROM a AS one\nRUN make\nFROM b AS two\nRUN make\n"
        locator = Locator(parse_dockerfile(text).stages)
        assert line_of(locator, "RUN make", "two") == 4
        assert line_of(locator, "RUN make", "one") == 2

    def test_with_variables_replaced_the_keyword_counts(self) -> None:
        locator = Locator(parse_dockerfile("FROM $X\nCOPY $A /a\nENV A=b\n").stages)
        assert line_of(locator, "COPY file /a") == 2
        assert line_of(locator, "FROM docker.io/library/x@sha256:00") == 1
        assert line_of(locator, "WORKDIR /x") == 0


@given(st.text())
def test_any_text_is_parsed(text: str) -> None:
    parsed = parse_dockerfile(text)
    parsed.images()
    Locator(parsed.needed()).find(text)


@given(
    st.lists(st.sampled_from(["FROM a", "FROM b AS c", "COPY --from=c x y", "RUN <<E", "E", "\\"]))
)
def test_any_lines_are_parsed(lines: list[str]) -> None:
    parse_dockerfile("\n".join(lines)).images()
