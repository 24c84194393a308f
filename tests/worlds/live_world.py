"""A live pipeline against the local venue, and the venue's truth to hold it against.

The venue runs in a thread of the test (sim.worlds.served) and notes its own book after every update.
The pipeline is the real one, started as `scalperctl start` starts it. Afterwards its journals and raw recordings are read:
the book is built from the depth ring's records alone and compared with the truth at the same update id.

What this is not: a test.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import kill_run

from procs import topology
from procs.cli import last_run
from procs.cli.starting import Launch
from procs.journal.file import JournalReader, journal_path
from procs.memory import board
from procs.profiles.config import load_profile
from procs.receiver.line_table import read_table
from procs.recordings.instruments import noted
from procs.rundir import run_dir
from shm import cleanup
from sim.local_venue.book import units_of
from sim.worlds.served import PLACES, Key, ServedVenue, Top, VenueTruth
from trading.instruments import Instrument
from trading.records import Flag, Kind

T = TypeVar("T")


class LiveRun(kill_run.Run):
    """One live pipeline, from launch to what it left."""

    def __init__(
        self, instance: str, served: ServedVenue, symbols: Sequence[Key], overrides: dict[str, Any] | None = None
    ) -> None:
        self.instance = instance
        self.keys = list(symbols)
        wanted: dict[str, Any] = {
            "live.endpoints": served.endpoints(),
            "symbols": [{"name": name, "market": market} for market, name in symbols],
            **(overrides or {}),
        }
        words = ["--config", "live-paper", "--instance", instance]
        for key, value in wanted.items():
            words += ["--set", f"{key}={str(value).lower() if isinstance(value, bool) else value}"]
        self.launched = Launch(load_profile("live-paper", {**wanted, "instance": instance}), words)
        self.memory = None
        self.strays: set[int] = set()
        self._pidfd = -1

    # --- while it runs

    def counters(self, stage: str) -> dict[str, int]:
        """A stage's counters of now."""
        assert self.memory is not None
        from procs.cli.figures import stage_figures

        return stage_figures(self.memory.board_words, stage)["counters"]

    def lines(self) -> dict[str, Any]:
        """The receiver's own figures, a second old at most; {} before there are any."""
        return read_table(run_dir(self.instance)) or {}

    def tail(self, ring: str) -> int:
        """Records of a ring so far."""
        from ringbuf.layout import TAIL

        assert self.memory is not None
        return int(self.memory.ring(ring)[TAIL])

    def valid(self) -> list[bool]:
        """Whether each symbol's book was valid when it was last heard of."""
        from procs.cli.observe import Markets

        assert self.memory is not None
        if not hasattr(self, "_markets"):
            self._markets = Markets(len(self.keys))
        self._markets.look(self.memory.ring("market"))
        return [top.valid for top in self._markets.tops]

    def until(self, what: str, holds: Callable[[], bool], within_s: float, meanwhile: Callable[[], Any] = lambda: None) -> float:
        """Wait; how long it took, s. Fails with `what` when the time is over or the pipeline has ended."""
        began = time.monotonic()
        while not holds():
            assert time.monotonic() - began < within_s, f"not within {within_s:g} s: {what}; see {self.launched.log}"
            assert not self.ended(), f"the pipeline ended before {what}: see {self.launched.log}"
            meanwhile()
            self.strays |= self.children()
            self.look_away()
        return time.monotonic() - began

    def go_on(self, seconds: float, meanwhile: Callable[[], Any] = lambda: None) -> None:
        """Let it run."""
        until = time.monotonic() + seconds
        self.until(f"{seconds:g} s", lambda: time.monotonic() >= until, seconds + 60, meanwhile)

    def kill_stage(self, name: str) -> int:
        """SIGKILL; the incarnation that died."""
        page = self.page(name)
        died = int(page[board.INCARNATION])
        assert self._kill_child(int(page[board.PID])), f"{name} could not be killed"
        return died

    def back(self, name: str, died: int, within_s: float = 60.0) -> None:
        """Wait for the incarnation after that one."""
        page = self.page(name)
        self.until(f"{name} is back", lambda: int(page[board.INCARNATION]) > died and bool(page[board.READY]), within_s)

    def let_go(self) -> None:
        """Close the memory that was looked into."""
        memory, self.memory = self.memory, None
        if memory is not None:
            with contextlib.suppress(BufferError):
                memory.close()

    def end(self) -> last_run.LastRun:
        """Stop in order, wait; what the run left. Fails when anything is left behind."""
        self.strays |= self.children()
        self.let_go()
        self.stop()
        code = self.wait_end()
        assert code == 0, f"exit code {code}: see {self.launched.log}"
        kept = last_run.load(self.instance)
        assert kept is not None and kept.figures, f"no figures: see {self.launched.log}"
        assert cleanup.list_segments(self.instance) == []
        assert kill_run.living(self.strays, self.instance) == []
        return kept


def own_name(instance: str) -> str:
    """A name that no other test run of this machine has."""
    return f"{instance}-{os.getpid()}"


@contextlib.contextmanager
def live(
    instance: str, served: ServedVenue, symbols: Sequence[Key], overrides: dict[str, Any] | None = None, valid_s: float = 60.0
) -> Iterator[LiveRun]:
    """A pipeline that is ready and whose books are valid within `valid_s`; ended if the test has not done it. Its name is this
    run's own."""
    run = LiveRun(own_name(instance), served, symbols, overrides)
    try:
        run.ready()
        run.until("all books are valid", lambda: all(run.valid()), valid_s)
        yield run
    finally:
        run.let_go()
        run.close()


def counters(kept: last_run.LastRun, stage: str) -> dict[str, int]:
    """A stage's counters at the end."""
    found: dict[str, int] = next(s["counters"] for s in kept.figures["stages"] if s["name"] == stage)
    return found


def records(kept: last_run.LastRun, ring: str) -> Any:
    """A ring's records from its journal, whose chain is checked."""
    reader = JournalReader(journal_path(Path(kept.journal_dir), ring), topology.RING[ring].record)
    reader.check()
    return reader.records()


# --- the pipeline's books against the truth ----------------------------------------------------------------------------


def scales(instruments: Sequence[Instrument]) -> list[tuple[int, int]]:
    """(tick, lot) of each in 1e-8."""
    return [(units_of(it.tick_size), units_of(it.lot_size)) for it in instruments]


def scales_of(kept: last_run.LastRun) -> list[tuple[int, int]]:
    """The ticks and lots of a run, as noted beside its journals."""
    return scales(noted(Path(kept.journal_dir)))


def books(depth: Any, units: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, Top]]:
    """(symbol, update id, top) after each message that the depth ring tells of."""
    state: list[tuple[dict[int, int], dict[int, int]]] = [({}, {}) for _ in units]
    columns = [depth[name].tolist() for name in ("kind", "symbol", "flags", "price_ticks", "qty_lots", "update_id")]
    for kind, symbol, flags, price, lots, update_id in zip(*columns, strict=True):
        if kind in (Kind.STALE, Kind.SNAPSHOT):
            for side in state[symbol]:
                side.clear()
            continue
        if kind != Kind.DEPTH:
            continue
        side = state[symbol][1 if flags & Flag.ASK else 0]
        if lots:
            side[price] = lots
        else:
            side.pop(price, None)
        if flags & Flag.LAST:
            tick, lot = units[symbol]
            bids, asks = state[symbol]
            yield symbol, update_id, (
                tuple((p * tick, bids[p] * lot) for p in sorted(bids, reverse=True)[:PLACES]),
                tuple((p * tick, asks[p] * lot) for p in sorted(asks)[:PLACES]),
            )  # fmt: skip


@dataclass
class Comparison:
    """How often the pipeline's book was the venue's at the same update id."""

    checked: int = 0
    wrong: list[tuple[Key, int]] = field(default_factory=list)
    strange: list[tuple[Key, int]] = field(default_factory=list)  # update ids that the venue never had


def compare(depth: Any, keys: Sequence[Key], units: Sequence[tuple[int, int]], truth: VenueTruth) -> Comparison:
    """Every book of the depth ring with the truth."""
    found = Comparison()
    first: dict[int, bool] = {}
    for symbol, update_id, top in books(depth, units):
        known = truth.tops[keys[symbol]].get(update_id)
        if known is None:
            if first.get(symbol, False):  # the update that the venue began with is no update of its own
                found.strange.append((keys[symbol], update_id))
            first[symbol] = True
            continue
        first[symbol] = True
        found.checked += 1
        if known != top:
            found.wrong.append((keys[symbol], update_id))
    return found


def of_kind(market: Any, symbol: int, kind: Kind) -> list[int]:
    """The update ids (of trades: the trade ids) of a symbol's records of a kind, in order."""
    return [int(u) for u in market["update_id"][(market["symbol"] == symbol) & (market["kind"] == kind)]]


def missing_and_double(seen: Sequence[int], truth: Sequence[int]) -> tuple[list[int], list[int]]:
    """(ids between the first and the last seen that are not there, ids that are there twice)."""
    known = set(seen)
    lo, hi = min(seen), max(seen)
    double = sorted({u for u, v in zip(sorted(seen), sorted(seen)[1:], strict=False) if u == v})
    return [u for u in truth if lo <= u <= hi and u not in known], double


def lines_figures(run: LiveRun) -> list[dict[str, Any]]:
    """Each venue's row of the receiver's table."""
    return list(run.lines().get("venues", []))


def connects_of(run: LiveRun) -> int:
    """Connects in the budget's window."""
    return sum(int(row["connects_used"]) for row in lines_figures(run))
