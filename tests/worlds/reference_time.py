"""Independent batch computation of what passes with time, for one symbol: every slot and every second listed, empty ones too."""

from __future__ import annotations

import numpy as np
from reference_bars import Bars, ema_of
from reference_events import Array, Events, held


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
    """Decayed histogram of 32 bins after each event: (value, how many samples it stood for, slots that passed unseen)."""

    def __init__(self, events: list[tuple[float, int, int]], half_life: float) -> None:
        now, keep = np.zeros(32), 0.5 ** (1 / half_life)
        self.history, self.samples = np.zeros((len(events) + 1, 32)), np.zeros(len(events) + 1, int)
        for k, (value, times, unseen) in enumerate(events):
            if times:
                now = now * keep**times
                now[min(31, int(value * 32))] += (keep ** np.arange(times)).sum()
            self.history[k + 1] = now = now * keep**unseen
            self.samples[k + 1] = self.samples[k] + times

    def at(self, events: Array, values: Array) -> Array:
        """Mid-rank of values[i] after events[i] events; 0 where there are no samples."""
        weights = self.history[events]
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
        e, f = self.e, self.f
        half_life = f.volume_half_life_s * 1e9 / self.slot_ns
        keep = 0.5 ** (1 / half_life)

        def window(slot: int, row: int) -> Array:
            """Signed and all lots of the ten slots up to `slot` that are known before this row."""
            begin = max(int(np.searchsorted(self.slot, slot - 9)), int(e.begins[row - 1]))
            return e.lots_so_far[row] - e.lots_so_far[begin] if begin < row else np.zeros(2)

        mean, count = np.zeros(e.n), np.zeros(e.n, int)
        num = den = 0.0
        samples, rolls = 0, set(self.rolls.tolist())
        for i in range(e.n):
            if i in rolls and e.usable[i - 1]:
                for slot in range(self.slot[i - 1], self.slot[i]):
                    num, den, samples = num * keep + float(window(slot, i)[1]), den * keep + 1.0, samples + 1
            if i in e.gaps:
                old = keep ** (e.gaps[i] // self.slot_ns)
                num, den, samples = num * old, den * old, 0
            mean[i], count[i] = num / den if den > 0 else 0.0, samples
        begin = np.maximum(np.searchsorted(self.slot, self.slot - 9, side="left"), e.begins)
        way, now = (e.lots_so_far[1:] - e.lots_so_far[begin]).astype(float).T
        self.volume_warm = count >= np.ceil(half_life)
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
        e, f = self.e, self.f
        mid, broken = self._mid_path(self.slot)
        half_life = f.momentum_half_life_s * 1e9 / self.slot_ns
        keep, fast = 0.5 ** (1 / half_life), 0.5**0.2
        unseen = {int(self.slot[row] - self.slot[0]): gap // self.slot_ns for row, gap in e.gaps.items()}
        run: list[float] = []
        sums, weight, mean, mean_weight, count = np.zeros(21), 0.0, 0.0, 0.0, 0
        table, means, counts, runs = np.zeros((len(mid), 21)), np.zeros(len(mid)), *np.zeros((2, len(mid)), int)
        for j in range(len(mid)):
            if j in unseen:
                old = keep ** unseen[j]
                sums, weight, count = sums * old, weight * old, 0
            if broken[j]:
                run, mean, mean_weight = [], 0.0, 0.0
            if j > 0 and not np.isnan(mid[j]) and not np.isnan(mid[j - 1]) and not broken[j]:
                r = mid[j] - mid[j - 1]
                if len(run) >= 20:
                    sums = sums * keep + np.array([r * x for x in ([r] + run[:-21:-1])])
                    weight, count = weight * keep + 1.0, count + 1
                run.append(r)
                mean, mean_weight = mean * fast + r, mean_weight * fast + 1.0
            table[j], counts[j], runs[j] = sums / max(weight, 1e-300), count, len(run)
            means[j] = mean / mean_weight if mean_weight > 0 else 0.0
        # as of the last slot that ended with a mid
        ended = self.slot - self.slot[0]
        known = ~np.isnan(mid)
        latest = np.append(-1, np.maximum.accumulate(np.where(known, np.arange(len(mid)), -1)))[ended]
        self.phi_warm = np.append(0, counts)[latest + 1] >= np.ceil(half_life)
        self.phi_warm &= (e.era == 0) | (latest >= ended[e.begins])
        self.momentum_warm = self.phi_warm & (np.append(0, runs)[latest + 1] >= 20) & (latest >= ended[e.stretch_begins])
        table = np.vstack([np.zeros(21), table])[latest + 1]
        phi = fitted_ratio(table)
        deviation = np.sqrt(np.where(table[:, 0] > 0, table[:, 0], 1))
        mean_now = np.append(0.0, means)[latest + 1]
        z = np.where(table[:, 0] > 0, mean_now / deviation * np.sqrt((1 + fast) / (1 - fast)), 0.0)
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
        keep = 0.5 ** (1 / f.quantile_half_life_s)
        r = self.valid[:, 2]
        self.regime, self.vol_rank, self.variance_ratio = np.zeros(e.n, int), *np.zeros((2, e.n))
        one = ten = num = den = rank = 0.0
        ratio, regime, samples, h = 0.0, 0, 0, f.regime_hysteresis
        hist = np.zeros(32)
        ends = set(self.ends.tolist())
        for i in range(e.n):
            if i in ends:
                for j in range(max(9, self.valid_count[i - 1]), self.valid_count[i]):
                    one, ten = one * keep + r[j] ** 2, ten * keep + r[j - 9 : j + 1].sum() ** 2
                if b.volatility_warm[i - 1] and e.usable[i - 1]:
                    seconds, value = int(self.second[i] - self.second[i - 1]), b.volatility[i - 1]
                    for k in range(seconds):
                        num, den = num * keep + value, den * keep + 1.0
                        u = value / (value + num / den) if num > 0 else 0.5
                        if k < 60:
                            hist = hist * keep
                            hist[min(31, int(u * 32))] += 1
                    if seconds > 60:  # those beyond a minute count with the last figure
                        hist = hist * keep ** (seconds - 60)
                        hist[min(31, int(u * 32))] += (keep ** np.arange(seconds - 60)).sum()
                    samples += seconds
                    if samples >= 60 and self.valid_count[i] - 9 >= 60:
                        at = min(31, int(u * 32))
                        rank = (hist[:at].sum() + hist[at] / 2) / hist.sum()
                        ratio = ten / (10 * one) if one > 0 else 1.0
                        if rank >= f.regime_turbulent_quantile - h * (regime == 3):
                            regime = 3
                        elif ratio >= f.regime_trend_ratio - h * (regime == 4):
                            regime = 4
                        else:
                            regime = 1 if rank <= f.regime_calm_quantile + h * (regime == 1) else 2
            if i in e.gaps:
                old = keep ** (e.gaps[i] // 10**9)
                one, ten, num, den, hist = one * old, ten * old, num * old, den * old, hist * old
            self.regime[i], self.vol_rank[i], self.variance_ratio[i] = regime, rank, ratio

    def _timeframes(self) -> None:
        e, f = self.e, self.f
        closes: list[list[float]] = [[] for _ in f.timeframes_s]
        self.trend, self.trend_ready = np.zeros(e.n), np.zeros(e.n, bool)
        ends, vote, ready = set(self.ends.tolist()), 0.0, False
        for i in range(e.n):
            if i in ends and e.usable[i - 1]:
                moved = False
                for k, size in enumerate(f.timeframes_s):
                    closed = int(e.ts[i] // (size * 10**9) - e.ts[i - 1] // (size * 10**9))
                    closes[k] += [e.mid[i - 1]] * closed
                    moved |= closed > 0
                total = said = warm = 0.0
                for weight, own in zip(f.timeframe_weights, closes):
                    if len(own) >= 5:
                        average = ema_of(np.array(own) - own[-1], 5, 1 / 3)[-1]
                        total, warm = total + weight, warm + 1
                        said += weight * (-np.sign(average) if abs(average) > 1e-6 else 0.0)
                if moved and warm >= 2 and total > 0:
                    vote, ready = said / total, True
            if i in e.gaps:
                closes = [[] if e.gaps[i] >= size * 10**9 else own for size, own in zip(f.timeframes_s, closes)]
                vote, ready = 0.0, False
            self.trend[i], self.trend_ready[i] = vote, ready

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
            "agree": (agree, here & imbalance_warm[before] & (e.window_prints[before] >= 20), 0.3),
            "vpin": (e.vpin, here & (e.buckets[before] >= f.vpin_buckets), 0.15),
            "impact": (None, here & impact_warm, 0.15),
        }
        total, score = np.zeros(e.n), np.zeros(e.n)
        passed = np.diff(self.slot, prepend=self.slot[0])[self.rolls]
        gaps = np.array(list(e.gaps), int)
        rows = np.append(self.rolls, gaps)
        order = np.lexsort((np.arange(len(rows)) >= len(self.rolls), rows))  # at one record the slot's end goes first
        seen = np.cumsum(np.bincount(rows, minlength=e.n)).astype(int)
        roll_events = np.empty(len(order), int)
        roll_events[order] = np.arange(1, len(order) + 1)
        roll_events = roll_events[: len(self.rolls)]  # how many events there were with each roll
        rolls_seen = np.cumsum(np.bincount(self.rolls, minlength=e.n)).astype(int)
        self.score_warm = imbalance_warm & e.usable & (e.window_prints >= 20)
        unseen = [(0.0, 0, e.gaps[row] // self.slot_ns) for row in e.gaps]
        for name, (values, taken, weight) in conditions.items():
            samples = np.clip(impact, 0, 2) / 2 if values is None else values[before]
            events = [(float(v), int(n) if t else 0, 0) for v, t, n in zip(samples, taken, passed)] + unseen
            ranks = Ranks([events[k] for k in order], half_life)
            if name in ("tight", "full", "agree"):
                part = ranks.at(seen, np.nan_to_num(values))
                total += weight
                score += weight * part
                self.score_warm &= ranks.samples[seen] >= 100
                continue
            own = ranks.at(roll_events, samples)
            own = own if name == "impact" else 1 - own
            counts = taken & (ranks.samples[roll_events] >= 100)
            # told at the latest slot that ended with a book
            latest = np.maximum.accumulate(np.where(here, np.arange(len(before)), -1))
            told = np.where(latest >= 0, np.where(counts, own, 0.0)[latest], 0.0)
            weighs = np.where(latest >= 0, counts[latest], False) * weight
            score += held(told * weighs, rolls_seen)
            total += held(weighs, rolls_seen)
        self.score = np.where(self.score_warm, 100 * score / total, 0.0)
