"""What an ordinary start of a container imports: little, since imports are what takes the time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from backend.runtime import launcher
from tests.support import containers
from tests.support.imports import imported_by

pytestmark = pytest.mark.runtime

PLANNING = {"errno", "pwd", "time"}
"""Modules of Python that may be loaded to plan a start, after Python's own start."""
NEVER = {"asyncio", "click", "dataclasses", "logging", "pathlib", "secrets", "typing", "uuid"}
"""Those that are not loaded to read an image's file, which is done once, either."""
LAUNCHING = {"dataclasses", "typing", "re", "json", "pathlib", "contextlib", "subprocess", "socket"}
"""What the launcher does not load; it stays as long as the container does."""


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SIFDECK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("SIFDECK_STATE_DIR", str(tmp_path / "state"))
    return str(containers.busybox(tmp_path))


@pytest.mark.parametrize("flags", [[], ["--env", "A=1", "-B", "/:/host:ro"]])
def test_planning_a_start_imports_little(image: str, flags: list[str]) -> None:
    command = ("exec", *flags, image, "true")
    assert not imported_by(*command) & NEVER
    assert imported_by(*command) <= PLANNING


def test_the_launcher_imports_little() -> None:
    root = str(Path(launcher.__file__).parents[2])
    script = (
        f"import sys; sys.path.append({root!r})\n"
        "import backend.runtime.launcher; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True
    )
    assert not LAUNCHING & set(done.stdout.split())
