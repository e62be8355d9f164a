"""Try and both shipped labs from start to end, as root and as others, with tools and without."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.containers import SIFDECK
from tests.support.users import WITH_ONE, WITH_RANGE, Somebody, somebody

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.runtime

_HIDDEN = "crun runc squashfuse squashfuse_ll skopeo fuse-overlayfs unsquashfs umoci"
"""Programs that stand in no PATH of the test, nor anywhere else where we would look."""
_BUILDERS = "buildah podman docker dockerd buildkitd buildctl"
_HIDE = """
for program in {hidden}; do
    for folder in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin; do
        if test -e "$folder/$program"; then mount --bind /dev/null "$folder/$program"; fi
    done
done
exec "$@"
"""


def bare(command: list[str], hidden: str) -> list[str]:
    """Return a command that runs another with the hidden programs out of reach."""
    return ["unshare", "--mount", "sh", "-ec", _HIDE.format(hidden=hidden), "sh", *command]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can reach."""
    path = Path(tempfile.mkdtemp(prefix="sifdeck-labs-"))
    path.chmod(0o1777)
    yield path
    subprocess.run(["rm", "-rf", str(path)], check=True)


def start(who: Somebody, folder: Path, *argv: str, hidden: str) -> subprocess.Popen[str]:
    command = who.command([SIFDECK, *argv])
    home = folder / f"home-{argv[-1]}"
    home.mkdir()
    shutil.chown(home, who.uid, who.gid)
    environment = {**who.environment(), "HOME": str(home), "TMPDIR": str(folder)}
    return subprocess.Popen(
        bare(command, hidden) if hidden else command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=folder,
    )


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("root", ""),
        ("root", _HIDDEN),
        (WITH_RANGE, ""),
        (WITH_ONE, f"{_HIDDEN} {_BUILDERS}"),
    ],
    ids=["root", "root-bare", "user", "user-bare"],
)
def test_everything_from_start_to_end(name: str, hidden: str, folder: Path) -> None:
    who = somebody(name, fuse=not hidden)
    undone = ["build"] if _BUILDERS in hidden else []
    # Side by side: this is also what a classroom does to a node.
    running = [
        start(who, folder, "try", "--json", "--check", hidden=hidden),
        start(who, folder, "lab", "rehearse", "--json", "oci-mode", hidden=hidden),
        start(who, folder, "lab", "rehearse", "--json", "inside-images", hidden=hidden),
    ]
    printed = [process.communicate(timeout=200)[0] for process in running]
    tried, *rehearsed = ([json.loads(line) for line in text.splitlines()] for text in printed)
    states = {row["name"]: row["state"] for row in tried}
    assert len(states) == 10
    assert [name for name, state in states.items() if state != "ok"] == undone, tried
    assert "failed" not in states.values(), tried
    skipped = [row["step"] for rows in rehearsed for row in rows if row["skipped"]]
    assert skipped == undone
    for rows in rehearsed:
        assert len(rows) >= 6
        faults = {row["step"]: f"{row['fault']}: {row['output']}" for row in rows if row["fault"]}
        assert faults == {}
    assert not [path for path in folder.iterdir() if path.name.startswith("sifdeck-")]


def test_try_is_a_self_test(tmp_path: Path) -> None:
    """What does not work is named, and the exit status says so."""
    # An installation whose image greets in other words than the probe expects.
    script = (
        "import sys, backend.sample as sample, backend.selftest as selftest\n"
        "wanted = {'login', 'pull', 'run'}\n"
        "selftest._PROBES = [probe for probe in selftest._PROBES if probe[0] in wanted]\n"
        "sample._GREET = sample._GREET.replace('{word}', 'Goodbye')\n"
        "from app.cli.main import main\n"
        "sys.exit(main(['try', '--check']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        timeout=200,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert [line[:4] for line in lines] == ["ok  ", "ok  ", "FAIL"]
    assert "run" in lines[-1]
    assert "Hello, Ada!" in lines[-1]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("sifdeck-")]
