"""Devices: nodes by path, CDI files with all that they may ask for, and graphics processors."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from backend.runtime import devices
from tests.support import containers
from tests.support.users import WITH_ONE, WITH_RANGE, somebody

pytestmark = pytest.mark.runtime

CARD = """\
cdiVersion: "0.6.0"
kind: example.com/card
devices:
- name: one
  containerEdits:
    deviceNodes:
    - path: /dev/made-up
      hostPath: /dev/null
    mounts:
    - hostPath: {folder}/library.so
      containerPath: /opt/library.so
      options: [ro, nosuid, nodev, bind]
    env: [CARD=one]
    hooks:
    - hookName: createRuntime
      path: /bin/sh
      args: [sh, -c, "cat >{folder}/outside; test ! -e /opt/library.so"]
      timeout: 20
    - hookName: createContainer
      path: /bin/sh
      args: [sh, -c, "cat >{folder}/inside; echo $WORD >>{folder}/inside; echo said"]
      env: [WORD=given]
containerEdits:
  env: [ALL=yes]
"""


@pytest.fixture
def folder(open_folder: Path, request: pytest.FixtureRequest) -> Path:
    """Give a folder that every user can write to, with a library in it."""
    name: str = request.node.name
    made = open_folder / name
    made.mkdir()
    made.chmod(0o777)
    (made / "library.so").write_text("lib\n")
    return made


@pytest.mark.parametrize("name", ["root", WITH_RANGE, WITH_ONE])
def test_a_cdi_device(name: str, runtime: str, folder: Path, busybox: Path) -> None:
    (folder / "card.yaml").write_text(CARD.format(folder=folder))
    flags = ["--device", "example.com/card=one", "--cdi-dirs", str(folder), "--runtime", runtime]
    user = ["--fakeroot"] if (name, runtime) == (WITH_ONE, "runc") else []
    script = "echo $CARD $ALL; cat /opt/library.so; echo x >/dev/made-up; ls -l /dev/made-up"
    who = somebody(name)
    done = containers.sifdeck(who, "exec", *flags, *user, busybox, "sh", "-c", script, text=True)
    assert done.stdout.startswith("one yes\nlib\ncrw"), done.stderr
    assert json.loads((folder / "outside").read_text())["bundle"].endswith("/bundle")
    state, word, _ = (folder / "inside").read_text().rpartition("given\n")
    assert word == "given\n"
    assert json.loads(state)["bundle"].endswith("/bundle")


def test_a_json_file_and_what_is_wrong(folder: Path, busybox: Path) -> None:
    devices = [{"name": "0", "containerEdits": {"env": ["CARD=zero"]}}]
    document = {"cdiVersion": "0.6.0", "kind": "example.com/card", "devices": devices}
    (folder / "card.json").write_text(json.dumps(document))
    (folder / "broken.yaml").write_text("a: &a [x]\nb: *a\n")
    (folder / "new.json").write_text(
        json.dumps(
            {
                "kind": "example.com/new",
                "devices": [{"name": "1", "containerEdits": {"netDevices": []}}],
            }
        )
    )

    def attempt(device: str) -> subprocess.CompletedProcess[str]:
        flags = ["--device", device, "--cdi-dirs", str(folder)]
        script = ["sh", "-c", "echo $CARD"]
        return containers.sifdeck(somebody("root"), "exec", *flags, busybox, *script, text=True)

    assert attempt("example.com/card=0").stdout == "zero\n"
    missing = attempt("example.com/card=2")
    assert missing.returncode == 2
    assert "example.com/card=0" in missing.stderr
    assert "broken.yaml is no YAML" in missing.stderr
    assert "netDevices" in attempt("example.com/new=1").stderr
    assert attempt("nonsense").returncode == 2


def test_a_hook_that_fails_stops_the_start(runtime: str, folder: Path, busybox: Path) -> None:
    hook = {"hookName": "createContainer", "path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}
    devices = [{"name": "bad", "containerEdits": {"hooks": [hook]}}]
    (folder / "card.json").write_text(json.dumps({"kind": "example.com/x", "devices": devices}))
    flags = ["--device", "example.com/x=bad", "--cdi-dirs", str(folder), "--runtime", runtime]
    done = containers.sifdeck(somebody("root"), "exec", *flags, busybox, "echo", "ran", text=True)
    assert (done.stdout, done.returncode) == ("", 125)
    assert "hook" in done.stderr


def test_a_node_by_its_path(busybox: Path) -> None:
    flags = ["--device", "/dev/loop-control"]
    script = ["ls", "/dev/loop-control"]
    done = containers.sifdeck(somebody("root"), "exec", *flags, busybox, *script, text=True)
    assert done.stdout == "/dev/loop-control\n", done.stderr


_WITH_CARDS = """
folder=$1; shift
mkdir "$folder/disk"; mount -t tmpfs none "$folder/disk"; cd "$folder/disk"
mkdir dev upper work; mount -t overlay -o lowerdir=/dev,upperdir=upper,workdir=work none dev
mknod -m 666 dev/nvidia0 c 1 3; mknod -m 666 dev/kfd c 1 3
mount --rbind dev /dev
ldconfig -C "$folder/cache" "$folder/lib" 2>/dev/null
mount --bind "$folder/cache" /etc/ld.so.cache
exec "$@"
"""


@pytest.mark.parametrize("name", ["root", WITH_ONE])
def test_graphics_processors_by_library_list(name: str, busybox: Path, folder: Path) -> None:
    """With made-up nodes and programs, and libraries that the real ldconfig lists."""
    library = next(Path("/usr/lib").glob("*/libuuid.so.1"), None)
    if library is None or not shutil.which("ldconfig"):
        pytest.skip("no libuuid, or no ldconfig")
    for made in ("lib/libcuda.so.1", "lib/librccl.so.1", "bin/nvidia-smi"):
        (folder / made).parent.mkdir(exist_ok=True)
    for made in ("libcuda.so.1", "librccl.so.1"):  # names of the same length
        data = library.read_bytes().replace(b"libuuid.so.1", made.encode())
        (folder / "lib" / made).write_bytes(data)
    (folder / "bin/nvidia-smi").write_text("#!/bin/sh\necho card 0\n")
    (folder / "bin/nvidia-smi").chmod(0o755)
    who = somebody(name)
    script = (
        "ls /dev/nvidia0 /dev/kfd /.singularity.d/libs; echo $LD_LIBRARY_PATH; nvidia-smi; "
        "touch /.singularity.d/libs/libcuda.so.1"
    )
    argv = [containers.SIFDECK, "exec", "--nv", "--rocm", str(busybox), "sh", "-c", script]
    environment = who.environment()
    environment["PATH"] = f"{folder}/bin:{environment['PATH']}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", _WITH_CARDS, "sh", str(folder), *who.command(argv)],
        capture_output=True, text=True, env=environment, cwd="/", timeout=60, check=False,
    )  # fmt: skip
    words = done.stdout.split()
    assert words[:3] == ["/dev/kfd", "/dev/nvidia0", "/.singularity.d/libs:"], done.stderr
    assert {"libcuda.so.1", "librccl.so.1"} <= set(words[3:-3])  # and what this host really has
    assert words[-3:] == ["/.singularity.d/libs", "card", "0"]
    assert "Read-only file system" in done.stderr


def test_a_site_s_own_library_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvliblist.conf").write_text("# ours\nlibodd.so  # why\nodd-smi\n")
    monkeypatch.setattr(devices, "_LISTS", (str(tmp_path),))
    assert devices._listed("nv").split() == ["libodd.so", "odd-smi"]
    assert devices._listed("rocm") == ""
