"""Independent batch computation of what prints and book changes say, for one symbol: plain numpy, from the definitions.

Nothing of `trading` is used but the record layout and the enumerations; averages are sums over all of the past.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from trading.records import LEVELS, Flag, Kind
from trading.settings import Features

Array = npt.NDArray[Any]
NEVER = 2**62
OUTAGE_NS = 5 * 10**9


def decayed_sums(x: Array, half_life: float) -> Array:
    """sum of x[j] * 0.5**((i - j)/half_life) for every i; weights below 1e-18 are left out."""
    if not len(x):
        return np.zeros(0)
    taps = 0.5 ** (np.arange(min(len(x), int(60 * half_life) + 1)) / half_life)
    return np.convolve(x, taps)[: len(x)]


def weighted_means(x: Array, half_life: float) -> Array:
    """Mean of x[: i + 1] for every i, each weighted by 0.5 ** (age / half_life)."""
    return decayed_sums(x, half_life) / decayed_sums(np.ones(len(x)), half_life) if len(x) else np.zeros(0)


def held(values: Array, counts: Array, before: float = 0.0) -> Array:
    """values[count - 1] at each record, `before` where the count is 0."""
    return np.append(before, values)[counts]


class Events:
    """Per-record arrays; `x_count` arrays say how many x each record knows, itself included."""

    def __init__(self, recs: Array, f: Features) -> None:
        self.recs, self.f, self.n = recs, f, len(recs)
        self.ts = recs["ts_ns"]
        self.trade = recs["kind"] == Kind.TRADE
        self.usable = ((recs["flags"] & Flag.BOOK_VALID) != 0) & (recs["kind"] != Kind.STALE)
        self.usable &= (recs["bid_lots"][:, 0] > 0) & (recs["ask_lots"][:, 0] > 0)
        starts = self.usable & ~np.concatenate(([False], self.usable[:-1]))
        self.stretch = np.cumsum(starts)
        self.change = self.usable & ~self.trade
        read = self.change | starts
        self.source = np.maximum.accumulate(np.where(read, np.arange(self.n), 0))  # whose book each record has
        self.book = {k: recs[k][self.source] for k in ("bid_ticks", "bid_lots", "ask_ticks", "ask_lots")}
        bid, ask = self.book["bid_ticks"][:, 0], self.book["ask_ticks"][:, 0]
        self.mid = np.where(self.usable, (bid + ask) / 2, 0.0)
        self.mid_before = np.concatenate(([0.0], self.mid[:-1]))
        self.spread_bps = 1e4 * (ask - bid) / ((bid + ask) / 2)
        self.starts = starts
        self._outages()
        self._averages()
        self._flow_of_book()
        self._acceleration()
        self._refills()
        self._prints()
        self._divergence()
        self._impact()
        self._vpin()

    def _outages(self) -> None:
        """`gaps`: row of the first good record after an outage -> its length; `era` counts them from its first row, `begins`."""
        self.gaps: dict[int, int] = {}
        since = -1
        for i in range(self.n):
            if not self.usable[i]:
                since = i if since < 0 else since
            elif since >= 0:
                gap = int(self.ts[i] - self.ts[since])
                if gap > OUTAGE_NS:
                    self.gaps[i] = gap
                since = -1
        self.era = np.cumsum(np.isin(np.arange(self.n), list(self.gaps)))
        self.begins = np.array([0, *self.gaps])[self.era]
        self.stretch_begins = np.maximum.accumulate(np.where(self.starts, np.arange(self.n), 0))

    def told(self, values: Array, count: Array, eras: Array) -> Array:
        """`held` where values[k] of era eras[k] is forgotten by the outage after it."""
        of = np.append(-1, eras)[count]
        return np.where(of == self.era, held(values, count), 0)

    def _averages(self) -> None:
        f, rows = self.f, np.flatnonzero(self.change)
        self.changes = np.cumsum(self.change)
        self.bids = self.book["bid_lots"][:, : f.imbalance_levels].sum(1)
        self.asks = self.book["ask_lots"][:, : f.imbalance_levels].sum(1)
        depth = (self.bids + self.asks).astype(float)
        self.spread_mean = held(weighted_means(self.spread_bps[rows], f.spread_half_life), self.changes)
        self.depth_mean = held(weighted_means(depth[rows], f.spread_half_life), self.changes)
        share = (self.bids - self.asks) / np.maximum(1, self.bids + self.asks)
        self.imbalance, self.imbalance_count = np.zeros(self.n), np.zeros(self.n, int)
        self.book_ts = np.zeros(self.n, np.int64)
        for number in range(1, self.stretch.max(initial=0) + 1):
            own = np.flatnonzero((self.stretch == number) & self.usable)
            changed = self.change[own]
            self.imbalance_count[own] = np.cumsum(changed)
            self.imbalance[own] = held(weighted_means(share[own][changed], f.imbalance_half_life), np.cumsum(changed))
            stamps = np.where(changed | (np.arange(len(own)) == 0), self.ts[own], 0)
            self.book_ts[own] = np.maximum.accumulate(stamps)
        ratio = self.spread_bps / np.where(self.changes > 0, self.spread_mean, 1.0)
        squeeze = np.where(ratio < f.spread_compression, 1 - ratio / f.spread_compression, 0.0)
        squeeze = np.where(ratio > f.spread_expansion, -np.minimum(1, ratio / f.spread_expansion - 1), squeeze)
        self.spread_ratio = ratio
        self.spread_warm = self.changes >= f.spread_half_life
        self.spread_strength = held(np.where(self.spread_warm, squeeze, 0.0)[rows], self.changes)

    def _flow_of_book(self) -> None:
        """OFI of each level per second, then over the window of seconds."""
        second = self.ts // 10**9
        flow = np.zeros((self.n, LEVELS), object)  # whole numbers of any size
        for i in np.flatnonzero(self.change & ~self.starts):
            old, new = {k: v[i - 1] for k, v in self.book.items()}, {k: v[i] for k, v in self.book.items()}
            for level in range(LEVELS):
                pb, qb, pa, qa = (int(new[k][level]) for k in ("bid_ticks", "bid_lots", "ask_ticks", "ask_lots"))
                ob, oqb, oa, oqa = (int(old[k][level]) for k in ("bid_ticks", "bid_lots", "ask_ticks", "ask_lots"))
                pa, oa = pa or NEVER, oa or NEVER
                flow[i, level] = (pb >= ob) * qb - (pb <= ob) * oqb - (pa <= oa) * qa + (pa >= oa) * oqa
        self.seconds_seen = second - second[self.begins]
        self.flow_begins = np.maximum(np.searchsorted(second, second - self.f.flow_window_s + 1, side="left"), self.begins)
        total = np.vstack([np.zeros((1, LEVELS), object), np.cumsum(flow, 0)])
        self.ofi = (total[1:] - total[self.flow_begins]).astype(float)

    def _acceleration(self) -> None:
        f = self.f
        self.velocity, self.velocity_ok = np.zeros(self.n), np.zeros(self.n, bool)
        kicks: list[float] = []
        kick_count, fresh = np.zeros(self.n, int), np.zeros(self.n, bool)
        velocity, since, level = 0.0, 0, 0.0
        seen, last_mid, last_ts = 0, 0.0, 0
        ever = False
        for i in range(self.n):
            if not self.usable[i]:
                since = 0
            elif self.source[i] == i:
                if since == 0:
                    since, last_mid, last_ts, seen = 1, self.mid[i], int(self.ts[i]), 0
                elif self.mid[i] != last_mid:
                    level = (self.mid[i] - last_mid) / (max(int(self.ts[i]) - last_ts, 1_000_000) * 1e-9)
                    if seen:
                        kicks.append(level - velocity)
                    velocity, seen, last_mid, last_ts, ever = level, seen + 1, self.mid[i], int(self.ts[i]), True
            self.velocity[i], self.velocity_ok[i], fresh[i] = velocity, ever and seen > 0, seen > 1
            kick_count[i] = len(kicks)
        a = np.array(kicks)
        z = a / np.sqrt(np.maximum(weighted_means(a * a, f.acceleration_half_life), 1e-300))
        self.acceleration, self.acceleration_warm = held(z, kick_count), fresh & (kick_count >= f.acceleration_half_life)
        strength = np.where(np.abs(z) >= f.acceleration_threshold, np.clip(z / 3, -1, 1), 0.0)
        warm = np.arange(1, len(z) + 1) >= f.acceleration_half_life
        self.acceleration_strength = held(np.where(warm, strength, 0.0), kick_count)

    def _refills(self) -> None:
        durations: list[float] = []
        count = np.zeros(self.n, int)
        swept = [0, 0]
        warm = self.changes >= self.f.spread_half_life
        for i in range(self.n):
            if not self.usable[i]:
                swept = [0, 0]
            elif self.change[i] and warm[i]:
                average = self.depth_mean[i] / 2
                for side, lots in enumerate((self.bids[i], self.asks[i])):
                    if swept[side] == 0:
                        if lots < 0.5 * average:
                            swept[side] = int(self.ts[i])
                    elif lots >= 0.9 * average:
                        durations.append((int(self.ts[i]) - swept[side]) * 1e-9)
                        swept[side] = 0
            count[i] = len(durations)
        self.resilience, self.refills = held(weighted_means(np.array(durations), 20.0), count), count

    def _prints(self) -> None:
        recs, f = self.recs, self.f
        rows = self.rows = np.flatnonzero(self.trade)
        self.prints = np.cumsum(self.trade)
        p, q = recs["price_ticks"][rows], recs["qty_lots"][rows]
        self.price, self.lots = p, q
        self.sign = np.where(recs["flags"][rows] & Flag.AGGRESSOR_SELL, -1, 1)
        eras = self.print_eras = self.era[rows]
        first = np.append(True, eras[1:] != eras[:-1])[: len(rows)]  # the first print of an era has none before it
        moves = self.moves = np.where(first, 0, np.sign(np.diff(p, prepend=p[:1])))
        place = np.arange(len(rows)) - np.maximum.accumulate(np.where(first, np.arange(len(rows)), 0))
        run, runs, changes, changed = 0, [], [], 0
        for begins, m in zip(first, moves):
            run, changed = (0, 0) if begins else (run, changed + (m != 0))
            if m:
                run = run + int(m) if run * m > 0 else int(m)
            runs.append(run)
            changes.append(changed)
        self.window_prints = self.told(place + 1, self.prints, eras)
        n = f.micro_trend_trades
        momentum, strength = np.zeros(len(rows)), np.zeros(len(rows))
        for k in np.flatnonzero(place >= n - 1):
            window, weights = (p[k - n + 1 : k + 1] - p[k]).astype(float), q[k - n + 1 : k + 1]
            offset = (window * weights).sum() / weights.sum()
            momentum[k] = -1e4 * offset / (p[k] + offset)
            if abs(runs[k]) >= 3 and runs[k] * momentum[k] > 0:
                strength[k] = np.clip(momentum[k] / f.micro_trend_scale_bps, -1, 1)
        ready = (place >= n - 1) & (np.array(changes) >= 3)
        self.momentum, self.run = (self.told(np.array(x), self.prints, eras) for x in (momentum, runs))
        self.price_changes = self.told(np.array(changes), self.prints, eras)
        self.micro_trend = self.told(np.where(ready, strength, 0.0), self.prints, eras)
        self.micro_trend_ready = self.told(ready, self.prints, eras) > 0
        recent = np.zeros(len(rows))
        for era in np.unique(eras):
            own = eras == era
            recent[own] = decayed_sums(self.sign[own] * q[own], 20.0) / decayed_sums(q[own], 20.0)
        self.recent = self.told(recent, self.prints, eras)
        # Lee-Ready: the mid before the print, else the last change's way
        tick, guess, agree, quoted = 0, 0, [], np.zeros(len(rows), int)
        for k, i in enumerate(rows):
            tick = int(moves[k]) or (0 if first[k] else tick)
            mid = self.mid_before[i]
            guess = int(np.sign(p[k] - mid)) if mid > 0 and p[k] != mid else tick
            if mid > 0 and guess:
                agree.append(float(guess == self.sign[k]))
            quoted[k] = len(agree)
        self.quoted = held(quoted, self.prints).astype(int)
        self.agreement = held(weighted_means(np.array(agree), 500.0), self.quoted)
        # volume of the aggressors over the window of seconds
        self.place = place
        sizes = np.zeros((self.n, 2), object)
        sizes[rows, 0], sizes[rows, 1] = self.sign * q, q
        self.lots_so_far = np.vstack([np.zeros((1, 2), object), np.cumsum(sizes, 0)])  # signed, all: before each record
        flow, all_ = (self.lots_so_far[1:] - self.lots_so_far[self.flow_begins]).astype(float).T
        self.aggressors = np.where(all_ > 0, flow / np.maximum(all_, 1), 0.0)

    def _divergence(self) -> None:
        n, rows = self.f.divergence_trades, len(self.rows)
        obv = np.cumsum((self.moves * self.lots).astype(object))
        strength = np.zeros(rows)
        slopes = 2 * np.arange(n) - (n - 1)
        for k in np.flatnonzero(self.place >= n - 1):
            window = slice(k - n + 1, k + 1)
            # the volume that the print before the window's first one left does not count: only differences do
            up, volume = int(slopes @ self.price[window]), int(slopes.astype(object) @ (obv[window] - obv[k]))
            if np.sign(up) * (volume > 0) - np.sign(up) * (volume < 0) < 0:
                share = abs(int(obv[k] - obv[k - n + 1])) / int(self.lots[window].astype(object).sum())
                strength[k] = (1 if volume > 0 else -1) * min(1.0, share)
        self.divergence = self.told(strength, self.prints, self.print_eras)
        self.divergence_ready = self.window_prints >= n

    def _impact(self) -> None:
        """R(1..16): each print with a mid before it, and sixteen such behind it since the book was last unusable."""
        mids, signs, samples = [], [], []
        self.impact_count = np.zeros(self.n, int)
        k = 0
        for i in range(self.n):
            if self.trade[i]:
                if self.mid_before[i] > 0:
                    if len(mids) >= 16:
                        samples.append([signs[-lag] * (self.mid_before[i] - mids[-lag]) for lag in range(1, 17)])
                    mids.append(self.mid_before[i])
                    signs.append(int(self.sign[k]))
                k += 1
            if not self.usable[i]:
                mids, signs = [], []
            self.impact_count[i] = len(samples)
        x = np.array(samples).reshape(-1, 16)
        self.impact = np.column_stack([weighted_means(x[:, lag], self.f.impact_half_life_trades) for lag in range(16)])

    def _vpin(self) -> None:
        f = self.f
        size = weighted_means(self.lots.astype(float), 500.0)
        buckets: list[tuple[int, int]] = []
        volume = filled = signed = 0
        value = np.zeros(len(self.rows))
        self.buckets = np.zeros(len(self.rows), int)
        for k in range(len(self.rows)):
            left = int(self.lots[k])
            if volume == 0 and k >= 49:
                volume = max(1, int(f.vpin_bucket_trades * size[k]))
            while volume and left:
                part = min(left, volume - filled)
                filled, signed, left = filled + part, signed + int(self.sign[k]) * part, left - part
                if filled == volume:
                    buckets.append((abs(signed), volume))
                    filled, signed, volume = 0, 0, max(1, int(f.vpin_bucket_trades * size[k]))
            self.buckets[k] = len(buckets)
            if len(buckets) >= f.vpin_buckets:
                last = buckets[-f.vpin_buckets :]
                value[k] = sum(b[0] for b in last) / sum(b[1] for b in last)
        self.vpin, self.buckets = held(value, self.prints), held(self.buckets, self.prints).astype(int)
