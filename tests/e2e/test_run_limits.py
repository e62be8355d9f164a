"""Limits, held to by the kernel: what a container may use, and that no group is left."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support import containers
from tests.support.cgroups import delegated, login_session
from tests.support.users import WITH_ONE, WITH_RANGE, somebody

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.runtime


def as_root(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return containers.sifdeck(somebody("root"), "exec", *words, text=True)


def test_the_kernel_holds_it_to_them(runtime: str, busybox: Path) -> None:
    """As root, in whichever version this host has the controllers."""
    flags = ["--pids-limit", "8", "--memory", "64m", "--cpus", "0.5", "--cpuset-cpus", "0"]
    script = (
        "busybox grep Cpus_allowed_list /proc/self/status; "
        "for n in $(busybox seq 60); do sleep 60 & done"
    )
    done = as_root("--runtime", runtime, *flags, busybox, "sh", "-c", script)
    if "cannot hold a container" in done.stderr:
        pytest.skip("no cgroup controllers for root")
    assert done.stdout.split() == ["Cpus_allowed_list:", "0"], done.stderr
    assert "can't fork" in done.stderr


def test_memory_is_bounded(busybox: Path) -> None:
    script = "head -c 40m /dev/zero | busybox tail -n 1 | wc -c"
    done = as_root("--memory", "16m", busybox, "sh", "-c", script)
    if "cannot hold a container" in done.stderr:
        pytest.skip("no memory controller for root")
    assert done.stdout == "0\n", done.stderr
    wrong = as_root("--cpuset-cpus", "999", busybox, "true")
    assert wrong.returncode == 125
    assert "cpuset.cpus" in wrong.stderr


@pytest.mark.parametrize("name", ["root", WITH_RANGE, WITH_ONE])
def test_a_delegated_group_is_used_and_left_as_it_was(
    name: str, runtime: str, busybox: Path
) -> None:
    limits = busybox.parent / f"{name}-{runtime}.toml"
    limits.write_text('[unified]\n"hugetlb.2MB.max" = "4194304"\n')
    who = somebody(name)
    user = ["--fakeroot"] if (name, runtime) == (WITH_ONE, "runc") else []
    argv = [containers.SIFDECK, "exec", "--runtime", runtime, *user, "--apply-cgroups", str(limits)]
    with delegated(who) as group:
        process = subprocess.Popen(
            group.command(who, [*argv, str(busybox), "sh", "-c", "echo ready; read line"]),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=who.environment(), cwd="/",
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        made = [path for path in group.folder.iterdir() if path.name.startswith("sifdeck.")]
        held = next(path for path in made if path.name != "sifdeck.rest")
        assert (held / "hugetlb.2MB.max").read_text() == "4194304\n"
        members = containers.members(process.pid)
        first = [member.pid for member in members if member.inner_pid == 1][-1]
        assert str(first) in (held / "cgroup.procs").read_text().split()
        assert str(process.pid) not in (held / "cgroup.procs").read_text().split()
        process.communicate(b"\n", timeout=60)
        assert process.returncode == 0
        assert group.groups() == []


@pytest.mark.parametrize("name", [WITH_RANGE, WITH_ONE])
def test_no_group_is_left_by_a_killed_launcher(name: str, busybox: Path) -> None:
    limits = busybox.parent / f"{name}-killed.toml"
    limits.write_text('[unified]\n"hugetlb.2MB.max" = "0"\n')
    who = somebody(name)
    with delegated(who) as group:
        argv = [containers.SIFDECK, "exec", "--apply-cgroups", str(limits), str(busybox)]
        process = subprocess.Popen(
            group.command(who, [*argv, "sh", "-c", "echo ready; sleep 600"]),
            stdout=subprocess.PIPE, env=who.environment(), cwd="/",
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        members = containers.members(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        containers.wait_until(lambda: all(member.is_gone() for member in members))
        containers.wait_until(lambda: group.groups() == [])


@pytest.mark.parametrize("name", [WITH_RANGE])
def test_who_has_none_gets_a_clear_word(name: str, busybox: Path) -> None:
    who = somebody(name)
    done = containers.sifdeck(who, "exec", "--pids-limit", "9", busybox, "true", text=True)
    assert done.returncode == 125
    assert "cannot hold a container to limits of --pids-limit" in done.stderr


def test_systemd_is_asked_for_a_group(busybox: Path) -> None:
    limits = busybox.parent / "scope.toml"
    limits.write_text('[unified]\n"hugetlb.2MB.max" = "4194304"\n')
    who = somebody(WITH_RANGE)
    script = "cat /proc/self/cgroup; cat /sys/fs/cgroup/*/*/*/run-*/sifdeck.[0-9]*/hugetlb.2MB.max"
    argv = [containers.SIFDECK, "exec", "--apply-cgroups", str(limits), str(busybox)]
    with login_session(who, [*argv, "sh", "-c", script]) as command:
        environment = who.environment() | {"XDG_RUNTIME_DIR": "/run/user"}
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd="/", timeout=120,
            check=False,
        )  # fmt: skip
    own, limit = done.stdout.splitlines()[-2:]
    assert "/app.slice/run-" in own, done.stderr
    assert ".scope/sifdeck." in own
    assert limit == "4194304"
