"""What the command line hands to the launcher: a plan, marshalled, through an anonymous file.

Marshal, since the launcher starts in the time that importing json takes; both ends are the
same interpreter, and nobody else can write the file.  Nothing of it is in an argument list or
an environment, which other users can read.
"""

from __future__ import annotations

import marshal
import os

PRIVATE_DNS = "10.0.2.3"
"""Where slirp4netns answers questions for names, and pasta as we call it."""

TYPE_CHECKING = False  # importing typing costs the launcher 5 ms
if TYPE_CHECKING:
    from typing import Literal, TypedDict

    class Namespace(TypedDict):
        """How to become somebody else; ``backend.runtime.namespaces``."""

        uids: list[tuple[int, int, int]]
        gids: list[tuple[int, int, int]]
        tools: list[str]

    class Source(TypedDict):
        """Something that is mounted or shown.

        By ``kind``: the ``folder`` or file at ``path`` as it is; the ``squashfs`` or ``ext3``
        that starts at byte ``offset`` of it; or a new file with ``text``.
        """

        kind: Literal["folder", "squashfs", "ext3", "text"]
        path: str
        offset: int
        text: str

    class Upper(TypedDict):
        """Where changes go: a folder with ``upper`` and ``work``, or ext3 in a file.

        ``path`` is empty for memory; ``offset`` is negative for a folder.
        """

        path: str
        offset: int

    class Port(TypedDict):
        """A port of a private network that the host shows, at ``address`` or everywhere."""

        host: int
        container: int
        protocol: str
        address: str

    class Limit(TypedDict):
        """What holds a container to one limit; ``what`` is the flag, for messages.

        ``files`` of ``controller`` in cgroup version 2, or ``legacy_files`` of ``legacy`` in
        version 1; either may be empty, where that version has no such limit.
        """

        what: str
        controller: str
        legacy: str
        files: dict[str, str]
        legacy_files: dict[str, str]

    class Rootfs(TypedDict):
        """What to prepare in the root file system before the runtime starts.

        ``home`` is made if missing, for ``owner`` (uid and gid as the launcher sees them);
        ``passwd`` and ``group`` are lines to append unless the id is known, or empty;
        ``program`` must be there, found by ``path`` and ``cwd``.  ``places`` are where things
        will be mounted, and whether these are folders.
        """

        passwd: str
        group: str
        home: str
        owner: tuple[int, int]
        places: list[tuple[str, bool]]
        program: str
        path: str
        cwd: str

    class Plan(TypedDict):
        """Everything that the launcher needs; ``layers`` are base first.

        ``become_root`` says that the runtime runs as id 0 of the launcher's namespace, which
        is a subordinate id, while the launcher stays the caller.  ``scope`` is a command that the
        launcher is started through, so that it may set ``limits``.  In the background the exit
        status goes to ``exit_file``, and a byte to the descriptor ``ready`` once it runs; in
        the foreground these are empty and -1.
        """

        image: str
        layers: list[Source]
        squashfuse: list[str]
        overlayfuse: str
        ext3fuse: str
        upper: Upper
        session: str
        namespace: Namespace | None
        become_root: bool
        memory: int
        rootfs: Rootfs
        sources: list[Source]
        share_pids: bool
        keep_groups: bool
        filter: bytes
        config: str
        runtime: list[str]
        runtime_kind: str
        terminal: bool
        network: str
        ports: list[Port]
        limits: list[Limit]
        scope: list[str]
        exit_file: str
        ready: int


def store(plan: Plan) -> int:
    """Return the descriptor of an anonymous file that holds the plan and outlives an exec."""
    descriptor = os.memfd_create("sifdeck-plan", 0)
    data = marshal.dumps(dict(plan))
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def load(descriptor: int) -> Plan:
    """Return the plan that :func:`store` left, and close the file."""
    with open(descriptor, "rb") as file:
        plan: Plan = marshal.loads(file.read())  # noqa: S302  (our own bytes, see above)
    return plan
