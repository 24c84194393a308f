"""A venue that falls silent while quotes are out: everything due happens on time, by the receiver's promises or without them."""

from __future__ import annotations

import os
import signal

import live_world as lw
import numpy as np
import pytest

from procs.memory import board
from sim.local_venue import generated
from sim.worlds.served import ServedVenue
from trading.records import INTAKE_CLOCK, ExecType, Kind

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]
S = 1_000_000_000
QUICK = {
    "features.bar_ms": 100, "features.volatility_lambda": 0.8, "quoting.enabled": True, "quoting.requote_ms": 20,
}  # fmt: skip
SILENT_S = 9


@pytest.mark.usefixtures("own_folders")
def test_what_is_due_in_a_silence_is_done_in_it() -> None:
    """Every stream stalls for 9 s: quotes whose book is 5 s old are pulled and their cancels answered before the market comes
    back. The receiver is stopped meanwhile: time goes on, and the feed notes that it told it."""
    keys = [("binance_spot", "BTCUSDT"), ("binance_spot", "ETHUSDT")]
    with ServedVenue(generated(events_per_s=300.0), seed=31) as served:
        with lw.live("live-silence", served, keys, QUICK) as run:
            run.until("quotes are out", lambda: run.tail("quotes") > 20, 60)
            served.begin_faults([f"stall:at=0s,for={SILENT_S}s"], 31)
            run.go_on(2.0)
            receiver = int(run.page("receiver")[board.PID])
            os.kill(receiver, signal.SIGSTOP)
            run.go_on(1.0)
            os.kill(receiver, signal.SIGCONT)
            offset = int(run.page("receiver")[board.SESSION_CLOCK_NS])
            run.go_on(SILENT_S - 1.5)
            served.no_more_faults()
            run.until("all books are valid again", lambda: all(run.valid()), 45)
            kept = run.end()
    market, quotes, reports = (lw.records(kept, ring) for ring in ("market", "quotes", "reports"))
    at = market["ts_ns"][market["kind"] != Kind.END]
    gap = int(np.argmax(np.diff(at)))
    began, ended = int(at[gap]), int(at[gap + 1])
    assert ended - began > (SILENT_S - 2) * S, "the venue was not silent"
    told = quotes[(quotes["ts_ns"] > began) & (quotes["ts_ns"] < ended) & (quotes["kind"] == Kind.QUOTE)]
    pulled = told[(told["bid_lots"] == 0) & (told["ask_lots"] == 0)]
    assert sorted(set(pulled["symbol"].tolist())) == sorted(set(quotes["symbol"][quotes["kind"] == Kind.QUOTE].tolist()))
    ends = reports[(reports["ts_ns"] > began) & (reports["ts_ns"] < ended) & (reports["exec_type"] == ExecType.CANCELED)]
    assert len(ends) >= len(pulled), "the cancels were not answered in the silence"
    late = (told["ts_publish_mono_ns"] + offset - told["ts_ns"]) / 1e6
    print(f"{len(told)} targets told in a silence of {(ended - began) / S:.1f} s, {late.max():.1f} ms after their time at most")
    said = lw.records(kept, "intake.feed")
    assert len(said) and (said["ring"] == INTAKE_CLOCK).all()
    assert ((said["ts_ns"] > began) & (said["ts_ns"] < ended)).any(), "the feed did not go on without its receiver"
