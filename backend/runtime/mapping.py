"""Whether the host really maps a user's subordinate ids, found out by doing it.

newuidmap may be there, privileged, with a range for the user, and refuse all the same: inside
a container, with a directory service that does not know the range, by a policy.  Trying takes
10 ms, so that it worked is remembered until the host or one of these changes.
"""

from __future__ import annotations

import os

from backend.cachefolder import cache_place
from backend.runtime.identity import User, identify

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from backend.runtime.identity import Caller

_MAX_REASON = 4096


def find_refusal(caller: Caller) -> str:
    """Return why the host refuses to map a caller's subordinate ids; empty if it does not."""
    memory = f"{cache_place()}/runtime/map-{caller.uid}"
    stamp = _stamp(caller)
    try:
        with open(memory, encoding="utf-8") as file:
            if file.read() == stamp:
                return ""
    except (OSError, ValueError):
        pass  # not remembered
    reason = _try(caller)
    if not reason:
        _remember(memory, stamp)
    return reason


def _stamp(caller: Caller) -> str:
    """Return what the answer depends on."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    tools = [(tool, os.stat(tool)) for tool in caller.map_tools]
    states = [(tool, state.st_mode, state.st_ctime_ns) for tool, state in tools]
    return repr((boot, os.uname().nodename, caller.uid_range, caller.gid_range, states))


def _try(caller: Caller) -> str:
    from backend.runtime import namespaces  # with ctypes, which a start can do without

    identity = identify(caller, User(uid=0, gid=0))
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            namespaces.enter_user(identity.uids, identity.gids, caller.map_tools, 0)
        except namespaces.MapRefusedError as error:
            os.write(writing, os.fsencode(str(error)[:_MAX_REASON]))
        except OSError:
            pass  # no user namespace at all: the launcher says so
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8", errors="replace") as pipe:
        reason = "; ".join(pipe.read().split("\n")).strip("; ")
    os.waitpid(pid, 0)
    return reason


def _remember(memory: str, stamp: str) -> None:
    part = f"{memory}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(memory), 0o700, exist_ok=True)
        with open(part, "w", encoding="utf-8") as file:
            file.write(stamp)
        os.replace(part, memory)
    except OSError:
        return  # a cache that cannot be written to is no error
