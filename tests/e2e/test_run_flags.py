"""What the flags of run, exec and shell do, seen from inside a container."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import containers, images, sifs
from tests.support.users import WITH_ONE, WITH_RANGE, somebody

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.runtime

Words = list[str | Path]

RUNTIMES = ("crun", "runc", "builtin")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sifdeck-flags-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def layer(folder: Path) -> bytes:
    return containers.squashfs(folder, images.busybox_layer())


@pytest.fixture(scope="module")
def busybox(folder: Path, layer: bytes) -> Path:
    return containers.oci_sif(folder / "busybox.oci.sif", [layer], {"Cmd": ["sh"]})


def run(
    *arguments: str | Path, name: str = "root", fuse: bool = True, **more: Any
) -> subprocess.CompletedProcess[str]:
    who = somebody(name, fuse=fuse)
    argv = [containers.SIFDECK, *(str(argument) for argument in arguments)]
    options: dict[str, Any] = {"env": who.environment(), "cwd": "/"} | more
    return subprocess.run(
        who.command(argv), capture_output=True, text=True, timeout=60, check=False, **options
    )


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name != "builtin" and not shutil.which(name):
        pytest.skip(f"no {name}")
    return name


def test_what_is_hidden_and_what_is_refused(runtime: str, busybox: Path) -> None:
    script = (
        "head -c1 /proc/kcore | wc -c; cd /proc/sys/kernel; (echo 1 >panic) 2>&1; "
        "mount -t tmpfs none /home 2>&1; (echo >/sys/x) 2>&1; busybox unshare -U true 2>&1"
    )
    done = run("exec", "--runtime", runtime, busybox, "sh", "-c", script, name=WITH_RANGE)
    lines = done.stdout.splitlines()
    assert lines[0] == "0"
    assert "Read-only file system" in lines[1]
    assert "ermission denied" in lines[2]
    assert "Read-only file system" in lines[3]
    assert "Operation not permitted" in lines[4]
    open_filter: Words = ["exec", "--runtime", runtime, "--security", "seccomp:unconfined", busybox]
    assert run(*open_filter, "busybox", "unshare", "-U", "true", name=WITH_RANGE).returncode == 0


def test_privileges(runtime: str, busybox: Path) -> None:
    def held(*flags: str) -> dict[str, str]:
        argv: Words = ["exec", "--runtime", runtime, *flags, busybox, "cat", "/proc/self/status"]
        lines = run(*argv).stdout.splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    assert held()["CapEff"] == "00000000a80425fb"
    none = held("--no-privs")
    assert (none["CapBnd"], none["NoNewPrivs"]) == ("0000000000000000", "1")
    some = held("--add-caps", "sys_time", "--drop-caps", "CAP_CHOWN", "--user", "1000")
    assert (some["CapEff"], some["CapAmb"]) == ("0000000002000000",) * 2
    assert some["CapBnd"] == "00000000aa0425fa"


def test_folders(runtime: str, busybox: Path, tmp_path: Path) -> None:
    home = tmp_path / "home-of-mine"
    home.mkdir()
    script = "echo $HOME; touch ~/h /tmp/t /scr/s; pwd"
    flags: Words = [
        "--home",
        f"{home}:/me",
        "--workdir",
        tmp_path,
        "--scratch",
        "/scr",
        "--cwd",
        "/me",
    ]
    done = run("exec", "--runtime", runtime, *flags, busybox, "sh", "-c", script)
    assert done.stdout == "/me\n/me\n", done.stderr
    made = [tmp_path / name for name in ("home-of-mine/h", "tmp/t", "scratch/scr/s")]
    assert all(path.exists() for path in made)
    assert run("exec", "--home", "/new", busybox, "sh", "-c", "touch ~/x; ls ~").stdout == "x\n"
    bare = run("exec", "--no-mount", "tmp,/etc/hosts", busybox, "sh", "-c", "cat /proc/mounts")
    assert " /tmp " not in bare.stdout
    assert " /etc/hosts " not in bare.stdout


def test_overlays(busybox: Path, tmp_path: Path, folder: Path) -> None:
    top = tmp_path / "top.squashfs"
    top.write_bytes(containers.squashfs(folder, images.layer(images.Entry(name="from-top"))))
    changes = tmp_path / "changes"
    changes.mkdir()
    flags: Words = ["--overlay", changes, "--overlay", top]
    done = run("exec", *flags, busybox, "sh", "-c", "rm /bin/ps; echo x >/kept; ls /from-top")
    assert done.stdout == "/from-top\n", done.stderr
    again = run("exec", "--overlay", f"{changes}:ro", busybox, "sh", "-c", "ls /bin/ps; cat /kept")
    assert again.stdout == "x\n"
    assert "No such file" in again.stderr
    twice = run("exec", "--overlay", changes, "--overlay", tmp_path, busybox, "true")
    assert twice.returncode == 2
    assert "only one overlay can be writable" in twice.stderr
    missing = run("exec", "--writable", busybox, "true")
    assert "does not contain a writable overlay" in missing.stderr


def test_ext3_overlay(busybox: Path, tmp_path: Path) -> None:
    for program in ("mkfs.ext3", "fuse2fs", "fuse-overlayfs"):
        if not shutil.which(program):
            pytest.skip(f"no {program}")
    image = tmp_path / "changes.ext3"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext3", "-q", "-F", str(image)], check=True)
    write = run("exec", "--overlay", image, busybox, "sh", "-c", "echo kept >/note; rm /bin/ps")
    assert write.returncode == 0, write.stderr
    read = run("exec", "--overlay", f"{image}:ro", busybox, "sh", "-c", "cat /note; ls /bin/ps")
    assert read.stdout == "kept\n", read.stderr


def test_data_containers(busybox: Path, tmp_path: Path, folder: Path) -> None:
    data = containers.squashfs(folder, images.layer(images.Entry(name="table", data=b"1 2 3\n")))
    bare, packed = tmp_path / "data.squashfs", tmp_path / "data.oci.sif"
    bare.write_bytes(data)
    containers.oci_sif(packed, [data], {})
    mount = f"type=bind,source={bare},destination=/m,image-src=/"
    flags = ["--data", f"{packed}:/d", "--mount", mount]
    done = run("exec", *flags, busybox, "sh", "-c", "cat /d/table /m/table; touch /d/x")
    assert done.stdout == "1 2 3\n1 2 3\n", done.stderr
    assert "Read-only file system" in done.stderr


def test_names_and_networks(runtime: str, busybox: Path) -> None:
    flags = ["--hostname", "boxy", "--dns", "192.0.2.7,192.0.2.8"]
    script = "cat /proc/sys/kernel/hostname /etc/resolv.conf"
    done = run("exec", "--runtime", runtime, *flags, busybox, "sh", "-c", script)
    assert done.stdout == "boxy\nnameserver 192.0.2.7\nnameserver 192.0.2.8\n"
    alone = run("exec", "--runtime", runtime, "--net", "--network", "none", busybox, "cat",
                "/proc/net/dev")  # fmt: skip
    assert len(alone.stdout.splitlines()) == 3  # two of heading, and lo
    shared = run("exec", "--runtime", runtime, "--no-pid", busybox, "ls", f"/proc/{os.getpid()}")
    assert shared.returncode == 0


@pytest.mark.parametrize(
    ("flags", "status", "words"),
    [
        (["--cpus", "0"], 2, "--cpus"),
        (["--memory", "much"], 2, "not a size"),
        (["--nv"], 125, "NVIDIA"),
        (["-p", "80:80"], 2, "--net"),
        (["--network", "bridge"], 2, "no such network"),
        (["--runtime", "runc", "--keep-groups"], 2, "runc"),
        (["--add-caps", "nonsense"], 2, "capability"),
        (["--keep-privs", "--no-privs"], 2, "exclude"),
        (["--no-mount", "nonsense"], 2, "--no-mount"),
        (["--dns", "x"], 2, "address"),
        (["--app", "x"], 2, "scif"),
        (["--user", "nosuchuser"], 125, "no user"),
        (["--hostname", "a b"], 2, "host name"),
        (["--security", "selinux:x"], 2, "--security"),
        (["--nonsense"], 2, "No such option"),
    ],
)
def test_what_cannot_be_honoured_is_an_error(
    flags: list[str], status: int, words: str, busybox: Path
) -> None:
    done = run("exec", *flags, busybox, "true")
    assert done.returncode == status
    assert words in done.stderr


def test_without_compat_the_host_shows(busybox: Path, tmp_path: Path) -> None:
    root = somebody("root")
    environment = root.environment() | {"MINE": "m"}
    done = run("exec", "--no-compat", busybox, "sh", "-c", "pwd; echo $MINE; touch /x",
               cwd=tmp_path, env=environment)  # fmt: skip
    assert done.stdout == f"{tmp_path}\nm\n"
    assert "Read-only file system" in done.stderr


@pytest.mark.parametrize("name", ["root", WITH_RANGE, WITH_ONE])
def test_native_sif(name: str, folder: Path) -> None:
    source = b". /.singularity.d/env/10-docker2singularity.sh\n"
    actions = {
        "run": b'exec /.singularity.d/runscript "$@"\n',
        "exec": b'exec "$@"\n',
        "shell": b'exec /bin/sh "$@"\n',
    }
    tree = [
        *(images.directory(path) for path in (".singularity.d", ".singularity.d/actions")),
        images.directory(".singularity.d/env"),
        images.Entry(name=".singularity.d/env/10-docker2singularity.sh", data=b"export V=w\n"),
        images.Entry(name=".singularity.d/runscript", data=b'#!/bin/sh\necho ran $V "$@"\n',
                     mode=0o755),
        *(
            images.Entry(
                name=f".singularity.d/actions/{action}",
                data=b"#!/bin/sh\n" + source + text,
                mode=0o755,
            )
            for action, text in actions.items()
        ),
    ]  # fmt: skip
    tar = images.busybox_layer()[:-1024].rstrip(b"\0")
    tar += bytes(-len(tar) % 512)
    whole = tar + images.layer(*tree)
    path = folder / "native.sif"
    path.write_bytes(sifs.sif(sifs.partition(containers.squashfs(folder, whole))))
    done = run("run", path, "a b", name=name)
    assert done.stdout == "ran w a b\n"
    assert "INFO:    Running a non-OCI SIF in OCI mode." in done.stderr
    assert run("exec", path, "sh", "-c", "echo $V $0", name=name).stdout == "w sh\n"


def test_where_proc_is_masked(busybox: Path) -> None:
    hide = 'mount -t tmpfs none /proc/scsi 2>/dev/null || mount -t tmpfs none /proc/fs; exec "$@"'
    who = somebody(WITH_RANGE)
    argv = who.command([containers.SIFDECK, "exec", str(busybox), "id", "-u"])
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hide, "sh", *argv],
        capture_output=True, text=True, env=who.environment(), timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == f"{who.uid}\n", done.stderr
