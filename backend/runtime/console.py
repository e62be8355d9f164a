"""The terminal of a container in the background: a server that holds it, and who attaches to it.

The server has the other side of a terminal of its own making; what the container prints goes
to its log and to everybody attached, what these type goes to the container.  Between server
and client stand packets on a socket in the container's folder: text as it is from the server,
and from the client a letter with text, ``d``, or the size of its window, ``w``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import socket
import struct
import termios

from backend.errors import LaunchError, UsageError
from backend.escape import quoted
from backend.runtime import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SOCKET, INPUT = "console", "stdin"
"""Names in the folder of a container: of one that has a terminal, of one whose input is open."""
DETACH_KEYS = "ctrl-p,ctrl-q"
"""Docker's."""
_CHUNK = 1 << 14


def serve(folder: str, log: int, rows: int, columns: int) -> None:
    """Make a terminal, start its server, and make it this process's own.

    Args:
        folder: Of the container.
        log: Gets what is printed.
        rows: Height until somebody attaches.
        columns: Width until somebody attaches.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
    os.chdir(folder)  # the socket's full name may be too long
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(SOCKET)
    listener.listen()
    parent = os.getpid()
    if os.fork() == 0:
        try:
            kernel.die_with_parent(parent)
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            os.setsid()
            os.close(slave)
            nowhere = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(3):
                os.dup2(nowhere, descriptor)
            _Server(master, listener, log).run()
        finally:
            os._exit(0)
    os.close(master)
    listener.close()
    os.chdir("/")
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for descriptor in range(3):
        os.dup2(slave, descriptor)


class _Server:
    def __init__(self, master: int, listener: socket.socket, log: int) -> None:
        self._master, self._listener, self._log = master, listener, log
        self._clients: list[socket.socket] = []
        self._typed = bytearray()

    def run(self) -> None:
        """Copy until the container's side of the terminal is closed."""
        while True:
            # What is typed waits while the container does not read: it may wait for us to.
            watched: list[int | socket.socket] = [self._master, self._listener]
            watched += [] if self._typed else self._clients
            waiting = [self._master] if self._typed else []
            ready, writable, _ = select.select(watched, waiting, [])
            if writable:
                del self._typed[: os.write(self._master, self._typed[:256])]
            if self._listener in ready:
                self._clients.append(self._listener.accept()[0])
            for client in [one for one in self._clients if one in ready]:
                self._hear(client)
            if self._master in ready and not self._print():
                return

    def _hear(self, client: socket.socket) -> None:
        try:
            packet = client.recv(_CHUNK + 1)
        except OSError:
            packet = b""
        if packet.startswith(b"d"):
            self._typed += packet[1:]
        elif packet.startswith(b"w") and len(packet) == 9:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, packet[1:])
        else:
            self._drop(client)

    def _print(self) -> bool:
        """Copy what the container prints; return False when there is no more."""
        try:
            data = os.read(self._master, _CHUNK)
        except OSError:  # EIO: the other side is closed, and everything was read
            return False
        with contextlib.suppress(OSError):  # a full disk is no reason to end the container
            os.write(self._log, data)
        for client in list(self._clients):
            try:
                client.send(data)
            except OSError:  # gone
                self._drop(client)
        return bool(data)

    def _drop(self, client: socket.socket) -> None:
        client.close()
        self._clients.remove(client)


def parse_keys(text: str) -> bytes:
    """Return the bytes that ``ctrl-p,ctrl-q`` or ``x,ctrl-]`` stands for.

    Raises:
        UsageError: A key is none.
    """
    return bytes(_key(word) for word in text.split(",") if text)


def _key(word: str) -> int:
    if len(word) == 1 and word.isascii():
        return ord(word)
    letter = word.upper().removeprefix("CTRL-")
    if word.upper() == f"CTRL-{letter}" and len(letter) == 1 and "@" <= letter <= "_":
        return ord(letter) & 0x1F
    raise UsageError(f"not a key: {quoted(word, limit=20)}", hint="such as ctrl-p,ctrl-q")


class _Typist:
    """Looks for the keys that detach in what is typed."""

    def __init__(self, keys: bytes) -> None:
        self._keys, self._held = keys, b""

    def type(self, data: bytes) -> bytes | None:
        """Return what goes on to the container; None when the user leaves."""
        out = bytearray()
        for byte in data:
            self._held += bytes([byte])
            if self._held == self._keys:
                return None
            while self._held and not self._keys.startswith(self._held):
                out.append(self._held[0])
                self._held = self._held[1:]
        return bytes(out)


def attach_terminal(folder: str, keys: bytes) -> bool:
    """Connect our terminal with that of a container; return False when the user left first.

    Args:
        folder: Of the container.
        keys: Those with which the user leaves; empty for none.

    Raises:
        LaunchError: Its terminal is gone.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here = os.open(folder, os.O_PATH)
    try:
        connection.connect(f"/proc/self/fd/{here}/{SOCKET}")
    except OSError as error:
        raise LaunchError("cannot attach to the container", why=str(error.strerror)) from error
    finally:
        os.close(here)
    on_terminal = os.isatty(0)
    with connection, _raw(connection) if on_terminal else contextlib.nullcontext():
        return _converse(connection, _Typist(keys if on_terminal else b""))


def _converse(connection: socket.socket, typist: _Typist) -> bool:
    sources: list[socket.socket | int] = [connection, 0]
    while True:
        ready = select.select(sources, [], [])[0]
        if connection in ready:
            data = connection.recv(_CHUNK)
            if not data:
                return True
            _write_all(1, data)
        if 0 in ready:
            typed = os.read(0, _CHUNK)
            if not typed:
                sources.remove(0)
                continue
            passed = typist.type(typed)
            if passed is None:
                return False
            with contextlib.suppress(BrokenPipeError):  # it has ended: what it said comes first
                connection.send(b"d" + passed)


@contextlib.contextmanager
def _raw(connection: socket.socket) -> Iterator[None]:
    """Have every key go to the container, and the size of our window, too."""
    import tty

    def tell_size(*_: object) -> None:
        with contextlib.suppress(OSError):
            connection.send(b"w" + fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))

    modes = termios.tcgetattr(0)
    before = signal.signal(signal.SIGWINCH, tell_size)
    tell_size()
    try:
        tty.setraw(0, termios.TCSADRAIN)  # what was typed ahead is the container's
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, modes)
        signal.signal(signal.SIGWINCH, before)


def _write_all(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]


def open_input(folder: str) -> int:
    """Return an input for a container that never ends, and that :func:`feed` writes to."""
    os.mkfifo(f"{folder}/{INPUT}", 0o600)
    return os.open(f"{folder}/{INPUT}", os.O_RDWR)


def feed(folder: str) -> None:
    """Copy our input to a container's, until one of them has ended."""
    with contextlib.suppress(OSError):  # it has just ended
        target = os.open(f"{folder}/{INPUT}", os.O_WRONLY | os.O_NONBLOCK)
        os.set_blocking(target, True)
        while data := os.read(0, _CHUNK):
            _write_all(target, data)
