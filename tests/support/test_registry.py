"""The test registry itself serves what was pushed to it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.support.certificates import make_authority
from tests.support.images import digest, image, layer
from tests.support.registry import start_registry

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registry import Registry


def test_what_is_pushed_is_served(registry: Registry) -> None:
    made = image([layer()])
    pushed = registry.push_index("support/self", "both", (made, "linux/amd64"))
    data, media_type = registry.get_manifest("support/self", "both")
    assert digest(data) == pushed
    assert media_type == json.loads(data)["mediaType"]


def test_the_locked_registry_wants_a_password(locked_registry: Registry) -> None:
    made = image([layer()])
    assert locked_registry.push(made, "support/locked") == made.digest
    stranger = replace(locked_registry, headers={})
    assert stranger.request("GET", "/v2/")[0] == 401


def test_tls(tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    folder.mkdir()
    with start_registry(folder, authority=make_authority(tmp_path)) as running:
        assert running.push(image([layer()]), "support/tls")
