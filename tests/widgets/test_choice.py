"""One of a few words: all of them are shown, or it is marked that there are more."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult
from textual.content import Content

from widgets.choice import Choice

WORDS = ("oci-sif", "sif", "oci", "oci-archive", "docker-archive", "sandbox")


class Choices(App[None]):
    def compose(self) -> ComposeResult:
        yield Choice(WORDS, "sif")


def drawn(choice: Choice) -> str:
    content = choice.render()
    assert isinstance(content, Content)
    return content.plain.rstrip()


@pytest.mark.parametrize(
    ("width", "value", "text"),
    [
        (
            90,
            "sif",
            "( ) oci-sif  (o) sif  ( ) oci  ( ) oci-archive  ( ) docker-archive  ( ) sandbox",
        ),
        (61, "sif", "oci-sif  (o) sif  oci  oci-archive  docker-archive  sandbox"),
        (40, "sif", "oci-sif  (o) sif  oci  oci-archive  \u2026"),
        (40, "sandbox", "\u2026  docker-archive  (o) sandbox"),
        (40, "docker-archive", "\u2026  (o) docker-archive  sandbox"),
    ],
)
async def test_the_chosen_word_is_in_sight_at_every_width(
    width: int, value: str, text: str
) -> None:
    app = Choices()
    async with app.run_test(size=(width, 3)) as pilot:
        choice = app.query_one(Choice)
        choice.choose(value)
        await pilot.pause()
        assert drawn(choice) == text
        assert len(drawn(choice)) <= width


async def test_a_mark_is_clicked_for_what_it_hides() -> None:
    app = Choices()
    async with app.run_test(size=(40, 3)) as pilot:
        choice = app.query_one(Choice)
        await pilot.click(Choice, offset=(36, 0))
        assert choice.value == "docker-archive"
        await pilot.click(Choice, offset=(0, 0))
        assert choice.value == "oci-archive"
