"""The gateway over real sockets: who may ask, what comes back, how it starts and does not. uvicorn serves where it is there."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from gateway_world import GatewayWorld, Loopback

from procs import topology
from procs.cli.outcome import USAGE, CliError
from procs.cli.starting import refuse_without_packages
from procs.gateway import packages, stage
from procs.gateway.answers import ROUTES
from procs.gateway.front import Front, host_of, known_hosts, origin_host
from procs.gateway.shapes import ErrorAnswer
from procs.memory import board
from procs.memory import segments as pipeline
from procs.profiles.config import ConfigError, load_profile

HOSTS = known_hosts("127.0.0.1", ())
WEB = not packages.missing()
needs_web = pytest.mark.skipif(not WEB, reason="the extra `web` (fastapi, uvicorn) is not installed")


class Asked(msgspec.Struct):
    """One response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


def ask(port: int, path: str, method: str = "GET", **headers: str) -> Asked:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    with contextlib.closing(connection):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method, path, skip_host="Host" in named)
        for name, value in named.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return Asked(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


@contextlib.contextmanager
def served_by_uvicorn(world: GatewayWorld) -> Iterator[int]:
    """The gateway's own server loop in a thread, over the world's answers."""
    import asyncio

    settings = msgspec.structs.replace(world.profile.gateway, port=0)
    listener = stage.listening(settings)
    page, stop = np.zeros(board.PAGE_WORDS, np.int64), [False]
    app = stage.application(world.answers, settings)
    thread = threading.Thread(target=lambda: asyncio.run(stage.serve(app, listener, world.answers, page, stop)))
    thread.start()
    try:
        while not page[board.READY]:  # READY is said when the server has started
            thread.join(0.005)
            assert thread.is_alive()
        assert page[board.HEARTBEAT] > 0 and page[board.PORT] == listener.getsockname()[1]
        yield int(page[board.PORT])
    finally:
        stop[0] = True
        thread.join(120)
        listener.close()
        assert not thread.is_alive()


@pytest.fixture(params=["asyncio", pytest.param("uvicorn", marks=needs_web)])
def served(request: pytest.FixtureRequest) -> Iterator[tuple[GatewayWorld, int]]:
    """A world with one symbol alive, and the port where it is served."""
    world = GatewayWorld()
    world.both()
    if request.param == "uvicorn":
        with served_by_uvicorn(world) as port:
            yield world, port
    else:
        with Loopback(Front(world.answers, HOSTS)) as server:
            yield world, server.port


def test_every_route_answers_as_json(served: tuple[GatewayWorld, int]) -> None:
    """GET gives JSON that must not be kept; HEAD the same headers and no body."""
    world, port = served
    world.both(1)
    for route in ROUTES:
        path = route.prefix + ("BTCUSDT" if route.takes_symbol else "")
        got = ask(port, path)
        assert got.status == 200, (path, got.body)
        assert got.headers["content-type"] == "application/json" and got.headers["cache-control"] == "no-store"
        assert got.headers["x-content-type-options"] == "nosniff" and int(got.headers["content-length"]) == len(got.body)
        assert not any(name.startswith("access-control") for name in got.headers)
        assert msgspec.json.decode(got.body, type=route.answer)
        head = ask(port, path, "HEAD")
        assert head.status == 200 and head.body == b"" and int(head.headers["content-length"]) > 0


def test_status_codes_over_the_wire(served: tuple[GatewayWorld, int]) -> None:
    """404, 422 and 503 carry the reason."""
    world, port = served
    assert ask(port, "/signal/BTCUSDT?tf=5s").json["tf"] == "5s"
    for path, status, kind in (
        ("/signal/NOPE", 404, "unknown_symbol"), ("/signal/BTCUSDT?tf=7m", 422, "unknown_timeframe"),
        ("/book/ETHUSDT", 503, "not_ready"), ("/signal/%00", 404, "unknown_symbol"),
    ):  # fmt: skip
        got = ask(port, path)
        assert (got.status, msgspec.json.decode(got.body, type=ErrorAnswer).error.kind) == (status, kind)
    for path in ("/nothing", "/docs/nothing", "/signal/BTCUSDT/more", "/"):
        got = ask(port, path)
        assert got.headers["content-type"] == "application/json"
        found = msgspec.json.decode(got.body, type=ErrorAnswer).error
        assert (got.status, found.kind, found.known) == (404, "unknown_path", [route.path for route in ROUTES])
    assert ask(port, "/healthz").status == 503  # ETHUSDT has no record yet
    world.pass_ms(60_000)
    got = ask(port, "/signal/BTCUSDT")
    assert got.status == 503 and got.json["error"]["age_ms"] == 60_000.0


def test_a_defect_has_the_shape_of_a_refusal(served: tuple[GatewayWorld, int]) -> None:
    """500, the shape of every other error, nothing of the traceback; the next request is served."""
    world, port = served

    def broken(symbol: str, tf: str) -> Any:
        raise ZeroDivisionError("a defect")

    world.answers._pages["/symbols"] = broken
    got = ask(port, "/symbols")
    assert got.status == 500 and b"defect" not in got.body and b"Traceback" not in got.body
    assert msgspec.json.decode(got.body, type=ErrorAnswer).error.kind == "internal"
    assert ask(port, "/book/BTCUSDT").status == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "[::1]:9"])
def test_loopback_names_are_served(served: tuple[GatewayWorld, int], host: str) -> None:
    """Whatever port they name."""
    assert ask(served[1], "/symbols", Host=host).status == 200
    assert ask(served[1], "/symbols", Host=host, Origin=f"http://{host}").status == 200


FOREIGN = ["evil.example", "127.0.0.1.evil.example", "localhost.", "a@localhost", "x/localhost", "[::", ""]
PATHS = ("/signal/BTCUSDT?tf=1s", "/book/BTCUSDT", "/features/BTCUSDT", "/symbols", "/signal/NOPE", "/signal/BTCUSDT?tf=x")


@pytest.mark.parametrize("host", FOREIGN)
def test_other_names_are_refused(served: tuple[GatewayWorld, int], host: str) -> None:
    """A name that was made to point to loopback reads nothing."""
    got = ask(served[1], "/signal/BTCUSDT", Host=host)
    assert got.status in (400, 403) and b"decision" not in got.body


@pytest.mark.parametrize("origin", ["http://evil.example", "https://localhost.evil.example", "null", "file://", "http://a@localhost"])
def test_pages_of_other_origins_are_refused(served: tuple[GatewayWorld, int], origin: str) -> None:
    """Though they ask loopback by its name."""
    got = ask(served[1], "/signal/BTCUSDT", Origin=origin)
    assert got.status == 403 and got.json["error"]["kind"] == "foreign_origin"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(served: tuple[GatewayWorld, int], method: str) -> None:
    """405 for every method but GET and HEAD, a preflight among them."""
    got = ask(served[1], "/signal/BTCUSDT", method)
    assert got.status == 405 and got.headers["allow"] == "GET, HEAD"


def test_long_queries_are_refused(served: tuple[GatewayWorld, int]) -> None:
    """400 before anything is parsed."""
    assert ask(served[1], "/signal/BTCUSDT?" + "a" * 2000).status == 400


def test_a_profile_adds_names() -> None:
    """The address listened on and gateway.hosts are known besides loopback's; an address for all interfaces names none."""
    assert known_hosts("10.0.0.5", ("Scalper.Lan",)) == HOSTS | {"10.0.0.5", "scalper.lan"}
    assert known_hosts("0.0.0.0", ()) == HOSTS
    assert host_of("localhost:80") == "localhost" and host_of("[::1]:80") == "::1" and host_of("[::") == ""
    assert origin_host("https://localhost:8000") == "localhost" and origin_host("ws://localhost") == ""


@needs_web
def test_the_document_describes_what_is_served(served: tuple[GatewayWorld, int]) -> None:
    """/openapi.json has every route with its parameters, statuses and shapes; /docs is a page."""
    world, _ = served
    with served_by_uvicorn(world) as port:
        told = ask(port, "/openapi.json").json
        assert set(told["paths"]) == {route.path for route in ROUTES}
        for route in ROUTES:
            get = told["paths"][route.path]["get"]
            assert set(get["responses"]) == {"200", *map(str, route.statuses)}
            wanted = (["symbol"] if route.takes_symbol else []) + (["tf"] if route.takes_tf else [])
            assert [parameter["name"] for parameter in get.get("parameters", [])] == wanted
            shape = get["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
            assert shape == route.answer.__name__ and shape in told["components"]["schemas"]
        page = ask(port, "/docs")
        assert page.status == 200 and page.headers["content-type"].startswith("text/html")
        assert ask(port, "/docs", Host="evil.example").status == 403


@needs_web
def test_the_described_application_answers_alike(served: tuple[GatewayWorld, int]) -> None:
    """FastAPI's own routes give the bytes that the front gives."""
    from procs.gateway.document import described

    world, _ = served
    front, app = Front(world.answers, HOSTS), described(world.answers)
    with Loopback(front) as one, Loopback(app) as other:
        for path in PATHS:
            first, second = ask(one.port, path), ask(other.port, path)
            assert (first.status, first.body) == (second.status, second.body)


# ---- starting ---------------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_one_clear_sentence() -> None:
    """GatewayError with address, reason and remedy."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(stage.GatewayError, match=rf"127\.0\.0\.1 port {port} \(address already in use\).*gateway\.port"):
            stage.listening(load_profile("paper", {"gateway.port": port}).gateway)


def test_absent_packages_are_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """`scalperctl start` with gateway.enabled and without the extra `web` ends with the usage code and the remedy."""
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    refuse_without_packages(load_profile("paper"))
    with pytest.raises(CliError, match=r"fastapi and uvicorn cannot be imported: install the extra `web`") as raised:
        refuse_without_packages(load_profile("paper", {"gateway.enabled": True}))
    assert raised.value.code == USAGE


@pytest.mark.parametrize(("packages_there", "said"), [(True, "cannot listen"), (False, "install the extra `web`")])
def test_a_gateway_that_cannot_start_says_why_and_ends(
    packages_there: bool, said: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, the reason in its log, a fault on its page; it never says READY."""
    monkeypatch.setattr(packages, "find_spec", lambda name: find_spec("json") if packages_there else None)
    monkeypatch.setattr(stage, "step_back", lambda: None)
    monkeypatch.setattr(stage.signal, "signal", lambda number, handler: None)
    instance = "test-no-gateway"
    memory = pipeline.create(instance, pipeline.Placement())
    try:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            profile = load_profile("paper", {"instance": instance, "gateway.enabled": True, "gateway.port": port})
            assert stage.main(profile, {"instance": instance, "incarnation": 1}) == stage.EXIT_FAILED
        page = board.page(memory.board_words, topology.stage_id("gateway"))
        assert page[board.READY] == 0 and page[board.FAULT] == stage.FAULT_START
        assert said in capfd.readouterr().err
        del page
    finally:
        memory.destroy()


@pytest.mark.parametrize("key", ["gateway.port=70000", "gateway.host=a b", "gateway.stale_after_ms=0", "gateway.colour=red"])
def test_wrong_settings_are_refused(key: str) -> None:
    """With the key and a remedy."""
    name, _, value = key.partition("=")
    with pytest.raises(ConfigError, match="gateway"):
        load_profile("paper", {name: int(value) if value.isdigit() else value})


def test_the_gateway_gates_no_ring_and_is_not_needed() -> None:
    """It is in no ring's table of readers or writers, starts last and only where it is enabled, and never for `record`."""
    assert not any("gateway" in (ring.writer, *ring.readers) for ring in topology.RINGS)
    wanted = frozenset({"gateway.enabled"})
    assert not topology.STAGE["gateway"].essential and "gateway" not in topology.Run(source="live").names
    assert topology.Run(asked=wanted).names[-1] == "gateway"
    assert "gateway" not in topology.Run("record", "live", asked=wanted).names
    assert [s.name for s in topology.STAGES if not s.essential] == ["gateway", "learner"]


def test_the_sources_name_no_writing_end() -> None:
    """The gateway's modules hold no writer of a ring and no control channel: what they cannot do they cannot do by mistake."""
    folder = Path(stage.__file__).parent
    for path in folder.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not any(word in text for word in ("PlainWriter", "open_writer", "procs.supervision.control", "Writer("))
