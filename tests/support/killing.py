"""``python -m tests.support.killing FILE OBJECT``: add an object, killed at every line in turn.

Prints each different state, as a digest, that the file was found in afterwards.  A process of
its own, because it forks.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.sif import edit
from backend.sif.records import DataType

if TYPE_CHECKING:
    from types import FrameType

_OURS = str(Path(edit.__file__).parents[1])


def _kill_at(line: int) -> None:
    """Let this process be killed when it comes to the given line of our code, from now."""
    left = line

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(_OURS):
            return None
        if event == "line":
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def _add(path: Path, source: Path) -> None:
    with edit.edit_sif(path) as editor, source.open("rb") as data:
        editor.add(edit.NewObject(kind=DataType.RAW), data)


def main() -> None:
    path, source = map(Path, sys.argv[1:])
    before = path.read_bytes()
    seen = []
    for line in itertools.count(1):
        if not (child := os.fork()):
            _kill_at(line)
            _add(path, source)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        found = path.read_bytes()
        digest = hashlib.sha256(found).hexdigest()
        if digest not in seen:
            seen.append(digest)
        path.write_bytes(before)
        if not status:
            break
    sys.stdout.write(" ".join([str(line), *seen]))


if __name__ == "__main__":
    main()
