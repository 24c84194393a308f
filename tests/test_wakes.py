"""No wake is lost: single records at random gaps from a process outside into a group that sleeps whenever it can."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from procs.bench import wake
from procs.bench.pair import two_cores
from procs.cli.main import main
from procs.cli.outcome import OK
from ringbuf import ring
from ringbuf.layout import (
    ARMED_READERS,
    ASLEEP,
    LINE_WORDS,
    LOOKER_DOORBELL,
    LOOKER_LINES,
    LOOKER_WANT,
    MAX_READERS,
    NEVER,
    READER_LINES,
    WANT,
    format_ring,
    payload_bytes,
)

REC = np.dtype([("ts_ns", "i8"), ("rest", "i8", 6), ("seq", "i8")])


def test_no_wake_is_lost() -> None:
    """Every record is taken, and no sleep ended by its time limit while a record was there."""
    found = wake.into_a_group(4_000, two_cores())
    assert found["taken"] == found["records"] == 4_000 and found["lost"] == 0
    assert found["sleeps"] > 100 and found["bare_futex"]["count"] > 100


@pytest.mark.slow
def test_the_command_says_how_many_were_lost(capsys: pytest.CaptureFixture[str]) -> None:
    """`bench wake --records N` alone, as text and as JSON: N records, none lost, the bare futex beside it."""
    assert main(["bench", "wake", "--records", "20000", "--json"]) == OK
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["group"]["records"] == found["group"]["taken"] == 20_000 and found["group"]["lost"] == 0
    assert found["group"]["sleeps"] > 5_000 and found["group"]["bare_futex"]["p50_ns"] > 0
    text = wake.format(found)
    assert "20,000 single records" in text and ": 0 lost" in text and "bare futex" in text


def a_ring() -> tuple[Any, Any]:
    """(writing end, its doorbells) of a ring with two readers."""
    words = np.zeros(payload_bytes(8, REC) // 8, np.int64)
    format_ring(words, REC, 8, gating=(True, True))
    out = ring.output(words, REC, np.zeros(ring.LOC_WORDS, np.int64), np.arange(1))
    return out, ring.own_doorbells(words)


def rung(out: Any, bells: Any, watermark: int, push: bool = False) -> list[int]:
    """Whose bells a flush rings: of reader 0, of reader 1, of the looker."""
    before = bells.copy()
    if push:
        row = ring.begin(out)
        out.words[row, 0] = watermark
        ring.commit(out)
    ring.flush(out.ctl, out.loc, watermark, bells)
    return [int(bells[n] - before[n]) for n in (0, 1, 3)]


def test_who_sleeps_is_rung_for_what_it_wants() -> None:
    """A record wakes every armed reader that has not read it; a watermark those whose WANT it reaches, readers and lookers alike;
    the others stay armed."""
    out, bells = a_ring()
    ctl = out.ctl
    ctl[READER_LINES + WANT], ctl[READER_LINES + LINE_WORDS + WANT] = NEVER, 20
    ctl[LOOKER_LINES + LOOKER_DOORBELL], ctl[LOOKER_LINES + LOOKER_WANT] = 3, 30
    ctl[ARMED_READERS] = 0b11 | 1 << MAX_READERS
    assert rung(out, bells, 19) == [0, 0, 0]
    assert rung(out, bells, 20) == [0, 1, 0] and ctl[ARMED_READERS] == 0b01 | 1 << MAX_READERS
    assert rung(out, bells, 21, push=True) == [1, 0, 0] and ctl[ARMED_READERS] == 1 << MAX_READERS
    assert rung(out, bells, 30) == [0, 0, 1] and ctl[ARMED_READERS] == 0
    ctl[ARMED_READERS] = 0b10
    assert rung(out, bells, 31) == [0, 1, 0], "a record that is there wakes whoever is armed"


def test_a_ring_for_who_is_awake_counts_only() -> None:
    """The bell's count goes up in any case; the bit that asks for the system call is taken by the first who rings. A sleep that
    begins after a ring ends at once."""
    bells = np.zeros(16, np.int64)
    seen = int(bells[2])
    bells[2] |= ASLEEP
    ring.ring_doorbell(bells, 2)
    assert bells[2] == seen + 1
    ring.ring_doorbell(bells, 2)
    assert bells[2] == seen + 2
    assert ring.sleep_on(bells, 2, seen, 10_000_000_000)
    assert not ring.sleep_on(bells, 2, int(bells[2]), 1)
