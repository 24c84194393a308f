"""Journals of every ring in words: `data cat` lines and objects, and columns as Parquet and CSV."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_command import Run

from procs import topology
from procs.cli.outcome import OK, USAGE
from procs.journal.file import JournalWriter, journal_path
from procs.journal.names import KINDS, Names, ring_kinds
from procs.recordings import instruments
from procs.recordings.columns import columns_of, parts_of
from trading.books.state import Want
from trading.features.patterns import Pattern
from trading.features.regime import Regime
from trading.features.signals import N_SIGNALS, Signal
from trading.features.vector import NAMES as FEATURES
from trading.instruments import Instrument
from trading.records import (
    ExecType,
    Flag,
    Kind,
    OrderStatus,
    OrderType,
    Purpose,
    Refusal,
    Side,
    TimeInForce,
)
from trading.scoring.ensemble import Gate

T0 = 1_723_161_253_937_085_768
BTC = Instrument("BTCUSDT")
ORDER = {
    "symbol": 0, "order_id": 7, "side": Side.BUY, "order_type": OrderType.POST_ONLY, "time_in_force": TimeInForce.GTC,
    "purpose": Purpose.ENTRY, "price_ticks": 6_183_763, "qty_lots": 150_000_000, "decision_ticks": 6_183_763.5, "approved": 1,
    "cause_seq": 12,
}  # fmt: skip
REPORT = {
    "symbol": 0, "order_id": 7, "exec_type": ExecType.FILL, "order_status": OrderStatus.PARTIAL, "side": Side.SELL, "maker": 1,
    "last_ticks": 6_183_763, "last_lots": 100_000_000, "leaves_lots": 50_000_000, "fee_e8": -123, "ts_sent_ns": T0,
}  # fmt: skip
RECORDS: dict[str, dict[str, Any]] = {
    "market": {"kind": Kind.TRADE, "symbol": 0, "flags": Flag.AGGRESSOR_SELL, "price_ticks": 6_183_763, "qty_lots": 150_000_000},
    "depth": {"kind": Kind.DEPTH, "symbol": 0, "flags": Flag.ASK | Flag.LAST, "price_ticks": 100, "qty_lots": 5 * 10**7},
    "signals": {
        "kind": Kind.SIGNAL, "symbol": 0, "score": 61.5, "mid": 6_183_763.5, "side": Side.BUY, "gate": Gate.VOLATILITY,
        "regime": Regime.CALM, "reason": Signal.MICRO_TREND + 1, "ready_mask": 0b11 | 1 << N_SIGNALS, "active_mask": 0b10,
        "patterns": Pattern.PIN_UP, "strength": [0.0, 0.5] + [0.0] * 22, "bid_ticks": 6_183_763,
    },
    "vectors": {"kind": Kind.VECTOR, "symbol": 0, "flags": 1, "warm_mask": 0b10, "version": 1, "values": [0.0, 1.5] + [0.0] * 48},
    "quotes": {"kind": Kind.QUOTE, "symbol": 0, "bid_ticks": 100, "bid_lots": 10**8, "skew": -0.5, "inventory_lots": -(10**8)},
    "orders": {"kind": Kind.NEW, **ORDER},
    "refusals": {"kind": Kind.REFUSED, **ORDER, "approved": 0, "refusal": Refusal.MAX_NOTIONAL},
    "wire": {"kind": Kind.CANCEL, "symbol": 0, "order_id": 8, "target_order_id": 7},
    "executions": {"kind": Kind.REPORT, **REPORT},
    "reports": {"kind": Kind.REPORT, **REPORT, "refusal": Refusal.VENUE_FILTER},
    "control": {"kind": Kind.HALT, "symbol": -1, "cause_ring": -1, "reason": Refusal.DRAWDOWN},
    "frames": {"kind": Kind.RAW, "symbol": -1, "flags": 1 | 3 << 9, "length": 5},
    "resync": {"kind": Kind.WANT_SNAPSHOT, "symbol": 0, "reason": Want.GAP, "update_id": 9},
    "intake": {"kind": Kind.INTAKE, "ring": 0, "count": 3, "first_seq": 4},
}  # fmt: skip
WORDS: dict[str, dict[str, Any]] = {
    "market": {"kind": "trade", "side": "sell", "price": "61837.63", "qty": "1.5"},
    "depth": {"kind": "level", "side": "ask", "price": "1.00", "qty": "0.5"},
    "signals": {"side": "buy", "gate": "volatility", "regime": "calm", "reason": "micro_trend", "mid": 61837.635,
                "ready": ["book_imbalance", "micro_trend", "mine"], "active": ["micro_trend"], "votes": {"micro_trend": 0.5},
                "patterns": ["pin_up"], "bid_price": "61837.63"},
    "vectors": {"kind": "vector", "valid": True, "values": {FEATURES[1]: 1.5}},
    "quotes": {"kind": "quote", "bid_price": "1.00", "bid_qty": "1", "skew": -0.005, "inventory_qty": "-1"},
    "orders": {"kind": "new", "side": "buy", "order_type": "post_only", "time_in_force": "gtc", "purpose": "entry",
               "approved": True, "price": "61837.63", "qty": "1.5", "decision_price": 61837.635, "cause": "market 12"},
    "refusals": {"kind": "refused", "refusal": "max_notional"},
    "wire": {"kind": "cancel", "target_order_id": 7},
    "executions": {"kind": "report", "exec_type": "fill", "order_status": "partial", "side": "sell", "maker": True,
                   "last_price": "61837.63", "last_qty": "1", "leaves_qty": "0.5", "fee": "-0.00000123",
                   "sent_time": "2024-08-08T23:54:13.937085768Z"},
    "reports": {"refusal": "venue_filter"},
    "control": {"kind": "halt", "symbol": "-", "reason": "drawdown"},
    "frames": {"kind": "raw", "symbol": "-", "line": 1, "connection": 3, "length": 5},
    "resync": {"kind": "want_snapshot", "reason": "gap", "update_id": 9},
    "intake": {"kind": "intake", "symbol": "-", "count": 3},
}  # fmt: skip

def records(ring: topology.Ring) -> np.ndarray:
    """One record of a ring, and the one that ends it."""
    recs = np.zeros(2, ring.record)
    for name, value in RECORDS[ring.name.partition(".")[0]].items():
        recs[name][0] = value
    recs["ts_ns"], recs["seq"], recs["kind"][1] = T0, [1, 2], Kind.END
    if ring.name == "market":
        recs["ts_recv_ns"] = T0
    return recs


@pytest.fixture
def journals(tmp_path: Path) -> Path:
    """A folder with a journal of every ring, as the recorder leaves it."""
    folder = tmp_path / "run"
    folder.mkdir()
    for ring in topology.RINGS:
        with JournalWriter.open(journal_path(folder, ring.name), ring.name, ring.record, "x") as journal:
            journal.append(records(ring))
    instruments.note(folder, [BTC])
    instruments.note_signals(folder, ["mine"])
    return folder


def test_every_ring_is_shown_in_words(journals: Path, run: Run) -> None:
    """Sides, states, reasons, gates, signals and features by name, prices as decimals; on one line, and as one object."""
    for ring in topology.RINGS:
        code, out, err = run("data", "cat", journal_path(journals, ring.name), "--json")
        assert code == OK, err
        (said,) = map(json.loads, out.splitlines())
        wanted = WORDS[ring.name.partition(".")[0]]
        assert {key: said.get(key) for key in wanted} == wanted, ring.name
        if ring.name not in ("control", "frames") and not ring.name.startswith("intake"):
            assert said["symbol"] == "BTCUSDT", ring.name
        code, out, _ = run("data", "cat", journal_path(journals, ring.name))
        assert code == OK and out.count("\n") == 1 and wanted.get("reason", "") in out


def test_kinds_of_each_ring(journals: Path, run: Run) -> None:
    """--kind takes what the ring holds, and names it where another is asked for; every kind of record is in the table."""
    for ring in topology.RINGS:
        path = journal_path(journals, ring.name)
        for kind in ring_kinds(ring.name):
            assert run("data", "cat", path, "--kind", kind)[0] == OK
        code, _, err = run("data", "cat", path, "--kind", "level" if ring.name != "depth" else "halt")
        assert code == USAGE and "is no kind of its records" in err and ring_kinds(ring.name)[0] in err
    named = {kind for kinds in KINDS.values() for kind in kinds} - {"level"}
    assert named == {kind.name.lower() for kind in Kind} - {"none", "end"}


def test_every_ring_becomes_csv(journals: Path, tmp_path: Path, run: Run) -> None:
    """One file a ring, with venue and symbol first; the words are those of `cat`, what is not warm is empty."""
    paths = [journal_path(journals, ring.name) for ring in topology.RINGS]
    code, out, err = run("data", "convert", *paths, "--to", "csv", "--out", tmp_path / "csv", "--json")
    assert code == OK, err
    assert json.loads(out)["rows"] == {ring.name: 1 for ring in topology.RINGS}
    rows: dict[str, dict[str, str]] = {}
    for ring in topology.RINGS:
        with gzip.open(tmp_path / "csv" / f"{ring.name}.csv.gz", "rt", newline="") as file:
            (rows[ring.name],) = csv.DictReader(file)
    assert (rows["orders"]["venue"], rows["orders"]["symbol"]) == ("binance_spot", "BTCUSDT")
    assert (rows["control"]["venue"], rows["control"]["symbol"], rows["control"]["reason"]) == ("-", "-", "drawdown")
    assert (rows["orders"]["price"], rows["orders"]["side"], rows["orders"]["approved"]) == ("61837.63", "buy", "True")
    assert rows["signals"]["reason"] == "micro_trend" and rows["signals"]["signal_micro_trend"] == "0.5"
    assert rows["signals"]["signal_ema_cross"] == "" and rows["signals"]["signal_mine"] == "0.0"
    assert (rows["vectors"][FEATURES[1]], rows["vectors"][FEATURES[0]]) == ("1.5", "")
    assert rows["executions"]["fee"] == "-1.23e-06" and rows["executions"]["leaves_qty"] == "0.5"
    assert (rows["frames"]["line"], rows["frames"]["connection"]) == ("1", "3")
    first = {name: rows[f"intake.{name}"]["ring"] for name in ("feed", "quoter", "risk", "router", "exchange")}
    assert first == {"feed": "frames", "quoter": "reports", "risk": "control", "router": "executions", "exchange": "depth"}
    assert rows["resync"]["reason"] == "gap"


def test_every_ring_becomes_parquet(journals: Path, tmp_path: Path, run: Run) -> None:
    """A table a ring, by venue, symbol and date; the same columns as CSV, with types."""
    pq = pytest.importorskip("pyarrow.parquet")
    paths = [journal_path(journals, ring.name) for ring in topology.RINGS]
    code, _, err = run("data", "convert", *paths, "--to", "parquet", "--out", tmp_path / "out")
    assert code == OK, err
    for ring in topology.RINGS:
        (symbol, own), = parts_of(ring.name, records(ring))
        wanted = columns_of(ring.name, symbol, own, Names([BTC], ["mine"]))
        (file,) = (tmp_path / "out" / ring.name).rglob("*.parquet")
        found = pq.read_table(file, partitioning=None)
        assert found.column_names == list(wanted) and found.num_rows == 1
        assert str(file.parent).endswith("date=2024-08-08") and f"symbol={'BTCUSDT' if symbol == 0 else '-'}" in str(file)


def test_columns_are_as_the_documentation_lists_them() -> None:
    """docs/recording.md names every column of every ring but those made of the names of signals, features and levels."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "recording.md").read_text()
    names = Names([BTC])
    for ring in topology.RINGS:
        (symbol, own), = parts_of(ring.name, records(ring))
        for column in columns_of(ring.name, symbol, own, names):
            if column.startswith("signal_") or column in FEATURES or column[-2:] in ("_1", "_2", "_3", "_4", "_5"):
                continue
            assert f"`{column}`" in page, f"{ring.name}: {column}"


def test_unknown_numbers_stay_numbers() -> None:
    """A code of another version is shown as it is; without instruments prices are ticks, and columns of decimals are empty."""
    ring = topology.RING["orders"]
    recs = records(ring)[:1]
    recs["side"], recs["symbol"] = 9, 5
    columns = columns_of("orders", 5, recs, Names([]))
    assert columns["side"].tolist() == ["9"] and np.isnan(columns["price"]).all()
    assert Names([]).price(0, 12) == "12 ticks" and Names([BTC]).price(0, 12) == "0.12"
