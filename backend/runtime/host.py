"""What this host has for running containers: programs, devices, limits; looked up, not tried.

``backend.doctor`` tries each of them; a start of a container takes the quick look only.
"""

from __future__ import annotations

import os
import stat

_FOLDERS = (
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/usr/libexec/singularity/bin",
    "/usr/libexec/apptainer/bin",
    "/usr/local/libexec/singularity/bin",
    "/usr/local/libexec/apptainer/bin",
)
"""Where programs are looked for after PATH: a user's PATH often lacks sbin, and SingularityCE
and Apptainer bring a squashfuse of their own."""

_CAPABILITY_XATTR = "security.capability"


def find_program(*names: str) -> str:
    """Return the path of the first of ``names`` that is installed, or an empty string."""
    path = [folder for folder in os.environ.get("PATH", "").split(":") if folder.startswith("/")]
    for name in names:
        for folder in (*path, *_FOLDERS):
            candidate = f"{folder}/{name}"
            if os.access(candidate, os.X_OK) and os.path.isfile(candidate):
                return candidate
    return ""


def find_map_tools() -> tuple[str, ...]:
    """Return the paths of newuidmap and newgidmap, or nothing when they could not work."""
    tools = find_program("newuidmap"), find_program("newgidmap")
    if not all(tools) or no_new_privileges() or not all(map(_gains_privilege, tools)):
        return ()
    return tools


def _gains_privilege(path: str) -> bool:
    if os.statvfs(path).f_flag & os.ST_NOSUID:
        return False
    if os.stat(path).st_mode & stat.S_ISUID:
        return True
    try:
        return bool(os.getxattr(path, _CAPABILITY_XATTR))
    except OSError:
        return False


def no_new_privileges() -> bool:
    """Tell whether setuid programs have no effect for this process."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as lines:
        return any(line.startswith("NoNewPrivs:") and line.split()[1] == "1" for line in lines)


def can_open_fuse() -> bool:
    """Tell whether this process may use ``/dev/fuse``."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def memory_limit() -> int:
    """Return the bytes of memory that this process may use: the host's, or its cgroup's."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _limit_files():
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) > 0:
            limit = min(limit, int(text))
    return limit


def _limit_files() -> list[str]:
    """Return the files that may hold the memory limit of this process's cgroups."""
    found = []
    with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if not controllers:
                found += [f"/sys/fs/cgroup{path}/memory.max"]
            elif "memory" in controllers.split(","):
                found += [f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"]
    return found


def has_masked_proc() -> bool:
    """Tell whether something covers a part of /proc, as in a container.

    The kernel then lets a user namespace mount no /proc of its own, which would uncover it.
    """
    with open("/proc/self/mountinfo", "rb") as lines:
        return any(line.split(b" ")[4].startswith(b"/proc/") for line in lines)
