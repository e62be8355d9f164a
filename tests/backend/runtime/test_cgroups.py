"""Limits as files of cgroup version 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.errors import LaunchError
from backend.runtime import cgroups
from backend.runtime.options import Limits


def test_limits_become_files() -> None:
    limits = Limits(
        cpus=1.5,
        cpu_shares=1024,
        cpuset_cpus="0-3",
        memory=1 << 30,
        memory_reservation=1 << 20,
        memory_swap=3 << 30,
        pids=-1,
        blkio_weight=1000,
    )
    assert cgroups.settings(limits) == {
        "cpu.max": "150000 100000",
        "cpu.weight": "39",
        "cpuset.cpus": "0-3",
        "memory.max": str(1 << 30),
        "memory.low": str(1 << 20),
        "memory.swap.max": str(2 << 30),
        "pids.max": "max",
        "io.weight": "10000",
    }
    assert cgroups.settings(Limits()) == {}


def test_a_host_that_cannot_says_so() -> None:
    assert cgroups.check(Limits()) == ("", {})
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("this host has cgroup version 2")
    with pytest.raises(LaunchError, match="cannot hold a container to limits"):
        cgroups.check(Limits(pids=10))
