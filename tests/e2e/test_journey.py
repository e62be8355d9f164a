"""First light: pull a real image into one file, look inside, run it, from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import images

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.registry import Registry

    Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.registry, pytest.mark.runtime]


@pytest.fixture
def sifdeck(tmp_path: Path) -> Run:
    """Return a way to run the command line in a folder of the test's own."""
    folder = tmp_path / "work"
    folder.mkdir()

    def run(*args: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "app", *args],
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )

    return run


@pytest.fixture
def uri(registry: Registry) -> str:
    """Return the reference of an image that can run, of two layers."""
    upper = images.layer(
        images.Entry(name="etc/.wh.group"), images.Entry(name="etc/motd", data=b"hi")
    )
    config = {
        "Entrypoint": ["/bin/echo", "entry"],
        "Cmd": ["default"],
        "Env": ["PATH=/bin", "COLOUR=green"],
        "WorkingDir": "/etc",
        "Labels": {"org.example": "yes"},
    }
    made = images.image([images.busybox_layer(), upper], config=config)
    registry.push(made, "journey", "v1")
    return f"docker://{registry.host}/journey:v1"


def test_pull_look_run(sifdeck: Run, uri: str) -> None:
    assert sifdeck("pull", "--no-https", uri).returncode == 0
    file = "journey_v1.oci.sif"
    listed = sifdeck("sif", "list", file).stdout.splitlines()
    assert [line.rpartition("|")[2] for line in listed[3:]] == [*["OCI.Blob"] * 3, "OCI.RootIndex"]
    known = json.loads(sifdeck("inspect", "--json", file).stdout)
    assert "yes" in json.dumps(known)
    assert uri in json.dumps(known)

    assert sifdeck("run", file).stdout == "entry default\n"
    assert sifdeck("run", file, "a", "b c").stdout == "entry a b c\n"
    assert sifdeck("exec", file, "/bin/sh", "-c", "exit 37").returncode == 37
    seen = sifdeck("exec", file, "/bin/sh", "-c", "pwd; echo $COLOUR; ls group; cat motd").stdout
    assert seen == "/etc\ngreen\nhi"
    assert sifdeck("shell", file, text="echo shell-$COLOUR; exit 4\n").stdout == "shell-green\n"


def test_run_from_the_registry_uses_the_cache(sifdeck: Run, uri: str, clean_home: Path) -> None:
    for _ in range(2):
        done = sifdeck("run", "--no-https", uri, "from the registry")
        assert done.stdout == "entry from the registry\n", done.stderr
        assert done.returncode == 0
    assert len(list(clean_home.rglob("*.oci.sif"))) == 1


def test_a_pull_as_a_job(sifdeck: Run, uri: str, tmp_path: Path) -> None:
    started = sifdeck("pull", "--job", "--no-https", uri)
    number = started.stdout.strip()
    assert number == "1", started.stderr
    state = "queued"
    deadline = time.monotonic() + 60
    while state in {"queued", "running"} and time.monotonic() < deadline:
        time.sleep(0.1)
        (job,) = json.loads(sifdeck("jobs", "--json").stdout)
        state = job["state"]
    assert state == "done", sifdeck("jobs", "log", number).stdout
    assert (tmp_path / "work" / "journey_v1.oci.sif").exists()
    assert "journey" in sifdeck("jobs", "log", number).stdout
