"""The fault schedule of the local venue: what it says, that it is repeatable, and what a client sees of each kind."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from venue_client import BookClient, GapError, Wire, get, run, small_market, wire

from sim.local_venue import FaultError, Faults, LocalVenue, load_faults, parse_fault
from sim.local_venue.book import ASK, BID
from sim.local_venue.faults import KEYS, corrupted

S = 1_000_000_000


def venue(*faults: str, **wishes: Any) -> LocalVenue:
    """A venue with these faults whose clock is stepped by hand."""
    return LocalVenue(small_market(), speed=None, faults=faults, **wishes)


def passed(faults: Faults, n: int = 200, conn: int = 1, stream: str = "depth") -> list[list[bytes] | None]:
    """What becomes of n messages, ten a second, on one connection."""
    faults.opened(conn, 0)
    return [faults.deliver(conn, "spot", "BTCUSDT", stream, b"%d" % n, n * S // 10) for n in range(n)]


def test_drops_are_seeded_and_each_connection_has_its_own() -> None:
    """The same seed drops the same messages, whatever other connections do; another seed drops others; about p of all."""
    first = passed(Faults(["drop:p=0.2"], 1))
    both = Faults(["drop:p=0.2"], 1)
    passed(both, conn=2)
    assert passed(both) == first
    assert passed(Faults(["drop:p=0.2"], 2)) != first
    assert 20 <= sum(not out for out in first) <= 60
    assert both.hits["drop"] > 0


@pytest.mark.parametrize(("fault", "missing"), [
    ("drop:at=5s", [50]), ("drop:at=5s,n=3", [50, 51, 52]), ("drop:every=5s", [50, 100, 150]),
    ("gap:at=2s", [20, 21, 22, 23, 24]),
    ("drop:at=5s,for=300ms", [50, 51, 52]), ("drop:at=1s,every=10s,for=200ms", [10, 11, 110, 111]), ("drop:at=5s,conn=2", []),
    ("drop:at=5s,symbol=ETHUSDT", []), ("drop:at=5s,stream=trade", []), ("drop:at=5s,market=usdm", []), ("gap:at=99s", []),
])  # fmt: skip
def test_when_and_for_whom(fault: str, missing: list[int]) -> None:
    """Moments, spans, windows, runs and aims hit exactly the messages that they name."""
    assert [n for n, out in enumerate(passed(Faults([fault]))) if not out] == missing


def test_a_moment_before_the_connection_is_not_meant_for_it() -> None:
    """What was due before a connection stood does not hit it afterwards."""
    faults = Faults(["drop:every=5s"])
    faults.opened(1, 12 * S)
    assert faults.deliver(1, "spot", "A", "depth", b"x", 13 * S) == [b"x"]
    assert faults.deliver(1, "spot", "A", "depth", b"x", 15 * S) == []


def test_stalled_messages_come_in_order_and_whole() -> None:
    """A stall holds its stream and lets it go in order, other streams pass meanwhile."""
    faults = Faults(["stall:at=1s,for=1s,stream=depth"])
    got: list[bytes] = []
    faults.opened(1, 0)
    for n in range(40):
        now = n * S // 10
        got += faults.released(1, now)
        got += faults.deliver(1, "spot", "A", "depth", b"%d" % n, now) or []
        assert faults.deliver(1, "spot", "A", "trade", b"t", now) == [b"t"]
        assert len(got) == (n + 1 if not 10 <= n < 20 else 10)
    assert got == [b"%d" % n for n in range(40)]


def test_a_muted_stream_is_silent_until_it_is_subscribed_anew() -> None:
    """One stream of one symbol says nothing from its moment on, others go on; the second subscription (`n=2`) brings it back, to
    that connection alone. What was subscribed before the moment does not count; a later moment silences it again."""
    faults = Faults(["mute:at=1s,stream=depth,symbol=A,n=2", "mute:at=60s,stream=trade"])
    faults.opened(1, 0)

    def heard(stream: str, now: int, symbol: str = "A", conn: int = 1) -> bool:
        return faults.deliver(conn, "spot", symbol, stream, b"x", now) == [b"x"]

    faults.subscribed(1, "spot", "A", "depth", 0)
    assert heard("depth", S - 1) and not heard("depth", S) and not heard("depth", 30 * S)
    assert heard("bookTicker", 2 * S) and heard("depth", 2 * S, "B")
    faults.subscribed(1, "spot", "A", "depth", 3 * S)
    assert not heard("depth", 4 * S)
    faults.subscribed(1, "spot", "A", "depth", 5 * S)
    assert heard("depth", 6 * S) and not heard("depth", 6 * S, conn=2) and faults.hits["mute"] == 4
    assert heard("trade", 59 * S) and not heard("trade", 61 * S)
    faults.closed(1)
    assert not heard("depth", 62 * S)
    again = Faults(["mute:every=10s,stream=depth"])
    again.subscribed(1, "spot", "A", "depth", 12 * S)
    assert [again.deliver(1, "spot", "A", "depth", b"x", at * S) == [b"x"] for at in (9, 13, 21)] == [True, True, False]


def test_reordered_messages_change_places() -> None:
    """A reordered message comes right after its successor; if there is none, it comes by itself after a second."""
    faults = Faults(["reorder:at=1s"])
    assert passed(faults, 13)[9:] == [[b"9"], [], [b"11", b"10"], [b"12"]]
    last = Faults(["reorder:at=1s"])
    passed(last, 11)
    assert last.released(1, S + S // 2) == []
    assert last.released(1, 2 * S) == [b"10"]


@pytest.mark.parametrize("how", ["bytes", "cut", "digits"])
def test_corruption_is_never_the_message_itself(how: str) -> None:
    """A corrupted message differs, is text still, and only `digits` may be good JSON that means another thing."""
    draws = random.Random(1)
    text = b'{"e":"depthUpdate","s":"BTCUSDT","U":12,"b":[["61837.63000000","1.50000000"]]}'
    for _ in range(200):
        broken = corrupted(text, how, draws)
        assert broken != text
        broken.decode("ascii")
        if how == "digits":
            assert len(broken) == len(text)


BAD = [
    ("dropp:p=1", "did you mean drop"), ("drop", "nothing says when"), ("drop:p=2", "no chance"), ("drop:x=1", "no such key"),
    ("drop:p", "no key=value"), ("stall:at=1s", "for is missing"), ("stall:at=soon,for=1s", "no duration"),
    ("drop:p=0.1,stream=deep", "not known; write one of trade"), ("gap:at=1s,n=0", "no whole number"),
    ("corrupt:p=1,how=badly", "bytes, cut, digits"), ("drop:at=1s,every=1s,for=2s", "longer than every"),
    ("wrong_clock:at=1s", "by is missing"), ("disconnect:at=-1s", "before the start"),
    ("slow_consumer:conn=1", "bytes is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), BAD)
def test_mistakes_are_named(text: str, said: str) -> None:
    """A fault that cannot be understood is refused in one sentence that names the key and the remedy."""
    with pytest.raises(FaultError, match=said):
        parse_fault(text)


def test_schedule_from_a_file(tmp_path: Path) -> None:
    """YAML holds texts and mappings; errors name the file and the entry."""
    file = tmp_path / "faults.yaml"
    file.write_text("seed: 5\nfaults:\n  - drop:p=0.5\n  - {kind: stall, at: 1s, for: 2s, symbol: btcusdt}\n")
    assert load_faults(file) == ([parse_fault("drop:p=0.5"), parse_fault("stall:at=1,for=2s,symbol=BTCUSDT")], 5)
    file.write_text("faults: [drop:p=9]\n")
    with pytest.raises(FaultError, match=r"faults.yaml: entry 1: .*no chance"):
        load_faults(file)
    file.write_text("drop: 1\n")
    with pytest.raises(FaultError, match="wanted `faults:`"):
        load_faults(file)
    with pytest.raises(FaultError, match="check the path"):
        load_faults(tmp_path / "none.yaml")


async def diffs(line: Wire, seconds: float) -> list[dict[str, Any]]:
    """Depth events of so many seconds."""
    found: list[dict[str, Any]] = []
    for _ in range(round(seconds * 2)):
        found += await line.read(0.5)
    return found


def gaps(events: list[dict[str, Any]]) -> int:
    """Places where an event does not follow the one before."""
    return sum(b["U"] != a["u"] + 1 for a, b in zip(events, events[1:], strict=False))


SEEN: dict[str, tuple[str, Any]] = {
    "drop": ("drop:at=3s", lambda events: gaps(events) == 1),
    "gap": ("gap:at=3s,n=4", lambda events: gaps(events) == 1),
    "duplicate": ("duplicate:at=3s", lambda events: sum(a == b for a, b in zip(events, events[1:], strict=False)) == 1),
    "reorder": ("reorder:at=3s", lambda events: gaps(events) == 3 and gaps(sorted(events, key=lambda one: one["u"])) == 0),
    "stall": ("stall:at=3s,for=2s", lambda events: gaps(events) == 0 and len(events) > 30),
}


@pytest.mark.parametrize("kind", SEEN)
def test_faults_of_messages_on_the_wire(kind: str) -> None:
    """A client sees each fault of messages in the sequence of its diffs, and the other connection sees none of it."""
    fault, seen = SEEN[kind]

    async def test() -> None:
        path = "/ws/btcusdt@depth@100ms"
        async with venue(fault + ",conn=1") as server, wire(server, path) as hit, wire(server, path) as spared:
            events = await diffs(hit, 10)
            assert seen(events)
            assert gaps([json.loads(text) for text in spared.raw] + await spared.read()) == 0
            assert server.faults.hits[kind] >= 1

    run(test)


def test_the_same_seed_is_the_same_run() -> None:
    """Market, faults and clock by hand: two runs send the same bytes, in the same order."""
    runs: list[list[str]] = []

    async def test() -> None:
        faults = ("drop:p=0.1", "duplicate:p=0.1", "reorder:p=0.1", "stall:every=2s,for=300ms,stream=trade")
        path = "/stream?streams=btcusdt@depth@100ms/btcusdt@trade/btcusdt@bookTicker"
        async with venue(*faults, seed=9) as server, wire(server, path) as line:
            await line.read(20.0)
            assert set(server.faults.hits) == {"drop", "duplicate", "reorder", "stall"}
            runs.append(line.raw)

    run(test)
    run(test)
    assert len(runs[0]) > 1000
    assert runs[0] == runs[1]


def test_corrupt_message_on_the_wire() -> None:
    """A corrupted message is a whole WebSocket frame whose text is not what it was."""

    async def test() -> None:
        async with venue("corrupt:at=1s,how=cut") as server, wire(server, "/ws/btcusdt@depth@100ms") as line:
            with pytest.raises(json.JSONDecodeError):
                await line.read(2.0)
            assert line.socket.closed is False

    run(test)


@pytest.mark.parametrize(("how", "code"), [("abort", 1006), ("close", 1001)])
def test_disconnect_on_the_wire(how: str, code: int) -> None:
    """A connection is cut without a word, or with a close frame; the next one stands."""

    async def test() -> None:
        async with venue(f"disconnect:at=2s,how={how}") as server:
            async with wire(server, "/ws/btcusdt@depth@100ms") as line:
                await server.step(3.0)
                while await line.receive() is not None:
                    pass
                assert line.close_code == code
                assert server.stats.closed["fault"] == 1
            async with wire(server, "/ws/btcusdt@depth@100ms") as again:
                assert await again.read(3.0)

    run(test)


def test_refused_connections() -> None:
    """Within its window new stream connections get 503, REST goes on; afterwards they stand."""

    async def test() -> None:
        async with venue("refuse:at=0s,for=5s,market=spot") as server:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with wire(server, "/ws"):
                    pass
            assert refused.value.status == 503
            assert (await get(server, "/api/v3/ping"))[0] == 200
            async with wire(server, "/usdm/ws"):
                await server.step(5.0)
            async with wire(server, "/ws"):
                assert server.stats.connections == 2

    run(test)


def test_limit_then_ban() -> None:
    """Requests get 429 with the time to wait; who goes on gets 418; a fault with status=418 bans at once."""

    async def test() -> None:
        async with venue("limit:at=1s,for=4s,market=spot", "limit:at=1s,status=418,market=usdm") as server:
            assert (await get(server, "/api/v3/ping"))[0] == 200
            await server.step(2.0)
            answers = [await get(server, "/api/v3/ping") for _ in range(11)]
            assert [status for status, _, _ in answers] == [429] * 10 + [418]
            assert answers[0][2]["Retry-After"] == "3"
            status, body, headers = await get(server, "/fapi/v1/ping")
            assert (status, body["code"], headers["Retry-After"]) == (418, -1003, "120")
            await server.step(121.0)
            assert (await get(server, "/api/v3/ping"))[0] == 200

    run(test)


def test_wrong_clock() -> None:
    """Server time, event times and snapshots are off by as much as the fault says, within its window only."""

    async def test() -> None:
        async with venue("wrong_clock:at=2s,for=2s,by=-1500ms") as server:
            truth = server.market
            async with wire(server, "/ws/btcusdt@bookTicker/btcusdt@trade") as line, wire(
                server, "/usdm/ws/btcusdt@bookTicker"
            ) as other:
                assert (await get(server, "/api/v3/time"))[1]["serverTime"] == truth.now_ms
                start_ms = truth.now_ms
                await line.read(3.0)
                assert (await get(server, "/fapi/v1/time"))[1]["serverTime"] == truth.now_ms - 1500
                (_, last) = (await other.read())[-2:]
                assert start_ms < last["E"] <= truth.now_ms - 1500
                await line.read(3.0)
                assert (await get(server, "/api/v3/time"))[1]["serverTime"] == truth.now_ms
                assert (await other.read())[-1]["E"] > truth.now_ms - 1500

    run(test)


def test_stale_and_slow_snapshots() -> None:
    """A stale snapshot is the exact book of an earlier update; a slow one comes when the clock has moved on."""

    async def test() -> None:
        async with venue("stale_snapshot:at=5s,age=3s", "slow_snapshot:at=8s,delay=2s") as server:
            truth = server.market.find("spot", "BTCUSDT")
            assert truth is not None
            path = "/api/v3/depth?symbol=BTCUSDT&limit=5000"
            await server.step(6.0)
            _, old, _ = await get(server, path)
            then = truth.book.at_id(old["lastUpdateId"])
            assert 2.9e9 < server.market.now_ns - then.at_ns < 3.4e9
            assert [tuple(level) for level in old["bids"]] == then.side(BID)
            assert [tuple(level) for level in old["asks"]] == then.side(ASK)
            assert (await get(server, path))[1]["lastUpdateId"] == truth.book.last_id
            await server.step(3.0)
            asked_id = truth.book.last_id
            task = asyncio.create_task(get(server, path))
            begun_ns = server.market.now_ns
            while not task.done():
                await server.step(0.1)
                await asyncio.wait({task}, timeout=0.005)
            assert task.result()[1]["lastUpdateId"] < truth.book.last_id
            assert task.result()[1]["lastUpdateId"] >= asked_id
            assert server.market.now_ns - begun_ns >= 2e9

    run(test)


def test_slow_consumer_is_cut_off() -> None:
    """A client that does not read is cut off when more waits than it may; who reads stays."""

    async def test() -> None:
        async with venue("slow_consumer:bytes=1000,conn=1") as server:
            path = "/stream?streams=" + "/".join(f"btcusdt@{kind}" for kind in ("depth@100ms", "bookTicker", "trade"))
            async with wire(server, path) as slow, wire(server, path) as good:
                slow.socket._conn.transport.pause_reading()  # type: ignore[union-attr]
                for _ in range(2000):
                    await good.read(2.0)
                    if server.stats.closed["slow reader"]:
                        break
                assert server.stats.closed["slow reader"] == 1
                assert await good.read(1.0)
                slow.socket._conn.transport.resume_reading()  # type: ignore[union-attr]

    run(test)


def test_naive_client_is_hurt_and_the_careful_one_knows() -> None:
    """With drops a client by the rules meets GapError, and one that does not look ends with another book."""

    async def test() -> None:
        async with venue("drop:p=0.1,stream=depth", seed=4) as server, wire(server, "/ws/btcusdt@depth@100ms") as line:
            careful, naive = BookClient("spot"), BookClient("usdm")  # a spot book that checks nothing: it has no pu
            _, body, _ = await get(server, "/api/v3/depth?symbol=BTCUSDT&limit=5000")
            careful.snapshot(body)
            naive.snapshot(body)
            events = await diffs(line, 10)
            for event in events:
                naive.event({**event, "pu": naive.last_id})
            with pytest.raises(GapError):
                for event in events:
                    careful.event(event)
            truth = server.market.find("spot", "BTCUSDT")
            assert truth is not None and naive.last_id is not None
            assert naive.bids != truth.book.at_id(naive.last_id).quantities(BID)

    run(test)


def test_every_kind_is_documented() -> None:
    """docs/local-venue.md has a row for each kind."""
    text = (Path(__file__).resolve().parents[1] / "docs" / "local-venue.md").read_text(encoding="utf-8")
    assert [kind for kind in KEYS if f"| `{kind}` |" not in text] == []
