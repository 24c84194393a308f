"""Products of price and quantity that an int64 does not hold: exact against Python's integers, saturated beyond."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trading.instruments import MAX_QTY, Instrument, InstrumentError, fee_e8, instrument_table, mul_div, notional_e8, times
from trading.ranges import (
    LEVEL_LOTS,
    MAX_MONEY,
    MAX_SYMBOLS,
    MAX_UNITS,
    SATURATED,
    RangeError,
    lot_decimals,
    lot_decimals_of_rules,
)
from trading.results.round_trips import total_e8, values_e8
from trading.risk import positions, sizing
from trading.risk.layout import RISK_STATE

TABLE = instrument_table(
    [
        Instrument("SHIBUSDT", tick_size="0.00000001", lot_size="0.00000001", step_size="1", min_qty="1", max_qty="46116860414"),
        Instrument("BTCIDR", tick_size="1", lot_size="0.00000001", max_qty=MAX_QTY),
        Instrument("BTTCUSDT", tick_size="0.00000001", lot_size="1", step_size="1", min_qty="1", max_qty="92233720368547"),
    ]
)
WIDE = st.integers(0, MAX_UNITS)


def capped(value: int) -> int:
    """Where a kernel ends that meets more than it can hold."""
    return max(-SATURATED, min(SATURATED, value))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**61), st.integers(-(2**61), 2**61), st.integers(1, 2**60))
def test_mul_div_is_exact_or_saturated(a: int, b: int, c: int) -> None:
    """floor(a * b / c) as Python's integers have it, whatever the product; at the bound where the quotient is beyond it."""
    assert mul_div(a, b, c) == capped(a * b // c)


@settings(max_examples=200, deadline=None)
@given(st.integers(-SATURATED, SATURATED), st.integers(1, 10**9))
def test_times_keeps_the_sign(value: int, factor: int) -> None:
    """A product beyond the bound ends there, with the value's sign."""
    found = times(value, factor)
    assert found == value * factor if abs(value) * factor < SATURATED - 2**10 else abs(found) >= SATURATED - 2**10
    assert found * value >= 0


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2), WIDE, WIDE)
def test_notional_over_the_whole_range(s: int, ticks: int, lots: int) -> None:
    """A value is exact for any price and quantity that a scanner lets in, in the kernel and for arrays; over every limit else."""
    mul, div = int(TABLE[s]["notional_mul"]), int(TABLE[s]["notional_div"])
    exact = ticks * lots // div * mul
    found = notional_e8(TABLE, s, ticks, lots)
    assert found == exact if exact < SATURATED - 2**10 else found >= SATURATED - 2**10
    (row,) = values_e8(TABLE, np.array([s]), np.array([ticks]), np.array([lots]))
    assert int(row) == min(exact, SATURATED)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, SATURATED), st.integers(-10_000, 100_000))
def test_fees_of_values_that_fill_an_int64(value: int, rate: int) -> None:
    """A fee is rounded half up, exactly: 60 bitcoin in rupiah are 1e11 rupiah, whose product with a rate is beyond an int64."""
    assert fee_e8(value, rate) == (value * rate + 500_000) // 1_000_000


def test_sums_of_values_hold_what_an_int64_does_not() -> None:
    """A turnover in rupiah of three times what an int64 counts is summed exactly."""
    assert total_e8(np.full(6, 2**62, np.int64)) == 6 * 2**62


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2), st.integers(1, 2**45), st.integers(10**8, 2 * 10**18))
def test_lots_worth_never_exceed_the_value(s: int, ticks: int, value: int) -> None:
    """The quantity for a value is the greatest multiple of the step that is worth no more, also beyond an int64 product."""
    it = TABLE[s]
    lots = sizing.lots_worth(TABLE, s, ticks, value)
    step, most = int(it["step_lots"]), int(it["max_qty_lots"])
    assert lots % step == 0 and 0 <= lots <= most
    mul, div = int(it["notional_mul"]), int(it["notional_div"])
    assert ticks * lots // div * mul <= value
    assert lots + step > min(most, value // mul * div // ticks)


@settings(max_examples=100, deadline=None)
@given(st.integers(-(2**50), 2**50), st.integers(1, 2**45), st.integers(0, 100))
def test_a_position_is_marked_exactly(held: int, bid: int, spread: int) -> None:
    """The mark of a position is the floor of its value at the mid, long and short, within 1e-8 and the bound."""
    state = np.zeros(1, RISK_STATE)
    state[0]["position_lots"] = held
    mul, div = int(TABLE[0]["notional_mul"]), int(TABLE[0]["notional_div"])
    positions.mark(state, 0, TABLE, bid, bid + spread)
    exact = (2 * bid + spread) * held // (2 * div) * mul
    assert int(state[0]["equity_e8"]) == capped(exact)


def test_a_turnover_stays_at_its_bound() -> None:
    """Buying for the greatest value again and again leaves the turnover at the bound: it never turns negative."""
    from trading.records import REPORT_RECORD

    state, rec = np.zeros(3, RISK_STATE), np.zeros(1, REPORT_RECORD)
    rec["symbol"], rec["last_ticks"], rec["last_lots"] = 1, 1_600_000_000, 10**10
    for n in range(40):
        rec["side"] = 1 - 2 * (n % 2)
        positions.apply_fill(state, TABLE, rec[0])
    assert int(state[1]["turnover_e8"]) == SATURATED and int(state[1]["realised_e8"]) == 0


def test_the_lot_of_a_recording() -> None:
    """The venue's usual lot while a level fits, then the decimals that are used, and a refusal where even those do not fit."""
    assert lot_decimals(8, 5, 1_000) == 8 and lot_decimals(8, 8, LEVEL_LOTS // 10**8) == 8
    assert lot_decimals(8, 0, 10**14) == 0 and lot_decimals(8, 2, 10**14) == 2
    assert lot_decimals(2, 3, 10) == 3  # finer than usual: as fine as it was printed
    try:
        lot_decimals(8, 8, 10**14)
    except RangeError as error:
        assert "100000000000000 with 8 decimals" in str(error) and "leave this symbol out" in str(error)
    else:
        raise AssertionError("1e14 coins with eight decimals in use were taken")


def test_the_lot_of_a_venues_rules() -> None:
    """Bitcoin keeps 1e-8; a coin whose orders reach 4.6e10 coins gets a lot two digits finer than its step, which holds 1e14."""
    assert lot_decimals_of_rules(8, 5, 9_000) == 8 and lot_decimals_of_rules(8, 0, 9_000_000) == 8
    assert lot_decimals_of_rules(8, 0, 46_116_860_414) == 2 and 10**14 * 10**2 < MAX_UNITS
    assert lot_decimals_of_rules(8, 1, 922_337_203_685) == 3 and 10**14 * 10**3 < MAX_UNITS
    assert lot_decimals_of_rules(2, 0, 46_116_860_414) == 2  # the asset itself has no more


def test_sizes_beyond_the_range_are_refused_by_name() -> None:
    """A step of more lots than fit, and a tick and a lot that no value can be counted in, name symbol and field."""
    fine = "0.00000000000001"
    for wrong, word in (
        (Instrument("AUSDT", lot_size="0.000000000000000001", step_size="1000"), "AUSDT: step_size 1000 is more than"),
        (Instrument("BUSDT", tick_size=fine, lot_size=fine, step_size="1", min_qty="1"), "BUSDT: a tick of"),
    ):
        try:
            instrument_table([wrong])
        except InstrumentError as error:
            assert word in str(error)
        else:
            raise AssertionError(f"{wrong.name} was taken")


def test_the_page_of_ranges_says_what_holds() -> None:
    """docs/ranges.md names the figures of trading.ranges."""
    text = (Path(__file__).resolve().parents[1] / "docs" / "ranges.md").read_text(encoding="utf-8")
    lots = (f"{MAX_UNITS:.2e} lots", f"{LEVEL_LOTS:.1e} lots")
    for figure in (f"1 to {MAX_SYMBOLS}", *lots, f"up to {MAX_MONEY:.0e}", f"{SATURATED / 1e8:.1e}"):
        assert figure.replace("e+", "e") in text, figure
