"""Candles: any way of cutting the stream gives the same ones; late trades, gaps, limits and empty buckets are never silent."""

from __future__ import annotations

import numpy as np
import pytest
from candle_streams import Trade, all_candles, naive, shown, streamed
from hypothesis import given, settings
from hypothesis import strategies as st

from trading import candles as cd
from trading.candles import CandleFlag
from trading.records import MARKET_RECORD, Flag, Kind

S = cd.SECOND_NS
T0 = 1_700_000_000 * S
SIZES = [S, 5 * S, 60 * S]
INCOMPLETE, AMENDED, OPEN = CandleFlag.INCOMPLETE, CandleFlag.AMENDED, CandleFlag.OPEN

_trade = st.tuples(st.integers(0, 3 * S), st.integers(1, 10**7), st.one_of(st.integers(1, 10**12), st.just(1)), st.booleans())
streams = st.lists(_trade, min_size=1, max_size=60).map(
    lambda rows: [Trade(ts, n + 1, *row[1:]) for n, (ts, row) in enumerate(zip(np.cumsum([r[0] for r in rows]).tolist(), rows))]
).map(lambda trades: [t._replace(ts_ns=T0 + t.ts_ns) for t in trades])  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(streams, st.lists(st.integers(0, 60), max_size=5))
def test_any_split_of_a_stream_gives_the_same_candles(trades: list[Trade], cuts: list[int]) -> None:
    """One call or many: the same bytes; and they are the naive group-by's."""
    whole = streamed([trades], SIZES)
    edges = [0, *sorted(min(c, len(trades)) for c in cuts), len(trades)]
    pieces = streamed([trades[a:b] for a, b in zip(edges, edges[1:])], SIZES)
    for one, other in zip(whole, pieces):
        assert one.tobytes() == other.tobytes()
    for size in SIZES:
        assert shown(all_candles(whole, size)) == naive(trades, size)


@settings(max_examples=200, deadline=None)
@given(streams, st.randoms(use_true_random=False))
def test_order_of_arrival_within_a_bucket_does_not_matter(trades: list[Trade], random) -> None:
    """Trades shuffled within each second: the same candles of every size, since no bucket of any size loses or gains one."""
    shuffled = sorted(trades, key=lambda t: (t.ts_ns // S, random.random()))
    state = streamed([shuffled], SIZES)
    for size in SIZES:
        assert shown(all_candles(state, size)) == naive(trades, size)
    assert state.series["late"].sum() == state.series["amended"].sum() == 0


@settings(max_examples=200, deadline=None)
@given(streams, st.randoms(use_true_random=False))
def test_no_trade_is_lost_unseen_whatever_the_order(trades: list[Trade], random) -> None:
    """Trades in any order at all: those in candles and those counted late are all trades; candles stay in the order of time;
    where none was late, all candles are right; and the batch, which sorts, is always right."""
    mixed = random.sample(trades, len(trades))
    state = streamed([mixed], SIZES)
    for k, size in enumerate(SIZES):
        candles = all_candles(state, size)
        assert candles["trades"].sum() + state.series[k]["late"] == len(trades)
        assert (np.diff(candles["open_time_ns"]) > 0).all()
        wanted = {c["open_time_ns"]: c for c in naive(trades, size)}
        if state.series[k]["late"] == 0:
            assert shown(candles) == list(wanted.values())
    for size, candles in cd.candles_of(*zip(*mixed), SIZES).items():
        assert shown(candles) == naive(trades, size)


@settings(max_examples=100, deadline=None)
@given(streams)
def test_small_candles_add_up_to_large_ones(trades: list[Trade]) -> None:
    """Sixty 1 s candles make the 1 min candle: extremes, sums and ends."""
    found = cd.candles_of(*zip(*trades), [S, 60 * S])
    small, large = found[S], found[60 * S]
    for c in large:
        part = small[small["open_time_ns"] // (60 * S) == c["open_time_ns"] // (60 * S)]
        assert (part["open_ticks"][0], part["close_ticks"][-1]) == (c["open_ticks"], c["close_ticks"])
        assert (part["high_ticks"].max(), part["low_ticks"].min()) == (c["high_ticks"], c["low_ticks"])
        assert (part["volume_lots"].sum(), part["trades"].sum()) == (c["volume_lots"], c["trades"])
        assert sum(cd.notional(p) for p in part) == cd.notional(c)


def test_a_late_trade_amends_the_newest_closed_candle_and_no_other() -> None:
    """Of the bucket before the open one: merged and flagged. Of a bucket that had no trade: a candle of its own, flagged. Of an
    older one: counted, and nothing changes."""
    state = streamed([[Trade(T0, 1, 100, 5, False), Trade(T0 + S, 2, 110, 5, False), Trade(T0 + 4 * S, 9, 120, 5, False)]], [S])
    before = cd.closed_candles(state, 0, S)
    assert before["open_time_ns"].tolist() == [T0, T0 + S]
    assert cd.add_trade(state, 0, T0 + S + 7, 3, 90, 2, True) == 0
    row = cd.closed_candles(state, 0, S)[-1]
    assert (row["low_ticks"], row["close_ticks"], row["volume_lots"], row["flags"]) == (90, 90, 7, AMENDED)
    cd.add_trade(state, 0, T0 + 2 * S, 5, 95, 1, True)
    assert cd.closed_candles(state, 0, S)["open_time_ns"].tolist() == [T0, T0 + S, T0 + 2 * S]
    assert cd.closed_candles(state, 0, S)["flags"][-1] == AMENDED | INCOMPLETE
    kept = cd.closed_candles(state, 0, S).tobytes()
    cd.add_trade(state, 0, T0 + 1, 2, 1, 1, True)
    assert cd.closed_candles(state, 0, S).tobytes() == kept
    assert (state.series[0]["late"], state.series[0]["amended"]) == (1, 2)


def test_time_alone_can_close_a_candle() -> None:
    """`advance` closes what has ended, exactly at its end; a trade that comes later all the same amends, one of the next bucket
    opens it."""
    state = streamed([[Trade(T0 + 5, 1, 100, 5, False)]], [S, 5 * S])
    assert cd.advance(state, 0, T0 + S - 1) == 0
    assert cd.advance(state, 0, T0 + S) == 1 and not len(cd.open_candle(state, 0, S))
    assert cd.advance(state, 0, T0 + S) == 0
    cd.add_trade(state, 0, T0 + 9, 2, 101, 5, False)
    assert cd.closed_candles(state, 0, S)[["trades", "close_ticks", "flags"]].tolist() == [(2, 101, AMENDED | INCOMPLETE)]
    assert cd.open_candle(state, 0, 5 * S)["flags"].tolist() == [OPEN | INCOMPLETE]
    assert cd.add_trade(state, 0, T0 + S, 3, 102, 5, False) == 0
    assert cd.open_candle(state, 0, S)["open_time_ns"].tolist() == [T0 + S]
    assert cd.advance(state, 5, T0) == 0 == cd.add_trade(state, 5, T0, 1, 1, 1, False)


def test_missing_trades_mark_the_candles_that_may_lack_them() -> None:
    """A jump of the id marks the candle before and the one after it, and only them; where ids are not counted, STALE does."""
    rows = [Trade(T0 + n * S, i, 100, 1, False) for n, i in enumerate([1, 2, 5, 6, 7])]
    state = streamed([rows], [S], counts_ids=True)
    assert (all_candles(state, S)["flags"] & INCOMPLETE).tolist() == [2, 2, 2, 0, 0] and state.feeds[0]["gaps"] == 1
    plain = streamed([rows], [S])
    assert (all_candles(plain, S)["flags"] & INCOMPLETE).tolist() == [2, 0, 0, 0, 0]
    records = np.zeros(2, MARKET_RECORD)
    records["kind"] = Kind.STALE, Kind.TRADE
    trade = records[1]
    trade["ts_exchange_ns"], trade["update_id"], trade["price_ticks"], trade["qty_lots"] = T0 + 7 * S, 8, 100, 3
    trade["flags"] = Flag.AGGRESSOR_SELL
    assert cd.on_records(plain, records) == 1 and cd.on_records(state, records) == 1
    assert (all_candles(plain, S)["flags"] & INCOMPLETE).tolist() == [2, 0, 0, 0, 2, 2]
    assert (all_candles(state, S)["flags"] & INCOMPLETE).tolist() == [2, 2, 2, 0, 0, 0]
    assert all_candles(plain, S)[-1]["buy_volume_lots"] == 0


def test_the_circle_keeps_the_newest() -> None:
    """More candles than places: the last ones stay, in order, and symbols do not touch each other."""
    state = cd.make_candles(2, [S], ring=4)
    for n in range(10):
        cd.add_trade(state, 1, T0 + n * S, n + 1, 100 + n, 1, False)
    assert cd.closed_candles(state, 1, S)["open_ticks"].tolist() == [105, 106, 107, 108]
    assert state.series["closed"].tolist() == [0, 9] and not len(cd.closed_candles(state, 0, S))


def test_sums_beyond_int64_are_marked_not_wrapped() -> None:
    """The notional is exact far beyond int64; where a sum would leave its words, the candle says so and keeps its prices."""
    exact = [Trade(T0 + n, n + 1, 2**41 + n, 2**31 + 7 * n, False) for n in range(100)]
    (candle,) = all_candles(streamed([exact], [60 * S]), 60 * S)
    assert cd.notional(candle) == sum(t.ticks * t.lots for t in exact) > 2**63 and not candle["flags"] & CandleFlag.OVERFLOW
    many = [Trade(T0 + n, n + 1, 10 + n, 2**61, False) for n in range(9)]
    (candle,) = all_candles(streamed([many], [60 * S]), 60 * S)
    assert candle["flags"] & CandleFlag.OVERFLOW and 0 < candle["volume_lots"] < 2**63
    assert (candle["trades"], candle["high_ticks"], candle["close_ticks"]) == (9, 18, 18)


@pytest.mark.parametrize("trade", [(0, 1, 1), (T0, 0, 1), (T0, -5, 1), (T0, cd.MAX_TICKS, 1), (T0, 1, 0), (T0, 1, -3)])
def test_a_trade_without_price_quantity_or_time_is_counted_and_left_out(trade: tuple[int, int, int]) -> None:
    """No such trade makes or changes a candle."""
    state = cd.make_candles(1, [S])
    ts, ticks, lots = trade
    assert cd.add_trade(state, 0, ts, 1, ticks, lots, False) == 0
    assert state.feeds[0]["rejected"] == 1 and not len(all_candles(state, S))


def test_empty_buckets_are_filled_on_demand_only_and_say_so() -> None:
    """`fill` carries the close, with volume 0 and the mark SYNTHETIC; it changes no real candle and stops at the time given."""
    trades = [Trade(T0, 1, 100, 5, False), Trade(T0 + 3 * S, 2, 90, 5, True)]
    real = cd.candles_of(*zip(*trades), [S])[S]
    assert real["open_time_ns"].tolist() == [T0, T0 + 3 * S]
    full = cd.fill(real, T0 + 6 * S + 1)
    assert full["open_time_ns"].tolist() == [T0 + n * S for n in range(6)]
    made = (full["flags"] & CandleFlag.SYNTHETIC) != 0
    assert made.tolist() == [False, True, True, False, True, True] and full[~made].tobytes() == real.tobytes()
    assert full["close_ticks"].tolist() == [100, 100, 100, 90, 90, 90] == full["open_ticks"].tolist()
    assert not full["volume_lots"][made].any() and np.isnan(cd.vwap_ticks(full)[made]).all()
    assert cd.fill(real[:0]).size == 0 and cd.fill(real)["open_time_ns"][-1] == T0 + 3 * S


def test_sizes_are_read_and_refused_with_a_sentence() -> None:
    """Names of sizes go both ways; what is no fixed bucket is refused; so are settings that make no sense."""
    for text in ("1s", "5s", "15s", "1m", "5m", "4h", "1d"):
        assert cd.size_name(cd.parse_size(text)) == text
    assert cd.size_name(90 * S) == "90s" and cd.size_name(1500) == "1500ns"
    for text in ("", "m", "0m", "1w", "1M", "-1m", "1.5m", "99999s"):
        with pytest.raises(cd.CandleError, match="is no candle size"):
            cd.parse_size(text)
    for wrong in (lambda: cd.make_candles(0), lambda: cd.make_candles(1, []), lambda: cd.make_candles(1, [S, S]),
                  lambda: cd.make_candles(1, [0]), lambda: cd.closed_candles(cd.make_candles(1), 0, 7),
                  lambda: cd.open_candle(cd.make_candles(1), 1, S)):  # fmt: skip
        with pytest.raises(cd.CandleError):
            wrong()
    assert all(not len(c) for c in cd.candles_of([], [], [], [], []).values())
