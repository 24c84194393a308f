"""Instrument lists: the recorded ones, whole, and today's forms."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from sim.recordings.wire_files import WireKind, read_wire_file
from trading.instruments import Instrument, Market, instrument_table
from trading.venues.binance_listing import rest_weight_limit
from trading.venues.protocol import InstrumentRules, Streams, VenueError
from trading.venues.registry import make_venue

WANTED = {
    "BINANCE": (Market.BINANCE_SPOT, 1695, "NKNUSDT", "0.0001", "0.00000001", "1"),
    "BINANCE_DELIVERY": (Market.BINANCE_COINM, 36, "BTCUSD_PERP", "0.1", "1", "1"),
    "BINANCE_FUTURES": (Market.BINANCE_USDM, 122, "BTCUSDT", "0.01", "0.001", "0.001"),
    "BYBIT": (Market.BYBIT, 15, "BTCUSD", "0.5", "1", "1"),
    "COINBASE": (Market.COINBASE, 162, "SKL-USD", "0.0001", "0.1", "0.1"),
    "DERIBIT": (Market.DERIBIT, 1017, "BTC-24SEP21-8000-P", "0.0005", "0.1", "0.1"),
    "KRAKEN": (Market.KRAKEN, 358, "XBT/CHF", "0.1", "0.00000001", "0.00000001"),
    "OKX": (Market.OKX, 1479, "BTC-USDT", "0.1", "0.00000001", "0.00000001"),
}


@pytest.mark.recordings
@pytest.mark.parametrize("name", WANTED)
def test_recorded_lists(recordings: Path, name: str) -> None:
    """Every recorded list parses; each rule makes an instrument, its step a multiple of its lot."""
    market, count, symbol, tick, lot, step = WANTED[name]
    reader = make_venue(market, (), Streams())
    found: dict[str, InstrumentRules] = {}
    folder = "binance_coinm" if market is Market.BINANCE_COINM else "cryptofeed_wire"
    for item in read_wire_file(recordings / folder / f"{name}.0.gz"):
        assert item.kind is WireKind.ANSWER
        found.update(reader.parse_instruments(item.body))
    assert len(found) == count
    assert (found[symbol].tick_size, found[symbol].lot_size, found[symbol].step_size) == (tick, lot, step)
    for rule in found.values():
        assert Decimal(rule.step_size) % Decimal(rule.lot_size) == 0
        sizes = {"tick_size": rule.tick_size, "lot_size": rule.lot_size, "step_size": rule.step_size}
        instrument_table([Instrument("X", market, **sizes, min_qty=rule.step_size, max_qty="9000")] if rule.trading else [])


def test_contracts_are_read() -> None:
    """What a contract is stands in the list: COIN-M's size and state, OKX's ctVal, Bybit's inverse category, Deribit's reversed
    futures; where the list says nothing it stays empty."""
    filters = '[{"filterType":"PRICE_FILTER","tickSize":"0.1"},{"filterType":"LOT_SIZE","stepSize":"1","minQty":"1"}]'
    row = '{"symbol":"%s","contractStatus":"%s","contractSize":%s,"quantityPrecision":0,"filters":' + filters + "}"
    rows = ",".join(row % it for it in (("BTCUSD_PERP", "TRADING", 100), ("ETHUSD_241227", "PENDING_TRADING", 10)))
    coinm = only(Market.BINANCE_COINM, f'{{"symbols":[{rows}]}}')
    got = [(it.contract, it.contract_size, it.lot_size, it.min_notional, it.trading) for it in coinm.values()]
    assert got == [("", "100", "1", "0", True), ("", "10", "1", "0", False)]
    okx = ",".join(
        f'{{"instId":"{name}","tickSz":"0.1","lotSz":"0.01","minSz":"0.01","state":"live","ctType":"{kind}","ctVal":"{size}"}}'
        for name, kind, size in (("BTC-USDT-SWAP", "linear", "0.01"), ("BTC-USD-SWAP", "inverse", "100"), ("BTC-USDT", "", ""))
    )
    found = only(Market.OKX, f'{{"data":[{okx}]}}')
    assert [(it.contract, it.contract_size) for it in found.values()] == [("linear", "0.01"), ("inverse", "100"), ("", "")]
    bybit = '{"symbol":"BTCUSD","priceFilter":{"tickSize":"0.5"},"lotSizeFilter":{"qtyStep":"1","minOrderQty":"1"}}'
    for category, contract in (("inverse", "inverse"), ("linear", "")):
        answer = f'{{"result":{{"category":"{category}","list":[{bybit}]}}}}'
        assert only(Market.BYBIT, answer)[f"{category}:BTCUSD"].contract == contract
    deribit = ",".join(
        f'{{"instrument_name":"{name}","tick_size":0.5,"min_trade_amount":10,"kind":"{kind}","instrument_type":"{type_}"}}'
        for name, kind, type_ in (("BTC-PERPETUAL", "future", "reversed"), ("BTC_USDC-PERPETUAL", "future", "linear"))
    )
    assert [it.contract for it in only(Market.DERIBIT, f'{{"result":[{deribit}]}}').values()] == ["inverse", ""]


@pytest.mark.recordings
def test_weight_limits_are_read(recordings: Path) -> None:
    """rest_weight_limit reads what exchangeInfo grants; a list without one is refused."""
    for name, limit in (("BINANCE", 1200), ("BINANCE_FUTURES", 2400)):
        item = next(iter(read_wire_file(recordings / "cryptofeed_wire" / f"{name}.0.gz")))
        assert rest_weight_limit(item.body) == limit
    assert (
        rest_weight_limit(b'{"rateLimits":[{"rateLimitType":"REQUEST_WEIGHT","interval":"SECOND","intervalNum":10,"limit":50}]}')
        == 300
    )
    with pytest.raises(VenueError, match="REQUEST_WEIGHT"):
        rest_weight_limit(b'{"rateLimits":[]}')


def only(market: Market, raw: str) -> dict[str, InstrumentRules]:
    """The rules of a list."""
    return dict(make_venue(market, (), Streams()).parse_instruments(raw.encode()))


def test_todays_forms() -> None:
    """Bybit v5, Coinbase Advanced Trade, Kraken's newer names, Binance's NOTIONAL filter, Deribit's scientific ticks."""
    bybit = only(
        Market.BYBIT,
        '{"retCode":0,"result":{"category":"linear","list":[{"symbol":"BTCUSDT","status":"Trading","priceFilter":{"minPrice":"0.10",'
        '"tickSize":"0.10"},"lotSizeFilter":{"maxOrderQty":"1190.000","minOrderQty":"0.001","qtyStep":"0.001","minNotionalValue":"5"}}]}}',
    )
    assert bybit == {"linear:BTCUSDT": InstrumentRules("BTCUSDT", "0.1", "0.001", "0.001", "0.001", "1190", "5")}
    spot = only(
        Market.BYBIT,
        '{"result":{"category":"spot","list":[{"symbol":"BTCUSDT","status":"PreLaunch","priceFilter":{"tickSize":"0.01"},'
        '"lotSizeFilter":{"basePrecision":"0.000001","minOrderQty":"0.000048","maxOrderQty":"71.73956243","minOrderAmt":"1"}}]}}',
    )
    assert (
        spot["BTCUSDT"]
        == spot["spot:BTCUSDT"]
        == InstrumentRules("BTCUSDT", "0.01", "0.000001", "0.000001", "0.000048", "71.73956243", "1", False)
    )
    coinbase = only(
        Market.COINBASE,
        '{"products":[{"product_id":"BTC-USD","price_increment":"0.01","base_increment":"0.00000001","base_min_size":"0.00000001",'
        '"base_max_size":"3400","quote_min_size":"1","status":"online","trading_disabled":false,"is_disabled":false}],"num_products":1}',
    )
    assert coinbase["BTC-USD"] == InstrumentRules("BTC-USD", "0.01", "0.00000001", "0.00000001", "0.00000001", "3400", "1")
    kraken = only(
        Market.KRAKEN,
        '{"error":[],"result":{"XXBTZUSD":{"wsname":"XBT/USD","pair_decimals":1,"lot_decimals":8,"ordermin":"0.0001","costmin":"0.5",'
        '"tick_size":"0.1","status":"online"},"T":{"wsname":"T/USD","pair_decimals":2,"lot_decimals":5,"tick_size":"0.10","ordermin":"1"}}}',
    )
    assert kraken["BTC/USD"].tick_size == kraken["XBT/USD"].tick_size == "0.1"
    assert kraken["T/USD"].tick_size == "0.01", "the checksum is over the printed digits, finer than the tick"
    spot = only(
        Market.BINANCE_SPOT,
        '{"symbols":[{"symbol":"BTCUSDT","status":"BREAK","filters":[{"filterType":"PRICE_FILTER","tickSize":"0.01000000"},'
        '{"filterType":"LOT_SIZE","stepSize":"0.00001000","minQty":"0.00001000","maxQty":"9000.00000000"},'
        '{"filterType":"NOTIONAL","minNotional":"5.00000000"}]},{"symbol":"ODD","filters":[]}]}',
    )
    assert spot == {"BTCUSDT": InstrumentRules("BTCUSDT", "0.01", "0.00000001", "0.00001", "0.00001", "9000", "5", False)}
    deribit = only(Market.DERIBIT, '{"result":[{"instrument_name":"X_USDC-PERPETUAL","tick_size":1e-6,"min_trade_amount":10.0}]}')
    assert deribit["X_USDC-PERPETUAL"] == InstrumentRules("X_USDC-PERPETUAL", "0.000001", "1", "10", "10", "9000000000", "0")
    okx = only(
        Market.OKX,
        '{"code":"0","data":[{"instId":"BTC-USDT-SWAP","instType":"SWAP","tickSz":"0.1","lotSz":"0.01","minSz":"0.01",'
        '"maxLmtSz":"100000000","state":"live"}]}',
    )
    assert okx["BTC-USDT-SWAP"] == InstrumentRules("BTC-USDT-SWAP", "0.1", "0.01", "0.01", "0.01", "100000000", "0")


def test_a_step_of_nothing_is_no_instrument() -> None:
    """An instrument whose step or tick is 0 is left out, as one that cannot be read; the others stay."""
    listed = (
        '{"code":"0","data":[{"instId":"A-USDT","tickSz":"0.1","lotSz":"0","minSz":"1","state":"live"},'
        '{"instId":"B-USDT","tickSz":"0.0","lotSz":"1","minSz":"1","state":"live"},'
        '{"instId":"C-USDT","tickSz":"0.1","lotSz":"1","minSz":"1","state":"live"}]}'
    )
    assert list(only(Market.OKX, listed)) == ["C-USDT"]


def test_decimals_beyond_reason_are_no_instrument() -> None:
    """An instrument of a thousand decimals is left out as one that cannot be read; the others stay."""
    pair = '"{name}":{{"wsname":"{name}/USD","pair_decimals":{price},"lot_decimals":{lot},"ordermin":"1","status":"online"}}'
    listed = [("A", 1001, 8), ("B", 2, 1001), ("C", 2, 8)]
    text = ",".join(pair.format(name=name, price=price, lot=lot) for name, price, lot in listed)
    assert list(only(Market.KRAKEN, f'{{"error":[],"result":{{{text}}}}}')) == ["C/USD"]
    symbol = (
        '{{"symbol":"{name}","status":"TRADING","quantityPrecision":{precision},"filters":['
        '{{"filterType":"PRICE_FILTER","tickSize":"0.10"}},{{"filterType":"LOT_SIZE","stepSize":"0.001","minQty":"0.001","maxQty":"9"}}]}}'
    )
    text = ",".join(symbol.format(name=name, precision=precision) for name, precision in (("A", 1001), ("B", 3)))
    assert list(only(Market.BINANCE_USDM, f'{{"symbols":[{text}]}}')) == ["B"]
