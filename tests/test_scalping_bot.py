"""scripts/scalping_bot.py: what it shows of a symbol, when it says that it traded, and a short run of it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gateway_world import GatewayWorld

from procs.cli import signal_view
from procs.cli.observe import Symbol
from procs.cli.outcome import OK, UNHEALTHY, USAGE
from trading.features import signals
from trading.records import MAX_SIGNALS
from trading.settings import UserSignal

FILE = Path(__file__).resolve().parents[1] / "scripts" / "scalping_bot.py"


@pytest.fixture(scope="module")
def bot() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("scalping_bot", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_users_signal_is_among_the_reasons(bot: ModuleType) -> None:
    """The signal that leads stands first, a user's own like any other."""
    own = UserSignal(file="/nowhere/mine.py", name="mine", voice="occasional", sentence="mine says {strength:+.2f}")
    world = GatewayWorld(own=(own,))
    strength = np.zeros(MAX_SIGNALS)
    strength[0], strength[signals.N_SIGNALS] = 0.4, 0.5
    bits = 1 | 1 << signals.N_SIGNALS
    world.both(ready_mask=bits, active_mask=bits, strength=strength, reason=signals.N_SIGNALS + 1)
    symbols = [Symbol("BTCUSDT", 0.01, 1e-8), Symbol("ETHUSDT", 0.01, 1e-8)]
    found = signal_view.collect(world.memory, symbols, [0, 1], world.profile, world.now_ns)  # type: ignore[arg-type]
    lines = bot.lines_of(found[0])
    assert lines[1].strip().startswith("mine: mine says +0.50; book_imbalance: ") and "microstructure  71" in lines[0]
    assert bot.lines_of(found[1]) == ["  ETHUSDT   waiting for its first record"]
    assert sorted(found, key=bot.worth, reverse=True)[0] is found[0]


@pytest.mark.parametrize(("fills", "ended", "code"), [(3, 0, OK), (0, 0, UNHEALTHY), (3, 5, UNHEALTHY)])
def test_only_fills_are_trades(
    bot: ModuleType, fills: int, ended: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Acknowledged and cancelled orders are no trades: without a fill, or without an orderly end, the exit code is not 0."""
    told: Any = SimpleNamespace(orders=SimpleNamespace(fills=fills, sent=100, canceled=100))
    monkeypatch.setattr(bot.last_run, "wanted", lambda instance: None)
    monkeypatch.setattr(bot.report, "told_by", lambda run: None)
    monkeypatch.setattr(bot.report, "build", lambda run: told)
    monkeypatch.setattr(bot.report, "show", lambda report, as_json: None)
    monkeypatch.setattr(bot.rundir, "holder", lambda instance: 0)
    launched = SimpleNamespace(ended=lambda: ended, log="the log")
    assert bot.Bot("paper", ["BTCUSDT"], "1", 1.0)._report(launched) == code
    assert f"{fills:,} fills; " in capsys.readouterr().out


def test_it_trades_on_the_embedded_market_alone(bot: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A profile with another source is a usage error; --help has examples and the exit codes."""
    (tmp_path / "mine.yaml").write_text("instance: x\nworld: replay\nsymbols: [{name: BTCUSDT}]\n")
    assert bot.main(["--config", str(tmp_path / "mine.yaml")]) == USAGE
    assert "the bot trades on the embedded market" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        bot.main(["--help"])
    said = capsys.readouterr().out
    assert "examples:" in said and "exit codes:" in said


@pytest.mark.slow
@pytest.mark.timeout(900)  # the first start after an edit compiles the kernels
@pytest.mark.usefixtures("own_folders")
def test_it_runs_trades_and_reports(bot: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """Twelve seconds of it, at a hundred times the market's pace: opportunities, at least one fill, the report, exit code 0."""
    assert bot.main(["--seconds", "12", "--every", "4", "--speed", "100", "--symbols", "BTCUSDT,ETHUSDT"]) == OK
    said = capsys.readouterr().out
    assert "trading BTCUSDT, ETHUSDT on paper for 12 s" in said and "ended in order" in said and " fills  realised " in said
