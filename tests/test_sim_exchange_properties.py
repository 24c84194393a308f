"""The simulated exchange in a moving market: the embedded market through the feed fold, and seeded random orders."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from sim.exchange import fold as ex
from sim.market import generator as gen
from sim.settings import Generator, Latency, SimulatedExchange
from trading.books import fold as market
from trading.instruments import Instrument, fee_e8, instrument_table, notional_e8
from trading.records import (
    DEPTH_RECORD,
    MARKET_RECORD,
    ORDER_RECORD,
    REPORT_RECORD,
    ExecType,
    Kind,
    OrderStatus,
    OrderType,
    Purpose,
    TimeInForce,
    identity_words,
)

MS = 1_000_000
INSTRUMENTS = instrument_table([Instrument("BTCUSDT", maker_fee_bps=-0.3, taker_fee_bps=4.5), Instrument("ETHUSDT")])
LATENCY = Latency(entry_min_ms=5.0, entry_max_ms=50.0, response_min_ms=4.0, response_max_ms=60.0)
SETTINGS = SimulatedExchange(seed=11, latency=LATENCY)

Event = tuple[int, int, np.ndarray]
"""(ts_ns, input: 0 depth, 1 market, 2 order; one record)."""


def market_events() -> list[Event]:
    """Three seconds of the embedded market as depth and market records, in the order of a merge by time."""
    params = gen.make_params(Generator(duration_s=3.0, volatility_bps_per_s=3.0))
    state, glob = np.zeros(2, gen.GEN_STATE), np.zeros(1, gen.GEN_GLOBAL)
    gen.init(state, glob, params, INSTRUMENTS)
    buf = np.zeros(gen.MAX_FRAME_BYTES, np.uint8)
    feed, feed_glob, feed_params = np.zeros(2, market.FEED_STATE), np.zeros(1, market.FEED_GLOBAL), market.make_params()
    market.init(feed, feed_glob, INSTRUMENTS, feed_params)
    out, depth = np.zeros(market.MAX_MARKET_OUT, MARKET_RECORD), np.zeros(market.MAX_DEPTH_OUT, DEPTH_RECORD)
    events: list[Event] = []
    while n := gen.next_frame(state, glob, params, INSTRUMENTS, buf):
        ts, symbol = int(glob[0]["recv_ns"]), int(glob[0]["symbol"])
        m = market.on_frame(buf, 0, n, ts, ts, symbol, feed, feed_glob, feed_params, INSTRUMENTS, out, depth)
        events += [(ts, 0, depth[k : k + 1].copy()) for k in range(int(feed_glob[0]["n_depth"]))]
        events += [(ts, 1, out[k : k + 1].copy()) for k in range(m)]
    return events


def random_orders(events: list[Event], seed: int, n: int) -> list[Event]:
    """`n` orders and cancels around the touch, some far off, some wrong, at random moments of the market."""
    rng = np.random.default_rng(seed)
    touches = [(ts, rec[0]) for ts, ring, rec in events if ring == 1 and rec[0]["ask_ticks"][0] > 0]
    orders: list[Event] = []
    for k, at in enumerate(sorted(rng.integers(0, len(touches), n))):
        ts, seen = touches[at]
        rec = np.zeros(1, ORDER_RECORD)
        r = rec[0]
        r["ts_ns"], r["symbol"], r["order_id"] = ts, seen["symbol"], k + 1
        orders.append((ts, 2, rec))
        if k > 3 and rng.random() < 0.35:
            r["kind"], r["target_order_id"] = Kind.CANCEL, int(rng.integers(max(1, k - 12), k + 1))
            continue
        side = 1 if rng.random() < 0.5 else -1
        r["kind"], r["side"], r["purpose"] = Kind.NEW, side, Purpose.QUOTE
        r["order_type"] = rng.choice([OrderType.MARKET, OrderType.LIMIT, OrderType.POST_ONLY], p=[0.2, 0.5, 0.3])
        r["time_in_force"] = TimeInForce.IOC if r["order_type"] == OrderType.LIMIT and rng.random() < 0.2 else TimeInForce.GTC
        best = int(seen["bid_ticks"][0] if side > 0 else seen["ask_ticks"][0])
        r["price_ticks"] = best - side * int(rng.integers(-300, 300))
        step = int(INSTRUMENTS[int(seen["symbol"])]["step_lots"])
        r["qty_lots"] = int(rng.integers(0, 3000)) * step + (1 if rng.random() < 0.03 else 0)
        r["decision_ticks"] = best
    return orders


class Run:
    """One session of the exchange over merged events; keeps all reports."""

    def __init__(self, settings: SimulatedExchange = SETTINGS) -> None:
        self.params = ex.make_params(settings, INSTRUMENTS)
        self.state, self.glob = np.zeros(2, ex.EXCH_STATE), np.zeros(1, ex.EXCH_GLOBAL)
        ex.init(self.state, self.glob, self.params, INSTRUMENTS)
        self.out = np.zeros(ex.OUT_ROWS, REPORT_RECORD)
        self.taken: list[np.ndarray] = []

    @property
    def world(self) -> ex.ExchangeArrays:
        """The last argument of every kernel."""
        return ex.ExchangeArrays(self.state, self.glob, self.params, INSTRUMENTS, self.out)

    def took(self, n: int) -> int:
        """Keep the first n reports."""
        if n:
            self.taken.append(self.out[:n].copy())
        return n

    def feed(self, events: list[Event], eager: np.random.Generator | None = None) -> None:
        """Hand the events in, with random advances between them if `eager`."""
        kernels = (ex.on_depth, ex.on_market, ex.on_order)
        for k, (ts, ring, rec) in enumerate(events):
            if eager is not None and eager.random() < 0.5:
                before = events[k - 1][0] if k else ts
                for moment in sorted(eager.integers(before, ts + 1, 2)):
                    while self.took(ex.advance(int(moment), self.world)):
                        pass
            self.took(kernels[ring](rec, 0, self.world))

    def finish(self, ts: int) -> np.ndarray:
        """Close, and all reports of the session."""
        while self.took(ex.finish(ts, self.world)):
            pass
        assert self.glob[0]["reports_lost"] == 0
        return np.concatenate(self.taken)


@pytest.fixture(scope="module")
def events() -> list[Event]:
    """The market with orders in it."""
    quiet = market_events()
    return sorted([*quiet, *random_orders(quiet, 5, 600)], key=lambda event: event[:2])


@pytest.fixture(scope="module")
def reports(events: list[Event]) -> np.ndarray:
    """The session's reports, advanced as lazily as can be."""
    run = Run()
    run.feed(events)
    return run.finish(events[-1][0] + 1)


def identity(rows: np.ndarray) -> np.ndarray:
    """The words of the reports that count."""
    return rows.view(np.int64).reshape(len(rows), -1)[:, identity_words(REPORT_RECORD)]


def test_the_session_exercises_the_venue(reports: np.ndarray) -> None:
    """The scenario is not vacuous: all execution types, both kinds of fill, several reasons."""
    assert set(reports["exec_type"].tolist()) == {int(e) for e in ExecType if e is not ExecType.NONE}
    fills = reports[reports["exec_type"] == ExecType.FILL]
    assert (fills["maker"] == 1).sum() > 20 and (fills["maker"] == 0).sum() > 20
    assert len(set(reports["refusal"].tolist())) >= 5


def test_reports_are_visible_in_order_and_within_the_latency(reports: np.ndarray) -> None:
    """ts_ns and ts_exchange_ns never decrease over the whole session; delays keep the bounds except where a message waits for
    the one before it."""
    seen, happened = reports["ts_ns"], reports["ts_exchange_ns"]
    assert (np.diff(seen) >= 0).all() and (np.diff(happened) >= 0).all()
    delay = seen - happened
    assert delay.min() >= 4 * MS
    late = np.flatnonzero(delay > 60 * MS)
    assert all(seen[k] == seen[k - 1] for k in late)
    fresh = np.flatnonzero(np.r_[True, np.diff(seen) > 0])
    assert delay[fresh].max() <= 60 * MS and len(fresh) > 50


def test_orders_arrive_in_order_and_within_the_latency(events: list[Event], reports: np.ndarray) -> None:
    """An order's first answer happened within the entry bounds after its sending, or with the order before it."""
    sent = {int(r[0]["order_id"]): int(r[0]["ts_ns"]) for ts, ring, r in events if ring == 2 and r[0]["kind"] == Kind.NEW}
    first: dict[int, int] = {}
    for r in reports:
        if r["exec_type"] in (ExecType.ACK, ExecType.REJECT):
            first.setdefault(int(r["order_id"]), int(r["ts_exchange_ns"]))
    assert set(first) == set(sent)
    arrivals = [first[k] for k in sorted(first)]
    assert arrivals == sorted(arrivals)
    delays = np.array([first[k] - sent[k] for k in sorted(first)])
    assert delays.min() >= 5 * MS and np.median(delays) < 50 * MS


def test_every_lot_is_accounted_for(events: list[Event], reports: np.ndarray) -> None:
    """Filled + leaves = quantity in every report of an open order; each order has one final report, its last."""
    wanted = {int(r[0]["order_id"]): int(r[0]["qty_lots"]) for _, ring, r in events if ring == 2 and r[0]["kind"] == Kind.NEW}
    of: dict[int, list[np.void]] = defaultdict(list)
    for r in reports:
        if r["exec_type"] != ExecType.CANCEL_REJECT:
            of[int(r["order_id"])].append(r)
    final = {int(s) for s in (OrderStatus.FILLED, OrderStatus.CANCELED, OrderStatus.REJECTED, OrderStatus.EXPIRED)}
    for order_id, history in of.items():
        filled = 0
        for r in history:
            filled += int(r["last_lots"])
            assert int(r["cum_lots"]) == filled
            if int(r["order_status"]) not in final:
                assert int(r["leaves_lots"]) == wanted[order_id] - filled > 0
            else:
                assert r["leaves_lots"] == 0
        assert [int(r["order_status"]) in final for r in history] == [False] * (len(history) - 1) + [True]
        assert (filled == wanted[order_id]) == (int(history[-1]["order_status"]) == OrderStatus.FILLED)


def test_fills_have_exact_fees_and_rising_trade_ids(reports: np.ndarray) -> None:
    """fee_e8 is the rate times the notional, recomputed here in Python's integers; trade ids rise by one a symbol."""
    fills = reports[reports["exec_type"] == ExecType.FILL]
    for r in fills:
        it = INSTRUMENTS[int(r["symbol"])]
        value = int(r["last_ticks"]) * int(r["last_lots"]) * int(it["notional_mul"]) // int(it["notional_div"])
        rate = int(it["maker_fee_e6"] if r["maker"] else it["taker_fee_e6"])
        assert int(r["fee_e8"]) == (value * rate + 500_000) // 1_000_000
        assert int(r["fee_e8"]) == fee_e8(notional_e8(INSTRUMENTS, r["symbol"], r["last_ticks"], r["last_lots"]), rate)
        assert (r["last_ticks"] - r["price_ticks"]) * r["side"] <= 0 or r["price_ticks"] <= 0 or r["maker"] == 0
    for symbol in (0, 1):
        ids = fills["trade_id"][fills["symbol"] == symbol]
        assert (ids == np.arange(1, len(ids) + 1)).all()


def test_limits_are_never_filled_beyond_their_price(events: list[Event], reports: np.ndarray) -> None:
    """No buy above, no sell below the limit; maker fills are at the limit exactly."""
    orders = {int(r[0]["order_id"]): r[0] for _, ring, r in events if ring == 2}
    for r in reports[reports["exec_type"] == ExecType.FILL]:
        order = orders[int(r["order_id"])]
        if order["order_type"] != OrderType.MARKET:
            assert (int(r["last_ticks"]) - int(order["price_ticks"])) * int(order["side"]) <= 0
        if r["maker"]:
            assert r["last_ticks"] == order["price_ticks"] and order["order_type"] != OrderType.MARKET


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_how_eagerly_time_is_advanced_changes_nothing(events: list[Event], reports: np.ndarray, seed: int) -> None:
    """Random `advance` calls between the inputs give the same reports, word for word."""
    run = Run()
    run.feed(events, np.random.default_rng(seed))
    assert np.array_equal(identity(run.finish(events[-1][0] + 1)), identity(reports))


def test_orders_merged_at_their_least_arrival_give_the_same_reports(events: list[Event], reports: np.ndarray) -> None:
    """A caller that hands an order in only when it can first arrive (ts_ns + min_entry) sees the same session."""
    shift = ex.min_entry_ns(Run().params)
    later = sorted(((ts + (shift if ring == 2 else 0), ring, rec) for ts, ring, rec in events), key=lambda event: event[:2])
    run = Run()
    run.feed(later)
    assert np.array_equal(identity(run.finish(events[-1][0] + 1)), identity(reports))


def test_a_copy_of_the_state_is_a_checkpoint(events: list[Event], reports: np.ndarray) -> None:
    """A run stopped in the middle, whose state arrays are copied as bytes, goes on to the same reports."""
    run, other = Run(), Run()
    run.feed(events[: len(events) // 2])
    other.state[:] = np.frombuffer(run.state.tobytes(), ex.EXCH_STATE)
    other.glob[:] = np.frombuffer(run.glob.tobytes(), ex.EXCH_GLOBAL)
    other.taken = run.taken
    other.feed(events[len(events) // 2 :])
    assert np.array_equal(identity(other.finish(events[-1][0] + 1)), identity(reports))


def test_another_seed_draws_other_latencies(events: list[Event], reports: np.ndarray) -> None:
    """The seed matters (and nothing else is random)."""
    run = Run(SimulatedExchange(seed=12, latency=LATENCY))
    run.feed(events)
    other = run.finish(events[-1][0] + 1)
    assert len(other) != len(reports) or not np.array_equal(other["ts_ns"], reports["ts_ns"])
