"""What files from elsewhere say in words and units is read by closed vocabularies, told where it is not as usual, or refused by
its place; and what was made a recording is proved before it is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_command import Run

from procs.cli.outcome import OK, USAGE
from procs.recordings import convert as converting
from procs.recordings import files, hftbacktest
from procs.recordings.convert import Reader, Wish
from procs.recordings.hftbacktest import (
    BUY_EVENT,
    DEPTH_EVENT,
    EVENT,
    EXCH_EVENT,
    LOCAL_EVENT,
    SELL_EVENT,
    TRADE_EVENT,
)
from procs.recordings.output import RecordingsError
from procs.recordings.reading import Choice, records_of
from procs.recordings.wire_text import ASK, BID, FrameWriter
from procs.recordings.words import Stamps, aggressor, book_side, plain_name, truth

T0 = 1_640_995_200_100_000_000
UNITS = {"seconds": 10**9, "milliseconds": 10**6, "microseconds": 10**3, "nanoseconds": 1}
BOOK = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount"
TRADES = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount"

def table(path: Path, header: str, rows: list[str], encoding: str = "utf-8") -> Path:
    """A CSV file of these rows."""
    path.write_bytes("\n".join([header, *rows, ""]).encode(encoding))
    return path


def book_rows(stamp: Callable[[int], str], sides: tuple[str, str] = ("bid", "ask")) -> list[str]:
    """A snapshot and two changes; `stamp` writes a time in ns."""
    key = "binance,BTCUSDT"
    bid, ask = sides
    return [
        f"{key},{stamp(T0)},{stamp(T0)},true,{bid},99.5,1.5", f"{key},{stamp(T0)},{stamp(T0)},true,{ask},100.5,2",
        f"{key},{stamp(T0 + 10**9)},{stamp(T0 + 10**9)},false,{ask},100.25,3",
        f"{key},{stamp(T0 + 2 * 10**9)},{stamp(T0 + 2 * 10**9)},false,{bid},99.75,0.5",
    ]  # fmt: skip


def converted(run: Run, source: Path, *words: Any) -> tuple[dict[str, Any], list[dict[str, Any]], str]:
    """What `data convert` says, the records of what it made, and its notes."""
    out = source.with_suffix(".out.gz")
    code, said, err = run("data", "convert", source, "--to", "recording", "--out", out, "--json", *words)
    assert code == OK, err
    return json.loads(said), list(records_of(out, Choice())), err


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("text", ["{}", "{}.0"])
def test_the_unit_of_times_is_known_by_their_size(tmp_path: Path, run: Run, unit: str, text: str) -> None:
    """Seconds to nanoseconds, whole or as floats of whole numbers: the same recording, to the nanosecond; a unit that is not the
    format's own is told for each column."""
    ns = UNITS[unit]
    start = T0 // 10**9 * 10**9
    source = table(tmp_path / "a.csv", BOOK, book_rows(lambda at: text.format((at - T0 + start) // ns)))
    made, records, err = converted(run, source)
    times = [record["time"] for record in records]
    assert times[0] == "2022-01-01T00:00:00.000000000Z" and times[-1] == "2022-01-01T00:00:02.000000000Z"
    usual = unit == "microseconds"
    assert made["notes"] == ([] if usual else [f"{source}: {name} is in {unit}" for name in ("local_timestamp", "timestamp")])
    assert ("is in" in err) is not usual


def test_stamps_are_exact_or_refused_by_their_place(tmp_path: Path) -> None:
    """The first stamp fixes the unit; another unit later, words, parts of a nanosecond and years far off are refused with file
    and line; a hole is no time."""
    stamps = Stamps(tmp_path / "a.csv", "timestamp")
    assert stamps.ns("", 2) == stamps.ns("0", 2) == 0
    assert stamps.ns("1640995200.100000001", 3) == 1_640_995_200_100_000_001 and stamps.unit == "seconds"
    assert stamps.ns("1.6409952e9", 4) == 1_640_995_200_000_000_000
    for text, named in (("1640995200100", "of seconds, as the lines before"), ("2022-01-01T00:00:00Z", "is no number"),
                        ("1640995200.1000000001", "finer than a nanosecond"), ("inf", "is no number"), ("-5", "no time"),
                        ("9" * 40, "no time")):  # fmt: skip
        with pytest.raises(RecordingsError, match=rf"a\.csv:7: timestamp .*{named}"):
            stamps.ns(text, 7)
    with pytest.raises(RecordingsError, match="no time from 2001 to 2116"):
        Stamps(tmp_path / "a.csv", "timestamp").ns("12345", 2)


@pytest.mark.parametrize("column", ["local_ts", "exch_ts"])
@pytest.mark.parametrize("unit", UNITS)
def test_units_of_an_npz(tmp_path: Path, column: str, unit: str) -> None:
    """Each column by its own size; what fits no unit, or another one than its first, is refused by its row."""
    events = np.zeros(3, EVENT)
    events["ev"] = DEPTH_EVENT | BUY_EVENT | LOCAL_EVENT
    events["local_ts"] = events["exch_ts"] = T0 // 10**9 * 10**9 + np.arange(3) * 10**9
    wanted = events.copy()
    events[column] //= UNITS[unit]
    found, notes = hftbacktest.usable(tmp_path / "a.npz", events)
    assert (found == wanted).all()
    assert notes == ([] if unit == "nanoseconds" else [f"{tmp_path / 'a.npz'}: {column} is in {unit}"])
    events[column][1] = 5
    with pytest.raises(RecordingsError, match=rf"{column} \d+ of received row 1 is no time"):
        hftbacktest.usable(tmp_path / "a.npz", events)


def test_sides_are_words_of_a_closed_list() -> None:
    """Letters, plurals and both cases; unknown is nobody's side; all else is refused by its place."""
    assert {book_side(word, "f:1") for word in ("bid", "Bids", "B", "b", "BUY")} == {BID}
    assert {book_side(word, "f:1") for word in ("ask", "ASKS", "A", "a", "Sell", "s")} == {ASK}
    assert [aggressor(word, "f:1") for word in ("Buy", "b", "SELL", "s", "unknown", "", "None")] == [
        False, False, True, True, None, None, None]  # fmt: skip
    assert [truth(word, "f:1") for word in ("True", "1", "f", "FALSE")] == [True, True, False, False]
    for reader, word in ((book_side, "unknown"), (book_side, ""), (aggressor, "bid"), (aggressor, "taker"), (truth, "yes")):
        with pytest.raises(RecordingsError, match="^f:1: "):
            reader(word, "f:1")


def test_letters_are_named_and_never_dropped() -> None:
    """Separators join; a letter that only looks like an ASCII one is named by its number."""
    assert plain_name("btc-usd") == plain_name("BTC/USD") == "BTCUSD"
    for text, named in (("ВTC-USD", r"U\+0412"), ("BTCUSD™", r"U\+2122"), ("B*C", r"'\*' as its character 2"),
                        ("", "is empty"), ("A" * 25, "25 characters")):  # fmt: skip
        with pytest.raises(RecordingsError, match=named):
            plain_name(text)


@pytest.mark.parametrize("sides", [("B", "A"), ("b", "a"), ("Bids", "ASKS")])
def test_book_sides_of_a_table(tmp_path: Path, run: Run, sides: tuple[str, str]) -> None:
    """However the two sides are called, bids are bids and asks asks."""
    _, records, _ = converted(run, table(tmp_path / "a.csv", BOOK, book_rows(lambda at: str(at // 1000), sides)))
    assert (records[-1]["bids"], records[-1]["asks"]) == (
        [["99.75", "0.5"], ["99.50", "1.5"]], [["100.25", "3"], ["100.50", "2"]])  # fmt: skip


def test_trades_of_unknown_side_are_left_out_and_told(tmp_path: Path, run: Run) -> None:
    """They become nobody's; a file of nothing else holds no event, and says why."""
    us = T0 // 1000
    rows = [f"binance,BTCUSDT,{us + k},{us + k},{k},{side},100,1" for k, side in enumerate(("buy", "unknown", "Sell", ""), 1)]
    made, records, err = converted(run, table(tmp_path / "a.csv", TRADES, rows))
    assert [record["side"] for record in records] == ["buy", "sell"]
    assert made["notes"][0].endswith("2 trades of unknown side were left out") and "2 trades of unknown side" in err
    source = table(tmp_path / "b.csv", TRADES, rows[1:2])
    code, _, err = run("data", "convert", source, "--to", "recording", "--out", tmp_path / "b.gz")
    assert code == USAGE and "holds no event" in err and "1 trades of unknown side" in err


def test_an_npz_without_sides_or_rows(tmp_path: Path, run: Run) -> None:
    """Trades without BUY or SELL are left out and told, kinds that no recording holds too; a level without a side, an empty
    array, and one without a row that was received are refused in a sentence; nothing is left."""
    events = np.zeros(4, EVENT)
    events["ev"] = LOCAL_EVENT | EXCH_EVENT
    events["ev"] |= np.array([TRADE_EVENT, TRADE_EVENT | BUY_EVENT, TRADE_EVENT | SELL_EVENT, 10 | BUY_EVENT], np.uint64)
    events["local_ts"] = events["exch_ts"] = T0 + np.arange(4)
    events["px"], events["qty"] = 100.0, 1.0
    hftbacktest.save(events, tmp_path / "a.npz")
    made, records, _ = converted(run, tmp_path / "a.npz", "--symbol", "BTCUSDT")
    assert [record["side"] for record in records] == ["buy", "sell"]
    assert [note.partition(": ")[2] for note in made["notes"]] == [
        "1 trades with neither BUY nor SELL were left out", "1 events of kind 10, which no recording holds, were left out",
    ]  # fmt: skip
    level = events[:1].copy()
    level["ev"] = DEPTH_EVENT | LOCAL_EVENT
    unseen = events.copy()
    unseen["ev"] &= ~np.uint64(LOCAL_EVENT)
    words = ("--to", "recording", "--symbol", "X", "--out", tmp_path / "b.gz")
    for odd, named in ((level, "received row 0 is a level"), (events[:0], "holds no event"), (unseen, "holds no event")):
        hftbacktest.save(odd, tmp_path / "b.npz")
        code, _, err = run("data", "convert", tmp_path / "b.npz", *words)
        assert code == USAGE and named in err and "b.npz" in err and not (tmp_path / "b.gz").exists()


def test_tables_as_spreadsheets_write_them(tmp_path: Path, run: Run) -> None:
    """A byte order mark, blank lines, capital letters in the header: read as what they are."""
    rows = book_rows(lambda at: str(at // 1000))
    source = table(tmp_path / "a.csv", BOOK.title(), [*rows[:2], "", *rows[2:]], "utf-8-sig")
    assert len(converted(run, source)[1]) > 2


def test_times_that_go_backwards_are_told(tmp_path: Path, run: Run) -> None:
    """They are raised to the one before, and counted."""
    rows = book_rows(lambda at: str(at // 1000))
    made, records, err = converted(run, table(tmp_path / "a.csv", BOOK, [*rows[:2], rows[3], rows[2]]))
    assert "1 local times went backwards" in made["notes"][0] and "backwards" in err
    assert records[-1]["time"] == records[-2]["time"]


def test_what_is_not_sound_is_not_kept(tmp_path: Path, run: Run) -> None:
    """A source whose book is crossed makes a recording that fails its own check: it is refused with the time of the place, and
    what was there before stays."""
    rows = [*book_rows(lambda at: str(at // 1000)), f"binance,BTCUSDT,{T0 // 1000},{T0 // 1000 + 3 * 10**6},false,bid,101,1"]
    source, out = table(tmp_path / "a.csv", BOOK, rows), tmp_path / "out.gz"
    out.write_bytes(b"mine")
    code, _, err = run("data", "convert", source, "--to", "recording", "--out", out, "--force")
    assert code == USAGE and "is not sound" in err and "1 crossed books" in err and "2022-01-01T00:00:03.1" in err
    assert out.read_bytes() == b"mine" and sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "out.gz"]


def test_every_reader_is_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a row of the table writes is read back before it gets its name: frames of no recording are not kept."""

    def write(paths: Any, wish: Wish, out: Callable[[bytes], Any], tell: Any) -> FrameWriter:
        writer = FrameWriter(out, "X", False, 2, 2)
        writer.frames = 1
        out(b"12 {}\n")
        return writer

    monkeypatch.setattr(converting, "READERS", (Reader("odd", "odd files", lambda path, _: path.suffix == ".odd", write),))
    (tmp_path / "a.odd").write_text("x")
    with pytest.raises(RecordingsError, match="cannot be read back"):
        converting.convert([tmp_path / "a.odd"], Wish("recording", tmp_path / "out.gz"), lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["a.odd"]
    with pytest.raises(RecordingsError, match="is no receive time"):
        FrameWriter(lambda _: None, "X", False, 2, 2).trade(12, 12, 1, 1, False)


@pytest.mark.parametrize(("name", "raw", "seen"), [
    ("a.json", b'[[1570752011620,"100"]]', "begins '[[1570752011620"), ("a.zip", b"PK\x03\x04rest", ""),
    ("a.feather", b"ARROW1\0\0", "is no feather file"), ("a.parquet", b"PAR1....", "is no parquet file"), ("a.gz", b"", "is of"),
    ("a.txt", b"hello", "begins 'hello'"),
])  # fmt: skip
def test_what_no_reader_knows_is_named_by_what_was_seen(tmp_path: Path, run: Run, name: str, raw: bytes, seen: str) -> None:
    """The sentence says what the file is and what is known; in a folder it is passed over."""
    (tmp_path / name).write_bytes(raw)
    words = ("--to", "recording", "--out", tmp_path / "o.gz")
    code, _, err = run("data", "convert", tmp_path / name, *words)
    assert code == USAGE and f"{tmp_path / name}: " in err and seen in err and "Traceback" not in err
    assert "is no" in err or "known are recordings, wire captures" in err
    assert files.gathered([tmp_path], lambda _: None) == []
