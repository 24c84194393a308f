"""A session's time while the wall clock is set: it never goes back, never stands still, and the setting is said."""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

import pytest
from receiver_world import TinyServer, until
from test_receiver_stage import Pipeline, place, run

from procs.memory import board
from procs.receiver.clock import SLEW, SessionClock
from ringbuf.layout import WATERMARK
from trading.records import Kind

S = 1_000_000_000
WALL = 1_700_000_000 * S
TICK = 10_000_000
__all__ = ["place"]


def times(steps: dict[int, int], ticks: int, clock: SessionClock | None = None) -> tuple[list[int], list[int], SessionClock]:
    """Session times and what was noticed, tick by tick, where the wall clock is set by `steps[tick]` ns."""
    clock = clock or SessionClock()
    wall, found, noticed = WALL, [], []
    for tick in range(ticks):
        wall += TICK + steps.get(tick, 0)
        lead, stepped = clock.look(wall, 7 * S + tick * TICK)
        found.append(wall + lead)
        noticed.append(stepped)
    return found, noticed, clock


def test_a_clock_that_is_set_back_leaves_the_session_going() -> None:
    """15 s back: the session's time goes on, one part in SLEW slower, until the wall clock has caught up."""
    ticks = (15 * SLEW + 5) * S // TICK
    found, noticed, clock = times({500: -15 * S}, ticks)
    gone = [b - a for a, b in zip(found, found[1:])]
    assert min(gone) >= TICK - TICK // SLEW and max(gone) == TICK, "it went back, stood still or jumped"
    assert [(tick, by) for tick, by in enumerate(noticed) if by] == [(500, -15 * S)] and clock.steps == 1
    assert found[-1] == WALL + ticks * TICK - 15 * S, "the lead is paid off"
    assert found[500 + (14 * SLEW * S) // TICK] > WALL + (501 + (14 * SLEW * S) // TICK) * TICK - 15 * S, "and not before"


def test_a_clock_that_is_set_forward_takes_the_session_with_it() -> None:
    """15 s forward, and 15 s back again: time jumps once, and never goes back."""
    found, noticed, clock = times({100: 15 * S, 200: -15 * S}, 400)
    gone = [b - a for a, b in zip(found, found[1:])]
    assert gone[99] == 15 * S + TICK and min(gone) > 0 and max(gone[100:]) == TICK
    assert [by for by in noticed if by] == [15 * S, -15 * S] and clock.steps == 2


def test_the_next_receiver_goes_on_where_the_last_one_was() -> None:
    """The clock is set back while no receiver lives: its successor knows the session's time, and says that it was set."""
    found, _, clock = times({}, 100)
    again = SessionClock(clock.offset_ns, 0, clock.steps)
    lead, stepped = again.look(WALL + 105 * TICK - 15 * S, 7 * S + 104 * TICK)
    assert WALL + 105 * TICK - 15 * S + lead > found[-1] and stepped == -15 * S and again.steps == 1
    assert SessionClock().look(WALL, S) == (0, 0), "a first look notices nothing"


@pytest.mark.usefixtures("place")
def test_a_receiver_whose_clock_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The wall clock goes 15 s back during a run, 15 s forward across a kill -9, and back again: promises go on all the while, no
    frame is lost or doubled, their times never go back, and each setting is counted."""
    (tmp_path / "set").write_bytes(bytes(8))
    with (tmp_path / "set").open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
        true = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: true() + struct.unpack("q", shared[:])[0])  # in the forked receiver too

        async def body(server: TinyServer, pipe: Pipeline) -> None:
            seen: list[tuple[Kind, int, bytes]] = []
            heads: list[int] = []

            def got(kind: Kind, raw: bytes = b"") -> int:
                before = pipe.head
                seen.extend(pipe.read())
                heads.extend(int(pipe.recs[at & (pipe.recs.size - 2)]["ts_ns"]) for at in range(before, pipe.head))
                return sum(what is kind and raw in found for what, _, found in seen)

            async def goes_on(number: int) -> None:
                """Promises rise, and a message comes through."""
                mark = int(pipe.ctl[WATERMARK])
                await until(lambda: pipe.ctl[WATERMARK] > mark + 5 * TICK)
                await server.sockets[-1].send_str(f'{{"s":1,"n":{number}}}')
                await until(lambda: got(Kind.FRAME, f'"n":{number}'.encode()) == 1)

            pipe.spawn()
            await until(lambda: got(Kind.LINE_UP) == 2)
            await goes_on(1)
            shared[:] = struct.pack("q", -15 * S)
            await until(lambda: pipe.page[board.CLOCK_STEPS] == 1)
            assert 14 * S < pipe.page[board.CLOCK_LEAD_NS] <= 15 * S
            await goes_on(2)
            pipe.end()
            shared[:] = struct.pack("q", 0)
            pipe.spawn()
            await until(lambda: got(Kind.LINE_UP) == 4)
            assert pipe.page[board.CLOCK_STEPS] == 2
            await goes_on(3)
            pipe.end()
            shared[:] = struct.pack("q", -15 * S)
            pipe.spawn()
            await until(lambda: got(Kind.LINE_UP) == 6)
            assert pipe.page[board.CLOCK_STEPS] == 3 and 14 * S < pipe.page[board.CLOCK_LEAD_NS] <= 15 * S
            await goes_on(4)
            assert heads == sorted(heads), "a time went back"
            assert [got(Kind.FRAME, f'"n":{n}'.encode()) for n in (1, 2, 3, 4)] == [1, 1, 1, 1]

        run(body)
