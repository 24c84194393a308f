"""The table of venues: rows agree with the classes they name, recordings rely on the numbers, names are known without numba."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from procs.profiles.schema import SymbolSettings
from sim.recordings.spool import StagedSymbol
from trading import instruments
from trading.books import checksum, sync_rules
from trading.instruments import MOST_MARKETS
from trading.venues import names
from trading.venues.names import FILE_MARKS, HOST_MARKS, VENUES, Checksum, Market
from trading.venues.registry import venue_class

ROOT = Path(__file__).resolve().parents[1]
NUMBERS = {
    "BINANCE_SPOT": 1, "BINANCE_USDM": 2, "BYBIT": 3, "OKX": 4, "KRAKEN": 5, "COINBASE": 6, "DERIBIT": 7, "CCXT": 8,
    "BINANCE_COINM": 9,
}  # fmt: skip


def test_numbers_are_those_of_recordings() -> None:
    """Spools, journals and instruments of older runs mean the same venues; a member is known by its number as by its name."""
    assert {name: Market[name].value for name in NUMBERS} == NUMBERS
    assert all(Market(number).name == name and int(Market[name]) == number for name, number in NUMBERS.items())
    assert instruments.Market is Market and all(0 < market < MOST_MARKETS for market in Market)


@pytest.mark.parametrize("market", VENUES)
def test_a_row_and_its_class_agree(market: Market) -> None:
    """The class that the row names is of this market; its name fits into profiles, folders and the heads of recordings."""
    assert venue_class(market).market is market
    assert re.fullmatch("[a-z0-9_]+", market.label) and Market.of(market.label) is market
    assert Market.of("ccxt:kucoin") is Market.CCXT


def test_names_are_known_without_a_compiler() -> None:
    """The launcher, the profile and every `--help` read the table: it loads neither numba nor numpy nor a venue's class."""
    program = "import json, sys, trading.venues.names; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = [name for name in json.loads(found.stdout) if name.split(".")[0] in ("numba", "numpy", "trading", "sim", "procs")]
    assert loaded == ["trading", "trading.venues", "trading.venues.names"]


@pytest.mark.parametrize(("text", "marks", "market"), [
    ("BINANCE_FUTURES.WS", FILE_MARKS, Market.BINANCE_USDM), ("BINANCE_USDM", FILE_MARKS, Market.BINANCE_USDM),
    ("BINANCE_DELIVERY.WS", FILE_MARKS, Market.BINANCE_COINM), ("CM_ETHUSD_PERP", FILE_MARKS, Market.BINANCE_COINM),
    ("dapi.binance.com", HOST_MARKS, Market.BINANCE_COINM), ("dstream.binance.com", HOST_MARKS, Market.BINANCE_COINM),
    ("USDM_BTCUSDT.GZ", FILE_MARKS, Market.BINANCE_USDM), ("BINANCE.HTTP", FILE_MARKS, Market.BINANCE_SPOT),
    ("SPOT_BTCUSDT.GZ", FILE_MARKS, Market.BINANCE_SPOT), ("BINANCE_SPOT", FILE_MARKS, Market.BINANCE_SPOT),
    ("OKX.WS.1", FILE_MARKS, Market.OKX), ("fapi.binance.com", HOST_MARKS, Market.BINANCE_USDM),
    ("fstream.binance.com", HOST_MARKS, Market.BINANCE_USDM), ("api.binance.com", HOST_MARKS, Market.BINANCE_SPOT),
    ("www.okex.com", HOST_MARKS, Market.OKX), ("ws-feed.exchange.coinbase.com", HOST_MARKS, Market.COINBASE),
])  # fmt: skip
def test_the_longest_mark_that_fits_tells_the_venue(text: str, marks: list[tuple[str, Market]], market: Market) -> None:
    """Names of files begin with a mark, hosts have it within; no two venues share one."""
    fits = [found for mark, found in marks if (text.startswith(mark) if marks is FILE_MARKS else mark in text)]
    assert fits[0] is market
    assert len({mark for mark, _ in marks}) == len(marks)


def test_kernels_take_their_rules_from_the_rows() -> None:
    """Which sequence rule and which checksum a venue has; a number without a row has no checksum."""
    of_usdm = [it for it in Market if sync_rules.native_rule(int(it)) == sync_rules.USDM]
    assert of_usdm == [Market.BINANCE_USDM, Market.BINANCE_COINM]
    assert sync_rules.native_rule(int(Market.BINANCE_SPOT)) == sync_rules.SPOT
    table = instruments.instrument_table([instruments.Instrument("A", it) for it in Market])
    known = {it for it, row in zip(Market, table, strict=True) if checksum.has_rule(row)}
    assert known == {it for it in Market if it.facts.checksum is not Checksum.NONE} == {Market.KRAKEN, Market.OKX}
    table[0]["market"] = MOST_MARKETS - 1
    assert not checksum.has_rule(table[0])


def test_fees_are_the_venues_where_nobody_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a symbol whose profile names none, and of a recording's; one that is named stays."""
    monkeypatch.setattr(Market.OKX, "facts", Market.OKX.facts._replace(maker_fee_bps=8.0, taker_fee_bps=11.0))
    given = SymbolSettings(name="A", taker_fee_bps=1.0).placed("okx")
    assert (given.maker_fee_bps, given.taker_fee_bps, given.market, given.venue_name) == (8.0, 1.0, "okx", "A")
    found = SymbolSettings(name="A", market="okx").instrument()
    assert (found.maker_fee_bps, found.taker_fee_bps) == (8.0, 11.0)
    recorded = StagedSymbol("A", Market.OKX, 1, 1, 1, 1, 2, 1, 3, 3).instrument()
    assert (recorded.maker_fee_bps, recorded.taker_fee_bps) == (8.0, 11.0)
    assert SymbolSettings(name="A").instrument() == instruments.Instrument("A", names.DEFAULT)
