"""`scalperctl bench link`: from the venue's socket write to the market record published, over loopback.

A sender process writes frames of the embedded market to a WebSocket and notes CLOCK_MONOTONIC before each write
(procs.bench.link_sender). A pipeline without decisions (receiver, feed, recorder; profile world `record`) takes them; this
process watches its market ring. A record is matched with its message by kind and id, its time is the feed's own stamp
(`ts_publish_mono_ns`), so that watching costs no latency. In the same run, with the same sender: clients that only count.

Two figures. Latency at a steady rate, p50 and p99 over every message. And the highest rate that is kept up: the rate rises by
half from step to step until the sender is held back, a message has no record, or the last record comes later than KEPT_UP_MS.

A network, or a venue that batches its frames, is not measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from procs.bench import market_frames
from procs.bench.pair import BenchError
from procs.cli.outcome import FAILED, CliError
from procs.cli.staging import child_environment
from procs.cli.starting import Launch
from procs.cli.table import Column as C
from procs.cli.table import count, span, table
from procs.memory.segments import ring_segment, segment_name
from procs.profiles.config import load_profile
from ringbuf.endpoint import Observer, open_observer
from trading.jit import Words
from trading.records import MARKET_RECORD, Flag, Kind

INSTANCE: Final = "bench-link"
RATE: Final = 1000
FIRST_RATE: Final = 3000
GROWTH: Final = 1.5
STEP_S: Final = 1.0
STEP_MOST: Final = 40_000
"""Messages of a step at most: higher rates are shown by shorter steps."""
TOP_RATE: Final = 300_000
KEPT_UP_MS: Final = 20.0
SENDER_SHARE: Final = 0.97
SYNC_RATE: Final = 200
PATIENCE_S: Final = 30.0
TIMEOUT_S: Final = 900.0

PROFILE: Final = """\
instance: {instance}
world: record
source: {{kind: live}}
live:
  venue: binance_spot
  endpoints:
    - {{venue: binance_spot, stream: "ws://127.0.0.1:{port}", rest: "http://127.0.0.1:{port}"}}
  fetch_rules: false
  arena_mb: 64
symbols: [{{name: BTCUSDT}}]
pipeline: {{journal: false}}
"""


class Target(Protocol):
    """Who gets the messages."""

    name: str

    def follow(self) -> None:
        """Take note of what has arrived; called often."""

    def arrivals(self, first: int, n: int) -> Words:
        """CLOCK_MONOTONIC at which each of these messages had arrived; 0: not seen, by now or at all."""

    def arrived(self) -> int:
        """How many have arrived since the last call of `begin`."""

    def begin(self, first: int) -> None:
        """The next messages begin with this one."""


# ---- the sender -------------------------------------------------------------------------------------------------------


class Feeder:
    """The sender process and the frames that are left."""

    def __init__(self, folder: Path, need: int) -> None:
        frames = market_frames.generated(limit=need)
        self.folder, self.total = folder, len(frames.spans)
        np.save(folder / "frames.npy", frames.buf)
        np.save(folder / "spans.npy", frames.spans)
        np.save(folder / "stamps.npy", np.zeros(self.total, np.int64))
        self.stamps: Words = np.load(folder / "stamps.npy", mmap_mode="r")
        self.kinds, self.ids = _identities(frames.all())
        self.next = 1  # the first one is the REST snapshot
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "procs.bench.link_sender", str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=child_environment(), bufsize=0,
        )  # fmt: skip
        self._rest = b""
        self.port = int(self.answer("port", PATIENCE_S)["port"])

    def answer(self, key: str, timeout: float, meanwhile: Any = None) -> dict[str, Any]:
        """The next answer that has `key`; others are passed over. BenchError when none comes."""
        assert self._child.stdout is not None
        limit = time.monotonic() + timeout
        while time.monotonic() < limit:
            while b"\n" in self._rest:
                line, self._rest = self._rest.split(b"\n", 1)
                said: dict[str, Any] = json.loads(line)
                if key in said:
                    return said
            if select.select([self._child.stdout], [], [], 0.002)[0]:
                piece = self._child.stdout.read(65536)
                if not piece:
                    raise BenchError("the bench's sender ended: run `scalperctl doctor`")
                self._rest += piece
            if meanwhile is not None:
                meanwhile()
        raise BenchError(f"the bench's sender said nothing of {key!r} for {timeout:g} s")

    def send(self, n: int, rate: float, target: Target, *, first: int | None = None) -> dict[str, Any]:
        """Send n messages at a rate; the sender's account of it, with `first`."""
        at = self.next if first is None else first
        if at + n > self.total:
            raise BenchError(f"the frames made for this bench ({self.total}) are used up: measure with fewer --seconds")
        self.next = max(self.next, at + n)
        target.begin(at)
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps({"first": at, "count": n, "rate": rate}).encode() + b"\n")
        said = self.answer("sent", n / rate * 20 + PATIENCE_S, target.follow)
        if said.get("gone"):
            raise BenchError(f"{target.name} ended its connection after {said['sent']} of {n} messages")
        return {"first": at, **said}

    def close(self) -> None:
        """End the process."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(5)
        self._child.kill()
        self._child.wait()


def _identities(frames: list[bytes]) -> tuple[Words, Words]:
    """(kind of the market record, its update_id) of each frame; kind 0 for the snapshot."""
    kinds, ids = np.zeros(len(frames), np.int64), np.zeros(len(frames), np.int64)
    for i, raw in enumerate(frames):
        body = json.loads(raw).get("data", {})
        kind = body.get("e", "bookTicker" if "B" in body else "")
        if kind:
            names = {"depthUpdate": (Kind.DEPTH, "u"), "trade": (Kind.TRADE, "t"), "bookTicker": (Kind.BBO, "u")}
            kinds[i], ids[i] = names[kind][0], body[names[kind][1]]
    return kinds, ids


# ---- who takes them ---------------------------------------------------------------------------------------------------


class Pipeline:
    """Receiver, feed and recorder as they run in earnest, watched at the market ring."""

    name = "our pipeline, to the record"

    def __init__(self, feeder: Feeder, launched: Launch) -> None:
        self._feeder, self._launched = feeder, launched
        self.observer: Observer = open_observer(
            segment_name(INSTANCE, ring_segment("market")), MARKET_RECORD, from_oldest=False
        )
        self.seen: Words = np.zeros(feeder.total, np.int64)
        self.valid = False
        self.stale = 0
        self._begun = 0
        self._where = {
            int(kind): np.flatnonzero(feeder.kinds == kind) for kind in (Kind.DEPTH, Kind.TRADE, Kind.BBO)
        }

    def begin(self, first: int) -> None:
        """Count from here."""
        self._begun = self.observer.tail

    def arrived(self) -> int:
        """By the ring's tail: every message gives one record."""
        return int(self.observer.tail) - self._begun

    def follow(self) -> None:
        """Take what is new from the ring."""
        while len(rows := self.observer.poll(1024)):
            self.valid = bool(rows[-1]["flags"] & Flag.BOOK_VALID)
            self.stale += int((rows["kind"] == Kind.STALE).sum())
            for kind, where in self._where.items():
                of_kind = rows[rows["kind"] == kind]
                if len(of_kind):
                    ids = self._feeder.ids[where]
                    at = np.minimum(np.searchsorted(ids, of_kind["update_id"]), len(ids) - 1)
                    good = ids[at] == of_kind["update_id"]
                    self.seen[where[at[good]]] = of_kind["ts_publish_mono_ns"][good]

    def arrivals(self, first: int, n: int) -> Words:
        """Stamps of the records."""
        return self.seen[first : first + n]

    def synchronise(self) -> None:
        """Send until the book is valid."""
        limit = time.monotonic() + PATIENCE_S
        while not self.valid:
            if time.monotonic() > limit or self._launched.ended() is not None:
                raise CliError(f"the pipeline's book did not become valid: see {self._launched.log}", FAILED)
            self._feeder.send(SYNC_RATE // 4, SYNC_RATE, self)


class Counter:
    """A client that only counts."""

    def __init__(self, way: str, feeder: Feeder) -> None:
        self.name = f"{way}, only counting"
        self._feeder, path = feeder, feeder.folder / "seen.npy"
        np.save(path, np.zeros(feeder.total + 1, np.int64))
        self._seen: Words = np.load(path, mmap_mode="r")
        self._first = self._offset = 0
        url = f"ws://127.0.0.1:{feeder.port}/stream?streams=btcusdt@depth@100ms/btcusdt@trade/btcusdt@bookTicker"
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "procs.bench.link_counter", way, url, str(feeder.folder)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=child_environment(),
        )  # fmt: skip
        feeder.answer("subscribed", PATIENCE_S)

    def begin(self, first: int) -> None:
        """Count from here."""
        self._first, self._offset = first, int(self._seen[0])

    def arrived(self) -> int:
        """By its own count."""
        return int(self._seen[0]) - self._offset

    def follow(self) -> None:
        """It writes its stamps itself."""

    def arrivals(self, first: int, n: int) -> Words:
        """Its stamps; of the messages since `begin` only."""
        at = 1 + self._offset + first - self._first
        return self._seen[at : at + n]

    def close(self) -> None:
        """End it."""
        self._child.kill()
        self._child.wait()


@contextlib.contextmanager
def _pipeline(feeder: Feeder) -> Iterator[Pipeline]:
    path = feeder.folder / "bench-link.yaml"
    path.write_text(PROFILE.format(instance=INSTANCE, port=feeder.port))
    launched = Launch(load_profile(path), ["--config", str(path)])
    target: Pipeline | None = None
    try:
        launched.must_run(TIMEOUT_S)
        feeder.answer("subscribed", PATIENCE_S)
        target = Pipeline(feeder, launched)
        target.synchronise()
        yield target
    finally:
        if target is not None:
            target.observer.close()
        if launched.ended() is None:
            launched.give_up()


# ---- measuring --------------------------------------------------------------------------------------------------------


def _settled(target: Target, n: int, patience_s: float) -> bool:
    """Wait until all n messages have arrived; whether they did."""
    limit = time.monotonic() + patience_s
    while target.arrived() < n and time.monotonic() < limit:
        target.follow()
        time.sleep(0.001)
    target.follow()
    return target.arrived() >= n


def _latency(feeder: Feeder, target: Target, rate: float, seconds: float, first: int | None = None) -> dict[str, Any]:
    n = max(100, int(rate * seconds))
    said = feeder.send(n, rate, target, first=first)
    complete = _settled(target, n, 5.0)
    at = said["first"]
    stamps, arrivals = feeder.stamps[at : at + n], target.arrivals(at, n)
    spent = (arrivals - stamps)[arrivals > 0]
    if not len(spent):
        raise BenchError(f"{target.name}: none of {n} messages arrived")
    p50, p99, p999 = np.percentile(spent, (50, 99, 99.9))
    return {
        "rate": rate, "messages": n, "matched": len(spent), "complete": complete, "p50_ns": round(float(p50)),
        "p99_ns": round(float(p99)), "p999_ns": round(float(p999)), "max_ns": int(spent.max()),
    }  # fmt: skip


def _step(feeder: Feeder, target: Target, rate: float, first: int | None = None) -> dict[str, Any]:
    n = int(min(rate * STEP_S, STEP_MOST))
    said = feeder.send(n, rate, target, first=first)
    arrived = _settled(target, n, 2.0)
    last = said["first"] + n - 1
    stamp, arrival = int(feeder.stamps[last]), int(target.arrivals(said["first"], n)[-1])
    behind_ms = (arrival - stamp) / 1e6 if arrival else None
    achieved = n / said["seconds"]
    why = ""
    if not arrived:
        why = f"{n - target.arrived()} of {n} messages did not arrive"
    elif achieved < rate * SENDER_SHARE:
        why = "the receiving side held the sender back" if said["waited_s"] > 0.02 * said["seconds"] else "the sender's own limit"
    elif behind_ms is None or behind_ms > KEPT_UP_MS:
        why = "the last one came late"
    return {
        "rate": round(rate), "achieved": round(achieved), "messages": n, "behind_ms": behind_ms, "kept_up": not why, "why": why
    }  # fmt: skip


def _sustained(feeder: Feeder, target: Target, again: bool) -> dict[str, Any]:
    """The highest rate that was kept up. `again`: these frames were sent before; the ids may repeat."""
    steps: list[dict[str, Any]] = []
    rate = float(FIRST_RATE)
    while rate <= TOP_RATE:
        steps.append(_step(feeder, target, rate, 1 if again else None))
        if not steps[-1]["kept_up"]:
            break
        rate *= GROWTH
    good = [step for step in steps if step["kept_up"]]
    return {"messages_per_s": good[-1]["achieved"] if good else 0, "ended_by": steps[-1]["why"] or "the bench's own top rate",
            "steps": steps}  # fmt: skip


def _need(seconds: float) -> int:
    need, rate = 5000 + int(RATE * seconds), float(FIRST_RATE)
    while rate <= TOP_RATE:
        need += int(min(rate * STEP_S, STEP_MOST))
        rate *= GROWTH
    return need


def run(seconds: float = 10.0, *, with_pipeline: bool = True) -> dict[str, Any]:
    """Measure the latency over `seconds` a way, and the rates. BenchError, CliError."""
    try:
        import picows  # noqa: F401
    except ImportError:
        raise BenchError("bench link needs picows: pip install 'scalper[bench]'") from None
    ways: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="scalper-bench-") as folder:
        feeder = Feeder(Path(folder), _need(seconds))
        try:
            if with_pipeline:
                with _pipeline(feeder) as target:
                    _latency(feeder, target, RATE, 1.0)  # what is cold once is not measured
                    ways["ours"] = {"name": target.name, "latency": _latency(feeder, target, RATE, seconds)}
                    ways["ours"]["sustained"] = _sustained(feeder, target, False)
                    ways["ours"]["unwatched"] = target.observer.lost
            for way in ("picows", "websockets"):
                counter = Counter(way, feeder)
                try:
                    _latency(feeder, counter, RATE, 1.0, first=1)
                    ways[way] = {"name": counter.name, "latency": _latency(feeder, counter, RATE, seconds, first=1)}
                    ways[way]["sustained"] = _sustained(feeder, counter, True)
                finally:
                    counter.close()
        finally:
            feeder.close()
    wrong = [f"{way['name']}: {way['latency']['messages'] - way['latency']['matched']} messages have no record"
             for way in ways.values() if way["latency"]["matched"] < way["latency"]["messages"]]  # fmt: skip
    return {
        "bench": "link",
        "market": "embedded market's frames over loopback",
        "cores": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 2),
        "ways": ways,
        "complaints": wrong,
    }


def format(result: dict[str, Any]) -> str:
    """The result as text."""
    rows = []
    for way in result["ways"].values():
        seen = way["latency"]
        rows.append([way["name"], *(span(seen[key]) for key in ("p50_ns", "p99_ns", "p999_ns", "max_ns")),
                     count(way["sustained"]["messages_per_s"]), way["sustained"]["ended_by"]])  # fmt: skip
    first = next(iter(result["ways"].values()))["latency"]
    columns = (C("SOCKET WRITE TO", right=False), C("P50"), C("P99"), C("P99.9"), C("MAX"), C("KEPT UP, MSG/S"),
               C("WHAT ENDED THE NEXT STEP", right=False))  # fmt: skip
    lines = [
        f"{result['market']}, {result['cores']} cores, load {result['load_average']}; latencies at {first['rate']:,} messages/s, "
        f"{first['messages']:,} of them",
        "",
        *table(columns, rows, 130),
    ]
    return "\n".join(lines + [f"! {text}" for text in result["complaints"]])
