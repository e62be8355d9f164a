"""Limits as files of cgroup versions 1 and 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backend.errors import LaunchError, UsageError
from backend.runtime import cgroups
from backend.runtime.limits import describe_limits, parse_device_weights, read_limits
from backend.runtime.options import Limits

if TYPE_CHECKING:
    from pathlib import Path

EVERYTHING = Limits(
    cpus=1.5,
    cpu_shares=1024,
    cpuset_cpus="0-3",
    memory=1 << 30,
    memory_reservation=1 << 20,
    memory_swap=3 << 30,
    oom_kill_disable=True,
    pids=10,
    blkio_weight=1000,
    unified=(("memory.high", "5"),),
)


def test_limits_become_files() -> None:
    found = describe_limits(EVERYTHING, "crun")
    files = {name: value for limit in found for name, value in limit["files"].items()}
    assert files == {
        "cpu.max": "150000 100000",
        "cpu.weight": "39",
        "cpuset.cpus": "0-3",
        "memory.max": str(1 << 30),
        "memory.low": str(1 << 20),
        "memory.swap.max": str(2 << 30),
        "pids.max": "11",  # one of them is crun
        "io.weight": "default 10000",
        "memory.high": "5",
    }
    old = {name: value for limit in found for name, value in limit["legacy_files"].items()}
    assert old == {
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "150000",
        "cpu.shares": "1024",
        "cpuset.cpus": "0-3",
        "memory.limit_in_bytes": str(1 << 30),
        "memory.soft_limit_in_bytes": str(1 << 20),
        "memory.memsw.limit_in_bytes": str(3 << 30),
        "memory.oom_control": "1",
        "pids.max": "11",
        "blkio.weight": "1000",
    }
    assert describe_limits(Limits(pids=-1), "crun") == []


def test_limits_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="together"):
        describe_limits(Limits(memory=2, memory_swap=1), "crun")
    with pytest.raises(UsageError, match="no such device"):
        parse_device_weights(("/dev/nosuch:100",))
    with pytest.raises(UsageError, match="weight"):
        parse_device_weights(("/dev/null:1001",))
    assert parse_device_weights(("/dev/null:500",)) == ("1:3 500",)


def test_a_controller_that_no_host_has_is_named() -> None:
    limits = describe_limits(Limits(unified=(("nonsense.max", "1"),)), "crun")
    with pytest.raises(LaunchError, match=r"limits of nonsense\.max"):
        cgroups.choose_groups(limits)


def test_a_file_of_limits(tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text(
        "[cpu]\nshares=5\nquota=50000\nperiod=100000\ncpus='0'\n[pids]\nlimit=7\n"
        "[memory]\nlimit=9\ndisableOOMKiller=true\n[unified]\n'io.max'='x'\n"
    )
    assert read_limits(str(file)) == {
        "cpus": 0.5,
        "cpu_shares": 5,
        "cpuset_cpus": "0",
        "pids": 7,
        "memory": 9,
        "oom_kill_disable": True,
        "unified": (("io.max", "x"),),
    }


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "a=1",
        "[cpu]\nshares='5'",
        "[pids]\nlimit=true",
        "[devices]\na=1",
        "[unified]\n'../x'='1'",
    ],
)
def test_a_file_of_limits_that_cannot_be_honoured(text: str, tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text(text)
    with pytest.raises(UsageError):
        read_limits(str(file))
