"""Stages in processes of their own look through each other: equal records, no wake lost.

Here a process runs only when its doorbell was rung since it armed itself: no clock mends a wake that is lost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from fold_world import STAGES, Session, identities, small_market, undisturbed

from procs import topology
from procs.fold.assembly import LoopSettings
from procs.fold.block import BLOCK, DOORBELL, R_BELL, R_BLOCKED, R_SINCE
from procs.fold.checkpoint import save
from procs.fold.group import group_words, settle, turn
from procs.memory import board
from ringbuf.layout import ASLEEP
from trading.jit import Words

ALONE = tuple((name,) for name in STAGES)
HALVES = (("feed", "features", "exchange"), ("quoter", "risk", "router"))


class Scheduler:
    """Processes that run one turn at a time in any order, and sleep until they are rung for."""

    def __init__(self, session: Session, groups: Sequence[Sequence[str]], seed: int) -> None:
        self.session, self.groups, self.rng = session, groups, np.random.default_rng(seed)
        self.threads = [self.thread(group) for group in groups]
        self.idle = [0] * len(groups)
        self.over = [False] * len(groups)
        self.sleeps = [0] * len(groups)

    def thread(self, group: Sequence[str]) -> Words:
        """The words of a process."""
        return group_words([self.session.stages[name].block for name in group])

    def asleep(self, p: int) -> bool:
        """Whether the process sleeps and its bell has not been rung since."""
        if self.idle[p] <= self.session.loop.spin:
            return False
        bound = self.session.stages[self.groups[p][0]]
        rung = (int(self.session.world.board[int(bound.block[DOORBELL])]) ^ int(bound.registers[R_BELL])) & ~ASLEEP
        return rung == 0

    def crash(self, p: int) -> None:
        """Kill a process; its next incarnation recovers."""
        for name in self.groups[p]:
            self.session.crash(name)
        self.threads[p], self.idle[p] = self.thread(self.groups[p]), 0

    def run_one(self, p: int) -> None:
        """One turn, and what comes after it."""
        spin = self.session.loop.spin
        if self.idle[p] > spin:
            self.idle[p] = spin - 1  # it was rung for
        work, living = turn(self.threads[p])
        if not living:
            self.over[p] = True
        elif work or self.idle[p] < spin:
            self.idle[p] = settle(self.threads[p], work, self.idle[p])
        else:
            self.idle[p] = spin + 1
            self.sleeps[p] += 1

    def run(self, kills: float = 0.0) -> None:
        """All to their end, each killed with this probability after its turns. AssertionError where all sleep for ever."""
        while not all(self.over):
            ready = [p for p in range(len(self.groups)) if not self.over[p] and not self.asleep(p)]
            if not ready:
                self.session.record()
                naps = [name for p, group in enumerate(self.groups) if not self.over[p] for name in group]
                wakeable = [name for name in naps if self.session.stages[name].registers[R_SINCE] > 0]
                blocked = [name for name in naps if self.session.stages[name].registers[R_BLOCKED] != 0]
                assert blocked, "all sleep, nobody was rung for"
                for name in wakeable:  # the checkpoint that a short nap ends with: it gives room, and takes no record
                    save(self.session.stages[name].block)
                for p, group in enumerate(self.groups):
                    if set(blocked) & set(group):
                        self.idle[p] = 0
                continue
            p = int(self.rng.choice(ready))
            for _ in range(int(self.rng.integers(1, 6))):
                if self.over[p] or self.asleep(p):
                    break
                self.run_one(p)
            if self.rng.random() < kills and not self.over[p]:
                self.crash(p)
            if self.rng.random() < 0.3:
                self.session.record()
        self.session.record()


def scheduled(seed: int, groups: Sequence[Sequence[str]], seconds: float, kills: float = 0.0) -> tuple[Session, Scheduler]:
    """A session of a made-up market, run to its end."""
    loop = LoopSettings(strategy=BLOCK, spin=1, checkpoint_every=64, frames=1 + seed % 7, look=True)
    session = Session(small_market(seconds), loop, groups)
    it = Scheduler(session, groups, seed)
    it.run(kills)
    return session, it


@pytest.mark.parametrize(
    ("seed", "groups", "seconds"),
    [(1, ALONE, 5.0), (3, HALVES, 5.0), pytest.param(2, ALONE, 20.0, marks=pytest.mark.slow)],
    ids=["alone", "halves", "longer"],
)
def test_no_wake_is_lost_and_all_records_are_the_backtests(seed: int, groups: Sequence[Sequence[str]], seconds: float) -> None:
    """Processes that are run in a random order, only when they were rung for, come to the end; every ring is the backtest's."""
    session, it = scheduled(seed, groups, seconds)
    assert sum(it.sleeps) > 100
    if groups is ALONE:  # who has nothing to add is left alone: the market goes on without the router
        heard = session.tail("orders") + session.tail("executions")
        assert it.sleeps[STAGES.index("router")] < heard + 100
    assert identities(session.kept()) == identities(undisturbed(session.plan))
    pages = [board.page(session.world.board, topology.stage_id(name)) for name in STAGES]
    assert all(page[board.FINISHED] and not page[board.MISSED] for page in pages)


@pytest.mark.parametrize(("seed", "seconds"), [(4, 3.0), pytest.param(5, 8.0, marks=pytest.mark.slow)])
def test_no_wake_is_lost_when_processes_are_killed(seed: int, seconds: float) -> None:
    """The same where now and then the process at work loses what it has not checkpointed, asleep or not."""
    session, _ = scheduled(seed, ALONE, seconds, kills=0.05)
    assert session.crashes > 10 and session.diverged() == 0
    assert identities(session.kept()) == identities(undisturbed(session.plan))


def test_who_looks_waits_for_nobody_that_has_nothing_to_add() -> None:
    """Risk takes the first market record while features, quoter, router and exchange have not run at all."""
    session = Session(small_market(4.0), LoopSettings(strategy=BLOCK, spin=1, frames=1, look=True))
    for name in STAGES:
        if name != "feed":
            session.poll(name)
    while not session.tail("market"):
        session.poll("feed")
    assert session.poll("risk") == 1
    assert session.poll("quoter") >= 1
