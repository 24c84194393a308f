"""The quoting rules beside `skewed`: closed forms, the paper's simulation, what the quoter makes of them, what it measures."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import paper_of_2008 as paper
import pytest
from features_markets import T0, fill, table
from test_quoting_rule import MS, SHORT_BARS, Quoter, book

from procs.fold.plan import PlanError, plan_of
from procs.profiles.config import load_profile
from trading.features.microprice import set_microprice
from trading.features.model_layout import MICRO_IMBALANCES, MICRO_SPREADS
from trading.jit import Recs, kernel
from trading.quoting import avellaneda_stoikov, glft, intensity
from trading.quoting.skewed import calculate_optimal_quotes
from trading.records import MARKET_RECORD, Flag, Kind
from trading.settings import Fit, Intensity, Quoting, Strategy

FIT = Fit(symbol="BTCUSDT", bid_a=1.4, bid_k=0.8, ask_a=1.1, ask_k=1.2, volatility_bps=2.0)
FITTED = Intensity(fits=(FIT,))
LOTS = 10**8


def of_rule(rule: str, **more: Any) -> Strategy:
    """A strategy that quotes by a rule with FIT, and moves its quotes at once."""
    return Strategy(features=SHORT_BARS, quoting=Quoting(**{
        "rule": rule, "intensity": FITTED, "min_spread_bps": 1e-6, "requote_ms": 0, "requote_ticks": 0, **more,
    }))  # fmt: skip


def told_at(strategy: Strategy, orders_held: float = 0.0, ts_ns: int = T0) -> Any:
    """What a quoter tells that holds so many orders and sees one book; its instrument's tick is 0.01."""
    quoter = Quoter(strategy)
    lots = round(orders_held * strategy.quoting.order_notional / 60_000.0 * 1e8)
    if lots:
        quoter.report(fill(ts_ns - 1, 1 if lots > 0 else -1, abs(lots)))
    return quoter.market(book(ts_ns, 5_999_995, 6_000_005))


def test_glft_is_the_closed_form() -> None:
    """Gueant 2016, eq. 4.6 and 4.7 with gamma .1, k 1.5, A 140, sigma 2, D 1: c1, c2, and both distances of one unit held."""
    assert glft.c1(0.1, 1.5) == pytest.approx(0.645385, abs=5e-7)
    assert 2.0 * glft.c2(0.1, 140.0, 1.5) == pytest.approx(0.0517172, abs=5e-7)
    assert glft.c2(0.1, 140.0, 1.5) == pytest.approx(0.0258586, abs=5e-8)
    assert glft.distance(1.0, 0.1, 140.0, 1.5, 2.0) == pytest.approx(0.722961, abs=1e-6)
    assert glft.distance(-1.0, 0.1, 140.0, 1.5, 2.0) == pytest.approx(0.619527, abs=1e-6)


@pytest.mark.parametrize(("gamma", "spread"), [(0.1, 1.49), (0.01, 1.35), (0.5, 2.15)])
def test_avellaneda_and_stoikovs_mean_spread(gamma: float, spread: float) -> None:
    """The paper's tables 1 to 3: the mean spread over the horizon."""
    over = [avellaneda_stoikov.spread(gamma, paper.K, paper.SIGMA, paper.T - n * paper.DT) for n in range(paper.STEPS)]
    assert np.mean(over) == pytest.approx(spread, abs=0.006)


def by_kernels(gamma: float, symmetric: bool) -> Callable[[np.ndarray, float], tuple[np.ndarray, np.ndarray]]:
    """Distances of both quotes by the rule's kernels; symmetric: around the mid instead of the reservation price."""

    def quotes(held: np.ndarray, left: float) -> tuple[np.ndarray, np.ndarray]:
        half = 0.5 * avellaneda_stoikov.spread(gamma, paper.K, paper.SIGMA, left)
        skews = {q: 0.0 if symmetric else avellaneda_stoikov.reservation_skew(q, gamma, paper.SIGMA, left) for q in set(held)}
        skew = np.array([skews[q] for q in held])
        return half + skew, half - skew

    return quotes


def independent(gamma: float, symmetric: bool, seed: int, paths: int) -> tuple[np.ndarray, np.ndarray]:
    """(PnL, final inventory) of the paper's setting, written down from the paper alone."""
    rng = np.random.default_rng(seed)
    s, x, q = np.full(paths, 100.0), np.zeros(paths), np.zeros(paths)
    for t in np.arange(0.0, 1.0 - 1e-9, 0.005):
        center = s if symmetric else s - q * gamma * 4.0 * (1.0 - t)
        whole = gamma * 4.0 * (1.0 - t) + 2.0 / gamma * math.log(1.0 + gamma / 1.5)
        bid, ask = center - whole / 2.0, center + whole / 2.0
        hit = rng.uniform(size=paths) < 140.0 * np.exp(-1.5 * (s - bid)) * 0.005
        lifted = rng.uniform(size=paths) < 140.0 * np.exp(-1.5 * (ask - s)) * 0.005
        x += np.where(lifted, ask, 0.0) - np.where(hit, bid, 0.0)
        q += np.where(hit, 1.0, 0.0) - np.where(lifted, 1.0, 0.0)
        s += np.where(rng.uniform(size=paths) < 0.5, -1.0, 1.0) * 2.0 * math.sqrt(0.005)
    return x + q * s, q


@pytest.mark.parametrize(
    ("gamma", "symmetric", "pnl", "final"),
    [(0.1, False, 6.6, 2.9), (0.1, True, 13.2, 8.4), (0.01, False, 9.0, 5.2), (0.5, False, 6.4, 2.0)],
)
def test_the_papers_simulation(gamma: float, symmetric: bool, pnl: float, final: float) -> None:
    """1,000 paths: the deviations of PnL and of the final inventory are those of an independent simulation within three errors.

    The paper's own figures of gamma .1: 6.6 and 2.9 with inventory, 13.4 and 8.4 (8.7 in later prints) without.
    """
    paths = 1000
    mine = paper.simulate(by_kernels(gamma, symmetric), 1, paths)
    other_pnl, other_final = independent(gamma, symmetric, 2, 4 * paths)
    for here, there, stated in ((mine.pnl, other_pnl, pnl), (mine.inventory, other_final, final)):
        kurtosis = np.mean((there - there.mean()) ** 4) / there.var() ** 2
        error = there.std() * math.sqrt(max(kurtosis - 1.0, 0.5) / 4.0 * (1.0 / paths + 1.0 / (4 * paths)))
        assert abs(here.std() - there.std()) < 3.0 * error, (here.std(), there.std())
        assert there.std() == pytest.approx(stated, rel=0.12)


def test_quotes_of_the_users_document() -> None:
    """base = max(min_spread_bps/1e4, 0.1 vol), skew = inventory * 0.001, both as parts of the mid; bad figures are refused."""
    quotes = calculate_optimal_quotes(50_000.0, 0.01, 0.5)
    assert quotes == pytest.approx((50_000 - 25.0 - 25.0, 50_000 + 25.0 - 25.0, 25.0, 25.0))
    assert calculate_optimal_quotes(100.0, 0.0, 0.0, 4.0) == pytest.approx((99.98, 100.02, 0.02, 0.0))
    for wrong in ((0.0, 0.1, 0.0), (math.nan, 0.1, 0.0), (1.0, -0.1, 0.0), (1.0, 0.1, math.inf)):
        with pytest.raises(ValueError, match="give"):
            calculate_optimal_quotes(*wrong)


@pytest.mark.parametrize("held", [0.0, 2.0, -3.0])
@pytest.mark.parametrize("rule", ["avellaneda_stoikov", "glft"])
def test_the_quoter_quotes_by_the_rule(rule: str, held: float) -> None:
    """Both prices are the rule's, in basis points of the mid, rounded away from it, with each side's own A and k."""
    told = told_at(of_rule(rule, gamma=0.05, horizon_s=10.0, max_inventory_notional=10_000.0), held)
    mid, bps = 6_000_000.0, 600.0
    if rule == "glft":
        slope = [2.0 * math.sqrt(0.05 / (2 * a * k) * (1 + 0.05 / k) ** (k / 0.05 + 1)) for a, k in ((1.4, 0.8), (1.1, 1.2))]
        below, above = (math.log(1 + 0.05 / k) / 0.05 + s / 2 for k, s in zip((0.8, 1.2), slope))
        skew = held * sum(slope) / 2
    else:
        below, above = (0.5 * (0.05 * 4 * 10 + 2 / 0.05 * math.log(1 + 0.05 / k)) for k in (0.8, 1.2))
        skew = held * 0.05 * 4 * 10
    assert told["bid_ticks"] == pytest.approx(min(mid - (below + skew) * bps, 6_000_004), abs=1)
    assert told["ask_ticks"] == pytest.approx(max(mid + (above - skew) * bps, 5_999_996), abs=1)
    assert told["skew"] == pytest.approx(skew * bps, rel=1e-3, abs=1e-9) and told["fair_price"] == mid


def test_a_horizon_may_end_at_a_time_of_day() -> None:
    """The time left runs to HH:MM UTC of this day, then of the next: the skew shrinks with it and begins anew."""
    strategy = of_rule("avellaneda_stoikov", gamma=1e-4, horizon_end="16:30", max_inventory_notional=10_000.0)
    day = T0 // 86_400_000_000_000 * 86_400_000_000_000
    end = day + (16 * 60 + 30) * 60_000_000_000
    skews = [float(told_at(strategy, 1.0, ts)["skew"]) for ts in (end - 7_200_000_000_000, end - 60_000_000_000, end + MS)]
    assert skews[0] == pytest.approx(120.0 * skews[1], rel=1e-6) and skews[2] == pytest.approx(12.0 * skews[0], rel=1e-4)


def test_quotes_stand_around_the_fair_value_that_is_asked_for() -> None:
    """mid; weighted mid: half the spread times the imbalance nearer to the thinner side; microprice: the fitted table, and where
    none is fitted the weighted mid."""

    def seen(around: str, fitted: float | None = None) -> float:
        quoter = Quoter(of_rule("glft", around=around, gamma=0.05))
        if fitted is not None:
            set_microprice(quoter.figures, 0, np.full((MICRO_SPREADS, MICRO_IMBALANCES), fitted))
        recs = book(T0, 6_000_000, 6_000_002)
        recs["bid_lots"][0, 0], recs["ask_lots"][0, 0] = 3 * LOTS, LOTS
        return float(quoter.market(recs)["fair_price"])

    assert seen("mid") == 6_000_001.0
    assert seen("weighted_mid") == 6_000_001.0 + 0.5
    assert seen("microprice") == 6_000_001.5 and seen("microprice", 0.25) == 6_000_001.25


def test_a_rule_without_figures_is_refused() -> None:
    """A rule that needs A and k of a symbol and has none: no start, and the sentence names symbol, command and key."""
    with pytest.raises(PlanError, match="glft knows no A and k of BTCUSDT: put what `scalperctl calibrate RECORDING`"):
        plan_of(load_profile("paper", {"quoting.rule": "glft", "symbols": [{"name": "BTCUSDT"}]}))
    assert plan_of(load_profile("paper", {"quoting.rule": "glft", "quoting.intensity.source": "measured"}))
    assert plan_of(load_profile("paper", {"quoting.rule": "glft", "quoting.enabled": False}))


def flow(seed: int, a: float, k: float, seconds: float, half: int = 1) -> Recs:
    """MARKET_RECORDs of a standing book with a spread of two half spreads, and prints of both sides: sweeps that reach d
    ticks from the mid come at the rate A exp(-k d); a sweep prints at each price on its way."""
    rng = np.random.default_rng(seed)
    rows = [(n * 1_000_000_000, -1, 0) for n in range(int(seconds) + 1)]  # time, side, price: the book alone once a second
    bid, ask = 100_000 - half, 100_000 + half
    for side in (0, 1):
        rate = a * math.exp(-k * half)
        times = np.cumsum(rng.exponential(1.0 / rate, int(seconds * rate * 1.3) + 50))
        for at in times[times < seconds]:
            for step in range(int(rng.exponential(1.0 / k)) + 1):
                rows.append((round(at * 1e9), side, bid - step if side == 0 else ask + step))
    rows.sort(key=lambda row: row[0])
    sides = np.array([row[1] for row in rows])
    recs = np.zeros(len(rows), MARKET_RECORD)
    recs["flags"], recs["kind"] = int(Flag.BOOK_VALID), int(Kind.BBO)
    recs["bid_ticks"], recs["ask_ticks"] = bid - np.arange(5), ask + np.arange(5)
    recs["bid_lots"] = recs["ask_lots"] = 1_000
    recs["ts_ns"] = recs["ts_exchange_ns"] = T0 + np.array([row[0] for row in rows])
    recs["price_ticks"] = [row[2] for row in rows]
    recs["kind"][sides >= 0] = int(Kind.TRADE)
    recs["flags"][sides == 0] |= int(Flag.AGGRESSOR_SELL)
    return recs


@kernel
def measure(recs: Recs, state: Recs, beyond: float, half_life_s: float) -> None:
    """What the quoter does of the records for `intensity`, alone."""
    s = state[0]
    intensity.start(s)
    bid = ask = 0
    for i in range(len(recs)):
        intensity.on_record(s, recs[i], bid, ask, beyond, half_life_s)
        bid, ask = recs[i].bid_ticks[0], recs[i].ask_ticks[0]
    intensity.close_sweep(s, half_life_s)


@kernel
def fits(state: Recs, out: Any) -> None:
    """(k, A, error of k, error of A) of both sides."""
    for side in range(2):
        out[side, 0], out[side, 1] = intensity.k_of(state[0], side), intensity.a_of(state[0], side)
        out[side, 2], out[side, 3] = intensity.k_error(state[0], side), intensity.a_error(state[0], side)


PLANTED = ((1.5, 0.7, 1, 0.0), (4.0, 0.3, 3, 0.0), (0.8, 1.5, 1, 0.0), (4.0, 0.3, 1, 3.5))


@pytest.mark.parametrize(("a", "k", "half", "beyond"), PLANTED)
def test_planted_intensities_are_found(a: float, k: float, half: int, beyond: float) -> None:
    """A and k of simulated sweeps are recovered within two standard errors in 95 of 100 seeds, give or take chance; also from
    those alone that reach a distance."""
    within = np.zeros((2, 2))
    out = np.zeros((2, 4))
    for seed in range(100):
        state = np.zeros(1, intensity.STATE)
        measure(flow(seed, a, k, 600.0, half), state, beyond, 0.0)
        fits(state, out)
        within[:, 0] += np.abs(out[:, 0] - k) < 2.0 * out[:, 2]
        within[:, 1] += np.abs(out[:, 1] - a) < 2.0 * out[:, 3]
    assert within.min() >= 91 and within.mean() >= 93.5, within


def test_the_quoter_measures_and_waits_until_it_can() -> None:
    """`source: measured`: nothing is quoted before both sides are fit; then the distances are those of the fit, and the state
    goes on from a checkpoint as if nothing had happened."""
    measured = Intensity(source="measured", least_sweeps=50.0)
    strategy = of_rule("glft", gamma=0.02, intensity=measured, requote_ticks=10**6)
    recs = flow(5, 1.5, 0.7, 300.0)
    quoter, first = Quoter(strategy), -1
    for i in range(len(recs)):
        if quoter.market(recs, i) is not None and first < 0:
            first = i
    assert 50 < first < len(recs) // 2
    s = quoter.state[0]
    assert s["sweeps"].min() > 50 and s["beyond"].min() >= intensity.BEYOND and s["seen_s"] > 100.0
    again = Quoter(strategy)
    for i in range(len(recs)):
        if i == len(recs) // 3:
            fresh = Quoter(strategy)
            fresh.state[:], fresh.glob[:] = np.frombuffer(again.state.tobytes(), again.state.dtype), again.glob
            again = fresh
        again.market(recs, i)
    assert again.state.tobytes() == quoter.state.tobytes()


def test_a_print_that_is_no_sweep_fits_nothing() -> None:
    """Prints at the touch alone say nothing of k, however many: never fit; an interruption forgets the open sweep and no time
    passes in it."""
    recs = flow(1, 3.0, 50.0, 400.0)
    state = np.zeros(1, intensity.STATE)
    measure(recs, state, 0.0, 0.0)
    assert state["sweeps"].min() == 0.0 or state["beyond"].max() == 0.0
    recs = flow(2, 2.0, 0.5, 100.0)
    recs["bid_ticks"][40:50] = 0
    state = np.zeros(1, intensity.STATE)
    measure(recs, state, 0.0, 0.0)
    away = (recs["ts_ns"][51] - recs["ts_ns"][40]) * 1e-9
    assert state["seen_s"][0] == pytest.approx((recs["ts_ns"][-2] - recs["ts_ns"][0]) * 1e-9 - away, abs=5.0)


def test_settings_of_the_rules_reach_the_kernel() -> None:
    """Every key of the rules stands in the parameters or figures; `mid` with skewed is the default and changes nothing."""
    flow = Intensity(fits=(FIT,), source="measured", beyond_bps=2.0, half_life_s=7.0, least_sweeps=33.0)
    q = Quoting(rule="glft", around="microprice", gamma=0.5, horizon_s=2.0, horizon_end="01:02", intensity=flow)
    quoter = Quoter(msgspec.structs.replace(Strategy(), quoting=q), table())
    p, figures = quoter.params[0], quoter.figures[0]
    assert (p["rule"], p["around"], p["gamma"], p["horizon_ns"], p["measured"]) == (2, 2, 0.5, 2_000_000_000, 1)
    assert p["beyond"] == 2e-4
    assert (p["horizon_end_ns"], p["half_life_s"], p["least_sweeps"]) == (62 * 60 * 10**9, 7.0, 33.0)
    assert figures["a"].tolist() == [1.4, 1.1] and figures["k"].tolist() == [0.8, 1.2] and figures["sigma"] == 2.0
