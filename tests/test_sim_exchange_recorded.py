"""The simulated exchange on recorded markets: what it shows is what the feed proved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sim.exchange import fold as ex
from sim.exchange.shown_book import FIRST_KEY, displayed, next_displayed
from sim.recordings.recording import next_frame, open_spool, stage
from sim.recordings.spool import OUT_END, OUT_RECV_NS, OUT_START, OUT_SYMBOL, OUT_WORDS
from sim.settings import SimulatedExchange
from trading.books import fold as market
from trading.books.book import ASK, BID
from trading.instruments import instrument_table
from trading.records import (
    DEPTH_RECORD,
    MARKET_RECORD,
    ORDER_RECORD,
    REPORT_RECORD,
    ExecType,
    Flag,
    Kind,
    OrderType,
    Side,
    TimeInForce,
)


@pytest.mark.parametrize("frames", [6_000, pytest.param(25_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["spot_btcusdt_20240808", "usdm_ethusdt_20240808"])
def test_the_venue_shows_the_touch_that_the_feed_shows(recordings: Path, tmp_path: Path, name: str, frames: int) -> None:
    """At every valid market record the exchange's best prices and quantities equal the record's (the book of the depth ring under
    the newest best bid/offer), and a taker a coin large is filled at no better price than the touch of its arrival."""
    staged = stage([recordings / "hftbacktest_binance" / f"{name}.gz"], tmp_path / "spool")
    instruments = instrument_table([symbol.instrument() for symbol in staged.symbols])
    spool, _ = open_spool(tmp_path / "spool")
    raw = spool.copy()  # as other tests fold it: a read-only array would compile the fold once more
    feed, feed_glob, feed_params = np.zeros(1, market.FEED_STATE), np.zeros(1, market.FEED_GLOBAL), market.make_params()
    market.init(feed, feed_glob, instruments, feed_params)
    rec, depth = np.zeros(market.MAX_MARKET_OUT, MARKET_RECORD), np.zeros(market.MAX_DEPTH_OUT, DEPTH_RECORD)
    state, glob, params = (
        np.zeros(1, ex.EXCH_STATE),
        np.zeros(1, ex.EXCH_GLOBAL),
        ex.make_params(SimulatedExchange(), instruments),
    )
    ex.init(state, glob, params, instruments)
    out, where, order = np.zeros(ex.OUT_ROWS, REPORT_RECORD), np.zeros(OUT_WORDS, np.int64), np.zeros(1, ORDER_RECORD)
    world = ex.ExchangeArrays(state, glob, params, instruments, out)
    one = 10 ** int(instruments[0]["qty_decimals"])
    st = state[0]
    checked = filled = last = offset = 0
    touch: tuple[int, int] = (0, 0)
    for k in range(frames):
        offset = next_frame(spool, offset, where)
        ts = max(last + 1, int(where[OUT_RECV_NS]))
        last = ts
        reports = []
        while n := ex.advance(ts, world):
            reports += [row.copy() for row in out[:n]]
        for r in reports:
            if r["exec_type"] == ExecType.FILL:
                filled += 1
                assert r["last_ticks"] >= touch[1] if r["side"] > 0 else r["last_ticks"] <= touch[0]
        m = market.on_frame(
            raw,
            where[OUT_START],
            where[OUT_END],
            ts,
            ts,
            where[OUT_SYMBOL],
            feed,
            feed_glob,
            feed_params,
            instruments,
            rec,
            depth,
        )
        for i in range(int(feed_glob[0]["n_depth"])):
            ex.on_depth(depth, i, world)
        if m == 0:
            continue
        ex.on_market(rec, 0, world)
        row = rec[0]
        if not row["flags"] & Flag.BOOK_VALID:
            continue
        checked += 1
        bid, ask = next_displayed(st, BID, FIRST_KEY), next_displayed(st, ASK, FIRST_KEY)
        touch = (-bid, ask)
        assert touch == (row["bid_ticks"][0], row["ask_ticks"][0])
        assert (displayed(st, BID, bid), displayed(st, ASK, ask)) == (row["bid_lots"][0], row["ask_lots"][0])
        if k % 250 == 0:
            new = order[0]
            new["ts_ns"], new["kind"], new["order_id"], new["order_type"] = ts, Kind.NEW, k + 1, OrderType.MARKET
            new["side"], new["qty_lots"], new["time_in_force"] = Side.BUY if k % 500 else Side.SELL, one, TimeInForce.IOC
            ex.on_order(order, 0, world)
    assert checked > frames * 0.9 and filled > 20
