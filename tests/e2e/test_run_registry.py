"""A container straight from a registry, through the cache."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from backend.history import read_journal
from tests.support import images
from tests.support.containers import SIFDECK, busybox
from tests.support.imports import imported_by

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.registry import Registry

pytestmark = [pytest.mark.registry, pytest.mark.runtime]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SIFDECK, "run", *arguments], capture_output=True, text=True, timeout=60, check=False,
        env=dict(os.environ), stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_run_from_a_registry_and_from_the_cache(registry: Registry) -> None:
    if os.getuid():
        pytest.skip("not root")
    config = {"Entrypoint": ["echo", "from"], "Cmd": ["registry"]}
    made = images.image([images.busybox_layer()], config=config)
    registry.push(made, "team/tool", "1")
    name = f"docker://{registry.host}/team/tool"
    first = run("--no-https", f"{name}:1")
    assert first.stdout == "from registry\n", first.stderr
    assert "tool" in first.stderr
    assert run("--no-https", f"{name}:1", "me").stdout == "from me\n"
    # Neither a digest nor --offline asks the registry.
    away = f"{name}@{made.digest}"
    before = len(registry.requests_for("team/tool"))
    assert run("--no-https", away).stdout == "from registry\n"
    assert run("--no-https", "--offline", f"{name}:1").stdout == "from registry\n"
    assert len(registry.requests_for("team/tool")) == before
    # Then what resolves references is not even loaded, for as long as they mean the same.
    for known in ([away], ["--offline", f"{name}:1"]):
        assert not imported_by("run", *known) & {"asyncio", "click", "typing"}
    other = images.image([images.busybox_layer()], config={"Cmd": ["echo", "another"]})
    registry.push(other, "team/tool", "1")
    assert run("--no-https", f"{name}:1").stdout == "another\n"
    assert run("--offline", f"{name}:1").stdout == "another\n"
    assert run(away).stdout == "from registry\n"
    assert run("--no-https", f"{name}:nosuch").returncode == 11


def test_a_name_without_a_registry_is_looked_up_as_by_pull(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.getuid():
        pytest.skip("not root")
    made = images.image([images.busybox_layer()], config={"Cmd": ["echo", "short"]})
    registry.push(made, "short/tool", "1")
    conf = tmp_path / "registries.conf"
    conf.write_text(f'[aliases]\n"tool" = "{registry.host}/short/tool"\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
    monkeypatch.chdir(tmp_path)
    assert run("tool:1").stdout == "short\n"
    conf.write_text(f'unqualified-search-registries = ["127.0.0.1:1", "{registry.host}"]\n')
    assert run("short/tool:1").returncode == 11  # a path, not a name
    registry.push(made, "found", "1")
    assert run("found:1").stdout == "short\n"
    before = len(registry.requests_for("found"))
    assert run("--offline", "found:1").stdout == "short\n"
    assert run("--offline", "lost:1").returncode == 11
    assert len(registry.requests_for("found")) == before
    conf.write_text("")
    missing = run("other:1")
    assert missing.returncode == 11
    assert "no such image: 'other:1'" in missing.stderr


@pytest.mark.parametrize("words", [["run"], ["--debug", "run"], ["run", "--profile", "quiet"]])
def test_a_run_is_noted_for_those_who_clean_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    if os.getuid():
        pytest.skip("not root")
    path = busybox(tmp_path, Cmd=["true"])
    (tmp_path / "config.toml").write_text('[profiles]\nquiet = ["--no-home"]\n')
    monkeypatch.setenv("SIFDECK_CONFIG_DIR", str(tmp_path))
    done = subprocess.run(
        [SIFDECK, *words, path], capture_output=True, text=True, timeout=60, check=False,
        env=dict(os.environ), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert read_journal()[str(path)].used > 0
