"""A session folds again from its journals: every ring equal record for record, and what is no fold, or damaged, is caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import clocked_quoter
import numpy as np
import pytest
from fake_courier import CourierSession, courier_stage  # noqa: F401
from fold_world import STAGES, Session, intake_order, small_market, undisturbed
from test_fold_crashes import run_disturbed

from procs import topology
from procs.fold.assembly import LoopSettings
from procs.fold.plan import Plan
from procs.journal.comparing import Difference, Kept
from procs.journal.file import JournalDamaged, JournalWriter, journal_path
from procs.research import refold
from trading.jit import Recs
from trading.records import ExecType, Kind

Rows = dict[str, Recs]
SECONDS = 24.0
START_NS = 1_750_000_000_000_000_000
"""When the generated market begins."""


@pytest.fixture(scope="module")
def plan() -> Plan:
    """A small generated market."""
    return small_market(SECONDS)


@pytest.fixture(scope="module")
def told(plan: Plan) -> Rows:
    """All records of a session with an operator and some hundred kills."""
    rng = np.random.default_rng(5)
    session = Session(plan, LoopSettings(checkpoint_every=200, look=True))
    run_disturbed(session, rng, 0.03, 0.0005)
    assert session.crashes >= 100 and session.diverged() == 0
    kept = session.kept()
    assert len(kept["control"]) >= 5 and len(kept["orders"]) > 50
    return kept


def one_by_default(seeds: range) -> pytest.MarkDecorator:
    """A test of many seeds: the first by default, the others with the slow tests."""
    return pytest.mark.parametrize("seed", [seeds[0], *(pytest.param(seed, marks=pytest.mark.slow) for seed in seeds[1:])])


def written(folder: Path, kept: Rows) -> dict[str, Kept]:
    """The journals of these records."""
    folder.mkdir(exist_ok=True)
    for name, recs in kept.items():
        with JournalWriter.open(journal_path(folder, name), name, topology.RING[name].record, "test") as journal:
            journal.append(np.ascontiguousarray(recs))
    return refold.opened(folder)


def before(recs: Recs, share: float) -> Recs:
    """The records up to a share of the session's time."""
    return recs[: int(np.searchsorted(recs["ts_ns"], START_NS + int(share * SECONDS * 1e9)))]


def differences(found: list[refold.Result]) -> dict[str, Difference]:
    """Those rings that differ."""
    return {one.ring: one.difference for one in found if one.difference is not None}


def as_played(plan: Plan) -> Plan:
    """The plan of a session whose source cannot be had again: its market comes from the journals."""
    return replace(plan, run=replace(plan.run, source="recording"))


@pytest.mark.parametrize("source", ["made anew", "from the journals"])
def test_a_killed_session_with_an_operator_folds_again(tmp_path: Path, plan: Plan, told: Rows, source: str) -> None:
    """The feed's source made anew, or market and depth from their journals: every ring and every order of intake is equal to its
    end, with halts and resumes at the times and places that the log kept."""
    played = plan if source == "made anew" else as_played(plan)
    found = refold.refold(refold.Session(played, written(tmp_path / "j", told)))
    assert differences(found) == {}
    made = {name for stage in STAGES if stage != "feed" or played is plan for name in (e.name for e in topology.outputs(stage))}
    assert {one.ring for one in found} == made - {refold.TOLD}
    assert all(one.reached == one.total for one in found)


def test_a_session_cut_anywhere_is_equal_as_far_as_it_goes(tmp_path: Path, plan: Plan, told: Rows) -> None:
    """The recorder of a session that died had each ring another way: what there is is equal, and most of it is reached."""
    rng = np.random.default_rng(6)
    for played in (plan, as_played(plan)):
        share = rng.uniform(0.6, 0.9)
        cut = {name: before(recs, share * rng.uniform(0.97, 1.0)) for name, recs in told.items()}
        found = refold.refold(refold.Session(played, written(tmp_path / played.run.source, cut)))
        assert differences(found) == {}, played.run.source
        assert sum(one.reached for one in found) > 0.9 * sum(one.total for one in found)


@pytest.mark.parametrize(
    ("ring", "change", "field"),
    [
        ("orders", lambda r: r["price_ticks"].__setitem__(20, r["price_ticks"][20] + 1), "price_ticks"),
        ("signals", lambda r: r["strength"].__setitem__((20, 3), 0.123), "strength[3]"),
        ("intake.risk", lambda r: r["cause_seq"].__setitem__(20, r["cause_seq"][20] + 1), "sequence of its input"),
        ("control", lambda r: r["kind"].__setitem__(slice(None), int(Kind.HALT)), None),
    ],
)
def test_one_altered_word_is_found(
    tmp_path: Path, plan: Plan, told: Rows, ring: str, change: Callable[[Recs], None], field: str | None
) -> None:
    """What a journal says and the fold does not make is named: ring, record, field, what it was and what it is; an operator's
    word that was another one shows in what risk made of it."""
    altered = told | {ring: told[ring].copy()}
    change(altered[ring])
    found = differences(refold.refold(refold.Session(as_played(plan), written(tmp_path / "j", altered))))
    if field is None:
        assert set(found) & {"orders", "refusals"}
        return
    assert found[ring].field == field and found[ring].was != found[ring].now
    assert field == "sequence of its input" or found[ring].sequence == 20


def test_a_record_that_nobody_makes_is_found(tmp_path: Path, plan: Plan, told: Rows) -> None:
    """A session that ended has exactly its records: one too many in a journal, or one too few, is a difference."""
    orders = told["orders"]
    doubled = np.concatenate([orders[:-1], orders[-2:]])
    doubled["seq"] = np.arange(1, len(doubled) + 1)
    found = differences(refold.refold(refold.Session(as_played(plan), written(tmp_path / "j", told | {"orders": doubled}))))
    assert "orders" in found


@one_by_default(range(40, 48))
@pytest.mark.usefixtures("courier_stage")
def test_answers_from_outside_fold_again(tmp_path: Path, seed: int) -> None:
    """An exchange that is no fold answers at any moment, between frames, an operator's words and kills of every stage: nothing
    diverges, time never runs back on a ring, every answer is taken once, and from the journals every ring folds again."""
    rng = np.random.default_rng(seed)
    plan = small_market(SECONDS, **{"generator.seed": seed})
    loop = LoopSettings(checkpoint_every=int(rng.integers(1, 400)), batch=int(rng.integers(1, 65)), look=seed % 2 == 0)
    session = CourierSession(plan, loop, seed, float(rng.choice([0.02, 0.2, 0.9])))
    run_disturbed(session, rng, 0.03, 0.0003)
    kept = session.kept()
    assert session.crashes >= 50 and session.diverged() == 0 and list(session.unread()) == []
    fills = kept["executions"]["exec_type"] == ExecType.FILL
    assert fills.sum() >= 5 and len(kept["wire"]) >= 20, "an exchange that says nothing proves nothing"
    for name in ("signals", "quotes", "orders", "wire", "reports"):
        assert (np.diff(kept[name]["ts_ns"]) >= 0).all(), name
    taken = [at for ring, at in intake_order(kept["intake.router"]) if ring == 0]
    assert taken == list(range(len(kept["executions"])))
    for source in ("generated", "recording"):
        played = replace(session.plan, run=replace(session.plan.run, source=source))
        assert played.run.outside == {"control", "executions"}
        found = refold.refold(refold.Session(played, written(tmp_path / source, kept)))
        assert differences(found) == {} and all(one.reached == one.total for one in found)
        assert {"reports", "orders", "quotes", "wire", "intake.router"} <= {one.ring for one in found}
        assert "executions" not in {one.ring for one in found}


@pytest.mark.usefixtures("courier_stage")
def test_a_cut_session_with_answers_from_outside_is_equal_as_far_as_it_goes(tmp_path: Path) -> None:
    """Journals that end anywhere, the log of what entered among them: what there is is equal."""
    rng = np.random.default_rng(61)
    session = CourierSession(small_market(SECONDS), LoopSettings(), 61, 0.2)
    run_disturbed(session, rng, 0.01, 0.0003)
    kept = session.kept()
    for n in range(4):
        share = rng.uniform(0.3, 0.9)
        cut = {name: before(recs, share * rng.uniform(0.9, 1.0)) for name, recs in kept.items()}
        cut["control"] = kept["control"]
        cut["executions"] = kept["executions"][: int(share * rng.uniform(0.8, 1.1) * len(kept["executions"]))]
        found = refold.refold(refold.Session(session.plan, written(tmp_path / f"{n}", cut)))
        assert differences(found) == {}, n
        assert sum(one.reached for one in found) > 0.5 * sum(one.total for one in found)


def test_slots_that_a_power_failure_left_unwritten_are_no_records(told: Rows) -> None:
    """They lie behind the last record, and nothing is expected of them."""
    orders = told["orders"]
    kept = Kept(Path("orders.journal"), np.concatenate([orders, np.zeros(3, orders.dtype)]))
    assert len(kept) == len(orders) and kept.closed
    assert not Kept(Path("orders.journal"), orders[:-1]).closed


def test_a_damaged_journal_is_said(tmp_path: Path, plan: Plan, told: Rows) -> None:
    """A broken sequence is damage, of what is played as of what is compared, never a difference."""
    for ring in ("market", "orders", "intake.risk"):
        kept = written(tmp_path / ring, told)
        path = journal_path(tmp_path / ring, ring)
        record = topology.RING[ring].record.itemsize
        with path.open("r+b") as file:
            file.seek(4096 + 10 * record + record - 8)
            file.write((99).to_bytes(8, "little"))
        with pytest.raises(JournalDamaged, match=rf"{ring}.*sequence 10 is due"):
            refold.refold(refold.Session(as_played(plan), kept))


def test_what_reads_the_clock_is_caught(tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage whose decisions depend on this machine's clock makes other records each time, and the refold says which."""
    kept = undisturbed(plan)
    journals = written(tmp_path / "j", kept)
    stages = tuple(clocked_quoter.STAGE if stage.name == "quoter" else stage for stage in topology.STAGES)
    monkeypatch.setattr(topology, "STAGES", stages)
    found = differences(refold.refold(refold.Session(plan, journals)))
    assert found["quotes"].field in clocked_quoter.FIELDS


def test_a_backtest_folds_again(tmp_path: Path, plan: Plan) -> None:
    """Without an operator and without kills it is the backtest itself."""
    found = refold.refold(refold.Session(plan, written(tmp_path / "j", undisturbed(plan))))
    assert differences(found) == {} and all(one.reached == one.total for one in found)
