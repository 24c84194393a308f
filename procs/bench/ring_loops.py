"""The loops that the ring benchmark times: ours, through the ring's own functions, and the peer's, in C++.

Both sides of both rings do the same: fill every word of a record with a value that depends on its number, and compare
every word of what arrives (`FACTOR` and `fill` in cpp/index_ring.cpp).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from procs.bench.pair import BenchError, Words, shared_words
from ringbuf import layout, ring
from ringbuf.batch import readable_ahead
from ringbuf.intrinsics import cycles, load_acquire, mono_ns, pause, store_release
from ringbuf.jit import lean
from ringbuf.layout import CONTROL_WORDS
from ringbuf.ring import I_HEAD, Input, Output, begin, commit, flush, ready, release, room

FACTOR: Final = 0x9E3779B97F4A7C15 - (1 << 64)
SHOW_EVERY: Final = 32
"""Records between two flushes (releases) in the throughput run; the records themselves are visible one by one."""
AHEAD: Final = 32
"""How far ahead the reader of the throughput run looks first (ringbuf.batch.readable_ahead)."""
GO: Final = CONTROL_WORDS - 8  # a spare word of the control page
SOURCE: Final = Path(__file__).with_name("cpp") / "index_ring.cpp"
FLAGS: Final = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC")


class Loops(NamedTuple):
    """The timed loops for one width of records; each is compiled."""

    produce: Any  # (out, doorbells, count, pauses) -> CLOCK_MONOTONIC ns at the start
    consume: Any  # (end, doorbells, count, pauses) -> (CLOCK_MONOTONIC ns at the end, wrong records)
    ping: Any  # (out, back, doorbells, count, spent: cycles of each trip) -> wrong records
    pong: Any  # (there, out, doorbells, count) -> wrong records
    alone: Any  # (out, end, doorbells, count, every) -> (ns, wrong records)


@cache
def loops(width: int) -> Loops:
    """The loops for records of `width` words. The width is a constant of the code, as a record's fields are in a stage
    (and as the peer's is, a template's argument); the ring's own functions do not know it.
    """
    last = width - 1

    @lean
    def put(out: Output, n: int) -> None:
        """Write record n into the next slot and publish it."""
        row = begin(out)
        base = n * FACTOR
        for k in range(last):
            out.words[row, k] = base + k
        commit(out)

    @lean
    def check(end: Input, n: int) -> int:
        """1 when a word of record n is wrong, else 0; steps over it."""
        row = n & (end.words.shape[0] - 2)
        base = n * FACTOR
        wrong = end.words[row, last] ^ (n + 1)
        for k in range(last):
            wrong |= end.words[row, k] ^ (base + k)
        end.loc[I_HEAD] = n + 1
        return 1 if wrong != 0 else 0

    @lean
    def produce(out: Output, doorbells: Words, count: int, pauses: int) -> int:
        """Push `count` records, looking for room once in `pauses`; CLOCK_MONOTONIC ns at the start."""
        while load_acquire(out.ctl, GO) == 0:
            pause()
        start = mono_ns()
        n = 0
        while n < count:
            if room(out.ctl, out.loc, SHOW_EVERY) < SHOW_EVERY:
                for _ in range(pauses):
                    pause()
                continue
            for _ in range(min(SHOW_EVERY, count - n)):
                put(out, n)
                n += 1
            flush(out.ctl, out.loc, 0, doorbells)
        return start

    @lean
    def consume(end: Input, doorbells: Words, count: int, pauses: int) -> tuple[int, int]:
        """(CLOCK_MONOTONIC ns at the end, wrong records) of reading `count` records."""
        wrong = 0
        store_release(end.ctl, GO, 1)
        n = 0
        while n < count:
            there = readable_ahead(end.words, n, AHEAD)
            if there == 0:
                for _ in range(pauses):
                    pause()
                continue
            for _ in range(there):
                wrong += check(end, n)
                n += 1
            release(end.ctl, end.loc, doorbells)
        return mono_ns(), wrong

    @lean
    def ping(out: Output, back: Input, doorbells: Words, count: int, spent: Words) -> int:
        """Send a record, wait for its answer, `count` times; cycles of each into `spent`; wrong records."""
        wrong = 0
        while load_acquire(out.ctl, GO) == 0:
            pause()
        for n in range(count):
            before = cycles()
            while room(out.ctl, out.loc, 1) < 1:
                pause()
            put(out, n)
            flush(out.ctl, out.loc, 0, doorbells)
            while not ready(back.ctl, back.words, n):
                pause()
            wrong += check(back, n)
            release(back.ctl, back.loc, doorbells)
            spent[n] = cycles() - before
        return wrong

    @lean
    def pong(there: Input, out: Output, doorbells: Words, count: int) -> int:
        """Answer `count` records; wrong ones."""
        wrong = 0
        store_release(there.ctl, GO, 1)
        for n in range(count):
            while not ready(there.ctl, there.words, n):
                pause()
            wrong += check(there, n)
            release(there.ctl, there.loc, doorbells)
            while room(out.ctl, out.loc, 1) < 1:
                pause()
            put(out, n)
            flush(out.ctl, out.loc, 0, doorbells)
        return wrong

    @lean
    def alone(out: Output, end: Input, doorbells: Words, count: int, every: int) -> tuple[int, int]:
        """(ns, wrong records) of `count` pushes and pops on one core, `every` at a time between flush and release."""
        wrong = 0
        start = mono_ns()
        n = 0
        while n < count:
            if room(out.ctl, out.loc, every) < every:
                return 0, count
            for k in range(every):
                put(out, n + k)
            flush(out.ctl, out.loc, 0, doorbells)
            for k in range(every):
                if not ready(end.ctl, end.words, n + k):
                    return 0, count
                wrong += check(end, n + k)
            release(end.ctl, end.loc, doorbells)
            n += every
        return mono_ns() - start, wrong

    return Loops(produce, consume, ping, pong, alone)


class OurRing:
    """One of our rings in memory that forked children share."""

    def __init__(self, words_a_record: int, capacity: int) -> None:
        self.loops: Final = loops(words_a_record)
        record = np.dtype([("body", "i8", words_a_record - 1), ("seq", "i8")])
        self.words: Final = shared_words(layout.payload_bytes(capacity, record) // 8)
        layout.format_ring(self.words, record, capacity)
        self.bells: Final = ring.own_doorbells(self.words)
        identity = np.arange(words_a_record - 1)
        self.out: Final = ring.output(self.words, record, np.zeros(ring.LOC_WORDS, np.int64), identity)
        self.end: Final = ring.input_(self.words, record, np.zeros(ring.LOC_WORDS, np.int64), 0)


def compiler() -> str:
    """The C++ compiler: $CXX or g++. BenchError where there is none."""
    found = shutil.which(os.environ.get("CXX", "g++"))
    if found is None:
        raise BenchError("no C++ compiler for the peer ring: install g++ or set CXX")
    return found


def build_peer() -> Any:
    """The peer ring's library, compiled for this machine into the cache folder once a source and compiler."""
    cxx = compiler()
    version = subprocess.run([cxx, "--version"], capture_output=True, text=True, check=False).stdout
    try:  # -march=native: the processor belongs to the key
        processor = next(
            line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Features"))
        )
    except (OSError, StopIteration):
        processor = platform.processor()
    key = hashlib.sha256("\0".join((SOURCE.read_text(), version, " ".join(FLAGS), processor)).encode()).hexdigest()[:16]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scalper" / "bench"
    library = home / f"index_ring-{key}.so"
    if not library.exists():
        home.mkdir(parents=True, exist_ok=True)
        fresh = library.with_suffix(f".{os.getpid()}")
        done = subprocess.run([cxx, *FLAGS, "-o", str(fresh), str(SOURCE)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"{cxx} does not compile {SOURCE.name}: {done.stderr.strip()[-300:]}")
        fresh.rename(library)
    peer = ctypes.CDLL(str(library))
    for name in ("produce", "consume", "produce_batched", "consume_batched", "ping", "pong", "alone"):
        for width in (8, 16):
            getattr(peer, f"{name}_{width}").restype = ctypes.c_int64
    peer.ring_bytes.restype = ctypes.c_uint64
    return peer


class PeerRing:
    """One C++ index ring in memory that forked children share."""

    def __init__(self, peer: Any, words_a_record: int, capacity: int) -> None:
        size = peer.ring_bytes(ctypes.c_uint64(capacity), ctypes.c_uint64(words_a_record))
        self.words: Final = shared_words(int(size) // 8)
        self._peer, self._width, self._capacity = peer, words_a_record, capacity
        self.address: Final = ctypes.c_void_p(self.words.ctypes.data)

    def call(self, name: str, count: int, *more: Any, other: PeerRing | None = None) -> int:
        """Call a function of the library on this ring (and another)."""
        rings = (self.address,) if other is None else (self.address, other.address)
        function = getattr(self._peer, f"{name}_{self._width}")
        return int(function(*rings, ctypes.c_uint64(self._capacity), ctypes.c_uint64(count), *more))

    def checked(self, name: str, count: int, *more: Any) -> tuple[int, int]:
        """(result, wrong records) of a function that reads."""
        wrong = ctypes.c_int64(0)
        return self.call(name, count, *more, ctypes.byref(wrong)), wrong.value
