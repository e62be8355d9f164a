"""A private network for a container, connected by pasta or slirp4netns, with ports of the host.

The launcher itself moves into the new network namespace and the runtime inherits it, so that
the namespace ends with them; the program that connects it stays in the old one and ends with
the launcher.
"""

from __future__ import annotations

import contextlib
import os
import time

from backend.errors import LaunchError
from backend.runtime import kernel
from backend.runtime.filesystems import last_line
from backend.runtime.plan import PRIVATE_DNS

TYPE_CHECKING = False  # importing typing costs the launcher 5 ms
if TYPE_CHECKING:
    import socket

    from backend.runtime.filesystems import Servers
    from backend.runtime.plan import Port

_GUEST = "10.0.2.100"
"""The address that slirp4netns gives to the container."""
_LOW_PORTS = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
_WAIT_S = 10.0


def connect(servers: Servers, program: str, ports: list[Port], session: str) -> None:
    """Enter a network namespace, connect it, and publish the ports.

    Args:
        servers: Gets the server.
        program: Path of pasta or slirp4netns.
        ports: What the host shows.
        session: Where its files are made.

    Raises:
        LaunchError: It did not start, or a port is taken.
    """
    for port in ports:
        _check_free(port)
    place = f"{session}/state/network"
    name = os.path.basename(program)
    ready, tell = os.pipe()
    begin, go = os.pipe()
    os.set_inheritable(tell, True)
    arguments = _pasta(ports, tell) if name == "pasta" else _slirp(place, tell)
    argv = [program, *arguments, f"{place}.ns", *([] if name == "pasta" else ["tap0"])]
    servers.start(argv, may_mount=True, after=(begin, go), log=f"{place}.log")
    os.close(begin)
    os.close(tell)
    kernel.unshare(kernel.CLONE_NEWNET, "network namespace")
    # Through a mount, since a program that gives up capabilities may not look into our /proc.
    os.close(os.open(f"{place}.ns", os.O_CREAT | os.O_WRONLY, 0o600))
    kernel.bind("/proc/self/ns/net", f"{place}.ns")
    _open_low_ports()
    os.close(go)
    with open(ready, "rb") as pipe:
        if not pipe.read(1).isdigit():
            raise LaunchError(
                f"{name} could not connect the container's network",
                why=last_line(f"{place}.log") or "it needs /dev/net/tun",
                hint=_hint(name),
            )
    if name != "pasta":
        for port in ports:
            _publish(f"{place}.socket", port)


def _open_low_ports() -> None:
    """Let any user of the container listen on port 80, as with Docker; the network is their own."""
    with contextlib.suppress(OSError), open(_LOW_PORTS, "wb") as file:
        file.write(b"0")


def _pasta(ports: list[Port], tell: int) -> list[str]:
    """Return pasta's options; the last of them takes the namespace."""
    shown: dict[str, list[str]] = {"tcp": [], "udp": []}
    for port in ports:
        address = f"{port['address']}/" if port["address"] else ""
        shown[port["protocol"]].append(f"{address}{port['host']}:{port['container']}")
    return [
        "--foreground",
        "--quiet",
        "--stderr",
        "--config-net",
        "--no-map-gw",  # the host's own ports are not for the container
        f"--dns-forward={PRIVATE_DNS}",
        *(word for one in shown["tcp"] or ["none"] for word in ("-t", one)),
        *(word for one in shown["udp"] or ["none"] for word in ("-u", one)),
        *("-T", "none", "-U", "none"),
        f"--pid=/dev/fd/{tell}",  # written when all is set up
        *(() if os.getuid() else ("--runas", "0")),  # not nobody, who cannot join the namespace
        "--netns-only",
        "--netns",
    ]


def _slirp(place: str, tell: int) -> list[str]:
    """Return the options of slirp4netns; the namespace follows them."""
    return [
        "--configure",
        "--mtu=65520",
        "--disable-host-loopback",
        f"--ready-fd={tell}",
        f"--api-socket={place}.socket",
        "--netns-type=path",
    ]


def _check_free(port: Port) -> None:
    import socket

    address = port["address"] or "0.0.0.0"  # noqa: S104  (as Docker's -p)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_DGRAM if port["protocol"] == "udp" else socket.SOCK_STREAM
    try:
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
            probe.bind((address, port["host"]))
    except OSError as error:
        raise LaunchError(
            f"cannot publish port {port['host']}",
            why=f"{address}: {error.strerror}",
            hint="choose another one, from 1024 on: -p HOST:CONTAINER",
        ) from error


def _hint(name: str) -> str:
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "an administrator can: modprobe tun && chmod 666 /dev/net/tun"
    other = "slirp4netns" if name == "pasta" else "pasta"
    return f"try --net --network {other}, or the host's network: leave out --net"


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
            hint="choose another one: -p HOST:CONTAINER",
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
