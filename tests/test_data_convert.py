"""`data convert`: what goes out to hftbacktest, tardis-like CSV and Parquet comes back as the same books and prints."""

from __future__ import annotations

import csv
import gzip
import random
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from procs.cli.main import main
from procs.cli.outcome import OK, USAGE
from procs.recordings import files, hftbacktest, tardis
from procs.recordings.checking import check, staged
from procs.recordings.folding import Folded
from procs.recordings.hftbacktest import (
    BUY_EVENT,
    DEPTH_CLEAR_EVENT,
    DEPTH_EVENT,
    DEPTH_SNAPSHOT_EVENT,
    EVENT,
    EXCH_EVENT,
    KIND_MASK,
    LOCAL_EVENT,
    SELL_EVENT,
    TRADE_EVENT,
    corrected,
    events_of,
    received,
)
from procs.recordings.output import RecordingsError
from procs.recordings.wire_text import FrameWriter, decimals_of, units_of_floats, units_of_text

T0 = 1_723_161_253_937_000_000
PRICELESS = ("e", "S", T0 // 1000, T0 // 1000, 3, "buy", "NaN", "1")


def folded(paths: list[Path], folder: Path) -> Folded:
    """A recording, staged in `folder`."""
    (chain,) = files.chains(paths)
    spool = folder / f"{paths[0].name}.spool"
    recording, _ = staged(chain, spool)
    return Folded(spool, recording)


def books(events: Any, unit_ns: int = 1) -> Iterator[tuple[int, int, int, int]]:
    """(time, hash of the whole book, levels, hash of the prints so far) whenever the book or the prints changed, by time."""
    book: dict[tuple[int, float], float] = {}
    held = prints = 0
    kinds, flags = (events["ev"] & np.uint64(KIND_MASK)).tolist(), events["ev"].astype(np.int64).tolist()
    local, px, qty = (events["local_ts"] // unit_ns).tolist(), events["px"].tolist(), events["qty"].tolist()
    for k, kind in enumerate(kinds):
        side = flags[k] & (SELL_EVENT | BUY_EVENT)
        if kind == TRADE_EVENT:
            prints = hash((prints, side, px[k], qty[k]))
        elif kind == DEPTH_CLEAR_EVENT:
            gone = [key for key in book if not side or (key[0] == side and (key[1] >= px[k]) == (side == BUY_EVENT))]
            for key in gone:
                held ^= hash((key, book.pop(key)))
        else:
            key = (side, px[k])
            if key in book:
                held ^= hash((key, book.pop(key)))
            if qty[k]:
                book[key] = qty[k]
                held ^= hash((key, qty[k]))
        if k + 1 == len(kinds) or local[k + 1] != local[k]:
            yield local[k], held, len(book), prints


def changes(events: Any) -> list[tuple[int, ...]]:
    """`books`, less the times at which nothing changed: a clear of an empty side is told by no frame."""
    found: list[tuple[int, ...]] = []
    for row in books(events):
        if not found or row[1:] != found[-1][1:]:
            found.append(row)
    return found


def assert_in_both_orders(events: Any) -> None:
    """As hftbacktest wants it, and each event once in each order."""
    exchange, local = ((events["ev"] & np.uint64(flag)) != 0 for flag in (EXCH_EVENT, LOCAL_EVENT))
    assert (exchange | local).all() and exchange.sum() == local.sum()
    assert (np.diff(events["exch_ts"][exchange]) >= 0).all() and (np.diff(events["local_ts"][local]) >= 0).all()
    assert (events["local_ts"] >= events["exch_ts"]).all()


def run(*words: Any) -> int:
    """`scalperctl` in this process."""
    return main([str(word) for word in words])


NAMES = [("spot_btcusdt_20240808", "spot_btcusdt_20240809"), ("spot_ethusdt_20240808", "spot_ethusdt_20240809"),
         ("usdm_btcusdt_20240718", "usdm_btcusdt_20240719"), ("usdm_btcusdt_20240808",), ("usdm_ethusdt_20240808",)]  # fmt: skip


WHOLE = [pytest.param(names, marks=pytest.mark.slow) for names in NAMES]
"""A day of one symbol runs by default, these with the slow tests."""


@pytest.mark.recordings
@pytest.mark.parametrize("names", [NAMES[0][:1], *WHOLE])
def test_a_recording_through_npz_has_equal_books_at_every_event(recordings: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    """recording -> npz -> recording: after each message the whole book and all prints so far are the same, at the same time."""
    paths = [recordings / "hftbacktest_binance" / f"{name}.gz" for name in names]
    out, back = tmp_path / "x.npz", tmp_path / "back.gz"
    assert run("data", "convert", *paths, "--to", "npz", "--out", out) == OK
    events = hftbacktest.load(out)
    assert_in_both_orders(events)
    usdm = names[0].startswith("usdm")
    symbol, market = names[0].split("_")[1].upper(), "binance_usdm" if usdm else "binance_spot"
    assert run("data", "convert", out, "--to", "recording", "--out", back, "--symbol", symbol, "--market", market) == OK
    again = events_of(folded([back], tmp_path))
    assert list(books(received(events))) == list(books(again))
    assert check(files.chains([back])[0]).wrong == []


@pytest.mark.slow
@pytest.mark.recordings
@pytest.mark.parametrize("names", [NAMES[0], NAMES[4]])
def test_a_recording_through_csv_has_equal_books(recordings: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    """recording -> tardis-like CSV -> recording: the same books, prints and quotes, at the same microsecond."""
    paths = [recordings / "hftbacktest_binance" / f"{name}.gz" for name in names]
    assert run("data", "convert", *paths, "--to", "csv", "--out", tmp_path / "csv") == OK
    made = sorted((tmp_path / "csv").iterdir())
    assert [path.name.split("_" + names[0].split("_")[1].upper())[0] for path in made] == sorted(tardis.COLUMNS)
    back = tmp_path / "back.gz"
    assert run("data", "convert", *made, "--to", "recording", "--out", back) == OK
    before, after = folded(paths, tmp_path), folded([back], tmp_path)
    assert before.instruments[0].market == after.instruments[0].market
    was = {row[0]: row[1:] for row in books(events_of(before), 1000)}
    now = {row[0]: row[1:] for row in books(events_of(after), 1000)}
    assert was == now
    assert after.count("bbos") > 0 and check(files.chains([back])[0]).wrong == []


@pytest.mark.recordings
def test_parquet_holds_what_the_fold_says(recordings: Path, tmp_path: Path) -> None:
    """Partitioned by venue, symbol and date; every market and depth record is there, with exact prices; a later file goes on with
    the books of the one before, and its rows are those of both files less the first one's."""
    pq = pytest.importorskip("pyarrow.parquet")
    paths = [recordings / "hftbacktest_binance" / f"{name}.gz" for name in NAMES[0]]
    assert run("data", "convert", *paths, "--to", "parquet", "--out", tmp_path / "whole") == OK
    for n, path in enumerate(paths):
        after = ["--after", paths[0]] if n else []
        assert run("data", "convert", path, "--to", "parquet", "--out", tmp_path / "parts", *after) == OK
    assert run("data", "convert", paths[0], "--to", "parquet", "--out", tmp_path / "parts") == USAGE
    dates = [path.name for path in sorted((tmp_path / "whole" / "market" / "venue=binance_spot" / "symbol=BTCUSDT").iterdir())]
    assert dates == ["date=2024-08-08", "date=2024-08-09"]
    keys = ["ts_ns", "update_id", "kind", "price_ticks", "qty_lots", "price"]
    for table in ("market", "depth"):
        whole, parts = (pq.read_table(tmp_path / place / table).sort_by("ts_ns").select(keys) for place in ("whole", "parts"))
        assert whole.num_rows > 99_000
        order = [(key, "ascending") for key in keys]
        assert whole.sort_by(order).equals(parts.sort_by(order))
    source = folded(paths, tmp_path)
    market = np.concatenate([chunk.market for chunk in source.chunks()])
    columns = ["ts_ns", "kind", "aggressor_side", "bid_price_1"]
    read = pq.read_table(tmp_path / "whole" / "market", columns=columns).sort_by("ts_ns").to_pydict()
    assert read["ts_ns"] == sorted(market["ts_ns"].tolist())
    assert sum(kind == "trade" for kind in read["kind"]) == 19_904 == sum(side is not None for side in read["aggressor_side"])
    assert {Decimal(str(p)).as_tuple().exponent for p in read["bid_price_1"] if p} <= {-1, -2, 0}


def random_events(seed: int) -> Any:
    """Books that are cleared, begun anew and changed at random, never crossed after a message; trades between."""
    rng, rows, local = random.Random(seed), [], T0
    for n in range(rng.randrange(50, 150)):
        local += rng.randrange(0, 10**6) + 1
        exchange = local - rng.randrange(0, 3 * 10**6) // 1000 * 1000
        kind = rng.choices(("depth", "trade", "snapshot", "clear"), (80, 30, 4 if n else 0, 2))[0]
        if kind == "trade":
            flag = TRADE_EVENT | rng.choice((BUY_EVENT, SELL_EVENT))
            rows.append((flag, exchange, local, rng.randrange(9_000, 11_000) / 100, rng.randrange(1, 10**6) / 1000))
        elif kind == "clear":
            rows.append((DEPTH_CLEAR_EVENT | BUY_EVENT, exchange, local, rng.randrange(9_800, 10_000) / 100, 0.0))
        else:
            if kind == "snapshot":
                rows.append((DEPTH_CLEAR_EVENT, exchange, local, 0.0, 0.0))
            event = DEPTH_SNAPSHOT_EVENT if kind == "snapshot" else DEPTH_EVENT
            for _ in range(rng.randrange(1, 30)):
                bid = rng.random() < 0.5
                price = rng.randrange(9_800, 10_000) if bid else rng.randrange(10_001, 10_200)
                qty = 0 if kind == "depth" and rng.random() < 0.3 else rng.randrange(1, 10**6)
                rows.append((event | (BUY_EVENT if bid else SELL_EVENT), exchange, local, price / 100, qty / 1000))
    out = np.zeros(len(rows), EVENT)
    for name, column in zip(("ev", "exch_ts", "local_ts", "px", "qty"), zip(*rows, strict=True), strict=True):
        out[name] = column
    return out


@pytest.mark.parametrize("seed", range(20))
def test_random_events_become_the_same_books(tmp_path: Path, seed: int) -> None:
    """Any npz, of spot's or USD-M's frames, with clears, snapshots and levels told twice: the same book after every message."""
    events = corrected(random_events(seed))
    assert_in_both_orders(events)
    hftbacktest.save(events, tmp_path / "a.npz")
    usdm = seed % 2 == 0
    market = "binance_usdm" if usdm else "binance_spot"
    back = tmp_path / "back.gz"
    words = ("--to", "recording", "--out", back, "--symbol", "x-y", "--market", market)
    assert run("data", "convert", tmp_path / "a.npz", *words) == OK
    source = folded([back], tmp_path)
    assert changes(events_of(source)) == changes(received(events))
    assert source.count("gaps") == source.count("crossed") == 0 and source.glob[0]["malformed"] == 0


def test_local_times_are_put_after_exchange_times() -> None:
    """A receiver's clock that is behind is put right by its worst case and the base latency; unknown exchange times are the last
    known one; a row stands twice where the orders differ."""
    events = np.zeros(4, EVENT)
    events["ev"] = DEPTH_EVENT | BUY_EVENT
    events["exch_ts"] = [0, 1000, 3000, 2000]
    events["local_ts"] = [500, 600, 700, 800]
    events["px"] = [1, 2, 3, 4]
    made = corrected(events, 50)
    assert_in_both_orders(made)
    assert made["local_ts"].min() == 500 + 2300 + 50 and len(made) == 5
    assert made["exch_ts"][made["px"] == 1].tolist() == [1000]
    assert received(made)["px"].tolist() == [1, 2, 3, 4]
    plain = events.copy()
    assert received(plain)["px"].tolist() == [1, 2, 3, 4]
    assert len(corrected(np.zeros(0, EVENT))) == 0


def written(path: Path, header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Path:
    """A gzipped CSV file."""
    with gzip.open(path, "wt", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return path


def test_csv_of_a_vendor_becomes_a_recording(tmp_path: Path) -> None:
    """Rows of one local time are one message, snapshot rows after others begin the book anew, decimals stay exact."""
    key = ("okex", "BTC-USDT")
    us = T0 // 1000
    book = written(tmp_path / "a_incremental_book_L2.csv.gz", tardis.COLUMNS["incremental_book_L2"], [
        (*key, us, us + 5, "true", "bid", "99.5", "1.5"), (*key, us, us + 5, "true", "ask", "100.25", "2"),
        (*key, us + 10, us + 15, "false", "bid", "99.75", "0.00000001"), (*key, us + 10, us + 15, "false", "ask", "100.25", "0"),
        (*key, us + 30, us + 35, "true", "bid", "98", "3"), (*key, us + 30, us + 35, "true", "ask", "98.5", "1e-2"),
    ])  # fmt: skip
    trades = written(tmp_path / "t.csv.gz", tardis.COLUMNS["trades"], [
        (*key, us + 10, us + 15, "77", "sell", "99.75", "0.5"), (*key, us + 20, us + 25, "78", "buy", "100", "0.25"),
    ])  # fmt: skip
    quotes = written(tmp_path / "q.csv.gz", tardis.COLUMNS["quotes"], [
        (*key, us + 12, us + 16, "", "", "99.75", "0.00000001"), (*key, us + 30, us + 36, "0.01", "98.5", "98", "3"),
    ])  # fmt: skip
    out = tmp_path / "out.gz"
    assert run("data", "convert", quotes, book, trades, "--to", "recording", "--out", out) == OK
    source = folded([out], tmp_path)
    assert source.instruments[0].name == "BTCUSDT" and source.instruments[0].tick_size == "0.25"
    found = [(row[0] // 1000 - us, row[2]) for row in books(events_of(source))]
    assert found == [(5, 2), (15, 2), (25, 2), (35, 2)]
    assert (source.count("trades"), source.count("bbos"), source.count("gaps")) == (2, 2, 0)
    assert run("data", "convert", book, "--to", "recording", "--out", out) == USAGE  # it is there already
    assert run("data", "convert", book, "--to", "recording", "--out", out, "--force") == OK


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda d: ["x.csv"], "no such file"),
        (lambda d: [written(d / "x.csv.gz", ("a", "b"), [])], "of no kind that is known"),
        (lambda d: [written(d / "x.csv.gz", tardis.COLUMNS["trades"], [])], "holds no row"),
        (lambda d: [written(d / "x.csv.gz", tardis.COLUMNS["trades"], [("e", "S", 1, 2)])], "columns in place of"),
        (lambda d: [written(d / "x.csv.gz", tardis.COLUMNS["trades"], [PRICELESS])], "is no price"),
        (lambda d: [save(d / "x.npz", np.zeros(3))], "has no fields"),
        (lambda d: [save(d / "x.npz", np.zeros(1, EVENT))], "give --symbol"),
    ],
)
def test_what_cannot_be_converted_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], list[Any]], match: str
) -> None:
    """Exit code 2, one sentence, and nothing is left where the output would be."""
    inputs = make(tmp_path)
    kept = sorted(tmp_path.iterdir())
    assert run("data", "convert", *inputs, "--to", "recording", "--out", tmp_path / "out.gz") == USAGE
    assert match in capsys.readouterr().err and sorted(tmp_path.iterdir()) == kept


def save(path: Path, data: Any) -> Path:
    """An npz with one array."""
    np.savez(path, data=data)
    return path


def test_numbers_are_exact_or_refused() -> None:
    """Floats by their shortest decimal or the user's step; text by its digits; nothing is rounded in silence."""
    units, decimals = units_of_floats([61837.63, 0.1, 0.0], None, "price", "--tick")
    assert units.tolist() == [6_183_763, 10, 0] and decimals == 2
    with pytest.raises(RecordingsError, match="give --tick"):
        units_of_floats([0.1 + 0.2], None, "price", "--tick")
    assert units_of_floats([0.1 + 0.2], Decimal("0.05"), "price", "--tick")[0].tolist() == [30]
    with pytest.raises(RecordingsError, match="no multiple"):
        units_of_floats([0.12], Decimal("0.05"), "price", "--tick")
    assert decimals_of(["1.500", "1e-3", "7"], "price") == 3
    assert units_of_text("1e-3", 4, "price") == 10
    for wrong in ("-1", "1.23456", "x"):
        with pytest.raises(RecordingsError):
            units_of_text(wrong, 4, "price")
    with pytest.raises(RecordingsError, match="binance_usdm"):
        FrameWriter(lambda _: None, "X", False, 2, 9)


def test_a_book_deeper_than_a_snapshot_is_told_in_diffs(tmp_path: Path) -> None:
    """Levels beyond the largest snapshot follow in the first diffs: none is lost."""
    out = tmp_path / "deep.gz"
    for usdm in (False, True):
        with gzip.open(out, "wb") as file:
            writer = FrameWriter(file.write, "DEEP", usdm, 2, 3)
            writer.replace(T0, T0, dict.fromkeys(range(1, 15_001), 5), dict.fromkeys(range(20_000, 26_000), 7))
            writer.change(T0 + 1, T0 + 1, [(0, 15_001, 9)])
            writer.bbo(T0 + 2, T0, (3, 1), (3, 1))
        assert writer.crossed_bbos == 1
        source = folded([out], tmp_path)
        assert list(books(events_of(source)))[-1][2] == 21_001 and source.count("gaps") == 0
