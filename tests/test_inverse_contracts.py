"""Inverse contracts: profit and fees in the coin, by hand and with fractions; sizes and limits by their fixed notional.

The hand's figures: 100 dollars a contract, quantities whole contracts, value in the coin = contracts * 100 / price.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_kpis_figures import fill, join, market, order

from procs.cli.observe import Account, Symbol
from procs.gateway.decimals import Scale
from sim.report.build import RunFacts, build_report, render_text
from trading.contracts import asset_of, contract_of, pair_of, quote_of
from trading.instruments import (
    Instrument,
    InstrumentError,
    Market,
    fee_e8,
    instrument_table,
    loss_e8,
    lot_value,
    notional_e8,
    quoted_e8,
    settled_e8,
)
from trading.results import kpis
from trading.results.marks import equity_at, mids
from trading.results.round_trips import match_fifo, settled_values_e8, values_e8
from trading.risk import positions, sizing

CONTRACTS = {"lot_size": "1", "step_size": "1", "min_qty": "1", "min_notional": "0", "max_qty": "1000000"}
BTC = Instrument("BTCUSD_PERP", Market.BINANCE_COINM, tick_size="0.1", **CONTRACTS)  # type: ignore[arg-type]
DOGE = Instrument("DOGEUSD_241227", Market.BINANCE_COINM, tick_size="0.00001", **CONTRACTS)  # type: ignore[arg-type]
PERP = Instrument("BTCUSDT", Market.BINANCE_USDM, tick_size="0.1", lot_size="0.001", step_size="0.001", min_qty="0.001")
SWAP = Instrument(
    "BTCUSDTSWAP", Market.OKX, tick_size="0.1", lot_size="0.01", step_size="0.01", min_qty="0.01", contract_size="0.01"
)
TABLE = instrument_table([BTC, DOGE, PERP, SWAP])
STATE = np.dtype([*positions.POSITION_FIELDS], align=True)
SIZES = {0: (Fraction(100), Fraction(1, 10)), 1: (Fraction(10), Fraction(1, 100_000))}
"""(contract size, tick size) of the inverse ones."""


def coins(s: int, ticks: int, lots: int) -> Fraction:
    """Exactly, in 1e-8 of the coin."""
    size, tick = SIZES[s]
    return lots * size * 10**8 / (ticks * tick)


def test_what_a_symbol_is_a_contract_on() -> None:
    """COIN-M's contracts are inverse, 100 dollars for BTC and 10 for the others; what is given wins; nothing else is inverse."""
    assert contract_of(Market.BINANCE_COINM, "BTCUSD_PERP") == ("inverse", "100")
    assert contract_of(Market.BINANCE_COINM, "ETHUSD_241227") == ("inverse", "10")
    assert contract_of(Market.BINANCE_COINM, "ETHUSD_241227", "", "5") == ("inverse", "5")
    assert contract_of(Market.BINANCE_COINM, "ETHUSD_241227", "linear") == ("linear", "1")
    assert contract_of(Market.BINANCE_USDM, "BTCUSDT_241227") == contract_of(Market.OKX, "X") == ("linear", "1")
    assert [pair_of(name) for name in ("BTCUSD_PERP", "BTCUSDT_241227", "BTCUSDT")] == ["BTCUSD", "BTCUSDT", "BTCUSDT"]
    assert (quote_of("BTCUSDT_241227"), quote_of("BTCUSD_PERP"), quote_of("XYZ")) == ("USDT", "USD", "")
    assert [asset_of(f"{coin}USD_PERP", True) for coin in ("BNB", "DOT", "BTC")] == ["BNB", "DOT", "BTC"]  # not BN in BUSD
    assert [quote_of(name) for name in ("BTCTUSD", "BTCBUSD", "BTCFDUSD", "DOTUSD", "BNBUSD_241227")] == [
        "TUSD", "BUSD", "FDUSD", "USD", "USD"]  # fmt: skip
    assert (asset_of("BTCUSD_PERP", True), asset_of("BTCUSDT_241227", False), asset_of("XBT", True)) == ("BTC", "USDT", "XBT")
    for wrong, said in (({"contract": "quanto"}, "quanto"), ({"contract_size": "0"}, "contract_size")):
        with pytest.raises(InstrumentError, match=said):
            instrument_table([Instrument("BTCUSD_PERP", Market.BINANCE_COINM, **wrong)])


def test_a_long_and_a_short_round_trip_by_hand() -> None:
    """Long: 300 contracts in at 50,000 in two fills, out at 62,500 in two: 300 * 100 * (1/50,000 - 1/62,500) = 0.12 BTC. Short:
    200 in at 62,500, out at 50,000: -200 * 100 * (1/62,500 - 1/50,000) = 0.08 BTC. Fees 0.05 % of each value in BTC."""
    state = np.zeros(len(TABLE), STATE)
    steps = (  # side, price, contracts, realised and cost behind it, in 1e-8
        (1, 50_000, 100, 0, 20_000_000), (1, 50_000, 200, 0, 60_000_000), (-1, 62_500, 150, 6_000_000, 30_000_000),
        (-1, 62_500, 150, 12_000_000, 0), (-1, 62_500, 200, 12_000_000, 32_000_000), (1, 50_000, 50, 14_000_000, 24_000_000),
        (1, 50_000, 150, 20_000_000, 0),
    )  # fmt: skip
    fees = 0
    for side, price, contracts, realised, cost in steps:
        worth = contracts * 100 * 10**8 // price
        fee = int(fee_e8(settled_e8(TABLE, 0, price * 10, contracts), 500))
        assert fee == worth * 5 // 10_000
        fees += fee
        positions.apply_fill(state, TABLE, fill(1, side, price * 10, contracts, fee=fee)[0])
        assert (state[0]["realised_e8"], state[0]["cost_e8"]) == (realised, cost), (side, price, contracts)
    p = state[0]
    assert fees == 5 * (60_000_000 + 48_000_000 + 32_000_000 + 40_000_000) // 10_000 == 90_000
    assert (p["position_lots"], p["cash_e8"], p["fees_e8"]) == (0, 20_000_000 - 90_000, 90_000)
    assert p["turnover_e8"] == 1000 * 100 * 10**8  # contracts * 100 dollars, at every price
    change = positions.mark(state, 0, TABLE, 600_000, 600_000)
    assert p["equity_e8"] == 19_910_000 and change == p["quoted_e8"] == 19_910_000 * 60_000
    assert positions.mark(state, 0, TABLE, 300_000, 300_000) == -19_910_000 * 30_000  # the coins are worth half


def test_open_positions_are_marked_in_the_coin() -> None:
    """100 contracts long from 50,000, marked at 40,000: 100 * 100 * (1/50,000 - 1/40,000) = -0.05 BTC, 2,000 dollars; a short one
    gains as much. The average entry is the price at which the coins were owed."""
    for side in (1, -1):
        state = np.zeros(len(TABLE), STATE)
        positions.apply_fill(state, TABLE, fill(1, side, 500_000, 100)[0])
        assert positions.average_entry_ticks(state, 0, TABLE) == 500_000.0
        change = positions.mark(state, 0, TABLE, 399_999, 400_001)
        assert (state[0]["unrealised_e8"], change) == (-side * 5_000_000, -side * 5_000_000 * 40_000)


FILLS = st.lists(st.tuples(st.sampled_from([-1, 1]), st.integers(10**4, 10**7), st.integers(1, 10**4)), min_size=1, max_size=25)


@settings(max_examples=200, deadline=None)
@given(FILLS, st.integers(0, 1), st.integers(10**4, 10**7))
def test_inverse_money_against_fractions(trades: list[tuple[int, int, int]], s: int, mid: int) -> None:
    """Each value is the exact fraction's nearest 1e-8; cash and equity are the exact ones to half of 1e-8 a fill; the arrays'
    values, the round trips with what is open, and the view's account tell the same."""
    state = np.zeros(len(TABLE), STATE)
    size, tick = SIZES[s]
    symbol = Symbol("X", float(tick), 1.0, 1, True, float(size), "X")
    account = Account()
    exact, position = Fraction(0), 0
    for side, ticks, lots in trades:
        value = int(settled_e8(TABLE, s, ticks, lots))
        assert value == int(coins(s, ticks, lots) + Fraction(1, 2))
        assert notional_e8(TABLE, s, ticks, lots) == lots * size * 10**8
        positions.apply_fill(state, TABLE, fill(1, side, ticks, lots, symbol=s)[0])
        account.fill(symbol, side, ticks, lots, 0.0)
        exact += side * coins(s, ticks, lots)
        position += side * lots
    p = state[s]
    assert abs(int(p["cash_e8"]) - exact) <= Fraction(len(trades), 2)
    direction = (position > 0) - (position < 0)
    assert int(p["realised_e8"]) + direction * int(p["cost_e8"]) == int(p["cash_e8"])
    positions.mark(state, s, TABLE, mid, mid)
    assert abs(int(p["equity_e8"]) - (exact - position * coins(s, mid, 1))) <= Fraction(len(trades) + 1, 2)
    assert int(p["equity_e8"]) == int(p["realised_e8"]) + int(p["unrealised_e8"])
    assert int(p["quoted_e8"]) == int(p["equity_e8"]) * mid * tick // 1
    fills = join(*(fill(n, side, t, lots, order=n, symbol=s) for n, (side, t, lots) in enumerate(trades)))
    args = (TABLE, fills["symbol"], fills["last_ticks"], fills["last_lots"])
    assert settled_values_e8(*args).tolist() == [int(settled_e8(TABLE, s, t, lots)) for _, t, lots in trades]
    assert values_e8(*args).tolist() == [int(notional_e8(TABLE, s, t, lots)) for _, t, lots in trades]
    trips, left = match_fifo(fills, TABLE)
    owed = -int((left["side"] * left["value_e8"]).sum()) if len(left) else 0
    assert int(trips["net_e8"].sum()) - owed == int(p["cash_e8"])
    told = account.realised + account.unrealised(symbol, float(mid))
    assert told * 1e8 == pytest.approx(int(p["equity_e8"]), rel=1e-6, abs=len(trades) + 1.0)
    marks = [mids(market([(10**6, mid, mid)], n), n) for n in range(len(TABLE))]
    (equity,) = equity_at(fills, marks, TABLE, 1000.0, np.array([2 * 10**6]))
    assert (equity - 1000.0) * 1e8 == pytest.approx(int(p["quoted_e8"]), rel=1e-6, abs=float(mid * tick) * 10 + 10.0)


def test_sizes_and_limits_go_by_the_notional() -> None:
    """Limits are in the quote currency: 1,050 dollars are 10 contracts of BTC and 105 of DOGE at any price. A stop 1 % away
    loses 1 % of the notional. The gateway computes the same notional."""
    assert [int(sizing.lots_worth(TABLE, s, ticks, 1050 * 10**8)) for s in (0, 1) for ticks in (1, 10**7)] == [10, 10, 105, 105]
    assert loss_e8(TABLE, 0, 500_000.0, 3.0, 5_000.0) == 3 * 10**8
    assert loss_e8(TABLE, 2, 500_000.0, 3.0, 5_000.0) == 3 * 0.001 * 500 * 10**8
    assert [lot_value(TABLE, s, 500_000.0) for s in range(4)] == [100.0, 10.0, 50.0, pytest.approx(5.0)]
    assert notional_e8(TABLE, 3, 500_000, 7) == 7 * 5 * 10**8 == settled_e8(TABLE, 3, 500_000, 7)  # 0.01 of 0.01 BTC a lot
    for s in range(4):
        assert Scale(TABLE[s]).notional_e8(500_000, 7) == notional_e8(TABLE, s, 500_000, 7)
    assert quoted_e8(TABLE, 2, -7, 1) == -7 and quoted_e8(TABLE, 0, -(10**8), 1_000_001) == -50_000_05 * 10**6


def test_key_figures_take_coins_at_their_price() -> None:
    """Turnover in dollars; a fee of 0.001 BTC at 50,500 is 50.5 dollars; the shortfall of 100 contracts bought 1 % above the
    decision is about 1 % of 10,000 dollars, in coins at the decision's price."""
    fills = join(fill(1, 1, 505_000, 100, order=1, fee=100_000), fill(2, -1, 500_000, 10, order=2, fee=0))
    assert kpis.turnover(fills, TABLE).value == 11_000.0
    assert kpis.fees(fills, TABLE).value == pytest.approx(50.5)
    orders = order(0, 1, 1, 100, 500_000.0)
    marks = [mids(market([(0, 500_000, 500_000)], n), n) for n in range(len(TABLE))]
    short = kpis.implementation_shortfall(orders, fills[:1], marks, TABLE)
    assert short.execution == pytest.approx(100 * 100 * (1 - 500_000 / 505_000))
    assert short.fees == pytest.approx(50.5) and short.bps.value == pytest.approx((99.00990099 + 50.5) / 10_000 * 1e4)


def test_the_report_says_what_is_in_which_coin() -> None:
    """The symbols' money is in BTC and USDT, per asset nothing is added to another; the run's sums take coins at the last mark
    and say so; the equity curve ends where they do."""
    fills = join(
        fill(10, 1, 500_000, 300, order=1, fee=30_000), fill(20, -1, 625_000, 200, order=2, fee=16_000),
        fill(30, 1, 500_000, 1_000, order=3, symbol=2, fee=2 * 10**8),
    )  # fmt: skip
    books = join(market([(5, 500_000, 500_000), (40, 600_000, 600_000)]), market([(41, 510_000, 510_000)], 2))
    facts = RunFacts(title="T", profile="p", sources=(), messages=0, wall_s=1.0, start_equity=100_000.0, exchange=None)
    none = np.zeros(0, order(0, 1, 1, 1, 1.0).dtype)
    report = build_report(facts, instruments=TABLE, market=books, orders=none, reports=fills, refusals=none)
    coin, linear = report.money.symbols
    assert (coin.asset, coin.inverse, coin.position, coin.turnover) == ("BTC", True, 100.0, 50_000.0)
    assert coin.realised == pytest.approx(200 * 100 * (1 / 50_000 - 1 / 62_500))
    assert coin.unrealised == pytest.approx(100 * 100 * (1 / 50_000 - 1 / 60_000), abs=1e-8)
    assert coin.fees == 0.00046 and coin.entry_price == pytest.approx(50_000.0)
    assert (linear.asset, linear.inverse, linear.fees, linear.net) == ("USDT", False, 2.0, pytest.approx(998.0))
    by_asset = {part.asset: part for part in report.money.settled}
    assert by_asset["BTC"].net == coin.net and by_asset["USDT"].net == linear.net
    assert by_asset["BTC"].quoted == pytest.approx(coin.net * 60_000)
    assert report.money.net == pytest.approx(coin.net * 60_000 + linear.net)
    assert report.money.end_equity == pytest.approx(100_000.0 + report.money.net, abs=0.01)
    text = render_text(report)
    assert f"net {coin.net:+.8f} BTC" in text and "converted at the last mark" in " ".join(text.split())
    assert all(len(line) <= 100 for line in text.split("\n"))
