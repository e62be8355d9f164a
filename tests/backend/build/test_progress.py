"""What builders say, turned into events: recorded lines, made-up bytes."""

from __future__ import annotations

import base64
import json
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.build.buildah import StepLog
from backend.build.buildkit import RawJson
from backend.build.docker import DOCKER
from backend.build.dockerfile import parse_dockerfile
from backend.build.solve import SolveLog
from backend.build.trace import feed_trace
from backend.errors import FormatError
from backend.events import Event, Note, Output, Phase, Step

if TYPE_CHECKING:
    from collections.abc import Sequence

DOCKERFILE = parse_dockerfile(
    "FROM a AS build\n\nRUN make \\\n  all\nFROM b\nCOPY --from=build x y\n"
)


def told(happened: Sequence[Event]) -> list[tuple[object, ...]]:
    """Return events as short tuples."""
    out: list[tuple[object, ...]] = []
    for event in happened:
        match event:
            case Step():
                out.append((event.number, event.state, event.line))
            case Output():
                out.append((event.step, event.text))
            case Phase():
                out.append((event.name, event.state))
            case _:
                out.append((event,))
    return out


class TestBuildah:
    def feed(self, text: str) -> tuple[list[Event], StepLog]:
        happened: list[Event] = []
        log = StepLog(DOCKERFILE, "", happened.append)
        for line in text.splitlines():
            log.line(line)
        return happened, log

    def test_stages(self) -> None:
        happened, log = self.feed(
            "Trying to pull h/a:latest...\n"
            "[1/2] STEP 1/2: FROM a AS build\n"
            "[1/2] STEP 2/2: RUN make   all\n"
            "cc x.c\n"
            "--> 856e71902c4\n"
            f"[2/2] STEP 1/2: FROM {'5' * 64}\n"
            "[2/2] STEP 2/2: COPY --from=build x y\n"
            "--> Using cache 856e71902c4dfc71267046af950d7c4bc03b2963830d8420df5b72a43d33f516\n"
            "--> 856e71902c4\n"
            "[2/2] COMMIT\n"
        )
        log.close()
        assert told(happened) == [
            (0, "Trying to pull h/a:latest..."),
            (1, "waiting", 1),
            (1, "running", 1),
            (1, "done", 1),
            (2, "waiting", 3),
            (2, "running", 3),
            (2, "cc x.c"),
            (2, "done", 3),
            (3, "waiting", 5),
            (3, "running", 5),
            (3, "done", 5),
            (4, "waiting", 6),
            (4, "running", 6),
            (4, "cached", 6),
        ]
        assert {event.total for event in happened if isinstance(event, Step)} == {4}
        names = {event.number: event.name for event in happened if isinstance(event, Step)}
        assert names[3] == "FROM b"
        assert log.good == ("856e71902c4", 4)

    def test_a_program_may_print_what_the_builder_prints(self) -> None:
        happened, _ = self.feed("STEP 1/3: FROM a\nSTEP 2/3: RUN x\nSTEP 7/9: RUN evil\n")
        assert told(happened)[-1] == (2, "STEP 7/9: RUN evil")

    @pytest.mark.parametrize(
        "line",
        [
            'Error: building at STEP "RUN x": exit status 3',
            'Error: error building at STEP "RUN x": error while running runtime: exit status 3',
        ],
    )
    def test_a_failure(self, line: str) -> None:
        happened, log = self.feed(
            f"STEP 1/2: FROM a\nSTEP 2/2: RUN x\nno\nsubprocess exited with status 3\n{line}"
        )
        error = log.error("status 125")
        last = happened[-1]
        assert isinstance(last, Step)
        assert last.state == "failed"
        assert last.error.endswith("exit status 3")
        assert error.kept == "the step before it is in the builder's cache"
        assert error.message.startswith("step 2 failed (line 3 of the Dockerfile): RUN x")
        assert told(happened)[-2] == (2, "no")

    @pytest.mark.parametrize(
        ("line", "hint"), [("sh: Exec format error", "qemu-user-static"), ("sh: no", "")]
    )
    def test_programs_for_another_processor(self, line: str, hint: str) -> None:
        log = StepLog(parse_dockerfile("FROM a\nRUN x\n"), "", lambda _: None)
        for text in ("STEP 1/2: FROM a", "STEP 2/2: RUN x", line, "Error: exit status 1"):
            log.line(text)
        error = log.error("")
        assert error.message == "step 2 failed (line 2 of the Dockerfile): RUN x"
        assert hint in error.hint
        assert bool(error.hint) == bool(hint)

    def test_what_the_builder_does_not_know_is_said(self) -> None:
        happened: list[Event] = []
        StepLog(parse_dockerfile("# syntax=x/y:1\nFROM a\n"), "", happened.append)
        assert [event.text for event in happened if isinstance(event, Note)] == [
            "This builder does not look at '# syntax=x/y:1'"
        ]

    def test_a_failure_before_the_first_step(self) -> None:
        happened, log = self.feed("Error: no such stage:\nfatal: really\n")
        error = log.error("buildah ended with status 125")
        assert (error.message, error.why) == ("the build failed", "no such stage: fatal: really")
        assert happened == []

    def test_a_program_may_speak_of_errors_too(self) -> None:
        happened, log = self.feed(
            "STEP 1/2: FROM a\nSTEP 2/2: RUN x\nError: No package matches\n"
            'Error: building at STEP "RUN x": exit status 1'
        )
        assert told(happened)[-1] == (2, "Error: No package matches")
        assert log.error("").why == "exit status 1"

    def test_the_last_good_layer_is_that_of_the_same_stage(self) -> None:
        for text, good in (
            ("STEP 1/2: FROM a\n", None),
            ("STEP 1/2: FROM a\nSTEP 2/2: RUN x\n", ("a", 1)),
            ("STEP 1/2: FROM scratch\nSTEP 2/2: RUN x\n", None),
            ("STEP 1/3: FROM a\nSTEP 2/3: RUN x\n--> 856e71902c4\nSTEP 3/3: RUN y\n",
             ("856e71902c4", 2)),
            ("[1/2] STEP 1/1: FROM a\n--> 856e71902c4\n[2/2] STEP 1/2: FROM b\n", None),
        ):  # fmt: skip
            assert self.feed(text)[1].good == good


def test_the_classic_builder() -> None:
    happened: list[Event] = []
    log = StepLog(DOCKERFILE, "", happened.append, DOCKER)
    for line in (
        "Step 1/2 : FROM a AS build",
        " ---> 1456eb87fba1",
        "Step 2/2 : RUN make   all",
        " ---> Running in 0123456789ab",
        "cc x.c",
        "Removing intermediate container 0123456789ab",
        " ---> 710d76124c6b",
        "Successfully built 710d76124c6b",
    ):
        log.line(line)
    assert told(happened) == [
        (1, "waiting", 1),
        (1, "running", 1),
        (1, "done", 1),
        (2, "waiting", 3),
        (2, "running", 3),
        (2, "cc x.c"),
        (2, "done", 3),
    ]


def status(**members: object) -> str:
    return json.dumps(members)


RECORDED = [
    status(
        vertexes=[
            {"digest": "sha256:i", "name": "[internal] load build definition from Dockerfile"},
            {"digest": "sha256:f", "name": "[build 1/2] FROM docker.io/library/a@sha256:00"},
            {"digest": "sha256:r", "inputs": ["sha256:f"], "name": "[build 2/2] RUN make   all"},
            {"digest": "sha256:c", "name": "[stage-1 2/2] COPY --from=build x y"},
        ]
    ),
    status(
        vertexes=[
            {
                "digest": "sha256:f",
                "name": "[build 1/2] FROM docker.io/library/a@sha256:00",
                "started": "2026-11-23T15:00:00.123456789Z",
                "completed": "2026-11-23T15:00:00.223456789Z",
                "cached": True,
            }
        ]
    ),
    status(
        vertexes=[
            {
                "digest": "sha256:r",
                "name": "[build 2/2] RUN make   all",
                "started": "2026-11-23T15:00:01Z",
            }
        ],
        statuses=[{"id": "x", "vertex": "sha256:r", "current": 3, "total": 9}],
    ),
    status(
        logs=[
            {"vertex": "sha256:r", "stream": 1, "data": base64.b64encode(b"cc a.c\ncc ").decode()},
            {
                "vertex": "sha256:r",
                "stream": 2,
                "data": base64.b64encode(b"b.c\n 9%\r10%").decode(),
            },
        ]
    ),
    status(
        vertexes=[
            {
                "digest": "sha256:r",
                "name": "[build 2/2] RUN make   all",
                "started": "2026-11-23T15:00:01Z",
                "completed": "2026-11-23T15:00:03.5Z",
            },
            {
                "digest": "sha256:e",
                "name": "exporting to oci image format",
                "started": "2026-11-23T15:00:04Z",
            },
        ]
    ),
]


class TestRawjson:
    @pytest.mark.parametrize("indent", [None, 2])
    def test_a_recorded_build(self, indent: int | None) -> None:
        # buildctl prints an object a line; buildx 0.13 indents them.
        as_printed = [
            line
            for entry in RECORDED
            for line in json.dumps(json.loads(entry), indent=indent).splitlines()
        ]
        happened: list[Event] = []
        log = SolveLog(DOCKERFILE, "", happened.append)
        reader = RawJson(log)
        for line in ['#0 building with "x" instance', *as_printed]:
            reader.line(line)
        log.close()
        assert told(happened) == [
            (1, "waiting", 1),
            (2, "waiting", 3),
            (3, "waiting", 6),
            (1, "cached", 1),
            (2, "running", 3),
            (2, "cc a.c"),
            (2, "cc b.c"),
            (2, " 9%"),
            (2, "done", 3),
            ("export", "running"),
            (2, "10%"),
        ]
        ended = [event for event in happened if isinstance(event, Step) and event.state == "done"]
        assert ended[0].seconds == pytest.approx(2.5)

    def test_a_failure(self) -> None:
        happened: list[Event] = []
        log = SolveLog(DOCKERFILE, "", happened.append)
        name = "[build 2/2] RUN make   all"
        failed = {"digest": "sha256:r", "name": name, "error": 'process "make" did: exit code: 2'}
        reader = RawJson(log)
        reader.line(status(vertexes=[failed]))
        reader.line("ERROR: failed to solve: process did: exit code: 2")
        error = log.error("docker ended with status 1")
        assert error.message == "step 1 failed (line 3 of the Dockerfile): RUN make   all"
        assert error.why == 'process "make" did: exit code: 2'

    def test_a_failure_before_any_step(self) -> None:
        log = SolveLog(DOCKERFILE, "", lambda _: None)
        failed = {"digest": "i", "name": "[internal] load metadata for h/a", "error": "401"}
        RawJson(log).line(status(vertexes=[failed]))
        assert log.error("status 1").why == "[internal] load metadata for h/a: 401"

    @given(st.text())
    def test_any_line_is_taken_or_refused(self, text: str) -> None:
        log = SolveLog(DOCKERFILE, "", lambda _: None)
        for line in (text, "{" + text, json.dumps({"vertexes": text, "logs": [text]})):
            try:
                RawJson(log).line(line)
            except FormatError:
                continue

    def test_an_object_without_an_end(self) -> None:
        reader = RawJson(SolveLog(DOCKERFILE, "", lambda _: None))
        for _ in range(8):
            reader.line("{" + " " * ((1 << 20) - 1))
        with pytest.raises(FormatError, match="has no end"):
            reader.line(" ")


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: int | bytes) -> bytes:
    """Return a protobuf field: a number as varint, bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def moment(seconds: int, nanos: int) -> bytes:
    return field(1, seconds) + field(2, nanos)


class TestTrace:
    def vertex(self, name: str, *more: bytes) -> bytes:
        return field(1, field(1, name.encode()) + field(3, name.encode()) + b"".join(more))

    def test_vertices_and_logs(self) -> None:
        happened: list[Event] = []
        log = SolveLog(DOCKERFILE, "", happened.append)
        run = "[build 2/2] RUN make   all"
        begun = field(5, moment(1_700_000_000, 500_000_000))
        feed_trace(self.vertex(run, begun), log)
        # Unknown fields of every wire type are skipped.
        skipped = field(2, b"status") + varint(9 << 3 | 1) + struct.pack("<d", 1.0)
        printed = field(1, run.encode()) + field(3, 2) + field(4, b"cc\n")
        feed_trace(skipped + varint(10 << 3 | 5) + b"1234" + field(3, printed), log)
        feed_trace(self.vertex(run, begun, field(6, moment(1_700_000_002, 0))), log)
        feed_trace(self.vertex("[stage-1 2/2] COPY --from=build x y", field(4, 1)), log)
        assert told(happened) == [
            (1, "waiting", 3),
            (1, "running", 3),
            (1, "cc"),
            (1, "done", 3),
            (2, "waiting", 6),
            (2, "cached", 6),
        ]
        done = happened[3]
        assert isinstance(done, Step)
        assert done.seconds == pytest.approx(1.5)

    def test_a_failure(self) -> None:
        log = SolveLog(DOCKERFILE, "", lambda _: None)
        feed_trace(self.vertex("[build 2/2] RUN make all", field(7, b"exit code: 2")), log)
        assert log.error("").why == "exit code: 2"

    def test_steps_of_one_message_are_numbered_in_their_order(self) -> None:
        happened: list[Event] = []
        log = SolveLog(DOCKERFILE, "", happened.append)
        late, early = "[build 2/2] RUN make   all", "[build 1/2] FROM h/a"
        feed_trace(self.vertex(late) + self.vertex(early), log)
        names = [event.name for event in happened if isinstance(event, Step)]
        assert [name.split()[0] for name in names] == ["FROM", "RUN"]

    @pytest.mark.parametrize("data", [b"\x0a\x05abc", b"\xff" * 11, b"\x0b", b"\x0a"])
    def test_damaged_messages(self, data: bytes) -> None:
        with pytest.raises(FormatError):
            feed_trace(data, SolveLog(DOCKERFILE, "", lambda _: None))

    @given(st.binary())
    def test_any_bytes_are_taken_or_refused(self, data: bytes) -> None:
        log = SolveLog(DOCKERFILE, "", lambda _: None)
        for message in (data, field(1, data), field(3, data)):
            try:
                feed_trace(message, log)
            except FormatError:
                continue
