"""bench decode's own claims: every way ends with the same book, a wrong one voids the run, nothing is allocated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from procs.bench import decode, decode_peers, market_frames
from procs.bench.pair import BenchError
from sim.recordings.recording import RecordingError


@pytest.fixture(scope="module")
def generated() -> market_frames.Frames:
    """Frames of a minute of the embedded market."""
    return market_frames.generated(60.0, seed=11)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, generated: market_frames.Frames) -> None:
    """The bench measures with those, and with no recording."""
    monkeypatch.setattr(market_frames, "load", lambda files=(): generated)


@pytest.fixture(scope="module")
def result(generated: market_frames.Frames) -> dict[str, Any]:
    """One run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(market_frames, "load", lambda files=(): generated)
        return decode.run(rounds=1)


def test_all_ways_keep_the_same_book(result: dict[str, Any]) -> None:
    """Ours and every installed peer take all frames, in figures that fit together."""
    ways = result["ways"]
    assert {"ours", "msgspec_dict", "msgspec_exact", "ccxt_pro"} <= set(ways)
    assert ways["ours"]["mixed"]["ratio"] == ways["ours"]["depth"]["ratio"] == 1.0
    for way in ways.values():
        for name in ("mixed", "depth"):
            figures = way[name]
            assert 0 < figures["best_ns_a_message"] <= figures["ns_a_message"] + 0.1
            assert figures["messages_per_s"] * figures["ns_a_message"] == pytest.approx(1e9, rel=0.01)
    assert result["messages"]["mixed"] > result["messages"]["depth"] > 500 and result["levels"] > result["messages"]["depth"]
    assert result["records"]["mixed"]["market"] == result["messages"]["mixed"]


def test_the_fold_allocates_nothing_a_message(result: dict[str, Any]) -> None:
    """Neither numba's heap nor Python's."""
    assert result["allocated"] == {"numba_allocations_a_message": 0.0, "python_bytes_a_message": 0.0}


def test_the_figures_are_printed(result: dict[str, Any]) -> None:
    """The table names every way; the JSON takes all."""
    text = decode.format(result)
    assert all(way["name"] in text for way in result["ways"].values())
    assert all(f"not installed: {name}" in text for name in result["absent"])
    assert json.loads(json.dumps(result)) == result


@pytest.mark.usefixtures("small")
def test_a_peer_with_another_book_voids_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A way that loses a level is an error, not a figure."""

    class Forgetful(decode_peers.TypedBook):
        name = "forgetful"

        def best(self) -> decode_peers.Best:
            bid, bid_qty, ask, ask_qty = super().best()
            return bid, bid_qty, ask + 0.01, ask_qty

    monkeypatch.setattr(decode_peers, "PEERS", (("forgetful", "msgspec", Forgetful),))
    with pytest.raises(BenchError, match="forgetful"):
        decode.run(rounds=1)


def test_frames_come_from_recordings_or_the_generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording named is the one measured, byte for byte; without any the embedded market is; two symbols are refused."""
    frames = market_frames.generated(limit=40, seed=2)
    path = tmp_path / "one.txt"
    path.write_bytes(b"".join(b"%d %s\n" % pair for pair in zip(frames.recv.tolist(), frames.all(), strict=True)))
    assert market_frames.load([path]).all() == frames.all()
    other = tmp_path / "other.txt"
    other.write_bytes(path.read_bytes().replace(b"BTCUSDT", b"ETHUSDT").replace(b"btcusdt", b"ethusdt"))
    with pytest.raises(BenchError, match="one symbol"):
        market_frames.load([path, other])
    with pytest.raises(RecordingError):
        market_frames.load([tmp_path / "absent.gz"])
    monkeypatch.setenv("SCALPER_DATA", str(tmp_path))
    monkeypatch.setattr(market_frames, "GENERATED_S", 1.0)
    assert market_frames.recorded_files() == ()
    assert market_frames.load().market.startswith("embedded")
