"""The features kernel against an independent batch computation in plain numpy, and against published oracles."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from features_markets import T0, drive_features, random_walk, read_recording, table

from trading import features
from trading.ensemble import Gate
from trading.jit import Recs
from trading.records import LEVELS, MARKET_RECORD, MAX_SIGNALS, SIGNAL_RECORD, Flag, Kind
from trading.settings import Features, Gates, Strategy

Array = npt.NDArray[np.float64]

WALK = Strategy(
    features=Features(bar_ms=200, ema_fast=3, ema_slow=8, atr_bars=5, spread_half_life=60.0, volatility_lambda=0.9),
    gates=Gates(volatility_min_pct=0.03, microstructure_min_score=55.0),
)


def run(recs: Recs, strategy: Strategy, symbols: int = 1) -> tuple[Recs, Array]:
    """Signal records and full-precision strengths of the kernel."""
    instruments = table(symbols)
    params = features.make_params(strategy, instruments)
    state, glob = np.zeros(symbols, features.FEATURE_STATE), np.zeros(1, features.FEATURE_GLOBAL)
    features.init(state, glob, params, instruments)
    out, strengths = np.zeros(len(recs), SIGNAL_RECORD), np.zeros((len(recs), MAX_SIGNALS))
    drive_features(recs, features.on_market, (state, glob, params, instruments), out, strengths, 0, len(recs))
    return out, strengths


def weighted_means(x: Array, half_life: float) -> Array:
    """Mean of x[:i+1] for every i, each value weighted by 0.5 ** (age / half_life): the definition, term by term."""
    weights = 0.5 ** (np.arange(len(x)) / half_life)
    return np.array([np.dot(weights[i::-1], x[: i + 1]) / weights[: i + 1].sum() for i in range(len(x))])


def ema_of(x: Array, span: int, alpha: float) -> Array:
    """Exponential average seeded with the mean of the first `span` values; NaN before."""
    out = np.full(len(x), np.nan)
    if len(x) >= span:
        out[span - 1] = np.mean(x[:span])
        for i in range(span, len(x)):
            out[i] = out[i - 1] + alpha * (x[i] - out[i - 1])
    return out


class Batch:
    """Everything that the kernel should have said of one symbol's records, computed at once from all of them."""

    def __init__(self, recs: Recs, strategy: Strategy) -> None:
        self.recs, self.strategy, self.f = recs, strategy, strategy.features
        n = len(recs)
        self.usable = ((recs["flags"] & Flag.BOOK_VALID) != 0) & (recs["kind"] != Kind.STALE)
        self.trade = recs["kind"] == Kind.TRADE
        bid, ask = recs["bid_ticks"][:, 0], recs["ask_ticks"][:, 0]
        self.mid = (bid + ask) / 2
        self.spread_bps = 1e4 * (ask - bid) / self.mid
        # stretches of usable records: number of the stretch of each record
        starts = self.usable & ~np.concatenate(([False], self.usable[:-1]))
        self.stretch = np.cumsum(starts)
        self.starts = starts
        self._books()
        self._trades(n)
        self._bars(n)
        self._decide(n)

    def _books(self) -> None:
        recs, f = self.recs, self.f
        change = np.flatnonzero(self.usable & ~self.trade)
        self.changes = np.cumsum(self.usable & ~self.trade)
        bids = recs["bid_lots"][:, : f.imbalance_levels].sum(1)
        asks = recs["ask_lots"][:, : f.imbalance_levels].sum(1)
        self.depth = (bids + asks).astype(float)
        averages = [np.append(np.nan, weighted_means(x[change], f.spread_half_life)) for x in (self.spread_bps, self.depth)]
        self.spread_mean, self.depth_mean = (a[self.changes] for a in averages)
        imbalance = (bids - asks) / np.maximum(1, bids + asks)
        self.imbalance_mean = np.full(len(recs), np.nan)
        self.imbalance_count = np.zeros(len(recs), int)
        self.book_ts = np.zeros(len(recs), np.int64)
        for number in range(1, self.stretch.max() + 1):
            rows = np.flatnonzero((self.stretch == number) & self.usable)
            own = ~self.trade[rows]
            mean = np.append(np.nan, weighted_means(imbalance[rows][own], f.imbalance_half_life))
            self.imbalance_count[rows] = np.cumsum(own)
            self.imbalance_mean[rows] = mean[np.cumsum(own)]
            stamps = np.where(own | (np.arange(len(rows)) == 0), recs["ts_ns"][rows], 0)
            self.book_ts[rows] = np.maximum.accumulate(stamps)

    def _trades(self, n: int) -> None:
        recs, f = self.recs, self.f
        rows = np.flatnonzero(self.trade)
        prices, lots = recs["price_ticks"][rows].astype(float), recs["qty_lots"][rows].astype(float)
        signs = np.where(recs["flags"][rows] & Flag.AGGRESSOR_SELL, -1.0, 1.0)
        self.prints = np.cumsum(self.trade)
        strength, ready = np.zeros(len(rows) + 1), np.zeros(len(rows) + 1, bool)
        moves = np.sign(np.diff(prices))
        for count in range(1, len(rows) + 1):
            last_moves = moves[: count - 1][moves[: count - 1] != 0][-3:]
            if count < f.micro_trend_trades or len(last_moves) < 3:
                continue
            ready[count] = True
            p, q = prices[count - f.micro_trend_trades : count], lots[count - f.micro_trend_trades : count]
            above = p - p[-1]
            momentum = -(above * q).sum() / q.sum() / (p[-1] + (above * q).sum() / q.sum())
            if abs(last_moves.sum()) == 3 and last_moves[0] * momentum > 0:
                strength[count] = np.clip(1e4 * momentum / f.micro_trend_scale_bps, -1, 1)
        self.micro_trend, self.micro_trend_ready = strength[self.prints], ready[self.prints]
        weights = 0.5 ** (np.arange(len(rows)) / 20.0)
        flow = [np.dot(weights[i::-1], (signs * lots)[: i + 1]) / np.dot(weights[i::-1], lots[: i + 1]) for i in range(len(rows))]
        self.flow = np.append(0.0, flow)[self.prints]

    def _bars(self, n: int) -> None:
        recs, f = self.recs, self.f
        bar_ns = f.bar_ms * 1_000_000
        closes: list[float] = []
        ranges: list[float] = []
        returns: list[float] = []
        known = np.zeros(n, int)  # how many closed bars each record knows
        known_ranges, known_returns = np.zeros(n, int), np.zeros(n, int)
        for number in range(1, self.stretch.max() + 1):
            rows = np.flatnonzero((self.stretch == number) & self.usable)
            index = recs["ts_ns"][rows] // bar_ns
            before, old = None, len(closes)
            old_returns = len(returns)
            at = 0
            for bar in range(index[0], index[-1]):  # the last bar of a stretch never closes
                own = self.mid[rows[index == bar]]
                high, low, close = (own.max(), own.min(), own[-1]) if len(own) else (closes[-1],) * 3
                if before is not None:
                    ranges.append(max(high - low, abs(high - before), abs(low - before)))
                    returns.append(np.log(close / before))
                elif not len(own):
                    raise AssertionError("a stretch starts with a record")
                closes.append(close)
                before = close
                at += 1
            passed = index - index[0]
            known[rows] = old + passed
            # the first bar of a stretch has no predecessor
            known_returns[rows] = old_returns + np.maximum(0, passed - 1)
        known_ranges = known_returns
        x, tr = np.array(closes) - closes[0], np.array(ranges)
        self.fast = np.append(np.nan, ema_of(x, f.ema_fast, 2 / (f.ema_fast + 1)))[known]
        self.slow = np.append(np.nan, ema_of(x, f.ema_slow, 2 / (f.ema_slow + 1)))[known]
        self.atr = np.append(np.nan, ema_of(tr, f.atr_bars, 1 / f.atr_bars))[known_ranges]
        half_life = np.log(0.5) / np.log(f.volatility_lambda)
        per_second = np.sqrt(weighted_means(np.array(returns) ** 2, half_life) / (f.bar_ms / 1000)) if returns else np.zeros(0)
        warm = int(np.ceil(round(1 / (1 - f.volatility_lambda), 6)))
        per_second[: warm - 1] = 0.0
        self.volatility = np.append(0.0, per_second)[known_returns]
        self.volatility_ready = known_returns >= warm

    def _decide(self, n: int) -> None:
        f, gates, w = self.f, self.strategy.gates, self.strategy.weights
        level = np.nan_to_num(self.imbalance_mean)
        ratio = self.spread_bps / self.spread_mean
        with np.errstate(invalid="ignore"):
            cross = np.nan_to_num(np.where(self.atr >= 0.01, np.clip((self.fast - self.slow) / self.atr, -1, 1), 0.0))
        squeeze = np.where(ratio < f.spread_compression, 1 - ratio / f.spread_compression, 0.0)
        squeeze = np.where(ratio > f.spread_expansion, -np.minimum(1, ratio / f.spread_expansion - 1), squeeze)
        self.ready = np.column_stack(
            [
                self.imbalance_count >= f.imbalance_half_life,
                self.micro_trend_ready,
                ~np.isnan(self.slow) & ~np.isnan(self.atr),
                self.changes >= f.spread_half_life,
            ]
        )
        raw = np.column_stack([np.where(np.abs(level) >= f.imbalance_threshold, level, 0.0), self.micro_trend, cross, squeeze])
        self.strengths = np.where(self.ready & self.usable[:, None], np.nan_to_num(raw), 0.0)
        weights = np.array([w.book_imbalance, w.micro_trend, w.ema_cross])
        self.score, self.confidence = np.full(n, 50.0), np.zeros(n)
        self.reason = np.zeros(n, int)  # 1 + the signal that votes most for the side
        for i in np.flatnonzero(self.usable):
            votes = weights * self.strengths[i, :3]
            side = np.sign(votes.sum())
            if side == 0:
                continue
            confirm = w.spread * self.strengths[i, 3]
            self.reason[i] = 1 + np.argmax(np.append(votes * side, confirm))
            total = weights[self.ready[i, :3]].sum() + abs(confirm)
            net = max(0.0, abs(votes.sum()) + confirm)
            self.score[i] = 50 + 50 * side * net / total
            support = (weights[votes * side > 0].sum() + max(0.0, confirm)) / total
            self.confidence[i] = net / (np.abs(votes).sum() + abs(confirm)) * support
        product = self.flow * level
        with np.errstate(invalid="ignore"):
            liquidity = (
                self.spread_mean / (self.spread_mean + self.spread_bps) + self.depth / (self.depth + self.depth_mean)
            ) / 2
        self.microstructure = 50 * liquidity + 25 * (1 + np.sign(product) * np.sqrt(np.abs(product)))
        measured = self.ready[:, 0] & self.ready[:, 3] & (self.prints >= 20)
        warm = measured & self.ready.all(1) & self.volatility_ready & ~np.isnan(self.atr)
        fresh = self.recs["ts_ns"] - self.book_ts <= 5e9
        pct = 100 * self.volatility * np.sqrt(60)
        moving = pct / (pct + 0.1)
        self.urgency = 100 * (0.6 * np.abs(self.score - 50) / 50 + 0.2 * self.confidence + 0.2 * moving)
        side = np.where(self.score >= 70, 1, np.where(self.score <= 30, -1, 0))
        held = [
            (~self.usable, Gate.BOOK),
            (~warm, Gate.WARM),
            (~fresh, Gate.BOOK),
            (self.spread_bps > gates.max_spread_bps, Gate.SPREAD),
            (pct < gates.volatility_min_pct, Gate.VOLATILITY),
            (self.microstructure < gates.microstructure_min_score, Gate.MICROSTRUCTURE),
            (ratio > f.spread_expansion, Gate.SPREAD_VETO),
            ((side != 0) & (self.confidence < 0.5), Gate.CONFIDENCE),
        ]
        self.gate = np.select([h[0] for h in held], [int(h[1]) for h in held], 0)
        self.side = np.where(self.gate == 0, side, 0)


def compare(recs: Recs, out: Recs, strengths: Array, strategy: Strategy) -> Batch:
    """Every field of every record of one symbol, to 1e-9."""
    want = Batch(recs, strategy)
    u = want.usable

    def close(name: str, got: Array, expected: Array) -> None:
        np.testing.assert_allclose(got, np.where(u, expected, 0.0), rtol=1e-9, atol=1e-9, err_msg=name)

    np.testing.assert_allclose(strengths[:, :4], want.strengths, rtol=1e-9, atol=1e-9)
    assert not strengths[:, 4:].any()
    np.testing.assert_array_equal(out["strength"], strengths.astype(np.float32))
    np.testing.assert_array_equal(out["ready_mask"], np.where(u, want.ready @ (1 << np.arange(4)), 0))
    active = want.ready & (want.strengths != 0)
    active[:, 3] &= want.score != 50.0  # a confirming signal needs a side to speak of
    ambiguous = (want.score == 50.0) & (want.strengths[:, 3] != 0)
    np.testing.assert_array_equal(out["active_mask"][~ambiguous], (active @ (1 << np.arange(4)))[~ambiguous])
    close("volatility", out["volatility"], want.volatility)
    close("atr", out["atr_ticks"], np.nan_to_num(want.atr))
    close("mid", out["mid"], want.mid)
    close("spread_bps", out["spread_bps"], want.spread_bps)
    np.testing.assert_allclose(out["score"], np.where(u, want.score, 50.0), rtol=1e-9)
    close("confidence", out["confidence"], want.confidence)
    close("urgency", out["urgency"], want.urgency)
    np.testing.assert_array_equal(out["gate"], want.gate)
    np.testing.assert_array_equal(out["side"], want.side)
    np.testing.assert_array_equal(out["reason"], want.reason)
    np.testing.assert_array_equal(out["flags"], np.where(u, int(Flag.BOOK_VALID), 0))
    for name in ("bid", "ask"):
        for unit in ("ticks", "lots"):
            np.testing.assert_array_equal(out[f"{name}_{unit}"], np.where(u, recs[f"{name}_{unit}"][:, 0], 0))
    np.testing.assert_array_equal(out["ts_ns"], recs["ts_ns"])
    assert (out["kind"] == Kind.SIGNAL).all() and not out["regime"].any()
    return want


@pytest.mark.parametrize("seed", range(4))
def test_a_random_walk_with_stale_books_and_silences(seed: int) -> None:
    """On a random market with stale books and silences every output equals the batch computation."""
    recs = random_walk(seed, 3000, stale_every=700, gap_every=500)
    out, strengths = run(recs, WALK)
    want = compare(recs, out, strengths, WALK)
    assert (want.strengths[want.usable] != 0).any(0).all(), "each signal spoke"
    assert {Gate.NONE, Gate.WARM, Gate.BOOK} <= {Gate(g) for g in want.gate}


def test_symbols_do_not_touch_each_other() -> None:
    """Three interleaved symbols give each what it gets alone."""
    recs = random_walk(11, 4500, symbols=3, stale_every=900)
    out, strengths = run(recs, WALK, symbols=3)
    for symbol in range(3):
        own = recs["symbol"] == symbol
        compare(recs[own], out[own], strengths[own], WALK)
        assert (out["symbol"][own] == symbol).all()


@pytest.mark.parametrize("weights", [(1.0, 0.0, 2.0, 0.0), (0.0, 3.0, 0.5, 2.0)])
def test_other_settings(weights: tuple[float, ...]) -> None:
    """The batch computation agrees under other weights, windows and levels too (a weight of 0 leaves a signal out)."""
    from trading.settings import Weights

    w = Weights(book_imbalance=weights[0], micro_trend=weights[1], ema_cross=weights[2], spread=weights[3])
    f = Features(
        bar_ms=500, imbalance_levels=2, imbalance_threshold=0.1, micro_trend_trades=4, ema_fast=2, ema_slow=4, atr_bars=3
    )
    strategy = Strategy(features=f, weights=w)
    recs = random_walk(5, 2500)
    out, strengths = run(recs, strategy)
    want = Batch(recs, strategy)
    np.testing.assert_allclose(strengths[:, :4], want.strengths, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(out["volatility"], want.volatility, rtol=1e-9)
    zero = sum(1 << k for k, weight in enumerate(weights) if weight == 0)
    assert not (out["active_mask"] & zero).any()


@pytest.mark.recordings
def test_the_recorded_market(recordings: Path) -> None:
    """On recorded Binance frames every output equals the batch computation, and all gates pass some of the time."""
    path = recordings / "hftbacktest_binance" / "spot_btcusdt_20240808.gz"
    if not path.is_file():
        pytest.skip(f"no recording {path}")
    recs = read_recording(path, 12_000)
    strategy = Strategy()
    out, strengths = run(recs, strategy)
    want = compare(recs, out, strengths, strategy)
    assert (out["gate"] != Gate.WARM).mean() > 0.5
    assert (out["gate"] == Gate.NONE).any() and (out["side"] != 0).any()
    assert (want.strengths[:, :3] != 0).any(0).all()


@pytest.mark.recordings
def test_averages_of_bars_equal_published_ones(recordings: Path) -> None:
    """EMA(20) and Wilder ATR(14) equal the figures of Skender's Stock.Indicators for its 502 standard bars."""
    folder = recordings / "oracles" / "skender"
    if not folder.is_dir():
        pytest.skip(f"no oracles in {folder}")
    with (folder / "default.csv").open() as rows:
        quotes = [[round(float(row[c]) * 100) for c in ("open", "high", "low", "close")] for row in csv.DictReader(rows)]
    ema = [row["ema"] for row in json.loads((folder / "ema.standard.json").read_text())]
    atr = [row["atr"] for row in json.loads((folder / "atr.standard.json").read_text())]
    recs = np.zeros(4 * len(quotes) + 1, MARKET_RECORD)
    flat = [price for quote in quotes for price in quote] + [quotes[-1][3]]
    for i, price in enumerate(flat):
        recs[i]["ts_ns"] = T0 // 10**9 * 10**9 + i * 250_000_000
        recs[i]["kind"], recs[i]["flags"] = Kind.BBO, Flag.BOOK_VALID
        recs[i]["bid_ticks"][0], recs[i]["ask_ticks"][0] = price - 1, price + 1
        recs[i]["bid_lots"][:LEVELS] = recs[i]["ask_lots"][:LEVELS] = 10
    instruments = table()
    strategy = Strategy(features=Features(ema_fast=5, ema_slow=20, atr_bars=14))
    params = features.make_params(strategy, instruments)
    state, glob = np.zeros(1, features.FEATURE_STATE), np.zeros(1, features.FEATURE_GLOBAL)
    features.init(state, glob, params, instruments)
    out = np.zeros(1, SIGNAL_RECORD)
    checked = 0
    for i in range(len(recs)):
        features.on_market(recs, i, state, glob, params, instruments, out, 0)
        if i and i % 4 == 0:  # the bar before this record has just closed
            bar = i // 4 - 1
            assert state["closed_bars"][0] == bar + 1
            if ema[bar] is not None:
                assert (state["last_close"][0] + state["slow_offset"][0]) / 100 == pytest.approx(ema[bar], rel=1e-9)
                checked += 1
            if atr[bar] is not None:
                assert out["atr_ticks"][0] / 100 == pytest.approx(atr[bar], rel=1e-9)
                checked += 1
            else:
                assert out["atr_ticks"][0] == 0.0
    assert checked > 900


def test_a_record_of_a_foreign_symbol_is_not_answered() -> None:
    """A symbol outside the table changes nothing and gives no record."""
    instruments = table()
    params = features.make_params(Strategy(), instruments)
    state, glob = np.zeros(1, features.FEATURE_STATE), np.zeros(1, features.FEATURE_GLOBAL)
    features.init(state, glob, params, instruments)
    before, out = state.tobytes(), np.zeros(1, SIGNAL_RECORD)
    recs = random_walk(1, 1)
    for symbol in (-1, 1, 2**31 - 1):
        recs["symbol"] = symbol
        assert features.on_market(recs, 0, state, glob, params, instruments, out, 0) == 0
    assert state.tobytes() == before and not out.view("u1").any()
