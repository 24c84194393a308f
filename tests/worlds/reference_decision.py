"""Independent batch computation of strengths, the ensemble's decision and the feature vector, for one symbol."""

from __future__ import annotations

import numpy as np
from reference_bars import Bars
from reference_events import Array, Events
from reference_time import Slots, half_lives

from trading.records import LEVELS
from trading.scoring.ensemble import Gate
from trading.settings import Strategy

STANDING = {"book_imbalance", "micro_trend", "ema_cross", "order_flow"}
ORDER = (
    "book_imbalance", "micro_trend", "ema_cross", "spread", "acceleration", "volume_spike", "order_flow", "book_squeeze",
    "rsi_divergence", "momentum_decay", "volume_price_divergence", "patterns", "multi_timeframe",
)  # fmt: skip


class Reference:
    """Everything that the kernels should have said of one symbol's records."""

    def __init__(self, recs: Array, strategy: Strategy) -> None:
        self.strategy, self.f = strategy, strategy.features
        e = self.e = Events(recs, self.f)
        b = self.b = Bars(e)
        t = self.t = Slots(e, b)
        f = self.f
        level = e.imbalance
        flow_ready = e.spread_warm & (e.seconds_seen >= f.flow_window_s)
        self.ofi_share = np.where(flow_ready, e.ofi[:, 0] / np.where(e.depth_mean > 0, e.depth_mean, 1), 0.0)
        table = {
            "book_imbalance": (
                e.imbalance_count >= f.imbalance_half_life,
                np.where(np.abs(level) >= f.imbalance_threshold, level, 0),
            ),
            "micro_trend": (e.micro_trend_ready, e.micro_trend),
            "ema_cross": (b.ema_ready, b.ema_cross),
            "spread": (e.spread_warm & (e.imbalance_count > 0), e.spread_strength),
            "acceleration": (e.acceleration_warm, e.acceleration_strength),
            "volume_spike": (t.volume_warm, t.volume_spike),
            "order_flow": (flow_ready, (np.clip(self.ofi_share, -1, 1) + e.aggressors) / 2),
            "book_squeeze": (b.bar_squeeze_ready > 0, b.bar_squeeze),
            "rsi_divergence": (b.bar_rsi_ready > 0, b.rsi_strength),
            "momentum_decay": (t.momentum_warm, t.momentum),
            "volume_price_divergence": (e.divergence_ready, e.divergence),
            "patterns": (b.window_bars > f.pattern_bars, b.bar_patterns),
            "multi_timeframe": (t.trend_ready, t.trend),
        }
        self.ready = np.column_stack([table[k][0] for k in ORDER]) & e.usable[:, None]
        self.strengths = np.where(self.ready, np.column_stack([table[k][1] for k in ORDER]), 0.0)
        self._combine()
        self._gates()

    def _combine(self) -> None:
        e = self.e
        weights = np.array([getattr(self.strategy.weights, k) for k in ORDER])
        standing = np.array([k in STANDING for k in ORDER])
        self.score, self.confidence = np.full(e.n, 50.0), np.zeros(e.n)
        self.reason, self.active = np.zeros(e.n, int), np.zeros((e.n, len(ORDER)), bool)
        for i in np.flatnonzero(e.usable):
            votes = weights * self.strengths[i]
            confirm = votes[3]
            votes[3] = 0.0
            self.active[i] = votes != 0
            up, down = votes[votes > 0].sum(), -votes[votes < 0].sum()
            if np.isclose(up, down, rtol=1e-13, atol=0):
                continue
            side = 1.0 if up > down else -1.0
            counted = np.where(standing, weights * self.ready[i], np.abs(votes))
            total = counted.sum() + abs(confirm)
            self.active[i, 3] = confirm != 0
            net = max(0.0, abs(up - down) + confirm)
            support = counted[votes * side > 0].sum() + max(0.0, confirm)
            self.score[i] = 50 + 50 * side * net / total
            self.confidence[i] = net / (np.abs(votes).sum() + abs(confirm)) * support / total
            votes[3] = confirm * side
            self.reason[i] = 1 + np.argmax(votes * side)

    def _gates(self) -> None:
        e, b, t, s = self.e, self.b, self.t, self.strategy
        required = [k for k, name in enumerate(ORDER) if (name in STANDING or name == "spread") and getattr(s.weights, name) > 0]
        warm = t.score_warm & ~np.isnan(b.atr) & b.volatility_warm & self.ready[:, required].all(1)
        pct = 100 * b.volatility * np.sqrt(60)
        self.urgency = 100 * (0.6 * np.abs(self.score - 50) / 50 + 0.2 * self.confidence + 0.2 * pct / (pct + 0.1))
        factors = np.array([1.0, s.thresholds.calm_factor, 1.0, s.thresholds.turbulent_factor, s.thresholds.trending_factor])
        factor = factors[t.regime]
        long = np.minimum(100, 50 + factor * (s.thresholds.long - 50))
        short = np.maximum(0, 50 - factor * (50 - s.thresholds.short))
        self.long, self.short = long, short
        side = np.where(self.score >= long, 1, np.where(self.score <= short, -1, 0))
        plain = (self.score >= s.thresholds.long) | (self.score <= s.thresholds.short)
        held_back = [
            (~e.usable, Gate.BOOK),
            (~warm, Gate.WARM),
            (e.ts - e.book_ts > 5e9, Gate.BOOK),
            (e.spread_bps > s.gates.max_spread_bps, Gate.SPREAD),
            (pct < s.gates.volatility_min_pct, Gate.VOLATILITY),
            (t.score < s.gates.microstructure_min_score, Gate.MICROSTRUCTURE),
            (self.strengths[:, 3] < 0, Gate.SPREAD_VETO),
            ((side != 0) & (self.confidence < s.gates.min_confidence), Gate.CONFIDENCE),
            ((side == 0) & plain, Gate.THRESHOLD),
        ]
        self.gate = np.select([h[0] for h in held_back], [int(h[1]) for h in held_back], 0)
        self.side = np.where(self.gate == 0, side, 0)

    def features(self) -> dict[str, tuple[Array, Array]]:
        """Name of each feature: (value, whether it is warm); usable records only."""
        e, b, t, f = self.e, self.b, self.t, self.f
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._features(e, b, t, f)

    def _features(self, e: Events, b: Bars, t: Slots, f: object) -> dict[str, tuple[Array, Array]]:
        f = self.f
        always, book = np.ones(e.n, bool), e.book
        bid, ask = book["bid_ticks"].astype(float), book["ask_ticks"].astype(float)
        bids, asks = book["bid_lots"].astype(float), book["ask_lots"].astype(float)
        mid = (bid[:, 0] + ask[:, 0]) / 2
        share = bids[:, 0] / (bids[:, 0] + asks[:, 0])
        gap = share * (ask[:, 0] - mid) + (1 - share) * (bid[:, 0] - mid)
        # weights relative to the nearest level, or all would underflow in a wide book
        near = np.minimum(mid - bid[:, 0], ask[:, 0] - mid)[:, None]
        weigh = (np.exp(-f.pressure_decay * (np.abs(p - mid[:, None]) - near)) for p in (bid, ask))
        b_weight, a_weight = ((w * q).sum(1) for w, q in zip(weigh, (bids, asks)))
        warm, flow = e.spread_warm, e.spread_warm & (e.seconds_seen >= f.flow_window_s)

        def within(bps: float) -> Array:
            room = mid[:, None] * bps / 1e4
            return ((bids * (mid[:, None] - bid <= room)).sum(1) + (asks * (ask - mid[:, None] <= room)).sum(1)) / e.depth_mean

        far_bid = np.where(bids > 0, mid[:, None] - bid, 0).max(1)
        far_ask = np.where(asks > 0, ask - mid[:, None], 0).max(1)
        slope = (bids.sum(1) / far_bid + asks.sum(1) / far_ask) / 2 * mid / 1e4 / e.depth_mean
        away = mid - t.control
        up, down = t.value_high - t.control, t.control - t.value_low
        value = np.where(away >= 0, np.where(up > 0, away / up, 1.0), np.where(down > 0, away / down, -1.0)).clip(-1, 1)
        impact = np.vstack([np.zeros(16), e.impact])[e.impact_count]
        impacts = e.impact_count >= np.ceil(f.impact_half_life_trades)
        bands, regime = b.window_bars >= f.squeeze_bars, t.regime > 0
        out = {
            "spread_bps": (e.spread_bps, always),
            "spread_ratio": (e.spread_ratio, warm),
            "top_imbalance": ((bids[:, 0] - asks[:, 0]) / (bids[:, 0] + asks[:, 0]), always),
            "book_imbalance": (e.imbalance, e.imbalance_count >= f.imbalance_half_life),
            "pressure": ((b_weight - a_weight) / (b_weight + a_weight), always),
            "weighted_mid_gap": (gap, always),
            "microprice_gap": (gap, always),
            **{f"ofi_{k + 1}": (e.ofi[:, k] / e.depth_mean, flow) for k in range(LEVELS)},
            "aggressor_imbalance": (e.aggressors, e.seconds_seen >= f.flow_window_s),
            "recent_imbalance": (e.recent, e.window_prints >= 20),
            "volume_ratio": (t.volume_ratio, t.volume_warm),
            "vpin": (e.vpin, e.buckets >= f.vpin_buckets),
            "kyle_lambda": (t.kyle, t.valid_count >= f.kyle_window_s),
            "impact_first": (impact[:, 0], impacts),
            "impact_last": (impact[:, 15], impacts),
            "impact_half_life": (np.where(t.impact_end_warm, half_lives(t.impact_phi), 0.0), impacts),
            "depth_5bps": (within(5), warm),
            "depth_10bps": (within(10), warm),
            "depth_25bps": (within(25), warm),
            "depth_slope": (slope, warm),
            "resilience_s": (e.resilience, e.refills >= 5),
            "control_gap_bps": (1e4 * away / mid, e.prints >= 64),
            "value_score": (value, e.prints >= 64),
            "value_width_bps": (1e4 * (t.value_high - t.value_low) / mid, e.prints >= 64),
            "micro_momentum_bps": (e.momentum, e.window_prints >= f.micro_trend_trades),
            "trade_run": (e.run, e.price_changes >= 3),
            "velocity_bps": (1e4 * e.velocity / mid, e.velocity_ok),
            "acceleration": (e.acceleration, e.acceleration_warm),
            "ema_gap": (b.ema_gap, b.ema_ready),
            "rsi": (b.bar_rsi, b.bar_rsi_count >= f.rsi_bars),
            "band_z": (b.bar_z, bands),
            "band_width_bps": (1e4 * b.bar_width, bands),
            "band_rank": (b.bar_rank, bands),
            "atr_bps": (1e4 * b.atr / mid, ~np.isnan(b.atr)),
            "volatility_bps": (1e4 * b.volatility, b.volatility_warm),
            "realised_bps": (1e4 * t.realised, t.valid_count >= 60),
            "garch_bps": (1e4 * np.sqrt(b.garch), b.volatility_warm),
            "volatility_rank": (t.vol_rank, regime),
            "variance_ratio": (t.variance_ratio, regime),
            "momentum_phi": (t.phi, t.phi_warm),
            "momentum_half_life": (t.phi_half_life, t.phi_warm),
            "momentum_lag1": (t.lag1, t.phi_warm),
            "lee_ready_agreement": (e.agreement, e.quoted >= 64),
            "trend_agreement": (t.trend, t.trend_ready),
            "microstructure_score": (t.score, t.score_warm),
            "regime": (t.regime.astype(float), regime),
        }
        return {k: (v, w & e.usable) for k, (v, w) in out.items()}
