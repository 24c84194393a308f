"""A link against a real server on the loopback: sockets, decoders, snapshots and restarts, through both transports."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from receiver_world import LIVE, LinkWorld, RingWorld, Tiny, TinyServer, until

from procs.profiles.schema import LiveSettings
from procs.receiver import transport
from procs.receiver.line_table import read_table, venue_row, write_table
from trading.books.state import Want
from trading.records import Kind
from trading.venues.protocol import Limits
from trading.wire.plain_frame import W_LAST, read_plain_frame

BOTH = pytest.mark.parametrize("kind", ["picows", "websockets"])


def run(test: Callable[[TinyServer], Awaitable[None]]) -> None:
    """One test with a server, and a limit of time."""

    async def whole() -> None:
        async with asyncio.timeout(120), TinyServer() as server:
            await test(server)

    asyncio.run(whole())


def live(**changes: Any) -> LiveSettings:
    """Settings that are quick."""
    return msgspec.structs.replace(LIVE, **changes)


@BOTH
def test_frames_arrive_byte_identical_and_in_order(kind: str) -> None:
    """Native frames of many sizes go into the ring as they are, between LINE_UP and LINE_DOWN; the rest does not."""

    async def body(server: TinyServer) -> None:
        rng = random.Random(1)
        sent = [
            b'{"s":%d,"x":"%s"}' % (n % 2, rng.randbytes(rng.choice([0, 10, 200, 5000, 40_000])).hex().encode()[:40_000])
            for n in range(300)
        ]
        async with LinkWorld(server, Tiny(), live(transport=kind), world=RingWorld(1024, 1 << 22)) as at:
            await at.up()
            for n, raw in enumerate(sent):
                await server.sockets[0].send_bytes(raw) if n % 3 == 0 else await server.sockets[0].send_str(raw.decode())
            await server.sockets[0].send_str('{"beat":1}')
            await until(lambda: at.link.counts[0].ignored.get("beat"))
            await until(lambda: len(at.kinds(Kind.FRAME)) == 300)
            assert [raw for _, _, raw in at.kinds(Kind.FRAME)] == sent
            assert [symbol for symbol, _, _ in at.kinds(Kind.FRAME)] == [n % 2 for n in range(300)]
            assert at.link.counts[0].messages == 302 and at.link.counts[0].bytes > sum(map(len, sent))
        at.seen += at.world.read()
        order = [kind for kind, *_ in at.seen]
        assert order[:6] == [Kind.LINE_DOWN] * 4 + [Kind.LINE_UP] * 2 and order[-2:] == [Kind.LINE_DOWN] * 2

    run(body)


@BOTH
def test_pings_are_answered_with_their_payload(kind: str) -> None:
    """The venue pings; the pong carries its bytes, and the ping counts as a sign of life."""

    async def body(server: TinyServer) -> None:
        async with LinkWorld(server, Tiny(), live(transport=kind)) as at:
            await at.up()
            before = at.link.lines.lines[0].seen_ns
            await server.sockets[0].ping(b"1699999999999")
            await until(lambda: server.pongs)
            await until(lambda: at.link.lines.lines[0].seen_ns > before)
            assert server.pongs == [b"1699999999999"]

    run(body)


@BOTH
def test_a_line_that_the_server_closes_comes_back(kind: str) -> None:
    """LINE_DOWN at once, a new connection, LINE_UP; the reason is kept."""

    async def body(server: TinyServer) -> None:
        async with LinkWorld(server, Tiny(1), live(transport=kind)) as at:
            await at.up()
            await server.sockets[0].close(code=1012, message=b"restart")
            await until(lambda: server.upgrades == 2)
            await at.up()
            at.seen += at.world.read()
            assert [kind for kind, *_ in at.seen] == [Kind.LINE_DOWN] * 2 + [Kind.LINE_UP, Kind.LINE_DOWN, Kind.LINE_UP]
            assert "1012: restart" in at.link.lines.lines[0].last_end

    run(body)


@BOTH
def test_refused_upgrades_respect_retry_after(kind: str) -> None:
    """A 429 is not tried again before its time; a 503 is."""

    async def body(server: TinyServer) -> None:
        server.refuse = (503, {})
        async with LinkWorld(server, Tiny(1), live(transport=kind)) as at:
            await until(lambda: server.upgrades >= 2)
            server.refuse = (429, {"Retry-After": "3600"})
            await until(lambda: at.link.lines.blocked_ns > 0)
            seen = server.upgrades
            assert any("HTTP 429" in text and "3600 s" in text for text in at.said)
            for _ in range(60):
                at.link.tick()
            assert server.upgrades == seen

    run(body)


def test_nobody_listens() -> None:
    """A refused connection is a sentence in the log and a back-off, with the picows and the websockets client."""

    async def body(server: TinyServer) -> None:
        await server.__aexit__()
        for kind in ("picows", "websockets"):
            async with LinkWorld(server, Tiny(1), live(transport=kind)) as at:
                line = at.link.lines.lines[0]
                await until(lambda line=line: line.failures >= 2)  # type: ignore[misc]
                assert any("cannot connect to ws://127.0.0.1" in text for text in at.said)

    async def whole() -> None:
        server = TinyServer()
        await server.__aenter__()
        await body(server)

    asyncio.run(asyncio.wait_for(whole(), 120))


def test_plain_venues_are_decoded_and_their_bytes_kept() -> None:
    """One RAW record with the venue's bytes, then what the decoder made of them; nothing odd is silent."""

    async def body(server: TinyServer) -> None:
        async with LinkWorld(server, Tiny(2, native=False), raw=True) as at:
            await at.up()
            for n in range(20):
                await server.sockets[0].send_str(json.dumps({"t": n % 2, "n": n}))
            await server.sockets[0].send_str("what?")
            await until(lambda: at.link.counts[0].unknown == 1)
            await until(lambda: len(at.kinds(Kind.FRAME)) == 20)
            assert [int(read_plain_frame(raw)[0][W_LAST]) for _, _, raw in at.kinds(Kind.FRAME)] == list(range(20))
            raw = [bytes(raw) for _, _, raw in at.kinds(Kind.RAW)]
            assert raw[-1] == b"what?" and json.loads(raw[-2]) == {"t": 1, "n": 19}
            assert any("not understood" in text for text in at.said)
            assert at.link.clock.floor_ns is not None

    run(body)


def test_a_resync_request_becomes_one_snapshot_of_that_symbol() -> None:
    """However often it is asked for; failures are tried again. Whether a snapshot will do is the feed's to say: it asks again."""

    async def body(server: TinyServer) -> None:
        old, new = b'{"lastUpdateId":90,"bids":[]}', b'{"lastUpdateId":100,"bids":[]}'
        server.pages = {"/depth": [(500, {}, b""), (200, {}, old), (200, {}, new)]}
        async with LinkWorld(server, Tiny(2)) as at:
            await at.up()
            for _ in range(5):
                at.link.want(1, Want.GAP)
            await until(lambda: at.link.desk.waiting == 0)
            at.link.want(1, Want.TOO_OLD)
            await until(lambda: len(at.kinds(Kind.FRAME)) == 2)
            assert [(symbol, raw) for symbol, _, raw in at.kinds(Kind.FRAME)] == [(1, old), (1, new)]
            assert [path for path in server.asked if "depth" in path] == ["/depth?symbol=s1"] * 3

    run(body)


def test_a_plain_venue_resubscribes_within_the_stream() -> None:
    """The message goes out on a line of that symbol, at the venue's rate, by turns."""

    async def body(server: TinyServer) -> None:
        async with LinkWorld(server, Tiny(2, native=False), live(lines=2)) as at:
            await at.up(2)
            at.link.want(1, Want.GAP)
            await until(lambda: '{"again": 1}' in server.got)
            at.link.desk.failed(1, 0)
            await until(lambda: server.got.count('{"again": 1}') == 2)
            assert at.link.desk.waiting == 1, "no snapshot has come"

    run(body)


def test_two_lines_bring_everything_twice_and_one_may_go() -> None:
    """A and B are told apart by their number; when one is cut the other goes on."""

    async def body(server: TinyServer) -> None:
        async with LinkWorld(server, Tiny(1), live(lines=2)) as at:
            await at.up(2)
            for socket in server.sockets:
                await socket.send_str('{"s":0,"n":1}')
            await until(lambda: {line for _, line, _ in at.kinds(Kind.FRAME)} == {0, 2})
            server.refuse = (503, {})
            await server.sockets[0].close()
            await until(lambda: len(at.kinds(Kind.LINE_DOWN)) == 5)
            await server.sockets[1].send_str('{"s":0,"n":2}')
            await until(lambda: any(b'"n":2' in raw for _, _, raw in at.kinds(Kind.FRAME)))

    run(body)


def test_rotation_over_real_sockets_leaves_no_gap() -> None:
    """Numbers sent to every open socket: each arrives at least once over five rotations, which the server asked for."""

    async def body(server: TinyServer) -> None:
        async with LinkWorld(server, Tiny(1), world=RingWorld(4096, 1 << 20)) as at:
            object.__setattr__(at.link.policy, "overlap_ns", 20_000_000)
            await at.up()
            strand = at.link.lines.strands[0]
            n = 0
            for turn in range(1, 6):
                for socket in [socket for socket in server.sockets if not socket.closed]:
                    await socket.send_str('{"bye":"serverShutdown"}')
                while strand.replaced < turn or strand.phase != "STEADY":
                    for socket in [socket for socket in server.sockets if not socket.closed]:
                        await socket.send_str(f'{{"s":0,"n":{n}}}')
                    n += 1
                    await until(lambda: True)
                    await asyncio.wait([asyncio.ensure_future(until(lambda: at.world.peek() == []))])
            await until(lambda: any(f'"n":{n - 1}}}'.encode() in raw for _, _, raw in at.kinds(Kind.FRAME)))
            got = {json.loads(raw)["n"] for _, _, raw in at.kinds(Kind.FRAME)}
            assert got == set(range(n)) and server.upgrades == 6

    run(body)


def test_a_full_ring_loses_frames_but_never_a_word_about_it() -> None:
    """Nobody reads: frames are dropped, the loop lives on; once there is room the symbol is told LOST, then frames follow."""

    async def body(server: TinyServer) -> None:
        async with LinkWorld(server, Tiny(2), world=RingWorld(16, 4096)) as at:
            await at.up()
            at.drain = False
            for n in range(500):
                await server.sockets[0].send_str(f'{{"s":1,"n":{n}}}')
            await until(lambda: at.link.counts[0].lost > 0 and at.link.counts[0].messages == 501)
            at.drain = True
            await until(lambda: at.world.peek() == [])
            await server.sockets[0].send_str('{"s":1,"n":"after"}')
            await until(lambda: any(b"after" in raw for _, _, raw in at.kinds(Kind.FRAME)))
            kinds = [(kind, symbol) for kind, symbol, *_ in at.seen]
            assert kinds[-2:] == [(Kind.LOST, 1), (Kind.FRAME, 1)] and (Kind.LOST, 0) not in kinds
            assert venue_row(at.link)["lines"][0]["lost"] == at.writer.dropped > 0

    run(body)


def test_a_restart_tells_every_line_down_and_keeps_the_connect_budget(tmp_path: Path) -> None:
    """The next incarnation goes on behind the last record, says LINE_DOWN for all symbols, and knows what was connected."""

    async def body(server: TinyServer) -> None:
        world = RingWorld()
        venue = Tiny(2, limits=Limits(client_messages_per_s=100.0, connects_per_window=3))
        for turn in range(3):
            async with LinkWorld(server, venue, world=world, state_dir=tmp_path) as at:
                assert at.link.lines.connects.used(10**18) <= 3
                await at.up()
                at.seen += world.read()
                assert [kind for kind, *_ in at.seen][:6] == [Kind.LINE_DOWN] * 4 + [Kind.LINE_UP] * 2, turn
            world.read()
        async with LinkWorld(server, venue, world=world, state_dir=tmp_path) as at:
            for _ in range(50):
                at.link.tick()
            assert at.link.lines.lines[0].state == "BACKOFF" and server.upgrades == 3

    run(body)


@BOTH
def test_fragments_are_put_together_and_compressed_messages_refused(kind: str) -> None:
    """A message in parts is one frame; a message with the compression bit ends the connection, which is opened anew."""

    async def body(server: TinyServer) -> None:
        async with LinkWorld(server, Tiny(1), live(transport=kind)) as at:
            await at.up()
            assert server.sockets[0]._writer is not None
            pipe = server.sockets[0]._writer.transport
            assert pipe is not None
            parts = (b'{"s":0,', b'"n":', b"7}")
            for n, (head, part) in enumerate(zip((0x01, 0x00, 0x80), parts, strict=True)):
                pipe.write(bytes([head, len(part)]) + part)
                if n == 1:
                    pipe.write(bytes([0x89, 1]) + b"p")  # control frames may stand between the parts
            await until(lambda: [raw for _, _, raw in at.kinds(Kind.FRAME)] == [b"".join(parts)])
            pipe.write(bytes([0xC1, 2]) + b"{}")
            await until(lambda: server.upgrades == 2)
            await at.up()

    run(body)


def test_application_pings_and_answers_keep_the_line() -> None:
    """A venue that wants WebSocket pings gets them; one that says nothing for too long is given up."""

    async def body(server: TinyServer) -> None:
        venue = Tiny(1, limits=Limits(client_messages_per_s=100.0, ping_interval_s=0.05, silence_timeout_s=2.0))
        async with LinkWorld(server, venue) as at:
            await at.up()
            seen = at.link.lines.lines[0].seen_ns
            await until(lambda: at.link.lines.lines[0].seen_ns > seen + 2_500_000_000)  # the pongs alone
            assert server.upgrades == 1
        quiet = Tiny(1, limits=Limits(client_messages_per_s=100.0, silence_timeout_s=0.1))
        async with LinkWorld(server, quiet) as at:
            await until(lambda: "silent" in at.link.lines.lines[0].last_end)

    run(body)


def test_odd_frames_are_looked_at_again() -> None:
    """What the feed could not read is shown with the typed decoder's word on it."""

    async def body(server: TinyServer) -> None:
        async with LinkWorld(server, Tiny(1)) as at:
            at.link.odd(b'{"strange":1}', 0)
            assert at.link.odd_frames == 1 and at.link.counts[0].unknown == 1
            assert "typed decoder says unknown strange" in at.said[-1] and '{"strange":1}' in at.said[-1]

    run(body)


def test_clock_and_figures(tmp_path: Path) -> None:
    """The venue's clock is asked and shown with its error; the table is one whole file."""

    async def body(server: TinyServer) -> None:
        server.pages = {"/time": [(200, {}, b"0")]}
        async with LinkWorld(server, Tiny(1)) as at:
            await at.up()
            await until(lambda: at.link.clock.best is not None)
            row = venue_row(at.link)
            assert row["clock_offset_ns"] < -(10**18) and 0 < row["clock_error_ns"] < 10**10
            write_table(tmp_path, at.writer, [row])
            table = read_table(tmp_path)
            assert table is not None and table["venues"][0]["lines"][0]["state"] == "UP" and len(list(tmp_path.iterdir())) == 1
            write_table(tmp_path / "missing", at.writer, [row])
        assert read_table(tmp_path / "missing") is None

    run(body)


def test_transport_is_chosen_and_proxies_spare_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """auto is picows where it is installed; the environment's proxy is used for the world alone."""
    assert transport.choose("auto") == "picows" and transport.choose("websockets") == "websockets"
    with pytest.raises(ValueError, match="not installed"):
        transport.choose("nosuchpackage")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "inner.example")
    assert transport.proxy_of("wss://stream.example/ws") == "http://proxy:3128"
    assert transport.proxy_of("wss://inner.example/ws") is None
    assert transport.proxy_of("wss://127.0.0.1:9/ws") is None and transport.proxy_of("ws://localhost/x") is None


@BOTH
def test_wss_checks_the_certificate(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that the system trusts is good; any other is a refused connection that names it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    async def body() -> None:
        async with TinyServer(context) as server:
            async with LinkWorld(server, Tiny(1), live(transport=kind), scheme="wss") as at:
                await until(lambda: at.link.lines.lines[0].failures)
                assert "CERTIFICATE" in at.link.lines.lines[0].last_end.upper()
            monkeypatch.setenv("SSL_CERT_FILE", str(cert))
            async with LinkWorld(server, Tiny(1), live(transport=kind), scheme="wss") as at:
                await at.up()
                await server.sockets[0].send_str('{"s":0,"n":1}')
                await until(lambda: at.kinds(Kind.FRAME))

    asyncio.run(asyncio.wait_for(body(), 120))
