"""What a person types, and what it means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import UsageError
from backend.reference import Reference, parse, parse_name

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "shown", "file"),
    [
        ("docker://ubuntu", "docker://docker.io/library/ubuntu:latest", "ubuntu_latest.oci.sif"),
        (
            "docker://ubuntu:22.04",
            "docker://docker.io/library/ubuntu:22.04",
            "ubuntu_22.04.oci.sif",
        ),
        ("docker://alice/tool:v1", "docker://docker.io/alice/tool:v1", "tool_v1.oci.sif"),
        ("docker://ghcr.io/a/b/c:v1", "docker://ghcr.io/a/b/c:v1", "c_v1.oci.sif"),
        ("docker://localhost/x", "docker://localhost/x:latest", "x_latest.oci.sif"),
        ("docker://localhost:5000/x:y", "docker://localhost:5000/x:y", "x_y.oci.sif"),
        ("docker://[::1]:5000/x:y", "docker://[::1]:5000/x:y", "x_y.oci.sif"),
        ("docker://index.docker.io/a/b", "docker://docker.io/a/b:latest", "b_latest.oci.sif"),
        (
            f"docker://quay.io/a/b@sha256:{HEX}",
            f"docker://quay.io/a/b@sha256:{HEX}",
            f"b@sha256_{HEX}.oci.sif",
        ),
        (
            f"docker://quay.io/a/b:t@sha256:{HEX}",
            f"docker://quay.io/a/b:t@sha256:{HEX}",
            "b_t.oci.sif",
        ),
        ("oras://ghcr.io/a/b:1", "oras://ghcr.io/a/b:1", "b_1.oci.sif"),
        ("oci:/data/layout:v2", "oci:/data/layout:v2", "layout_v2.oci.sif"),
        (f"oci:layout@sha256:{HEX}", f"oci:layout@sha256:{HEX}", f"layout@sha256_{HEX}.oci.sif"),
        ("oci-archive:x/my.tar", "oci-archive:x/my.tar", "my_latest.oci.sif"),
        ("docker-daemon:a/b:1", "docker-daemon:docker.io/a/b:1", "b_1.oci.sif"),
        ("https://h/p/image.sif?x=1", "https://h/p/image.sif?x=1", "image.sif"),
    ],
)
def test_meaning(text: str, shown: str, file: str) -> None:
    reference = parse(text)
    assert str(reference) == shown
    assert reference.file_name() == file
    if reference.transport == "docker":
        assert parse(shown) == reference


@pytest.mark.parametrize("text", ["x.sif", "./x", "/a/b.oci.sif", "file:///a/b", "a:b.sif"])
def test_files(text: str) -> None:
    assert parse(text) == Reference(transport="file", path=text.removeprefix("file://"))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "not an image"),
        ("docker:ubuntu", "slashes"),
        ("docker://Ubuntu", "repository"),
        ("docker://", "has no name"),
        ("docker://host:99999999/x", "host"),
        ("docker://x:", "tag"),
        ("docker://x:" + "t" * 129, "tag"),
        ("docker://x@sha256:12", "digest"),
        ("docker://x\x1b[31m", "not an image"),
        ("https://", "address"),
        ("oci:", "names no file"),
        ("docker://a/../b", "repository"),
    ],
)
def test_refused(text: str, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        parse(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("Docker://x/y", "write docker://x/y"),
        ("shub://x/y", "known are docker, oras, library,"),
        ("docker:/ubuntu", "write docker://ubuntu"),
        ("docker://localhost:5000", "write docker://localhost:5000/NAME:TAG"),
        ("docker://127.0.0.1:5000", "write docker://127.0.0.1:5000/NAME:TAG"),
        ("docker://r.example:65536/x", "as localhost:5000"),
        ("docker://alice:planted@r.example/x", "registry login -u USER docker://r.example"),
    ],
)
def test_refusals_say_how_it_is_written(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert hint in caught.value.hint
    assert "planted" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://alice:planted@h.example/x.sif", "https://alice:***@h.example/x.sif"),
        (
            "https://h.example/x.sif?X-Amz-Signature=planted&X-Amz-Date=1",
            "https://h.example/x.sif?X-Amz-Signature=***&X-Amz-Date=1",
        ),
        (
            "http://h.example/x?n=1&access_token=planted#x",
            "http://h.example/x?n=1&access_token=***#x",
        ),
    ],
)
def test_an_address_keeps_its_secret_and_does_not_show_it(text: str, shown: str) -> None:
    reference = parse(text)
    assert str(reference) == shown
    assert reference.path == text


@given(st.text(max_size=60), st.sampled_from(["docker://", "oras://", "oci:", "http://"]))
def test_any_text_parses_or_is_refused(text: str, prefix: str) -> None:
    try:
        name = parse(prefix + text).file_name()
    except UsageError as error:
        name = error.message
    assert "\x1b" not in name


def test_short_names_go_to_docker_hub() -> None:
    assert parse_name("python:3.12").registry == "docker.io"
    assert parse_name("python:3.12").repository == "library/python"
