"""The proxy of the tests must not fail tests itself."""

from __future__ import annotations

import gc
import socket
import time

from tests.support.flaky import flaky_proxy


def test_a_client_that_goes_leaves_no_task_to_the_collector() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        flaky_proxy(f"127.0.0.1:{silent.getsockname()[1]}") as proxy,
    ):
        host, _, port = proxy.host.partition(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            registry, _ = silent.accept()
        with registry:
            for _ in range(20):  # until the proxy has seen that the client is gone
                time.sleep(0.01)
                gc.collect()
