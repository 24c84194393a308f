"""`scalperctl signals`: what it makes of the signals ring, for people and for programs."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gateway_world import GatewayWorld

from procs.cli import signal_view
from procs.cli.observe import Symbol
from procs.cli.outcome import OK, USAGE, CliError
from procs.cli.table import plain, visible
from procs.memory import board
from trading.features import signals
from trading.own_signals import guard as user_guard
from trading.records import MAX_SIGNALS, Side
from trading.scoring.ensemble import GATE_SENTENCES, Gate
from trading.settings import UserSignal

SYMBOLS = [Symbol("BTCUSDT", 0.01, 1e-8), Symbol("ETHUSDT", 0.01, 1e-8)]


@pytest.fixture
def world() -> GatewayWorld:
    """Two symbols; the first has two signal records, the second none."""
    found = GatewayWorld()
    found.both(side=Side.SELL)
    found.both(side=Side.NONE, gate=int(Gate.SPREAD))
    found.now_ns += 1_500_000
    return found


@pytest.fixture
def running(world: GatewayWorld, monkeypatch: pytest.MonkeyPatch) -> GatewayWorld:
    """The command finds the world as the instance that runs."""

    @contextlib.contextmanager
    def looking_at(instance: str) -> Iterator[Any]:
        yield world.memory

    monkeypatch.setattr(signal_view.running, "instance_for", lambda args: "synthetic")
    monkeypatch.setattr(signal_view.running, "looking_at", looking_at)
    monkeypatch.setattr(signal_view.running, "running_profile", lambda instance: world.profile)
    monkeypatch.setattr(signal_view, "symbols_of", lambda instance: SYMBOLS)
    monkeypatch.setattr(signal_view.time, "monotonic_ns", lambda: world.now_ns)
    return world


def told(symbol: str | None = None, **more: Any) -> argparse.Namespace:
    """The command line."""
    return argparse.Namespace(**({"symbol": symbol, "json": False, "watch": False, "interval": 0.0} | more))


def test_a_symbol_is_its_newest_record_in_words(world: GatewayWorld) -> None:
    """Decision, gate with its sentence, market, and one line for every signal of the table."""
    found = signal_view.collect(world.memory, SYMBOLS, [0, 1], world.profile, world.now_ns)  # type: ignore[arg-type]
    text = "\n".join(signal_view.lay_out(found, 160, plain))
    assert "BTCUSDT  NONE  score 75.0  confidence 0.80  urgency 60" in text and "1.5 ms old" in text
    assert f"gate SPREAD: {GATE_SENTENCES[Gate.SPREAD]}" in text
    assert "mid 60,000.050" in text and "ATR 20.00" in text and "(buys from 70.0, sells from 30.0)" in text
    assert "; led by book_imbalance" in text
    assert "microstructure 71  microprice 60,000.075  VPIN 0.25  OFI -0.50  patterns none" in text
    lines = text.splitlines()
    for spec in signals.SIGNALS:
        assert sum(line.startswith(spec.key + " ") for line in lines) == 1
    first = next(line for line in lines if line.startswith("book_imbalance"))
    assert all(word in first for word in ("active", "+0.41", "over 0.30"))
    assert any(line.startswith("spread") and "warming" in line and "not seen enough" in line for line in lines)
    assert lines[-1] == "ETHUSDT  waiting for the first record"


@pytest.mark.parametrize("width", [40, 80, 120])
def test_every_line_fits(world: GatewayWorld, width: int) -> None:
    """No line is wider than the terminal."""
    found = signal_view.collect(world.memory, SYMBOLS, [0, 1], world.profile, world.now_ns)  # type: ignore[arg-type]
    assert all(visible(line) <= width for line in signal_view.lay_out(found, width, plain))


def test_a_quiet_symbol_keeps_its_last_record(world: GatewayWorld) -> None:
    """However many records of others followed, as long as the ring holds it."""
    for _ in range(2000):
        world.signal(1)
    found = signal_view.collect(world.memory, SYMBOLS, [0], world.profile, world.now_ns)  # type: ignore[arg-type]
    assert found[0].decision is not None and found[0].decision.gate.name == "SPREAD"


def test_json_has_every_field(running: GatewayWorld, capsys: pytest.CaptureFixture[str]) -> None:
    """One object, each symbol with its state; what waits says so."""
    assert signal_view.signals(told(json=True)) == OK
    said = json.loads(capsys.readouterr().out)
    first, second = said["symbols"]
    assert said["instance"] == "synthetic" and second == {"symbol": "ETHUSDT", "state": "waiting"}
    assert first["state"] == "live" and first["side"] == "NONE" and first["gate"]["name"] == "SPREAD"
    assert first["age_ms"] == 1.5 and first["mid"] == pytest.approx(60_000.05)
    assert (first["microstructure"], first["vpin"], first["order_flow"], first["patterns"]) == (71.0, 0.25, -0.5, [])
    assert [word["key"] for word in first["signals"]] == [spec.key for spec in signals.SIGNALS]


def test_a_users_signal_is_a_line_among_the_others() -> None:
    """With its sentence while it votes; off, with the record and the reason, once its code has failed."""
    own = UserSignal(file="/nowhere/mine.py", name="mine", voice="occasional", sentence="mine says {strength:+.2f}")
    world = GatewayWorld(own=(own,))
    strength, bit = np.zeros(MAX_SIGNALS), 1 << signals.N_SIGNALS
    strength[signals.N_SIGNALS] = -0.5
    world.both(ready_mask=bit, active_mask=bit, strength=strength, reason=signals.N_SIGNALS + 1)

    def lines() -> list[str]:
        found = signal_view.collect(world.memory, SYMBOLS, [0], world.profile, world.now_ns)  # type: ignore[arg-type]
        return signal_view.lay_out(found, 160, plain)

    assert lines()[-1].split() == ["mine", "active", "-0.50", "mine", "says", "-0.50"] and "led by mine" in lines()[1]
    guard = world.memory.page("features")[board.USER_GUARD :]
    guard[user_guard.OFF_AT], guard[user_guard.OFF_WHY] = 500, user_guard.WHY_STOPPED
    world.both()
    assert lines()[-1].split()[:3] == ["mine", "off", "-"]
    assert "off from record 500 on: its code did not come back, or ended the process" in lines()[-1]


def test_one_symbol_may_be_asked_for(running: GatewayWorld, capsys: pytest.CaptureFixture[str]) -> None:
    """In either case of letters; an unknown one is a usage error that names the known."""
    assert signal_view.signals(told("ethusdt")) == OK
    assert capsys.readouterr().out == "ETHUSDT  waiting for the first record\n"
    with pytest.raises(CliError, match="no symbol 'DOGE' in this run: there are BTCUSDT, ETHUSDT") as raised:
        signal_view.signals(told("DOGE"))
    assert raised.value.code == USAGE


def test_watching_ends_with_the_pipeline(
    running: GatewayWorld, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """--watch looks again while the instance lives, and sees what is new."""
    left = [99, 99, 0]

    def holder(instance: str) -> int:
        running.signal(side=Side.BUY, score=80.0 + len(left))
        return left.pop(0)

    monkeypatch.setattr(signal_view.rundir, "holder", holder)
    assert signal_view.signals(told("BTCUSDT", watch=True, json=True)) == OK
    said = [json.loads(line)["symbols"][0] for line in capsys.readouterr().out.splitlines()]
    assert [one["score"] for one in said] == [75.0, 83.0, 82.0]


def test_a_run_without_decisions_has_no_signals(running: GatewayWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """World `record` makes none, and says so."""
    import msgspec

    recording = msgspec.structs.replace(running.profile, world="record")
    monkeypatch.setattr(signal_view.running, "running_profile", lambda instance: recording)
    with pytest.raises(CliError, match="only records"):
        signal_view.signals(told())
