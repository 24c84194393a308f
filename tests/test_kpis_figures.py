"""Key figures against references computed another way: by hand, with Decimal and Fraction, or lot by lot."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading.instruments import Instrument, Market, instrument_table, notional_e8
from trading.records import MARKET_RECORD, ORDER_RECORD, REPORT_RECORD, ExecType, Flag, Kind, Purpose, Side
from trading.results import kpis
from trading.results.marks import Marks, equity_at, event_times, mid_at, mids, observed_ns, sample_times
from trading.results.round_trips import fills_of, match_fifo, values_e8

S = 10**9
SPOT = Instrument("BTCUSDT")
PERP = Instrument("ETHUSDT", Market.BINANCE_USDM, tick_size="0.10", lot_size="0.001", step_size="0.001", min_qty="0.001")
TABLE = instrument_table([SPOT, PERP])
NO_MARKS = Marks(np.zeros(0, np.int64), np.zeros(0))


def fill(
    ts_ns: int, side: int, ticks: int, lots: int, *, order: int = 1, symbol: int = 0, fee: int = 0, maker: int = 0
) -> np.ndarray:
    """One fill, a REPORT_RECORD of shape (1,)."""
    made = np.zeros(1, REPORT_RECORD)
    made["kind"], made["exec_type"] = Kind.REPORT, ExecType.FILL
    made["ts_ns"] = made["ts_exchange_ns"] = ts_ns
    made["side"], made["last_ticks"], made["last_lots"] = side, ticks, lots
    made["order_id"], made["symbol"], made["fee_e8"], made["maker"] = order, symbol, fee, maker
    return made


def answer(ts_ns: int, order: int, kind: ExecType) -> np.ndarray:
    """One report that is no fill."""
    made = np.zeros(1, REPORT_RECORD)
    made["kind"], made["exec_type"], made["ts_ns"], made["order_id"] = Kind.REPORT, kind, ts_ns, order
    return made


def order(
    ts_ns: int, order_id: int, side: int, lots: int, decision: float, *, symbol: int = 0, purpose: int = Purpose.ENTRY
) -> np.ndarray:
    """One approved new order, an ORDER_RECORD of shape (1,)."""
    made = np.zeros(1, ORDER_RECORD)
    made["kind"], made["approved"], made["ts_ns"], made["order_id"] = Kind.NEW, 1, ts_ns, order_id
    made["side"], made["qty_lots"], made["decision_ticks"] = side, lots, decision
    made["symbol"], made["purpose"] = symbol, purpose
    return made


def market(points: list[tuple[int, int, int]], symbol: int = 0) -> np.ndarray:
    """Market records of (ts_ns, bid, ask) with a valid book."""
    made = np.zeros(len(points), MARKET_RECORD)
    made["kind"], made["flags"], made["symbol"] = Kind.DEPTH, Flag.BOOK_VALID, symbol
    for row, (ts_ns, bid, ask) in zip(made, points, strict=True):
        row["ts_ns"], row["bid_ticks"][0], row["ask_ticks"][0] = ts_ns, bid, ask
    return made


def join(*parts: np.ndarray) -> np.ndarray:
    """Records one after the other."""
    return np.concatenate(parts)


def trips_of(nets: list[int]) -> np.ndarray:
    """Round trips with these results after fees, by trading one lot-priced unit at a time."""
    fills = []
    for n, net in enumerate(nets):  # spot: 100 lots at 1 tick are worth 1 (1e-8)
        fills += [fill(4 * n, 1, 10**9, 100, order=2 * n), fill(4 * n + 2, -1, 10**9 + net, 100, order=2 * n + 1)]
    trips, left = match_fifo(join(*fills), TABLE)
    assert not len(left) and trips["net_e8"].tolist() == nets
    return trips


# ---- round trips ------------------------------------------------------------------------------------------------------


def test_partials_of_one_order_are_one_round_trip() -> None:
    """Three partial entries and two partial exits of one order each: one trade, exact value, fees, mean holding time."""
    fills = join(
        fill(1 * S, 1, 6_000_000, 100_000, order=7, fee=600),
        fill(2 * S, 1, 6_000_100, 200_000, order=7, fee=1200),
        fill(3 * S, 1, 6_000_200, 100_000, order=7, fee=600),
        fill(10 * S, -1, 6_001_000, 150_000, order=8, fee=900),
        fill(12 * S, -1, 6_002_000, 250_000, order=8, fee=1500),
    )
    trips, left = match_fifo(fills, TABLE)
    assert len(trips) == 1 and not len(left)
    trip = trips[0]
    value_in = Decimal(60_000) / 1000 + Decimal(60_001) * 2 / 1000 + Decimal(60_002) / 1000
    value_out = Decimal(60_010) * 15 / 10_000 + Decimal(60_020) * 25 / 10_000
    assert trip["gross_e8"] == (value_out - value_in) * 10**8
    assert trip["fees_e8"] == 4800 and trip["net_e8"] == trip["gross_e8"] - 4800
    assert (trip["entry_ts_ns"], trip["exit_ts_ns"], trip["side"], trip["qty_lots"]) == (1 * S, 12 * S, 1, 400_000)
    held = Fraction(100_000 * 9 + 50_000 * 8 + 150_000 * 10 + 100_000 * 9, 400_000)
    assert trip["held_ns"] == float(held * S)


def test_a_fill_through_zero_closes_and_opens() -> None:
    """Selling more than is held closes the long round trip and opens a short lot with its share of value and fee."""
    fills = join(fill(0, 1, 1000, 300, order=1, fee=30), fill(5, -1, 1100, 500, order=2, fee=50), fill(9, 1, 1050, 200, order=3))
    trips, left = match_fifo(fills[:2], TABLE)
    assert trips["side"].tolist() == [1] and trips["fees_e8"].tolist() == [30 + 30]
    assert left["side"].tolist() == [-1] and left["qty_lots"].tolist() == [200] and left["fee_e8"].tolist() == [20]
    trips, left = match_fifo(fills, TABLE)
    assert trips["side"].tolist() == [1, -1] and not len(left)
    assert trips["gross_e8"].tolist() == [(1100 - 1000) * 300 // 100, (1100 - 1050) * 200 // 100]


FILLS = st.lists(
    st.tuples(
        st.integers(0, 1), st.sampled_from([-1, 1]), st.integers(10**5, 10**7), st.integers(1, 10**6), st.integers(-99, 10**9)
    ),
    min_size=1,
    max_size=24,
)


@settings(max_examples=60, deadline=None)
@given(drawn=FILLS, orders=st.integers(1, 12))
def test_round_trips_and_open_lots_account_for_every_unit(drawn: list[tuple[int, int, int, int, int]], orders: int) -> None:
    """Whatever the fills: cash = closed results - open lots at cost, fees and lots add up, all in exact integers."""
    fills = join(*(fill(n, s, p, q, order=n % orders, symbol=y, fee=f) for n, (y, s, p, q, f) in enumerate(drawn)))
    values = values_e8(TABLE, fills["symbol"], fills["last_ticks"], fills["last_lots"])
    trips, left = match_fifo(fills, TABLE)
    assert trips["fees_e8"].sum() + left["fee_e8"].sum() == fills["fee_e8"].sum()
    for symbol in (0, 1):
        own, closed, kept = fills["symbol"] == symbol, trips["symbol"] == symbol, left["symbol"] == symbol
        cash = -int((fills["side"][own] * values[own]).sum())
        assert cash == int(trips["gross_e8"][closed].sum()) - int((left["side"][kept] * left["value_e8"][kept]).sum())
        position = int((fills["side"][own] * fills["last_lots"][own]).sum())
        assert position == int((left["side"][kept] * left["qty_lots"][kept]).sum())
        assert len(set(left["side"][kept].tolist())) <= 1  # never long and short at once
    lots = 2 * int(trips["qty_lots"].sum()) + int(left["qty_lots"].sum())
    assert lots == int(fills["last_lots"].sum())


@settings(max_examples=60, deadline=None)
@given(symbol=st.integers(0, 1), ticks=st.integers(1, 10**7), lots=st.integers(1, 10**7))
def test_values_are_those_of_the_kernels(symbol: int, ticks: int, lots: int) -> None:
    """The report's money and the decision kernels' money are one: same rounding, and exact against Decimal."""
    got = int(values_e8(TABLE, np.array([symbol]), np.array([ticks]), np.array([lots]))[0])
    assert got == notional_e8(TABLE, symbol, ticks, lots)
    it = (SPOT, PERP)[symbol]
    exact = Decimal(it.tick_size) * ticks * Decimal(it.lot_size) * lots * 10**8
    assert 0 <= exact - got < 1


# ---- marks, equity ----------------------------------------------------------------------------------------------------


def test_mids_skip_books_that_are_not_right() -> None:
    """Stale, one-sided, foreign and END records are no marks; a time before the first mid has none."""
    own_recs, foreign = [(10, 99, 101), (20, 0, 101), (30, 100, 103)], [(25, 7, 9)]
    recs = join(market(own_recs), market(foreign, symbol=1), market([(40, 1, 3), (50, 1, 3)]))
    recs["flags"][4] = 0
    recs["kind"][5] = Kind.END
    own = mids(recs, 0)
    assert own.ts_ns.tolist() == [10, 30] and own.mid_ticks.tolist() == [100.0, 101.5]
    assert np.array_equal(mid_at(own, np.array([9, 10, 29, 30, 99])), [np.nan, 100, 100, 101.5, 101.5], equal_nan=True)
    assert event_times(recs).tolist() == [10, 20, 30, 25, 40]
    assert np.isnan(mid_at(mids(recs, 3), np.array([5]))).all()


def test_the_night_between_two_recordings_is_no_trading_time() -> None:
    """The grid has no points in a silence longer than the limit, and the observed time leaves it out."""
    times = np.array([0, 1, 2, 3, 500, 501, 502]) * S + S // 2
    grid = sample_times(times, S, stale_ns=60 * S)
    assert (grid // S).tolist() == [1, 2, 3, 501, 502]
    assert observed_ns(times, 60 * S) == 5 * S
    assert len(sample_times(times[:0], S)) == 0


@settings(max_examples=25, deadline=None)
@given(drawn=FILLS, seed=st.integers(0, 1000))
def test_equity_is_start_plus_results_plus_open_position(drawn: list[tuple[int, int, int, int, int]], seed: int) -> None:
    """At every time the curve equals a plain Decimal account of cash and positions kept fill by fill."""
    fills = join(*(fill(10 * n + 5, s, p, q, order=n, symbol=y, fee=f) for n, (y, s, p, q, f) in enumerate(drawn)))
    rng = np.random.default_rng(seed)
    span = 10 * len(drawn)
    marks = [
        Marks(np.sort(rng.integers(0, span, 8)), rng.integers(1_000_000, 2_000_000, 8) / 2.0),
        NO_MARKS,  # never a book: marked at the last fill
    ]
    times = np.arange(0, span + 20, 7)
    curve = equity_at(fills, marks, TABLE, 100_000.0, times)
    cash_scale = Decimal(10) ** 8
    for t, got in zip(times.tolist(), curve.tolist(), strict=True):
        total, position, price = Decimal(100_000), [0, 0], [Decimal(0), Decimal(0)]
        for one in fills[fills["ts_ns"] <= t]:
            y = int(one["symbol"])
            value = notional_e8(TABLE, y, int(one["last_ticks"]), int(one["last_lots"]))
            total -= (value * int(one["side"]) + int(one["fee_e8"])) / cash_scale
            position[y] += int(one["side"]) * int(one["last_lots"])
            price[y] = Decimal(int(one["last_ticks"]))
        seen = [i for i in range(8) if marks[0].ts_ns[i] <= t]
        if seen:
            price[0] = Decimal(float(marks[0].mid_ticks[seen[-1]]))
        for y, it in enumerate((SPOT, PERP)):
            total += position[y] * price[y] * Decimal(it.tick_size) * Decimal(it.lot_size)
        assert math.isclose(got, float(total), rel_tol=1e-9, abs_tol=1e-5)


# ---- returns ----------------------------------------------------------------------------------------------------------


def decimals(values: list[float]) -> list[Decimal]:
    """The exact decimal of each float."""
    return [Decimal(v) for v in values]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(30, 200), drift=st.floats(-1e-3, 1e-3))
def test_sharpe_sortino_and_deflated_sharpe_by_decimal(seed: int, n: int, drift: float) -> None:
    """Each against its formula, evaluated in 28-digit decimals."""
    returns = np.random.default_rng(seed).standard_t(4, n) * 1e-3 + drift
    r = decimals(returns.tolist())
    mean = sum(r) / n
    deviation = (sum((x - mean) ** 2 for x in r) / (n - 1)).sqrt()
    ratio = mean / deviation
    got = kpis.sharpe(returns)
    assert got.sample == n and math.isclose(got.value or 0, float(ratio), rel_tol=1e-9, abs_tol=1e-12)
    downside = (sum(min(x, Decimal(0)) ** 2 for x in r) / n).sqrt()
    assert math.isclose(kpis.sortino(returns).value or 0, float(mean / downside), rel_tol=1e-9, abs_tol=1e-12)

    population = (sum((x - mean) ** 2 for x in r) / n).sqrt()
    g3 = sum((x - mean) ** 3 for x in r) / n / population**3
    g4 = sum((x - mean) ** 4 for x in r) / n / population**4
    under = 1 - g3 * ratio + (g4 - 1) / 4 * ratio**2
    z = float(ratio * Decimal(n - 1).sqrt() / under.sqrt())
    assert math.isclose(kpis.deflated_sharpe(returns).value or 0, 0.5 * math.erfc(-z / math.sqrt(2)), rel_tol=1e-7, abs_tol=1e-12)


def test_deflated_sharpe_of_the_paper() -> None:
    """Bailey and Lopez de Prado 2014, section 'A numerical example': SR 2.5 a year, 5 years of days, 100 trials, variance 1/2,
    skewness -3, kurtosis 10 gives SR0 0.1132 a day and a deflated Sharpe of 0.9004; here the same formula on our moments."""
    from statistics import NormalDist

    phi = NormalDist()
    variance, trials = 0.5 / 250, 100
    hurdle = math.sqrt(variance) * (
        (1 - 0.5772156649) * phi.inv_cdf(1 - 1 / trials) + 0.5772156649 * phi.inv_cdf(1 - 1 / (trials * math.e))
    )
    assert math.isclose(hurdle, 0.1132, abs_tol=5e-5)
    ratio = 2.5 / math.sqrt(250)
    paper = phi.cdf((ratio - hurdle) * math.sqrt(1249) / math.sqrt(1 + 3 * ratio + 9 / 4 * ratio**2))
    assert math.isclose(paper, 0.9004, abs_tol=5e-5)

    # returns of the same length whose Sharpe ratio is the paper's, with moments of their own
    drawn = np.random.default_rng(5).normal(size=1250)
    drawn = (drawn - drawn.mean()) / drawn.std(ddof=1) + ratio
    centred = drawn - drawn.mean()
    g3, g4 = (float(np.mean(centred**k) / np.mean(centred**2) ** (k / 2)) for k in (3, 4))
    due = phi.cdf((ratio - hurdle) * math.sqrt(1249) / math.sqrt(1 - g3 * ratio + (g4 - 1) / 4 * ratio**2))
    assert math.isclose(kpis.deflated_sharpe(drawn, trials, variance).value or 0, due, rel_tol=1e-9)
    assert (kpis.deflated_sharpe(drawn, 1).value or 0) > due  # more trials, less belief


def test_a_year_is_sqrt_of_its_periods() -> None:
    """A ratio of 1-hour returns is multiplied by sqrt(8760), and only when at least a day was observed."""
    once = kpis.Figure(0.02, 500, error=0.01)
    year = kpis.annualised(once, 3600 * S, 21.0)
    assert math.isclose(year.value or 0, 0.02 * math.sqrt(8760)) and math.isclose(year.error or 0, 0.01 * math.sqrt(8760))
    short = kpis.annualised(once, 3600 * S, 0.02)
    assert short.value is None and "0.02 days observed" in short.note


@pytest.mark.parametrize(
    ("returns", "why"),
    [
        (np.full(29, 0.1), "29 returns, at least 30 wanted"),
        (np.zeros(100), "equity never moved"),
        (np.full(100, 0.25), "do not vary"),
        (np.concatenate([np.full(40, np.nan), np.ones(40)]), "not positive"),
    ],
)
def test_no_ratio_without_a_sample(returns: np.ndarray, why: str) -> None:
    """Too few, constant or undefined returns give no number but the reason."""
    for figure in (kpis.sharpe(returns), kpis.sortino(returns), kpis.deflated_sharpe(returns)):
        assert figure.value is None and why in figure.note and figure.sample == len(returns)
    assert kpis.sortino(np.linspace(0.001, 0.002, 50)).note == "no losing period"


def test_drawdown_and_calmar_by_hand() -> None:
    """100, 120, 90, 110, 130, 100: the deepest fall is 120 to 90, a quarter, under water from 120 until 130."""
    equity = np.array([100.0, 120, 90, 110, 130, 100])
    fall = kpis.max_drawdown(equity, np.arange(6) * S)
    assert fall == kpis.Drawdown(0.25, 30.0, 3 * S, True)
    last = kpis.max_drawdown(np.array([100.0, 110, 100, 99]), np.arange(4) * S)
    assert last.money == 11.0 and not last.recovered and last.under_ns == 2 * S
    assert kpis.max_drawdown(np.array([1.0, 1, 2]), np.arange(3)) == kpis.Drawdown(0.0, 0.0, 0, True)
    assert kpis.max_drawdown(np.zeros(0), np.zeros(0, np.int64)).share == 0.0
    year = kpis.calmar(np.array([100.0, 90, 121]), 730.0, kpis.Drawdown(0.1, 10, 1, True))
    assert math.isclose(year.value or 0, 0.1 / 0.1)  # 21% in two years is 10% a year
    assert "observed" in kpis.calmar(equity, 0.5, fall).note
    assert kpis.calmar(np.array([1.0, 2]), 2.0, kpis.Drawdown(0.0, 0, 0, True)).note == "no drawdown"
    assert kpis.calmar(np.array([1.0, -2]), 2.0, fall).value is None
    assert kpis.calmar(np.array([1.0, 1e9]), 1.0, fall).value is None
    assert kpis.period_returns(np.array([1.0, 2, 0, 5])).tolist()[:2] == [1.0, -1.0]


# ---- trades, execution ------------------------------------------------------------------------------------------------


def test_win_rate_and_profit_factor_by_hand() -> None:
    """14 wins of 3 and 6 losses of 7, a zero result is no win: 14/21 and 42/42."""
    trips = trips_of([3] * 14 + [-7] * 6 + [0])
    won = kpis.win_rate(trips)
    assert won.value == 14 / 21 and won.sample == 21 and won.hits == 14 and (won.low, won.high) == kpis.wilson(14, 21)
    assert kpis.profit_factor(trips).value == 1.0
    assert kpis.mean_holding_ns(trips).value == 2.0
    assert kpis.profit_factor(trips_of([1] * 20)).note == "no losing round trip"
    few = kpis.win_rate(trips[:19])
    assert few.value is None and few.note == "19 round trips, at least 20 wanted"
    assert kpis.profit_factor(trips[:3]).value is None and kpis.mean_holding_ns(trips[:0]).value is None


@pytest.mark.parametrize(
    ("hits", "sample", "low", "high"),
    [(0, 184, 0.0, 0.02045), (184, 184, 0.97955, 1.0), (14, 21, 0.4537, 0.8281), (1, 2, 0.0945, 0.9055)],
)
def test_the_interval_of_a_share(hits: int, sample: int, low: float, high: float) -> None:
    """Wilson's 95 % interval by hand, and by its definition: both ends p solve |p - share| = z sqrt(p (1 - p) / n)."""
    found = kpis.wilson(hits, sample)
    assert found == pytest.approx((low, high), abs=5e-5) and 0.0 <= found[0] <= hits / sample <= found[1] <= 1.0
    for end in (one for one in found if 0.0 < one < 1.0):
        assert abs(end - hits / sample) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / sample), rel=1e-5)


def test_a_share_of_nothing_is_no_figure() -> None:
    """Without a sample there is a note, and neither a value nor an interval."""
    found = kpis.share_of(0, 0, "no order")
    assert (found.value, found.low, found.high, found.note) == (None, None, None, "no order")


def test_turnover_fees_maker_share_and_fill_rate() -> None:
    """By value, not by count; rejected orders are no offers; a partial fill counts as filled."""
    fills = join(
        fill(1, 1, 6_000_000, 100_000_000, order=1, fee=5 * 10**8, maker=1),
        fill(2, -1, 30_000, 10_000, order=2, symbol=1, fee=-(10**7)),
        fill(3, -1, 30_000, 10_000, order=2, symbol=1, fee=-(10**7)),
    )
    assert kpis.turnover(fills, TABLE).value == 60_000 + 2 * 30_000
    assert kpis.fees(fills, TABLE).value == 4.8
    assert kpis.maker_share(fills, TABLE).value == 0.5
    assert kpis.maker_share(fills[:0], TABLE).value is None
    orders = join(*(order(0, n, 1, 10, 5.0) for n in (1, 2, 3, 4, 5)))
    orders["approved"][4] = 0
    reports = join(fills, answer(9, 3, ExecType.REJECT), answer(9, 4, ExecType.CANCELED))
    rate = kpis.fill_rate(orders, reports)
    assert rate.value == 2 / 3 and rate.sample == 3
    assert kpis.fill_rate(orders[:0], reports).value is None
    assert len(fills_of(reports)) == 3


def test_markout_by_hand() -> None:
    """20 buys at 1000 whose mid is 1001 a second later and 998 after ten: +10 and -20 bps; what cannot be seen does not count."""
    fills = join(*(fill(n * S // 100, 1, 1000, 100, order=n) for n in range(20)))
    marks = [Marks(np.array([0, S, 10 * S, 11 * S]), np.array([1000.0, 1001, 998, 998])), NO_MARKS]
    one, ten, minute = (kpis.markout_bps(fills, marks, TABLE, h) for h in (S, 10 * S, 60 * S))
    assert math.isclose(one.value or 0, 10.0) and one.sample == 20 and (one.error or 0) < 1e-9
    assert math.isclose(ten.value or 0, -20.0)
    assert minute.value is None and minute.note == "0 fills with a later mid, at least 20 wanted"
    fills["side"] = -1
    assert math.isclose(kpis.markout_bps(fills, marks, TABLE, S).value or 0, -10.0)


def test_markout_is_weighted_by_value() -> None:
    """One large fill outweighs nineteen small ones as its value does; the error is that of the weighted mean."""
    lots = [10**6] + [10**4] * 19
    ticks = [1000 + n for n in range(20)]
    fills = join(*(fill(0, 1, p, q, order=n) for n, (p, q) in enumerate(zip(ticks, lots, strict=True))))
    marks = [Marks(np.array([S]), np.array([1005.0]))]
    got = kpis.markout_bps(fills, marks, TABLE, S)
    outs = [Decimal(1005 - p) / p * 10_000 for p in ticks]
    weights = [Decimal(p * q) for p, q in zip(ticks, lots, strict=True)]
    mean = sum(o * w for o, w in zip(outs, weights, strict=True)) / sum(weights)
    assert math.isclose(got.value or 0, float(mean), rel_tol=1e-9)
    spread = sum((w * (o - mean)) ** 2 for o, w in zip(outs, weights, strict=True)) * 20 / 19
    assert math.isclose(got.error or 0, float(spread.sqrt() / sum(weights)), rel_tol=1e-9)


def test_implementation_shortfall_by_hand() -> None:
    """Perold's sum for a partly filled buy, a rejected sell and a filled order; quotes are left out."""
    orders = join(
        order(0, 1, Side.BUY, 1000, 30_000.0, symbol=1),
        order(0, 2, Side.SELL, 500, 30_010.0, symbol=1),
        order(0, 3, Side.BUY, 200, 30_000.0, symbol=1),
        order(0, 4, Side.BUY, 999, 30_000.0, symbol=1, purpose=Purpose.QUOTE),
        order(0, 5, Side.BUY, 10, 0.0, symbol=1),
    )
    reports = join(
        fill(2 * S, 1, 30_002, 600, order=1, symbol=1, fee=3 * 10**6),
        answer(5 * S, 1, ExecType.CANCELED),
        answer(3 * S, 2, ExecType.REJECT),
        fill(4 * S, 1, 29_999, 200, order=3, symbol=1, fee=10**6),
        fill(4 * S, 1, 20_000, 999, order=4, symbol=1, fee=10**9),
    )
    marks = [NO_MARKS, Marks(np.array([0, 3, 5, 9]) * S, np.array([30_000.0, 30_004, 30_020, 29_000]))]
    got = kpis.implementation_shortfall(orders, reports, marks, TABLE)
    tick, lot = Decimal("0.10"), Decimal("0.001")
    execution = (Decimal(2) * 600 - 1 * 200) * tick * lot
    opportunity = (Decimal(20) * 400 - (30_004 - 30_010) * 500) * tick * lot
    assert math.isclose(got.execution, float(execution)) and math.isclose(got.opportunity, float(opportunity))
    assert math.isclose(got.fees, 0.04) and (got.orders, got.skipped) == (3, 1)
    decided = (Decimal(30_000) * 1200 + Decimal(30_010) * 500) * tick * lot
    assert math.isclose(got.bps.value or 0, float((execution + opportunity + Decimal("0.04")) / decided * 10_000))
    assert math.isclose(got.total, float(execution + opportunity) + 0.04)
    nothing = kpis.implementation_shortfall(orders[:0], reports, marks, TABLE)
    assert nothing.total == 0.0 and nothing.bps.value is None


def test_decision_to_ack_takes_the_first_word() -> None:
    """The first report on an order counts, acknowledgement or not; orders without an answer do not."""
    orders = join(order(100, 1, 1, 5, 9.0), order(200, 2, 1, 5, 9.0), order(300, 3, 1, 5, 9.0))
    reports = join(answer(250, 2, ExecType.REJECT), answer(190, 1, ExecType.ACK), fill(400, 1, 9, 5, order=1))
    assert kpis.decision_to_ack_ns(orders, reports).tolist() == [50, 90]
    assert len(kpis.decision_to_ack_ns(orders[2:], reports)) == 0
    assert len(kpis.decision_to_ack_ns(orders, reports[:0])) == 0
