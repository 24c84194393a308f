"""The Python-side ends over real segments: owners, waiting, batches, views, observers, asyncio, fencing, succession."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from segment_world import run_child

from ringbuf import layout
from ringbuf.asyncio_wait import AsyncReader
from ringbuf.endpoint import RingClosed, RingError, RingFull, create_ring, fence_reader, open_observer, open_reader, open_writer
from ringbuf.layout import ARMED_READERS, CAPACITY, TAIL, WATERMARK, RingLayoutError
from shm.errors import LayoutMismatch, RoleHeld, SegmentExists, SegmentMissing
from shm.segment import Segment

REC = np.dtype([("ts_ns", "i8"), ("body", "i8", 6), ("seq", "i8")])
OTHER = np.dtype([("ts_ns", "i8"), ("corps", "i8", 6), ("seq", "i8")])
PAYLOAD = ["ts_ns", "body"]
NAME = f"/scalper.endpoint{os.getpid()}.ring"


def records(first: int, count: int) -> np.ndarray:
    """Records whose every word depends on their number."""
    recs = np.zeros(count, REC)
    for k in range(count):
        recs[k]["ts_ns"] = first + k
        recs[k]["body"] = np.arange(6) + (first + k) * 31
    return recs


def check(recs: np.ndarray, first: int) -> int:
    """Compare records numbered from `first`; the number after the last one."""
    expected = records(first, len(recs))
    expected["seq"] = np.arange(first + 1, first + 1 + len(recs))
    assert recs.tobytes() == expected.tobytes()
    return first + len(recs)


@pytest.fixture
def ring_of() -> Iterator[Callable[..., Segment]]:
    """Makes a ring; removes it afterwards."""
    made: list[Segment] = []

    def make(capacity: int = 4, **more: object) -> Segment:
        made.append(create_ring(NAME, REC, capacity, **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for segment in made:
        segment.unlink()
        segment.close()


def then_die(work: Callable[[], object]) -> None:
    """Run in a child that is then killed with SIGKILL: nothing is closed or released."""

    def both() -> None:
        work()
        os.kill(os.getpid(), signal.SIGKILL)

    assert run_child(both) == -signal.SIGKILL


def test_push_and_poll(ring_of: Callable[..., Segment]) -> None:
    """One by one and in batches, over many wraps: every word arrives, in order, once; room and tail are exact."""
    ring_of(4)
    with open_writer(NAME, REC) as writer, open_reader(NAME, REC) as reader:
        sent = seen = 0
        for n in (1, 2, 3, 4, 9, 0, 5):
            assert writer.try_push_batch(records(sent, n)) == min(n, 4)
            sent += min(n, 4)
            assert writer.tail == sent == writer.next_sequence and writer.room() == 4 - (sent - seen)
            seen = check(reader.poll(2), seen)
            seen = check(reader.poll(), seen)
            assert len(reader.poll()) == 0 and seen == sent
        assert writer.try_push(records(sent, 1)[0]) and check(reader.poll(), sent)
        assert reader.lost == 0


def test_a_full_ring_answers_and_names_the_laggard(ring_of: Callable[..., Segment]) -> None:
    """try_push says False, push waits and then raises RingFull with the reader that lags; what fitted stays."""
    ring_of(2, gating=(True, True))
    with open_writer(NAME, REC) as writer, open_reader(NAME, REC, 0) as first, open_reader(NAME, REC, 1) as second:
        assert writer.try_push_batch(records(0, 3)) == 2 and not writer.try_push(records(2, 1))
        check(first.poll(), 0)
        with pytest.raises(RingFull, match="reader 1 "):
            writer.push(records(2, 1), timeout_s=0.001)
        assert len(second.poll(1)) == 1 and writer.push(records(2, 1), timeout_s=60.0) == 3
        with pytest.raises(TypeError, match="this ring takes"):
            writer.push(np.zeros(1, OTHER))


def test_claimed_records_are_filled_in_place(ring_of: Callable[..., Segment]) -> None:
    """claim gives the slots themselves, up to the wrap; publish shows as many as asked and refuses more."""
    ring_of(4)
    with open_writer(NAME, REC) as writer, open_reader(NAME, REC) as reader:
        writer.push(records(0, 3))
        seen = check(reader.poll(), 0)
        slots = writer.claim(4)
        assert len(slots) == 1
        slots[:] = records(3, 1)[PAYLOAD]
        assert len(reader.poll()) == 0
        with pytest.raises(ValueError, match="1 slots are claimed"):
            writer.publish(2)
        assert writer.publish() == 4
        slots = writer.claim(4)
        slots[:] = records(4, 3)[PAYLOAD]
        assert writer.publish(2) == 6
        seen = check(reader.poll(), seen)
        assert seen == 6
        writer.promise(900)
        writer.promise(5)
        assert writer.ctl[WATERMARK] == 900


def test_views_are_released_when_done(ring_of: Callable[..., Segment]) -> None:
    """A view shows the slots, read-only, up to the wrap; the writer gets them back on release and not before."""
    ring_of(4)
    with open_writer(NAME, REC) as writer, open_reader(NAME, REC) as reader:
        writer.push(records(0, 4))
        view = reader.view()
        check(view, 0)
        assert not view.flags.writeable and writer.room() == 0
        with pytest.raises(ValueError, match="have not been read"):
            reader.release(5)
        reader.release(3)
        assert writer.room() == 3 and reader.head == 3
        writer.push(records(4, 3))
        assert len(reader.view()) == 1
        reader.release(1)
        check(reader.view(), 4)


def test_one_owner_a_role(ring_of: Callable[..., Segment]) -> None:
    """A second writer, or a second reader of the same number, is refused while the first lives; closing frees the role."""
    ring_of(4, gating=(True, False))
    with open_writer(NAME, REC), open_reader(NAME, REC, 0), open_reader(NAME, REC, 1):
        for again in (lambda: open_writer(NAME, REC), lambda: open_reader(NAME, REC, 1)):
            with pytest.raises(RoleHeld, match="alive"):
                again()
    open_writer(NAME, REC).close()
    with pytest.raises(RingLayoutError, match="the ring has 2"):
        open_reader(NAME, REC, 2)
    with pytest.raises(RingLayoutError, match="roles for readers 0..6"):
        open_reader(NAME, REC, 7)


def test_attaching_is_checked(ring_of: Callable[..., Segment]) -> None:
    """No such ring, another record, damaged words, bells that lie elsewhere: each a clear error, and no role stays taken."""
    with pytest.raises(SegmentMissing):
        open_reader(NAME, REC)
    segment = ring_of(4)
    with pytest.raises(SegmentExists):
        create_ring(NAME, REC, 4)
    with pytest.raises(LayoutMismatch, match="layout"):
        open_reader(NAME, OTHER)
    for word, value, says in ((CAPACITY, 64, "segment has"), (TAIL, -7, "tail"), (layout.WRITER_DOORBELL, 100, "doorbells=")):
        before = segment.words[word]
        segment.words[word] = value
        for attach in (lambda: open_reader(NAME, REC), lambda: open_writer(NAME, REC)):
            with pytest.raises(RingLayoutError, match=says):
                attach()
        segment.words[word] = before
    with pytest.raises(RingLayoutError, match="power of two"):
        create_ring(NAME + "x", REC, 3)
    open_reader(NAME, REC).close()
    open_writer(NAME, REC).close()


def test_closed_ends_say_so(ring_of: Callable[..., Segment]) -> None:
    """Every use after close is RingClosed; closing twice is allowed."""
    ring_of(4)
    writer, reader, observer = open_writer(NAME, REC), open_reader(NAME, REC), open_observer(NAME, REC)
    for end in (writer, reader, observer):
        end.close()
        end.close()
    for use in (lambda: writer.try_push(records(0, 1)), reader.poll, reader.wait, observer.poll, writer.room):
        with pytest.raises(RingClosed):
            use()


def test_a_killed_writer_is_succeeded(ring_of: Callable[..., Segment]) -> None:
    """SIGKILL with slots claimed and half filled: the next writer goes on after the last published record."""
    segment = ring_of(4)

    def work() -> None:
        writer = open_writer(NAME, REC)
        writer.push(records(0, 2))
        writer.claim(2)["body"][:] = -1

    then_die(work)
    with open_reader(NAME, REC) as reader, open_writer(NAME, REC) as writer:
        assert writer.next_sequence == 2 and writer.epoch == segment.header.epoch
        writer.push(records(2, 2))
        assert check(reader.poll(), 0) == 4


def test_a_killed_reader_starts_at_its_cursor(ring_of: Callable[..., Segment]) -> None:
    """What it had polled was released; what it had only viewed comes again."""
    ring_of(8)
    with open_writer(NAME, REC) as writer:
        writer.push(records(0, 5))

        def work() -> None:
            reader = open_reader(NAME, REC)
            assert len(reader.poll(2)) == 2 and len(reader.view()) == 3

        then_die(work)
        with open_reader(NAME, REC) as reader:
            assert reader.head == 2 and check(reader.poll(), 2) == 5


def test_a_dead_gating_reader_is_fenced(ring_of: Callable[..., Segment]) -> None:
    """While it lives it cannot be fenced; dead, it no longer holds the writer; back again it gates and knows what it lost."""
    segment = ring_of(4, gating=(True, True))
    with open_writer(NAME, REC) as writer, open_reader(NAME, REC, 1) as other:
        with open_reader(NAME, REC, 0), pytest.raises(RoleHeld):
            fence_reader(segment, REC, 0)
        then_die(lambda: open_reader(NAME, REC, 0))
        writer.push(records(0, 4))
        check(other.poll(), 0)
        assert not writer.try_push(records(4, 1)) and writer.laggard() == 0
        assert fence_reader(segment, REC, 0) and not fence_reader(segment, REC, 0)
        assert writer.laggard() == 1
        for n in range(4, 9):
            writer.push(records(n, 1), timeout_s=60.0)
            check(other.poll(), n)
        with open_reader(NAME, REC, 0) as back:
            assert back.lost == 9 and back.head == 9 and back.gating
            writer.push(records(9, 4))
            check(other.poll(), 9)
            assert writer.room() == 0 and check(back.poll(), 9) == 13


def test_observers_are_read_only_and_count_what_they_miss(ring_of: Callable[..., Segment]) -> None:
    """An observer changes no word of the ring, gets whole records, and got + lost = published."""
    segment = ring_of(8)
    with open_writer(NAME, REC) as writer, open_reader(NAME, REC) as reader, open_observer(NAME, REC) as observer:
        assert not observer.recs.flags.writeable
        got = 0
        for n in range(0, 60, 6):
            writer.push(records(n, 6))
            reader.poll()
            if n % 4 == 0:
                before = segment.words.copy()
                found = observer.poll(100)
                assert (segment.words == before).all() and len(found)
                got += len(found)
                check(found, observer.head - len(found))
        got += len(observer.poll(100))
        assert got + observer.lost == 60 == observer.head and observer.lost > 0
        assert observer.cursors() == [{"cursor": 60, "position": 60, "gating": 1, "overruns": 0}]
        with open_observer(NAME, REC, from_oldest=False) as late:
            assert len(late.poll()) == 0
            writer.push(records(60, 1))
            check(late.poll(), 60)


def test_an_observing_reader_may_be_lapped(ring_of: Callable[..., Segment]) -> None:
    """A reader that does not gate never stops the writer, counts its losses in its line, and may not take views."""
    ring_of(4, gating=(False,))
    with open_writer(NAME, REC) as writer, open_reader(NAME, REC) as reader:
        writer.push(records(0, 11))
        found = reader.poll()
        check(found, reader.head - len(found))
        assert reader.lost + len(found) == 11 == reader.head
        with pytest.raises(RingError, match="use poll"):
            reader.view()
    with open_reader(NAME, REC) as again:
        assert again.lost == 11 - len(found)


def test_a_sleeping_reader_is_woken(ring_of: Callable[..., Segment]) -> None:
    """A reader asleep on its futex gets each record of a writer in another thread; both sides wait for each other."""
    ring_of(2)
    count = 300
    with open_writer(NAME, REC) as writer, open_reader(NAME, REC) as reader:
        pusher = threading.Thread(target=lambda: [writer.push(rec) for rec in records(0, count)])
        pusher.start()
        seen = 0
        for rec in reader:
            seen = check(np.atleast_1d(np.asarray(rec)), seen)
            if seen == count:
                break
        pusher.join()
        assert not reader.wait(0.0) and list(reader.records(idle_s=0.0)) == []
        assert reader.ctl[ARMED_READERS] == 0


def test_a_reader_asleep_in_another_process(ring_of: Callable[..., Segment]) -> None:
    """Across processes: each record pushed once the reader has armed itself arrives."""
    ring_of(4)

    def read() -> None:
        seen = 0
        with open_reader(NAME, REC) as reader:
            while seen < 50:
                assert reader.wait(60.0)
                seen = check(reader.poll(), seen)

    with open_writer(NAME, REC) as writer:
        writer.push(records(0, 1))
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                read()
                status = 0
            finally:
                os._exit(status)
        for n in range(1, 50):
            while not writer.ctl[ARMED_READERS] and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                os.sched_yield()
            writer.push(records(n, 1), timeout_s=60.0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_asyncio_reader(ring_of: Callable[..., Segment]) -> None:
    """poll waits without stopping the loop, survives being cancelled, and ends cleanly with nothing left running."""
    ring_of(4)
    count = 200

    async def scenario() -> int:
        reader = AsyncReader(open_reader(NAME, REC))
        turns = 0

        async def spin() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.to_thread(lambda: None)

        beside = asyncio.create_task(spin())
        cancelled = asyncio.create_task(reader.poll())
        while reader._thread is None:
            await asyncio.to_thread(lambda: None)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        pusher = threading.Thread(target=lambda: [writer.push(rec) for rec in records(0, count)])
        pusher.start()
        seen = 0
        async for rec in reader:
            seen = check(np.atleast_1d(np.asarray(rec)), seen)
            if seen == count:
                break
        pusher.join()
        waiting = asyncio.create_task(reader.poll())
        while not reader.reader.ctl[ARMED_READERS]:
            await asyncio.to_thread(lambda: None)
        await reader.close()
        await reader.close()
        with pytest.raises(RingClosed):
            await waiting
        beside.cancel()
        assert turns > 0
        return seen

    with open_writer(NAME, REC) as writer:
        assert asyncio.run(scenario()) == count
    assert not [thread for thread in threading.enumerate() if thread.name == "ring-waiter"]


def test_the_ring_survives_its_creator(ring_of: Callable[..., Segment]) -> None:
    """Ends keep working after the segment was unlinked; nobody new can attach."""
    segment = ring_of(4)
    with open_writer(NAME, REC) as writer, open_observer(NAME, REC) as observer:
        segment.unlink()
        writer.push(records(0, 2))
        check(observer.poll(), 0)
        with pytest.raises(SegmentMissing):
            open_reader(NAME, REC)
