"""`scalperctl bench ring`: our ring against a C++ index ring with cached peer indices, and against what Python offers.

Everything in one run, repetitions interleaved, medians of short bursts; two pinned processes; every word of every record is
checked on the reading side. In the throughput run our reader stays behind the writer for a few looks (LAG and LOOKS in
ring_loops.py). Always read a figure with its capacity: rings larger than the caches behave otherwise.
What was tried and rejected, with its figures, is in alternatives.md.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any, Final

import numpy as np

from procs.bench import others
from procs.bench.pair import BenchError, may_real_time, run_pair, shared_words, two_cores
from procs.bench.ring_loops import OurRing, PeerRing, build_peer
from ringbuf.intrinsics import cycles, mono_ns
from ringbuf.jit import lean

CAPACITY: Final = 1024
BURST: Final = 500_000
TRIPS: Final = 10_000
PAIRS: Final = 200_000
BATCH: Final = 32
REST: Final = 16
"""Pauses of the second policy: a side that waits lets the other one run ahead, which any ring thanks with throughput."""
SIZES: Final = {64: 8, 128: 16}
GOALS: Final = {"throughput_ratio": 1.5, "round_trip_p50_ratio": 1.0, "push_pop_ns": 5.0}
WARM_UP: Final = 1024

Cores = tuple[int, int]


@lean
def _tick(spin_ns: int) -> tuple[int, int]:
    """(cycles, ns) over a busy wait of `spin_ns`."""
    start, from_ = mono_ns(), cycles()
    now = start
    while now - start < spin_ns:
        now = mono_ns()
    return cycles() - from_, now - start


def ns_a_cycle() -> float:
    """Length of a tick of the time-stamp counter."""
    ticks, ns = max((_tick(2_000_000) for _ in range(5)), key=lambda pair: pair[0] / pair[1])
    return float(ns) / float(ticks)


def _rate(start: int, end: int, wrong: int, count: int) -> float:
    if wrong:
        raise BenchError(f"{wrong} of {count} records arrived with a wrong word: the ring is broken on this machine")
    return count / (end - start) * 1e3  # million a second


def ours_throughput(width: int, cores: Cores, count: int, pauses: int = 1) -> float:
    """Million records a second through our ring; a side that has to wait looks again after so many pauses."""
    r = OurRing(width, CAPACITY)
    start, (end, wrong) = run_pair(
        lambda: r.loops.produce(r.out, r.bells, count, pauses), lambda: r.loops.consume(r.end, r.bells, count, pauses), cores
    )
    return _rate(start, end, wrong, count)


def peer_throughput(peer: Any, width: int, cores: Cores, count: int, pauses: int = 1, batch: int = 0) -> float:
    """Million records a second through the C++ ring; `batch`: indices published once in so many records."""
    r = PeerRing(peer, width, CAPACITY)
    name, more = ("_batched", batch) if batch else ("", pauses)
    number = ctypes.c_uint64(more)
    start, (end, wrong) = run_pair(
        lambda: r.call("produce" + name, count, number), lambda: r.checked("consume" + name, count, number), cores
    )
    return _rate(start, end, wrong, count)


def ours_round_trip(width: int, cores: Cores, count: int) -> np.ndarray:
    """Cycles of each round trip through two of our rings."""
    there, back = OurRing(width, CAPACITY), OurRing(width, CAPACITY)
    spent = shared_words(count)
    wrong = run_pair(
        lambda: there.loops.ping(there.out, back.end, there.bells, count, spent),
        lambda: there.loops.pong(there.end, back.out, back.bells, count),
        cores,
    )
    _rate(0, 1, sum(wrong), count)
    return spent[:count]


def peer_round_trip(peer: Any, width: int, cores: Cores, count: int) -> np.ndarray:
    """Cycles of each round trip through two C++ rings."""
    there, back = PeerRing(peer, width, CAPACITY), PeerRing(peer, width, CAPACITY)
    spent = shared_words(count)
    target = ctypes.c_void_p(spent.ctypes.data)
    wrong = run_pair(lambda: there.call("ping", count, target, other=back), lambda: there.call("pong", count, other=back), cores)
    _rate(0, 1, sum(wrong), count)
    return spent[:count]


def _ours_alone(width: int, cores: Cores, every: int) -> float:
    r = OurRing(width, CAPACITY)
    (ns, wrong), _ = run_pair(lambda: r.loops.alone(r.out, r.end, r.bells, PAIRS, every), lambda: 0, cores)
    _rate(0, 1, wrong, PAIRS)
    return float(ns) / PAIRS


def _peer_alone(peer: Any, width: int, cores: Cores) -> float:
    r = PeerRing(peer, width, CAPACITY)
    (ns, wrong), _ = run_pair(lambda: r.checked("alone", PAIRS), lambda: 0, cores)
    _rate(0, 1, wrong, PAIRS)
    return float(ns) / PAIRS


def _spread(values: list[float]) -> dict[str, float]:
    low, mid, high = np.percentile(values, (25, 50, 75))
    return {"median": round(float(mid), 2), "p25": round(float(low), 2), "p75": round(float(high), 2)}


def _trip(cycles_spent: list[np.ndarray], tick_ns: float) -> dict[str, float]:
    # of each burst its percentiles, then the median over the bursts: one disturbed burst does not decide
    rows = [np.percentile(spent[WARM_UP:], (50, 99)) * tick_ns for spent in cycles_spent]
    return {"p50_ns": round(median(float(row[0]) for row in rows), 1), "p99_ns": round(median(float(row[1]) for row in rows), 1)}


def run(seconds: float = 8.0, *, with_others: bool = True, progress: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Measure for about `seconds` (the other libraries come on top); figures as in `format`. BenchError."""
    say = progress or (lambda _: None)
    cores, peer, tick = two_cores(), build_peer(), ns_a_cycle()
    say("compiling")
    _compile()
    series: dict[str, list[Any]] = {}

    def note(key: str, value: Any) -> None:
        series.setdefault(key, []).append(value)

    end = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < end or rounds < 3:
        say(f"round {rounds + 1}")
        for size, width in SIZES.items():
            note(f"ours.{size}", ours_throughput(width, cores, BURST))
            note(f"peer.{size}", peer_throughput(peer, width, cores, BURST))
            note(f"ours_rested.{size}", ours_throughput(width, cores, BURST, REST))
            note(f"peer_rested.{size}", peer_throughput(peer, width, cores, BURST, REST))
            note(f"peer_batched.{size}", peer_throughput(peer, width, cores, BURST, batch=BATCH))
            note(f"ours_trip.{size}", ours_round_trip(width, cores, TRIPS).copy())
            note(f"peer_trip.{size}", peer_round_trip(peer, width, cores, TRIPS).copy())
        note("ours_alone", _ours_alone(8, cores, BATCH))
        note("ours_alone_each", _ours_alone(8, cores, 1))
        note("peer_alone", _peer_alone(peer, 8, cores))
        rounds += 1
    result: dict[str, Any] = {
        "capacity": CAPACITY,
        "cores": list(cores),
        "real_time": may_real_time(),
        "load_average": round(os.getloadavg()[0], 2),
        "rounds": rounds,
        "records_checked": rounds * 2 * (5 * BURST + 4 * TRIPS) + rounds * 3 * PAIRS,
        "slots": {},
        "one_core_ns": {
            "ours": round(median(series["ours_alone"]), 2),
            "ours_shown_each": round(median(series["ours_alone_each"]), 2),
            "cpp": round(median(series["peer_alone"]), 2),
        },
    }
    for size in SIZES:
        ours, cpp = _spread(series[f"ours.{size}"]), _spread(series[f"peer.{size}"])
        ours_rested, cpp_rested = _spread(series[f"ours_rested.{size}"]), _spread(series[f"peer_rested.{size}"])
        batched = _spread(series[f"peer_batched.{size}"])
        ours_trip, cpp_trip = _trip(series[f"ours_trip.{size}"], tick), _trip(series[f"peer_trip.{size}"], tick)
        result["slots"][str(size)] = {
            "throughput_m_s": {
                "ours": ours,
                "cpp": cpp,
                "ours_rested": ours_rested,
                "cpp_rested": cpp_rested,
                "cpp_batched": batched,
            },
            "throughput_ratio": round(ours["median"] / cpp["median"], 3),
            "throughput_ratio_rested": round(ours_rested["median"] / cpp_rested["median"], 3),
            "round_trip": {"ours": ours_trip, "cpp": cpp_trip},
            "round_trip_p50_ratio": round(ours_trip["p50_ns"] / cpp_trip["p50_ns"], 3),
        }
    first = result["slots"]["64"]
    result["goals"] = {
        "throughput_ratio": {"goal": GOALS["throughput_ratio"], "found": first["throughput_ratio"],
                             "met": first["throughput_ratio"] >= GOALS["throughput_ratio"]},
        "round_trip_p50_ratio": {"goal": GOALS["round_trip_p50_ratio"], "found": first["round_trip_p50_ratio"],
                                 "met": first["round_trip_p50_ratio"] <= GOALS["round_trip_p50_ratio"]},
        "push_pop_ns": {"goal": GOALS["push_pop_ns"], "found": result["one_core_ns"]["ours"],
                        "met": result["one_core_ns"]["ours"] <= GOALS["push_pop_ns"]},
    }  # fmt: skip
    result["others"] = others.run(cores, say) if with_others else {}
    return result


def _compile() -> None:
    """Have every timed loop compiled before anything is timed, by a burst of none; the children inherit the code."""
    for width in SIZES.values():
        a, b = OurRing(width, CAPACITY), OurRing(width, CAPACITY)
        a.loops.consume(a.end, a.bells, 0, 1)
        a.loops.produce(a.out, a.bells, 0, 1)
        a.loops.pong(a.end, b.out, b.bells, 0)
        a.loops.ping(a.out, b.end, a.bells, 0, shared_words(1))
        a.loops.alone(a.out, a.end, a.bells, 0, 1)
    _tick(1000)


def format(result: dict[str, Any]) -> str:
    """The result as a table for people."""
    lines = [
        f"capacity {result['capacity']}, cores {result['cores']}, real-time priority: {'yes' if result['real_time'] else 'no'}, "
        f"{result['rounds']} rounds, load {result['load_average']}",
        f"{result['records_checked']:,} records, every word of each checked",
        "",
        f"{'two processes':<38}{'ours':>10}{'C++ index':>12}{'ratio':>8}",
    ]
    for size, slot in result["slots"].items():
        rate, trip = slot["throughput_m_s"], slot["round_trip"]
        rows = [
            ("million records/s", rate["ours"]["median"], rate["cpp"]["median"]),
            (f"  both wait {REST} pauses a look", rate["ours_rested"]["median"], rate["cpp_rested"]["median"]),
            (f"  C++ indices shown every {BATCH}", rate["ours"]["median"], rate["cpp_batched"]["median"]),
            ("round trip p50 ns", trip["ours"]["p50_ns"], trip["cpp"]["p50_ns"]),
            ("round trip p99 ns", trip["ours"]["p99_ns"], trip["cpp"]["p99_ns"]),
        ]
        lines += [f"{size + ' B  ' + what:<38}{ours:>10.1f}{cpp:>12.1f}{ours / cpp:>8.2f}" for what, ours, cpp in rows]
    one = result["one_core_ns"]
    lines += ["", f"push and pop on one core, ns: ours {one['ours']:.1f} ({one['ours_shown_each']:.1f} with cursor and tail "
                  f"shown for each record), C++ {one['cpp']:.1f}", ""]  # fmt: skip
    for key, goal in result["goals"].items():
        lines.append(f"{key:<24} found {goal['found']:<8} goal {goal['goal']:<6} {'met' if goal['met'] else 'NOT met'}")
    if result["others"]:
        lines += ["", *others.lines(result["others"])]
    return "\n".join(lines)


if __name__ == "__main__":
    print(format(run(progress=print)))
