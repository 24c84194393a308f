"""Recordings are read for what they say: units of stamps, blanks, lines, symbols, ticks; what cannot be read is named truly."""

from __future__ import annotations

import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sim_recording import T0, bbo, content, depth, lines, written

from sim.recordings import recording_text as rt
from sim.recordings.inflating import BrokenGzipError, text_pieces
from sim.recordings.recording import RecordingError, stage
from sim.recordings.sizes import FEW
from sim.recordings.venue_staging import stage_any, stage_wire
from sim.recordings.wire_files import read_wire_file
from trading.instruments import Market
from trading.records import TS_END
from trading.stamps import UNIT_NS, stamp_of


def body(event: dict[str, Any]) -> str:
    """A frame of a stream."""
    return json.dumps({"stream": "x", "data": event}, separators=(",", ":"))


def usdm_depth(price: str = "61837.6", qty: str = "0.250") -> str:
    """A USD-M depth message of one level."""
    event = {"e": "depthUpdate", "E": 1_723_161_255_208, "s": "BTCUSDT", "U": 1, "u": 2, "pu": 0, "b": [[price, qty]], "a": []}
    return body(event)


def kernel_stamp(text: bytes) -> tuple[int, int, str] | None:
    """What `split_lines` makes of a line that begins so: (ns, problem, unit)."""
    raw = np.frombuffer(text + b" {}\n", np.uint8)
    recv, start, length = (np.zeros(4, np.int64) for _ in range(3))
    result = np.zeros(rt.RESULT_WORDS, np.int64)
    n = rt.split_lines(raw, 0, len(raw), 1, recv, start, length, result)
    unit = [unit for k, unit in enumerate(rt.UNITS) if result[rt.IN_UNIT + k]]
    return (int(recv[0]), int(result[rt.PROBLEM]), unit[0]) if n else None


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.integers(10**18, TS_END - 1), st.sampled_from(list(UNIT_NS)), st.text("0123456789", max_size=12))
def test_a_stamp_is_known_by_its_magnitude(ns: int, unit: str, fraction: str) -> None:
    """Any time from 2001 to 2116 in any of the units, whole or with a fraction, to the nanosecond; kernels read the same."""
    scale = UNIT_NS[unit]
    text = str(ns // scale) + (f".{fraction}" if fraction else "")
    exact = math.floor(Decimal(text) * scale)
    assert stamp_of(text.encode()) == (exact, unit)
    assert kernel_stamp(text.encode()) == (exact, rt.OK, unit)


@pytest.mark.parametrize("text", ["0", "999999999", "9" * 11, "9" * 14, "9" * 17, "9" * 19, "5000000000000000000"])
def test_a_number_that_is_a_time_in_no_unit_is_none(tmp_path: Path, text: str) -> None:
    """It is refused by its line, and the sentence names the units."""
    assert stamp_of(text.encode()) is None and kernel_stamp(text.encode()) is None
    with pytest.raises(RecordingError, match="a:1: the line has a receive time that is no Unix time in s, ms, us or ns"):
        stage([written(tmp_path / "a", f"{text} {bbo()}\n")], tmp_path / "s")


@pytest.mark.parametrize(("unit", "digits"), [("s", "{0}"), ("ms", "{1}"), ("us", "{2}"), ("us", "{2}.0"), ("ns", "{3}")])
def test_recordings_of_every_unit_are_the_same_recording(tmp_path: Path, unit: str, digits: str) -> None:
    """Frames at the same times, as precise as the unit; the unit is said. Of another venue's file as well."""
    stamps = [T0 // 10**9 * 10**9 + k * 10**8 for k in range(5)]
    text = "".join(digits.format(Decimal(ns).scaleb(-9), ns // 10**6, ns // 1000, ns) + f" {bbo()}\n" for ns in stamps)
    path = written(tmp_path / "a", text)
    staged = stage([path], tmp_path / "s")
    assert [row[0] for row in content(tmp_path / "s")] == stamps
    assert staged.stamps == unit and f"stamps in {unit}" in staged.said()
    assert [item.recv_ns for item in read_wire_file(path)] == stamps
    okx = json.dumps({"arg": {"channel": "trades", "instId": "BTC-USDT"}, "data": [
        {"instId": "BTC-USDT", "tradeId": "1", "px": "100.5", "sz": "1", "side": "buy", "ts": "1723161255208"}]})  # fmt: skip
    other = stage_wire([written(tmp_path / "okx", text.replace(bbo(), okx))], tmp_path / "t", Market.OKX)
    assert (other.stamps, other.first_recv_ns, other.last_recv_ns) == (unit, stamps[0], stamps[-1])


def test_units_may_change_within_a_file(tmp_path: Path) -> None:
    """Each line is read by its own magnitude, and all units are said."""
    text = f"{T0 // 10**6} {bbo()}\n{T0 + 5 * 10**6} {bbo()}\n"
    staged = stage([written(tmp_path / "a", text)], tmp_path / "s")
    assert staged.stamps == "ns (1) and ms (1)" and staged.last_recv_ns - staged.first_recv_ns == 5 * 10**6 + T0 % 10**6


PRICES = st.decimals("0.00000001", "2000000000", places=8, allow_nan=False).map(lambda d: format(d, "f"))
FRAMES = st.lists(st.tuples(PRICES, st.decimals("0", "99999", places=6).map(lambda d: format(d, "f")), st.booleans()), min_size=1)
BLANKS = st.text(" \t\n\r", max_size=3)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(FRAMES, st.data())
def test_blanks_between_words_change_nothing(tmp_path_factory: pytest.TempPathFactory, rows: Any, data: st.DataObject) -> None:
    """Frames with any blanks and line breaks: the same objects at the same times, and the tick that json and Decimal say."""
    folder = tmp_path_factory.mktemp("blanks")
    frames = [
        bbo(bid=price, qty=qty).replace("61837.64000000", price) if book else usdm_depth(price, qty).replace('"pu":0,', "")
        for price, qty, book in rows
    ]
    text = ""
    for k, frame in enumerate(frames):
        words = re.findall(r'"[^"]*"|[{}\[\]:,]|[0-9]+', frame)
        inside = "".join(data.draw(BLANKS) + word for word in words[1:])
        text += f"{T0 + k} {words[0]}{inside}{data.draw(st.sampled_from(['', ' ', chr(13)]))}\n"
    path = written(folder / "a", text)
    staged = stage([path], folder / "s")
    assert [json.loads(row[2]) for row in content(folder / "s")] == [json.loads(frame) for frame in frames]
    assert [row[0] for row in content(folder / "s")] == [T0 + k for k in range(len(frames))]
    assert [json.loads(item.body) for item in read_wire_file(path)] == [json.loads(frame) for frame in frames]
    units = [int(Decimal(price) * 10**8) for price, _, _ in rows]
    assert Decimal(staged.symbols[0].instrument().tick_size) == Decimal(math.gcd(*units)).scaleb(-8)


def test_json_of_several_lines_is_one_frame_and_a_cut_one_is_none(tmp_path: Path) -> None:
    """`json.dumps(indent=2)`, strings with brackets and quotes: a frame. One that a new line interrupts: refused by its line."""
    event = {"e": "depthUpdate", "s": "BTCUSDT", "U": 1, "u": 2, "note": '}{][" \\', "b": [["1.5", "2"]], "a": [], "z": {}}
    pretty = json.dumps({"stream": "x", "data": event}, indent=2)
    text = f"{T0} {pretty}\n\n{T0 + 1} {pretty}\r\n{T0 + 2} {bbo()}\n{T0 + 3} {pretty}"
    staged = stage([written(tmp_path / "a", text)], tmp_path / "s")
    assert staged.n_frames == 4 and json.loads(content(tmp_path / "s")[1][2])["data"] == event
    cut = f"{T0} {bbo()}\n{T0 + 1} {pretty[:60]}\n{T0 + 2} {pretty}\n"
    with pytest.raises(RecordingError, match=r"a:2: the line has no \{json\} frame"):
        stage([written(tmp_path / "a", cut)], tmp_path / "s")
    with pytest.raises(RecordingError, match="the last line ends in the middle"):
        stage([written(tmp_path / "a", f"{T0} {bbo()}\n{T0 + 1} {pretty[:60]}\n")], tmp_path / "s")


def test_frames_of_several_lines_may_lie_across_blocks(tmp_path: Path) -> None:
    """Whatever the place at which a block of text ends, the frames are the same."""
    event = {"u": 5, "s": "BTCUSDT", "b": "1.5", "B": "1", "a": "2.5", "A": "1", "n": {}}
    pretty = json.dumps({"stream": "x", "data": event}, indent=1)
    text = "".join(f"{T0 + k} {pretty}\n" if k % 3 else f"{T0 + k} {bbo()}\n" for k in range(12_000))
    staged = stage([written(tmp_path / "a", gzip.compress(text.encode(), 1))], tmp_path / "s")
    assert staged.n_frames == 12_000
    assert all(json.loads(row[2])["data"]["s"] == "BTCUSDT" for row in content(tmp_path / "s")[::97])


def test_ticks_come_from_the_book_alone(tmp_path: Path) -> None:
    """Mark prices, index, settlement, liquidations and prints that are no trades are finer than the tick and say nothing of it;
    the sentence says what it is from."""
    noise = [
        body({"e": "markPriceUpdate", "s": "BTCUSDT", "p": "61837.12345678", "i": "61837.00000001", "P": "61830.1", "r": "0.1"}),
        body({"e": "trade", "s": "BTCUSDT", "t": 1, "p": "61836.987654", "q": "0.0012345", "X": "INSURANCE_FUND", "m": True}),
        body({"e": "trade", "s": "BTCUSDT", "t": 2, "p": "61837.05", "q": "0.001", "X": "MARKET", "m": True}),
        body({"e": "24hrTicker", "s": "BTCUSDT", "p": "1.23", "b": "1.234", "B": "1", "a": "1.235", "A": "1"}),
        body({"e": "forceOrder", "o": {"s": "BTCUSDT", "p": "1.001", "q": "0.0001", "ap": "1.0001"}}),
    ]
    book = [usdm_depth(f"618{k:02}.{k % 10}") for k in range(FEW)]
    staged = stage([written(tmp_path / "a", lines(*noise, *book))], tmp_path / "s")
    instrument = staged.symbols[0].instrument()
    assert (instrument.tick_size, instrument.market) == ("0.1", Market.BINANCE_USDM)
    assert staged.symbols[0].said.startswith(f"tick 0.1 from {FEW} book prices, lot 0.001 as printed")


def test_prints_join_in_where_the_book_shows_few_prices(tmp_path: Path) -> None:
    """Two prices of a book are multiples of too much; a recording of prints alone has a tick as well, and says what from."""
    prints = [body({"e": "trade", "s": "BTCUSDT", "t": k, "p": f"100.{k:02}", "q": "1.5", "m": True}) for k in range(1, 4)]
    staged = stage([written(tmp_path / "a", lines(depth(), *prints))], tmp_path / "s")
    assert staged.symbols[0].said.startswith("tick 0.01 from 1 book prices and 3 prints, lot 0.00000001 as always")
    staged = stage([written(tmp_path / "a", lines(*prints))], tmp_path / "s")
    assert staged.symbols[0].said.startswith("tick 0.01 from 3 prints")


def info(tick: str) -> str:
    """An answer to exchangeInfo."""
    lot = {"filterType": "LOT_SIZE", "stepSize": "0.010", "minQty": "0.010", "maxQty": "100"}
    filters = [{"filterType": "PRICE_FILTER", "tickSize": tick}, lot]
    listed = {"symbol": "BTCUSDT", "status": "TRADING", "quantityPrecision": 3, "filters": filters}
    return json.dumps({"timezone": "UTC", "symbols": [{"symbol": "OTHER", "filters": []}, listed]})


def test_the_venues_rules_in_a_recording_decide(tmp_path: Path) -> None:
    """The recorder's first line, or an answer to exchangeInfo among the frames: finer than what the book shows, and no frame of
    its own. Rules that the book does not keep to are doubted aloud."""
    usdm = [usdm_depth("61837.5"), usdm_depth("61840.0")]
    head = ('{"scalper":"file","s":"BTCUSDT_241227","market":"binance_usdm","venue_name":"BTCUSDT_241227","tick":"0.1",'
            '"lot":"0.001","step":"0.002","levels":1000}')  # fmt: skip
    staged = stage([written(tmp_path / "a", lines(head, *usdm))], tmp_path / "s")
    instrument = staged.symbols[0].instrument()
    assert (instrument.name, instrument.tick_size, instrument.lot_size) == ("BTCUSDT_241227", "0.1", "0.001")
    assert staged.n_frames == 2 and staged.symbols[0].said == "tick 0.1 and lot 0.001 by the recorder's word"
    staged = stage([written(tmp_path / "a", lines(usdm[0], info("0.10"), usdm[1]))], tmp_path / "s")
    instrument = staged.symbols[0].instrument()
    assert (instrument.tick_size, instrument.lot_size, instrument.step_size) == ("0.1", "0.001", "0.01")
    assert (staged.n_frames, staged.events) == (2, 1) and "by the venue's exchangeInfo" in staged.symbols[0].said
    staged = stage([written(tmp_path / "a", lines(*usdm, info("0.3")))], tmp_path / "s")
    assert staged.symbols[0].instrument().tick_size == "2.5"
    assert "to which the tick 0.3 of the venue's exchangeInfo does not fit" in staged.symbols[0].said


@pytest.mark.parametrize("name", ["BTCUSD_PERP", "BTCUSDT_241227", "1000SHIBUSDT"])
def test_symbols_of_every_kind_are_read(tmp_path: Path, name: str) -> None:
    """Perpetuals of COIN-M, quarterly futures, multiples."""
    staged = stage_any([written(tmp_path / "a", lines(bbo(name), depth(name)))], tmp_path / "s")
    assert [symbol.name for symbol in staged.symbols] == [name]


UNTRUE = [
    ("no venue", lines('{"channel":"trades","symbol":"BTC-USD"}', '{"x":1}'),
     r"lines 1 to 2 \(stamps in ns\) hold no depthUpdate, .*; the first frame has the keys channel, symbol;"),
    ("no JSON", lines("{]}"), "the first frame is no JSON"),
    ("letters beyond ASCII", lines(bbo("币安USDT")), r"symbol '币安USDT' has '币' \(U\+5E01\) as its character 1"),
    ("too long", lines(bbo("A" * 30)), "has 30 characters; a symbol has at most 24"),
    ("no symbol", lines(bbo().replace('"s":"BTCUSDT",', "")), "frames of Binance in lines 1 to 1 name no symbol"),
    ("empty symbol", lines(bbo("")), "a:1: names an empty symbol"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "message"), UNTRUE, ids=[row[0] for row in UNTRUE])
def test_a_refusal_says_what_was_seen(tmp_path: Path, name: str, text: str, message: str) -> None:
    """The first keys, the unit of the stamps, the character: never a cause that was not seen, never lines that are not there."""
    with pytest.raises(RecordingError, match=message) as caught:
        stage([written(tmp_path / "a", text)], tmp_path / "s")
    assert "1 to 0" not in str(caught.value)


WHOLE = lines(*[bbo(bid=f"6{k}.5") for k in range(181)]).encode()
DAMAGE: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("checksum", lambda raw: raw[:-8] + bytes(8), "the gzip data does not fit its checksum; lines 1 to 181 are whole"),
    ("bytes behind it", lambda raw: raw + b"hello", "the gzip data is followed by bytes that are none; lines 1 to 181 are whole"),
    ("a second member", lambda raw: raw + gzip.compress(b"x" * 99)[:10] + b"\xff" * 40, "is damaged; lines 1 to 181"),
    ("cut in its trailer", lambda raw: raw[:-3], "the gzip data ends in the middle; lines 1 to 181 are whole"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE, ids=[row[0] for row in DAMAGE])
def test_damage_behind_whole_lines_leaves_them_whole(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes], message: str
) -> None:
    """The sentence counts the lines that inflate; with allow_truncated they are taken, by both readers, and the note says it."""
    path = written(tmp_path / "a", damage(gzip.compress(WHOLE)))
    with pytest.raises(RecordingError, match=message):
        stage([path], tmp_path / "s")
    staged = stage([path], tmp_path / "s", allow_truncated=True)
    assert staged.n_frames == 181 and message in staged.notes[0]
    cut: list[str] = []
    assert len(list(read_wire_file(path, allow_truncated=True, cut=cut))) == 181 and message in cut[0]
    with pytest.raises(RecordingError, match=message):
        list(read_wire_file(path))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 3000), st.integers(0, 255))
def test_inflating_gives_all_that_stands_before_the_damage(at: int, value: int) -> None:
    """With any byte changed, what comes is what zlib gives byte by byte, and pieces are bounded."""
    raw = bytearray(gzip.compress(WHOLE, 1))
    raw[10 + at % (len(raw) - 10)] = value
    wanted, inflate, broken = b"", zlib.decompressobj(31), False
    for k in range(len(raw)):
        try:
            wanted += inflate.decompress(raw[k : k + 1])
        except zlib.error:
            broken = True
            break
        if inflate.eof:
            break
    got = b""
    try:
        for piece in text_pieces(io.BytesIO(bytes(raw))):
            got += piece
    except BrokenGzipError:
        broken = True
    assert got == wanted or broken and got.startswith(wanted)
    assert all(len(piece) <= 1 << 20 for piece in text_pieces(io.BytesIO(gzip.compress(bytes(3 << 20)))))


def test_a_pipe_is_named_as_one(tmp_path: Path) -> None:
    """What can be read only once is no recording to replay; it is not called empty, and not opened."""
    import os

    os.mkfifo(tmp_path / "pipe")
    for call in (stage, stage_any):
        with pytest.raises(RecordingError, match="pipe: is a pipe or a device, and a recording is read more than once"):
            call([tmp_path / "pipe"], tmp_path / "s")
