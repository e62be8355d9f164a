"""A private network for a container, connected by slirp4netns, with ports of the host.

The launcher itself moves into the new network namespace and the runtime inherits it, so that
the namespace ends with them; slirp4netns stays in the old one and ends with the launcher.
"""

from __future__ import annotations

import os
import time

from backend.errors import LaunchError
from backend.runtime import kernel

TYPE_CHECKING = False  # importing typing costs the launcher 5 ms
if TYPE_CHECKING:
    import socket

    from backend.runtime.filesystems import Servers
    from backend.runtime.plan import Port

_GUEST = "10.0.2.100"
"""The address that slirp4netns gives to the container."""
_WAIT_S = 10.0
_MAX_LOG = 4096


def connect(servers: Servers, program: str, ports: list[Port], session: str) -> None:
    """Enter a network namespace, connect it, and publish the ports.

    Args:
        servers: Gets the server.
        program: Path of slirp4netns.
        ports: What the host shows.
        session: Where its socket is made.

    Raises:
        LaunchError: It did not start, or a port is taken.
    """
    ready, tell = os.pipe()
    begin, go = os.pipe()
    control = f"{session}/state/network"
    target = f"/proc/{os.getpid()}/ns/net"
    os.set_inheritable(tell, True)
    argv = [
        program,
        "--configure",
        "--mtu=65520",
        "--disable-host-loopback",
        f"--ready-fd={tell}",
        f"--api-socket={control}",
        "--netns-type=path",
        target,
        "tap0",
    ]
    servers.start(argv, may_mount=True, after=(begin, go), log=f"{control}.log")
    os.close(begin)
    os.close(tell)
    kernel.unshare(kernel.CLONE_NEWNET, "network namespace")
    os.close(go)
    with open(ready, "rb") as pipe:
        if pipe.read(1) != b"1":
            raise LaunchError(
                "slirp4netns could not connect the container's network",
                why=_last_line(f"{control}.log") or "it needs /dev/net/tun",
                hint="an administrator can: modprobe tun && chmod 666 /dev/net/tun",
            )
    for port in ports:
        _publish(control, port)


def _last_line(path: str) -> str:
    from backend.escape import one_line

    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return one_line((file.read(_MAX_LOG).splitlines() or [""])[-1])
    except OSError:
        return ""


def _publish(control: str, port: Port) -> None:
    """Ask slirp4netns to show one port on the host."""
    import json
    import socket

    request = {
        "execute": "add_hostfwd",
        "arguments": {
            "proto": port["protocol"],
            "host_addr": port["address"] or "0.0.0.0",  # noqa: S104  (as Docker's -p)
            "host_port": port["host"],
            "guest_addr": _GUEST,
            "guest_port": port["container"],
        },
    }
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_WAIT_S)
        _reach(connection, control)
        connection.sendall(json.dumps(request).encode())
        connection.shutdown(socket.SHUT_WR)
        answer = json.loads(connection.recv(4096))
    if "error" in answer:
        raise LaunchError(
            f"cannot publish port {port['host']}",
            why=str(answer["error"].get("desc", "slirp4netns refuses")),
            hint="choose another one, from 1024 on: -p HOST:CONTAINER",
        )


def _reach(connection: socket.socket, path: str) -> None:
    """Connect to a socket that is being made."""
    end = time.monotonic() + _WAIT_S
    while True:
        try:
            return connection.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > end:
                raise
            time.sleep(0.005)
