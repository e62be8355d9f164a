"""Credential helpers for tests: programs that answer from a table."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest

_PROGRAM = """#!{python} -IS
import json, sys
known, key = {known}, sys.stdin.read().strip()
if sys.argv[1] == "list":
    print(json.dumps({{name: one[0] for name, one in known.items()}}))
elif sys.argv[1] == "get" and key in known:
    print(json.dumps({{"ServerURL": key, "Username": known[key][0], "Secret": known[key][1]}}))
else:
    sys.exit("credentials not found in native keychain")
"""


def install_helper(
    folder: Path,
    name: str,
    known: Mapping[str, tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Put ``docker-credential-NAME``, which knows some logins, on PATH."""
    path = folder / f"docker-credential-{name}"
    table = json.dumps({key: list(value) for key, value in known.items()})
    path.write_text(_PROGRAM.format(python=sys.executable, known=table))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
