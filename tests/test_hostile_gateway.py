"""A gateway process under clients that mean it harm, over real sockets."""

from __future__ import annotations

import contextlib
import resource
import socket

import pytest
from gateway_world import GatewayWorld
from test_gateway_http import ask, needs_web, served_by_uvicorn

pytestmark = [pytest.mark.hostile, needs_web]
HALVES = 6000


def test_six_thousand_half_requests_shut_nobody_out() -> None:
    """While they stand (as many as the kernel and the gateway let stand), every whole request is answered."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = HALVES + 1000
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"this needs {wanted} open files, the hard limit is {hard}: raise ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    world = GatewayWorld()
    world.both()
    world.both(1)
    try:
        with served_by_uvicorn(world) as port, contextlib.ExitStack() as open_ones:
            for n in range(HALVES):
                one = open_ones.enter_context(socket.create_connection(("127.0.0.1", port), 60))
                one.sendall(b"GET /symbols HTTP/1.1\r\nHost: loc")
                if n % 500 == 0:
                    assert ask(port, "/symbols").status == 200
            for _ in range(20):
                assert ask(port, "/signal/BTCUSDT").status == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ten_megabytes_of_head_end_at_the_bound() -> None:
    """The server hangs up long before; others are served."""
    world = GatewayWorld()
    world.both()
    with served_by_uvicorn(world) as port:
        with socket.create_connection(("127.0.0.1", port), 60) as one:
            sent = 0
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                one.sendall(b"GET /symbols HTTP/1.1\r\nX: ")
                while sent < 10_000_000:
                    sent += one.send(b"x" * 4096)
        assert sent < 10_000_000
        assert ask(port, "/symbols").status == 200
