"""Console entry point; the build installs this file as ``sifdeck/__init__.py``.

A wheel holds ``app``, ``widgets`` and ``backend`` inside ``sifdeck/``, so that
site-packages gains one name, ours.  Putting that folder first on the path makes
ours win over any same-named package that PYTHONPATH or another distribution
brings.  In an editable install the folder holds nothing else, and the three
packages are found at the root of the checkout.
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the command line; return the exit status."""
    _find_packages()
    if len(sys.argv) > 1 and sys.argv[1] in {"run", "exec", "shell"}:
        from app.cli.quickstart import ACTIONS, start_plainly

        start_plainly(ACTIONS[sys.argv[1]], sys.argv[2:])
    from app.cli.main import main as run

    return run()


def credential_helper() -> int:
    """Run ``docker-credential-sifdeck``; return the exit status."""
    _find_packages()
    from app.credential_helper import main as run

    return run(sys.argv[1:])


def _find_packages() -> None:
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120  (pathlib costs 10 ms)
