"""Positions, cash and profit are exact integers, and a fill counts once."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trading.instruments import Instrument, instrument_table
from trading.orders import fills
from trading.records import REPORT_RECORD
from trading.risk import positions

STATE = np.dtype([*positions.POSITION_FIELDS], align=True)
TABLE = instrument_table(
    [Instrument("BTCUSDT"), Instrument("ALT", tick_size="0.0005", lot_size="0.1", step_size="1", min_qty="1")]
)

FILLS = st.lists(
    st.tuples(st.sampled_from([-1, 1]), st.integers(1, 10_000_000), st.integers(1, 10**10), st.integers(-(10**9), 10**9)),
    max_size=25,
)


def fill(s: int, side: int, price: int, lots: int, fee: int) -> np.void:
    """The report of a fill."""
    rec = np.zeros(1, REPORT_RECORD)
    rec["symbol"], rec["side"], rec["last_ticks"], rec["last_lots"], rec["fee_e8"] = s, side, price, lots, fee
    return rec[0]


@settings(max_examples=300, deadline=None)
@given(FILLS, st.integers(0, 1), st.integers(1, 10_000_000), st.integers(0, 1000))
def test_against_unbounded_integers(trades: list, s: int, bid: int, spread: int) -> None:
    """Under random fills every figure equals that of Python's unbounded integers, and no money is lost to rounding."""
    state = np.zeros(2, STATE)
    mul, div = int(TABLE[s]["notional_mul"]), int(TABLE[s]["notional_div"])
    position = cost = realised = fees = signed = turnover = 0
    for side, price, any_lots, fee in trades:
        lots = any_lots if s == 0 else any_lots % 10**6 + 1  # within 92 G of the quote currency: what an int64 of 1e-8 holds
        positions.apply_fill(state, TABLE, fill(s, side, price, lots, fee))
        value = price * lots // div * mul
        closing = min(lots, abs(position)) if position * side < 0 else 0
        if closing:
            close_value = price * closing // div * mul
            released = cost * closing // abs(position)
            realised += -side * (close_value - released)
            cost -= released
        else:
            close_value = 0
        if lots > closing:
            cost += value - close_value
        position += side * lots
        signed += side * value
        fees += fee
        turnover += value
    p = state[s]
    got = [int(p[n]) for n in ("position_lots", "cost_e8", "realised_e8", "fees_e8", "cash_e8", "turnover_e8", "n_fills")]
    assert got == [position, cost, realised, fees, -signed - fees, turnover, len(trades)]
    direction = (position > 0) - (position < 0)
    assert realised - direction * cost == -signed
    change = positions.mark(state, s, TABLE, bid, bid + spread)
    marked = (2 * bid + spread) * position // (2 * div) * mul
    assert change == int(p["equity_e8"]) == marked - signed - fees
    assert int(p["equity_e8"]) == int(p["realised_e8"]) + int(p["unrealised_e8"]) - fees
    assert (positions.average_entry_ticks(state, s, TABLE) == 0.0) == (position == 0) or cost == 0


def test_round_trip_in_words() -> None:
    """Buy 0.01 at 60,000.00 and sell it at 60,010.00 with 10 bps a side: 0.10 gained, 1.2001 paid in fees."""
    state = np.zeros(2, STATE)
    positions.apply_fill(state, TABLE, fill(0, 1, 6_000_000, 1_000_000, 60_000_000))
    assert positions.average_entry_ticks(state, 0, TABLE) == 6_000_000.0
    positions.apply_fill(state, TABLE, fill(0, -1, 6_001_000, 1_000_000, 60_010_000))
    p = state[0]
    assert (p["position_lots"], p["cost_e8"], p["realised_e8"], p["fees_e8"]) == (0, 0, 10_000_000, 120_010_000)
    assert p["cash_e8"] == 10_000_000 - 120_010_000


WINDOW = np.dtype(fills.TRADE_WINDOW)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=fills.WINDOW, unique=True), st.randoms(use_true_random=False))
def test_fills_are_a_set(ids: list[int], rng: random.Random) -> None:
    """As long as no more than WINDOW are in play, each id is new exactly once, in any order and with any repetition."""
    window = np.zeros(1, WINDOW)
    stream = ids + rng.choices(ids, k=len(ids))
    rng.shuffle(stream)
    taken = [t for t in stream if fills.first_sight(window, 0, t)]
    assert sorted(taken) == sorted(ids)


def test_long_run_of_late_fills() -> None:
    """Through thousands of ids, shuffled in blocks smaller than the window and repeated, none is lost and none doubled."""
    window = np.zeros(1, WINDOW)
    rng = np.random.default_rng(3)
    taken: list[int] = []
    for start in range(1, 5_000, 30):
        block = rng.permutation(np.repeat(np.arange(start, start + 30), 2))
        taken += [int(t) for t in block if fills.first_sight(window, 0, int(t))]
    assert sorted(taken) == list(range(1, start + 30))


def test_ids_that_cannot_be() -> None:
    """Zero, negative, and ids older than the window are never new."""
    window = np.zeros(1, WINDOW)
    assert not fills.first_sight(window, 0, 0)
    assert not fills.first_sight(window, 0, -5)
    for trade_id in range(100, 100 + 2 * fills.WINDOW):
        assert fills.first_sight(window, 0, trade_id)
    assert not fills.first_sight(window, 0, 100)
