"""The local venue with the rules of 64 listed symbols: what its exchangeInfo says, and what the client makes of it."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from listed_symbols import CHEAPEST_AND_DEAREST, LISTED

from sim.local_venue import SourceError, SymbolRules, generated, load_rules
from sim.local_venue.exchange_info import spot, usdm
from sim.local_venue.limits import Limits
from trading.instruments import Instrument, instrument_table
from trading.venues.binance import BinanceSpot
from trading.venues.protocol import Streams, VenueSymbol


def client_rules(said: dict[str, Any]) -> Any:
    """What the client reads of an exchangeInfo."""
    venue = BinanceSpot([VenueSymbol(0, "BTCUSDT", "BTCUSDT", "0.01", "0.00000001")], Streams())
    return venue.parse_instruments(json.dumps(said).encode())


def test_the_rules_are_served_as_they_are_listed() -> None:
    """exchangeInfo shows each tick, step, greatest quantity and least value; the client's lots hold 1e14 cheap coins."""
    source = generated(tuple(LISTED), ("spot",), rules=LISTED)
    found = client_rules(spot(source.symbols, 0, Limits()))
    assert list(found) == list(LISTED)
    for name, rules in LISTED.items():
        mine = found[name]
        assert Decimal(mine.tick_size) == Decimal(rules.tick_size) and Decimal(mine.step_size) == Decimal(rules.step_size)
        assert Decimal(mine.max_qty) == Decimal(rules.max_qty) and Decimal(mine.min_notional) == Decimal(rules.min_notional)
        fields = ("tick_size", "lot_size", "step_size", "min_qty", "max_qty", "min_notional")
        sizes = {field: getattr(mine, field) for field in fields}
        assert len(instrument_table([Instrument(name, **sizes)])) == 1
    assert found["BTCUSDT"].lot_size == found["BTCIDR"].lot_size == found["DOGEUSDT"].lot_size == "0.00000001"
    assert {found[name].lot_size for name in ("SHIBUSDT", "PEPEUSDT", "FLOKIUSDT", "BTTCUSDT")} <= {"0.01", "0.001"}


def test_usdm_shows_the_same_rules() -> None:
    """The other market's exchangeInfo has the ticks and the precision of the rules."""
    source = generated(CHEAPEST_AND_DEAREST, ("usdm",), rules=LISTED)
    rows = {row["symbol"]: row for row in usdm(source.symbols, 0, Limits())["symbols"]}
    assert rows["SHIBUSDT"]["pricePrecision"] == 8 and rows["BTCIDR"]["pricePrecision"] == 0


def test_prices_start_where_the_rules_say() -> None:
    """The first book of every symbol lies around its price, in multiples of its tick and step."""
    names = tuple(name for name in CHEAPEST_AND_DEAREST if name != "BTCCOP")  # COIN-M has one perpetual of a coin
    source = generated(names, ("spot", "usdm", "coinm"), rules=LISTED, duration_s=0.5, events_per_s=5.0)
    seen = set()
    for _, index, event in source.frames():
        if "lastUpdateId" not in event:
            continue
        if index >= len(names):
            continue  # another market has prices of its own: COIN-M's symbols are none of these rules'
        name = names[index]
        rules = LISTED[name]
        seen.add(name)
        for price, qty in (*event["bids"], *event["asks"]):
            assert Decimal(price) % Decimal(rules.tick_size) == 0 and Decimal(qty) % Decimal(rules.step_size) == 0
        assert abs(float(event["bids"][0][0]) / rules.price - 1) < 0.02
    assert seen == set(names)


def test_ten_symbols_without_rules_are_served() -> None:
    """Symbols of no rules start at a twentieth of the one before, and from above again: any number has a market."""
    names = [f"S{n}USDT" for n in range(10)]
    source = generated(names, ("spot", "usdm"), duration_s=0.05)
    with pytest.raises(SourceError, match="65 symbols; the embedded market has at most 64"):
        generated([f"S{n}USDT" for n in range(65)], ("spot",))
    firsts = {index for _, index, event in source.frames() if "lastUpdateId" in event}
    assert firsts == set(range(20))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"AUSDT": {"tick_size": "0.01"}}', "step_size"),
        ('{"AUSDT": ', "write {"),
        ('{"AUSDT": {"tick_size": "0.01", "step_size": "1", "price": 1, "colour": "red"}}', "colour"),
    ],
)
def test_a_file_of_rules_that_is_none(tmp_path: Path, text: str, words: str) -> None:
    """A file that says no rules is refused with the file's name and what to write."""
    file = tmp_path / "rules.json"
    file.write_text(text)
    with pytest.raises(SourceError, match=f"rules.json: .*{words}"):
        load_rules(file)


def test_rules_from_a_file(tmp_path: Path) -> None:
    """A file of rules is what it says; sizes that no venue prints are refused with the symbol's name."""
    file = tmp_path / "rules.json"
    file.write_text('{"SHIBUSDT": {"tick_size": "0.00000001", "step_size": "1.00", "price": 0.0000123}}')
    assert load_rules(file)["SHIBUSDT"].step_size == "1.00"
    with pytest.raises(SourceError, match="no file|No such file"):
        load_rules(tmp_path / "none.json")
    for tick, step, price in (("0", "1", 1.0), ("a", "1", 1.0), ("0.01", "0.000000001", 1.0), ("1", "1", 0.5)):
        with pytest.raises(SourceError, match="AUSDT: "):
            generated(("AUSDT",), ("spot",), rules={"AUSDT": SymbolRules(tick, step, price)})
