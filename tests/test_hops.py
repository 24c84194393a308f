"""Where a record's time goes: stamps at emission, histograms by input and output, and what `bench hops` makes of them."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from cli_worlds import HeapMemory
from fold_world import small_market

from procs import topology
from procs.bench import hops, others
from procs.cli.latencies import deciding, histogram, measured
from procs.cli.latencies import hops as latencies
from procs.cli.main import main
from procs.cli.outcome import OK
from procs.cli.stats import lay_out_hops
from procs.cli.table import plain, visible
from procs.fold.assembly import Bound, LoopSettings, assemble, heap_world
from procs.fold.block import I_HELD, in_loc
from procs.fold.stamps import note_held, note_published, note_slept, note_taken
from procs.journal.digest import digest
from procs.memory import board
from procs.research import backtest
from ringbuf.layout import views
from ringbuf.ring import I_HEAD
from shm import histogram as counting
from shm.percentiles import Snapshot
from trading.records import Kind

STAMPED = tuple(entry.name for entry in topology.RINGS if "ts_publish_mono_ns" in (entry.record.names or ()))


@pytest.fixture(scope="module")
def run() -> backtest.Run:
    """A whole market in one process, every stamped ring kept."""
    return backtest.run(small_market(20.0), keep=STAMPED)


def said(run: backtest.Run, ring: str) -> np.ndarray:
    """A ring's records but for its END."""
    recs = run.kept[ring]
    return recs[recs["kind"] != Kind.END]


# ---- in the stages ----------------------------------------------------------------------------------------------------


def test_every_input_counts_its_own_records(run: backtest.Run) -> None:
    """As many as were on the ring: each taken record is counted once, by its input, on its reader's page, and nowhere else. Since
    its frame came in: only what a frame brought about."""
    nobody = 0
    for stage, ring in measured():
        recs = said(run, ring.name) if ring.name in STAMPED else np.zeros(0, ring.record)  # no socket here
        framed = int((recs["ts_origin_mono_ns"] > 0).sum())
        for what, expected in (("hop", len(recs)), ("wait", len(recs)), ("origin", framed)):
            assert histogram(run.world.board, stage.name, ring.name, what).count == expected, (stage.name, ring.name, what)
        nobody += len(recs) - framed
    assert nobody > 20, "nothing fell due"
    for stage, ring in measured():
        assert histogram(run.world.board, stage.name, ring.name, "wake").count == 0, "nobody slept"
    assert min(len(said(run, ring)) for ring in ("market", "signals", "quotes", "orders", "executions", "reports")) > 20


def test_every_output_counts_the_work_behind_its_records(run: backtest.Run) -> None:
    """One value a record that was published with stamps."""
    for stage in topology.Run(world="replay").hot:
        page = board.page(run.world.board, stage.stage_id)
        for o, ring in enumerate(hops.outputs_of(stage.name)):
            expected = len(said(run, ring)) if ring in STAMPED else 0
            assert Snapshot(board.of_output(page, o)).count == expected, (stage.name, ring)


def test_records_are_stamped_when_they_are_published(run: backtest.Run) -> None:
    """Stamps on a ring never fall; none is before the frame's arrival, and none before the stamp of the record's own cause, which
    had been published when it was taken."""
    for ring in STAMPED:
        recs = said(run, ring)
        at = recs["ts_publish_mono_ns"]
        assert (at > 0).all() and (np.diff(at) >= 0).all() and (at >= recs["ts_origin_mono_ns"]).all(), ring
        for cause in STAMPED:
            whole = run.kept[cause]
            caused = recs[(recs["cause_ring"] == topology.RING[cause].ring_id) & (recs["cause_seq"] >= 0)]
            assert (caused["ts_publish_mono_ns"] >= whole["ts_publish_mono_ns"][caused["cause_seq"]]).all(), (cause, ring)
    order = said(run, "orders")
    order = order[order["ts_origin_mono_ns"] > 0]
    taken = histogram(run.world.board, "router", "orders", "origin")
    assert taken.max_ns >= (order["ts_publish_mono_ns"] - order["ts_origin_mono_ns"]).max(), "taken after it was published"


def test_stamps_are_in_no_digest(run: backtest.Run) -> None:
    """The records' digests are the same whatever the clock said."""
    for ring in STAMPED:
        other = run.kept[ring].copy()
        other["ts_publish_mono_ns"] += 12_345
        other["ts_origin_mono_ns"] = 1
        assert digest(other, topology.RING[ring].record) == digest(run.kept[ring], topology.RING[ring].record), ring


@pytest.fixture
def bound() -> Bound:
    """A stage without its decisions: reports and market come in, quotes go out."""
    return assemble("quoter", heap_world({"quoter": ()}), (), LoopSettings())


def seen(bound: Bound, what: str, ring: str = "market") -> tuple[int, int]:
    """(count, sum) of one of an input's figures."""
    found = histogram(bound.keep[0].board, "quoter", ring, what)
    return found.count, round(found.mean_ns * found.count)


@pytest.mark.parametrize(
    ("published", "wake", "wait"),
    [
        (1_500, (1, 500), (1, 600)),  # while it slept: until it was woken, and from there on
        (1_000, (1, 1_000), (1, 600)),  # as it fell asleep
        (900, (0, 0), (1, 1_700)),  # before: it was awake, and its turn had not come
        (2_000, (0, 0), (1, 600)),  # as it woke
        (2_300, (0, 0), (1, 300)),  # awake again
    ],
)
def test_a_hop_is_cut_where_the_stage_was_woken(
    bound: Bound, published: int, wake: tuple[int, int], wait: tuple[int, int]
) -> None:
    """A stage that slept from 1000 to 2000 takes a record at 2600: only one that came meanwhile has a wake in its hop."""
    note_slept(bound.block, 1_000, 2_000)
    note_taken(bound.block, 1, published, 100, 2_600)
    assert seen(bound, "hop") == (1, 2_600 - published) and seen(bound, "origin") == (1, 2_500)
    assert (seen(bound, "wake"), seen(bound, "wait")) == (wake, wait)
    assert seen(bound, "hop", "reports") == seen(bound, "origin", "reports") == (0, 0), "another input's"


def test_what_the_merge_holds_back_is_no_wake(bound: Bound) -> None:
    """A record came in one sleep, was seen by the wake at 2000, held back, and taken after more sleeps: its wake ends at 2000."""
    ctl, slots, _ = views(bound.keep[0].rings["market"], topology.RING["market"].record)
    slots[0, 5], slots[0, -1] = 1_500, 1
    note_slept(bound.block, 1_000, 2_000)
    for n in range(3):
        note_held(bound.block)
        note_slept(bound.block, 3_000 + n * 1_000, 3_500 + n * 1_000)
    note_taken(bound.block, 1, 1_500, 100, 6_000)
    assert seen(bound, "wake") == (1, 500) and seen(bound, "wait") == (1, 4_000)
    assert seen(bound, "hop") == (1, 4_500)
    loc = in_loc(bound.block, 1)
    loc[I_HEAD] += 1
    note_held(bound.block)  # nothing lies there
    assert loc[I_HELD] == 1
    note_taken(bound.block, 1, 5_600, 100, 6_100)  # came awake, after the last sleep
    assert seen(bound, "wake") == (1, 500) and seen(bound, "wait") == (2, 4_500)


def test_the_work_of_an_output_ends_with_its_stamp(bound: Bound) -> None:
    """The stamp is the clock's, now; what lies between it and the cause's taking is counted once, on that output alone."""
    first = note_published(bound.block, 0, 0)
    second = note_published(bound.block, 0, first)
    page: Any = bound.keep[2]
    found = Snapshot(board.of_output(page, 0))
    assert 0 < first <= second and found.count == 2 and found.max_ns >= first - 1
    assert not board.of_output(page, 1).any()


# ---- for people -------------------------------------------------------------------------------------------------------


def told(memory: HeapMemory, stage: str, ring: str, **values: int) -> None:
    """Ten values, ns, in each of an input's histograms."""
    kinds = {"origin": board.ORIGIN, "awake": board.AWAKE, "woken": board.WOKEN, "wake": board.WAKE, "wait": board.WAIT}
    r = topology.STAGE[stage].inputs.index(ring)
    for what, value in values.items():
        for _ in range(10):
            counting.record(board.of_input(memory.page(stage), r, kinds[what]), value)


def test_latency_has_a_row_for_each_input() -> None:
    """Risk's market, signals and quotes are told apart, each row fits and says what it means; what has the venue's delay in it
    stands below."""
    memory = HeapMemory()
    for n, ring in enumerate(("market", "signals", "quotes")):
        told(memory, "risk", ring, awake=10 * (n + 1), origin=20 * (n + 1))
    told(memory, "risk", "reports", awake=50, origin=52_000_000)
    found = latencies(memory.board_words)
    for width in (60, 80, 160):
        lines = lay_out_hops(found, width, plain)
        assert max(map(visible, lines)) <= width
    apart = next(n for n, line in enumerate(lines) if line.startswith("over the venue"))
    risk = [line.split() for line in lines[:apart] if line.startswith("risk")]
    assert [(line[1], line[2], line[3], line[9]) for line in risk] == [
        ("market", "10", "10", "20"), ("signals", "10", "20", "40"), ("quotes", "10", "30", "60")
    ]  # fmt: skip
    assert any("frame to order: it leaves" in line for line in lines[:apart])
    (reports,) = [line for line in lines[apart:] if line.startswith("risk")]
    assert "50 ns" in reports and "52 ms" in reports and "hears what became of an order" in reports
    row = deciding(found, "risk")
    assert row is not None and row["input"] == "quotes" and deciding(found, "features") is None


def test_the_rows_of_the_bench_are_what_came_in_its_window() -> None:
    """Each hop has the writer's work, the wake, the take and the reader's work toward the wire, of the window alone."""
    memory = HeapMemory()
    told(memory, "risk", "quotes", awake=9_000_000, origin=9_000_000)
    before = hops.counted(memory.board_words)
    told(memory, "risk", "quotes", woken=30_000, origin=90_000, wake=20_000, wait=10_000)
    told(memory, "router", "executions", awake=8_000_000, origin=50_000_000)
    work_of = (("quoter", 0, 3_000), ("risk", 0, 6_000), ("risk", 1, 500), ("router", 0, 4_000), ("router", 1, 2_000))
    for stage, o, work in work_of:
        counting.record(board.of_output(memory.page(stage), o), work)
    rows = hops.rows({key: now.since(before[key]) for key, now in hops.counted(memory.board_words).items()})
    assert [row["hop"] for row in rows] == ["quotes to risk", "executions to router"]
    risk, router = rows
    near = {key: risk[key]["p50_ns"] for key in ("publish", "wake", "take", "compute", "whole", "from_frame")}
    expected = {"publish": 3_000, "wake": 20_000, "take": 10_000, "compute": 6_000, "whole": 30_000, "from_frame": 90_000}
    assert near == pytest.approx(expected, rel=0.02) and risk["wake"]["count"] == 10
    assert risk["compute_to"] == "orders" and router["compute_to"] == "reports" and router["venue_in"] == ["hop", "origin"]
    assert router["compute"]["p50_ns"] == 2_000 and router["wake"]["count"] == 0


def test_fastmm_is_read_by_what_its_session_says() -> None:
    """Its own figures from its last lines; a session that says none is a failure with its last words; absent, it is said."""
    log = (
        "INFO session.cpp:3040 fastmm-live: events=949 book_updates=100 orders=23 cancels=2 replaces=90 fills=21\n"
        "INFO session.cpp:3089 fastmm-live: realized_pnl=0.5 tick_to_trade p50=278527 ns p99=932929 ns\n"
    )
    assert others.fastmm_said(log, 10.0) == {
        "tick_to_trade_p50_ns": 278_527, "tick_to_trade_p99_ns": 932_929, "orders": 23, "events_per_s": 94.9,
    }  # fmt: skip
    with pytest.raises(ValueError, match="port taken"):
        others.fastmm_said("start\nport taken\n", 1.0)
    assert "279 us / 933 us" in others.fastmm_told({**others.fastmm_said(log, 10.0), "cpu_cores": 0.1, "pss_mb": None})
    assert others.fastmm_told({"missing": others.MISSING_PEER}).startswith("FastMM: not installed")


@pytest.mark.slow
def test_bench_hops_has_every_figure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds of the real pipeline at 1000 messages a second: every hop from the frame to the wire with all its parts, the
    order's way, CPU of all processes, and the bare futex; an override goes to the profile, and one that is wrong is refused."""
    monkeypatch.setattr(hops, "fastmm", lambda seconds: {"missing": "not in a test"})
    arguments = ["bench", "hops", "--seconds", "2", "--rate", "1000", "--json", "--set", "risk.max_open_orders=8"]
    assert main(arguments) == OK
    found = json.loads(capsys.readouterr().out)
    assert found["overrides"] == ["pipeline.placement=separate", "risk.max_open_orders=8"]
    assert found["wait"] == "block" and found["complaints"] == []
    assert found["frames"] > 500 and 500 < found["messages_per_s"] < 2_000
    rows = {row["hop"]: row for row in found["hops"]}
    way = ("market to features", "market to quoter", "signals to risk", "quotes to risk", "orders to router", "wire to exchange")
    assert set(way) <= set(rows)
    for name in way:
        for key in ("publish", "wake", "take", "compute", "whole", "from_frame"):
            figures = rows[name][key]
            assert figures["count"] > 0 and 0 < figures["p50_ns"] <= figures["p99_ns"] <= figures["max_ns"], (name, key)
    order = found["frame_to_order"]
    assert order == rows["orders to router"]["from_frame"] and order["p50_ns"] < found["over_the_venue"]["p50_ns"]
    assert 0 < found["cpu_cores"] < 8 and {"feed", "risk", "recorder", "supervisor", "zygote"} <= set(found["cpu"])
    assert found["peers"]["bare_futex"]["count"] >= 100 and found["peers"]["bare_futex"]["p50_ns"] > 0
    text = hops.format(found)
    assert "frame to order: p50" in text and "bare futex" in text and "wire to exchange*" in text
    with contextlib.suppress(SystemExit):
        assert main(["bench", "hops", "--set", "pipeline.waits=block"]) == 2
    assert "pipeline.waits" in capsys.readouterr().err
