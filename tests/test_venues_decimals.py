"""Decimals to integers: exact or refused, never rounded."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.venues.decimals import (
    MAX_UNITS,
    Inexact,
    decimals_of,
    iso_ns,
    lot_for,
    millis_ns,
    plain_decimal,
    power_of_ten,
    scale,
    seconds_ns,
    units,
    whole_ns,
)

numbers = st.decimals(min_value=0, max_value=10**9, places=9, allow_nan=False, allow_infinity=False)


@given(numbers, st.integers(0, 12))
def test_units_are_exact_or_refused(value: Decimal, decimals: int) -> None:
    """units() equals Decimal arithmetic where the number fits, and refuses where it does not, whatever the notation."""
    exact = value.scaleb(decimals)
    for text in (f"{value:f}", f"{value:E}".replace("E+", "e+"), f"{value.normalize():f}"):
        if len(text.partition("E")[0]) > 40:
            continue
        if exact == exact.to_integral_value() and exact <= MAX_UNITS:
            assert units(text, decimals) == int(exact)
        else:
            with pytest.raises(Inexact):
                units(text, decimals)


@given(st.text(max_size=40))
def test_no_text_is_taken_for_a_number_that_is_none(text: str) -> None:
    """What units() accepts is a plain non-negative ASCII decimal; all else raises Inexact."""
    try:
        value = units(text, 12)
    except Inexact:
        return
    assert text.isascii() and Decimal(text) == Decimal(value).scaleb(-12)


@pytest.mark.parametrize(
    "text", ["", ".", "1.", ".5", "-1", "+1", "1_0", " 1", "1e", "1e5.0", "0x1", "NaN", "Infinity", "٣", "1" * 65]
)
def test_odd_texts_are_refused(text: str) -> None:
    """Signs, blanks, separators, other digits, lone points: none is a number here."""
    with pytest.raises(Inexact):
        units(text, 8)


@given(st.integers(1, 50_000), st.integers(0, 9), st.integers(0, 10**9))
def test_ticks_are_multiples_or_refused(tick_units: int, decimals: int, count: int) -> None:
    """A multiple of the tick gives its count, however it is written; a price between two ticks raises."""
    unit = scale(f"{Decimal(tick_units).scaleb(-decimals):f}", "0.001")
    price = Decimal(tick_units * count).scaleb(-decimals)
    assert unit.ticks(f"{price:f}") == count
    assert unit.tick_units * 10 ** -Decimal(unit.price_decimals) == Decimal(tick_units).scaleb(-decimals)
    with pytest.raises(Inexact):
        unit.ticks(f"{price + Decimal(tick_units).scaleb(-decimals - 1) / 2:f}")


def test_sizes_are_read_as_instruments_read_them() -> None:
    """Ticks of any size, lots of powers of ten; trailing zeros do not count; impossible sizes are refused."""
    assert scale("0.50", "1") == scale("0.5", "1.0")
    assert (scale("5", "0.1").price_decimals, scale("5", "0.1").tick_units) == (0, 5)
    for tick, lot in (("0", "1"), ("0.1", "0.5"), ("0.1", "10"), ("x", "1"), ("1", "")):
        with pytest.raises(Inexact):
            scale(tick, lot)
    assert [lot_for(step) for step in ("0.5", "10", "0.001", "25", "1e-3")] == ["0.1", "1", "0.001", "1", "0.001"]
    assert [power_of_ten(n) for n in (0, 1, 8)] == ["1", "0.1", "0.00000001"]
    with pytest.raises(Inexact, match="decimals"):
        power_of_ten(2**64)
    assert [plain_decimal(text) for text in ("1.30e-05", "5.0", "007", "0.00", "1.5e+2")] == ["0.000013", "5", "7", "0", "150"]
    assert [decimals_of(text) for text in ("1.50", "1e-7", "12", "2.5e1")] == [1, 7, 0, 0]


@given(st.integers(0, 7 * 10**18))
def test_stamps_are_exact(ns: int) -> None:
    """Unix seconds and UTC stamps come back to the nanosecond; what lies outside of 1970 to 2115 is refused."""
    text = f"{ns // 10**9}.{ns % 10**9:09d}"
    if ns <= 2**62:
        assert seconds_ns(text) == ns
    else:
        with pytest.raises(Inexact):
            seconds_ns(text)
    moment = datetime.fromtimestamp(ns // 10**9, UTC)
    assert iso_ns(f"{moment:%Y-%m-%dT%H:%M:%S}.{ns % 10**9:09d}Z") == ns
    assert iso_ns(f"{moment:%Y-%m-%dT%H:%M:%S}Z") == ns // 10**9 * 10**9


@pytest.mark.parametrize(
    "text", ["", "2023-02-09", "2023-13-01T00:00:00Z", "2023-01-01T24:00:00Z", "2023-01-01T00:00:00+02:00", "x" * 99]
)
def test_odd_stamps_are_refused(text: str) -> None:
    """Dates alone, impossible hours, other time zones."""
    with pytest.raises(Inexact):
        iso_ns(text)


@given(st.integers(-(2**70), 2**70))
def test_integral_stamps_are_exact_or_refused(value: int) -> None:
    """Any unit, as numbers or texts; before 1970 and after 2115 is no time."""
    for unit in (1, 10**3, 10**6, 10**9):
        for stamp in (value, str(value)):
            if 0 <= value * unit <= 2**62:
                assert whole_ns(stamp, unit) == value * unit
            else:
                with pytest.raises(Inexact):
                    whole_ns(stamp, unit)
    with pytest.raises(Inexact, match="no time"):
        millis_ns("soon")
