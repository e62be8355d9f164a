"""Stands for ``sifdeck`` on PATH inside a lab: runs it, and notes the arguments and the end.

Run as a program by path, ``recorder.py HISTORY PROGRAM... -- ARGUMENT...``, with the standard
library alone: a learner's commands should not become slow.  What it writes is read by
:func:`backend.labs.progress.read_history`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

_SECRET = ("-p", "--password", "--docker-password")
_HIDDEN = "***"


def main(argv: list[str]) -> int:
    """Run the program with the arguments; return its exit status, 128 + N for signal N."""
    history, rest = argv[0], argv[1:]
    cut = rest.index("--")
    program, arguments = rest[:cut], rest[cut + 1 :]
    for one in (signal.SIGINT, signal.SIGQUIT):
        # The terminal sends these to us both: the program decides, we wait for it.  A handler
        # and not SIG_IGN, which the program would inherit.
        if signal.getsignal(one) != signal.SIG_IGN:
            signal.signal(one, lambda _number, _frame: None)
    child = subprocess.Popen(program + arguments)
    for one in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, lambda number, _frame: child.send_signal(number))
    status = child.wait()
    status = status if status >= 0 else 128 - status
    entry = {"time": int(time.time()), "argv": hide(arguments), "status": status}
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    file = os.open(history, flags, 0o600)
    # One write of one line: two commands at once do not mix.
    os.write(file, json.dumps(entry).encode() + b"\n")
    return status


def hide(arguments: list[str]) -> list[str]:
    """Return the arguments with the values of password options taken out."""
    shown, hidden = [], False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if hidden:
            shown.append(_HIDDEN)
        elif equals and name in _SECRET:
            shown.append(f"{name}={_HIDDEN}")
        elif argument.startswith("-p") and not argument.startswith("--") and len(argument) > 2:
            shown.append(f"-p{_HIDDEN}")
        else:
            shown.append(argument)
        hidden = not hidden and argument in _SECRET
    return shown


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
