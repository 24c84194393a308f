"""The report's table of gates, each signal's part, the last orders and the settings: each against a plain count."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from test_report_tearsheet import FACTS, TABLE, session

from procs.cli.provenance import digests, recordings_of, settings_of
from procs.profiles.config import load_profile
from sim.report.build import build_report, render_json, render_text
from sim.report.decisions import Tally
from sim.report.model import RecordingFile, Setting
from sim.report.orders import last_orders
from sim.report.shares import counted
from sim.report.tearsheet import WIDTH
from trading.features.signals import SIGNALS, Signal, Voice
from trading.jit import Recs
from trading.records import SIGNAL_RECORD, ExecType, Kind, OrderStatus, Side
from trading.scoring.ensemble import GATE_SENTENCES, Gate
from trading.settings import SignalFiles, Strategy, UserSignal, Weights


def signals_of(n: int, seed: int = 3) -> Recs:
    """Made-up signal records: a gate or a side each, random strengths, warm and active bits; an END at the end."""
    rng = np.random.default_rng(seed)
    recs = np.zeros(n + 1, SIGNAL_RECORD)
    recs["kind"] = Kind.SIGNAL
    recs["kind"][-1] = Kind.END
    recs["gate"] = rng.choice([0, 0, 1, 4, 4, 5, 9], n + 1)
    recs["side"] = np.where(recs["gate"] == 0, rng.choice([-1, 0, 1], n + 1), 0)
    recs["strength"] = np.round(rng.uniform(-1, 1, recs["strength"].shape), 3)
    recs["ready_mask"] = rng.integers(0, 1 << 15, n + 1)
    recs["active_mask"] = recs["ready_mask"] & rng.integers(0, 1 << 15, n + 1)
    recs["reason"] = rng.integers(0, 15, n + 1)
    return recs


def test_the_tally_counts_what_a_plain_loop_counts() -> None:
    """Gates, sides, each signal's warm, active and leading records and votes: as one record after the other says it, in pieces
    of any size, a user's own signal and one without a weight among them."""
    own = UserSignal(file="/nowhere/mine.py", name="mine", weight=0.7)
    strategy = Strategy(weights=Weights(rsi_divergence=0.0), signals=SignalFiles(user=(own,)))
    recs = signals_of(400)
    tally = Tally(strategy)
    for piece in np.array_split(recs, [1, 5, 5, 250]):
        tally(piece)
    whole = Tally(strategy)
    whole.take_all(recs)
    assert tally.found() == whole.found()
    found = tally.found()
    rows = [rec for rec in recs if rec["kind"] == Kind.SIGNAL]
    asked = [rec for rec in rows if rec["side"] != Side.NONE]
    assert (found.records, found.asked_to_buy) == (400, sum(rec["side"] == 1 for rec in rows))
    assert found.asked_to_sell == len(asked) - found.asked_to_buy
    assert found.undecided == sum(rec["gate"] == 0 and rec["side"] == 0 for rec in rows)
    assert {row.gate: row.records for row in found.gates} == {
        Gate(g).name: sum(rec["gate"] == g for rec in rows) for g in (1, 4, 5, 9)
    }
    assert sum(row.records for row in found.gates) + found.undecided + len(asked) == found.records
    total = 0.0
    votes: dict[str, list[float]] = {}
    specs = [(spec.signal, spec.key, spec.voice, getattr(strategy.weights, spec.key)) for spec in SIGNALS]
    for k, key, voice, weight in [*specs, (len(SIGNALS), "mine", Voice.OCCASIONAL, 0.7)]:
        sides = [1 if voice == Voice.CONFIRMING else int(rec["side"]) for rec in asked]
        cast = [
            weight * float(rec["strength"][k]) * side if rec["active_mask"] >> k & 1 else 0.0
            for rec, side in zip(asked, sides, strict=True)
        ]
        votes[key] = [sum(v for v in cast if v > 0), -sum(v for v in cast if v < 0)]
        total += votes[key][0]
        row = next(row for row in found.signals if row.signal == key)
        assert (row.weight, row.warm) == (weight, sum(int(rec["ready_mask"]) >> k & 1 for rec in rows))
        assert row.active == sum(int(rec["active_mask"]) >> k & 1 for rec in rows)
        assert row.led == sum(rec["reason"] == k + 1 for rec in asked)
        assert [row.votes_for, row.votes_against] == pytest.approx(votes[key])
    for row in found.signals:
        assert row.part == pytest.approx((votes[row.signal][0] - votes[row.signal][1]) / total)
    assert next(row for row in found.signals if row.signal == "spread").votes_for > 0 and Signal.SPREAD == 3


def test_the_page_shows_gates_and_parts() -> None:
    """Every gate that held something back stands there with its count, its share and its sentence; so does each signal's part. A
    run without signal records says so."""
    tally = Tally(Strategy())
    tally(signals_of(500))
    found = tally.found()
    text = render_text(build_report(FACTS, instruments=TABLE, **session(20, 200), decisions=found))
    assert max(map(len, text.splitlines())) <= WIDTH
    said = " ".join(text.split())
    for row in found.gates:
        assert f"{row.gate} {row.records:,} {row.records / 500:.1%} " in said
        assert all(word in said for word in GATE_SENTENCES[Gate[row.gate]].split())
    assert "what became of 500 signal records" in said
    assert all(row.signal in text for row in found.signals if row.weight)
    as_json = json.loads(render_json(build_report(FACTS, instruments=TABLE, **session(20, 200), decisions=found)))
    assert as_json["decisions"]["gates"][0]["records"] == found.gates[0].records
    assert "No signal record" in render_text(build_report(FACTS, instruments=TABLE, **session(4, 60)))


def test_the_last_orders_carry_their_ids() -> None:
    """The last five orders sent and the last five filled, oldest first, each once, with the id that `trace` takes, what was
    filled of it, at what average, and how it ended."""
    parts = session(40, 400)
    filled = parts["reports"]["exec_type"] == ExecType.FILL
    parts["reports"]["order_status"] = np.where(filled, OrderStatus.FILLED, OrderStatus.OPEN)
    rows = last_orders(parts["orders"], parts["reports"], TABLE)
    ids = [row.order_id for row in rows]
    assert ids == sorted(set(ids)) and ids[-5:] == [36, 37, 38, 39, 40]
    fills = parts["reports"][parts["reports"]["exec_type"] == ExecType.FILL]
    for row in rows:
        own = fills[fills["order_id"] == row.order_id]
        assert row.filled == pytest.approx(int(own["last_lots"].sum()) * 1e-8)
        mean = float((own["last_ticks"] * own["last_lots"]).sum()) / int(own["last_lots"].sum()) * 0.01
        assert row.average == pytest.approx(mean) and row.status in ("filled", "open", "sent")
    text = render_text(build_report(FACTS, instruments=TABLE, **parts))
    assert "trace ORDER" in text and f"\n  {ids[-1]}  " in text
    assert last_orders(parts["orders"][:0], parts["reports"][:0], TABLE) == ()


def test_settings_that_differ_are_named_with_their_defaults() -> None:
    """Nothing for a profile of defaults; a changed key with its value and its default; a long one is cut."""
    plain = load_profile("paper")
    assert settings_of(plain) == ()
    wishes = {"risk.equity": 5000, "gates.max_spread_bps": 2.5, "gateway.enabled": True, "source.speed": "max"}
    assert {(one.key, one.value, one.default) for one in settings_of(load_profile("paper", wishes))} == {
        ("source.speed", "max", "1"),
        ("gates.max_spread_bps", "2.5", "6"),
        ("risk.equity", "5000", "100000"),
        ("gateway.enabled", "true", "false"),
    }
    own = UserSignal(file="/nowhere/" + "x" * 80 + ".py", name="mine")
    (one,) = settings_of(msgspec.structs.replace(plain, signals=SignalFiles(user=(own,))))
    assert one.key == "signals.user" and one.default == "[]" and one.value.endswith("…")


def test_the_page_carries_settings_recordings_and_version(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Version, what differs from the defaults, and the SHA-256 of each file, as the system's own tool would print it."""
    import hashlib

    file = tmp_path / "day1.gz"
    file.write_bytes(b"frames" * 1000)
    kept = digests([file])
    assert kept == [{"name": "day1.gz", "bytes": 6000, "sha256": hashlib.sha256(b"frames" * 1000).hexdigest()}]
    facts = replace(
        FACTS, version="9.9.9", settings=(Setting(key="risk.equity", value="5000", default="100000"),),
        recordings=recordings_of(kept), whole=False,
    )  # fmt: skip
    report = build_report(facts, instruments=TABLE, **session(4, 60))
    text = render_text(report)
    for said in ("9.9.9", "risk.equity: 5000 (default 100000)", kept[0]["sha256"], "day1.gz, 6,000 bytes"):
        assert said in text
    assert "it was ended before its market had" in " ".join(text.split())
    assert report.ran.recordings == (RecordingFile(**kept[0]),) and max(map(len, text.splitlines())) <= WIDTH
    assert "the defaults" in render_text(build_report(FACTS, instruments=TABLE, **session(4, 60)))


def test_a_share_in_words_says_what_chance_allows() -> None:
    """Counts and interval beside the share; without a sample only the counts."""
    assert counted(0, 184) == "0.0 % (0 of 184; 95 %: 0.0 to 2.0 %)"
    assert counted(0, 0) == "0 of 0"
    report = build_report(FACTS, instruments=TABLE, **session(120, 1200))
    assert f"{report.kpis.win_rate.hits} of {report.kpis.win_rate.sample}; 95 %" in render_text(report)
    assert "±" not in next(line for line in render_text(report).splitlines() if "win rate" in line)


def test_the_machines_latency_and_the_venues_stand_apart() -> None:
    """Two tables; the second says that the venue's delay is in it, and only in it."""
    spread = {"count": 9, "p50_ns": 1000.0, "p99_ns": 2000.0, "p999_ns": 3000.0, "max_ns": 4000.0}
    slow = {**spread, "p50_ns": 52e6}
    report = build_report(
        FACTS, instruments=TABLE, **session(4, 60),
        latency={"frame to order": spread}, venue={"frame to answer at router": slow},  # type: ignore[dict-item]
    )  # fmt: skip
    text = render_text(report)
    own, back = text.index("frame to order"), text.index("frame to answer at router")
    assert text.index("LATENCY") < own < text.index("OVER THE VENUE AND BACK") < back
    assert "the simulated venue's delay is in these" in text and "52 ms" in text[back:]
