"""Whose frames a recording holds is told by all that a venue's frames must have; of what is none of the known, that is said."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from procs.cli.main import main
from procs.cli.outcome import OK, USAGE
from procs.recordings import files
from sim.recordings.venue_recording import VenueRecording, venue_of
from sim.recordings.venue_survey import venues_of
from trading.venues.names import Market

T0 = 1_723_161_253_937_085_768
MS = T0 // 10**6

FOREIGN: dict[str, list[Any]] = {
    "bitget": [
        {"event": "subscribe", "arg": {"instType": "SPOT", "channel": "books", "instId": "BTCUSDT"}},
        {"action": "snapshot", "arg": {"instType": "SPOT", "channel": "books", "instId": "BTCUSDT"}, "ts": MS,
         "data": [{"asks": [["60000.5", "8.76"]], "bids": [["60000.0", "1.0"]], "checksum": 12, "seq": 1, "ts": str(MS)}]},
        {"action": "update", "arg": {"instType": "SPOT", "channel": "trade", "instId": "BTCUSDT"}, "ts": MS,
         "data": [{"ts": str(MS), "price": "60000.5", "size": "0.1", "side": "buy", "tradeId": "1"}]},
    ],
    "bitget_v1": [
        {"action": "snapshot", "arg": {"instType": "sp", "channel": "books", "instId": "BTCUSDT"},
         "data": [{"asks": [["60000.5", "8.76"]], "bids": [["60000.0", "1.0"]], "checksum": 12, "ts": str(MS)}]},
    ],
    "gate": [
        {"time": MS // 1000, "time_ms": MS, "channel": "spot.order_book_update", "event": "update",
         "result": {"t": MS, "e": "depthUpdate", "E": MS // 1000, "s": "BTC_USDT", "U": 1, "u": 2, "b": [["1", "2"]], "a": []}},
        {"time": MS // 1000, "channel": "spot.trades", "event": "update",
         "result": {"id": 1, "side": "sell", "currency_pair": "BTC_USDT", "amount": "1", "price": "1"}},
    ],
    "mexc": [
        {"c": "spot@public.deals.v3.api@BTCUSDT", "d": {"deals": [{"S": 2, "p": "60000", "t": MS, "v": "0.1"}], "e": "deals"},
         "s": "BTCUSDT", "t": MS},
        {"channel": "push.depth", "symbol": "BTC_USDT", "ts": MS,
         "data": {"asks": [[6859.5, 3251, 1]], "bids": [], "version": 96801927}},
    ],
    "htx": [
        {"ch": "market.btcusdt.mbp.150", "ts": MS, "tick": {"seqNum": 2, "prevSeqNum": 1, "bids": [[60000.0, 1]], "asks": []}},
        {"ch": "market.btcusdt.trade.detail", "ts": MS,
         "tick": {"id": 1, "ts": MS, "data": [{"id": 1, "ts": MS, "amount": 1, "price": 60000, "direction": "buy"}]}},
        {"ping": MS},
    ],
    "kucoin": [
        {"type": "message", "topic": "/market/level2:BTC-USDT", "subject": "trade.l2update",
         "data": {"changes": {"asks": [["18906", "0.00331", "14103845"]], "bids": []}, "sequenceEnd": 2, "sequenceStart": 1,
                  "symbol": "BTC-USDT", "time": MS}},
        {"type": "message", "topic": "/market/match:BTC-USDT", "subject": "trade.l3match",
         "data": {"price": "60000", "size": "1", "side": "sell", "symbol": "BTC-USDT", "tradeId": "1", "time": str(T0)}},
    ],
    "bitfinex": [
        {"event": "subscribed", "channel": "book", "chanId": 10, "symbol": "tBTCUSD", "pair": "BTCUSD"},
        [10, [[60000, 2, 1.5], [60001, 1, -0.3]]], [10, [60000, 0, 1]], [10, "hb"], [17, "tu", [401597395, MS, 0.005, 60000]],
    ],
    "hyperliquid": [
        {"channel": "l2Book", "data": {"coin": "BTC", "time": MS, "levels": [[{"px": "1", "sz": "2", "n": 3}], []]}},
        {"channel": "trades", "data": [{"coin": "BTC", "side": "A", "px": "1", "sz": "2", "hash": "0x0", "time": MS, "tid": 1}]},
    ],
    "binance_options": [
        {"stream": "x@depth", "data": {"e": "depth", "E": MS, "T": MS, "s": "BTC-240830-60000-C", "u": 2, "pu": 1, "a": [],
                                       "b": [["1", "2"]]}},
    ],
}  # fmt: skip
"""Small captures as these venues' documents show their frames."""


def frame(event: str, **fields: Any) -> bytes:
    """A frame of Binance's."""
    return json.dumps({"stream": "x", "data": {"e": event, "E": MS, **fields}}).encode()


def capture(path: Path, frames: list[Any], host: str = "ws.example.com") -> Path:
    """A capture in cryptofeed's form."""
    lines = [f"wss://{host}/ws <-> 1633998512.5"] + [f"1633998513.{k}: {json.dumps(it)}" for k, it in enumerate(frames)]
    path.write_bytes(gzip.compress("\n".join([*lines, ""]).encode()))
    return path


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("ours", [False, True])
def test_a_venue_that_is_not_known_is_taken_for_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, ours: bool
) -> None:
    """No frame is of a known venue; `check`, `ls` and `convert` say so instead of judging it by another venue's rules."""
    frames = FOREIGN[name]
    assert [venues_of(json.dumps(it).encode()) for it in frames] == [[]] * len(frames)
    path = tmp_path / "capture.gz"
    if ours:
        path.write_bytes(gzip.compress("".join(f"{T0 + k} {json.dumps(it)}\n" for k, it in enumerate(frames) if
                                               isinstance(it, dict)).encode()))  # fmt: skip
    else:
        capture(path, frames)
    found = files.look(path)
    assert found is not None and found.venue == "?"
    for words in (("check", path), ("convert", path, "--to", "csv", "--out", tmp_path / "out")):
        assert main(["data", *map(str, words)]) == USAGE
        assert "of no venue that is known here" in capsys.readouterr().err
    assert main(["data", "check", str(path), "--venue", "bitget"]) == USAGE
    assert "no venue of that name" in capsys.readouterr().err
    assert main(["data", "check", str(path), "--venue", "okx"]) == USAGE
    assert "holds no market frame of okx" in capsys.readouterr().err


def test_binances_markets_are_told_apart() -> None:
    """Spot and USD-M by the fields that only one has, with blanks or without; inverse contracts are neither."""
    spot, usdm = Market.BINANCE_SPOT, Market.BINANCE_USDM
    levels: dict[str, Any] = {"b": [["1", "2"]], "a": []}
    sides = {"u": 1, "b": "1", "B": "1", "a": "2", "A": "1"}
    assert venues_of(frame("depthUpdate", s="BTCUSDT", U=1, u=2, **levels)) == [spot]
    assert venues_of(frame("depthUpdate", s="BTCUSDT", U=1, u=2, pu=0, **levels)) == [usdm]
    assert venues_of(json.dumps({"s": "BTCUSDT", **sides}).encode()) == [spot]
    assert venues_of(frame("bookTicker", s="BTCUSDT", **sides)) == [usdm]
    assert venues_of(frame("bookTicker", s="BTCUSDT_241227", **sides)) == [usdm]
    assert venues_of(frame("trade", s="BTCUSDT", t=1, p="1", q="1", X="MARKET")) == [usdm]
    assert usdm in venues_of(frame("aggTrade", s="BTCUSDT", a=1, p="1", q="1"))
    for name in ("BTCUSD_PERP", "BTCUSD_241227"):
        assert not {spot, usdm} & {
            *venues_of(frame("depthUpdate", s=name, ps="BTCUSD", U=1, u=2, pu=0, **levels)),
            *venues_of(frame("bookTicker", s=name, ps="BTCUSD", **sides)),
            *venues_of(frame("aggTrade", s=name, a=1, p="1", q="1")),
        }


def test_frames_tell_more_than_addresses_and_names(tmp_path: Path) -> None:
    """A proxy's address or a misleading folder does not make a venue; where no frame tells, the address does, then the name."""
    okx = {"arg": {"channel": "books", "instId": "BTC-USDT"}, "action": "snapshot",
           "data": [{"asks": [["2", "1", "0", "1"]], "bids": [["1", "1", "0", "1"]], "ts": str(MS), "checksum": 1}]}  # fmt: skip
    assert venue_of(capture(tmp_path / "KRAKEN.ws.1.0.gz", [okx], "proxy.example.com")) is Market.OKX
    assert venue_of(capture(tmp_path / "a.gz", [{"id": 1}], "fstream.binance.com")) is Market.BINANCE_USDM
    assert venue_of(capture(tmp_path / "BINANCE.ws.1.0.gz", [{"id": 1}])) is Market.BINANCE_SPOT
    for name, host in (("a.gz", "dstream.binance.com"), ("BINANCE_DELIVERY.ws.1.0.gz", "ws.example.com")):
        delivery = {"e": "bookTicker", "s": "BTCUSD_PERP", "ps": "BTCUSD", "u": 1, "b": "1", "B": "1", "a": "2", "A": "1"}
        path = capture(tmp_path / name, [{"stream": "x", "data": delivery}], host)
        assert files.look(path).venue not in ("binance_spot", "binance_usdm")  # type: ignore[union-attr]


def test_snapshots_by_rest_tell_their_digits(tmp_path: Path) -> None:
    """A snapshot among the answers prints finer numbers than the frames: the tick is the snapshot's."""
    lines = [
        'https://fapi.binance.com/fapi/v1/depth?symbol=AB&limit=5 -> 1633998512.4: '
        '{"lastUpdateId":2,"E":1,"T":1,"bids":[["1.005","2"]],"asks":[["2.5","1"]]}',
        "wss://fstream.binance.com/stream <-> 1633998512.5",
        f"1633998513.1: {frame('depthUpdate', s='AB', U=1, u=3, pu=0, b=[['1.5', '1']], a=[]).decode()}",
    ]
    path = tmp_path / "a.txt"
    path.write_text("\n".join([*lines, ""]))
    (symbol,) = VenueRecording([path]).symbols
    assert (symbol.name, symbol.tick_size) == ("AB", "0.005")


@pytest.mark.recordings
def test_check_names_the_market_itself(recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Captures of one venue are one chain, and the market stands in the verdict."""
    wire = recordings / "cryptofeed_wire"
    for stem, market in (("BINANCE", "binance_spot"), ("BINANCE_FUTURES", "binance_usdm")):
        assert main(["data", "check", *map(str, sorted(wire.glob(f"{stem}.*.gz"))), "--json"]) == OK
        (verdict,) = json.loads(capsys.readouterr().out)
        assert verdict["venue"] == market and len(verdict["files"]) == 3
