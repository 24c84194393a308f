"""What one client may cost the gateway: sizes, times and numbers; who may ask from afar; one shape for every error."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_world import GatewayWorld

from procs.cli.starting import refuse_without_packages
from procs.gateway import packages
from procs.gateway.bearer import TokenError, is_given, read_token
from procs.gateway.front import Front, known_hosts
from procs.pacing import MINUTE
from procs.profiles.config import ConfigError, load_profile

if packages.missing():
    pytest.skip("the extra `web` (fastapi, uvicorn) is not installed", allow_module_level=True)

import uvicorn
from uvicorn.server import ServerState

from procs.gateway import bounds

WORD = b"0123456789abcdef0123456789abcdef"
GOOD = b"GET /symbols HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF = GOOD[:-8]


class Wire(asyncio.Transport):
    """One connection, by hand: what the server wrote, and whether it is open. Not `reads`: nothing leaves the server's buffer."""

    def __init__(self, served: Served, reads: bool = True) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.got, self.is_open, self._reads, self._served = b"", True, reads, served
        self.protocol = served.made()
        self.protocol.connection_made(self)

    def send(self, data: bytes) -> Wire:
        """The client's bytes, one event-loop turn each call."""
        if self.is_open:
            self.protocol.data_received(data)
        self._served.turn()
        return self

    def answer(self) -> tuple[int, dict[str, Any]]:
        """Status and body of the last answer."""
        head, _, body = self.got[self.got.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
        assert f"content-length: {len(body)}".encode() in head and b"content-type: application/json" in head
        return int(head.split()[1]), json.loads(body)

    def write(self, data: Any) -> None:
        """What the server says."""
        self.got += bytes(data)

    def get_write_buffer_size(self) -> int:
        """Bytes that the client has not read."""
        return 0 if self._reads else len(self.got)

    def is_closing(self) -> bool:
        """Whether it is at its end."""
        return not self.is_open

    def close(self) -> None:
        """The server's end of it."""
        if self.is_open:
            self.is_open = False
            self._served.loop.call_soon(self.protocol.connection_lost, None)

    abort = close

    def pause_reading(self) -> None:
        """Nothing comes by itself."""

    def resume_reading(self) -> None:
        """Nothing comes by itself."""


class Served:
    """The bounded protocol on a loop in virtual time: no socket, no waiting."""

    def __init__(self, **front: Any) -> None:
        self.world = GatewayWorld()
        self.world.both()
        self.loop = asyncio.new_event_loop()
        self._now = self.loop.time()
        self.loop.time = lambda: self._now  # type: ignore[method-assign]
        app = Front(self.world.answers, known_hosts("127.0.0.1", ()), **front)
        self.config = uvicorn.Config(
            app, lifespan="off", log_config=None, ws="none", interface="asgi3", http=bounds.bounded(),
            timeout_keep_alive=bounds.KEEP_ALIVE_S,
        )  # fmt: skip
        self.config.load()
        self.state = ServerState()

    def made(self) -> Any:
        """A new connection's protocol."""
        return self.config.http_protocol_class(config=self.config, server_state=self.state, app_state={}, _loop=self.loop)

    def turn(self, seconds: float = 0.0) -> None:
        """Let time pass, and everything due happen."""
        self._now += seconds
        for _ in range(6):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()


@pytest.fixture
def served() -> Iterator[Served]:
    """A server of its own."""
    one = Served()
    yield one
    one.turn(10 * bounds.KEEP_ALIVE_S)
    one.loop.close()


def error_of(wire: Wire) -> tuple[int, str]:
    """Status and kind of a refusal."""
    status, body = wire.answer()
    assert set(body) == {"error"} and body["error"]["message"]
    return status, body["error"]["kind"]


def test_whole_requests_are_answered_however_they_are_cut(served: Served) -> None:
    """In one piece, byte by byte, two at once, one after the other on a kept connection."""
    assert Wire(served).send(GOOD).answer()[0] == 200
    drops = Wire(served)
    for byte in GOOD:
        drops.send(bytes([byte]))
    assert drops.answer()[0] == 200
    assert Wire(served).send(GOOD + GOOD).got.count(b"HTTP/1.1 200") == 2
    kept = Wire(served).send(GOOD)
    for _ in range(2):
        served.turn(bounds.KEEP_ALIVE_S - 1)
        kept.send(GOOD)
    assert kept.got.count(b"HTTP/1.1 200") == 3 and kept.is_open
    served.turn(bounds.KEEP_ALIVE_S + 2)
    assert not kept.is_open


@pytest.mark.parametrize("cut", [1, 7, 4096])
def test_a_long_head_is_refused_before_it_is_held(served: Served, cut: int) -> None:
    """431 and the end as soon as the bound is passed, whatever the pieces; a body is 413."""
    wire = Wire(served)
    text = b"GET /symbols HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * (2 * bounds.MAX_REQUEST_BYTES)
    sent = 0
    while wire.is_open and sent < len(text):
        wire.protocol.data_received(text[sent : sent + cut])
        sent += cut
    served.turn()
    assert error_of(wire) == (431, "long_request") and sent <= bounds.MAX_REQUEST_BYTES + 2 * cut
    assert error_of(Wire(served).send(b"GET /symbols HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n" + GOOD))[0] == 431
    body = Wire(served).send(b"GET /symbols HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(10):
        body.send(b"y" * 1000)
    assert not body.is_open and error_of(body) == (413, "long_request")


def test_a_request_has_its_time(served: Served) -> None:
    """Half a head ends after REQUEST_S, on a new connection as on a kept one, though bytes keep trickling."""
    new, kept = Wire(served).send(HALF), Wire(served).send(GOOD)
    kept.send(HALF)
    for n in range(20):
        served.turn(bounds.REQUEST_S / 20)
        new.send(b"x")
        kept.send(b"x")
        assert new.is_open == kept.is_open == (n < 19), n
    assert error_of(new) == error_of(kept) == (408, "slow_request")


def test_an_answer_that_nobody_reads_is_given_up(served: Served) -> None:
    """The connection is cut after UNREAD_S."""
    wire = Wire(served, reads=False).send(GOOD)
    assert wire.is_open and wire.got
    served.turn(bounds.UNREAD_S + 1)
    assert not wire.is_open


def test_half_open_requests_make_room_for_whole_ones(served: Served) -> None:
    """Thousands that owe a request keep nobody out, and never more than MAX_CONNECTIONS stand open."""
    halves = []
    for n in range(6000):
        halves.append(Wire(served))
        halves[-1].protocol.data_received(HALF)
        if n % 500 == 0:
            assert Wire(served).send(GOOD).answer()[0] == 200
            assert sum(it.is_open for it in halves) <= bounds.MAX_CONNECTIONS
    assert halves[-1].is_open and not halves[0].is_open


def test_what_is_no_http_has_the_same_shape(served: Served) -> None:
    """400 for bytes that cannot be parsed; 404, 405 and 403 in one shape with those of the bounds."""
    for raw in (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET  HTTP/9\r\n\r\n", b"nonsense\r\n\r\n"):
        assert error_of(Wire(served).send(raw)) == (400, "bad_request"), raw
    for path, host, method, expected in (
        ("/nothing", "localhost", "GET", (404, "unknown_path")), ("/docs/nothing", "localhost", "GET", (404, "unknown_path")),
        ("/symbols", "evil.example", "GET", (403, "unknown_host")), ("/symbols", "localhost", "POST", (405, "read_only")),
    ):  # fmt: skip
        assert error_of(Wire(served).send(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())) == expected


def test_a_defect_is_500_in_the_same_shape_and_in_the_log() -> None:
    """The client learns that it failed, the log what failed."""
    heard: list[Exception] = []
    served = Served(fault=heard.append)
    served.world.answers.get = lambda *_: 1 // 0  # type: ignore[method-assign]
    assert error_of(Wire(served).send(GOOD)) == (500, "internal")
    assert isinstance(heard[0], ZeroDivisionError)


def test_the_log_is_bounded() -> None:
    """LOG_LINES entries a minute, shortened; how many were kept back is said with the next."""
    now = [0]
    few = bounds.FewLines(lambda: now[0])

    def entry() -> logging.LogRecord:
        return logging.LogRecord("uvicorn.error", logging.WARNING, "", 0, "bad %s", ("x" * 100_000,), None)

    passed = [few.filter(entry()) for _ in range(1000)]
    assert passed == [True] * bounds.LOG_LINES + [False] * (1000 - bounds.LOG_LINES)
    now[0] = 2 * MINUTE
    last = entry()
    assert few.filter(last) and len(last.getMessage()) < bounds.LOG_CHARS + 60
    assert last.getMessage().endswith(f"(and {1000 - bounds.LOG_LINES} entries like it before)")


# ---- the token ----------------------------------------------------------------------------------------------------------


def test_with_a_token_nothing_is_answered_without_it() -> None:
    """401 for every path, the document's too, and for a wrong word; 200 with the right one."""
    served = Served(token=WORD)
    for path in ("/symbols", "/signal/BTCUSDT", "/healthz", "/docs", "/nothing"):
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n".encode()
        for more in (b"", b"Authorization: Bearer " + WORD[:-1] + b"\r\n", b"Authorization: Basic " + WORD + b"\r\n"):
            wire = Wire(served).send(head + more + b"\r\n")
            assert error_of(wire) == (401, "no_token") and b"www-authenticate: Bearer" in wire.got
    assert Wire(served).send(GOOD[:-2] + b"Authorization: bearer " + WORD + b"\r\n\r\n").answer()[0] == 200
    assert is_given("Bearer  " + WORD.decode() + " ", WORD) and not is_given(WORD.decode(), WORD) and not is_given("", WORD)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "scalper.lan"])
def test_an_address_that_others_reach_needs_a_token(host: str, tmp_path: Path) -> None:
    """A profile without one is refused at its key; loopback needs none, nor does a gateway that is off."""
    settings = {"gateway.enabled": True, "gateway.host": host}
    with pytest.raises(ConfigError, match=r"gateway\.host.*no loopback address.*gateway\.token_file"):
        load_profile("paper", settings)
    load_profile("paper", {**settings, "gateway.enabled": False})
    for own in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        load_profile("paper", {**settings, "gateway.host": own})
    profile = load_profile("paper", {**settings, "gateway.token_file": str(tmp_path / "token")})
    with pytest.raises(TokenError, match="no such file"):  # before anything is started
        refuse_without_packages(profile)
    (tmp_path / "token").write_bytes(WORD + b"\n")
    (tmp_path / "token").chmod(0o600)
    refuse_without_packages(profile)


def test_a_token_is_a_secret_of_its_owner(tmp_path: Path) -> None:
    """Refused by its path: readable by others, too short, of two words, a folder, a pipe."""
    path = tmp_path / "token"
    for content, mode, words in (
        (WORD, 0o640, "chmod 600"), (WORD, 0o604, "chmod 600"), (b"short", 0o600, "at least 16"), (b"", 0o600, "at least 16"),
        (WORD + b" " + WORD, 0o600, "no word"), (b"\xff" * 32, 0o600, "no word"), (b"x" * 5000, 0o600, "no word"),
    ):  # fmt: skip
        path.write_bytes(content)
        path.chmod(mode)
        with pytest.raises(TokenError, match=f"{path}.*{words}"):
            read_token(str(path))
    os.mkfifo(tmp_path / "pipe", 0o600)
    for other in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(TokenError, match=str(other)):
            read_token(str(other))
    path.write_bytes(WORD + b"\r\n")
    path.chmod(0o400)
    assert read_token(str(path)) == WORD
