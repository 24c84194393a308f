"""The tables of rings and stages: what runs in which world, what a table may not say, and what a new row and a profile change."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fold_world import small_market

from procs import topology
from procs.memory import segments
from procs.profiles.config import ConfigError, load_profile
from procs.research import backtest
from procs.topology import RINGS, STAGES, Ring, Run, Stage
from trading.records import Kind

NEEDED = ("recorder", "exchange", "router", "risk", "quoter", "features", "feed")
GATEWAY, LEARNER = "gateway.enabled", "ml.learner.enabled"


@pytest.mark.parametrize(
    ("run", "names"),
    [
        (Run(), NEEDED),
        (Run("replay", "recording"), NEEDED),
        (Run(source="live"), (*NEEDED, "receiver")),
        (Run(source="live", asked=frozenset({GATEWAY, LEARNER})), (*NEEDED, "receiver", "gateway", "learner")),
        (Run(asked=frozenset({LEARNER})), (*NEEDED, "learner")),
        (Run("record", "live"), ("recorder", "feed", "receiver")),
        (Run("record", "live", asked=frozenset({GATEWAY, LEARNER})), ("recorder", "feed", "receiver")),
    ],
)
def test_a_run_starts_readers_before_writers_and_what_is_not_needed_last(run: Run, names: tuple[str, ...]) -> None:
    """The recorder first, then against the flow of records; only `record` does without those that decide."""
    assert run.names == names
    assert [stage.name for stage in run.essential] == [s.name for s in STAGES if s.name in names and s.essential]
    assert [stage.name for stage in run.hot] == [s.name for s in STAGES if s.name in names and s.hot]


def test_only_sockets_bring_frames_and_what_the_feed_wants() -> None:
    """Without a receiver the rings to and from it carry nothing; in `record` nobody writes what decisions would."""
    assert {ring.name for ring in RINGS} - {ring.name for ring in Run().rings} == {"frames", "resync", "intake.feed"}
    assert Run(source="live").rings == RINGS
    recorded = {"frames", "resync", "intake.feed", "market", "depth", "control"}
    assert {ring.name for ring in Run("record", "live").rings} == recorded


def test_a_profile_gives_its_run() -> None:
    """World, source, exchange and switches come from the profile."""
    assert Run.of(load_profile("paper")) == Run()
    asked = {"gateway.enabled": True, "ml.enabled": True, "ml.learner.enabled": True}
    assert Run.of(load_profile("paper", asked)) == Run(asked=frozenset({GATEWAY, LEARNER}))


def rows(*stages: Stage, rings: dict[str, dict[str, Any]] | None = None) -> tuple[tuple[Stage, ...], tuple[Ring, ...]]:
    """The tables with these stages in the place of those of the same name, and with these fields of rings."""
    told = {stage.name: stage for stage in stages}
    changed = tuple(replace(ring, **(rings or {}).get(ring.name, {})) for ring in RINGS)
    return tuple(told.get(stage.name, stage) for stage in STAGES), changed


HEARD = {"vectors": {"readers": ("features", "recorder")}}
QUOTES_NOT_LAST = ("control", "reports", "market", "quotes", "signals")


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        (rows(rings={"quotes": {"readers": ("risk",)}}), "the recorder keeps every ring"),
        (rows(rings={"quotes": {"readers": ("risk", "router", "recorder")}}), "the stage does not say so"),
        (rows(rings={"quotes": {"readers": ("recorder",)}}), "the ring does not say so"),
        (rows(rings={"quotes": {"capacity": 5000}}), "quotes"),
        (rows(rings={"quotes": {"ring_id": 4}}), "a ring's id is its index"),
        (rows(rings={"quotes": {"burst": 4096}}), "must leave room"),
        (rows(replace(topology.STAGE["quoter"], essential=False)), "what a ring needs is essential"),
        (rows(replace(topology.STAGE["quoter"], stage_id=4)), "a stage's id and name are its own"),
        (rows(replace(topology.STAGE["features"], inputs=("market", "vectors")), rings=HEARD), "need an intake log"),
        (rows(replace(topology.STAGE["quoter"], feedback="orders")), "its feedback is one of its inputs"),
        (rows(replace(topology.STAGE["router"], reference="orders")), "a reference is an output"),
        (rows(replace(topology.STAGE["risk"], inputs=QUOTES_NOT_LAST)), "only the last input may"),
        (rows(replace(topology.STAGE["exchange"], role="venue")), "a role is called like"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(
    tables: tuple[Any, Any], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each relation between rows is asserted when the module is imported."""
    stages, rings = tables
    monkeypatch.setattr(topology, "STAGES", stages)
    monkeypatch.setattr(topology, "STAGE", {stage.name: stage for stage in stages})
    monkeypatch.setattr(topology, "RINGS", rings)
    monkeypatch.setattr(topology, "RING", {ring.name: ring for ring in rings})
    with pytest.raises(AssertionError, match=complaint):
        topology._check()


# ---- two tables and one file -----------------------------------------------------------------------------------------

STAGE_ROWS = '''    Stage(11, "echo", "echo_stage", ("quotes",), "says every quote again"),
    Stage(
        12, "silence", "silent_exchange", ("depth", "market", "wire"), "an exchange that never answers", role=EXCHANGE,
        reference="executions",
    ),
'''
RING_ROW = '''    Ring(18, "echoes", records.QUOTE_RECORD, "echo", ("recorder",), 4096, "every quote again"),
'''
ECHO = '''"""Says every quote again."""

from functools import partial

from procs import topology
from procs.fold.assembly import assemble, emit, in_recs, in_row, own, own_words, pass_end, scratch
from procs.fold.block import ENDED
from procs.fold.far_calls import apart
from procs.fold.warm import warm_stage
from trading.records import QUOTE_RECORD, words

NAME = "echo"
QUOTES = ECHOES = SCRATCH = 0  # its only input, its only output, its only array
QUOTES_ID, WIDTH = topology.RING["quotes"].ring_id, words(QUOTE_RECORD)


def state_spec(symbols):
    return ()


def build(plan, world, loop):
    bound = assemble(NAME, world, state_spec(plan.symbols), loop)
    bound.give(scratch(QUOTE_RECORD, 1))
    return bound


@apart(QUOTES)
def _on_quote(b, now):
    recs, row = in_recs(b, QUOTES, QUOTE_RECORD), in_row(b, QUOTES)
    own(b, SCRATCH, QUOTE_RECORD)[0] = recs[row]
    emit(b, ECHOES, own_words(b, SCRATCH, WIDTH), 0, QUOTES_ID, recs[row].seq - 1, recs[row].ts_origin_mono_ns, now)


@apart(ENDED)
def _on_end(b, r):
    pass_end(b, ECHOES, r)


warm = partial(warm_stage, NAME)
'''
SILENCE = '''"""An exchange that never answers."""

from functools import partial

from procs.fold.assembly import assemble, emit_end, in_time
from procs.fold.block import ENDED
from procs.fold.far_calls import apart
from procs.fold.loop import ended
from procs.fold.warm import warm_stage

NAME = "silence"
DEPTH, MARKET, WIRE = 0, 1, 2
WAY_NS = 1_000_000


def state_spec(symbols):
    return ()


def build(plan, world, loop):
    return assemble(NAME, world, state_spec(plan.symbols), loop, shifts={"wire": WAY_NS}, lead_ns=WAY_NS)


@apart(DEPTH)
def _on_depth(b, now):
    pass


@apart(MARKET)
def _on_market(b, now):
    pass


@apart(WIRE)
def _on_order(b, now):
    pass


@apart(ENDED)
def _on_end(b, r):
    if ended(b, DEPTH) and ended(b, MARKET) and ended(b, WIRE):
        emit_end(b, 0, in_time(b, r) + WAY_NS, -1, -1)


warm = partial(warm_stage, NAME)
'''


@pytest.fixture
def extended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables as their file would give them with two more stages, one more ring and one more reader; and the stages' files."""
    text = Path(topology.__file__).read_text(encoding="utf-8")
    for before, more in (('\n)\n"""In the order in which records flow', STAGE_ROWS), ("\n)\n\nRING: Final", RING_ROW)):
        assert text.count(before) == 1
        text = text.replace(before, f"\n{more.rstrip()}{before}")
    assert text.count('"quoter", ("risk", "recorder")') == 1
    text = text.replace('"quoter", ("risk", "recorder")', '"quoter", ("risk", "recorder", "echo")')
    told = ModuleType("told")
    monkeypatch.setitem(sys.modules, "told", told)
    exec(compile(text, "told", "exec"), told.__dict__)  # its checks run
    for name in ("STAGES", "STAGE", "RINGS", "RING"):
        monkeypatch.setattr(topology, name, getattr(told, name))
    (tmp_path / "echo_stage.py").write_text(ECHO, encoding="utf-8")
    (tmp_path / "silent_exchange.py").write_text(SILENCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("extended")
def test_a_new_stage_and_its_ring_are_a_row_each_and_one_file() -> None:
    """With a row in each table, its name among the readers of what it reads, and its file, a stage is started, warmed, drawn,
    given memory and polled: nothing else knows the stages by name. What the others say stays the same."""
    assert Run().names == ("recorder", "echo", *NEEDED[1:]) and "echo" not in Run("record", "live").names
    assert "  quoter -- quotes --> echo" in topology.diagram() and '"quoter" -> "echo"' in topology.diagram("dot")
    assert topology.RING["echoes"] in Run().rings
    plan = small_market(20.0)
    run = backtest.run(plan, keep=("quotes", "echoes", "orders"))
    quotes, echoes = run.kept["quotes"], run.kept["echoes"]
    assert len(quotes) == len(echoes) > 10 and echoes["kind"][-1] == int(Kind.END)
    assert (echoes["cause_ring"] == topology.RING["quotes"].ring_id).all()
    assert (echoes["cause_seq"] == range(len(quotes))).all()
    for field in ("ts_ns", "kind", "symbol", "bid_ticks", "ask_ticks"):
        assert (echoes[field] == quotes[field]).all(), field
    memory = segments.create("t-echo", segments.Placement(), stages=Run().names)
    try:
        assert memory.ring("echoes").size == memory.ring("quotes").size
    finally:
        memory.destroy()


@pytest.mark.usefixtures("extended")
def test_a_profile_chooses_which_stage_plays_the_exchange() -> None:
    """The stage that it names stands on the exchange's rings, and the other does not run."""
    plan = small_market(20.0, **{"pipeline.exchange": "silence"})
    assert "silence" in plan.run.names and "exchange" not in plan.run.names
    assert topology.outputs("silence") == topology.outputs("exchange")
    run = backtest.run(plan, keep=("wire", "executions"))
    assert "silence" in run.stages and "exchange" not in run.stages
    assert (run.kept["wire"]["kind"] == int(Kind.NEW)).sum() > 10
    assert run.kept["executions"]["kind"].tolist() == [int(Kind.END)]


def test_an_exchange_that_no_stage_plays_is_refused(tmp_path: Path) -> None:
    """With file, line and key, and with those that there are."""
    path = tmp_path / "mine.yaml"
    path.write_text("symbols:\n  - name: BTCUSDT\npipeline:\n  exchange: recorder\n", encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load_profile(path)
    told = str(refused.value)
    assert "mine.yaml:4" in told and "pipeline.exchange" in told and "known: exchange" in told and "'recorder'" in told
