"""`data convert` reads what others wrote: the books, prints and candles that come out are the made-up market's that went in."""

from __future__ import annotations

import gzip
import json
import tarfile
import zipfile
from pathlib import Path

import archive_files as af
import numpy as np
import pytest
from archive_files import MS, SYMBOL, put
from archive_readings import (
    BARS,
    LOT,
    PRINTS,
    TICK,
    assert_candles,
    books,
    converted,
    folded,
    prints,
    run,
    t_depth,
    table,
    without_ids,
)

from procs.archives.converting import _Side
from procs.archives.events import Told
from procs.archives.kinds import KINDS, kind_of
from procs.archives.sources import LONGEST_LINE, sources_of
from procs.cli.outcome import OK, UNHEALTHY, USAGE
from procs.recordings import files
from procs.recordings.checking import check
from procs.recordings.wire_text import ASK, BID
from trading.venues.names import Market

MARKET = af.market()


# ---- books


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What a command has printed, on both streams."""
    return "".join(capsys.readouterr())


@pytest.mark.parametrize("depth", [5, 25])
def test_windows_of_tardis_become_a_book_that_has_each_row_s_levels(tmp_path: Path, depth: int) -> None:
    """After every row the best levels of the book, as many as the row has, are the row's; the prints beside it are all there."""
    steps, trades = MARKET
    book = put(tmp_path / "book.csv.gz", af.book_snapshot(steps, depth))
    made = converted(tmp_path / "x.gz", book, put(tmp_path / "trades.csv", af.tardis_trades(trades)))
    fold = folded(made, tmp_path)
    held = {ts_ns - 1500 * 1000: (bids, asks) for ts_ns, _, bids, asks in books(fold)}
    bids, asks, checked = {}, {}, 0
    for step in steps:
        bids, asks = held.get(step.ts_ns, (bids, asks))  # a row without a change is no message
        shown = sorted(bids.items(), reverse=True)[:depth], sorted(asks.items())[:depth]
        assert shown == step.best(depth)
        checked += step.ts_ns in held
    assert checked > 300 and without_ids(prints(folded(made, tmp_path))) == without_ids(trades)
    assert check(files.chains([made])[0]).wrong == []


def test_a_level_behind_the_window_is_unknown_and_one_missing_in_it_is_gone() -> None:
    """A level that the window left keeps its quantity until the window reaches over it; fewer than fit tell of the side."""
    bid = _Side(BID)
    assert bid.changes([(100, 1), (99, 2), (98, 3)], 3) == [(BID, 100, 1), (BID, 99, 2), (BID, 98, 3)]
    assert bid.changes([(101, 5), (100, 1), (99, 2)], 3) == [(BID, 101, 5)]  # 98 is behind the window: unknown
    assert bid.changes([(101, 5), (99, 2), (98, 3)], 3) == [(BID, 100, 0)]  # 100 is gone, 98 is what it was
    assert bid.changes([(97, 7), (96, 1), (95, 1)], 3) == [
        (BID, 101, 0), (BID, 99, 0), (BID, 98, 0), (BID, 97, 7), (BID, 96, 1), (BID, 95, 1)]  # fmt: skip
    assert bid.changes([(97, 7)], 3) == [(BID, 96, 0), (BID, 95, 0)]
    ask = _Side(ASK)
    assert ask.changes([(100, 1), (101, 2)], 2) == [(ASK, 100, 1), (ASK, 101, 2)]
    assert ask.changes([(99, 1), (100, 4)], 2) == [(ASK, 99, 1), (ASK, 100, 4)]
    assert ask.changes([(101, 2), (102, 9)], 2) == [(ASK, 99, 0), (ASK, 100, 0), (ASK, 102, 9)]


@pytest.mark.parametrize("pu", [True, False])
def test_historical_depth_of_binance_is_the_whole_book_with_the_venue_s_ids(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pu: bool
) -> None:
    """From the snapshot on the book is the market's at every update id; without `pu` it is said that no gap would show."""
    steps, trades = MARKET
    zipped = put(tmp_path / f"{SYMBOL}-aggTrades-2024-01-01.zip", af.agg_trades(trades, header=True))
    days = t_depth(tmp_path, steps, pu=pu)
    if pu:  # as they are downloaded: one tar of both
        with tarfile.open(tmp_path / f"{SYMBOL}_T_DEPTH_2024-01-01.tar.gz", "w:gz") as tar:
            for path in days:
                tar.add(path, f"day/{path.name}")
        days = [tmp_path / f"{SYMBOL}_T_DEPTH_2024-01-01.tar.gz"]
    made = converted(tmp_path / "x.gz", *days, zipped)
    assert ("does not say pu" in said(capsys)) == (not pu)
    found = {update_id: (bids, asks) for _, update_id, bids, asks in books(folded(made, tmp_path))}
    assert found == {1005 + 10 * k: (step.bids, step.asks) for k, step in enumerate(steps) if k >= 3}
    assert prints(folded(made, tmp_path)) == trades
    verdict = check(files.chains([made])[0])
    assert verdict.wrong == [] and verdict.venue == "binance_usdm"


def test_a_gap_in_the_venue_s_own_archive_is_told_and_stays_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One message is missing: the conversion says so, and `check` of the recording finds the gap by the venue's rule."""
    steps, _ = MARKET
    made = converted(tmp_path / "x.gz", *t_depth(tmp_path, steps, gap=200))
    assert "the source itself has 1 sequence gaps" in said(capsys)
    assert check(files.chains([made])[0]).gaps == 1
    other = converted(tmp_path / "y.gz", put(tmp_path / "2024-01-01_BTCUSDT_ob500.data.zip", af.ob500(steps, leave_out=200)))
    assert "the source itself has 1 sequence gaps" in said(capsys)
    assert check(files.chains([other])[0]).gaps == 1


def test_changes_without_a_snapshot_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No book can come of them; nothing is left behind, and the sentence names the file that is wanted."""
    update, _ = t_depth(tmp_path, MARKET[0])
    assert run("data", "convert", update, "--to", "recording", "--out", tmp_path / "x.gz") == USAGE
    assert "_depth_snap" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".gz") == [
        f"{SYMBOL}_T_DEPTH_2024-01-01_depth_snap.csv.gz"
    ]


def test_order_book_archives_of_bybit_become_its_own_frames(tmp_path: Path) -> None:
    """The book is the market's at every `u`, the prints of the same day are between the messages, tick and lot the numbers'."""
    steps, trades = MARKET
    book = put(tmp_path / "2024-01-01_BTCUSDT_ob500.data.zip", af.ob500(steps))
    made = converted(tmp_path / "x.gz", book, put(tmp_path / "BTCUSDT2024-01-01.csv.gz", af.bybit_trades(trades)))
    fold = folded(made, tmp_path)
    assert (fold.instruments[0].tick_size, fold.instruments[0].lot_size) == ("0.1", "0.001")
    found = {update_id: (bids, asks) for _, update_id, bids, asks in books(fold)}
    assert found == {3_360_159 + k: (step.bids, step.asks) for k, step in enumerate(steps)}
    assert without_ids(prints(folded(made, tmp_path))) == without_ids(trades)
    verdict = check(files.chains([made])[0])
    assert (verdict.wrong, verdict.venue, verdict.trades) == ([], "bybit", len(trades))


# ---- prints


@pytest.mark.parametrize("name", PRINTS)
def test_prints_come_out_as_they_went_in(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Time, price, quantity and side of every trade are its source's, Binance's ids too; the result says: no book."""
    _, trades = MARKET
    made = converted(tmp_path / "x.gz", PRINTS[name](tmp_path, trades))
    assert "it holds no order book" in said(capsys)
    found = prints(folded(made, tmp_path))
    assert without_ids(found) == without_ids(trades)
    if "rades of" in name:
        assert found == trades
    verdict = check(files.chains([made])[0])
    assert verdict.wrong == [] and verdict.symbols == [SYMBOL] and verdict.trades == len(trades)


def test_two_days_join_whatever_their_order(tmp_path: Path) -> None:
    """The files of two days give one recording in the order of time."""
    _, trades = MARKET
    later = put(tmp_path / f"{SYMBOL}-aggTrades-2024-01-02.csv", af.agg_trades(trades[100:]))
    first = put(tmp_path / f"{SYMBOL}-aggTrades-2024-01-01.csv", af.agg_trades(trades[:100]))
    assert prints(folded(converted(tmp_path / "x.gz", later, first), tmp_path)) == trades


# ---- candles


@pytest.mark.parametrize("form", [".csv", ".parquet"])
@pytest.mark.parametrize("name", BARS)
def test_candles_come_out_as_they_went_in(tmp_path: Path, name: str, form: str) -> None:
    """Every candle of every form, and klines' own columns too."""
    _, trades = MARKET
    out = tmp_path / f"out{form}"
    assert run("data", "convert", BARS[name](tmp_path, trades), "--to", "candles", "--out", out) == OK
    found = table(out)
    assert_candles(found, trades, 1_000 * MS)
    assert set(found["symbol"]) == {SYMBOL} and not any(found["incomplete"])
    if "klines" in name:
        rows = af.candles_of(trades, 1_000 * MS)
        assert found["trades"] == [row[7] for row in rows]
        assert found["buy_volume"] == pytest.approx([row[8] * LOT for row in rows])
        assert found["quote_volume"] == pytest.approx([row[6] * TICK * LOT for row in rows])


def test_candles_of_prints_are_those_of_the_venue(tmp_path: Path) -> None:
    """Candles of a recording, and of the prints themselves, are the klines of the same trades; klines join to larger ones."""
    _, trades = MARKET
    raw = put(tmp_path / f"{SYMBOL}-aggTrades-2024-01-01.csv", af.agg_trades(trades))
    made = converted(tmp_path / "x.gz", raw)
    for source in (raw, made):
        assert run("data", "convert", source, "--to", "candles", "--size", "5s", "--out", tmp_path / "c.csv", "--force") == OK
        found = table(tmp_path / "c.csv")
        assert_candles(found, trades, 5_000 * MS)
        assert found["trades"] == [row[7] for row in af.candles_of(trades, 5_000 * MS)] and found["incomplete"][-1]
    klines = put(tmp_path / f"{SYMBOL}-1s-2024-01-01.csv", af.klines(trades))
    assert run("data", "convert", klines, "--to", "candles", "--size", "5s", "--out", tmp_path / "k.parquet") == OK
    joined = table(tmp_path / "k.parquet")
    assert_candles(joined, trades, 5_000 * MS)
    assert joined["trades"] == found["trades"] and joined["incomplete"].count(False) > 5


# ---- what is refused, and what is said


def odd(folder: Path, name: str, text: str) -> Path:
    """A file with this text."""
    return put(folder / name, text)


AGG = f"{SYMBOL}-aggTrades-2024-01-01.csv"
ROW = "5000000,42300.1,0.100,5000000,5000000,1704067200123,true\n"
REFUSED: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "unknown kind": ("notes.csv", "a,b,c\n1,2,3\n", ("of no kind that is known here", "'a,b,c'", "known are")),
    "no symbol": ("prints.csv", ROW, ("does not say its symbol", "--symbol")),
    "time of no unit": (AGG, ROW.replace("1704067200123", "170406720012"), (f"{AGG}:1", "is no time")),
    "no maker": (AGG, ROW + ROW.replace("true", "maybe"), (f"{AGG}:2", "'maybe'", "neither true nor false")),
    "columns": (AGG, ROW + "1,2,3\n", (f"{AGG}:2", "3 columns in place of 7")),
    "side": ("BTCUSDT2024-01-01.csv", "timestamp,symbol,side,size,price\n1704067200.1,BTCUSDT,Long,1,2\n",
             ("'Long' is no side",)),
    "another symbol": ("BTCUSDT2024-01-01.csv",
                       "timestamp,symbol,side,size,price\n1704067200.1,BTCUSDT,Buy,1,2\n1704067200.1,ETHUSDT,Buy,1,2\n",
                       ("'ETHUSDT' after 'BTCUSDT'",)),
    "update type": (f"{SYMBOL}_T_DEPTH_2024-01-01_depth_update.csv",
                    "symbol,timestamp,first_update_id,last_update_id,side,update_type,price,qty,pu\n"
                    "BTCUSDT,1704067200123,1,2,a,delta,1,1,0\n", ("'delta' is not known", "snap, set and delete")),
    "message": ("x_BTCUSDT_ob500.data",
                '{"topic":"orderbook.500.BTCUSDT","type":"delta","ts":1704067200123,"data":{"b":[["1","2"]]}}\n{nonsense}\n',
                ("ob500.data:2", "no message of Bybit's")),
    "candles as a recording": (f"{SYMBOL}-1m-2024-01-01.csv",
                               "1704067200000,1,2,1,2,5,1704067259999,9,3,1,1,0\n",
                               ("neither prints nor a book", "--to candles")),
    "cut json": ("BTC_USDT-trades.json", '[[1704067200123,"1",null,"buy",1.0,2.0,2.0],[17040', ("ends in the middle",)),
    "letters": ("bars.csv", ROW, ("does not say its symbol",)),
    "long line": (AGG, ROW + "9" * (LONGEST_LINE + 9) + "\n", (f"{AGG}:2", "longer than 1 MB")),
    "a day of nothing": (f"{SYMBOL}-aggTrades-2024-01-01.csv", ",".join(af.AGG_HEADER) + "\n", ("no row of it holds a price",)),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """The sentence names place and remedy, the exit code is that of a wrong input, and no file is left behind."""
    file, text, words = REFUSED[name]
    path = odd(tmp_path, file, text)
    assert run("data", "convert", path, "--to", "recording", "--out", tmp_path / "x.gz") == USAGE
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and all(word in told for word in words), told
    assert [it.name for it in tmp_path.iterdir()] == [file]


def test_files_of_several_kinds_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two sources, two symbols, a wrong market, another target, candles beside prints: each has its sentence."""
    _, trades = MARKET
    agg, bybit = PRINTS["aggTrades of futures, bare"](tmp_path, trades), PRINTS["Bybit contract"](tmp_path, trades)
    klines = BARS["klines with a header"](tmp_path, trades)
    eth = put(tmp_path / "ETHUSDT-aggTrades-2024-01-01.csv", af.agg_trades(trades))
    out = ("--out", tmp_path / "x.gz")
    for paths, more, words in (
        ((agg, bybit), ("--to", "recording"), "several sources (Binance, Bybit)"),
        ((agg, eth), ("--to", "recording"), "BTCUSDT, ETHUSDT"),
        ((agg, klines), ("--to", "recording"), "candles and trades are given together"),
        ((agg,), ("--to", "recording", "--market", "binance_spot"), "of binance_usdm by its columns"),
        ((agg,), ("--to", "npz"), "can be made a recording or candles, not npz"),
        ((agg, converted(tmp_path / "r.gz", agg)), ("--to", "recording"), "different forms"),
    ):
        capsys.readouterr()
        assert run("data", "convert", *paths, *more, *out) == USAGE
        assert words in capsys.readouterr().err
    assert not (tmp_path / "x.gz").exists()


def test_what_a_source_does_not_know_is_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trades without a side are no trades; times that go backwards are raised; both are said, and the units."""
    rows = af.freqtrade_trades(MARKET[1][:50])
    rows[7][3] = None
    rows[20][0] -= 3_600_000
    made = converted(tmp_path / "x.gz", put(tmp_path / "BTC_USDT-trades.json", json.dumps(rows)))
    told = said(capsys)
    assert "50 rows, times in milliseconds, 1 times went backwards" in told and "1 trades without a side left out" in told
    assert len(prints(folded(made, tmp_path))) == 49


def test_candles_that_cannot_be_true_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A low above the open, two candles of one time, candles at odd distances; missing ones are counted."""
    rows = af.freqtrade_candles(MARKET[1])
    for change, words in (
        (lambda r: r[5].__setitem__(3, r[5][1] + 1), "cannot be true"),
        (lambda r: r.append([r[3][0], 1, 2, 1, 2, 3]), "two different candles"),
        (lambda r: r[9].__setitem__(0, r[9][0] + 1), "no even distance"),
    ):
        changed = [list(row) for row in rows]
        change(changed)
        path = put(tmp_path / "BTC_USDT-1s.json", json.dumps(changed))
        assert run("data", "convert", path, "--to", "candles", "--out", tmp_path / "x.csv") == USAGE
        assert words in capsys.readouterr().err
    path = put(tmp_path / "BTC_USDT-1s.json", json.dumps(rows[:10] + rows[12:]))
    assert run("data", "convert", path, "--to", "candles", "--out", tmp_path / "x.csv") == OK
    assert "2 candles are missing" in said(capsys)


def test_times_are_read_by_their_magnitude(tmp_path: Path) -> None:
    """Seconds, milliseconds, microseconds and nanoseconds, with a fraction or not, are one instant; what is none is refused."""
    (source,) = sources_of(put(tmp_path / "x.csv", "a\n"))
    told = Told(source)
    for text in ("1704067200.1234", "1704067200123.4", "1704067200123400", "1704067200123400.0", "1704067200123400000"):
        assert told.stamp(text, 1) == 1_704_067_200_123_400_000
    assert set(told.units) == {"seconds", "milliseconds", "microseconds", "nanoseconds"}
    for text in ("", "x", "-1704067200", "1e9", "9999999999", "17040672001", "1704067200.", "0"):
        with pytest.raises(ValueError, match=r"no time|outside"):
            told.stamp(text, 1)


def test_floats_that_were_computed_are_read_with_tick_and_lot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """423001 * 0.1 has too many decimals to record; with both steps given it is the multiple that it stands for."""
    _, trades = MARKET
    rows = [[*row[:4], t.price * TICK, t.lots * LOT, row[6]] for row, t in zip(af.freqtrade_trades(trades), trades, strict=True)]
    path = put(tmp_path / "BTC_USDT-trades.json", json.dumps(rows))
    assert run("data", "convert", path, "--symbol", SYMBOL, "--to", "recording", "--out", tmp_path / "x.gz") != OK
    assert "decimals; at most" in said(capsys)
    made = converted(tmp_path / "x.gz", path, more=("--symbol", SYMBOL, "--tick", "0.1", "--lot", "0.001"))
    assert without_ids(prints(folded(made, tmp_path))) == without_ids(trades)


def test_windows_of_a_coin_margined_contract_become_its_venue_s_frames(tmp_path: Path) -> None:
    """binance-delivery is COIN-M without being told so."""
    steps, _ = MARKET
    text = af.book_snapshot(steps, 25).replace(f"binance-futures,{SYMBOL}", "binance-delivery,BTCUSD_PERP")
    made = converted(tmp_path / "x.gz", put(tmp_path / "book.csv", text))
    (symbol,) = folded(made, tmp_path).recording.symbols
    assert (symbol.name, symbol.market) == ("BTCUSD_PERP", Market.BINANCE_COINM)
    assert check(files.chains([made])[0]).wrong == []


def test_tables_of_tardis_are_told_by_their_columns_too(tmp_path: Path) -> None:
    """Trades called anything, plain or packed, give the same recording."""
    text, made = af.tardis_trades(MARKET[1]), []
    for name in ("trades.csv", "prints", "prints.txt.gz"):
        made.append(gzip.decompress(converted(tmp_path / "x.gz", put(tmp_path / name, text), more=("--force",)).read_bytes()))
    assert made[0] == made[1] == made[2] and made[0].count(b"\n") > 100


def test_a_kind_is_told_by_its_columns_alone(tmp_path: Path) -> None:
    """Each sample is of its own kind, whatever its name, packed in gzip, zip or not at all; a zip of two holds both."""
    steps, trades = MARKET[0][:3], MARKET[1][:3]
    texts = {
        "Binance aggTrades": af.agg_trades(trades), "Binance trades": af.binance_trades(trades),
        "Binance klines": af.klines(trades), "Binance T_DEPTH": af.depth_updates(steps),
        "Bybit order book archive": af.ob500(steps), "Bybit contract trades": af.bybit_trades(trades),
        "Bybit spot trades": af.bybit_spot_trades(trades), "tardis book_snapshot": af.book_snapshot(steps, 5),
        "tardis trades": af.tardis_trades(trades), "freqtrade trades": json.dumps(af.freqtrade_trades(trades)),
        "freqtrade candles": json.dumps(af.freqtrade_candles(trades)),
        "ccapi trades": "time_seconds,price,size,is_buyer_maker\n1704067200.5,1,2,1\n",
        "ccapi quotes": "time_seconds,bid_price_bid_size,ask_price_ask_size\n1704067200,1_2,3_4\n",
        "candles in CSV": "Date,Open,High,Low,Close,Volume\n2024-01-01,1,2,1,2,3\n",
        "Lean trade bars": "20240101 00:00,1,2,1,2,3\n",
        "tardis quotes": "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount\nx,y,,1,1,1,1,1\n",
    }  # fmt: skip
    assert set(texts) == {kind.name for kind in KINDS}
    for number, (name, text) in enumerate(texts.items()):
        for suffix in ("", ".gz", ".zip"):
            (source,) = sources_of(put(tmp_path / f"f{number}.txt{suffix}", "\ufeff" * (suffix == "") + text))
            found = kind_of(source)
            assert found is not None and found.name == name
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", texts["Binance aggTrades"])
        archive.writestr("deep/b.csv.gz", gzip.compress(texts["Binance klines"].encode()))
    assert [kind.name for source in sources_of(tmp_path / "two.zip") if (kind := kind_of(source))] == [
        "Binance aggTrades", "Binance klines"]  # fmt: skip


# ---- further commands


@pytest.mark.parametrize("name", ["tardis", "T_DEPTH", "Bybit"])
def test_features_and_a_backtest_run_on_each_kind_of_book(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """The recording made of each book archive has valid records and features, and a backtest runs through."""
    steps, trades = MARKET
    if name == "tardis":
        paths = [put(tmp_path / "b.csv", af.book_snapshot(steps, 25)), put(tmp_path / "t.csv", af.tardis_trades(trades))]
    elif name == "T_DEPTH":
        paths = [*t_depth(tmp_path, steps), PRINTS["trades of futures"](tmp_path, trades)]
    else:
        paths = [put(tmp_path / "2024-01-01_BTCUSDT_ob500.data.zip", af.ob500(steps)), PRINTS["Bybit contract"](tmp_path, trades)]
    made = converted(tmp_path / "x.gz", *paths)
    assert run("features", made, "--out", tmp_path / "f.parquet") == OK
    found = table(tmp_path / "f.parquet")
    assert sum(found["valid"]) > 500 and sum(value is not None for value in found["mid"]) > 500
    capsys.readouterr()
    assert run("backtest", "--recording", made, "--json") == OK
    assert json.loads(capsys.readouterr().out)["books"][SYMBOL]["gaps"] == 0


def test_prints_alone_are_said_to_hold_no_book(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`features` writes its table, says why all of it is null, and answers with 5; a backtest says that there was no book."""
    made = converted(tmp_path / "x.gz", PRINTS["aggTrades of futures"](tmp_path, MARKET[1]))
    assert run("features", made, "--out", tmp_path / "f.parquet") == UNHEALTHY
    assert "no record of it has a valid order book" in capsys.readouterr().err
    assert len(table(tmp_path / "f.parquet")["ts_ns"]) == len(MARKET[1])
    assert run("backtest", "--recording", made) == OK
    assert "NO BOOK, so no signal and no order" in capsys.readouterr().out


@pytest.mark.recordings
def test_shared_candles_and_trades_of_others_are_read(recordings: Path, tmp_path: Path) -> None:
    """Minute bars of Bitstamp in CSV, Lean's zipped minute and daily bars, and ccapi's trades of a day, as candles of an hour."""
    bars = recordings / "klines" / "basana_bitstamp_btcusd_min_2020_01_01.csv"
    assert run("data", "convert", bars, "--to", "candles", "--symbol", "BTCUSD", "--out", tmp_path / "b.csv") == OK
    found = table(tmp_path / "b.csv")
    pl = pytest.importorskip("polars")
    raw = pl.read_csv(bars)
    assert set(found["symbol"]) == {"BTCUSD"}
    for name in ("open", "high", "low", "close", "volume"):
        assert found[name] == raw[name].cast(pl.Float64).to_list()
    lean = recordings / "lean_crypto" / "crypto" / "coinbase"
    for path, name in (
        (lean / "minute" / "btcusd" / "20170903_trade.zip", "BTCUSD"),
        (lean / "daily" / "btcusd_trade.zip", "BTCUSD"),
    ):
        assert run("data", "convert", path, "--to", "candles", "--out", tmp_path / "l.csv", "--force") == OK
        with zipfile.ZipFile(path) as archive:
            rows = [line.split(",") for line in archive.read(archive.namelist()[0]).decode().split() if line.count(",") == 5] or [
                line.split(",") for line in archive.read(archive.namelist()[0]).decode().splitlines()
            ]
        found = table(tmp_path / "l.csv")
        assert set(found["symbol"]) == {name} and found["close"] == [float(row[4]) for row in rows]
    assert np.all(np.diff(found["open_time_ns"]) > 0)
