"""Programs are run to their end, and ended with everything they started."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from backend.errors import ToolFailedError, ToolMissingError, ToolTimeoutError
from backend.process import run_tool


async def test_output_and_input() -> None:
    done = await run_tool(["sh", "-c", "cat; echo err >&2"], timeout_s=10, stdin=b"in")
    assert (done.stdout, done.stderr) == ("in", "err\n")


async def test_failure_says_the_last_line() -> None:
    with pytest.raises(ToolFailedError, match="status 3: second") as caught:
        await run_tool(
            ["sh", "-c", "echo out; echo first >&2; echo second >&2; exit 3"], timeout_s=10
        )
    assert (caught.value.status, caught.value.stdout) == (3, "out\n")


async def test_missing() -> None:
    with pytest.raises(ToolMissingError):
        await run_tool(["no-such-program-anywhere"], timeout_s=1)


async def test_timeout_ends_the_group(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"sleep 100 & echo $! > {pid_file}; wait"
    with pytest.raises(ToolTimeoutError):
        await run_tool(["sh", "-c", script], timeout_s=0.5)
    pid = int(pid_file.read_text())
    for _ in range(200):
        if not _alive(pid):
            break
        await asyncio.sleep(0.02)
    assert not _alive(pid)


async def test_cancelled_twice_it_still_ends_the_group(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"trap '' TERM; read x; echo $$ > {pid_file}; while :; do sleep 0.01; done"
    # It reads first: when the file is there, we are waiting for it to end.
    task = asyncio.create_task(run_tool(["sh", "-c", script], timeout_s=60, stdin=b"go\n"))
    for _ in range(2000):
        if pid_file.exists() and pid_file.read_text():
            break
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not _alive(int(pid_file.read_text()))


def _alive(pid: int) -> bool:
    try:
        return "Z" not in _state(pid)
    except OSError:
        return False


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
