"""A program whose only verb is a shell script: ``Jobs(root, program=PROGRAM)`` runs it as a job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = (sys.executable, "-P", __file__)


def _run_script(argv: Sequence[str], folder: Path) -> int:
    """Run ``["sh", SCRIPT]``; the script finds the job's folder in ``$JOB``."""
    return subprocess.call(["sh", "-c", argv[1]], env=os.environ | {"JOB": str(folder)})


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from backend.jobs import supervisor

    supervisor._GRACE_S, supervisor._SETTLE_S = 0.5, 0.2
    argv = json.loads(sys.stdin.read())
    supervisor.supervise(Path(sys.argv[-1]), argv, _run_script)


if __name__ == "__main__":
    main()
