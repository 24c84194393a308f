"""The gateway as a process of a pipeline: asked while a generated market runs, and gone with it; a taken port harms nobody."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import kill_run
import pytest

from procs.gateway import packages
from procs.memory import board
from procs.supervision import control

pytestmark = [
    pytest.mark.timeout(900),  # the first start after an edit compiles the kernels
    pytest.mark.skipif(bool(packages.missing()), reason="the extra `web` (fastapi, uvicorn) is not installed"),
]
LIMIT_S = 120.0


def get(port: int, path: str) -> tuple[int, Any]:
    """Status and JSON of one GET on loopback."""
    try:
        with urllib.request.urlopen(f"http://localhost:{port}{path}", timeout=LIMIT_S) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def wait_for(run: kill_run.Run, done: Callable[[], bool]) -> None:
    """Until `done`, while the run lives."""
    limit = time.monotonic() + LIMIT_S
    while not done():
        assert time.monotonic() < limit and not run.ended()
        run.look_away()


@pytest.mark.usefixtures("own_folders")
def test_a_running_pipeline_is_asked_over_http() -> None:
    """Signals, book, features, health and the document from a living pipeline; after the stop nothing is left or lost."""
    market = kill_run.Source("paper", {"generator.duration_s": 3600.0, "source.speed": 1})
    run = kill_run.Run("test-gateway", market, {"gateway.enabled": True, "gateway.port": 0})
    try:
        run.ready()
        wait_for(run, lambda: bool(run.page("gateway")[board.READY] and run.page("gateway")[board.PORT]))
        port = int(run.page("gateway")[board.PORT])
        wait_for(run, lambda: get(port, "/signal/BTCUSDT?tf=1s")[0] == 200)
        said = get(port, "/signal/BTCUSDT?tf=1m")[1]
        assert said["symbol"] == "BTCUSDT" and said["decision"]["gate"]["sentence"] and said["ages"]["market_ms"] < 10_000
        book = get(port, "/book/BTCUSDT")[1]
        assert book["state"] == "valid" and book["bids"][0]["price_ticks"] < book["asks"][0]["price_ticks"]
        assert get(port, "/features/BTCUSDT")[0] == get(port, "/symbols")[0] == get(port, "/openapi.json")[0] == 200
        assert get(port, "/healthz")[1]["ok"] is True
        assert get(port, "/signal/NOPE")[0] == 404 and get(port, "/signal/BTCUSDT?tf=3m")[0] == 422
        run.stop()
        assert run.wait_end() == 0
    finally:
        run.close()
    assert [told for told in kill_run.checks(run, {}, None) if not told[1]] == []


@pytest.mark.usefixtures("own_folders")
def test_a_taken_port_ends_the_gateway_and_nothing_else() -> None:
    """The gateway alone is given up: the pipeline runs on without a halt, and ends in order."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = {"gateway.enabled": True, "gateway.port": taken.getsockname()[1], "supervisor.max_restarts": 3}
        run = kill_run.Run("test-port", kill_run.Source("paper", {"generator.duration_s": 3600.0}), settings)
        try:
            run.ready()

            def states() -> dict[str, str]:
                told = control.request("test-port", {"do": "status"})
                assert told["phase"] == "running" and not told["halted"]
                return {stage["name"]: stage["actual"] for stage in told["stages"]}

            wait_for(run, lambda: states()["gateway"] == "FATAL")
            assert {state for name, state in states().items() if name != "gateway"} == {"RUNNING"}
            run.stop()
            assert run.wait_end() == 0
        finally:
            run.close()
