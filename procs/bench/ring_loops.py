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
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from procs.bench.pair import BenchError, Words, shared_words
from ringbuf import layout, ring
from ringbuf.batch import (
    LINE,
    LINE_TUPLE,
    fetch_slots,
    load_line,
    readable_behind,
    recomputing,
    store_line,
)
from ringbuf.intrinsics import cycles, load_acquire, mono_ns, pause, store_release
from ringbuf.jit import lean
from ringbuf.layout import CONTROL_WORDS
from ringbuf.ring import I_HEAD, Input, Output, begin, commit, flush, open_at, publish_at, ready, release, room, step

FACTOR: Final = 0x9E3779B97F4A7C15 - (1 << 64)
SHOW_EVERY: Final = 32
"""Records between two flushes (releases) in the throughput run; the records themselves are visible one by one."""
LAG: Final = 128
"""Records that the reader of the throughput run leaves between itself and the writer (ringbuf.batch.readable_behind) ..."""
LOOKS: Final = 16
"""... unless it has looked for them so often in vain: then it takes what there is."""
GO: Final = CONTROL_WORDS - 8  # a spare word of the control page
SOURCE: Final = Path(__file__).with_name("cpp") / "index_ring.cpp"
FLAGS: Final = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC")


@intrinsic
def expected_line(typingctx: Any, base: Any, last: Any) -> Any:
    """(base, base + 1 ... base + 6, last) as a tuple of 8 int64. numba leaves LLVM's vectoriser of straight code switched
    off, so what g++ does by itself where it pays has to be said here.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        i32 = ir.IntType(32)
        nothing = ir.Constant(LINE, ir.Undefined)
        first = builder.insert_element(nothing, args[0], i32(0))
        spread = builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(i32, 8), [0] * 8))
        line = builder.insert_element(builder.add(spread, ir.Constant(LINE, list(range(8)))), args[1], i32(7))
        return cgutils.pack_array(builder, [builder.extract_element(line, i32(k)) for k in range(8)])

    return LINE_TUPLE(types.int64, types.int64), codegen


@intrinsic
def differ(typingctx: Any, found: Any, expected: Any) -> Any:
    """1 when any of 8 words differs from the expected one, else 0."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lines = []
        for words in args:
            line = ir.Constant(LINE, ir.Undefined)
            for k in range(8):
                line = builder.insert_element(line, builder.extract_value(words, k), ir.IntType(32)(k))
            lines.append(line)
        byte = ir.IntType(8)
        unequal = builder.bitcast(builder.icmp_unsigned("!=", lines[0], lines[1]), byte)
        return builder.zext(builder.icmp_unsigned("!=", unequal, byte(0)), ir.IntType(64))

    return types.int64(LINE_TUPLE, LINE_TUPLE), codegen


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
    full = width // 8 - 1  # lines of a record before the one that ends with its sequence

    @lean
    def fill(words: Words, row: int, n: int) -> None:
        """Write record n into an opened slot."""
        base = n * FACTOR
        for line in range(full):
            store_line(words, row, line, expected_line(base + 8 * line, base + 8 * line + 7))
        store_line(words, row, full, expected_line(base + 8 * full, 0))

    @lean
    def put(out: Output, n: int) -> None:
        """Write record n into the next slot and publish it."""
        fill(out.words, begin(out), n)
        commit(out)

    @lean
    def check(end: Input, n: int) -> int:
        """1 when a word of record n is wrong, else 0; steps over it."""
        row = n & (end.words.shape[0] - 2)
        base = n * FACTOR
        wrong = differ(load_line(end.words, row, full), expected_line(base + 8 * full, n + 1))
        for line in range(full):
            wrong |= differ(load_line(end.words, row, line), expected_line(base + 8 * line, base + 8 * line + 7))
        end.loc[I_HEAD] = n + 1
        return wrong

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
            fetch_slots(out.words, n, SHOW_EVERY)
            many = min(SHOW_EVERY, count - n)
            if recomputing(out.loc):  # never here, but a stage has to ask
                for k in range(many):
                    put(out, n + k)
            else:
                for k in range(many):
                    fill(out.words, open_at(out.words, n + k), n + k)
                    publish_at(out.words, n + k)
                step(out.loc, many)
            n += many
            flush(out.ctl, out.loc, 0, doorbells)
        return start

    @lean
    def consume(end: Input, doorbells: Words, count: int, pauses: int) -> tuple[int, int]:
        """(CLOCK_MONOTONIC ns at the end, wrong records) of reading `count` records."""
        wrong = 0
        store_release(end.ctl, GO, 1)
        n = looks = 0
        while n < count:
            there = readable_behind(end.words, n, SHOW_EVERY, LAG, looks < LOOKS)
            if there == 0:
                looks += 1
                for _ in range(pauses):
                    pause()
                continue
            looks = 0
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
