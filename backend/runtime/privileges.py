"""Which capabilities a container's process gets, and which filter of system calls."""

from __future__ import annotations

from backend.errors import UsageError
from backend.escape import quoted
from backend.runtime.capabilities import DEFAULT, NAMES
from backend.runtime.spec import Privileges

TYPE_CHECKING = False  # importing typing costs a start of a container 5 ms
if TYPE_CHECKING:
    from typing import Any

    from backend.runtime.identity import Identity
    from backend.runtime.options import RunOptions

_MAX_PROFILE = 1 << 20
"""Bytes of a seccomp profile."""


def grant(options: RunOptions, identity: Identity) -> Privileges:
    """Return what the user's options grant.

    Raises:
        UsageError: Options exclude each other, or a profile cannot be read.
    """
    if options.keep_privs and options.no_privs:
        raise UsageError("--keep-privs and --no-privs exclude each other")
    known = _supported()
    if options.no_privs:
        base: set[str] = set()
    else:
        base = set(known) if options.keep_privs else set(DEFAULT)
    bounding = frozenset((base | options.add_caps) - options.drop_caps) & known
    ambient = frozenset((options.add_caps - options.drop_caps) & known)
    return Privileges(
        bounding=bounding,
        ambient=ambient if identity.user.uid else frozenset(),
        forbid_new=options.no_privs,
        seccomp=_filter(options.seccomp, bounding),
    )


def _supported() -> frozenset[str]:
    """Return the capabilities that this kernel knows and that we could hand on.

    In a user namespace of our own that is all of them; as root, what we have.
    """
    with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
        last = int(file.read())
    return frozenset(f"CAP_{name}" for name in NAMES[: last + 1])


def _filter(wanted: str, capabilities: frozenset[str]) -> dict[str, Any] | None:
    if wanted == "unconfined":
        return None
    if wanted == "default":
        from backend.runtime.seccomp import default_profile

        return default_profile(capabilities)
    import json

    try:
        with open(wanted, "rb") as file:
            profile = json.loads(file.read(_MAX_PROFILE))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the seccomp profile {quoted(wanted)}: {error}") from error
    if not isinstance(profile, dict) or "defaultAction" not in profile:
        raise UsageError(
            f"{quoted(wanted)} is no seccomp profile",
            hint="it takes the form of linux.seccomp in the OCI runtime specification",
        )
    return profile
