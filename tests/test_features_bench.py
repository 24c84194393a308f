"""bench features' own claims: it measures every way and part, allocates nothing, and says which peers are absent."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest

from procs.bench import feature_peers, features, market_frames


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """One run over two minutes of the embedded market."""
    generated = market_frames.generated(120.0, seed=12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(market_frames, "load", lambda files=(): generated)
        patch.setattr(market_frames, "recorded_files", lambda: ())
        return features.run(rounds=1)


def test_every_way_and_part_is_measured(result: dict[str, Any]) -> None:
    """Figures above nothing, for one symbol and fifty, with and without the vector; each part reached by some records."""
    assert len(result["whole"]) == 6 and {"signals, 1 symbol", "signals and vector, 50 symbols"} <= set(result["whole"])
    for way in result["whole"].values():
        assert 0 < way["best_ns"] <= way["ns_a_record"] + 0.1
    assert [part["part"] for part in result["parts"]] == [name for name, _, _ in features.PARTS]
    assert all(part["calls"] > 50 for part in result["parts"])
    assert sum(part["ns_a_call"] for part in result["parts"]) > 0


def test_the_pass_allocates_nothing(result: dict[str, Any]) -> None:
    """Neither numba's heap nor Python's, a record."""
    assert result["allocated"]["numba_allocations_a_record"] == 0.0
    assert result["allocated"]["python_bytes_a_record"] < 1.0


def test_peers_are_measured_or_told_to_be_absent(result: dict[str, Any]) -> None:
    """Each peer is in one of the two lists, by whether it is installed."""
    there = {name for name, module, _, _ in feature_peers.PEERS if importlib.util.find_spec(module) is not None}
    assert {peer["name"] for peer in result["peers"]} == there
    assert set(result["absent"]) == {name for name, _, _, _ in feature_peers.PEERS} - there
    assert all(peer["ns_an_update"] > 0 for peer in result["peers"])


def test_the_figures_are_printed(result: dict[str, Any]) -> None:
    """The tables name every way, part and peer; the JSON takes all."""
    text = features.format(result)
    for name in (*result["whole"], *(part["part"] for part in result["parts"]), *(peer["name"] for peer in result["peers"])):
        assert name in text
    assert all(f"not installed: {name}" in text for name in result["absent"])
    assert json.loads(json.dumps(result)) == result
