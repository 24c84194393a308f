"""`scalperctl calibrate`: what it finds in recordings and in a made-up flow, what it says where there is no fit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_quoting_rules import flow

from procs.cli.main import main
from procs.cli.outcome import OK, UNHEALTHY, USAGE
from procs.profiles.config import load_profile
from procs.research.calibrating import Symbol, fragment
from trading.instruments import Instrument
from trading.quoting import calibration


def found(seed: int, a: float, k: float, seconds: float, beyond_bps: float = 0.0) -> calibration.Calibration:
    """The calibration of one made-up symbol, whose mid is 100,000 ticks: a tick is 0.1 bps."""
    state = calibration.begin(1)
    recs = flow(seed, a, k, seconds)
    for piece in np.array_split(recs, 3):
        calibration.gather(piece, state, 1_000_000_000, beyond_bps)
    only = calibration.finish(state, 1_000_000_000)[0]
    assert only is not None
    return only


def test_a_planted_flow_is_found_in_basis_points() -> None:
    """A a second and k a bps of both sides within three errors; the exponential is a good fit, and the rates fall by it."""
    one = found(3, 2.0, 0.4, 3000.0)
    assert one.is_fit and one.from_bps == pytest.approx(0.1) and one.seconds == pytest.approx(3000.0, abs=1.5)
    for side in (one.bid, one.ask):
        assert abs(side.k - 4.0) < 3 * side.k_error and abs(side.a - 2.0) < 3 * side.a_error
        assert 0.0 < side.misfit < 2.5
        for bps, rate in side.rates[:6]:
            assert rate == pytest.approx(2.0 * math.exp(-4.0 * bps), rel=0.2)
    assert one.volatility_bps == 0.0


def test_the_lines_are_a_profile() -> None:
    """What is printed for a profile is one: with it a rule that needs A and k has them."""
    lines = fragment([Symbol(Instrument("BTCUSDT"), found(3, 2.0, 0.4, 600.0), None)], "glft")
    told = yaml.safe_load(lines)["quoting"]
    assert told["rule"] == "glft" and told["intensity"]["fits"][0]["symbol"] == "BTCUSDT"
    fit = load_profile("paper", {"quoting": told}).quoting.intensity.fits[0]
    assert fit.bid_k == pytest.approx(4.0, rel=0.2) and fit.ask_a == pytest.approx(2.0, rel=0.2)


@pytest.mark.parametrize(
    ("k", "seconds", "why"), [(0.4, 20.0, "sweeps, 200 are needed: give a longer recording"), (40.0, 20.0, "no exponential")]
)
def test_no_fit_is_said(k: float, seconds: float, why: str) -> None:
    """Too few sweeps, or sweeps of one distance alone: a sentence, the measured rates, and no line for a profile."""
    one = found(1, 2.0 if k < 1 else 1000.0 * math.exp(k), k, seconds)
    assert not one.is_fit and why in one.bid.why and one.bid.rates and one.bid.k == one.bid.a == 0.0
    assert fragment([Symbol(Instrument("BTCUSDT"), one, None)], "glft") == ""


def test_a_recording_is_calibrated(recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A recorded market: text with every figure's error, the same as JSON; a fit too far from the touch is none, and exit 5."""
    path = str(recordings / "hftbacktest_binance/usdm_btcusdt_20240808.gz")
    assert main(["calibrate", path, "--rule", "glft"]) == OK
    text = capsys.readouterr().out
    assert "a perfect exponential" in text and "rule: glft" in text and "+-" in text
    assert yaml.safe_load(text)["quoting"]["intensity"]["fits"][0]["bid_k"] > 1.0
    assert main(["calibrate", path, "--beyond", "0.5", "--json"]) == UNHEALTHY
    said = json.loads(capsys.readouterr().out)
    only = said["symbols"][0]
    assert said["unfit"] == ["BTCUSDT"] and said["profile"] == "" and only["found"]["from_bps"] >= 0.5
    assert "200 are needed" in only["found"]["bid"]["why"] and only["found"]["ask"]["k"] > 0.1
    assert 0.5 < only["found"]["volatility_bps"] < 2.0 and len(only["delay_ms"]) == 2


def test_wrong_words_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A file that is not there, and one without a market, are sentences with exit code 2."""
    assert main(["calibrate", str(tmp_path / "no.gz")]) == USAGE
    assert "no.gz" in capsys.readouterr().err
    (tmp_path / "empty.txt").write_text("")
    assert main(["calibrate", str(tmp_path / "empty.txt")]) == USAGE
    assert "scalperctl: " in (said := capsys.readouterr().err) and "is empty" in said
