"""What must hold in the risk fold under any stream of records: worst case, books in step, checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
from risk_world import BID, LOT, MS, UNBOUNDED, RiskWorld, limits

from trading.orders import table as orders
from trading.records import ExecType, Kind, Side
from trading.settings import Execution, Risk, Strategy


def world(risk_section: Risk = UNBOUNDED, **execution: float) -> RiskWorld:
    """A world with a book in both symbols."""
    w = RiskWorld(Strategy(risk=risk_section, execution=Execution(**({"entry_cooldown_ms": 0} | execution))))
    w.market(0)
    w.market(1)
    return w


class Storm:
    """A seeded stream of records with a venue that acknowledges, fills, rejects, cancels, repeats and delays as it likes."""

    def __init__(self, seed: int, w: RiskWorld) -> None:
        self.rng = np.random.default_rng(seed)
        self.w = w
        self.resting: list[np.void] = []
        self.pending: list[tuple[ExecType, np.void, dict[str, object]]] = []
        self.mid = [BID, BID]
        self.new = 0
        self.cancelled: set[int] = set()

    def sent(self, out: np.ndarray) -> None:
        """The venue gets what risk sent, and makes up its mind."""
        for o in out:
            if o["kind"] == Kind.NEW:
                self.new += 1
                if self.rng.random() < 0.1:
                    self.pending.append((ExecType.REJECT, o, {}))
                else:
                    self.pending.append((ExecType.ACK, o, {}))
                    self.resting.append(o)
            else:
                self.cancelled.add(int(o["target_order_id"]))
                for r in list(self.resting):
                    if r["order_id"] == o["target_order_id"] and self.rng.random() < 0.8:
                        self.resting.remove(r)
                        self.pending.append((ExecType.CANCELED, r, {}))
                        break
                else:
                    row = self.w.order_row(int(o["target_order_id"]))
                    assert row is not None
                    self.pending.append((ExecType.CANCEL_REJECT, row, {}))

    def step(self) -> None:
        """One record of some kind."""
        w, rng = self.w, self.rng
        w.after(int(rng.integers(1, 400 * MS)))
        s = int(rng.integers(2))
        what = rng.random()
        if what < 0.35:
            self.mid[s] += int(rng.normal(0, 3_000))
            flags = 0 if rng.random() < 0.03 else 1
            self.sent(w.market(s, self.mid[s] - 5, self.mid[s] + 5, lots=int(rng.integers(1, LOT)), flags=flags))
        elif what < 0.5:
            self.sent(w.signal(Side(int(rng.choice([-1, 1]))), s, float(rng.uniform(0, 100)), float(rng.uniform(0, 9_000))))
        elif what < 0.7:
            lots = int(rng.integers(0, 40)) * 100_000
            self.sent(w.quote(self.mid[s] - int(rng.integers(-5, 50)), self.mid[s] + int(rng.integers(-5, 50)), lots, s))
        elif what < 0.71:
            self.sent(w.control(Kind.HALT, 1))
        elif what < 0.75:
            self.sent(w.control(Kind.RESUME, int(rng.choice([0, 15, 16]))))
        elif what < 0.85 and self.resting:
            o = self.resting[int(rng.integers(len(self.resting)))]
            row = w.order_row(int(o["order_id"]))
            left = 0 if row is None else int(row["qty_lots"]) - int(row["cum_lots"])
            if left > 0:
                lots = left if rng.random() < 0.5 else int(rng.integers(1, left + 1))
                self.sent(w.fill(o, lots, price=self.mid[int(o["symbol"])], fee_e8=int(rng.integers(-100, 1000))))
                if lots == left:
                    self.resting = [r for r in self.resting if r["order_id"] != o["order_id"]]
        elif self.pending:
            exec_type, o, fields = self.pending.pop(int(rng.integers(len(self.pending))))
            self.sent(w.report(o, exec_type, **fields))


TIGHT = limits(
    equity=100_000.0,
    base_risk_pct=0.8,
    max_position_notional=9_000.0,
    max_order_notional=3_000.0,
    max_open_orders=8,
    max_orders_per_s=20,
    max_daily_loss_pct=3.0,
    max_drawdown_pct=8.0,
)


def storm(seed: int) -> Storm:
    """A storm over tight limits."""
    return Storm(seed, world(TIGHT, entry_cooldown_ms=200, max_hold_minutes=0.2))


def check_books(w: RiskWorld) -> None:
    """What risk has counted as open is what its table says is open."""
    g = w.glob[0]
    live = {int(r) for r in g["live"][: g["n_live"]]}
    rows = [r for r in range(orders.ORDER_ROWS) if orders.is_live(w.glob, r)]
    assert live == set(rows) and int(g["n_live"]) == len(live)
    for s in range(2):
        for side, field in ((1, "open_buy_lots"), (-1, "open_sell_lots")):
            mine = [
                r
                for r in range(orders.ORDER_ROWS)
                if g["orders"][r]["order_id"] > 0 and g["orders"][r]["symbol"] == s and g["orders"][r]["side"] == side
            ]
            assert int(w.state[s][field]) == sum(orders.reserved_lots(w.glob, r) for r in mine)
    equity = int(w.params[0]["equity_e8"]) + sum(int(e) for e in w.state["equity_e8"])
    assert int(g["portfolio_e8"]) == equity


@pytest.mark.parametrize("seed", range(4))
def test_worst_case_never_beyond_the_limit(seed: int) -> None:
    """After every new order, the worst-case position is within its limit at the mid, and no two of our own prices meet."""
    sky = storm(seed)
    w, limit = sky.w, int(sky.w.params[0]["max_position_e8"])
    inner = w.feed

    def watched(kernel, recs):  # type: ignore[no-untyped-def]
        out = inner(kernel, recs)
        for o in out:
            if o["kind"] == Kind.NEW:
                s, side = int(o["symbol"]), int(o["side"])
                p = w.state[s]
                worst = int(p["position_lots"]) * side + int(p["open_buy_lots"] if side > 0 else p["open_sell_lots"])
                mid = (int(p["bid_ticks"][0]) + int(p["ask_ticks"][0])) // 2
                assert worst * mid // 100 <= limit
                assert int(w.glob[0]["halted"]) == 0
                for r in w.glob[0]["live"][: w.glob[0]["n_live"]]:
                    other = w.glob[0]["orders"][r]
                    if other["symbol"] == s and other["side"] == -side and other["price_ticks"] > 0 and o["price_ticks"] > 0:
                        assert side * (int(other["price_ticks"]) - int(o["price_ticks"])) > 0
                assert int(w.glob[0]["n_live"]) <= 8 + 2
        return out

    w.feed = watched  # type: ignore[method-assign]
    for k in range(1500):
        sky.step()
        if k % 50 == 0:
            check_books(w)
    check_books(w)
    assert sky.new > 100 and int(w.glob[0]["fill_count"]) > 30
    ids = [int(i) for i in w.glob[0]["orders"]["order_id"] if i > 0]
    assert len(set(ids)) == len(ids)
    w.end()
    live = w.glob[0]["live"][: w.glob[0]["n_live"]]
    assert {int(w.glob[0]["orders"][r]["order_id"]) for r in live} <= sky.cancelled | {
        int(t) for t in w.orders_out["target_order_id"][: w.glob[0]["n_orders"]]
    }


def test_a_copy_of_the_state_is_a_checkpoint() -> None:
    """From a copied state the same records give byte-identical orders, refusals and state, at any point of a stream."""
    sky = storm(11)
    for _ in range(600):
        sky.step()
    calls = list(sky.w.calls)
    for cut in (0, 1, 173, 400):
        a = world(TIGHT, entry_cooldown_ms=200, max_hold_minutes=0.2)
        calls_after_setup = calls[2:]
        for kernel, recs in calls_after_setup[:cut]:
            a.feed(kernel, recs)
        b = world(TIGHT, entry_cooldown_ms=200, max_hold_minutes=0.2)
        b.state[:], b.glob[:] = np.frombuffer(a.state.tobytes(), a.state.dtype), np.frombuffer(a.glob.tobytes(), a.glob.dtype)
        for kernel, recs in calls_after_setup[cut:]:
            assert a.feed(kernel, recs).tobytes() == b.feed(kernel, recs).tobytes()
            assert a.refused.tobytes() == b.refused.tobytes()
        assert a.state.tobytes() == b.state.tobytes() == sky.w.state.tobytes()
        assert a.glob.tobytes() == b.glob.tobytes() == sky.w.glob.tobytes()
