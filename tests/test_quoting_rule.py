"""The quoter: the skewed rule against an independent computation, when targets are told, and that they never cross."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from features_markets import T0, fill, random_walk, read_recording, table
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_bars import Bars
from reference_events import Events

from trading.features.bars import BOOK_MAX_AGE_NS
from trading.instruments import Instrument, instrument_table
from trading.jit import Recs
from trading.quoting import targets as quoting
from trading.records import MARKET_RECORD, QUOTE_RECORD, REPORT_RECORD, ExecType, Flag, Kind
from trading.settings import Features, Quoting, Strategy

SHORT_BARS = Features(bar_ms=200, volatility_lambda=0.9)
MS = 1_000_000

Told = tuple[int, int, int, int, int]  # record, bid_ticks, bid_lots, ask_ticks, ask_lots


class Quoter:
    """State, settings and one output row of the kernels; `fills` are taken before the record with their index."""

    def __init__(self, strategy: Strategy, instruments: Recs | None = None) -> None:
        self.instruments = table() if instruments is None else instruments
        self.params = quoting.make_params(strategy, self.instruments)
        self.state = np.zeros(len(self.instruments), quoting.QUOTE_STATE)
        self.glob = np.zeros(1, quoting.QUOTE_GLOBAL)
        self.out = np.zeros(1, QUOTE_RECORD)
        self.figures = quoting.make_figures(strategy, ["BTCUSDT"] * len(self.instruments))
        quoting.init(self.state, self.glob, self.params, self.instruments)

    def _world(self) -> quoting.QuoterArrays:
        return quoting.QuoterArrays(self.state, self.glob, self.params, self.instruments, self.figures, self.out)

    def market(self, recs: Recs, i: int = 0) -> Any:
        """The quote told for a market record, or None."""
        return self.out[0].copy() if quoting.on_market(recs, i, self._world()) else None

    def report(self, recs: Recs, i: int = 0) -> Any:
        """The quote told for a report, or None."""
        return self.out[0].copy() if quoting.on_report(recs, i, self._world()) else None

    def run(self, recs: Recs, fills: dict[int, tuple[int, int]], start: int = 0) -> list[bytes]:
        """Everything told, as bytes; fills: record index -> (side, lots)."""
        told = []
        for i in range(start, len(recs)):
            if i in fills:
                answer = self.report(fill(int(recs["ts_ns"][i]), *fills[i]))
                if answer is not None:
                    told.append(answer.tobytes())
            answer = self.market(recs, i)
            if answer is not None:
                told.append(answer.tobytes())
        return told


def book(ts_ns: int, bid: int, ask: int, lots: int = 10**8) -> Recs:
    """A MARKET_RECORD (1,) of a valid book."""
    recs = np.zeros(1, MARKET_RECORD)
    recs["ts_ns"], recs["kind"], recs["flags"] = ts_ns, Kind.BBO, Flag.BOOK_VALID
    recs["bid_ticks"][0], recs["ask_ticks"][0] = bid - np.arange(5), ask + np.arange(5)
    recs["bid_lots"] = recs["ask_lots"] = lots
    return recs


def warmed(strategy: Strategy, bid: int = 5_999_995, ask: int = 6_000_005, instruments: Recs | None = None) -> tuple[Quoter, int]:
    """A quoter that has seen a still market for long enough to quote, and has; the time of its latest record."""
    quoter, ts = Quoter(strategy, instruments), T0
    for _ in range(60):
        ts += 500 * MS
        quoter.market(book(ts, bid, ask))
    assert quoter.state["bid_lots"][0] > 0
    return quoter, ts


def expected(recs: Recs, strategy: Strategy, fills: dict[int, tuple[int, int]]) -> list[tuple[Any, ...]]:
    """What should be told, by the rule's text in plain Python: (ts, bid, lots, ask, lots, half, skew, inventory)."""
    q = strategy.quoting
    want = Events(recs, strategy.features)
    bars = Bars(want)
    tick, lot, step = Decimal("0.01"), Decimal("1e-8"), 1000
    told: list[tuple[Any, ...]] = []
    out = (0, 0, 0, 0)
    told_ts, inventory, filled = 0, 0, False
    live = None  # (best bid, best ask, volatility) or None

    def decide(ts: int) -> None:
        nonlocal out, told_ts, filled
        target, half, skew = (0, 0, 0, 0), 0.0, 0.0
        if live is not None:
            bid0, ask0, volatility = live
            mid = (bid0 + ask0) / 2
            value = Fraction(bid0 + ask0, 2) * Fraction(tick) * Fraction(lot)  # of one lot
            lots = math.floor(Fraction(q.order_notional) / value) // step * step
            most = Fraction(q.max_inventory_notional) / value
            half = max(q.min_spread_bps / 1e4, q.volatility_weight * volatility * math.sqrt(60)) * mid / 2
            skew = inventory / float(most) * q.skew * mid
            bid, ask = min(math.floor(mid - half - skew), ask0 - 1), max(math.ceil(mid + half - skew), bid0 + 1)
            bid_lots = lots if inventory + lots <= most else 0
            ask_lots = lots if lots - inventory <= most else 0
            target = (bid if bid_lots else 0, bid_lots, ask if ask_lots else 0, ask_lots)
        pull = (out[1] and not target[1]) or (out[3] and not target[3])
        if not pull:
            if not target[1] and not target[3]:
                return
            new = (not out[1] and target[1]) or (not out[3] and target[3])
            far = max(abs(target[0] - out[0]), abs(target[2] - out[2])) > q.requote_ticks
            if not (new or far or filled) or (told_ts and ts - told_ts < q.requote_ms * MS):
                return
        out, told_ts, filled = target, ts, False
        told.append((ts, *target, half, skew, inventory))

    for i in range(len(recs)):
        ts = int(recs["ts_ns"][i])
        if i in fills:
            inventory += fills[i][0] * fills[i][1]
            filled = True
            decide(ts)
        live = None
        if want.usable[i] and ts - want.book_ts[i] <= BOOK_MAX_AGE_NS and bars.volatility_warm[i]:
            live = (int(recs["bid_ticks"][i, 0]), int(recs["ask_ticks"][i, 0]), float(bars.volatility[i]))
        decide(ts)
    return told


def check(recs: Recs, strategy: Strategy, fills: dict[int, tuple[int, int]]) -> list[tuple[Any, ...]]:
    """Kernel and plain Python tell the same quotes at the same records."""
    got = [np.frombuffer(row, QUOTE_RECORD)[0] for row in Quoter(strategy).run(recs, fills)]
    want = expected(recs, strategy, fills)
    names = ("ts_ns", "bid_ticks", "bid_lots", "ask_ticks", "ask_lots")
    assert [tuple(int(g[n]) for n in names) for g in got] == [w[:5] for w in want]
    for name, column in (("half_spread", 5), ("skew", 6), ("inventory_lots", 7)):
        np.testing.assert_allclose([g[name] for g in got], [w[column] for w in want], rtol=1e-9, atol=1e-12, err_msg=name)
    return want


@pytest.mark.parametrize("seed", range(4))
def test_a_random_market_with_fills(seed: int) -> None:
    """Through stale books, silences and fills every target equals the rule in plain Python, to the tick and the record."""
    recs = random_walk(seed, 2500, stale_every=600, gap_every=400)
    rng = np.random.default_rng(seed)
    fills = {int(i): (int(rng.choice([-1, 1])), int(rng.integers(1, 60)) * 100_000) for i in rng.choice(2500, 40, replace=False)}
    strategy = Strategy(features=SHORT_BARS, quoting=Quoting(min_spread_bps=0.2, volatility_weight=0.5, skew=0.0002))
    want = check(recs, strategy, fills)
    assert len(want) > 50
    assert any(w[2] == 0 for w in want) and any(w[4] == 0 for w in want)


def test_inventory_at_its_bound() -> None:
    """With fills of one side only the quoter reaches its bound, stops that side and keeps the other."""
    recs = random_walk(5, 1500)
    strategy = Strategy(features=SHORT_BARS, quoting=Quoting(max_inventory_notional=3_000.0))
    want = check(recs, strategy, dict.fromkeys(range(400, 1400, 100), (1, 1_000_000)))
    one_sided = [w for w in want if w[2] == 0 and w[4] > 0]
    assert one_sided and all(w[7] > 0 for w in one_sided)


@pytest.mark.recordings
def test_the_recorded_market(recordings: Path) -> None:
    """On recorded Binance frames the targets equal the rule in plain Python."""
    path = recordings / "hftbacktest_binance" / "spot_btcusdt_20240808.gz"
    if not path.is_file():
        pytest.skip(f"no recording {path}")
    want = check(read_recording(path, 6_000), Strategy(), {3000: (1, 1_600_000), 4000: (-1, 3_200_000)})
    assert len(want) > 20


def test_the_rule_by_hand() -> None:
    """Mid 60,000.00, still market, 2 bps: half 6.00; a tenth of the inventory bound skews by a tenth of 0.1% of mid."""
    quoter, ts = warmed(Strategy())
    state = quoter.state[0]
    assert (state["bid_ticks"], state["ask_ticks"]) == (5_999_400, 6_000_600)
    assert state["bid_lots"] == state["ask_lots"] == 1_666_000  # 1000 / 60000 = 0.016666.. down to a step of 0.00001
    told = quoter.report(fill(ts + 200 * MS, 1, 1_666_666))
    assert told["skew"] == pytest.approx(600.0, rel=1e-6) and told["half_spread"] == 600.0
    # 6_000_000 -+ 600 - 599.99976: the bid to whole ticks down, the ask up
    assert (told["bid_ticks"], told["ask_ticks"]) == (5_998_800, 6_000_001)
    assert told["inventory_lots"] == 1_666_666 and told["fair_price"] == 6_000_000.0 and told["kind"] == Kind.QUOTE


def test_nothing_is_quoted_before_the_volatility_is_warm() -> None:
    """The first target comes with the bar that makes the volatility warm: 1/(1 - lambda) returns, so one bar more."""
    quoter = Quoter(Strategy())
    first = next(i for i in range(100) if quoter.market(book(T0 + i * 1000 * MS, 100_000, 100_002)) is not None)
    assert first == 18  # bars 0..17 have closed: 17 returns


@pytest.mark.parametrize(("ticks", "told"), [(5, False), (6, True)])
def test_a_quote_moves_only_beyond_the_tolerance(ticks: int, told: bool) -> None:
    """requote_ticks 5: a target 5 ticks away is not told, one 6 ticks away is."""
    quoter, ts = warmed(Strategy(), 1_000_000, 1_000_002)
    half = 101  # 2 bps of 1,000,001 / 2 is 100.0001, to whole ticks outwards
    assert quoter.state["bid_ticks"][0] == 1_000_001 - half
    answer = quoter.market(book(ts + 200 * MS, 1_000_000 + ticks, 1_000_002 + ticks))
    assert (answer is not None) == told


@pytest.mark.parametrize(("after_ms", "told"), [(99, False), (100, True)])
def test_a_quote_moves_not_sooner_than_the_least_time(after_ms: int, told: bool) -> None:
    """requote_ms 100 after the last target; what was due is told by the first record after that."""
    quoter, ts = warmed(Strategy())
    assert quoter.market(book(ts + 200 * MS, 5_999_495, 5_999_505)) is not None
    ts += 200 * MS
    assert (quoter.market(book(ts + after_ms * MS, 5_998_995, 5_999_005)) is not None) == told
    if not told:
        assert quoter.market(book(ts + 100 * MS, 5_998_995, 5_999_005)) is not None


@pytest.mark.parametrize("flaw", ["stale", "invalid", "old"])
def test_a_book_not_to_be_trusted_pulls_both_sides_at_once(flaw: str) -> None:
    """Both sides are pulled by the record itself, even within requote_ms; once, and they come back with the book."""
    quoter, ts = warmed(Strategy())
    moved = quoter.market(book(ts + 200 * MS, 5_999_495, 5_999_505))
    assert moved is not None
    ts += 200 * MS
    recs = book(ts + 1, 5_999_495, 5_999_505)
    if flaw == "stale":
        recs["kind"], recs["flags"] = Kind.STALE, 0
    elif flaw == "invalid":
        recs["flags"] = 0
    else:
        recs["kind"], recs["ts_ns"] = Kind.TRADE, ts + BOOK_MAX_AGE_NS + 1
    told = quoter.market(recs)
    assert (told["bid_ticks"], told["bid_lots"], told["ask_ticks"], told["ask_lots"], told["fair_price"]) == (0, 0, 0, 0, 0.0)
    ts = int(recs["ts_ns"][0])
    recs["ts_ns"] += 1
    assert quoter.market(recs) is None
    assert quoter.market(book(ts + 50 * MS, 5_999_495, 5_999_505)) is None
    back = quoter.market(book(ts + 150 * MS, 5_999_495, 5_999_505))
    assert back["bid_lots"] > 0 and back["ask_lots"] > 0


def test_a_fill_makes_a_restatement_due() -> None:
    """A fill too small to move a price by the tolerance still has the target told again, after requote_ms."""
    quoter, ts = warmed(Strategy(quoting=Quoting(skew=0.0)))
    assert quoter.market(book(ts + 200 * MS, 5_999_495, 5_999_505)) is not None
    ts += 200 * MS
    assert quoter.report(fill(ts + 10 * MS, 1, 1000)) is None
    assert quoter.market(book(ts + 99 * MS, 5_999_495, 5_999_505)) is None
    again = quoter.market(book(ts + 100 * MS, 5_999_495, 5_999_505))
    assert again["inventory_lots"] == 1000
    assert quoter.market(book(ts + 300 * MS, 5_999_495, 5_999_505)) is None


def test_only_fills_move_the_inventory_and_of_any_purpose() -> None:
    """ACK, CANCELED and the rest change nothing; fills add side times quantity; foreign symbols are passed over."""
    quoter, ts = warmed(Strategy())
    for exec_type in ExecType:
        recs = fill(ts, 1, 777)
        recs["exec_type"] = exec_type
        quoter.report(recs)
    assert quoter.state["inventory_lots"][0] == 777
    quoter.report(fill(ts, -1, 1000))
    assert quoter.state["inventory_lots"][0] == -223 and quoter.glob["fills"][0] == 2
    for symbol in (-1, 1):
        assert quoter.report(fill(ts, 1, 5, symbol)) is None
    assert quoter.state["inventory_lots"][0] == -223


@pytest.mark.parametrize("how", ["disabled", "no maker"])
def test_only_instruments_that_make_markets_are_quoted(how: str) -> None:
    """quoting.enabled false, or make_market false: never a target, though inventory is kept."""
    strategy = Strategy(quoting=Quoting(enabled=how != "disabled"))
    quoter = Quoter(strategy, instrument_table([Instrument("BTCUSDT", make_market=how != "no maker")]))
    for i in range(100):
        assert quoter.market(book(T0 + i * 1000 * MS, 100_000, 100_002)) is None
        assert quoter.report(fill(T0 + i * 1000 * MS, 1, 10)) is None
    assert quoter.state["inventory_lots"][0] == 1000


@pytest.mark.parametrize(
    ("limits", "quoted"),
    [
        ({"min_qty": "0.01666"}, True),
        ({"min_qty": "0.01667"}, False),
        ({"min_notional": "990"}, True),
        ({"min_notional": "1000"}, False),
    ],
)
def test_quantities_below_the_venues_least_are_not_quoted(limits: dict[str, str], quoted: bool) -> None:
    """1,000 at 60,000 is 0.01666: quoted while min_qty and min_notional allow it, else no side at all."""
    quoter = Quoter(Strategy(), instrument_table([Instrument("BTCUSDT", **limits)]))  # type: ignore[arg-type]
    for i in range(60):
        quoter.market(book(T0 + i * 1000 * MS, 5_999_995, 6_000_005))
    assert (quoter.state["bid_lots"][0] > 0) == quoted
    assert (quoter.glob["quotes"][0] > 0) == quoted


def test_a_copy_of_the_state_continues_the_same() -> None:
    """State copied as bytes at any record and put back tells byte-identical quotes."""
    recs = random_walk(7, 1500, stale_every=400)
    fills = {i: (1 if i % 200 else -1, 500_000) for i in range(100, 1500, 100)}
    strategy = Strategy(features=SHORT_BARS)
    whole = Quoter(strategy).run(recs, fills)
    for cut in (1, 333, 1000):
        before = Quoter(strategy)
        head = before.run(recs[:cut], fills)
        after = Quoter(strategy)
        after.state[:] = np.frombuffer(before.state.tobytes(), quoting.QUOTE_STATE)
        after.glob[:] = np.frombuffer(before.glob.tobytes(), quoting.QUOTE_GLOBAL)
        assert head + after.run(recs, fills, cut) == whole


def test_a_mirrored_market_mirrors_the_quotes() -> None:
    """Turn book and inventory upside down and the distances of bid and ask from the mid change places."""
    quoter, ts = warmed(Strategy())
    other, _ = warmed(Strategy())
    long = quoter.report(fill(ts + 200 * MS, 1, 3_000_000))
    short = other.report(fill(ts + 200 * MS, -1, 3_000_000))
    assert long["bid_ticks"] - 6_000_000 == 6_000_000 - short["ask_ticks"]
    assert long["ask_ticks"] - 6_000_000 == 6_000_000 - short["bid_ticks"]
    assert long["skew"] == -short["skew"]


def test_the_stages_words_are_left_alone() -> None:
    """A told quote sets every word but the stage's, whatever stood in the row."""
    quoter, ts = warmed(Strategy())
    quoter.out.view("u1")[:] = 0xA5
    told = quoter.market(book(ts + 200 * MS, 5_999_495, 5_999_505))
    for name in QUOTE_RECORD.names or ():
        untouched = set(told[name].tobytes()) == {0xA5}
        assert untouched == (name in ("cause_seq", "cause_ring", "ts_origin_mono_ns", "ts_publish_mono_ns", "seq", "spare")), name


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 20_000_000),  # bid
            st.integers(1, 5_000),  # spread
            st.integers(-(10**10), 10**10),  # lots filled before
            st.integers(1, 2_000),  # ms
            st.booleans(),
        ),
        min_size=5,
        max_size=25,
    ),
    st.floats(0.01, 500),
    st.floats(0, 0.5),
    st.floats(0, 50),
)
def test_quotes_never_cross(path: list[tuple[int, int, int, int, bool]], bps: float, skew: float, weight: float) -> None:
    """Whatever the market, inventory and settings: bid < best ask, ask > best bid, bid < ask, quantities allowed."""
    strategy = Strategy(
        features=Features(bar_ms=100, volatility_lambda=0.5),
        quoting=Quoting(min_spread_bps=bps, skew=skew, volatility_weight=weight, requote_ms=0, requote_ticks=0),
    )
    quoter = Quoter(strategy)
    it = quoter.instruments[0]
    ts = T0
    for bid, spread, lots, ms, valid in path:
        ts += ms * MS
        recs = book(ts, max(bid, 6), max(bid, 6) + spread)
        recs["flags"] = Flag.BOOK_VALID if valid else 0
        answers = [quoter.market(recs)]
        top = (int(recs["bid_ticks"][0, 0]), int(recs["ask_ticks"][0, 0]))
        if lots:
            answers.append(quoter.report(fill(ts, 1 if lots > 0 else -1, abs(lots))))
        for told in answers:
            if told is None:
                continue
            for side in ("bid", "ask"):
                price, qty = int(told[f"{side}_ticks"]), int(told[f"{side}_lots"])
                assert (price == 0) == (qty == 0)
                if qty:
                    assert valid and price >= 1
                    assert qty % it["step_lots"] == 0 and it["min_qty_lots"] <= qty <= it["max_qty_lots"]
                    assert price * qty * 10**-2 >= it["min_notional_e8"] - 1
            if told["bid_lots"]:
                assert told["bid_ticks"] <= top[1] - 1
            if told["ask_lots"]:
                assert told["ask_ticks"] >= top[0] + 1
            if told["bid_lots"] and told["ask_lots"]:
                assert told["bid_ticks"] < told["ask_ticks"]


def test_settings_reach_the_params() -> None:
    """Every quoting setting that the kernel reads comes from the profile."""
    q = Quoting(min_spread_bps=3.0, requote_ms=7, requote_ticks=9, skew=0.5, order_notional=11.0, max_inventory_notional=13.0)
    p = quoting.make_params(msgspec.structs.replace(Strategy(), quoting=q), table())[0]
    assert (p["min_spread"], p["requote_ns"], p["requote_ticks"], p["skew"]) == (3e-4, 7_000_000, 9, 0.5)
    assert (p["order_notional"], p["max_inventory_notional"], p["enabled"]) == (11.0, 13.0, 1)
    assert REPORT_RECORD.itemsize == 192
