"""`scalperctl bench features`: what a market record costs in the features, whole and by part, against what Python offers.

The records are the feed's own over a recording (spot BTCUSDT where there is one, else the embedded market). *Whole* is what the
features stage calls for each record, with and without the feature vector, for one symbol and for 50 between which the records
take turns: fifty states compete for the cache, and time passes fifty times as fast for each, so slots end at nearly every record.
*Parts* are single kernels, each alone over the records that reach it, less the loop around it: they add up to less than the
whole, which also reads and writes records.

What this module is not: a latency of the pipeline; `bench pipeline` measures hops between processes.
"""

from __future__ import annotations

import os
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from procs.bench import feature_peers, market_frames
from procs.bench.pair import BenchError
from procs.cli.table import Column as C
from procs.cli.table import count, table
from procs.recordings.folding import Folded
from sim.recordings.venue_staging import stage_any
from trading.books.fold import FEED_GLOBAL, FEED_STATE, MAX_DEPTH_OUT, MAX_MARKET_OUT, init, make_params, on_frame
from trading.features import bars, last_prints, liquidity, microprice, order_flow, toxicity, volume_profile
from trading.features import microstructure_score as scores
from trading.features import time_slots as slots
from trading.features import vector as feature_vector
from trading.features.bar_signals import on_close
from trading.features.vector import DIRTY_ALL
from trading.instruments import Instrument, instrument_table
from trading.jit import Floats, Recs, kernel
from trading.records import DEPTH_RECORD, MARKET_RECORD, SIGNAL_RECORD, Kind
from trading.scoring import ensemble
from trading.scoring import one_pass as features
from trading.settings import Strategy

ROUNDS: Final = 9
SYMBOLS: Final = 50
GOAL_NS: Final = 220.0
GOAL_MANY_NS: Final = 350.0
"""Signals and vector, a record: of one symbol, and of SYMBOLS."""

SEED_NS: Final = 800.0
"""What the seed document claims of a tick."""

_TRADE: Final = int(Kind.TRADE)
_SELL: Final = 2

PARTS: Final = (
    ("read_book", "the record's levels into the state", "change"),
    ("order_flow", "OFI of five levels, imbalance, spread and depth averages", "change"),
    ("acceleration", "velocity and acceleration of the mid", "change"),
    ("refill", "resilience after a sweep", "change"),
    ("prints", "vwap, run, divergence, Lee-Ready", "print"),
    ("volume", "volume window, aggressor flow", "print"),
    ("vpin", "volume buckets", "print"),
    ("impact", "impact decay by lag", "print"),
    ("profile", "volume profile, point of control", "print"),
    ("clocks", "slots and seconds: momentum, realised volatility, Kyle, regime, ranks", "all"),
    ("bars", "bars, volatility", "all"),
    ("bar_signals", "EMA, RSI, ATR, bands, patterns, GARCH, divergence: a bar that closes", "bar"),
    ("combine", "ensemble: score, confidence, reason", "all"),
    ("microstructure", "microstructure score", "all"),
    ("microprice", "microprice", "all"),
    ("vector", "the 50 features as a row, everything out of date", "all"),
)
"""(name, what it does, which records reach it). A part's number is its place + 1; 0 is the loop alone."""


@kernel
def _whole(
    recs: Recs, state: Recs, glob: Recs, params: Recs, instruments: Recs, out: Recs, row: Floats, vector: bool
) -> None:
    for i in range(len(recs)):
        features.on_market(recs, i, state, glob, params, instruments, out, i & 1023)
        if vector:
            feature_vector.fill(state, recs[i].symbol, params, row)


@kernel
def _part(part: int, recs: Recs, state: Recs, params: Recs, row: Floats) -> tuple[int, float]:
    """(calls, a sum that keeps the compiler from dropping them) of one part over all records of symbol 0."""
    s, p = state[0], params[0]
    calls = 0
    total = 0.0
    for i in range(len(recs)):
        rec = recs[i]
        print_ = rec.kind == _TRADE
        sign = -1 if rec.flags & _SELL else 1
        if part <= 4:
            if print_ or not bars.usable(rec):
                continue
            if part == 2:
                order_flow.take_changes(s, rec)
            features._read_book(s, p, rec)
            calls += 1
            if part == 2:
                order_flow.take_book(s, p)
                order_flow.evaluate(s, p)
            elif part == 3:
                order_flow.take_mid(s, p, rec.ts_ns)
            elif part == 4:
                liquidity.take_refill(s, p, rec.ts_ns)
            continue
        if part <= 9:
            if not print_ or rec.qty_lots <= 0:
                continue
            calls += 1
            if part == 5:
                total += last_prints.take(s, p, rec)
            elif part == 6:
                slots.take_volume(s, p, sign, rec.qty_lots)
                order_flow.take_aggressor(s, sign, rec.qty_lots)
            elif part == 7:
                toxicity.take_volume(s, p, sign, rec.qty_lots)
            elif part == 8:
                s.mid, s.twice_mid = rec.price_ticks, 2 * rec.price_ticks
                toxicity.take_impact(s, p, sign)
            elif part == 9:
                volume_profile.take(s, p, rec.price_ticks, rec.qty_lots)
            continue
        mid = 0.5 * (rec.bid_ticks[0] + rec.ask_ticks[0])
        calls += 1
        if part == 10:
            s.mid, s.twice_mid = mid, rec.bid_ticks[0] + rec.ask_ticks[0]
            if rec.ts_ns >= s.clock_end_ns:
                slots.advance(s, p, rec.ts_ns)
        elif part == 11:
            total += bars.roll(s, rec.ts_ns, mid, p.bar_ns, p.decay, p.warm_returns)
        elif part == 12:
            closed = bars.roll(s, i * p.bar_ns, mid, p.bar_ns, p.decay, p.warm_returns)
            if closed > 0:
                on_close(s, p, closed)
        elif part == 13:
            s.strength[i % 13] = 0.5 - (i & 1)
            total += ensemble.combine(s.strength, p.weight, s.ready, p.standing_mask, p.confirming_mask)[0]
        elif part == 14:
            if scores.warm(s, p):
                total += scores.score(s)
        elif part == 15:
            total += microprice.gap(s, s)
        elif part == 16:
            s.dirty = DIRTY_ALL
            total += feature_vector.fill(state, 0, params, row)
        else:
            total += mid
    return calls, total


@kernel
def _bare(part: int, recs: Recs) -> tuple[int, float]:
    """The loop of `_part` without the part."""
    calls = 0
    total = 0.0
    for i in range(len(recs)):
        rec = recs[i]
        print_ = rec.kind == _TRADE
        if part <= 4 and (print_ or not bars.usable(rec)):
            continue
        if 4 < part <= 9 and (not print_ or rec.qty_lots <= 0):
            continue
        calls += 1
        total += 0.5 * (rec.bid_ticks[0] + rec.ask_ticks[0])
    return calls, total


class _World:
    """State for some symbols, and the signals' room."""

    def __init__(self, symbols: int) -> None:
        self.instruments = instrument_table([Instrument(f"S{k}") for k in range(symbols)])
        self.params = features.make_params(Strategy(), self.instruments)
        self.state, self.glob = np.zeros(symbols, features.FEATURE_STATE), np.zeros(1, features.FEATURE_GLOBAL)
        self.out, self.row = np.zeros(1024, SIGNAL_RECORD), np.zeros(feature_vector.N_FEATURES)

    def restart(self) -> None:
        """Everything at its start."""
        features.init(self.state, self.glob, self.params, self.instruments)

    def run(self, recs: Recs, vector: bool) -> None:
        """All records."""
        _whole(recs, self.state, self.glob, self.params, self.instruments, self.out, self.row, vector)


def records_of(files: Sequence[str] = ()) -> tuple[str, Recs]:
    """(where from, MARKET_RECORD (n,)) of one symbol through the feed's own fold. BenchError, RecordingError."""
    chosen = [Path(file) for file in files] or list(market_frames.recorded_files())
    if chosen:
        with tempfile.TemporaryDirectory(prefix="scalper-bench-") as folder:
            spool = Path(folder) / "spool"
            folded = Folded(spool, stage_any(chosen, spool))
            recs = np.concatenate([chunk.market for chunk in folded.chunks()])
        name = ", ".join(it.name for it in folded.instruments)
    else:
        frames = market_frames.load()
        recs, name = _folded(frames), f"{frames.market} {frames.instrument.name}"
    recs = recs[recs["symbol"] == 0]
    if not (recs["kind"] == Kind.TRADE).any() or len(recs) < 100:
        raise BenchError("these recordings hold too few records or no trades: name others with --recording")
    return f"{name}: {', '.join(path.name for path in chosen) or 'the embedded market'}", recs


def _folded(frames: market_frames.Frames) -> Recs:
    instruments = instrument_table([frames.instrument])
    state, glob, params = np.zeros(1, FEED_STATE), np.zeros(1, FEED_GLOBAL), make_params()
    out, rows = np.zeros(MAX_MARKET_OUT, MARKET_RECORD), np.zeros(MAX_DEPTH_OUT, DEPTH_RECORD)
    init(state, glob, instruments, params)
    found = []
    for (start, end), recv in zip(frames.spans, frames.recv, strict=True):
        n = on_frame(frames.buf, start, end, recv, recv, 0, state, glob, params, instruments, out, rows)
        found.append(out[:n].copy())
    return np.concatenate(found)


def _wholes(recs: Recs, rounds: int) -> dict[str, dict[str, Any]]:
    many = recs.copy()
    many["symbol"] = np.arange(len(many)) % SYMBOLS
    ways = [
        ("signals, 1 symbol", recs, 1, False),
        ("signals and vector, 1 symbol", recs, 1, True),
        (f"signals, {SYMBOLS} symbols", many, SYMBOLS, False),
        (f"signals and vector, {SYMBOLS} symbols", many, SYMBOLS, True),
        ("book changes alone", recs[recs["kind"] != Kind.TRADE], 1, False),
        ("prints alone", recs[recs["kind"] == Kind.TRADE], 1, False),
    ]
    worlds = {symbols: _World(symbols) for symbols in (1, SYMBOLS)}
    spent: dict[str, list[float]] = {name: [] for name, *_ in ways}
    for _ in range(rounds + 1):  # the first is for the caches
        for name, own, symbols, vector in ways:
            world = worlds[symbols]
            world.restart()
            began = time.thread_time_ns()
            world.run(own, vector)
            spent[name].append((time.thread_time_ns() - began) / len(own))
    return {
        name: {"records": len(own), "ns_a_record": round(median(spent[name][1:]), 1), "best_ns": round(min(spent[name][1:]), 1)}
        for name, own, _, _ in ways
    }


def _parts(recs: Recs, rounds: int) -> list[dict[str, Any]]:
    world = _World(1)
    world.restart()
    world.run(recs, True)
    warm = world.state.copy()
    found = []
    for number, (name, meaning, reach) in enumerate(PARTS, 1):
        spent, bare, calls = [], [], 0
        for _ in range(rounds + 1):
            world.state[:] = warm
            if number in (10, 11):  # their clocks start over with the records
                world.restart()
            elif number == 12:
                world.state["bar_index"] = -1
            began = time.thread_time_ns()
            calls, _ = _part(number, recs, world.state, world.params, world.row)
            middle = time.thread_time_ns()
            _bare(number, recs)
            spent.append(middle - began)
            bare.append(time.thread_time_ns() - middle)
        took = max(0.0, median(spent[1:]) - median(bare[1:]))
        bars_closed = reach == "bar"
        found.append({
            "part": name, "meaning": meaning, "reached_by": reach, "calls": calls, "ns_a_call": round(took / max(calls, 1), 1),
            # a bar closes once a second of the recording, not at every record
            "ns_a_record": None if bars_closed else round(took / len(recs), 1),
        })  # fmt: skip
    return found


def _allocated(recs: Recs) -> dict[str, float]:
    """Heap allocations that do not end with the call, by numba's and by Python's own count, a record."""
    from numba.core.runtime import _nrt_python, rtsys

    world = _World(1)
    world.restart()
    world.run(recs[:1], True)
    made = []
    _nrt_python.memsys_enable_stats()
    try:
        for own in (recs[:0], recs):
            before = rtsys.get_allocation_stats().alloc
            world.run(own, True)
            made.append(rtsys.get_allocation_stats().alloc - before)
    finally:
        _nrt_python.memsys_disable_stats()
    peaks = []
    for own in (recs[:0], recs):
        tracemalloc.start()
        world.run(own, True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return {
        "numba_allocations_a_record": (made[1] - made[0]) / len(recs),
        "python_bytes_a_record": max(0, peaks[1] - peaks[0]) / len(recs),
    }


def run(files: Sequence[str] = (), rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure; figures as in `format`. BenchError, RecordingError."""
    market, recs = records_of(files)
    whole = _wholes(recs, rounds)
    parts = _parts(recs, rounds)
    mids = 0.5 * (recs["bid_ticks"][:, 0] + recs["ask_ticks"][:, 0]) * 0.01
    peers, absent = feature_peers.measure(mids[mids > 0], rounds)
    ours = next(part["ns_a_call"] for part in parts if part["part"] == "bar_signals")
    for peer in peers:
        peer["ratio"] = round(peer["ns_an_update"] / max(ours, 0.1), 1)
    return {
        "bench": "features", "market": market, "records": len(recs), "rounds": rounds,
        "load_average": round(os.getloadavg()[0], 2), "goal_ns": GOAL_NS, "goal_many_ns": GOAL_MANY_NS, "seed_claim_ns": SEED_NS,
        "whole": whole, "parts": parts,
        "allocated": _allocated(recs), "state_bytes_a_symbol": features.FEATURE_STATE.itemsize,
        "peers": peers, "absent": absent,
    }  # fmt: skip


def format(result: dict[str, Any]) -> str:
    """The result as tables for people."""
    lines = [f"{result['market']}: {result['records']:,} records; median of {result['rounds']} rounds of thread time, "
             f"load {result['load_average']}; state {result['state_bytes_a_symbol']:,} bytes a symbol", ""]  # fmt: skip
    rows = [[name, count(way["records"]), f"{way['ns_a_record']:.1f}", f"{way['best_ns']:.1f}"]
            for name, way in result["whole"].items()]  # fmt: skip
    lines += [*table((C("WHOLE", right=False), C("RECORDS"), C("NS A RECORD"), C("BEST ROUND")), rows, 130), ""]
    for symbols, goal in (("1 symbol", result["goal_ns"]), (f"{SYMBOLS} symbols", result["goal_many_ns"])):
        word = "met" if result["whole"][f"signals and vector, {symbols}"]["ns_a_record"] <= goal else "missed"
        lines.append(f"goal {goal:g} ns for all signals and features of {symbols}: {word}")
    lines += [f"the seed claims {result['seed_claim_ns']:g} ns a tick", ""]
    rows = [
        [part["part"], part["reached_by"], count(part["calls"]), f"{part['ns_a_call']:.1f}",
         "-" if part["ns_a_record"] is None else f"{part['ns_a_record']:.1f}", part["meaning"]]
        for part in result["parts"]
    ]  # fmt: skip
    columns = (C("PART", right=False), C("REACHED BY", right=False), C("CALLS"), C("NS A CALL"), C("NS A RECORD"),
               C("WHAT", right=False))  # fmt: skip
    lines += [*table(columns, rows, 150), ""]
    allocated = result["allocated"]
    lines += [f"allocations a record: {allocated['numba_allocations_a_record']:g} on numba's heap, "
              f"{allocated['python_bytes_a_record']:g} bytes of Python's", ""]  # fmt: skip
    rows = [[peer["name"], peer["what"], f"{peer['ns_an_update']:,.0f}", f"{peer['ratio']:,.1f}"] for peer in result["peers"]]
    if rows:
        heads = (C("FIVE INDICATORS A BAR", right=False), C("HOW", right=False), C("NS A BAR"), C("TIMES OURS (bar_signals)"))
        lines += table(heads, rows, 150)
    lines += [f"not measured, not installed: {name}" for name in result["absent"]]
    return "\n".join(lines)
