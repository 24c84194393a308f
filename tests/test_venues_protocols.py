"""The protocols spoken now (Bybit v5, OKX v5, Kraken v2, Coinbase Advanced Trade, Deribit): frames after the venues'
documents."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trading.instruments import Market
from trading.venues.names import VENUES
from trading.venues.protocol import (
    RESUBSCRIBE,
    Closing,
    Decoder,
    Ignored,
    Item,
    Missed,
    Plain,
    Refused,
    Send,
    Streams,
    Subscribed,
    Unknown,
    Venue,
    VenueError,
    VenueSymbol,
)
from trading.venues.registry import make_venue
from trading.wire.binance_layout import FrameKind
from trading.wire.plain_frame import HAS_CHECKSUM, IN_BAND, read_plain_frame

MS = 1_000_000
NAMES = {
    Market.BINANCE_SPOT: ("BTCUSDT", "ETHUSDT"),
    Market.BINANCE_USDM: ("BTCUSDT", "ETHUSDT"),
    Market.BINANCE_COINM: ("BTCUSD_PERP", "ETHUSD_241227"),
    Market.BYBIT: ("linear:BTCUSDT", "spot:ETHUSDT"),
    Market.OKX: ("BTC-USDT", "BTC-USDT-SWAP"),
    Market.KRAKEN: ("BTC/USD", "MATIC/USD"),
    Market.COINBASE: ("BTC-USD", "ETH-USD"),
    Market.DERIBIT: ("BTC-PERPETUAL", "ETH-PERPETUAL"),
}


def venue(market: Market, tick: str = "0.01", lot: str = "0.00000001", **streams: Any) -> Venue:
    """The venue with two symbols."""
    symbols = [VenueSymbol(i, f"S{i}", name, tick, lot) for i, name in enumerate(NAMES[market])]
    return make_venue(market, symbols, Streams(**streams))


def shown(items: Any) -> list[Any]:
    """Items, plain frames as (kind name, symbol, ts, first, last, prev, flags, checksum, levels)."""
    out: list[Any] = []
    for item in items:
        if isinstance(item, Plain):
            head, levels = read_plain_frame(item.frame)
            _, kind, symbol, ts, first, last, prev, flags, checksum, _ = head.tolist()
            out.append((FrameKind(kind).name, symbol, ts, first, last, prev, flags, checksum, levels.tolist()))
        else:
            out.append(item)
    return out


def tell(decoder: Decoder, frame: Any, recv_ns: int = 1000) -> list[Any]:
    """What the decoder makes of a frame given as an object or as text."""
    raw = frame.encode() if isinstance(frame, str) else json.dumps(frame).encode()
    return shown(decoder.decode(raw, recv_ns))


def bid(price: int, lots: int) -> list[int]:
    """A bid level."""
    return [price * 2, lots]


def ask(price: int, lots: int) -> list[int]:
    """An ask level."""
    return [price * 2 + 1, lots]


# ---- Bybit


def bybit_book(kind: str, u: int, bids: Any, asks: Any, depth: int = 50) -> dict[str, Any]:
    """An order book frame."""
    data = {"s": "BTCUSDT", "b": bids, "a": asks, "u": u, "seq": 7961638724}
    return {"topic": f"orderbook.{depth}.BTCUSDT", "type": kind, "ts": 1672304484978, "data": data, "cts": 1672304484976}


def test_bybit_book() -> None:
    """A snapshot is whole at once, a delta follows u - 1, u == 1 is a snapshot whatever it is called."""
    decoder = venue(Market.BYBIT, "0.50", "0.001").decoder()
    ts = 1672304484976 * MS
    assert tell(decoder, bybit_book("snapshot", 18521288, [["16493.50", "0.006"]], [["16611.00", "0.029"]])) == [
        ("SNAPSHOT", 0, ts, 0, 18521288, -1, IN_BAND, 0, [bid(32987, 6), ask(33222, 29)])
    ]
    assert tell(decoder, bybit_book("delta", 18521289, [["16493.50", "0"]], [])) == [
        ("DEPTH", 0, ts, 18521289, 18521289, 18521288, 0, 0, [bid(32987, 0)])
    ]
    assert tell(decoder, bybit_book("delta", 1, [["16493.50", "1"]], []))[0][0] == "SNAPSHOT"
    found = tell(decoder, bybit_book("delta", 18521290, [["16493.51", "1"]], []))
    assert isinstance(found[0], Missed) and found[0].symbols == (0,) and isinstance(found[1], Unknown)


def test_bybit_best_prints_and_replies() -> None:
    """orderbook.1 keeps its two prices over deltas; prints of one sequence get ids of their own; replies are told apart."""
    decoder = venue(Market.BYBIT, "0.1", "0.001").decoder()
    tell(decoder, bybit_book("snapshot", 5, [["100.1", "2"]], [["100.2", "3"]], 1))
    found = tell(decoder, bybit_book("delta", 6, [["100.1", "0"], ["100.0", "1"]], [], 1))
    assert found == [("BBO", 0, 1672304484976 * MS, 0, 0, -1, 0, 0, [bid(1000, 1000), ask(1002, 3000)])]
    a_print = {
        "T": 1672304486865,
        "s": "BTCUSDT",
        "S": "Buy",
        "v": "0.001",
        "p": "16578.5",
        "L": "PlusTick",
        "i": "2-d",
        "BT": False,
        "seq": 9,
    }
    found = tell(
        decoder, {"topic": "publicTrade.BTCUSDT", "type": "snapshot", "ts": 1, "data": [a_print, {**a_print, "S": "Sell"}]}
    )
    assert [entry[0] for entry in found] == ["AGG_TRADE", "AGG_TRADE"]
    assert [entry[4] for entry in found] == [9 * 1024, 9 * 1024 + 1]
    assert [entry[8] for entry in found] == [[ask(165785, 1)], [bid(165785, 1)]]
    block = {**a_print, "BT": True, "p": "99.999", "v": "0.00001"}  # neither price nor quantity keep to tick and lot
    assert [entry[0] for entry in tell(decoder, {"topic": "publicTrade.BTCUSDT", "ts": 1, "data": [block]})] == ["ASIDE"]
    assert tell(decoder, {"success": True, "ret_msg": "subscribe", "conn_id": "x", "req_id": "2", "op": "subscribe"}) == [
        Subscribed(2)
    ]
    refusal = {"success": False, "ret_msg": "error:handler not found,topic:x", "conn_id": "x", "req_id": "3", "op": "subscribe"}
    assert tell(decoder, refusal) == [Refused("error:handler not found,topic:x", 3)]
    assert tell(decoder, {"success": True, "ret_msg": "pong", "conn_id": "x", "req_id": "", "op": "ping"}) == [Ignored("pong")]
    assert tell(decoder, {"req_id": "", "op": "pong", "args": ["1675418560633"], "conn_id": "x"}) == [Ignored("pong")]


def test_bybit_categories() -> None:
    """A connection a category; a name that two categories share is read by the connection's own decoder."""
    symbols = [VenueSymbol(0, "A", "linear:BTCUSDT"), VenueSymbol(1, "B", "BTCUSDT")]
    both = make_venue(Market.BYBIT, symbols, Streams(snapshot_levels=50))
    plans = both.connections()
    assert [plan.path for plan in plans] == ["/v5/public/spot", "/v5/public/linear"]
    assert [tell(both.decoder_for(plan), bybit_book("snapshot", 2, [], []))[0][1] for plan in plans] == [1, 0]
    with pytest.raises(VenueError, match="decoder_for"):
        both.decoder()
    assert [request.params["category"] for request in both.instruments_requests()] == ["spot", "linear"]
    with pytest.raises(VenueError, match="linear:BTCUSDT"):
        make_venue(Market.BYBIT, [VenueSymbol(0, "A", "swap:BTCUSDT")], Streams())


# ---- OKX


def test_okx_book_with_sequence() -> None:
    """prevSeqId is the chain; checksum 0 counts as none, any other is verified; a silent minute's message connects to itself."""
    decoder = venue(Market.OKX, "0.1", "0.00000001").decoder()

    def books(action: str, seq: int, prev: int, checksum: int, **sides: Any) -> dict[str, Any]:
        data = {"asks": [], "bids": [], **sides, "ts": "1597026383085", "checksum": checksum, "seqId": seq, "prevSeqId": prev}
        return {"arg": {"channel": "books", "instId": "BTC-USDT"}, "action": action, "data": [data]}

    ts = 1597026383085 * MS
    whole = books(
        "snapshot", 123456, -1, -855196043, asks=[["8476.9", "415", "0", "13"]], bids=[["8476.8", "0.00000001", "0", "1"]]
    )
    assert tell(decoder, whole) == [
        ("SNAPSHOT", 0, ts, 0, 123456, -1, IN_BAND | HAS_CHECKSUM, 2**32 - 855196043, [bid(84768, 1), ask(84769, 41500000000)])
    ]
    assert tell(decoder, books("update", 123457, 123456, 0, asks=[["8476.9", "0", "0", "0"]])) == [
        ("DEPTH", 0, ts, 123457, 123457, 123456, 0, 0, [ask(84769, 0)])
    ]
    assert tell(decoder, books("update", 123457, 123457, 0)) == [("DEPTH", 0, ts, 123457, 123457, 123457, 0, 0, [])]


def test_okx_other_channels_and_events() -> None:
    """bbo-tbt, trades, subscriptions, errors, the notice of a closing, "pong"."""
    decoder = venue(Market.OKX, "0.1", "0.01").decoder()
    best = {"asks": [["8476.9", "4", "0", "1"]], "bids": [["8476.8", "5", "0", "1"]], "ts": "1597026383085", "seqId": 9}
    assert tell(decoder, {"arg": {"channel": "bbo-tbt", "instId": "BTC-USDT"}, "data": [best]}) == [
        ("BBO", 0, 1597026383085 * MS, 9, 9, -1, 0, 0, [bid(84768, 500), ask(84769, 400)])
    ]
    a_print = {
        "instId": "BTC-USDT-SWAP",
        "tradeId": "13",
        "px": "42.5",
        "sz": "0.1",
        "side": "buy",
        "ts": "1630048897897",
        "count": "3",
    }
    assert tell(decoder, {"arg": {"channel": "trades", "instId": "BTC-USDT-SWAP"}, "data": [a_print]}) == [
        ("AGG_TRADE", 1, 1630048897897 * MS, 13, 13, -1, 0, 0, [ask(425, 10)])
    ]
    assert tell(decoder, "pong") == [Ignored("pong")]
    subscribed = {"id": "2", "event": "subscribe", "arg": {"channel": "books", "instId": "BTC-USDT"}, "connId": "a4d3ae55"}
    assert tell(decoder, subscribed) == [Subscribed(2, (0,))]
    assert tell(decoder, {"event": "error", "code": "60012", "msg": "Invalid request", "connId": "a"}) == [
        Refused("60012: Invalid request")
    ]
    notice = {
        "event": "notice",
        "code": "64008",
        "msg": "The connection will soon be closed for a service upgrade. Please reconnect.",
    }
    assert isinstance(tell(decoder, notice)[0], Closing)
    assert tell(decoder, {"event": "channel-conn-count", "channel": "x", "connCount": "1", "connId": "a"}) == [
        Ignored("channel-conn-count")
    ]


# ---- Kraken


def test_kraken_v2() -> None:
    """Numbers as sent; the snapshot tells its depth; changes are chained by arrival; prints have the venue's ids."""
    decoder = venue(Market.KRAKEN, "0.0001", "0.00000001", snapshot_levels=10).decoder()
    whole = (
        '{"channel":"book","type":"snapshot","data":[{"symbol":"MATIC/USD","bids":[{"price":0.5666,"qty":4831.75496356}],'
        '"asks":[{"price":0.5668,"qty":4410.79769741}],"checksum":2439117997}]}'
    )
    assert tell(decoder, whole, 1000) == [
        ("SNAPSHOT", 1, 0, 10, 1000, -1, IN_BAND | HAS_CHECKSUM, 2439117997, [bid(5666, 483175496356), ask(5668, 441079769741)])
    ]
    change = (
        '{"channel":"book","type":"update","data":[{"symbol":"MATIC/USD","bids":[{"price":0.5657,"qty":1098.3947558}],"asks":[],'
        '"checksum":2114181697,"timestamp":"2023-10-06T17:35:55.440295Z"}]}'
    )
    ts = 1696613755_440295000
    assert tell(decoder, change, 1000) == [
        ("DEPTH", 1, ts, 1001, 1001, 1000, HAS_CHECKSUM, 2114181697, [bid(5657, 109839475580)])
    ]
    trade = (
        '{"channel":"trade","type":"update","data":[{"symbol":"MATIC/USD","side":"sell","price":0.5117,"qty":40.0,"ord_type":"market",'
        '"trade_id":4665906,"timestamp":"2023-09-25T07:49:37.708706Z"}]}'
    )
    assert tell(decoder, trade) == [("TRADE", 1, 1695628177_708706000, 4665906, 4665906, -1, 0, 0, [bid(5117, 4000000000)])]
    ticker = (
        '{"channel":"ticker","type":"update","data":[{"symbol":"MATIC/USD","bid":0.5666,"bid_qty":1.5,"ask":0.5668,"ask_qty":2e-8,'
        '"last":0.5,"volume":2.0,"vwap":0.1,"low":0.1,"high":0.2,"change":0.1,"change_pct":0.1}]}'
    )
    assert tell(decoder, ticker) == [("BBO", 1, 0, 0, 0, -1, 0, 0, [bid(5666, 150000000), ask(5668, 2)])]
    broken = tell(decoder, change.replace("0.5657", "0.56571"))
    assert isinstance(broken[0], Missed) and isinstance(broken[1], Unknown)
    assert tell(decoder, change, 1000)[0][4:6] == (1003, 1002)  # 1002 was never a message: the next change does not connect


def test_kraken_replies() -> None:
    """Subscriptions one a symbol, errors, status, heartbeat, pong."""
    decoder = venue(Market.KRAKEN).decoder()
    good = {
        "method": "subscribe",
        "req_id": 1,
        "result": {"channel": "book", "depth": 10, "snapshot": True, "symbol": "BTC/USD"},
        "success": True,
    }
    assert tell(decoder, good) == [Subscribed(1, (0,))]
    bad = {"error": "Currency pair not supported X/Y", "method": "subscribe", "req_id": 2, "success": False, "symbol": "X/Y"}
    assert tell(decoder, bad) == [Refused("X/Y Currency pair not supported X/Y", 2)]
    assert tell(decoder, {"channel": "heartbeat"}) == [Ignored("heartbeat")]
    assert tell(decoder, {"channel": "status", "type": "update", "data": [{"system": "online", "api_version": "v2"}]}) == [
        Ignored("status")
    ]
    assert tell(decoder, {"method": "pong", "req_id": 101, "time_in": "x", "time_out": "y"}) == [Ignored("pong")]


# ---- Coinbase


def l2(number: int, kind: str, updates: list[tuple[str, str, str]]) -> dict[str, Any]:
    """A level2 frame."""
    rows = [{"side": side, "event_time": "1970-01-01T00:00:00Z", "price_level": p, "new_quantity": q} for side, p, q in updates]
    events = [{"type": kind, "product_id": "BTC-USD", "updates": rows}]
    stamp = "2023-02-09T20:32:50.714964855Z"
    return {"channel": "l2_data", "client_id": "", "timestamp": stamp, "sequence_num": number, "events": events}


def test_coinbase_sequence_is_the_connections() -> None:
    """A hole in sequence_num, on whatever channel, breaks every book of the connection once; a late number is ignored."""
    decoder = venue(Market.COINBASE).decoder()
    ts = 1675974770_714964855
    assert tell(decoder, l2(0, "snapshot", [("bid", "21921.73", "0.06317902"), ("offer", "21921.74", "0.1")])) == [
        ("SNAPSHOT", 0, ts, 0, 1000, -1, IN_BAND, 0, [bid(2192173, 6317902), ask(2192174, 10000000)])
    ]
    assert tell(decoder, l2(1, "update", [("offer", "21921.74", "0")]))[0][4:6] == (1001, 1000)
    beat = {
        "channel": "heartbeats",
        "timestamp": "x",
        "sequence_num": 2,
        "events": [{"current_time": "x", "heartbeat_counter": 3}],
    }
    assert tell(decoder, beat) == [Ignored("heartbeats")]
    found = tell(decoder, l2(5, "update", [("bid", "1.00", "1")]))
    assert isinstance(found[0], Missed) and found[0].symbols == (0, 1)
    assert found[1][5] == 1002  # an id that no message had: the feed sees the gap as well
    assert tell(decoder, l2(4, "update", [("bid", "1.00", "2")])) == [Ignored("late")]
    assert tell(decoder, l2(6, "update", [("bid", "1.00", "1")]))[0][0] == "DEPTH"


def test_coinbase_prints_prices_and_replies() -> None:
    """The print's side is the maker's; prints before the subscription are not new; tickers give both best prices."""
    decoder = venue(Market.COINBASE).decoder()
    a_print = {
        "trade_id": "12",
        "product_id": "ETH-USD",
        "price": "1260.01",
        "size": "0.3",
        "side": "BUY",
        "time": "2019-08-14T20:42:27.265Z",
    }
    frame = {"channel": "market_trades", "timestamp": "x", "sequence_num": 0, "events": [{"type": "update", "trades": [a_print]}]}
    assert tell(decoder, frame) == [("TRADE", 1, 1565815347_265000000, 12, 12, -1, 0, 0, [bid(126001, 30000000)])]
    frame = {**frame, "sequence_num": 1, "events": [{"type": "snapshot", "trades": [a_print]}]}
    assert tell(decoder, frame) == [Ignored("prints before the subscription")]
    ticker = {
        "product_id": "BTC-USD",
        "best_bid": "1.50",
        "best_bid_quantity": "2",
        "best_ask": "1.51",
        "best_ask_quantity": "3",
        "price": "1",
    }
    stamp = "2023-02-09T20:30:37.167359596Z"
    frame = {"channel": "ticker", "timestamp": stamp, "sequence_num": 2, "events": [{"type": "update", "tickers": [ticker]}]}
    assert tell(decoder, frame)[0][8] == [bid(150, 200000000), ask(151, 300000000)]
    listed = {
        "channel": "subscriptions",
        "timestamp": "x",
        "sequence_num": 3,
        "events": [{"subscriptions": {"level2": ["BTC-USD", "ETH-USD"]}}],
    }
    assert tell(decoder, listed) == [Subscribed(0, (0, 1))]
    assert tell(decoder, {"type": "error", "message": "rate limit exceeded"}) == [Refused("rate limit exceeded")]


# ---- Deribit


def test_deribit() -> None:
    """Changes name what they follow; deletes are zeros; a test request wants its answer; replies name what they confirm."""
    decoder = venue(Market.DERIBIT, "0.5", "1").decoder()

    def book(body: str) -> str:
        return '{"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.BTC-PERPETUAL.100ms","data":' + body + "}}"

    tail = '"timestamp":1554373962454,"instrument_name":"BTC-PERPETUAL"'
    whole = book('{"type":"snapshot",' + tail + ',"change_id":297217,"bids":[["new",5042.5,30.0]],"asks":[["new",5042.50e0,40]]}')
    ts = 1554373962454 * MS
    assert tell(decoder, whole) == [("SNAPSHOT", 0, ts, 0, 297217, -1, IN_BAND, 0, [bid(10085, 30), ask(10085, 40)])]
    change = book(
        '{"type":"change",' + tail + ',"prev_change_id":297217,"change_id":297218,"bids":[["delete",5042.5,0.0]],"asks":[]}'
    )
    assert tell(decoder, change) == [("DEPTH", 0, ts, 297218, 297218, 297217, 0, 0, [bid(10085, 0)])]
    quote = (
        '{"jsonrpc":"2.0","method":"subscription","params":{"channel":"quote.ETH-PERPETUAL","data":{"timestamp":1550658624149,'
        '"instrument_name":"ETH-PERPETUAL","best_bid_price":3914.5,"best_bid_amount":40.0,"best_ask_price":null,"best_ask_amount":0.0}}}'
    )
    assert tell(decoder, quote) == [("BBO", 1, 1550658624149 * MS, 0, 0, -1, 0, 0, [bid(7829, 40), ask(0, 0)])]
    trades = (
        '{"jsonrpc":"2.0","method":"subscription","params":{"channel":"trades.BTC-PERPETUAL.100ms","data":[{"trade_seq":30289442,'
        '"trade_id":"48079269","timestamp":1590484512188,"tick_direction":2,"price":8950.0,"mark_price":8948.9,'
        '"instrument_name":"BTC-PERPETUAL","index_price":8955.88,"direction":"sell","amount":10.0}]}}'
    )
    assert tell(decoder, trades) == [("TRADE", 0, 1590484512188 * MS, 30289442, 30289442, -1, 0, 0, [bid(17900, 10)])]
    (block,) = tell(decoder, trades.replace('"trade_seq"', '"block_trade_id":"6165","trade_seq"').replace("8950.0", "8950.1"))
    assert block[:5] == ("ASIDE", 0, 1590484512188 * MS, 30289442, 30289442)
    test = {"jsonrpc": "2.0", "method": "heartbeat", "params": {"type": "test_request"}}
    (answer,) = decoder.decode(json.dumps(test).encode(), 0)
    assert isinstance(answer, Send) and json.loads(answer.message)["method"] == "public/test"
    assert tell(decoder, {"jsonrpc": "2.0", "id": 9000000, "result": {"version": "1.2.26"}}) == [Ignored("reply")]
    assert tell(decoder, {"jsonrpc": "2.0", "id": 2, "result": ["book.BTC-PERPETUAL.100ms"]}) == [Subscribed(2, (0,))]
    assert tell(decoder, {"jsonrpc": "2.0", "id": 3, "error": {"code": 11050, "message": "bad_request"}}) == [
        Refused("11050: bad_request", 3)
    ]


# ---- all


@pytest.mark.parametrize("market", VENUES)
def test_plans_keep_to_the_limits(market: Market) -> None:
    """400 symbols: every symbol on a connection, no message over 60 KB, addresses that can be joined, request ids by place."""
    forms = {Market.BYBIT: "linear:C{}USDT", Market.OKX: "C{}-USDT", Market.KRAKEN: "C{}/USD", Market.COINBASE: "C{}-USD"}
    names = [forms.get(market, "C{}USDT").format(i) for i in range(400)]
    many = make_venue(market, [VenueSymbol(i, f"C{i}", name) for i, name in enumerate(names)], Streams(mark=True))
    plans = many.connections()
    assert {index for plan in plans for index in plan.symbols} == set(range(400))
    assert many.stream_url.startswith("wss://") and not many.stream_url.endswith("/") and many.rest_url.startswith("https://")
    for plan in plans:
        assert plan.path == "" or plan.path.startswith("/")
        assert len(plan.path) < 2200
        assert all(len(message) < 60_000 for message in plan.messages)
        streams = plan.path.count("@") // 1 if "streams=" in plan.path else 0
        assert streams <= 2 * many.limits.streams_per_connection
        for place, message in enumerate(plan.messages, 1):
            body = json.loads(message)
            number = body.get("id", body.get("req_id"))
            assert number is None or int(number) in (place, 9_000_001)
    snapshots = many.snapshot_request(7)
    assert (snapshots is None) != (many.resubscribe(7) == ())
    for number in (json.loads(message).get("id", json.loads(message).get("req_id")) for message in many.resubscribe(7)[1:]):
        assert number is None or int(number) == RESUBSCRIBE + 7
    assert (
        market.facts.native
        or names[7].partition(":")[2]
        or names[7].encode() in many.resubscribe(7)[1]
    )


ANSWERS = {
    Market.BINANCE_SPOT: '{"serverTime":1700000000123}',
    Market.BINANCE_USDM: '{"serverTime":1700000000123}',
    Market.BINANCE_COINM: '{"serverTime":1700000000123}',
    Market.BYBIT: '{"retCode":0,"retMsg":"OK","result":{"timeSecond":"1700000000","timeNano":"1700000000123000000"},"time":17}',
    Market.OKX: '{"code":"0","msg":"","data":[{"ts":"1700000000123"}]}',
    Market.KRAKEN: '{"error":[],"result":{"unixtime":1700000000,"rfc1123":"Tue, 14 Nov 23 22:13:20 +0000"}}',
    Market.COINBASE: '{"iso":"2023-11-14T22:13:20.123Z","epochSeconds":"1700000000","epochMillis":"1700000000123"}',
    Market.DERIBIT: '{"jsonrpc":"2.0","result":1700000000123,"usIn":1,"usOut":2,"usDiff":1,"testnet":false}',
}


@pytest.mark.parametrize("market", VENUES)
def test_clocks(market: Market) -> None:
    """The venue's clock in ns; another answer is refused in one sentence."""
    one = venue(market)
    assert one.time_request() is not None
    want = 1_700_000_000_000_000_000 if market is Market.KRAKEN else 1_700_000_000_123_000_000
    assert one.parse_time(ANSWERS[market].encode()) == want
    for odd in (b"", b"[]", b"{}", b'{"result":"x"}', b"\xff"):
        with pytest.raises(VenueError, match="check the address"):
            one.parse_time(odd)
        with pytest.raises(VenueError, match="check the address"):
            one.parse_instruments(odd)


def is_item(item: Item) -> bool:
    """Whether it is one of the items of the protocol."""
    return isinstance(item, Plain | Subscribed | Refused | Send | Missed | Closing | Ignored | Unknown)


@pytest.mark.parametrize("market", VENUES)
def test_strangers_are_unknown(market: Market) -> None:
    """Frames of other venues, of other symbols, of no sense: Unknown, never an exception."""
    decoder = venue(market).decoder()
    for raw in (
        b"",
        b"{}",
        b"[]",
        b"null",
        b"0",
        b'"x"',
        b"\x00PLAINF\x00",
        b'{"stream":"x@y","data":{}}',
        b"{" * 5000,
        b"[" * 100_000,
    ):
        found = decoder.decode(raw, 1)
        assert found and all(map(is_item, found))
        assert any(isinstance(item, Unknown) for item in found), raw[:40]


@pytest.mark.parametrize("market", VENUES)
def test_a_connection_that_lives_is_never_silent(market: Market) -> None:
    """Something is sure to come within half of the time after which a silent connection is given up, however quiet the market:
    the answer to a ping of ours, or what the venue sends by itself at fixed times."""
    by_itself = {Market.BINANCE_SPOT: 20.0, Market.COINBASE: 1.0, Market.DERIBIT: 10.0, Market.KRAKEN: 1.0}
    limits = venue(market).limits
    sure = by_itself.get(market) or limits.ping_interval_s
    assert 0 < 2 * sure <= limits.silence_timeout_s


def test_only_usdm_splits_books_from_prints() -> None:
    """`/market` carries no book, so its loss is not the books'; every other connection carries them."""
    for market in VENUES:
        plans = venue(market, mark=True).connections()
        assert [plan.book for plan in plans] == [not plan.path.startswith("/market") for plan in plans]


def test_okx_counts_its_requests() -> None:
    """What a connection subscribes leaves half of the hour's requests for resyncs, counted by arguments."""
    okx = venue(Market.OKX)
    (plan,) = okx.connections()
    assert plan.requests == 6 and okx.limits.requests_per_connection == 480
    many = [VenueSymbol(i, f"C{i}", f"C{i}-USDT") for i in range(200)]
    assert max(plan.requests for plan in make_venue(Market.OKX, many, Streams()).connections()) <= 240
