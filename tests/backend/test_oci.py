"""OCI documents: what is read, and how what is wrong is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import FormatError, UsageError
from backend.oci.digest import parse_digest, short
from backend.oci.image import parse_config, parse_index, parse_manifest
from backend.oci.platform import Platform, host_platform, parse_platform
from tests.support import images

KEYS = ["config", "layers", "digest", "size", "mediaType", "manifests", "platform", "os", "urls"]
KEYS += ["annotations", "rootfs", "diff_ids", "history", "Env", "Labels"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


def test_a_manifest_and_its_config() -> None:
    made = images.image(
        [images.layer(images.Entry(name="a"))],
        config={
            "Env": ["A=1"],
            "Cmd": ["sh"],
            "User": "app",
            "Labels": {"x": "y"},
            "Volumes": {"/v": {}},
        },
    )
    manifest = parse_manifest(made.manifest)
    assert [layer.media_type for layer in manifest.layers] == [
        "application/vnd.oci.image.layer.v1.tar+gzip"
    ]
    config = parse_config(made.blobs[manifest.config.digest])
    assert (config.env, config.cmd, config.user) == (("A=1",), ("sh",), "app")
    assert config.labels == {"x": "y"}
    assert config.volumes == ("/v",)
    assert str(config.platform) == "linux/amd64"
    assert len(config.diff_ids) == 1
    assert manifest.to_json() == json.loads(made.manifest)


def test_an_index_names_platforms() -> None:
    made = images.image([])
    index = parse_index(images.index((made, "linux/amd64"), (made, "linux/arm/v7")))
    assert [str(entry.platform) for entry in index.manifests] == ["linux/amd64", "linux/arm/v7"]


def _manifest(**change: Any) -> bytes:
    document = json.loads(images.image([images.layer()]).manifest)
    for path, value in change.items():
        target = document
        *parents, last = [int(part) if part.isdigit() else part for part in path.split("__")]
        for part in parents:
            target = target[part]
        target[last] = value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers__0__size": -1}, r"layers\[0\].size is not a size"),
        ({"layers__0__size": 1.5}, r"layers\[0\].size is not a size"),
        ({"layers__0__digest": "sha256:xyz"}, r"layers\[0\]: not a digest"),
        ({"layers__0__annotations": {"a": 1}}, r"layers\[0\].annotations.a is not a string"),
        ({"config": None}, "config is missing"),
        ({"layers": {}}, "layers is not an array"),
        ({"layers": [{}] * 1025}, "1025 layers"),
    ],
)
def test_errors_name_the_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse_manifest(_manifest(**change))


def test_large_and_deep_documents_are_refused() -> None:
    with pytest.raises(FormatError, match="larger than 16 MiB"):
        parse_index(b" " * (16 << 20) + b"{}")
    with pytest.raises(FormatError, match="deeply"):
        parse_config(b"[" * 100_000 + b"]" * 100_000)


@given(JSON)
def test_any_document_parses_or_is_refused(document: Any) -> None:
    data = json.dumps(document).encode()
    for parser in (parse_manifest, parse_index, parse_config):
        try:
            parser(data)
        except FormatError:
            continue


@pytest.mark.parametrize(
    ("asked", "offered", "accepted"),
    [
        ("amd64", "linux/amd64", True),
        ("x86_64", "linux/amd64", True),
        ("arm64", "linux/arm64/v8", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm/v7", "linux/arm/v6", True),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("arm64", "linux/amd64", False),
        ("amd64", "windows/amd64", False),
    ],
)
def test_platforms(asked: str, offered: str, *, accepted: bool) -> None:
    assert parse_platform(asked).accepts(parse_platform(offered)) is accepted


def test_platform_text() -> None:
    assert str(Platform(os="linux", architecture="arm", variant="v7")) == "linux/arm/v7"
    assert host_platform().os == "linux"
    for text in ("", "a/b/c/d", "linux/", "/x"):
        with pytest.raises(UsageError):
            parse_platform(text)


def test_digests() -> None:
    text = "sha256:" + "0123456789abcdef" * 4
    assert short(parse_digest(text)) == "0123456789ab"
    for bad in ("", "sha256:", text.upper(), text + "0", "md5:" + "0" * 32, text + "\n"):
        with pytest.raises(FormatError):
            parse_digest(bad)
