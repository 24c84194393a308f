"""Time goes on when the market is silent: what falls due is done at its time, the same way in every run of the same records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fold_world import STAGES, identities
from risk_world import BID, MS, RiskWorld, S, limits
from test_refold import differences, written
from wired_world import HOUR_NS, WiredSession

from procs.fold.assembly import LoopSettings
from procs.fold.stamps import NO_FRAME
from procs.research import refold
from procs.stages import feed
from trading.records import INTAKE_CLOCK, TS_END, ExecType, Kind, Purpose, Side
from trading.risk import fold as risk
from trading.risk.dues import EXIT_RETRY_NS, SWEEP_NS
from trading.settings import Execution, Strategy


def world(**execution: float) -> RiskWorld:
    """A world with a book in both symbols."""
    w = RiskWorld(Strategy(risk=limits(), execution=Execution(**({"entry_cooldown_ms": 0} | execution))))
    w.market(0)
    w.market(1)
    return w


def silence(w: RiskWorld, upto: int) -> list[tuple[int, np.void]]:
    """Nothing comes until `upto`: what risk does meanwhile, with its times. It may not be called for nothing for ever."""
    done: list[tuple[int, np.void]] = []
    for _ in range(10_000):
        due = int(w.glob[0]["due_ns"])
        if due > upto:
            return done
        w.ts = due = max(due, w.ts)  # what fell due before: records of this world come without a look at the clock
        n = risk.on_due(due, w.arrays)
        done.extend((due, order) for order in w.orders_out[:n].copy())
    raise AssertionError("risk is called over and over again")


def test_an_entry_is_cancelled_at_its_age_without_a_record() -> None:
    """Exactly order_max_age_ms after it was sent, once; a refused cancel is repeated in the rhythm of the sweep."""
    w = world(order_max_age_ms=3000)
    entry = w.signal(urgency=50.0)[0]
    ((at, out),) = silence(w, w.ts + 20 * S)
    assert at == int(entry["ts_ns"]) + 3000 * MS and out["kind"] == Kind.CANCEL and out["target_order_id"] == entry["order_id"]
    w.after(MS)
    w.report(entry, ExecType.CANCEL_REJECT)
    refused = w.ts
    ((again, out),) = silence(w, refused + 10 * S)
    assert refused < again <= refused + SWEEP_NS and out["target_order_id"] == entry["order_id"]


def test_a_leg_is_closed_at_its_time_without_a_record() -> None:
    """Exactly max_hold_minutes after its first fill; what stands in the way is cancelled, and when that is confirmed the exit
    goes out at once, not at the next record."""
    w = world(max_hold_minutes=0.1)
    w.fill(w.signal(urgency=90.0)[0])
    opened = int(w.state[0]["leg_opened_ns"])
    (quote,) = w.quote(BID, 0, lots=1_000_000)
    w.report(quote, ExecType.ACK)
    ((at, out),) = silence(w, opened + 6 * S)
    assert (at, out["kind"], out["target_order_id"]) == (opened + 6 * S, Kind.CANCEL, quote["order_id"])
    w.after(20 * MS)
    w.report(quote, ExecType.CANCELED)
    confirmed = w.ts
    ((at, out),) = silence(w, confirmed + S)
    assert at == confirmed and out["purpose"] == Purpose.EXIT_TIME and out["side"] == Side.SELL


def test_a_refused_exit_is_tried_again_without_a_record() -> None:
    """EXIT_RETRY_NS after the last try, until the book is too old to be traded on."""
    w = world(max_hold_minutes=0.05)
    w.fill(w.signal(urgency=90.0)[0])
    opened = int(w.state[0]["leg_opened_ns"])
    ((at, first),) = silence(w, opened + 3 * S)
    w.report(first, ExecType.REJECT)
    ((again, second),) = silence(w, at + EXIT_RETRY_NS)
    assert again == at + EXIT_RETRY_NS and second["purpose"] == Purpose.EXIT_TIME
    w.report(second, ExecType.REJECT)
    w.control(Kind.HALT)
    assert silence(w, again + 5 * S) == [] and int(w.state[0]["due_ns"]) == TS_END, "a halt holds exits back"
    w.control(Kind.RESUME)
    ((_, third),) = silence(w, w.ts + EXIT_RETRY_NS)
    assert third["purpose"] == Purpose.EXIT_TIME and third["side"] == -Side.BUY


def quiet_session(seed: int, crashes: float) -> WiredSession:
    """Frames, then ten silent seconds in ticks of 10 ms, then frames again, ended; polled and killed at random."""
    rng = np.random.default_rng(seed)
    loop = LoopSettings(checkpoint_every=int(rng.integers(1, 300)), batch=int(rng.integers(1, 65)))
    quick = {"features.bar_ms": 100, "features.volatility_lambda": 0.8, "quoting.requote_ms": 400}
    session = WiredSession(loop, **quick)

    def act() -> None:
        for _ in range(int(rng.integers(20, 60))):
            name = STAGES[rng.integers(len(STAGES))]
            if rng.random() < crashes:
                session.crash(name)
            session.settle(name, session.poll(name))
            session.record()

    for _ in range(60):
        session.deliver(20)
        act()
    session.settle_all()
    for _ in range(1000 // 20):
        session.promise(200 * MS)
        act()
    session.settle_all()
    for _ in range(3):
        session.deliver(20)
        act()
    session.drain()
    session.settle_all()
    assert all(session.done(name) for name in STAGES) and session.diverged() == 0
    return session


def test_a_silent_market_is_a_function_of_its_records() -> None:
    """Ten silent seconds after a lively market: quotes are pulled when their book is too old, held back targets are told, all at
    their times; whoever is polled when, and with stages that die meanwhile, the records are equal."""
    sessions = [quiet_session(seed, crashes) for seed, crashes in ((1, 0.0), (3, 0.01), (4, 0.02))]
    assert sessions[1].crashes and sessions[2].crashes
    first = identities(sessions[0].kept())
    assert all(identities(session.kept()) == first for session in sessions[1:])
    market, quotes = sessions[0].kept()["market"], sessions[0].kept()["quotes"]
    before, after = (market["ts_ns"][pick] for pick in (slice(None, -1), slice(1, None)))
    gap = int(np.argmax(after - before))
    assert after[gap] - before[gap] > 9 * S
    told = quotes[(quotes["ts_ns"] > before[gap]) & (quotes["ts_ns"] < after[gap])]
    assert len(told), "nothing fell due in the silence"
    assert (told["bid_lots"][-1], told["ask_lots"][-1]) == (0, 0)
    assert (told["ts_origin_mono_ns"] == NO_FRAME).all(), "no frame brought it about: it counts in no frame to order"


def test_the_feed_says_the_time_where_the_receiver_is_silent() -> None:
    """A receiver that promises nothing for LATE_NS: the feed goes on by the clock and writes it down. A frame that then comes
    with an earlier time takes effect after what was said."""
    session = WiredSession()
    session.deliver(300)
    session.settle_all()
    assert not len(session.kept()["intake.feed"]), "a receiver that promises is believed"
    session.lag_ns = 5 * S  # the receiver's last word is 5 s old
    session.deliver(1)
    last = session.now_ns
    session.settle_all()
    said = session.kept()["intake.feed"].view("<i8").reshape(-1, 8)
    assert len(said) and (np.diff(said[:, 0]) > feed.LOOK_NS).all() and (said[:, 4] == INTAKE_CLOCK).all()
    assert last + 5 * S - feed.LATE_NS <= said[0, 0] < last + HOUR_NS and (said[:, 1] == 302).all()
    session.lag_ns = -HOUR_NS
    session.deliver(40)
    session.settle_all()
    kept = session.kept()
    late = kept["market"][kept["market"]["cause_seq"] >= 303]
    assert len(late) and late["ts_ns"][0] >= said[-1, 0], "time went back"
    session.drain()
    session.settle_all()


@pytest.mark.parametrize("seed", range(3))
def test_what_the_feed_said_survives_it(seed: int, tmp_path: Path) -> None:
    """The feed dies again and again while the receiver is silent and speaks by turns: what it recomputes is what it had
    published, nothing goes back in time, and nobody is stuck; folded again from frames and logs, every ring is equal."""
    rng = np.random.default_rng(seed)
    session = WiredSession(LoopSettings(checkpoint_every=int(rng.integers(1, 40))))
    for turn in range(40):
        session.lag_ns = 2 * S if turn % 2 else -HOUR_NS
        session.deliver(int(rng.integers(1, 12)))
        for _ in range(12):
            session.settle("feed", session.poll("feed") if rng.random() < 0.7 else 0)
            if rng.random() < 0.2:
                session.record()
                session.crash("feed")
    session.lag_ns = -HOUR_NS
    session.drain()
    session.settle_all()
    kept = session.kept()
    again = refold.Session(session.plan, written(tmp_path, kept), frames=lambda: iter(session.wire))
    found = refold.refold(again)
    assert {"market", "depth", "orders"} <= {one.ring for one in found} and differences(found) == {}
    assert session.crashes > 20 and session.diverged() == 0 and all(session.done(name) for name in STAGES)
    assert len(kept["intake.feed"]) > 10
    for ring in ("market", "depth", "orders", "executions"):
        assert (np.diff(kept[ring]["ts_ns"]) >= 0).all(), ring
