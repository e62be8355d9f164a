"""Containers as users start them: each runtime, each kind of user, FUSE open and closed."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import containers, images
from tests.support.users import WITH_ONE, WITH_RANGE, somebody

if TYPE_CHECKING:
    from tests.support.containers import Start

pytestmark = pytest.mark.runtime

USERS = ("root", WITH_RANGE, WITH_ONE)


@pytest.fixture(scope="module")
def busybox(open_folder: Path, busybox_squashfs: bytes) -> Path:
    config = {"Cmd": ["echo", "cmd"], "Env": ["FOO=bar baz", "PATH=/bin"], "WorkingDir": "/home"}
    return containers.oci_sif(open_folder / "configured.oci.sif", [busybox_squashfs], config)


@pytest.mark.parametrize("name", USERS)
def test_exec_shows_the_image_as_it_is(name: str, runtime: str, busybox: Path) -> None:
    who = somebody(name)
    user = ["--fakeroot"] if (name, runtime) == (WITH_ONE, "runc") else []
    script = 'id -u; stat -c "%u %a" /bin/busybox /root; echo $FOO; pwd; touch ~/new && ls ~'
    done = containers.sifdeck(
        who,
        "exec",
        "--runtime",
        runtime,
        *user,
        busybox,
        "sh",
        "-c",
        script,
    )
    uid = 0 if user else who.uid
    owner = who.uid if name == WITH_ONE and not user else 0
    assert done.stdout.decode().split("\n") == [
        str(uid), f"{owner} 755", f"{owner} 700", "bar baz", "/home", "new", "",
    ]  # fmt: skip
    assert (done.stderr, done.returncode) == (b"", 0)


@pytest.mark.parametrize("name", USERS)
def test_the_image_is_extracted_where_fuse_is_closed(
    name: str, open_folder: Path, busybox_squashfs: bytes
) -> None:
    who = somebody(name, fuse=False)
    fresh = images.layer(images.Entry(name="etc/fresh", data=os.urandom(16)))
    layers = [busybox_squashfs, containers.squashfs(open_folder, fresh)]
    image = containers.oci_sif(open_folder / "fresh.oci.sif", layers, {})
    script = 'id -u; stat -c "%u %a" /bin/busybox /root /home/appuser; rm -r /home && ls -d /home'
    cache = Path(tempfile.mkdtemp(dir=open_folder))
    shutil.chown(cache, who.uid, who.gid)
    env = who.environment() | {"SIFDECK_CACHE_DIR": str(cache)}
    outcomes = [
        containers.sifdeck(who, "exec", image, "sh", "-c", script, env=env) for _ in range(2)
    ]
    cleaned = containers.sifdeck(who, "cache", "clean", "-f", "--type", "rootfs", env=env)
    assert list((cache / "rootfs").iterdir()) == []
    assert cleaned.returncode == 0, cleaned.stderr
    owner = who.uid if name == WITH_ONE else 0
    user = who.uid if name == WITH_ONE else 1000
    assert {done.stdout.decode() for done in outcomes} == {
        f"{who.uid}\n{owner} 755\n{owner} 700\n{user} 755\n"
    }
    assert b"xtract" in outcomes[0].stderr
    assert b"xtract" not in outcomes[1].stderr


@pytest.mark.parametrize("name", USERS)
def test_unpacked_layers_stay_while_a_container_runs_on_them(name: str, busybox: Path) -> None:
    who = somebody(name, fuse=False)
    cache = Path(tempfile.mkdtemp(dir=busybox.parent))
    shutil.chown(cache, who.uid, who.gid)
    env = who.environment() | {"SIFDECK_CACHE_DIR": str(cache)}
    script = "echo runs; read line; ls /bin/busybox"
    argv = who.command([containers.SIFDECK, "-q", "exec", str(busybox), "sh", "-c", script])
    container = subprocess.Popen(
        argv, env=env, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with container:
        assert container.stdout is not None
        assert container.stdout.readline() == b"runs\n"
        cleaned = containers.sifdeck(who, "cache", "clean", "-f", env=env)
        assert b"Not removed, in use" in cleaned.stderr
        assert container.communicate(b"\n")[0] == b"/bin/busybox\n"
    assert b"WARNING" not in containers.sifdeck(who, "cache", "clean", "-f", env=env).stderr
    assert list((cache / "rootfs").iterdir()) == []


@pytest.fixture(scope="module")
def many_layers(open_folder: Path) -> Path:
    """An image of 104 kept layers, one with a folder /upper, one that hides a folder's files."""
    layers = [
        images.layer(images.Entry(name="last", data=b"%d" % (number - number % 2)))
        for number in range(100)
    ]
    upper = images.layer(images.directory("upper"), images.Entry(name="upper/file", data=b"here"))
    opaque = images.layer(images.Entry(name="srv/.wh..wh..opq"))
    dropped = images.layer(images.Entry(name="srv/dropped"))
    made = images.image([images.busybox_layer(), dropped, upper, opaque, *layers])
    layout = images.write_layout(open_folder / "many", made)
    image = open_folder / "many.oci.sif"
    done = containers.sifdeck(somebody("root"), "convert", "--keep-layers", f"oci:{layout}", image)
    assert done.returncode == 0, done.stderr
    return image


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("name", USERS)
def test_many_layers(name: str, fuse: bool, many_layers: Path) -> None:
    """Their folders' full names would not go into the page that mount(2) takes."""
    who = somebody(name, fuse=fuse)
    cache = Path(tempfile.mkdtemp(dir=many_layers.parent))
    shutil.chown(cache, who.uid, who.gid)
    env = who.environment() | {"SIFDECK_CACHE_DIR": str(cache)}
    script = (
        "cat /upper/file; ls /srv; rm -r /upper; cat /last; "
        "while read from at kind more; do test $at = / && echo $kind; done </proc/mounts"
    )
    for runtime in ("crun", "runc"):
        containers.need_runtime(runtime)
        # Files that are root's can be deleted by root; and runc maps no single id to itself.
        user = [] if (name, runtime) == (WITH_ONE, "crun") else ["--fakeroot"]
        argv = ["-q", "exec", "--runtime", runtime, *user, many_layers, "sh", "-c", script]
        done = containers.sifdeck(who, *argv, env=env)
        assert (done.stdout, done.stderr) == (b"here98overlay\n", b"")
    containers.sifdeck(who, "cache", "clean", "-f", "--type", "rootfs", env=env)


@pytest.mark.parametrize("runtime", ["crun", "builtin"])
def test_a_namespace_of_one_id_is_enough(
    runtime: str, open_folder: Path, busybox_squashfs: bytes
) -> None:
    containers.need_runtime(runtime)
    root = somebody("root")
    image = containers.oci_sif(
        open_folder / f"one-{runtime}.oci.sif", [busybox_squashfs], {"User": "appuser"}
    )
    command = [
        containers.SIFDECK,
        "exec",
        "--runtime",
        runtime,
        str(image),
    ]
    done = subprocess.run(
        [*root.command(["unshare", "-Ur"]), *command, "stat", "-c", "%u", "/home/appuser"],
        input=b"", capture_output=True, timeout=60, check=False, env=root.environment(), cwd="/",
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == (b"1000\n", b"", 0)


def test_run_takes_entrypoint_and_arguments(
    open_folder: Path, busybox_squashfs: bytes, busybox: Path
) -> None:
    root = somebody("root")
    config = {"Entrypoint": ["echo", "entry"], "Cmd": ["cmd"]}
    image = containers.oci_sif(open_folder / "entry.oci.sif", [busybox_squashfs], config)
    assert containers.sifdeck(root, "run", image).stdout == b"entry cmd\n"
    assert containers.sifdeck(root, "run", image, "-x", "--help").stdout == b"entry -x --help\n"
    assert containers.sifdeck(root, "run", busybox).stdout == b"cmd\n"
    assert containers.sifdeck(root, "exec", image, "echo", "mine").stdout == b"mine\n"
    assert containers.sifdeck(root, "shell", image, "-c", "echo $PS1").stdout == b"sifdeck>\n"


def test_image_without_command_says_so(open_folder: Path, busybox_squashfs: bytes) -> None:
    image = containers.oci_sif(open_folder / "empty.oci.sif", [busybox_squashfs], {})
    done = containers.sifdeck(somebody("root"), "run", image)
    assert done.returncode == 125
    assert b"neither ENTRYPOINT nor CMD" in done.stderr


def test_layers_are_stacked_with_whiteouts(open_folder: Path, busybox_squashfs: bytes) -> None:
    top = images.layer(
        images.Entry(name="etc/motd", data=b"top\n"),
        images.Entry(name="bin/sleep", kind=b"3", mode=0, device=(0, 0)),
    )
    image = containers.oci_sif(
        open_folder / "layered.oci.sif",
        [busybox_squashfs, containers.squashfs(open_folder, top)],
        {"Cmd": ["sh"]},
    )
    for name in USERS:
        done = containers.sifdeck(
            somebody(name), "exec", image, "sh", "-c", "cat /etc/motd; ls /bin/sleep"
        )
        assert done.stdout == b"top\n", done.stderr
        assert b"No such file" in done.stderr


@pytest.mark.parametrize("name", USERS)
def test_binds(name: str, open_folder: Path, busybox: Path) -> None:
    who = somebody(name)
    data = Path(tempfile.mkdtemp(dir=open_folder))
    (data / "in").write_text("hello\n")
    shutil.chown(data, who.uid, who.gid)
    script = "cat /data/in; echo out >/data/out; touch /ro/x || cat /f"
    binds = ["-B", f"{data}:/data", "-B", f"{data}:/ro:ro,{data}/in:/f"]
    done = containers.sifdeck(who, "exec", *binds, busybox, "sh", "-c", script)
    assert done.stdout == b"hello\nhello\n", done.stderr
    assert b"Read-only file system" in done.stderr
    assert (data / "out").stat().st_uid == who.uid


def test_a_home_closed_to_others_can_be_bound(busybox: Path) -> None:
    who = somebody(WITH_RANGE)
    who.home.chmod(0o700)
    note = who.home / "note"
    note.write_text("mine\n")
    note.chmod(0o600)
    shutil.chown(note, who.uid, who.gid)
    done = containers.sifdeck(who, "exec", "-B", f"{who.home}:/h", busybox, "cat", "/h/note")
    assert done.stdout == b"mine\n", done.stderr


def test_environment_and_folder(open_folder: Path, busybox: Path) -> None:
    file = open_folder / "env"
    file.write_text("# comment\nA=file\nexport B='two words'\n")
    who = somebody("root")
    environment = who.environment() | {"SINGULARITYENV_C": "c", "http_proxy": "p", "SECRET": "s"}
    flags = ["--env-file", str(file), "--env", "A=flag", "--env", "EMPTY=", "--cwd", "/etc"]
    done = containers.sifdeck(who, "exec", *flags, busybox, "sh", "-c", "env; pwd", env=environment)
    lines = done.stdout.decode().splitlines()
    assert {"A=flag", "B=two words", "C=c", "http_proxy=p", "EMPTY=", "FOO=bar baz"} <= set(lines)
    assert not [line for line in lines if line.startswith("SECRET")]
    assert lines[-1] == "/etc"


def test_exit_statuses(runtime: str, busybox: Path) -> None:
    root = somebody("root")

    def status(*command: str) -> int:
        return containers.sifdeck(root, "exec", "--runtime", runtime, busybox, *command).returncode

    assert [status("sh", "-c", f"exit {n}") for n in (0, 3, 255)] == [0, 3, 255]
    assert status("sh", "-c", "sh -c 'kill -9 $$'; exit $?") == 137
    assert status("nosuch") == 127
    assert status("/etc/passwd") == 126
    assert status("/etc") == 126


def test_pipes_carry_bytes_and_stderr_is_separate(busybox: Path) -> None:
    root = somebody("root")
    data = os.urandom(8 << 20)
    done = containers.sifdeck(root, "exec", busybox, "sh", "-c", "cat; echo err >&2", input=data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
    assert done.stderr == b"err\n"


def test_missing_things_are_named(busybox: Path) -> None:
    root = somebody("root")
    done = containers.sifdeck(root, "run", "--runtime", "nosuchrt", busybox)
    assert done.returncode == 125
    assert b"nosuchrt" in done.stderr
    assert containers.sifdeck(root, "run", "nosuch.sif").returncode == 11
    assert containers.sifdeck(root, "run", "-B", "/nosuch:/x", busybox).returncode == 2
    assert containers.sifdeck(root, "run", "--cwd", "rel", busybox).returncode == 2


TRAP = "trap 'echo caught; exit 7' TERM HUP INT; echo ready; while :; do sleep 0.05; done"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_the_container(
    number: signal.Signals, runtime: str, busybox: Path, start: Start
) -> None:
    started = start(
        somebody("root"),
        "exec",
        "--runtime",
        runtime,
        busybox,
        "sh",
        "-c",
        TRAP,
    )
    started.process.send_signal(number)
    assert started.finish() == 7


@pytest.mark.parametrize("name", USERS)
def test_a_container_without_handlers_ends_on_sigterm(
    name: str, busybox: Path, start: Start
) -> None:
    started = start(somebody(name), "exec", busybox, "sh", "-c", "echo ready; exec sleep 600")
    started.process.terminate()
    assert started.finish() == 143
    containers.wait_until(lambda: all(member.is_gone() for member in started.members))


KILLED = [
    (name, runtime, victim)
    for name in USERS
    for runtime in containers.RUNTIMES
    for victim in ("launcher", "squashfuse", "runtime", "container")
    if (runtime, victim) != ("builtin", "runtime")  # it is the container's own first process
]


@pytest.mark.parametrize(("name", "runtime", "victim"), KILLED)
def test_nothing_is_left_after_sigkill(
    name: str, runtime: str, victim: str, busybox: Path, start: Start
) -> None:
    before = _traces(busybox)
    containers.need_runtime(runtime)
    user = ["--fakeroot"] if (name, runtime) == (WITH_ONE, "runc") else []
    started = start(
        somebody(name), "exec", "--runtime", runtime, *user, busybox,
        "sh", "-c", "sleep 600 & echo ready; sleep 600",
    )  # fmt: skip
    # A runtime is the first process of our pid namespace, and has the container's below it.
    firsts = [member.pid for member in started.members if member.inner_pid == 1]
    roles = {
        "launcher": started.process.pid,
        "squashfuse": next(m.pid for m in started.members if m.comm.startswith("squashfuse")),
        "runtime": firsts[0],
        "container": firsts[-1],
    }
    assert len(set(roles.values())) == (3 if runtime == "builtin" else 4)
    os.kill(roles[victim], signal.SIGKILL)
    status = started.finish()
    # Without its files a program dies of SIGBUS (135), maybe before anybody hears why.
    assert status in ({-9} if victim == "launcher" else {135, 137})
    containers.wait_until(lambda: all(member.is_gone() for member in started.members))
    assert _traces(busybox) == before


def _traces(image: Path) -> list[str]:
    """Return what containers of ours could leave on the host: mounts, loops, cgroups."""
    mounts = Path("/proc/mounts").read_text().splitlines()
    loops = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    return [
        *(line for line in mounts if "fuse" in line or line.startswith("sifdeck")),
        *(path for path in loops if str(image.parent) in path),
        *(str(path) for path in Path("/sys/fs/cgroup").glob("*/sifdeck-*") if path.is_dir()),
    ]


def test_five_at_once(busybox: Path, start: Start) -> None:
    root = somebody("root")
    started = [
        start(root, "exec", busybox, "sh", "-c", f"echo ready; sleep 0.2; exit {n}")
        for n in range(5)
    ]
    assert [one.finish() for one in started] == list(range(5))


@pytest.mark.parametrize("name", ["root", WITH_RANGE])
def test_links_of_an_image_lead_nowhere_but_into_it(
    name: str,
    runtime: str,
    open_folder: Path,
    busybox_squashfs: bytes,
    request: pytest.FixtureRequest,
) -> None:
    who = somebody(name)
    outside = Path(tempfile.mkdtemp(dir="/var/cache"))  # not below /tmp, which is covered
    request.addfinalizer(lambda: shutil.rmtree(outside))
    outside.chmod(0o777)
    (outside / "passwd").write_text("host\n")
    (outside / "passwd").chmod(0o666)
    evil = images.layer(
        images.symlink("etc/passwd", f"{outside}/passwd"),
        images.symlink("etc/group", f"../../../..{outside}/group"),
        images.symlink("home", str(outside)),
        images.symlink("var/tmp", f"{outside}/tmp"),
        images.symlink("mnt", str(outside)),
    )
    layers = [busybox_squashfs, containers.squashfs(open_folder, evil)]
    image = containers.oci_sif(open_folder / "evil.oci.sif", layers, {})
    bind = f"{image}:/mnt/made/here"
    done = containers.sifdeck(
        who, "exec", "--runtime", runtime, "-B", bind, image, "sh", "-c",
        "ls /mnt/made/here; echo changed >/mnt/x; echo changed >/etc/passwd",
    )  # fmt: skip
    assert done.stdout == b"/mnt/made/here\n", done.stderr
    assert [path.name for path in outside.iterdir()] == ["passwd"]
    assert (outside / "passwd").read_text() == "host\n"
