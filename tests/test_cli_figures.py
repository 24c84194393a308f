"""What the command line reads from rings and board: tails, heads, lags, rates, percentiles, complaints."""

from __future__ import annotations

import numpy as np
import pytest
from cli_worlds import HeapMemory

from procs import topology
from procs.cli import latencies
from procs.cli.figures import complaints, ring_figures, snapshot, with_rates
from procs.cli.observe import Account, Markets, Orders, Symbol
from procs.memory import board
from ringbuf.layout import FULL_STALLS, GATING, OVERRUNS, reader_line
from ringbuf.plain import latest
from shm import histogram
from shm.percentiles import Snapshot
from trading.records import MARKET_RECORD, REPORT_RECORD, ExecType, Flag, Kind, OrderStatus, Side

BTC = Symbol("BTCUSDT", 0.01, 1e-8, 2)


def _market(n: int, symbol: int = 0, bid: int = 100, ask: int = 102, kind: Kind = Kind.DEPTH) -> np.ndarray:
    recs = np.zeros(n, MARKET_RECORD)
    recs["kind"], recs["symbol"], recs["flags"] = kind, symbol, Flag.BOOK_VALID
    recs["bid_ticks"][:, 0], recs["ask_ticks"][:, 0] = bid, ask
    recs["bid_lots"][:, 0] = recs["ask_lots"][:, 0] = 5
    recs["ts_ns"] = np.arange(n) + 1
    return recs


def _report(exec_type: ExecType, status: OrderStatus, order: int, side: Side = Side.BUY, ticks: int = 0, lots: int = 0,
            fee_e8: int = 0) -> np.ndarray:  # fmt: skip
    recs = np.zeros(1, REPORT_RECORD)
    recs["kind"], recs["exec_type"], recs["order_status"], recs["order_id"] = Kind.REPORT, exec_type, status, order
    recs["side"], recs["last_ticks"], recs["last_lots"], recs["fee_e8"] = side, ticks, lots, fee_e8
    return recs


def test_ring_figures_are_the_control_words() -> None:
    """Tail, heads, lag, stalls, overruns and utilisation come out as they stand in the words."""
    memory = HeapMemory()
    memory.publish("market", _market(10))
    memory.read("market", "features", 10)
    memory.read("market", "risk", 4)
    words, entry = memory.ring("market"), topology.RING["market"]
    words[FULL_STALLS] = 7
    words[reader_line(entry.reader_index("quoter")) + OVERRUNS] = 3
    found = ring_figures(words, entry)
    assert (found["tail"], found["capacity"], found["stalls"], found["record_bytes"]) == (10, 4096, 7, 256)
    by_name = {reader["name"]: reader for reader in found["readers"]}
    assert (by_name["features"]["head"], by_name["features"]["lag"]) == (10, 0)
    assert (by_name["risk"]["head"], by_name["risk"]["lag"]) == (4, 6)
    assert by_name["quoter"]["overruns"] == 3
    assert found["utilisation"] == round(10 / 4096, 4)


def test_a_reader_that_does_not_gate_does_not_count_as_fill() -> None:
    """Utilisation is the slowest gating reader's: without a recorder, the recorder's cursor says nothing."""
    memory = HeapMemory()
    memory.publish("refusals", np.zeros(100, topology.RING["refusals"].record))
    words = memory.ring("refusals")
    assert ring_figures(words, topology.RING["refusals"])["utilisation"] > 0
    words[reader_line(0) + GATING] = 0
    found = ring_figures(words, topology.RING["refusals"])
    assert found["utilisation"] == 0 and not found["readers"][0]["gating"]


def test_rates_are_differences_over_the_window() -> None:
    """Rates of tail, heads and records, and busy as the share of the window not asleep."""
    memory = HeapMemory()
    before = snapshot(memory)  # type: ignore[arg-type]
    memory.publish("market", _market(50))
    memory.read("market", "features", 30)
    page = memory.page("features")
    page[board.RECORDS], page[board.HEARTBEAT], page[board.SLEPT_NS] = 30, 9, 1_500_000_000
    found = with_rates(before, snapshot(memory), 2.0)  # type: ignore[arg-type]
    market = found["rings"][0]
    assert market["rate"] == 25.0 and market["readers"][0]["rate"] == 15.0
    stage = next(stage for stage in found["stages"] if stage["name"] == "features")
    assert stage["rate"] == 15.0 and stage["busy"] == 0.25
    idle = next(stage for stage in found["stages"] if stage["name"] == "risk")
    assert idle["busy"] is None, "a loop whose heartbeat stood still has no duty cycle"


def test_nothing_to_complain_about_when_all_heads_are_at_the_tails() -> None:
    """A drained pipeline without overruns has no complaints."""
    memory = HeapMemory()
    memory.publish("market", _market(5))
    memory.read_all()
    assert complaints(snapshot(memory), ended=True) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda m: m.read("market", "risk", 2), "risk stands 3 records behind the tail of market"),
        (lambda m: m.ring("market").__setitem__(reader_line(0) + OVERRUNS, 4), "features was overrun on market (4 records lost)"),
        (lambda m: m.page("router").__setitem__(board.DIVERGED, 1), "router recomputed 1 records differently"),
        (lambda m: m.page("recorder").__setitem__(board.FAULT, 1), "recorder reports fault 1"),
        (lambda m: m.page("feed").__setitem__(board.ORACLE_CHECKED, 9), "the book was wrong 9 times"),
        (lambda m: m.page("feed").__setitem__(board.MALFORMED, 2), "2 frames could not be decoded"),
        (lambda m: m.page("feed").__setitem__(board.FRAMES_EXPECTED, 8), "8 frames of the recording were not read"),
    ],
)
def test_each_fault_is_complained_about(break_it: object, says: str) -> None:
    """Whatever is not as it must be at the end is one clause."""
    memory = HeapMemory()
    memory.publish("market", _market(5))
    memory.read_all()
    break_it(memory)  # type: ignore[operator]
    assert complaints(snapshot(memory), ended=True) == [says]  # type: ignore[arg-type]


def test_an_empty_histogram_has_zeros() -> None:
    """Nothing counted: no division, no percentile."""
    found = latencies.spread(Snapshot(np.zeros(board.HISTOGRAM_WORDS, np.int64)))
    assert set(found.values()) == {0}


def test_difference_of_histograms_is_what_came_between() -> None:
    """`since` leaves only what was recorded between two copies."""
    words = np.zeros(histogram.WORDS, np.int64)
    histogram.record(words, 1_000_000)
    before = Snapshot(words)
    for _ in range(3):
        histogram.record(words, 500)
    found = latencies.spread(Snapshot(words).since(before))
    assert found["count"] == 3 and abs(found["max_ns"] - 500) <= 500 / 64


def test_markets_show_the_last_record_of_each_symbol() -> None:
    """Two symbols, interleaved: each has its own last top; END changes nothing."""
    memory = HeapMemory()
    memory.publish("market", _market(3, 0, 100, 102))
    memory.publish("market", _market(2, 1, 50, 53))
    memory.publish("market", _market(1, 0, 104, 105))
    memory.publish("market", _market(1, 0, 1, 2, Kind.END))
    markets = Markets(2)
    markets.look(memory.ring("market"))
    assert [(t.bid_ticks, t.ask_ticks, t.valid) for t in markets.tops] == [(104, 105, True), (50, 53, True)]


def test_records_overwritten_during_the_copy_are_left_out() -> None:
    """A slot whose sequence is not the one wanted is not shown: the writer was faster."""
    memory = HeapMemory()
    memory.publish("market", _market(6))
    words = memory.ring("market")
    slots = words[512:].reshape(-1, MARKET_RECORD.itemsize // 8)
    slots[2, -1] = 0  # being written
    slots[3, -1] = 4096 + 4  # lapped
    assert latest(words, MARKET_RECORD, 100)["seq"].tolist() == [1, 2, 5, 6]


def test_orders_fold_fills_into_position_and_profit() -> None:
    """Buy 2 at 100, sell 1 at 110: one left, ten ticks realised on one lot, fees added, the order table emptied."""
    symbol = Symbol("X", 1.0, 1.0, 0)
    memory = HeapMemory()
    memory.publish("reports", _report(ExecType.ACK, OrderStatus.OPEN, 1))
    memory.publish("reports", _report(ExecType.FILL, OrderStatus.FILLED, 1, Side.BUY, 100, 2, 50_000_000))
    memory.publish("reports", _report(ExecType.ACK, OrderStatus.OPEN, 2, Side.SELL))
    orders = Orders([symbol], None)
    orders.look(memory.ring("reports"))
    assert orders.counts.live == {2: 0}
    memory.publish("reports", _report(ExecType.FILL, OrderStatus.FILLED, 2, Side.SELL, 110, 1, 50_000_000))
    orders.look(memory.ring("reports"))
    account = orders.accounts[0]
    assert (account.position_lots, account.cost, account.realised, account.fees, account.fills) == (1, 100.0, 10.0, 1.0, 2)
    assert account.unrealised(symbol, 120.0) == 20.0
    assert orders.counts.live == {} and orders.counts.acks == 2 and orders.since_start


def test_a_fill_through_zero_turns_the_position() -> None:
    """Long 1 at 100, sell 3 at 90: ten lost on one, short 2 at 90."""
    account = Account()
    symbol = Symbol("X", 1.0, 1.0)
    account.fill(symbol, 1, 100, 1, 0.0)
    account.fill(symbol, -1, 90, 3, 0.0)
    assert (account.position_lots, account.cost, account.realised) == (-2, 180.0, -10.0)
    assert account.unrealised(symbol, 80.0) == 20.0
