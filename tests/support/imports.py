"""What a command imports."""

from __future__ import annotations

import subprocess
import sys

from tests.support.containers import SIFDECK


def imported_by(*arguments: str) -> set[str]:
    """Run ``sifdeck``; return the modules of others that it loads, after Python's own start."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", SIFDECK, *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    names = [line.rpartition("|")[2].strip() for line in lines]
    loaded = names[names.index("sifdeck") + 1 :]
    return {name for name in loaded if name.partition(".")[0] not in {"app", "backend"}}
