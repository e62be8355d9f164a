"""Programs of the host that the built-in runtime calls while it makes a container.

Those of the runtime specification, "POSIX-platform Hooks": each gets the container's state on
its standard input; one that fails stops the start.
"""

from __future__ import annotations

import errno
import os
import signal

TYPE_CHECKING = False  # importing typing costs the launcher 5 ms
if TYPE_CHECKING:
    from typing import Any

CALLED = frozenset({"prestart", "createRuntime", "createContainer", "startContainer"})
"""Stages that we know; those after the start would take a process that stays behind."""
_OUTSIDE = ("prestart", "createRuntime")


class Hooks:
    """The hooks of one container.

    Made before its namespaces are, since some hooks stay outside of them.

    Args:
        wanted: By stage, as ``config.json`` has them.
        bundle: The folder with ``config.json``.
    """

    def __init__(self, wanted: dict[str, list[dict[str, Any]]], bundle: str) -> None:
        import json

        self._wanted = wanted
        state = {
            "ociVersion": "1.0.2",
            "id": os.path.basename(bundle),
            "status": "creating",
            "pid": os.getpid(),
            "bundle": bundle,
        }
        self._state = os.memfd_create("sifdeck-state")
        os.write(self._state, json.dumps(state).encode())
        waiting, self._go = os.pipe()
        self._outside = os.fork()
        if self._outside:
            os.close(waiting)
            return
        status = 1
        try:
            os.close(self._go)
            if os.read(waiting, 1):
                for stage in _OUTSIDE:
                    self.call(stage)
            status = 0
        except OSError as error:
            os.write(2, os.fsencode(f"ERROR:   {error.filename}: {error.strerror}\n"))
        finally:
            os._exit(status)

    def call_outside(self) -> None:
        """Call those that run outside the container; its file systems are mounted.

        Raises:
            OSError: One failed.
        """
        os.write(self._go, b"x")
        os.close(self._go)
        _check(self._outside, "a hook outside the container")

    def call(self, stage: str) -> None:
        """Call those of one stage, in order.

        Raises:
            OSError: One failed.
        """
        for hook in self._wanted.get(stage, []):
            pid = os.fork()
            if pid == 0:
                self._become(hook)
            _check(pid, f"the hook {hook['path']}")

    def _become(self, hook: dict[str, Any]) -> None:
        try:
            os.lseek(self._state, 0, os.SEEK_SET)
            os.dup2(self._state, 0)
            os.dup2(2, 1)  # what it says is no output of the container
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.alarm(int(hook.get("timeout", 0)))  # which ends it, and outlives the exec
            environment = dict(entry.split("=", 1) for entry in hook.get("env", []))
            os.execve(hook["path"], hook.get("args") or [hook["path"]], environment)
        finally:
            os._exit(127)


def _check(pid: int, name: str) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise OSError(errno.ECANCELED, f"it ended with status {status}", name)
