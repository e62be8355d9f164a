"""Events survive the way through a line of JSON, and nothing else does."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend import events
from backend.errors import FormatError

DIGEST = "sha256:" + "0" * 64

EVENTS: list[events.Event] = [
    events.Started(verb="pull", title="docker://x", target="x.oci.sif"),
    events.Resolved(reference="docker://x", digest=DIGEST, platform="linux/amd64", total=12),
    events.Blob(digest=DIGEST, role="layer", index=0, state="downloading", done=1, size=2),
    events.Phase(name="convert", done=5, total=9),
    events.Step(number=1, total=2, name="RUN x", state="done", seconds=1.5, line=3),
    events.Output(text="\x1b[31mred\ud800", step=1, stream="stderr"),
    events.Note(level="warning", text="careful"),
    events.Retained(builder="buildah", image="28103bcf1ed", step=2),
    events.Finished(path="x.oci.sif", digest=DIGEST, size=9),
    events.Failed(message="no", why="because", kept="2 layers", hint="try again", exit_code=13),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.kind)
def test_round_trip(event: events.Event) -> None:
    line = events.encode(event)
    assert "\n" not in line
    assert events.decode(line) == event


def test_every_event_is_tried() -> None:
    assert {type(event) for event in EVENTS} == set(events._KINDS.values())


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_garbage_is_refused(line: bytes | str) -> None:
    with pytest.raises(FormatError):
        events.decode(line)


@pytest.mark.parametrize(
    "change", [{"done": "many"}, {"done": True}, {"extra": 1}, {"size": None}, {"kind": "nothing"}]
)
def test_fields_of_other_types_are_refused(change: dict[str, object]) -> None:
    fields = json.loads(events.encode(EVENTS[2])) | change
    with pytest.raises(FormatError):
        events.decode(json.dumps(fields))
