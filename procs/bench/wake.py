"""`scalperctl bench wake`: can a sleeper and a writer miss each other, what does waking cost, how long does it take?

The race. A writer publishes, then looks whether a reader has armed itself; a reader arms itself, then looks once more for a
record, then sleeps. If both look too early, the record lies there and nobody rings. On x86 this happens because the
writer's look may pass its own store. Here the two sides race through the ring's real functions, started together in every
round with a swept offset; a round is lost when the reader saw no record and its bell was not rung. The remedy, a
membarrier on the reader's side before its last look, must lose none; the same race without it must lose some, or the
race would prove nothing.

The whole of it. A process outside of the pipeline writes single records at random gaps into a group of all hot stages that
sleeps whenever it can (`into_a_group`). A lost wake is a sleep that only the clock ended while a record was there (`missed`),
but for as many as the writer itself was suspended between showing a record and looking for sleepers.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any, Final

import numpy as np

from procs import topology
from procs.bench.pair import (
    ARMING,
    ASLEEP_NS,
    BEATS,
    GO,
    HANG_S,
    Words,
    bare_futex,
    bare_sleep,
    bare_write,
    may_real_time,
    run_pair,
    shared_words,
    two_cores,
)
from procs.bench.ring_loops import OurRing
from procs.cli.latencies import histogram
from procs.fold.assembly import LoopSettings, World, arena_words, spec_of
from procs.fold.block import BLOCK as BLOCK_STAGES
from procs.fold.checkpoint import checkpoint_words, restore
from procs.fold.group import group_words
from procs.fold.group import run as run_group
from procs.fold.plan import plan_of
from procs.memory import board
from procs.memory.segments import format_ring
from procs.profiles.config import load_profile
from ringbuf.intrinsics import (
    MEMBARRIER_GLOBAL_EXPEDITED,
    cycles,
    evict,
    fetch_add,
    fetch_or,
    load_acquire,
    membarrier,
    mono_ns,
    pause,
    sched_yield,
    store_release,
)
from ringbuf.jit import lean
from ringbuf.layout import ARMED_READERS, READER_DOORBELL, TAIL, payload_bytes
from ringbuf.plain import ring_doorbell
from ringbuf.ring import I_HEAD, LOC_WORDS, O_FLUSHED, O_TAIL, Input, Output, begin, commit, flush, output, ready, release, room
from ringbuf.waiting import BLOCK, register, wait_readable
from shm.percentiles import MIDPOINTS, W_BUCKETS
from trading.records import FRAME_RECORD, Kind, identity_words

LINE_UP: Final = int(Kind.LINE_UP) << 32
RACES: Final = 400_000
CAPACITY: Final = 1024
WIDTH: Final = 8
SWEEP: Final = 3000
"""Cycles over which the reader's start is swept against the writer's: about a microsecond."""
SHOW_EVERY: Final = 32
"""Pushes between two flushes, as a stage has them under load (one a batch)."""
WAKES: Final = 400
RECORDS: Final = 20_000
MOST_GAP_NS: Final = 250_000
"""Gaps between two records are drawn from 0 to this: some come before the group is asleep, most after."""
LATE_NS: Final = 1_000_000
PUSHES: Final = 300_000
GOALS: Final = {"lost": 0, "writer_cost_percent": 5.0}
DONE: Final = 8  # words of `sync` besides those of a bare futex, each on a line of its own
EARLIER: Final = 64
EARLIER_LINES: Final = 4
"""Lines, in no cache, that the writer stores to before it publishes: stores leave a processor in order, so these keep the
record in the writer's store buffer while its look at the armed readers runs ahead. Any writer has such stores now and
then; without them the window is so short that cores that share their caches closely almost never show it.
"""
SYNC_WORDS: Final = EARLIER + 8 * EARLIER_LINES


@lean
def race_write(out: Output, bells: Words, sync: Words, races: int) -> int:
    """The writer's side of `races` rounds."""
    for n in range(races):
        # as in a running ring: the word of the armed readers lies in the writer's cache
        store_release(out.ctl, ARMED_READERS, 0)
        for k in range(EARLIER_LINES):
            evict(sync, EARLIER + 8 * k)
        store_release(sync, ARMING, n + 1)
        while load_acquire(sync, GO) != n + 1:
            pass
        for k in range(EARLIER_LINES):
            sync[EARLIER + 8 * k] = n
        row = begin(out)
        out.words[row, 0] = n
        commit(out)
        flush(out.ctl, out.loc, 0, bells)
        store_release(sync, DONE, n + 1)
        if room(out.ctl, out.loc, 1) < 1:
            return n
    return races


@lean
def race_sleep(end: Input, bells: Words, sync: Words, races: int, fenced: bool) -> int:
    """Lost rounds: the reader's side."""
    lost = 0
    bell = end.ctl[READER_DOORBELL]
    for n in range(races):
        while load_acquire(sync, ARMING) != n + 1:
            pass
        seen = load_acquire(bells, bell)
        ready(end.ctl, end.words, n)  # have the slot's line, as a reader that has just polled it has
        fetch_add(sync, GO, 1)
        start, offset = cycles(), (n * 37) % SWEEP
        while cycles() - start < offset:
            pass
        fetch_or(end.ctl, ARMED_READERS, 1)
        if fenced:
            membarrier(MEMBARRIER_GLOBAL_EXPEDITED)
        there = ready(end.ctl, end.words, n)
        while load_acquire(sync, DONE) != n + 1:
            pass
        if not there and load_acquire(bells, bell) == seen:
            lost += 1
        end.loc[I_HEAD] = n + 1
        release(end.ctl, end.loc, bells)
    return lost


def race(races: int, *, fenced: bool, most_lost: int = 1 << 40, cores: tuple[int, int] | None = None) -> dict[str, int]:
    """Race `races` times, or until `most_lost` are lost; {"races", "lost"}. BenchError.

    Without `fenced` the reader leaves its membarrier out.
    """
    done = lost = 0
    # in bursts: real-time priority is for tens of milliseconds at a time
    while done < races and lost < most_lost:
        r, sync = OurRing(WIDTH, CAPACITY), shared_words(SYNC_WORDS)
        burst = min(2_000, races - done)

        def write(r: OurRing = r, sync: Words = sync, burst: int = burst) -> int:
            register()
            return int(race_write(r.out, r.bells, sync, burst))

        def sleep(r: OurRing = r, sync: Words = sync, burst: int = burst) -> int:
            register()
            return int(race_sleep(r.end, r.bells, sync, burst, fenced))

        _, missed = run_pair(write, sleep, cores or two_cores())
        done, lost = done + burst, lost + missed
    return {"races": done, "lost": lost}


@lean
def _flush_unseeing(ctl: Words, loc: Words) -> None:
    """`flush` without the look for sleepers."""
    if loc[O_FLUSHED] != loc[O_TAIL]:
        loc[O_FLUSHED] = loc[O_TAIL]
        if loc[O_TAIL] > ctl[TAIL]:
            store_release(ctl, TAIL, loc[O_TAIL])


@lean
def _write_flushing(out: Output, bells: Words, sync: Words, count: int, every: int, looks: bool) -> int:
    """ns that `count` pushes take, shown `every` so many, with or without the look for sleepers."""
    while load_acquire(sync, GO) == 0:
        pause()
    start = mono_ns()
    for n in range(count):
        while room(out.ctl, out.loc, 1) < 1:
            pause()
        row = begin(out)
        for k in range(WIDTH - 1):
            out.words[row, k] = n + k
        commit(out)
        if n % every == every - 1:
            if looks:
                flush(out.ctl, out.loc, 0, bells)
            else:
                _flush_unseeing(out.ctl, out.loc)
    return mono_ns() - start


@lean
def _read_spinning(end: Input, bells: Words, sync: Words, count: int) -> int:
    store_release(sync, GO, 1)
    wrong = 0
    for n in range(count):
        while not ready(end.ctl, end.words, n):
            pause()
        row = n & (end.words.shape[0] - 2)
        for k in range(WIDTH - 1):
            wrong |= end.words[row, k] ^ (n + k)
        end.loc[I_HEAD] = n + 1
        if n % 32 == 31:
            release(end.ctl, end.loc, bells)
    release(end.ctl, end.loc, bells)
    return wrong


@lean
def _wake_write(out: Output, bells: Words, sync: Words, count: int, spent: Words) -> int:
    """Wake the sleeping reader `count` times; ns of each push with its wake into `spent`."""
    for n in range(count):
        while load_acquire(out.ctl, ARMED_READERS) == 0 or load_acquire(sync, DONE) != n:
            pause()
        start = mono_ns()
        while mono_ns() - start < ASLEEP_NS:
            pause()
        row = begin(out)
        before = mono_ns()
        out.words[row, 0] = before
        commit(out)
        flush(out.ctl, out.loc, 0, bells)
        spent[n] = mono_ns() - before
    return 0


@lean
def _wake_sleep(end: Input, bells: Words, sync: Words, count: int, late: Words) -> int:
    """Sleep for each of `count` records; ns from its push to having it into `late`."""
    for n in range(count):
        store_release(sync, DONE, n)
        while not wait_readable(end.ctl, end.words, n, 0, bells, BLOCK, 0, 1_000_000_000):
            pass
        late[n] = mono_ns() - end.words[n & (end.words.shape[0] - 2), 0]
        end.loc[I_HEAD] = n + 1
        release(end.ctl, end.loc, bells)
    return 0


@lean
def tell(out: Output, bells: Words, count: int, seed: int, most_ns: int) -> int:
    """Write `count` events of a line (trading.records.FRAME_RECORD), each by itself, up to `most_ns` apart.

    How often it was suspended for a millisecond or more while it published: its look for sleepers came that late.
    """
    due, suspended = mono_ns(), 0
    for n in range(count):
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        due = max(due, mono_ns()) + (seed >> 8) * most_ns // (1 << 23)
        while mono_ns() < due:
            pause()
        while room(out.ctl, out.loc, 1) < 1:
            sched_yield()
        row = begin(out)
        for k in range(out.words.shape[1] - 1):
            out.words[row, k] = 0
        out.words[row, 0], out.words[row, 2], out.words[row, 6] = n + 1, LINE_UP, mono_ns()
        commit(out)
        flush(out.ctl, out.loc, n + 1, bells)
        suspended += 1 if mono_ns() - out.words[row, 6] >= LATE_NS else 0
    return suspended


def _group() -> tuple[World, Words, list[Any]]:
    """(shared memory of a live pipeline, all its hot stages as one group, what keeps them alive); nobody records."""
    plan = replace(plan_of(load_profile("paper", {})), run=topology.Run(source="live"))
    names = tuple(stage.name for stage in plan.run.hot)
    modules: dict[str, Any] = {name: importlib.import_module(topology.STAGE[name].module) for name in names}
    rings = {}
    for entry in topology.RINGS:
        rings[entry.name] = shared_words(payload_bytes(entry.capacity, entry.record) // 8)
        format_ring(rings[entry.name], entry, without=("recorder", "receiver"), groups=(names,))
    specs = {name: spec_of(module, plan) for name, module in modules.items()}
    checkpoints = {name: shared_words(checkpoint_words(arena_words(name, spec))) for name, spec in specs.items()}
    world = World(rings, shared_words(board.BOARD_WORDS), checkpoints, outside=plan.run.outside)
    loop = LoopSettings(strategy=BLOCK_STAGES, spin=8, checkpoint_every=256, frames=8)
    bounds = [module.build(plan, world, loop) for module in modules.values()]
    return world, group_words([bound.block for bound in bounds]), bounds


def into_a_group(records: int, cores: tuple[int, int], most_gap_ns: int = MOST_GAP_NS) -> dict[str, Any]:
    """How long each of `records` waited that came into a sleeping group, how many were lost; a bare futex beside it.

    BenchError where the two processes cannot run.
    """
    world, group, bounds = _group()
    bells, stop = world.board[: board.DOORBELL_WORDS], board.page(world.board, topology.stage_id("feed"))
    out = output(world.rings["frames"], FRAME_RECORD, np.zeros(LOC_WORDS, np.int64), identity_words(FRAME_RECORD))
    for bound in bounds:
        restore(bound.block)  # compiled before the children are forked
    tell(out, bells, 0, 1, 1)

    def write() -> int:
        register()
        suspended, patience = int(tell(out, bells, records, 7, most_gap_ns)), 5_000
        while stop[board.FRAMES] < records and patience:  # an end takes nothing with it
            time.sleep(0.001)
            patience -= 1
        stop[board.DRAIN] = 1
        ring_doorbell(bells, board.doorbell(topology.stage_id("feed"), [[stage.name for stage in topology.Run().hot]]))
        return suspended

    def sleep() -> int:
        register()
        run_group(group)
        return 0

    suspended, _ = run_pair(write, sleep, cores, urgent=False, limit_s=HANG_S + 2 * records * most_gap_ns // 10**9)
    waited = histogram(world.board, "feed", "frames", "origin")
    pages = [board.page(world.board, stage.stage_id) for stage in topology.Run().hot]
    missed = sum(int(page[board.MISSED]) for page in pages)
    late = int(waited.words[W_BUCKETS:][MIDPOINTS > LATE_NS].sum())
    return {
        "records": records,
        "taken": waited.count,
        "lost": max(missed - suspended, 0) + records - waited.count,
        "missed": missed,
        "writer_suspended": suspended,
        "sleeps": int(stop[board.SLEEPS]),
        **{key: waited.percentile(q) for key, q in (("p50_ns", 50), ("p99_ns", 99), ("p999_ns", 99.9))},
        "max_ns": waited.max_ns,
        "over_1_ms": late,
        "bare_futex": bare_futex(2e9 / most_gap_ns, max(records // 10, BEATS + 1)),
    }


def writer_cost(cores: tuple[int, int], repeats: int) -> dict[str, float]:
    """What looking for sleepers costs a writer, ns a push and percent: shown once a batch, and shown each at once."""
    found: dict[str, float] = {}
    for key, every in (("batch", SHOW_EVERY), ("each", 1)):
        taken: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(2 * repeats):
            looks = turn % 2 == 1
            r, sync = OurRing(WIDTH, CAPACITY), shared_words(SYNC_WORDS)
            write = partial(_write_flushing, r.out, r.bells, sync, PUSHES, every, looks)
            ns, wrong = run_pair(write, partial(_read_spinning, r.end, r.bells, sync, PUSHES), cores)
            assert wrong == 0
            taken[looks].append(ns / PUSHES)
        with_, without = median(taken[True]), median(taken[False])
        found |= {
            f"{key}_push_ns": round(with_, 2),
            f"{key}_push_ns_without_look": round(without, 2),
            f"{key}_percent": round((with_ / without - 1) * 100, 1),
        }
    return found


def latency(cores: tuple[int, int], rounds: int) -> dict[str, Any]:
    """us from a push to the woken reader having the record, beside a bare futex in the same run; what a wake costs the writer."""
    ours: list[np.ndarray] = []
    bare: list[np.ndarray] = []
    cost: list[np.ndarray] = []
    for _ in range(rounds):
        r, sync, late, spent = OurRing(WIDTH, CAPACITY), shared_words(SYNC_WORDS), shared_words(WAKES), shared_words(WAKES)
        sync[DONE] = -1

        def write(r: OurRing = r, sync: Words = sync, spent: Words = spent) -> int:
            register()
            return int(_wake_write(r.out, r.bells, sync, WAKES, spent))

        def sleep(r: OurRing = r, sync: Words = sync, late: Words = late) -> int:
            register()
            return int(_wake_sleep(r.end, r.bells, sync, WAKES, late))

        run_pair(write, sleep, cores)
        ours.append(late[:WAKES].copy())
        cost.append(spent[:WAKES].copy())
        sync, late = shared_words(SYNC_WORDS), shared_words(WAKES)
        run_pair(partial(bare_write, sync, WAKES, 0), partial(bare_sleep, sync, WAKES, late), cores)
        bare.append(late[:WAKES].copy())

    def us(series: list[np.ndarray], q: int) -> float:
        return round(median(float(np.percentile(one, q)) for one in series) / 1e3, 2)

    return {
        "ours_p50_us": us(ours, 50),
        "ours_p99_us": us(ours, 99),
        "bare_futex_p50_us": us(bare, 50),
        "bare_futex_p99_us": us(bare, 99),
        "p50_ratio": round(us(ours, 50) / us(bare, 50), 3),
        "push_with_wake_p50_us": us(cost, 50),
    }


def _compile() -> None:
    """Compile every loop before it is timed, by running it for no rounds."""
    r, sync = OurRing(WIDTH, CAPACITY), shared_words(SYNC_WORDS)
    register()
    race_write(r.out, r.bells, sync, 0)
    race_sleep(r.end, r.bells, sync, 0, True)
    _read_spinning(r.end, r.bells, sync, 0)
    _write_flushing(r.out, r.bells, sync, 0, 1, True)
    _wake_write(r.out, r.bells, sync, 0, sync)
    _wake_sleep(r.end, r.bells, sync, 0, sync)
    bare_write(sync, 0, 0)
    bare_sleep(sync, 0, sync)


def run(
    races: int = RACES, *, rounds: int = 7, records: int | None = None, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Race, then measure; figures as in `format`. With `records`, only what becomes of so many single records.

    BenchError where there are not two cores.
    """
    say = progress or (lambda _: None)
    cores = two_cores()
    if records is not None:
        return {"cores": list(cores), "group": into_a_group(records, cores)}
    say("compiling")
    _compile()
    start = time.monotonic()
    say(f"{races:,} races with the membarrier")
    fenced = race(races, fenced=True, cores=cores)
    say(f"{races:,} races without")
    unfenced = race(races, fenced=False, cores=cores)
    say("cost")
    cost = writer_cost(cores, 4 * rounds)
    say("latency")
    late = latency(cores, rounds)
    return {
        "cores": list(cores),
        "real_time": may_real_time(),
        "seconds": round(time.monotonic() - start, 1),
        "fenced": fenced,
        "unfenced": unfenced,
        "has_teeth": unfenced["lost"] > 0,
        "writer": cost,
        "latency": late,
        "group": into_a_group(RECORDS, cores),
        "goals": {
            "lost": {"goal": GOALS["lost"], "found": fenced["lost"], "met": fenced["lost"] == 0 and unfenced["lost"] > 0},
            "writer_cost_percent": {
                "goal": GOALS["writer_cost_percent"],
                "found": cost["batch_percent"],
                "met": cost["batch_percent"] <= GOALS["writer_cost_percent"],
            },
        },
    }


def format(result: dict[str, Any]) -> str:
    """The result for people."""
    if "writer" not in result:
        return _told_of(result["group"])
    cost, late = result["writer"], result["latency"]
    rows = [
        f"cores {result['cores']}, real-time priority: {'yes' if result['real_time'] else 'no'}, {result['seconds']} s",
        "",
        f"aligned races, membarrier before the last look {result['fenced']['races']:>9,}   lost {result['fenced']['lost']:,}",
        f"the same without it                            {result['unfenced']['races']:>9,}   lost {result['unfenced']['lost']:,}"
        + ("" if result["has_teeth"] else "   (none: on this machine the race proves nothing)"),
        "",
        *(
            f"push, {what:<22}{cost[key + '_push_ns']} ns, without looking for sleepers "
            f"{cost[key + '_push_ns_without_look']} ns: {cost[key + '_percent']:+.1f} %"
            for key, what in (("batch", f"shown every {SHOW_EVERY}"), ("each", "shown each at once"))
        ),
        f"push that wakes       {late['push_with_wake_p50_us']} us (p50)",
        f"push to woken reader  p50 {late['ours_p50_us']} us, p99 {late['ours_p99_us']} us",
        f"bare futex            p50 {late['bare_futex_p50_us']} us, p99 {late['bare_futex_p99_us']} us   "
        f"(ours / bare: {late['p50_ratio']})",
        "",
        _told_of(result["group"]),
        "",
    ]
    for key, goal in result["goals"].items():
        rows.append(f"{key:<24} found {goal['found']:<8} goal {goal['goal']:<6} {'met' if goal['met'] else 'NOT met'}")
    return "\n".join(rows)


def _told_of(group: dict[str, Any]) -> str:
    bare = group["bare_futex"]

    def us(figures: dict[str, Any]) -> str:
        waits = ", ".join(f"{key.removesuffix('_ns')} {figures[key] / 1e3:,.1f}" for key in ("p50_ns", "p99_ns", "max_ns"))
        return f"{waits} us; {figures['over_1_ms']:,} over 1 ms"

    return "\n".join((
        f"{group['records']:,} single records into a sleeping group ({group['sleeps']:,} sleeps): {group['lost']:,} lost",
        f"  written to taken   {us(group)}",
        f"  bare futex         {us(bare)} of {bare['count']:,}" if "missing" not in bare else f"  bare futex: {bare['missing']}",
    ))  # fmt: skip
