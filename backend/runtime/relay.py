"""Between our terminal and that of a container which the built-in runtime has started.

A process of its own, so that the launcher need not poll.  It holds the container's side of
the terminal; when that is closed and all output is copied, it ends.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import termios

from backend.runtime import kernel

TYPE_CHECKING = False  # importing typing costs the launcher 5 ms
if TYPE_CHECKING:
    import socket

_CHUNK = 1 << 16


def start(peer: socket.socket) -> int:
    """Start the relay and return its pid.

    Args:
        peer: The runtime sends the terminal there and waits for an answer.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        kernel.die_with_parent(parent)
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGWINCH):
            signal.signal(number, signal.SIG_IGN)
        _serve(peer)
    finally:
        os._exit(0)


def _serve(peer: socket.socket) -> None:
    import socket
    import tty

    _, descriptors, _, _ = socket.recv_fds(peer, 1, 1)
    master = descriptors[0]
    fcntl.ioctl(master, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))
    tty.setraw(0)
    peer.send(b"x")
    peer.close()
    sources = [0, master]
    while True:
        for source in select.select(sources, [], [])[0]:
            try:
                data = os.read(source, _CHUNK)
            except OSError:  # EIO: the other side is closed, and everything was read
                data = b""
            if data:
                _write(1 if source == master else master, data)
            elif source == master:
                return
            else:
                os.close(master)  # our terminal has gone, so the container's hangs up
                return


def _write(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
