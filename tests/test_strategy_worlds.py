"""The worlds that ship for tests of strategies: the document's examples run as they stand, and the faults do what they say."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from procs.research.columns import signal_values
from sim.worlds.faults import END_MS, NAMES, FaultyMarket, FrameFault, Planted
from trading.records import Flag, Kind

DOCUMENT = (Path(__file__).resolve().parents[1] / "docs" / "testing-a-strategy.md").read_text(encoding="utf-8")


def examples() -> dict[str, Callable[[], None]]:
    """The test functions of the document's Python blocks."""
    found: dict[str, Callable[[], None]] = {}
    for block in re.findall(r"```python\n(.*?)```", DOCUMENT, re.S):
        names: dict[str, Any] = {}
        exec(compile(block, "testing-a-strategy.md", "exec"), names)
        found |= {name: value for name, value in names.items() if name.startswith("test_")}
    return found


@pytest.mark.parametrize("name", re.findall(r"^def (test_\w+)", DOCUMENT, re.M))
def test_every_example_of_the_document_runs(name: str) -> None:
    """What a reader pastes passes."""
    examples()[name]()


def valid(market: FaultyMarket, symbol: int) -> np.ndarray:
    """Whether each record of the symbol has a book that may be used."""
    records = market.records[market.records["symbol"] == symbol]
    return (records["flags"] & Flag.BOOK_VALID) != 0


def test_without_faults_every_symbol_asks_once_and_stays_valid() -> None:
    """One snapshot a symbol, and once a book is valid it stays so."""
    market = FaultyMarket(seed=2)
    assert sorted(symbol for _, symbol in market.asked) == [0, 1, 2]
    for symbol in range(len(NAMES)):
        flags = valid(market, symbol)
        assert flags[flags.argmax() :].all() and flags.any()


@pytest.mark.parametrize("fault", get_args(FrameFault))
def test_a_planted_fault_reaches_its_symbol_alone_and_is_mended(fault: FrameFault) -> None:
    """The other symbols' records are those of a market without faults; the symbol's own differ and are valid again at the end.

    Messages that come twice are dropped by their ids: they change no record.
    """
    clean, market = FaultyMarket(seed=4), FaultyMarket(seed=4, faults=[Planted(fault, 2_000, 3_500, symbol=1)])
    for symbol in range(len(NAMES)):
        undisturbed, told = (one.records[one.records["symbol"] == symbol] for one in (clean, market))
        assert np.array_equal(undisturbed, told) == (symbol != 1 or fault == "duplicate")
    assert clean.frames != market.frames
    assert valid(market, 1)[-1]
    late = [at for at, symbol in market.asked if at > 1_000]
    assert all(2_000 < at < END_MS for at in late) and bool(late) == (fault in ("drop", "gap", "reorder", "corrupt"))


def test_what_arrived_is_a_recording(tmp_path: Path) -> None:
    """The written recording, folded by the test kit, has the market's prints, and a valid book where the market has one."""
    signal = tmp_path / "mine.py"
    signal.write_text(
        "from trading.user_signals import signal\n\n\n"
        "@signal(params={}, state={'seen': int}, sentence='{strength:+.2f}')\n"
        "def mine(state, event, out):\n    state.seen += 1\n"
    )
    market = FaultyMarket(seed=3, faults=[Planted("gap", 2_000, 2_500, symbol=1)])
    market.write(tmp_path / "bbb.txt", symbol=1)
    told = market.records[market.records["symbol"] == 1]
    columns = signal_values(tmp_path / "bbb.txt", signal, "mine")
    assert (columns["kind"] == "trade").sum() == (told["kind"] == Kind.TRADE).sum()
    assert np.array_equal(columns["ts_ns"] - columns["ts_ns"][0], told["ts_ns"] - told["ts_ns"][0])
    assert np.array_equal(columns["valid"], (told["flags"] & Flag.BOOK_VALID) != 0)
