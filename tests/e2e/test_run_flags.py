"""What the flags of run, exec and shell do, seen from inside a container."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import containers, images, sifs
from tests.support.users import WITH_ONE, WITH_RANGE, somebody

if TYPE_CHECKING:
    from tests.support.containers import Start

pytestmark = pytest.mark.runtime

Words = list[str | Path]


def run(
    *arguments: str | Path, name: str = "root", fuse: bool = True, **more: Any
) -> subprocess.CompletedProcess[str]:
    return containers.sifdeck(somebody(name, fuse=fuse), *arguments, text=True, **more)


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


def test_overlays(busybox: Path, tmp_path: Path, open_folder: Path) -> None:
    top = tmp_path / "top.squashfs"
    top.write_bytes(containers.squashfs(open_folder, images.layer(images.Entry(name="from-top"))))
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
    assert (write.stderr, write.returncode) == ("", 0)
    read = run("exec", "--overlay", f"{image}:ro", busybox, "sh", "-c", "cat /note; ls /bin/ps")
    assert read.stdout == "kept\n", read.stderr


@pytest.mark.parametrize("name", ["root", WITH_ONE])
@pytest.mark.parametrize("victim", ["sifdeck", "fuse2fs", "fuse-overlayfs"])
def test_no_server_of_an_ext3_is_left(
    name: str, victim: str, busybox: Path, open_folder: Path, start: Start
) -> None:
    for program in ("mkfs.ext3", "fuse2fs", "fuse-overlayfs"):
        if not shutil.which(program):
            pytest.skip(f"no {program}")
    who = somebody(name)
    image = open_folder / f"killed-{name}-{victim}.ext3"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext3", "-q", "-F", str(image)], check=True)
    shutil.chown(image, who.uid, who.gid)
    started = start(
        who, "exec", "--overlay", image, busybox, "sh", "-c", "echo ready; exec sleep 600"
    )
    servers = {member.comm: member.pid for member in started.members}
    assert {"fuse2fs", "fuse-overlayfs"} <= servers.keys()
    os.kill(servers.get(victim, started.process.pid), signal.SIGKILL)
    started.finish()
    containers.wait_until(lambda: all(member.is_gone() for member in started.members))


def test_data_containers(busybox: Path, tmp_path: Path, open_folder: Path) -> None:
    data = containers.squashfs(
        open_folder, images.layer(images.Entry(name="table", data=b"1 2 3\n"))
    )
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
        (["--name", "x"], 2, "--detach"),
        (["--tty"], 2, "--detach"),
    ],
)
def test_what_cannot_be_honoured_is_an_error(
    flags: list[str], status: int, words: str, busybox: Path
) -> None:
    done = run("exec", *flags, busybox, "true")
    assert done.returncode == status
    assert words in done.stderr


@pytest.mark.parametrize("name", ["root", WITH_RANGE, WITH_ONE])
def test_without_compat_the_host_shows(
    name: str, busybox: Path, request: pytest.FixtureRequest
) -> None:
    who = somebody(name)
    place = Path(tempfile.mkdtemp(dir="/var/cache"))
    request.addfinalizer(lambda: shutil.rmtree(place))
    shutil.chown(place, who.uid, who.gid)
    environment = who.environment() | {"MINE": "m"}
    note = "" if name == "root" else "~/from-inside"  # root's home is not the test's
    script = f"pwd; echo $MINE; umask; touch here {note}; ls -d $0; touch /x"
    argv = ["exec", "--no-compat", busybox, "sh", "-c", script, str(busybox)]
    command = ["sh", "-c", 'umask 027; cd "$0"; exec "$@"', str(place)]
    done = subprocess.run(
        who.command([*command, containers.SIFDECK, *map(str, argv)]),
        capture_output=True, text=True, env=environment, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == f"{place}\nm\n0027\n{busybox}\n", done.stderr
    assert "Read-only file system" in done.stderr
    assert [path.stat().st_uid for path in place.iterdir()] == [who.uid]
    if note:
        assert (who.home / "from-inside").stat().st_uid == who.uid
        (who.home / "from-inside").unlink()


@pytest.mark.parametrize("name", [WITH_RANGE, WITH_ONE])
def test_a_strict_umask_is_the_host_s(name: str, busybox: Path) -> None:
    who = somebody(name)
    script = ["sh", "-c", "umask; stat -c %a /"]
    argv = ["sh", "-c", 'umask 077; exec "$@"', "sh", containers.SIFDECK, "exec", str(busybox)]
    done = subprocess.run(
        who.command([*argv, *script]),
        capture_output=True, text=True, env=who.environment(), cwd="/", timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("0022\n755\n", "")


def test_without_compat_parts_can_be_left_out(busybox: Path) -> None:
    who = somebody(WITH_RANGE)

    def mounted(*flags: str) -> set[str]:
        done = run("exec", "--no-compat", *flags, busybox, "cat", "/proc/mounts", name=who.name)
        assert done.returncode == 0, done.stderr  # from / , which is no folder to show
        return {line.split()[1] for line in done.stdout.splitlines()}

    parts = {str(who.home), "/tmp", "/etc/localtime"}
    assert parts <= mounted()
    assert not parts & mounted("--no-mount", "home,tmp,bind-paths,dev")
    assert str(who.home) not in mounted("--no-home")


def test_without_compat_the_host_s_devices_show(busybox: Path) -> None:
    containers.need_runtime("crun")
    script = ["sh", "-c", "ls /dev/kmsg; echo x >/dev/null"]
    flags = ["--runtime", "crun", "--no-compat"]
    shown = run("exec", *flags, busybox, *script, name=WITH_RANGE)
    assert (shown.stdout, shown.returncode) == ("/dev/kmsg\n", 0)
    hidden = run("exec", *flags, "--no-mount", "dev", busybox, *script, name=WITH_RANGE)
    assert (hidden.stdout, hidden.returncode) == ("", 0)


@pytest.mark.parametrize("runtime", ["crun", "builtin"])
@pytest.mark.parametrize("name", [WITH_RANGE, WITH_ONE])
def test_groups_of_the_host_can_be_kept(
    name: str, runtime: str, busybox: Path, open_folder: Path
) -> None:
    """As on a cluster, where a project's folder is open to its group."""
    project = open_folder / f"project-{name}-{runtime}"
    project.mkdir(mode=0o770)
    shutil.chown(project, 0, 4711)
    project.chmod(0o770)
    who = somebody(name, groups=(4711,))
    flags = ["--runtime", containers.need_runtime(runtime), "-B", f"{project}:/project"]
    script = ["sh", "-c", "echo from-inside >/project/note; cat /project/note"]
    kept = containers.sifdeck(who, "exec", *flags, "--keep-groups", busybox, *script, text=True)
    assert kept.stdout == "from-inside\n", kept.stderr
    assert (project / "note").stat().st_uid == who.uid


def test_apps_of_a_native_sif(open_folder: Path) -> None:
    name = WITH_ONE
    script, app = images.Entry, "scif/apps/hello"
    made = images.image(
        [
            images.busybox_layer(),
            images.layer(
                *(images.directory(path) for path in ("scif", "scif/apps", app, f"{app}/scif")),
                *(images.directory(f"{app}/{path}") for path in ("bin", "scif/env")),
                script(
                    name=f"{app}/bin/hi", data=b"#!/bin/sh\necho hi $SCIF_APPNAME\n", mode=0o755
                ),
                script(
                    name=f"{app}/scif/runscript",
                    data=b'#!/bin/sh\necho $WORD "$@"; hi\n',
                    mode=0o755,
                ),
                script(name=f"{app}/scif/env/90-environment.sh", data=b"export WORD=given\n"),
            ),
        ],
        config={"Cmd": ["echo", "main"], "Env": ["PATH=/bin"]},
    )
    layout, image = open_folder / "apps", open_folder / "apps.sif"
    images.write_layout(layout, made)
    convert = containers.sifdeck(somebody("root"), "convert", "--native", f"oci:{layout}", image)
    assert convert.returncode == 0, convert.stderr
    image.chmod(0o644)
    assert run("run", image, name=name).stdout == "main\n"
    assert (
        run("run", "--app", "hello", image, "a", "b c", name=name).stdout
        == "given a b c\nhi hello\n"
    )
    assert run("exec", "--app", "hello", image, "hi", name=name).stdout == "hi hello\n"
    missing = run("run", "--app", "nosuch", image, name=name)
    assert missing.returncode == 1
    assert "nosuch" in missing.stderr
    assert run("inspect", "--list-apps", image, name=name).stdout == "hello\n"


def test_variables_stand_for_flags(busybox: Path, tmp_path: Path) -> None:
    """Under all the names that SingularityCE has for them."""
    for name in ("a", "b", "c", "lib.so"):
        (tmp_path / name).write_text(name)
    root = somebody("root")
    environment = root.environment() | {
        "SINGULARITY_BIND": f"{tmp_path}/a:/va",
        "APPTAINER_BINDPATH": f"{tmp_path}/b:/vb,{tmp_path}/c:/vc:ro",
        "SINGULARITY_CONTAINLIBS": f"{tmp_path}/lib.so",
        "SINGULARITY_NV": "1",
        "SINGULARITY_SCRATCHDIR": "/scr",
        "SINGULARITY_HOME": f"{tmp_path}:/me",
    }
    script = "cat /va /vb /vc /.singularity.d/libs/lib.so; touch /scr/x; cd; pwd"
    done = run("exec", "--no-nv", busybox, "sh", "-c", script, env=environment)
    assert done.stdout == "abclib.so/me\n", done.stderr
    missing = run("exec", "--containlibs", "/nosuch.so", busybox, "true")
    assert missing.returncode == 2


def test_unpacking_can_be_asked_for_and_refused(busybox: Path, tmp_path: Path) -> None:
    root = somebody("root", fuse=False)
    refused = run("exec", "--no-tmp-sandbox", busybox, "true", fuse=False)
    assert refused.returncode == 125
    assert "/dev/fuse cannot be opened" in refused.stderr
    environment = root.environment() | {"SIFDECK_CACHE_DIR": str(tmp_path)}
    asked = run("exec", "--tmp-sandbox", busybox, "cat", "/etc/group", env=environment)
    assert asked.stdout.startswith("root:x:0:")
    assert len([path for path in (tmp_path / "rootfs").iterdir() if path.is_dir()]) == 1


@pytest.mark.parametrize("name", ["root", WITH_RANGE, WITH_ONE])
def test_native_sif(name: str, open_folder: Path) -> None:
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
    path = open_folder / f"native-{name}.sif"
    path.write_bytes(sifs.sif(sifs.partition(containers.squashfs(open_folder, whole))))
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
