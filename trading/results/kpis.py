"""How well it went: each figure with its formula's source, its sample, and no figure where the sample is too small.

All inputs are record arrays, plain arrays of returns, or round trips; all outputs are `Figure`s. A `Figure` without a value says
why. The thresholds below are ours: under them a figure is noise that somebody would nevertheless act on.

Money is in the quote currency (coins of inverse contracts at the price of the moment that each function names), ratios are
fractions (0.1 is 10%), "bps" is 1e-4. Simulated fills are assumptions: nothing here knows whether a fill could have happened.

What this module is not: the layout, which is sim.report.tearsheet's. No decision depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

from trading.jit import Floats, Recs, Words
from trading.records import ExecType, Kind, Purpose
from trading.results.marks import Marks, mid_at
from trading.results.round_trips import total_e8, values_e8

DAY_NS: Final = 86_400 * 10**9
YEAR_DAYS: Final = 365  # crypto markets do not close
MIN_RETURNS: Final = 30
MIN_TRADES: Final = 20
MIN_ANNUAL_DAYS: Final = 1.0
CONFIDENCE: Final = 0.95
MARKOUT_HORIZONS_NS: Final = (10**8, 10**9, 10 * 10**9, 60 * 10**9)
_EULER: Final = 0.5772156649015329
_NORMAL: Final = NormalDist()


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: `value` (None: `note` says why), over `sample` observations, `error`: its standard error where known.

    A share of counted things has `hits` of `sample` and its interval at CONFIDENCE instead, `low` to `high`.
    """

    value: float | None
    sample: int
    note: str = ""
    error: float | None = None
    hits: int | None = None
    low: float | None = None
    high: float | None = None


def wilson(hits: int, sample: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval (low, high) in 0..1 of a share of `hits` of `sample` > 0 independent trials. Wilson 1927.

    It stays honest at the ends, where the normal interval has no width: 0 of 184 is 0 to 2.0 %.
    """
    z = _NORMAL.inv_cdf(0.5 + 0.5 * confidence)
    share, spread = hits / sample, z * z / sample
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / sample + spread / (4 * sample))
    low = 0.0 if hits == 0 else max(middle - half, 0.0)
    return low, 1.0 if hits == sample else min(middle + half, 1.0)


def share_of(hits: int, sample: int, nothing: str) -> Figure:
    """The share `hits` of `sample` with its interval; no figure, and the note `nothing`, where the sample is empty."""
    if sample <= 0:
        return Figure(None, 0, nothing)
    low, high = wilson(hits, sample)
    return Figure(hits / sample, sample, hits=hits, low=low, high=high)


def _too_few(sample: int, wanted: int, of: str) -> Figure:
    return Figure(None, sample, f"{sample} {of}, at least {wanted} wanted")


def _too_short(sample: int, days: float) -> Figure:
    return Figure(None, sample, f"{days:.2g} days observed, at least {MIN_ANNUAL_DAYS:g} wanted")


# ---- returns ----------------------------------------------------------------------------------------------------------


def period_returns(equity: Floats) -> Floats:
    """Simple returns e_t / e_(t-1) - 1, shape (n-1,); NaN where the equity before was not positive."""
    before = equity[:-1]
    positive = before > 0
    return np.where(positive, equity[1:] / np.where(positive, before, 1.0) - 1.0, np.nan)


def _returns_problem(returns: Floats) -> Figure | None:
    if len(returns) < MIN_RETURNS:
        return _too_few(len(returns), MIN_RETURNS, "returns")
    if not np.isfinite(returns).all():
        return Figure(None, len(returns), "equity was not positive throughout")
    if float(np.ptp(returns)) == 0.0:
        return Figure(None, len(returns), "equity never moved" if returns[0] == 0.0 else "returns do not vary")
    return None


def sharpe(returns: Floats) -> Figure:
    """Sharpe ratio a period, risk-free rate 0: mean / standard deviation (n-1). Sharpe 1994; error: Lo 2002, eq. 8."""
    problem = _returns_problem(returns)
    if problem is not None:
        return problem
    ratio = float(returns.mean() / returns.std(ddof=1))
    return Figure(ratio, len(returns), error=math.sqrt((1 + ratio * ratio / 2) / len(returns)))


def sortino(returns: Floats) -> Figure:
    """Sortino ratio a period, target 0: mean / sqrt(mean(min(r, 0)^2)) over all returns. Sortino and Price 1994."""
    problem = _returns_problem(returns)
    if problem is not None:
        return problem
    downside = math.sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2)))
    if downside == 0.0:
        return Figure(None, len(returns), "no losing period")
    return Figure(float(returns.mean()) / downside, len(returns))


def annualised(ratio: Figure, period_ns: int, observed_days: float) -> Figure:
    """A ratio a period times sqrt(periods in 365 days); independent returns assumed (Lo 2002 says how far that goes)."""
    if ratio.value is None:
        return ratio
    if observed_days < MIN_ANNUAL_DAYS:
        return _too_short(ratio.sample, observed_days)
    scale = math.sqrt(YEAR_DAYS * DAY_NS / period_ns)
    return Figure(ratio.value * scale, ratio.sample, error=None if ratio.error is None else ratio.error * scale)


@dataclass(frozen=True, slots=True)
class Drawdown:
    """The deepest fall from a peak: share of the peak, money, and how long equity stayed under that peak (ns)."""

    share: float
    money: float
    under_ns: int
    recovered: bool


def max_drawdown(equity: Floats, times: Words) -> Drawdown:
    """max over t of (peak before t - equity at t) / peak; shapes (n,) both. Money is the same fall's, peak to trough."""
    if not len(equity):
        return Drawdown(0.0, 0.0, 0, True)
    peak = np.maximum.accumulate(equity)
    falls = np.where(peak > 0, (peak - equity) / np.where(peak > 0, peak, 1.0), 0.0)
    trough = int(np.argmax(falls))
    if falls[trough] <= 0.0:
        return Drawdown(0.0, 0.0, 0, True)
    top = int(np.flatnonzero(equity[: trough + 1] == peak[trough])[-1])
    back = np.flatnonzero(equity[trough:] >= peak[trough])
    end = trough + int(back[0]) if back.size else len(equity) - 1
    money = float(peak[trough] - equity[trough])
    return Drawdown(float(falls[trough]), money, int(times[end] - times[top]), bool(back.size))


def calmar(equity: Floats, observed_days: float, drawdown: Drawdown) -> Figure:
    """Compound return a year over the maximum drawdown. Young 1991 (there over 36 months; here over what was observed)."""
    if observed_days < MIN_ANNUAL_DAYS:
        return _too_short(len(equity), observed_days)
    if drawdown.share == 0.0:
        return Figure(None, len(equity), "no drawdown")
    if equity[0] <= 0 or equity[-1] <= 0:
        return Figure(None, len(equity), "equity was not positive throughout")
    growth = math.log(float(equity[-1] / equity[0])) * YEAR_DAYS / observed_days
    if growth > 700.0:
        return Figure(None, len(equity), "the compound return a year is beyond any meaning")
    return Figure(math.expm1(growth) / drawdown.share, len(equity))


def deflated_sharpe(returns: Floats, trials: int = 1, trial_variance: float | None = None) -> Figure:
    """Probability that the true Sharpe ratio is above what the best of `trials` worthless ones shows. 0..1.

    Bailey, Lopez de Prado 2014: Phi[(SR - SR0) sqrt(T-1) / sqrt(1 - g3 SR + (g4-1)/4 SR^2)],
    SR0 = sqrt(Var SR) [(1-.5772) Phi^-1(1-1/N) + .5772 Phi^-1(1 - 1/(N e))]; SR a period, g4 raw kurtosis.
    With one trial SR0 is 0: the probabilistic Sharpe ratio. trial_variance: of the trials' SRs (a period); without it the
    variance of this SR's own estimate stands in for it.
    """
    problem = _returns_problem(returns)
    if problem is not None:
        return problem
    n = len(returns)
    ratio = float(returns.mean() / returns.std(ddof=1))
    centred = returns - returns.mean()
    deviation = math.sqrt(float(np.mean(centred**2)))
    skew = float(np.mean(centred**3)) / deviation**3
    kurtosis = float(np.mean(centred**4)) / deviation**4
    spread = 1 - skew * ratio + (kurtosis - 1) / 4 * ratio * ratio
    if spread <= 0.0:
        return Figure(None, n, "skewness is too large for the estimate")
    hurdle = 0.0
    if trials > 1:
        variance = spread / (n - 1) if trial_variance is None else trial_variance
        hurdle = math.sqrt(variance) * (
            (1 - _EULER) * _NORMAL.inv_cdf(1 - 1 / trials) + _EULER * _NORMAL.inv_cdf(1 - 1 / (trials * math.e))
        )
    return Figure(_NORMAL.cdf((ratio - hurdle) * math.sqrt(n - 1) / math.sqrt(spread)), n)


# ---- round trips ------------------------------------------------------------------------------------------------------


def win_rate(trips: Recs) -> Figure:
    """Share of round trips (ROUND_TRIP, shape (n,)) with a result above 0 after fees, with its interval."""
    n = len(trips)
    if n < MIN_TRADES:
        return _too_few(n, MIN_TRADES, "round trips")
    return share_of(int((trips["net_e8"] > 0).sum()), n, "no round trip")


def profit_factor(trips: Recs) -> Figure:
    """Sum of what winning round trips made over what losing ones lost, after fees; coins at the price of the exit."""
    n, net = len(trips), trips["quoted_e8"]
    if n < MIN_TRADES:
        return _too_few(n, MIN_TRADES, "round trips")
    lost = -int(net[net < 0].sum())
    if lost == 0:
        return Figure(None, n, "no losing round trip")
    return Figure(int(net[net > 0].sum()) / lost, n)


def mean_holding_ns(trips: Recs) -> Figure:
    """Mean time that a round trip was held (each round trip's own is weighted by lots), in ns."""
    if not len(trips):
        return Figure(None, 0, "no round trip")
    return Figure(float(trips["held_ns"].mean()), len(trips))


# ---- execution --------------------------------------------------------------------------------------------------------


def turnover(fills: Recs, instruments: Recs) -> Figure:
    """Value of all fills, both sides, in money."""
    values = values_e8(instruments, fills["symbol"], fills["last_ticks"], fills["last_lots"])
    return Figure(total_e8(values) / 1e8, len(fills))


def _quoted_fees(fills: Recs, instruments: Recs) -> Floats:
    """Each fill's fee in 1e-8 of the quote currency, shape (n,); paid in coins: at the fill's price."""
    it = instruments[fills["symbol"]]
    return np.asarray(fills["fee_e8"] * np.where(it["inverse"] != 0, fills["last_ticks"] * it["tick_size"], 1.0))


def fees(fills: Recs, instruments: Recs) -> Figure:
    """Fees paid in money, coins at the price of their fill; negative is a rebate."""
    return Figure(float(_quoted_fees(fills, instruments).sum()) / 1e8, len(fills))


def maker_share(fills: Recs, instruments: Recs) -> Figure:
    """Share of the turnover that was filled as maker."""
    values = values_e8(instruments, fills["symbol"], fills["last_ticks"], fills["last_lots"])
    total = total_e8(values)
    if total == 0:
        return Figure(None, len(fills), "no fills")
    return Figure(total_e8(values[fills["maker"] == 1]) / total, len(fills))


def new_orders(orders: Recs) -> Recs:
    """The approved new orders among ORDER_RECORDs."""
    return orders[(orders["kind"] == Kind.NEW) & (orders["approved"] == 1)]


def fill_rate(orders: Recs, reports: Recs) -> Figure:
    """Share of the orders sent and not rejected that were filled at least in part. By order id; definition ours."""
    answers = reports[reports["kind"] == Kind.REPORT]
    rejected = answers["order_id"][answers["exec_type"] == ExecType.REJECT]
    accepted = np.setdiff1d(new_orders(orders)["order_id"], rejected)
    filled = np.isin(accepted, answers["order_id"][answers["exec_type"] == ExecType.FILL])
    return share_of(int(filled.sum()), len(accepted), "no accepted order")


def markout_bps(fills: Recs, marks: Sequence[Marks], instruments: Recs, horizon_ns: int) -> Figure:
    """Mean of side * (mid at t + horizon - fill price) / fill price in bps, weighted by value, fees left out.

    t is when the fill happened at the venue (`ts_exchange_ns`, else `ts_ns`). Negative: the market went against us, we were
    adversely selected. Fills whose horizon lies behind the last mid, or that have no mid, do not count. Error:
    of a weighted mean, fills taken as independent.
    """
    when = np.where(fills["ts_exchange_ns"] > 0, fills["ts_exchange_ns"], fills["ts_ns"]) + horizon_ns
    later = np.full(len(fills), np.nan)
    for symbol, own in enumerate(marks):
        chosen = fills["symbol"] == symbol
        if chosen.any() and len(own.ts_ns):
            seen = mid_at(own, when[chosen])
            later[chosen] = np.where(when[chosen] <= own.ts_ns[-1], seen, np.nan)
    known = np.isfinite(later) & (fills["last_ticks"] > 0)
    n = int(known.sum())
    if n < MIN_TRADES:
        return _too_few(n, MIN_TRADES, "fills with a later mid")
    price = fills["last_ticks"][known]
    out = fills["side"][known] * (later[known] - price) / price * 1e4
    weight = values_e8(instruments, fills["symbol"][known], price, fills["last_lots"][known]) / 1e8
    mean = float(np.sum(weight * out) / weight.sum())
    error = math.sqrt(float(np.sum((weight * (out - mean)) ** 2)) * n / (n - 1)) / float(weight.sum())
    return Figure(mean, n, error=error)


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Perold's cost in money, positive is a cost: of what was filled, of what was not, of fees; and the whole in bps."""

    orders: int
    skipped: int  # no decision price, or no mid at their end
    execution: float
    opportunity: float
    fees: float
    bps: Figure  # of the value that was decided

    @property
    def total(self) -> float:
        """All three together."""
        return self.execution + self.opportunity + self.fees


def implementation_shortfall(orders: Recs, reports: Recs, marks: Sequence[Marks], instruments: Recs) -> Shortfall:
    """sum side * (fill - decision) * qty + side * (end - decision) * unfilled + fees. Perold 1988.

    Over approved orders that a decision wanted filled: quotes (Purpose.QUOTE) only offer and are left out. decision: the mid
    when decided; end: the mid when the order was over, or the last one. Of an inverse contract the difference is in coins, and is
    valued at the decision's price: quantity * size * (1 - decision / fill).
    """
    wanted = new_orders(orders)
    wanted = wanted[wanted["purpose"] != Purpose.QUOTE]
    answers = reports[reports["kind"] == Kind.REPORT]
    last_ts = max((int(own.ts_ns[-1]) for own in marks if len(own.ts_ns)), default=0)
    rows = {int(order_id): row for row, order_id in enumerate(wanted["order_id"])}
    ends = np.full(len(wanted), last_ts, np.int64)
    filled = np.zeros(len(wanted), np.int64)
    slipped, paid = np.zeros(len(wanted)), np.zeros(len(wanted))  # slipped: sum side * (fill - decision) * lots, in units
    inverse = instruments["inverse"][wanted["symbol"]] != 0
    for answer in answers[np.isin(answers["order_id"], wanted["order_id"])]:
        row = rows[int(answer["order_id"])]
        if answer["exec_type"] == ExecType.FILL:
            order, lots = wanted[row], int(answer["last_lots"])
            filled[row] += lots
            moved = int(answer["last_ticks"]) - float(order["decision_ticks"])
            slipped[row] += int(order["side"]) * (moved / int(answer["last_ticks"]) if inverse[row] else moved) * lots
            paid[row] += float(_quoted_fees(answer.reshape(1), instruments)[0]) / 1e8
        elif answer["exec_type"] in (ExecType.CANCELED, ExecType.EXPIRED, ExecType.REJECT):
            ends[row] = answer["ts_ns"]
    end_mid = np.full(len(wanted), np.nan)
    for symbol, own in enumerate(marks):
        chosen = wanted["symbol"] == symbol
        end_mid[chosen] = mid_at(own, ends[chosen])
    decision, unfilled = wanted["decision_ticks"], wanted["qty_lots"] - filled
    known = np.isfinite(decision) & (decision > 0) & (np.isfinite(end_mid) | (unfilled == 0))
    it = instruments[wanted["symbol"]]
    unit = np.where(inverse, 1.0, it["tick_size"]) * it["lot_size"] * it["contract_size"]
    moves = (end_mid - decision) / np.where(inverse, end_mid, 1.0)
    missed = np.where(unfilled == 0, 0.0, wanted["side"] * moves * unfilled)
    execution, opportunity = float(np.sum((slipped * unit)[known])), float(np.sum((missed * unit)[known]))
    charged, n = float(paid[known].sum()), int(known.sum())
    decided = float(np.sum((np.where(inverse, 1.0, decision) * wanted["qty_lots"] * unit)[known]))
    bps = Figure((execution + opportunity + charged) / decided * 1e4, n) if decided > 0 else Figure(None, n, "no such order")
    return Shortfall(n, len(wanted) - n, execution, opportunity, charged, bps)


def decision_to_ack_ns(orders: Recs, reports: Recs) -> Words:
    """From the decision (order's ts_ns) to the venue's first word on it (report's ts_ns), ns, ascending, shape (n,).

    In replay these are virtual times: the settings' latencies, not this machine's.
    """
    answers = reports[reports["kind"] == Kind.REPORT]
    sent = new_orders(orders)
    ids, first = np.unique(answers["order_id"], return_index=True)
    if not len(ids) or not len(sent):
        return np.zeros(0, np.int64)
    at = np.minimum(np.searchsorted(ids, sent["order_id"]), len(ids) - 1)
    answered = ids[at] == sent["order_id"]
    return np.sort(answers["ts_ns"][first[at[answered]]] - sent["ts_ns"][answered])
