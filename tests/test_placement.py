"""Which stages share a process: what `pipeline.placement` makes of a run, and that a shared thread changes no record."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fold_world import STAGES, Session, identities, small_market, undisturbed

from procs import topology
from procs.fold.assembly import LoopSettings
from procs.fold.block import BLOCK, R_SLEPT, R_WAIT_NS
from procs.fold.group import group_words, settle, turn
from procs.memory import board
from procs.profiles.config import ConfigError, load_profile
from procs.supervision.instance import Instance, place_stages
from procs.topology import STAGE, Run
from ringbuf.layout import ARMED_READERS, READER_DOORBELL, WRITER_DOORBELL
from ringbuf.plain import ring_doorbell

HALVES = (("feed", "features"), ("quoter", "risk", "router", "exchange"))
ODD = (("feed", "quoter"), ("features",), ("risk", "exchange"), ("router",))
HOT = tuple(stage.name for stage in Run().hot)


def test_a_placement_names_the_processes() -> None:
    """One process a stage, one for all hot ones, or as listed: in start order, members in the order of the records."""
    run = Run()
    assert run.placed("separate", 2) == run.placed("auto", len(run.essential) + 1) == ()
    assert run.placed("grouped", 64) == run.placed("auto", len(run.essential)) == (HOT,)
    grouped = Run(groups=(HOT,))
    assert [process.name for process in grouped.processes] == ["recorder", "hot"]
    assert grouped.processes[1].members == run.hot and grouped.process_of("risk").name == "hot"
    listed = Run(groups=run.placed([["features", "feed"], ["exchange", "router"], ["risk"], ["quoter"]], 2))
    assert listed.groups == (("feed", "features"), ("router", "exchange"))
    names = [process.name for process in listed.processes]
    assert names == ["recorder", "hot2", "risk", "quoter", "hot1"]
    assert [process.name for process in Run(source="live", groups=(HOT,)).processes] == ["recorder", "hot", "receiver"]
    assert [process.name for process in run.processes] == list(run.names)
    with pytest.raises(KeyError):
        run.process_of("receiver")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("together", ("pipeline.placement", "together is not", "grouped or separate or a list")),
        ("[[feed, features], [feed, quoter, risk, router, exchange]]", ("placement[1][0]", "feed stands in group 1 already")),
        ("[[feed, features], [quoter, risk]]", ("router, exchange stand in no group", "a group of one")),
        ("[[feed, recorder]]", ("placement[0][1]", "'recorder' has a process of its own", "feed, features, quoter")),
        ("[[feed, brain]]", ("placement[0][1]", "'brain' is no stage of this run")),
        ("[[], [feed]]", ("placement[0]", "the group is empty")),
    ],
)
def test_a_wrong_placement_is_refused_by_place(text: str, words: tuple[str, ...], tmp_path: Path) -> None:
    """Unknown, named twice, left out, cold, empty: the key with its line, and what to write."""
    file = tmp_path / "mine.yaml"
    file.write_text(f"symbols: [{{name: BTCUSDT}}]\npipeline:\n  placement: {text}\n")
    with pytest.raises(ConfigError) as refused:
        load_profile(file)
    assert all(word in str(refused.value) for word in (*words, f"{file}:3:")), refused.value


def threads(session: Session, groups: Sequence[Sequence[str]]) -> list[Any]:
    """The words of each group."""
    return [group_words([session.stages[name].block for name in group]) for group in groups]


def together(session: Session, groups: Sequence[Sequence[str]], crash_after: Callable[[], int] = lambda: 1 << 40) -> int:
    """Run the groups in turn to the end, as so many threads would; how many turns there were.

    After every `crash_after()` turns one of them crashes, each in turn.
    """
    running, turns, idle = threads(session, groups), 0, 0
    crash_at = crash_after()
    while True:
        done = [turn(g) for g in running]
        session.record()
        turns += 1
        if not any(living for _, living in done):
            return turns
        idle = 0 if any(work for work, _ in done) else idle + 1
        assert idle < 50, "nobody goes on"
        if idle:
            for g in running:
                settle(g, 0, session.loop.spin - 1)  # the checkpoint that comes before a wait
        if turns >= crash_at:
            crash_at = turns + crash_after()
            victims = groups[session.crashes // len(groups[0]) % len(groups)]
            if any(session.done(name) for name in victims):
                continue
            for name in victims:
                session.crash(name)
            running = threads(session, groups)


@pytest.mark.parametrize("groups", [(STAGES,), HALVES, ODD], ids=["all", "halves", "odd"])
def test_a_shared_thread_changes_no_record(groups: Sequence[Sequence[str]]) -> None:
    """All rings, the order of intake and the ends are the backtest's, whoever shares a thread; every reader is at the tail."""
    plan = small_market(20.0)
    session = Session(plan, LoopSettings(spin=1, checkpoint_every=64), groups)
    together(session, groups)
    assert identities(session.kept()) == identities(undisturbed(plan))
    assert session.diverged() == 0 and list(session.unread()) == []
    pages = [board.page(session.world.board, topology.stage_id(name)) for name in STAGES]
    assert all(page[board.FINISHED] and page[board.HEARTBEAT] and page[board.RECORDS] and not page[board.TURN] for page in pages)


@pytest.mark.parametrize("groups", [(STAGES,), HALVES], ids=["all", "halves"])
def test_a_group_that_is_killed_goes_on_as_a_fold(groups: Sequence[Sequence[str]]) -> None:
    """All members lose what they have not checkpointed, again and again: no record is lost, doubled or different."""
    plan = small_market(12.0)
    session = Session(plan, LoopSettings(spin=1, checkpoint_every=8, frames=4), groups)
    together(session, groups, lambda: 97)
    assert session.crashes > 50 and session.diverged() == 0
    assert identities(session.kept()) == identities(undisturbed(plan))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_group_that_is_killed_every_few_turns_ends(seed: int) -> None:
    """With one to five turns between two deaths, and checkpoints that would come late by themselves, it goes on to the end."""
    plan, rng = small_market(1.0), np.random.default_rng(seed)
    session = Session(plan, LoopSettings(spin=1, checkpoint_every=1 << 30, frames=4), (STAGES,))
    turns = together(session, (STAGES,), lambda: int(rng.integers(1, 6)))
    assert session.crashes >= len(STAGES) * turns // 6 > 100 and session.diverged() == 0
    assert identities(session.kept()) == identities(undisturbed(plan))


@pytest.mark.slow
def test_room_is_given_at_once_inside_a_group() -> None:
    """Readers that never come to a checkpoint by themselves: a writer beside them is never kept waiting for one turn."""
    plan = small_market(120.0)
    session = Session(plan, LoopSettings(checkpoint_every=1 << 40), (STAGES,))
    (group,) = threads(session, (STAGES,))
    while True:
        work, living = turn(group)
        session.record()
        if not living:
            break
        assert work > 0
    figures = {name: board.page(session.world.board, topology.stage_id(name)) for name in STAGES}
    assert session.tail("market") > 2 * topology.RING["market"].capacity and int(figures["features"][board.CHECKPOINTS]) >= 2
    assert identities(session.kept()) == identities(undisturbed(plan))


def test_a_turn_leaves_out_who_cannot_go_on() -> None:
    """While records flow, feed and features are asked in a minority of the turns, and the exchange checkpoints by what its rings
    hold, not at each 64th of its many small records; all records are the backtest's."""
    plan = small_market(20.0)
    session = Session(plan, LoopSettings(checkpoint_every=64), (STAGES,))
    (group,) = threads(session, (STAGES,))
    turns = 0
    while turn(group)[1]:
        session.record()
        turns += 1
    pages = {name: board.page(session.world.board, topology.stage_id(name)) for name in STAGES}
    beats = {name: int(page[board.HEARTBEAT]) for name, page in pages.items()}
    assert turns > 1000 and 0 < beats["feed"] < turns // 2 and 0 < beats["features"] < turns // 2 < beats["risk"]
    exchange = pages["exchange"]
    assert 0 < int(exchange[board.CHECKPOINTS]) < int(exchange[board.RECORDS]) // 128
    assert identities(session.kept()) == identities(undisturbed(plan))


def test_an_input_whose_record_is_there_rings_for_nobody() -> None:
    """A stage that waits for one input is armed on that one, and not on those whose next record it has."""
    session = Session(small_market(5.0), LoopSettings(strategy=BLOCK, spin=1))
    assert session.poll("feed") > 0
    (risk,) = threads(session, (("risk",),))
    assert turn(risk)[0] == 0, "risk hears the reports before it takes the market"
    settle(risk, 0, 0)
    armed = {entry.name for entry in topology.inputs("risk") if session.world.rings[entry.name][ARMED_READERS]}
    assert armed == {"control", "reports", "signals", "quotes"}


def test_only_what_comes_from_outside_needs_the_bell() -> None:
    """Asleep, a group is armed for the frames and the operator alone; one bell wakes all, and the sleep is counted for each."""
    session = Session(small_market(5.0), LoopSettings(strategy=BLOCK, spin=1), (STAGES,))
    (group,) = threads(session, (STAGES,))
    for name in STAGES:
        session.stages[name].registers[R_WAIT_NS] = 10_000_000_000
    idle = settle(group, 0, 0)
    armed = {entry.name for entry in topology.RINGS if session.world.rings[entry.name][ARMED_READERS]}
    assert armed == {"frames", "control"}
    words = session.world.board
    ring_doorbell(words, board.doorbell(topology.stage_id("risk"), (STAGES,)))
    assert board.doorbell(STAGE["risk"].stage_id, (STAGES,)) == board.doorbell(STAGE["feed"].stage_id)
    assert settle(group, 0, idle) == 0  # the bell had rung: no sleep of ten seconds
    for name in STAGES:
        page = board.page(words, topology.stage_id(name))
        assert page[board.SLEEPS] == 1 and session.stages[name].registers[R_SLEPT] == 0


@pytest.fixture
def grouped(tmp_path: Path) -> Iterator[Instance]:
    """An instance with one process for all hot stages, its memory made."""
    profile = load_profile("paper", {"instance": f"t-placement-{os.getpid()}", "pipeline.placement": "grouped"})
    it = Instance(profile, str(tmp_path), None)
    it.create()
    yield it
    it.destroy()


def test_the_supervisor_sees_a_group_as_one_process(grouped: Instance) -> None:
    """Ready and finished when all members are; its heartbeat is that of one still at work; who was at work is named."""
    assert grouped.memory is not None and dict(grouped.processes) == {"recorder": ["recorder"], "hot": list(HOT)}
    assert grouped.runtime["groups"] == [list(HOT)]
    pages = {name: board.page(grouped.memory.board_words, topology.stage_id(name)) for name in HOT}
    for name in HOT:
        assert not grouped.ready("hot") and not grouped.finished("hot")
        pages[name][board.READY] = 1
    assert grouped.ready("hot")
    pages["feed"][board.HEARTBEAT], pages["features"][board.HEARTBEAT] = 7, 9
    assert grouped.heartbeat("hot") == 7
    pages["feed"][board.FINISHED] = 1
    assert grouped.heartbeat("hot") == 9 and grouped.ready("hot")
    pages["feed"][board.TURN] = STAGE["risk"].stage_id
    assert grouped.at_work("hot") == "risk" and grouped.at_work("recorder") == ""
    grouped.prepare("hot", 3)
    assert grouped.at_work("hot") == "" and all(page[board.INCARNATION] == 3 and not page[board.READY] for page in pages.values())


def test_rings_know_the_doorbell_of_a_group(grouped: Instance) -> None:
    """Whoever reads or writes a ring for a member finds the group's doorbell in it; others keep their own."""
    assert grouped.memory is not None
    first = board.doorbell(topology.stage_id("feed"))
    for entry in topology.RINGS:
        words = grouped.memory.ring(entry.name)
        for n, reader in enumerate(entry.readers):
            assert words[READER_DOORBELL + n] == (first if reader in HOT else board.doorbell(topology.stage_id(reader)))
        own = board.doorbell(topology.stage_id(entry.writer))
        assert words[WRITER_DOORBELL] == (first if entry.writer in HOT else own)


NAMES = [stage.name for stage in topology.Run().essential]


@pytest.mark.parametrize(
    ("cores", "usable", "placed"),
    [
        ("none", range(16), {}),
        ("auto", range(2), {}),
        ("auto", range(7), {}),
        ("auto", range(8), dict(zip(NAMES, range(1, 8), strict=True))),
        ((3, 4), range(8), {name: 3 + n % 2 for n, name in enumerate(NAMES)}),
    ],
)
def test_stages_are_placed_on_cores(cores: Any, usable: range, placed: dict[str, int]) -> None:
    """By the profile's list in turn; by themselves only where every process can have a core of its own."""
    assert place_stages(cores, list(usable), NAMES) == placed
