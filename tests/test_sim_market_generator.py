"""The embedded market: its frames are Binance's, its numbers agree with each other, its bytes depend on the seed alone."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from sim.market import generator as gen
from sim.settings import Generator
from trading.instruments import Instrument, Market, instrument_table
from trading.ranges import MAX_UNITS
from trading.records import TS_END

SPOT = instrument_table([Instrument("BTCUSDT"), Instrument("ETHUSDT", step_size="0.0001", min_qty="0.0001")])
USDM = instrument_table(
    [Instrument("BTCUSDT", Market.BINANCE_USDM, tick_size="0.1", lot_size="0.001", step_size="0.001", min_qty="0.001")]
)

World = tuple[np.ndarray, ...]


def started(instruments: np.ndarray, **settings: Any) -> World:
    """state, glob, params, instruments, buffer."""
    params = gen.make_params(Generator(**settings))
    state, glob = np.zeros(len(instruments), gen.GEN_STATE), np.zeros(1, gen.GEN_GLOBAL)
    gen.init(state, glob, params, instruments)
    return state, glob, params, instruments, np.zeros(gen.MAX_FRAME_BYTES, np.uint8)


def frames(world: World, most: int = 10**9) -> list[tuple[int, int, bytes]]:
    """(recv_ns, symbol, frame) until the end or `most`."""
    glob, buf = world[1], world[4]
    rows: list[tuple[int, int, bytes]] = []
    while len(rows) < most and (n := gen.next_frame(*world)):
        rows.append((int(glob[0]["recv_ns"]), int(glob[0]["symbol"]), buf[:n].tobytes()))
    return rows


@pytest.fixture(scope="module")
def spot() -> list[tuple[int, int, bytes]]:
    """Thirty seconds of two spot symbols."""
    return frames(started(SPOT, duration_s=30.0, volatility_bps_per_s=3.0))


@pytest.fixture(scope="module")
def usdm() -> list[tuple[int, int, bytes]]:
    """Twenty seconds of a futures symbol."""
    return frames(started(USDM, duration_s=20.0))


def check_stream(rows: list[tuple[int, bytes]], name: str, futures: bool) -> Counter[str]:
    """Follow one symbol's frames with dict books and the venue's rules; counts what was checked."""
    bids: dict[float, float] = {}
    asks: dict[float, float] = {}
    touch: dict[int, tuple[float, float, float, float]] = {}
    seen: Counter[str] = Counter()
    last_u = last_trade = 0
    previous: tuple[float, float, float, float] | None = None
    for _, raw in rows:
        frame = json.loads(raw)
        if "lastUpdateId" in frame:
            seen["snapshot"] += 1
            assert not seen["depth"] and not bids
            last_u = frame["lastUpdateId"]
            bids = {float(p): float(q) for p, q in frame["bids"]}
            asks = {float(p): float(q) for p, q in frame["asks"]}
            assert len(bids) == len(frame["bids"]) and len(asks) == len(frame["asks"])
            assert list(bids) == sorted(bids, reverse=True) and list(asks) == sorted(asks)
            assert max(bids) < min(asks)
            continue
        data = frame["data"]
        assert data["s"] == name and frame["stream"].startswith(f"{name.lower()}@")
        kind = frame["stream"].split("@")[1]
        seen[kind] += 1
        if kind == "depth":
            assert data["e"] == "depthUpdate" and data["U"] == last_u + 1 and data["u"] >= data["U"]
            assert (data.get("pu") == last_u) if futures else ("pu" not in data)
            last_u = data["u"]
            for book, levels in ((bids, data["b"]), (asks, data["a"])):
                assert len({p for p, _ in levels}) == len(levels)
                for p, q in levels:
                    book[float(p)] = float(q)
                    if float(q) == 0:
                        del book[float(p)]
            assert max(bids) < min(asks) and min(len(bids), len(asks)) >= 20
            if last_u in touch:
                seen["oracle"] += 1
                bid, ask = max(bids), min(asks)
                assert touch[last_u] == (bid, bids[bid], ask, asks[ask])
        elif kind == "bookTicker":
            assert data["u"] > max(touch, default=0) and data["u"] > last_u
            now = tuple(float(data[k]) for k in ("b", "B", "a", "A"))
            assert now[0] < now[2] and now[1] > 0 and now[3] > 0 and now != previous
            previous = touch[data["u"]] = now  # type: ignore[assignment]
            assert ("e" in data) == futures
        else:
            assert data["t"] == last_trade + 1 or not last_trade
            last_trade = data["t"]
            if previous is not None:
                side, qty = (0, 1) if data["m"] else (2, 3)
                assert float(data["p"]) == previous[side] and 0 < float(data["q"]) <= previous[qty]
                seen["seller"] += data["m"]
    return seen


@pytest.mark.parametrize("symbol", [0, 1])
def test_spot_frames_keep_the_venues_rules(spot: list[tuple[int, int, bytes]], symbol: int) -> None:
    """Snapshot first; U = u + 1; no crossed book; bookTicker equals the depth book at the same update id, always; trades print
    at the touch and no more than stands there; trade ids without gaps."""
    rows = [(recv, raw) for recv, s, raw in spot if s == symbol]
    seen = check_stream(rows, "BTCUSDT" if symbol == 0 else "ETHUSDT", futures=False)
    assert seen["snapshot"] == 1 and seen["oracle"] > 50
    total = seen["depth"] + seen["bookTicker"] + seen["trade"]
    assert (
        0.65 < seen["bookTicker"] / total < 0.80 and 0.15 < seen["trade"] / total < 0.28 and 0.04 < seen["depth"] / total < 0.10
    )
    assert 0.2 < seen["seller"] / seen["trade"] < 0.8
    assert 100 < total / 30.0 < 200


def test_usdm_frames_keep_their_own_rules(usdm: list[tuple[int, int, bytes]]) -> None:
    """The futures market sends pu, T and a named bookTicker, with the instrument's decimals."""
    seen = check_stream([(recv, raw) for recv, _, raw in usdm], "BTCUSDT", futures=True)
    assert seen["snapshot"] == 1 and seen["oracle"] > 30
    prices = [json.loads(raw)["data"]["b"] for _, _, raw in usdm if b"@bookTicker" in raw]
    assert all(len(price.split(".")[1]) == 1 for price in prices)


def test_receive_times_rise_and_depth_keeps_its_grid(spot: list[tuple[int, int, bytes]]) -> None:
    """Receive times strictly increase over all symbols, from START_NS on; two depth frames of a symbol are 100 ms apart or more,
    but for those sent early for want of room (none here)."""
    recv = np.array([row[0] for row in spot])
    assert recv[0] >= gen.START_NS and (np.diff(recv) > 0).all() and recv[-1] <= gen.START_NS + 30 * 10**9
    for symbol in (0, 1):
        stamps = [json.loads(raw)["data"]["E"] for _, s, raw in spot if s == symbol and b"@depth" in raw]
        assert (np.diff(stamps) >= 100).all()


def test_the_next_frames_time_is_known_before_it(spot: list[tuple[int, int, bytes]]) -> None:
    """glob.next_ts_ns is exactly the receive time of the frame that follows, TS_END at the end."""
    world = started(SPOT, duration_s=3.0)
    while True:
        announced = int(world[1][0]["next_ts_ns"])
        if gen.next_frame(*world) == 0:
            break
        assert int(world[1][0]["recv_ns"]) == announced
    assert announced == TS_END and gen.next_frame(*world) == 0


def test_the_seed_alone_decides_the_bytes(spot: list[tuple[int, int, bytes]]) -> None:
    """The same settings give the same bytes; another seed does not."""
    again = frames(started(SPOT, duration_s=30.0, volatility_bps_per_s=3.0), 3000)
    assert again == spot[:3000]
    other = frames(started(SPOT, duration_s=30.0, volatility_bps_per_s=3.0, seed=8), 200)
    assert [row[2] for row in other] != [row[2] for row in spot[:200]]


def test_a_copy_of_the_state_continues_the_same_market(spot: list[tuple[int, int, bytes]]) -> None:
    """After 1500 frames the state arrays are copied as bytes into fresh ones: what follows is the same."""
    world = started(SPOT, duration_s=30.0, volatility_bps_per_s=3.0)
    frames(world, 1500)
    copy = (
        np.frombuffer(world[0].tobytes(), gen.GEN_STATE).copy(),
        np.frombuffer(world[1].tobytes(), gen.GEN_GLOBAL).copy(),
        *world[2:4],
        np.zeros(gen.MAX_FRAME_BYTES, np.uint8),
    )
    assert frames(copy, 1500) == spot[1500:3000]


def test_a_long_and_wild_market_stays_sound() -> None:
    """Twenty virtual minutes at high volatility: books keep their levels, frames fit the buffer, no price under a tick."""
    world = started(SPOT, duration_s=1200.0, volatility_bps_per_s=30.0, events_per_s=100.0, seed=99)
    state, buf = world[0], world[4]
    longest = 0
    while n := gen.next_frame(*world):
        longest = max(longest, n)
    assert longest < buf.size // 2
    for st in state:
        assert 20 <= st["n"].min() and st["n"].max() <= st["keys"].shape[1]
        assert st["keys"][0, st["n"][0] - 1] < -st["keys"][1, st["n"][1] - 1]
        assert np.isfinite([st["fundamental"], st["excitation"], st["flow"], st["pressure"], st["log_vol"]]).all()
        assert st["keys"][0, 0] > 0


def test_the_mid_follows_the_fundamental(spot: list[tuple[int, int, bytes]]) -> None:
    """The price lives: it moves, its spread is mostly under the default gate of 6 bps, and it is not pinned to the start."""
    rows = [json.loads(raw)["data"] for _, s, raw in spot if s == 0 and b"@bookTicker" in raw]
    bid, ask = (np.array([float(d[k]) for d in rows]) for k in ("b", "a"))
    spread_bps = (ask - bid) / bid * 1e4
    assert np.median(spread_bps) < 2.0 and np.percentile(spread_bps, 95) < 6.0
    assert np.ptp((bid + ask) / 2) / bid[0] * 1e4 > 5.0


def test_endless_duration() -> None:
    """A huge duration never ends."""
    params = gen.make_params(Generator(duration_s=1e12))
    assert params[0]["end_ns"] == TS_END - 1


@pytest.mark.parametrize("start", [100.0, 60_000.0])
def test_any_symbol_in_any_place_has_a_start_price(start: float) -> None:
    """With the ticks and lots of the cheapest and the dearest symbols, each of 64 starts at 1000 ticks or more, with levels that
    fit and are worth more than a lot; the first three of ordinary symbols start at a twentieth of the one before, as ever."""
    sizes = "0.01 0.00000001  1000 0.00001  0.00000001 1  0.00000001 0.00000001  0.1 0.001".split()
    for tick, lot in zip(sizes[::2], sizes[1::2], strict=True):
        one = Instrument("XUSDT", tick_size=tick, lot_size=lot, step_size=lot, min_qty=lot)
        table = instrument_table([one] * 64)
        prices = [gen.start_price(start, s, table) for s in range(64)]
        for price in prices:
            assert 1000 * float(tick) <= price and price * float(lot) <= 30_000.0
            assert 20 * gen.LEVEL_VALUE / price / float(lot) < MAX_UNITS
            assert price / float(tick) < 1e14
    plain = instrument_table([Instrument("XUSDT")] * 64)
    assert [gen.start_price(60_000.0, s, plain) for s in range(5)] == [60_000.0, 3_000.0, 150.0, 60_000.0, 3_000.0]
