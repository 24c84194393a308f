"""Recordings of the cheapest and the dearest symbols: their ticks, their lots, and which are refused by name."""

from __future__ import annotations

import gzip
from decimal import Decimal
from pathlib import Path

import pytest
from listed_symbols import CHEAPEST_AND_DEAREST, LISTED, write_recordings

from sim.recordings.recording import infer_instrument, stage
from sim.recordings.spool import RecordingError, open_spool
from sim.recordings.venue_survey import Printed
from trading.instruments import Market, instrument_table
from trading.ranges import MAX_SYMBOLS, MAX_UNITS, RangeError


def book(folder: Path, name: str, price: str, *quantities: str) -> Path:
    """A recording of one snapshot, bids of these quantities under the price, and a print that names the symbol."""
    bids = ",".join(f'["{price}","{qty}"]' for qty in quantities)
    print_ = f'{{"e":"trade","E":1,"s":"{name}","t":1,"p":"{price}","q":"{quantities[0]}","T":1,"m":true}}'
    stamp = 1_723_000_000_000_000_000
    lines = f'{stamp} {{"lastUpdateId":1,"bids":[{bids}],"asks":[]}}\n{stamp + 1} {{"stream":"x@trade","data":{print_}}}\n'
    path = folder / f"{name}.gz"
    path.write_bytes(gzip.compress(lines.encode()))
    return path


@pytest.mark.parametrize(
    ("price", "quantities", "lot"),
    [
        ("61000.01000000", ("0.50000000", "9000.00000000"), "0.00000001"),
        ("0.00001200", ("5000000.00", "12000000000.00"), "1"),  # twelve thousand million coins in a level
        ("0.00000075", ("1000000.00000000", "100000000000000.00000000"), "1"),  # 1e14, printed with eight decimals
        ("0.00000077", ("1000000.50000000", "100000000000000.00000000"), "0.1"),
        ("1600000001.00", ("0.00010000", "12.00000000"), "0.00000001"),
        ("1600000001.00000000", ("0.00010000", "12.00000000"), "0.00000001"),
        ("1999999000.00", ("0.00010000", "12.00000000"), "0.00000001"),
        ("0.00000001", ("90000000.00000000",), "0.00000001"),
    ],
)
def test_tick_and_lot(tmp_path: Path, price: str, quantities: tuple[str, ...], lot: str) -> None:
    """A lot is 1e-8 while the largest level fits such lots, else what the quantities use, zeros at the end not counted; of one
    price the tick is the price itself."""
    found = infer_instrument(book(tmp_path, "XUSDT", price, *quantities))
    assert len(instrument_table([found])) == 1
    assert Decimal(found.tick_size) == Decimal(price) and found.lot_size == lot
    for quantity in quantities:
        lots = Decimal(quantity) / Decimal(found.lot_size)
        assert lots == int(lots) <= MAX_UNITS


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    """1e14 coins with eight decimals in use fit no lot: the recording is refused by symbol, figures and remedy."""
    path = book(tmp_path, "BTTCUSDT", "0.00000075", "1.00000001", "100000000000000.00000000")
    words = r"BTTCUSDT: quantities of up to 100000000000000 with 8 decimals.*leave this symbol out"
    with pytest.raises(RecordingError, match=words):
        infer_instrument(path)


def test_the_survey_of_other_venues_keeps_to_the_same_range() -> None:
    """Lots of another venue's rows are as fine as they need be, and refused where they do not fit; Kraken's printed ones too."""
    seen = Printed()
    seen.add("0.00000075", "100000000000000")
    assert seen.sizes(Market.BYBIT, None)[1] == "1" and seen.sizes(Market.BINANCE_SPOT, None)[1] == "1"
    dear = Printed()
    dear.add("1600000000.00", "0.5")
    dear.add("1600001000.00", "0.25")
    assert dear.sizes(Market.BYBIT, None)[:2] == ("1000", "0.01")
    seen.add("0.00000075", "0.00000001")
    for market in (Market.BYBIT, Market.KRAKEN, Market.BINANCE_SPOT):
        with pytest.raises(RangeError):
            seen.sizes(market, None)


@pytest.mark.slow
def test_sixty_four_symbols_are_staged(tmp_path: Path) -> None:
    """A spool holds 64 symbols with the ticks that the venue lists, each in a lot that fits its step; 65 are refused."""
    assert len(LISTED) == MAX_SYMBOLS
    paths = write_recordings(tmp_path, list(LISTED), seconds=4.0, events_per_s=10.0)
    staged = stage(paths, tmp_path / "spool")
    again = open_spool(tmp_path / "spool")[1]
    assert [symbol.name for symbol in again.symbols] == list(LISTED) and again.n_frames == staged.n_frames
    for symbol in again.symbols:
        rules, found = LISTED[symbol.name], symbol.instrument()
        assert Decimal(found.tick_size) % Decimal(rules.tick_size) == 0, symbol.name
        assert Decimal(rules.step_size) % Decimal(found.lot_size) == 0, symbol.name
    lots = {name: next(it.instrument().lot_size for it in again.symbols if it.name == name) for name in CHEAPEST_AND_DEAREST}
    assert lots["BTCIDR"] == lots["BTCCOP"] == "0.00000001" and lots["SHIBUSDT"] == lots["BTTCUSDT"] == "1"
    with pytest.raises(RecordingError, match="65 symbols are more than the 64"):
        stage([*paths, book(tmp_path, "ONEMORE", "1.00", "1.00")], tmp_path / "other")
