"""Independent batch computation of what passes with time, for one symbol: every slot and every second listed, empty ones too."""

from __future__ import annotations

import numpy as np
from reference_bars import Bars, ema_of
from reference_events import Array, Events, decayed_sums, held, weighted_means


def half_lives(phi: Array) -> Array:
    """Steps in which phi**n halves, 0 for phi <= 0, at most 10000."""
    with np.errstate(invalid="ignore", divide="ignore"):
        steps = np.log(0.5) / np.log(np.clip(phi, 1e-300, 1 - 1e-16))
    return np.where(phi <= 0, 0.0, np.where(phi >= 1, 1e4, np.minimum(1e4, steps)))


def fitted_ratio(x: Array) -> Array:
    """Least-squares phi of x[i + 1] = phi x[i] along the last axis."""
    square = (x[..., :-1] ** 2).sum(-1)
    return np.where(square > 0, (x[..., :-1] * x[..., 1:]).sum(-1) / np.where(square > 0, square, 1), 0.0)


class Ranks:
    """Decayed histogram of 32 bins; `ranks[k]` is a function of a value after k samples."""

    def __init__(self, samples: Array, half_life: float) -> None:
        bins = np.minimum(31, (samples * 32).astype(int))
        now = np.zeros(32)
        self.history = np.zeros((len(samples) + 1, 32))
        for k, b in enumerate(bins):
            now = now * 0.5 ** (1 / half_life)
            now[b] += 1.0
            self.history[k + 1] = now

    def at(self, counts: Array, values: Array) -> Array:
        """Mid-rank of values[i] after counts[i] samples; 0 where there are none."""
        weights = self.history[counts]
        b = np.minimum(31, (np.clip(values, 0, 1) * 32).astype(int))
        below = np.where(np.arange(32) < b[:, None], weights, 0.0).sum(1)
        total = np.maximum(weights.sum(1), 1e-300)
        return (below + 0.5 * weights[np.arange(len(b)), b]) / total


class Slots:
    """Per-record arrays of windows by time, the regime, and the microstructure score."""

    def __init__(self, e: Events, bars: Bars) -> None:
        self.e, self.f, self.bars = e, e.f, bars
        self.slot_ns = e.f.volume_window_ms * 100_000
        self.slot, self.second = e.ts // self.slot_ns, e.ts // 10**9
        self.rolls = np.flatnonzero(np.diff(self.slot, prepend=self.slot[0]) > 0)  # records that found a slot over
        self.ends = np.flatnonzero(np.diff(self.second, prepend=self.second[0]) > 0)
        self._volume()
        self._momentum()
        self._seconds()
        self._impact()
        self._regime()
        self._timeframes()
        self._profile()
        self._score()

    def _volume(self) -> None:
        e, f, first = self.e, self.f, self.slot[0]
        lots, signed = np.zeros((2, self.slot[-1] - first + 1), np.int64)
        np.add.at(lots, self.slot[e.rows] - first, e.lots)
        np.add.at(signed, self.slot[e.rows] - first, e.sign * e.lots)
        ends = np.cumsum(lots)
        windows = ends - np.concatenate((np.zeros(10, np.int64), ends))[: len(ends)]
        closed = self.slot - first
        half_life = f.volume_half_life_s * 1e9 / self.slot_ns
        mean = held(weighted_means(windows.astype(float), half_life), closed)
        now, way = np.zeros((2, e.n))
        count = np.cumsum(np.bincount(e.rows, e.lots, e.n)), np.cumsum(np.bincount(e.rows, e.sign * e.lots, e.n))
        begin = np.searchsorted(self.slot, self.slot - 9, side="left")
        now, way = (c - np.where(begin > 0, c[begin - 1], 0) for c in count)
        self.volume_warm = closed >= np.ceil(half_life)
        self.volume_ratio = np.where(mean > 0, now / np.where(mean > 0, mean, 1), 0.0)
        size = np.minimum(1.0, self.volume_ratio / (2 * f.volume_multiple))
        self.volume_spike = np.where(self.volume_ratio >= f.volume_multiple, size * np.sign(way), 0.0)

    def _mid_path(self, index: Array) -> tuple[Array, Array]:
        """Mid at the end of each slot (nan: unusable then), and whether the book was unusable some time within it."""
        e, first = self.e, index[0]
        count = index[-1] - first + 1
        last = np.searchsorted(index, np.arange(first, index[-1] + 1), side="right") - 1
        broken = np.bincount(index[~e.usable] - first, minlength=count) > 0
        return np.where(e.usable[last], e.mid[last], np.nan), broken

    def _momentum(self) -> None:
        f = self.f
        mid, broken = self._mid_path(self.slot)
        run: list[float] = []
        lagged, everything = [], []
        counts, mean_counts = np.zeros(len(mid), int), np.zeros(len(mid), int)
        for j in range(len(mid)):
            if broken[j]:
                run = []
            if j > 0 and not np.isnan(mid[j]) and not np.isnan(mid[j - 1]) and not broken[j]:
                r = mid[j] - mid[j - 1]
                if len(run) >= 20:
                    lagged.append([r * x for x in ([r] + run[: -21 : -1])])
                run.append(r)
                everything.append(r)
            counts[j], mean_counts[j] = len(lagged), len(everything)
        x = np.array(lagged).reshape(-1, 21)
        half_life = f.momentum_half_life_s * 1e9 / self.slot_ns
        sums = np.column_stack([weighted_means(x[:, lag], half_life) for lag in range(21)])
        mean = weighted_means(np.array(everything), 5.0)
        # as of the last slot that ended with a mid
        ended = self.slot - self.slot[0]
        known = ~np.isnan(mid)
        latest = np.append(-1, np.maximum.accumulate(np.where(known, np.arange(len(mid)), -1)))[ended]
        count, mean_count = np.append(0, counts)[latest + 1], np.append(0, mean_counts)[latest + 1]
        self.momentum_warm = count >= np.ceil(half_life)
        table = np.vstack([np.zeros(21), sums])[count]
        phi = fitted_ratio(table)
        keep = 0.5**0.2
        deviation = np.sqrt(np.where(table[:, 0] > 0, table[:, 0], 1))
        z = np.where(table[:, 0] > 0, held(mean, mean_count) / deviation * np.sqrt((1 + keep) / (1 - keep)), 0.0)
        self.phi, self.phi_half_life = phi, half_lives(phi)
        self.lag1 = np.where(table[:, 0] > 0, table[:, 1] / np.where(table[:, 0] > 0, table[:, 0], 1), 0.0)
        self.momentum = np.where((np.abs(phi) >= 0.05) & (np.abs(phi * z / 2) >= 0.01), np.clip(phi * z / 2, -1, 1), 0.0)

    def _seconds(self) -> None:
        e = self.e
        mid, broken = self._mid_path(self.second)
        broken[0] = True
        first = self.second[0]
        flows = np.zeros(len(mid))
        np.add.at(flows, self.second[e.rows] - first, e.sign * e.lots)
        rows, counts = [], np.zeros(len(mid), int)
        for j in range(len(mid)):
            if j > 0 and not broken[j] and not np.isnan(mid[j]) and not np.isnan(mid[j - 1]):
                rows.append((mid[j] - mid[j - 1], flows[j], np.log(mid[j] / mid[j - 1])))
            counts[j] = len(rows)
        self.valid = np.array(rows).reshape(-1, 3)
        self.valid_count = np.append(0, counts)[self.second - first]
        k = self.f.kyle_window_s
        slope, realised = np.zeros(len(rows)), np.zeros(len(rows))
        for j in range(len(rows)):
            if j + 1 >= k:
                move, flow, _ = self.valid[j - k + 1 : j + 1].T
                gap = flow - flow.mean()
                slope[j] = (gap * (move - move.mean())).sum() / (gap**2).sum() if (gap != 0).any() else 0.0
            if j + 1 >= 60:
                realised[j] = np.sqrt((self.valid[j - 59 : j + 1, 2] ** 2).mean())
        self.kyle, self.realised = held(slope, self.valid_count), held(realised, self.valid_count)

    def _at_ends(self, values: Array, before: float = 0.0) -> Array:
        """Values as they stood before each second's end was found, held from then on."""
        return held(values, np.cumsum(np.bincount(self.ends, minlength=self.e.n)).astype(int), before)

    def _impact(self) -> None:
        e = self.e
        ratio = fitted_ratio(np.vstack([np.zeros(16), e.impact])[e.impact_count])
        warm = e.impact_count >= np.ceil(self.f.impact_half_life_trades)
        self.impact_phi = self._at_ends(np.where(warm, ratio, 0.0)[self.ends - 1])
        self.impact_end_warm = self._at_ends(warm[self.ends - 1].astype(float)) > 0

    def _regime(self) -> None:
        e, f, b = self.e, self.f, self.bars
        half_life = f.quantile_half_life_s
        r = self.valid[:, 2]
        many = np.array([r[j - 9 : j + 1].sum() for j in range(9, len(r))])
        one, ten = decayed_sums(r[9:] ** 2, half_life), decayed_sums(many**2, half_life)
        states, ranks, ratios = [], [], []
        vols: list[float] = []
        regime, rank, ratio = 0, 0.0, 0.0
        hist = np.zeros(32)
        for i in self.ends:
            before = i - 1
            if b.volatility_warm[before] and e.usable[before]:
                vols.append(b.volatility[before])
                average = weighted_means(np.array(vols[-int(60 * half_life) :]), half_life)[-1]
                u = vols[-1] / (vols[-1] + average) if average > 0 else 0.5
                hist = hist * 0.5 ** (1 / half_life)
                hist[min(31, int(u * 32))] += 1
                k = self.valid_count[i] - 10
                if len(vols) >= 60 and k + 1 >= 60:
                    at = min(31, int(u * 32))
                    rank = (hist[:at].sum() + hist[at] / 2) / hist.sum()
                    ratio = ten[k] / (10 * one[k]) if one[k] > 0 else 1.0
                    h = f.regime_hysteresis
                    if rank >= f.regime_turbulent_quantile - h * (regime == 3):
                        regime = 3
                    elif ratio >= f.regime_trend_ratio - h * (regime == 4):
                        regime = 4
                    else:
                        regime = 1 if rank <= f.regime_calm_quantile + h * (regime == 1) else 2
            states.append(regime)
            ranks.append(rank)
            ratios.append(ratio)
        self.regime = self._at_ends(np.array(states)).astype(int)
        self.vol_rank, self.variance_ratio = self._at_ends(np.array(ranks)), self._at_ends(np.array(ratios))

    def _timeframes(self) -> None:
        e, f = self.e, self.f
        trends, warm = np.zeros((5, len(self.ends))), np.zeros((5, len(self.ends)), bool)
        self.trend_ready = np.zeros(e.n, bool)
        for k, size in enumerate(f.timeframes_s):
            index = e.ts // (size * 10**9)
            closes: list[float] = []
            trend = 0.0
            for j, i in enumerate(self.ends):
                closed = index[i] - index[i - 1]
                if closed and e.usable[i - 1]:
                    closes += [e.mid[i - 1]] * closed
                    x = np.array(closes) - closes[-1]
                    average = ema_of(x, 5, 1 / 3)[-1] if len(x) >= 5 else 0.0
                    trend = -np.sign(average) if abs(average) > 1e-6 else 0.0
                trends[k, j], warm[k, j] = trend, len(closes) >= 5
        weights = np.array(f.timeframe_weights)[:, None]
        total = (weights * warm).sum(0)
        ready = (warm.sum(0) >= 2) & (total > 0)
        self.trend = self._at_ends(np.where(ready, (weights * warm * trends).sum(0) / np.where(total > 0, total, 1), 0.0))
        self.trend_ready = self._at_ends(ready.astype(float)) > 0

    def _profile(self) -> None:
        e, f = self.e, self.f
        weight = 0.5 ** (1 / f.profile_half_life_trades)
        bins: dict[int, float] = {}
        self.control, self.value_low, self.value_high, self.width = np.zeros((4, e.n))
        width = low = control = value_low = value_high = k = 0
        end = set(self.ends.tolist())
        for i in range(e.n):
            if i in end and width:
                total, value_low, value_high = sum(bins.values()), control, control
                inside = bins.get(control, 0.0)
                while inside < f.value_area * total:
                    up = bins.get(value_high + 1, 0.0) if value_high < low + 63 else -1
                    down = bins.get(value_low - 1, 0.0) if value_low > low else -1
                    value_high, value_low = (value_high + 1, value_low) if up >= down else (value_high, value_low - 1)
                    inside += max(up, down)
            if e.trade[i]:
                price = int(e.price[k])
                if not width:
                    width = max(1, int(price * f.profile_bin_bps / 1e4))
                    control = value_low = value_high = price // width
                    low = max(0, control - 32)
                at = price // width
                bins = {b: x * weight for b, x in bins.items()}
                if not low <= at < low + 64:
                    low = max(0, at - 32)
                    bins = {b: x for b, x in bins.items() if low <= b < low + 64}
                    value_low, value_high = (min(max(v, low), low + 63) for v in (value_low, value_high))
                bins[at] = bins.get(at, 0.0) + int(e.lots[k])
                control = max(bins, key=lambda b: (bins[b], b == control))
                k += 1
            self.control[i], self.width[i] = width * control + (width - 1) / 2, width
            self.value_low[i], self.value_high[i] = width * value_low - 0.5, width * (value_high + 1) - 0.5

    def _score(self) -> None:
        e, f = self.e, self.f
        half_life = f.quantile_half_life_s * 1e9 / self.slot_ns
        with np.errstate(invalid="ignore", divide="ignore"):
            tight = e.spread_mean / (e.spread_mean + e.spread_bps)
            depth = e.bids + e.asks
            full = depth / (depth + e.depth_mean)
        agree = (1 + e.recent * e.imbalance) / 2
        imbalance_warm = e.imbalance_count >= f.imbalance_half_life
        before = self.rolls - 1
        here = e.usable[before]
        # a second's end that falls on a slot's end is told after it: the slot still sees the impact of the second before
        impact, impact_warm = self.impact_phi[before], e.impact_count[before] >= np.ceil(f.impact_half_life_trades)
        conditions = {
            "tight": (tight, here & e.spread_warm[before], 0.2),
            "full": (full, here & e.spread_warm[before], 0.2),
            "agree": (agree, here & imbalance_warm[before] & (e.prints[before] >= 20), 0.3),
            "vpin": (e.vpin, here & (e.buckets[before] >= f.vpin_buckets), 0.15),
            "impact": (None, here & impact_warm, 0.15),
        }
        total, score = np.zeros(e.n), np.zeros(e.n)
        rolls_seen = np.cumsum(np.bincount(self.rolls, minlength=e.n)).astype(int)
        self.score_warm = imbalance_warm & e.usable
        for name, (values, taken, weight) in conditions.items():
            samples = np.clip(impact, 0, 2) / 2 if values is None else values[before]
            ranks = Ranks(samples[taken], half_life)
            count = np.cumsum(taken)
            if name in ("tight", "full", "agree"):
                known = held(count, rolls_seen).astype(int)
                part = ranks.at(known, np.nan_to_num(values))
                total += weight
                score += weight * part
                self.score_warm &= known >= 100
                continue
            own = ranks.at(count, samples)
            own = own if name == "impact" else 1 - own
            counts = taken & (count >= 100)
            # told at the latest slot that ended with a book
            latest = np.maximum.accumulate(np.where(here, np.arange(len(before)), -1))
            told = np.where(latest >= 0, np.where(counts, own, 0.0)[latest], 0.0)
            weighs = np.where(latest >= 0, counts[latest], False) * weight
            score += held(told * weighs, rolls_seen)
            total += held(weighs, rolls_seen)
        self.score = np.where(self.score_warm, 100 * score / total, 0.0)
