"""What the doctor finds, for each kind of user, and with FUSE open and closed."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.support.containers import SIFDECK
from tests.support.users import WITH_ONE, WITH_RANGE, somebody

pytestmark = pytest.mark.runtime


def examine(name: str, *flags: str, fuse: bool = True) -> subprocess.CompletedProcess[str]:
    who = somebody(name, fuse=fuse)
    environment = who.environment() | {"SINGULARITY_DOCKER_PASSWORD": "hunter2"}
    return subprocess.run(
        who.command([SIFDECK, "doctor", *flags]), capture_output=True, text=True,
        env=environment, cwd="/", timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["root", WITH_RANGE, WITH_ONE])
@pytest.mark.parametrize("fuse", [True, False])
def test_findings(name: str, fuse: bool) -> None:
    done = examine(name, "--json", fuse=fuse)
    found = {one["key"]: one for one in json.loads(done.stdout)}
    assert found["user-namespace"]["state"] == "ok"
    assert found["overlay"]["state"] == "ok"
    assert found["fuse"]["state"] == ("ok" if fuse else "limited")
    ids = found["subordinate-ids"]
    assert ids["state"] == ("limited" if name == WITH_ONE else "ok")
    if name == WITH_ONE:
        assert ids["who"] == "administrator"
        assert "usermod --add-subuids" in ids["fix"]
    for one in found.values():
        assert one["state"] == "ok" or (one["follows"] and one["fix"] and one["who"])
    assert done.returncode == int(any(one["state"] == "missing" for one in found.values()))


def test_support_report_has_no_secrets() -> None:
    report = examine(WITH_RANGE, "--support").stdout
    assert "sifdeck 0" in report
    assert "SINGULARITY_DOCKER_PASSWORD" in report
    assert "hunter2" not in report
    assert WITH_RANGE not in report
