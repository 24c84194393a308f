"""kill -9 at every instruction of push, pop and recovery, and at random under load: nothing lost, doubled, torn or wedged.

The stepper runs an operation in a child under ptrace, one instruction at a time, and keeps what the shared memory holds
after each: that is what a SIGKILL at that instruction leaves. Each of these memories is then recovered and used.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
import pytest
from numba import types

from ringbuf import layout, ring
from ringbuf.endpoint import create_ring, open_reader, open_writer
from ringbuf.intrinsics import load_acquire, store_release
from ringbuf.layout import ARMED_READERS, ARMED_WRITER, CURSOR, TAIL, reader_line
from ringbuf.ring import I_HEAD, I_READER, I_RELEASED, LOC_WORDS, O_TAIL, Input, Output
from shm.segment import Segment

REC = np.dtype([("ts_ns", "i8"), ("body", "i8", 6), ("seq", "i8")])
CAPACITY = 4
TRACEME, SINGLESTEP = 0, 9
NO_IDENTITY = np.zeros(0, np.int64)

lean = numba.njit(nogil=True, error_model="numpy", _nrt=False)
raise_signal = types.ExternalFunction("raise", types.int32(types.int32))
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
libc.ptrace.restype = ctypes.c_long


@lean
def word(n: int, k: int) -> int:
    """Word k of record n."""
    return n * 1_000_003 + k * 7_919 + 1


@lean
def push(out: Output, bells: np.ndarray) -> bool:
    """What a writer does for one record."""
    if ring.room(out.ctl, out.loc, 1) < 1:
        return False
    n = out.loc[O_TAIL]
    row = ring.begin(out)
    for k in range(out.words.shape[1] - 1):
        out.words[row, k] = word(n, k)
    ring.commit(out)
    ring.flush(out.ctl, out.loc, 0, bells)
    return True


@lean
def pop(end: Input, bells: np.ndarray, into: np.ndarray) -> bool:
    """What a gating reader does for one record: the effect is the copy, then the release."""
    head = end.loc[I_HEAD]
    if not ring.ready(end.ctl, end.words, head):
        return False
    row = head & (end.words.shape[0] - 2)
    for k in range(end.words.shape[1]):
        into[k] = end.words[row, k]
    end.loc[I_HEAD] = head + 1
    ring.release(end.ctl, end.loc, bells)
    return True


@lean
def recover_writer(out: Output, bells: np.ndarray) -> None:
    """What endpoint.Writer does when it attaches."""
    ring.succeed(out.ctl, out.words, out.loc, bells)


@lean
def step_push(out: Output, end: Input, bells: np.ndarray, into: np.ndarray) -> None:
    """A push between two stops."""
    raise_signal(19)
    push(out, bells)
    raise_signal(19)


@lean
def step_pop(out: Output, end: Input, bells: np.ndarray, into: np.ndarray) -> None:
    """A pop between two stops."""
    raise_signal(19)
    pop(end, bells, into)
    raise_signal(19)


@lean
def step_recovery(out: Output, end: Input, bells: np.ndarray, into: np.ndarray) -> None:
    """A writer's recovery between two stops."""
    raise_signal(19)
    recover_writer(out, bells)
    raise_signal(19)


OPERATIONS = {"push": step_push, "pop": step_pop, "recovery": step_recovery}
STATES = {"empty": (0, 0), "one": (1, 0), "wrap": (CAPACITY + 3, CAPACITY + 1), "full-1": (9, 6), "full": (10, 6)}
"""(records pushed, records popped) before the operation."""


def ends(words: np.ndarray) -> tuple[Output, Input, np.ndarray]:
    """Both ends and the doorbells over a ring's words."""
    out = ring.output(words, REC, np.zeros(LOC_WORDS, np.int64), NO_IDENTITY)
    return out, ring.input_(words, REC, np.zeros(LOC_WORDS, np.int64), 0), ring.own_doorbells(words)


def world(pushed: int, popped: int, armed: bool) -> tuple[np.ndarray, Output, Input, np.ndarray]:
    """A ring in memory that a child shares, brought to a state."""
    size = layout.payload_bytes(CAPACITY, REC)
    words = np.frombuffer(mmap.mmap(-1, -(-size // 4096) * 4096), np.int64)[: size // 8]
    layout.format_ring(words, REC, CAPACITY)
    out, end, bells = ends(words)
    into = np.zeros(8, np.int64)
    for n in range(pushed):
        while n - int(end.loc[I_HEAD]) >= CAPACITY or (end.loc[I_HEAD] < popped and end.loc[I_HEAD] < n):
            assert pop(end, bells, into)
        assert push(out, bells)
    while int(end.loc[I_HEAD]) < popped:
        assert pop(end, bells, into)
    words[ARMED_READERS] = words[ARMED_WRITER] = int(armed)
    return words, out, end, bells


def stepped(operation: Any, words: np.ndarray, *args: Any) -> Iterator[np.ndarray]:
    """The shared words after every instruction of an operation that runs in a child."""
    pid = os.fork()
    if pid == 0:
        try:
            libc.ptrace(TRACEME, 0, None, None)
            operation(*args)
        finally:
            os._exit(0)
    try:
        assert os.WSTOPSIG(os.waitpid(pid, 0)[1]) == signal.SIGSTOP
        yield words.copy()
        while True:
            assert libc.ptrace(SINGLESTEP, pid, None, None) == 0, os.strerror(ctypes.get_errno())
            status = os.waitpid(pid, 0)[1]
            assert os.WIFSTOPPED(status)
            if os.WSTOPSIG(status) == signal.SIGSTOP:
                return
            yield words.copy()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def recover_and_use(left: np.ndarray, pushed: int, popped: int) -> tuple[int, int]:
    """Take both roles over from the dead, go on for three laps, check every word; (tail, head) as recovered."""
    out, end, bells = ends(left)
    recover_writer(out, bells)
    end.loc[I_READER], end.loc[I_RELEASED] = 0, -1
    end.loc[I_HEAD] = left[reader_line(0) + CURSOR]
    tail, head = int(out.loc[O_TAIL]), int(end.loc[I_HEAD])
    assert tail in (pushed, pushed + 1) and head in (popped, popped + 1) and left[TAIL] == tail
    into = np.zeros(8, np.int64)
    expected = head
    for _ in range(3 * CAPACITY):
        while pop(end, bells, into):
            assert list(into) == [word(expected, k) for k in range(7)] + [expected + 1]
            expected += 1
        assert expected == int(out.loc[O_TAIL]), "a published record cannot be read"
        assert push(out, bells), "the ring is wedged"
    return tail, head


@pytest.mark.parametrize("armed", [False, True], ids=["awake", "asleep"])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_at_every_instruction(operation: str, state: str, armed: bool) -> None:
    """Whatever instruction was the last: the recovered ring holds each record once and whole, and goes on."""
    pushed, popped = STATES[state]
    words, out, end, bells = world(pushed, popped, armed)
    into = np.zeros(8, np.int64)
    wasted = np.zeros_like(words)
    layout.format_ring(wasted, REC, CAPACITY)
    a, b, c = ends(wasted)
    for compile_ in (push, pop):
        compile_(a, c) if compile_ is push else compile_(b, c, into)
    recover_writer(a, c)
    OPERATIONS[operation].compile(tuple(numba.typeof(arg) for arg in (out, end, bells, into)))
    try:
        outcomes = []
        steps = 0
        before = None
        for left in stepped(OPERATIONS[operation], words, out, end, bells, into):
            steps += 1
            if before is not None and (left == before).all():
                continue  # the instruction changed no shared word: the same memory was tried
            before = left.copy()
            outcomes.append(recover_and_use(left, pushed, popped))
    except PermissionError:
        pytest.skip("ptrace is not allowed here")
    moved = (operation == "push" and pushed - popped < CAPACITY, operation == "pop" and pushed > popped)
    assert steps > 30 and outcomes[0] == (pushed, popped)
    assert outcomes[-1] == (pushed + moved[0], popped + moved[1])
    assert outcomes == sorted(outcomes)


@lean
def step_torn_push(out: Output, end: Input, bells: np.ndarray, into: np.ndarray) -> None:
    """A push that is wrong on purpose: the slot is published before it is full."""
    raise_signal(19)
    n = out.loc[O_TAIL]
    row = ring.begin(out)
    ring.commit(out)
    for k in range(out.words.shape[1] - 1):
        out.words[row, k] = word(n, k)
    raise_signal(19)


@lean
def step_early_pop(out: Output, end: Input, bells: np.ndarray, into: np.ndarray) -> None:
    """A pop that is wrong on purpose: the cursor moves two records at once."""
    raise_signal(19)
    end.loc[I_HEAD] += 2
    ring.release(end.ctl, end.loc, bells)
    raise_signal(19)


@pytest.mark.parametrize("operation", [step_torn_push, step_early_pop])
def test_the_stepper_has_teeth(operation: Any) -> None:
    """A push that publishes too early, and a pop that releases too much, are caught."""
    words, out, end, bells = world(3, 1, armed=False)
    into = np.zeros(8, np.int64)
    operation.compile(tuple(numba.typeof(arg) for arg in (out, end, bells, into)))
    try:
        with pytest.raises(AssertionError):
            for left in stepped(operation, words, out, end, bells, into):
                recover_and_use(left, 3, 1)
    except PermissionError:
        pytest.skip("ptrace is not allowed here")


NAME = f"/scalper.kill{os.getpid()}.ring"


@pytest.fixture
def segment() -> Iterator[Segment]:
    """A ring of 64 records in a segment."""
    made = create_ring(NAME, REC, 64)
    yield made
    made.unlink()
    made.close()


def forked(work: Callable[[], None]) -> int:
    """Start a child that runs `work` and ends without clean-up: 0, or 1 when it raised."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


@lean
def write_on(out: Output, bells: np.ndarray, upto: int) -> None:
    """Push until the tail is `upto`."""
    while out.loc[O_TAIL] < upto:
        push(out, bells)


@lean
def read_on(end: Input, bells: np.ndarray, into: np.ndarray, upto: int, seen: np.ndarray) -> int:
    """Pop and check until the head is `upto`; wrong records. `seen[0]` outlives the reader: the last record's number, plus 1."""
    wrong = 0
    while end.loc[I_HEAD] < upto:
        n = end.loc[I_HEAD]
        if not pop(end, bells, into):
            continue
        good = into[7] == n + 1
        for k in range(7):
            good = good and into[k] == word(n, k)
        again = load_acquire(seen, 0)
        # a record comes again at most when its reader died between having it and releasing it
        if not good or not (again == n or again == n + 1):
            wrong += 1
        store_release(seen, 0, n + 1)
    return wrong


def killed_at_random(segment: Segment, kills: int, seed: int) -> None:
    """A writer and a reader in processes of their own, killed and started again in any order."""
    chance = random.Random(seed)
    total = 40_000_000_000  # more than they get done
    seen = np.frombuffer(mmap.mmap(-1, 4096), np.int64)
    out, end, bells = ends(segment.words.copy())
    into = np.zeros(8, np.int64)
    write_on(out, bells, 0)
    read_on(end, bells, into, 0, seen)

    def write() -> None:
        with open_writer(NAME, REC) as writer:
            end_of = Output(writer.ctl, writer.slots, writer.recs, writer.loc, NO_IDENTITY)
            write_on(end_of, writer.doorbells, total)

    def read() -> None:
        with open_reader(NAME, REC) as reader:
            end_of = Input(reader.ctl, reader.slots, reader.recs, reader.loc)
            assert read_on(end_of, reader.doorbells, np.zeros(8, np.int64), total, seen) == 0

    def read_the_rest(upto: int) -> None:
        with open_reader(NAME, REC) as reader:
            end_of = Input(reader.ctl, reader.slots, reader.recs, reader.loc)
            assert read_on(end_of, reader.doorbells, np.zeros(8, np.int64), upto, seen) == 0

    with open_writer(NAME, REC) as writer, open_reader(NAME, REC) as reader:  # compile what they call
        assert writer.room() == 64 and len(reader.poll(0)) == 0
    work = [write, read]
    pids = [forked(write), forked(read)]
    cursor = reader_line(0) + CURSOR
    try:
        for _ in range(kills):
            goal = int(segment.words[cursor]) + chance.randrange(1, 2_000)
            while segment.words[cursor] < goal:
                for pid in pids:
                    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                    assert found is None, "a process found a wrong record or could not recover: see its traceback"
                os.sched_yield()
            victims = chance.choice(((0,), (1,), (0, 1)))
            for victim in victims:
                os.kill(pids[victim], signal.SIGKILL)
                assert os.waitstatus_to_exitcode(os.waitpid(pids[victim], 0)[1]) == -signal.SIGKILL
            for victim in victims:
                pids[victim] = forked(work[victim])
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    out, _, bells = ends(segment.words)
    tail = int(ring.published_tail(out.ctl, out.words, 0))
    last = forked(lambda: read_the_rest(tail))
    assert os.waitstatus_to_exitcode(os.waitpid(last, 0)[1]) == 0
    assert seen[0] == tail == segment.words[cursor] and tail > kills


@pytest.mark.slow
def test_random_kills(segment: Segment) -> None:
    """1,000 SIGKILLs of writer, reader or both while records fly: every word of every record checked, each record in its turn."""
    killed_at_random(segment, 1_000, 2)
