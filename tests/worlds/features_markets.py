"""Markets for the tests of features and quoting: seeded random walks, their mirror image, and the recordings.

Not a book builder to trust: its recordings reader holds a plain dict of levels, which is enough to have five levels
of plausible truth in each record.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

from trading.instruments import Instrument, instrument_table
from trading.jit import Recs, kernel
from trading.records import LEVELS, MARKET_RECORD, REPORT_RECORD, ExecType, Flag, Kind
from trading.scoring import one_pass as features
from trading.settings import Strategy

T0 = 1_723_161_254_000_000_000
BTC = Instrument("BTCUSDT")


def table(count: int = 1) -> Recs:
    """An instrument table of `count` symbols."""
    return instrument_table([BTC, Instrument("ETHUSDT"), Instrument("SOLUSDT")][:count])


def random_walk(
    seed: int,
    records: int = 3000,
    symbols: int = 1,
    stale_every: int = 0,
    gap_every: int = 0,
    mean_ns: int = 20_000_000,
    start_ticks: int = 6_000_000,
    outage_every: int = 0,
    lots: int = 1,
) -> Recs:
    """MARKET_RECORD (records,): prints and book changes around a drifting mid with autocorrelated book pressure.

    `stale_every`: about every so many records the book goes stale for a few; `gap_every`: nothing happens for 3..60 s;
    `outage_every`: it goes stale, and comes back after 6..600 s. `lots`: all quantities times this.
    """
    rng = np.random.default_rng(seed)
    recs = np.zeros(records, MARKET_RECORD)
    ts = T0
    mid = [start_ticks + 40 * s for s in range(symbols)]
    pressure = [0.0] * symbols
    stale_left = [0] * symbols
    last: list[Any] = [None] * symbols
    for i in range(records):
        ts += 1 + int(rng.exponential(mean_ns))
        if gap_every and rng.random() < 1 / gap_every:
            ts += int(rng.uniform(3, 60) * 1e9)
        s = int(rng.integers(symbols))
        r = recs[i]
        if outage_every and stale_left[s] == 1:
            ts += int(rng.uniform(1, 100 if rng.random() < 0.5 else 600) * 1e9)
        r["ts_ns"], r["symbol"] = ts, s
        if outage_every and stale_left[s] == 0 and rng.random() < 1 / outage_every:
            stale_left[s] = 2
        if stale_every and stale_left[s] == 0 and rng.random() < 1 / stale_every:
            stale_left[s] = int(rng.integers(1, 6))
        pressure[s] = 0.98 * pressure[s] + 0.15 * rng.normal()
        mid[s] += int(np.round(rng.normal() * 30 + 25 * pressure[s]))
        bid = mid[s] - int(rng.integers(1, 6))
        ask = mid[s] + int(rng.integers(1, 6))
        tilt = np.tanh(pressure[s])
        for k in range(LEVELS):
            r["bid_ticks"][k], r["ask_ticks"][k] = bid - 3 * k, ask + 3 * k
            r["bid_lots"][k] = 1 + int(rng.exponential(1e8 * (1 + tilt)))
            r["ask_lots"][k] = 1 + int(rng.exponential(1e8 * (1 - tilt)))
        r["flags"] = Flag.BOOK_VALID
        draw = rng.random()
        if draw < 0.4:
            r["kind"] = Kind.TRADE
            if last[s] is not None:  # a print does not change the book
                for name in ("bid_ticks", "bid_lots", "ask_ticks", "ask_lots"):
                    r[name] = last[s][name]
                bid, ask = int(r["bid_ticks"][0]), int(r["ask_ticks"][0])
            sell = rng.random() < 0.5 - 0.4 * tilt
            r["price_ticks"], r["qty_lots"] = (bid if sell else ask), 1 + int(rng.exponential(2e6))
            r["flags"] |= Flag.AGGRESSOR_SELL if sell else 0
        else:
            r["kind"] = Kind.BBO if draw < 0.8 else Kind.DEPTH
        last[s] = r
        if stale_left[s]:
            stale_left[s] -= 1
            r["flags"] &= ~int(Flag.BOOK_VALID)
            if r["kind"] != Kind.TRADE:
                r["kind"] = Kind.STALE
    for name in ("bid_lots", "ask_lots", "qty_lots"):
        recs[name] *= lots
    return recs


def mirror(recs: Recs, about_ticks: int) -> Recs:
    """The same market upside down: prices `2 * about - p`, bids and asks swapped, aggressors too."""
    out = recs.copy()
    twice = 2 * about_ticks
    for side, other in (("bid", "ask"), ("ask", "bid")):
        out[f"{side}_lots"] = recs[f"{other}_lots"]
        out[f"{side}_ticks"] = np.where(recs[f"{other}_ticks"] > 0, twice - recs[f"{other}_ticks"], 0)
    trade = recs["kind"] == Kind.TRADE
    out["price_ticks"][trade] = twice - recs["price_ticks"][trade]
    out["flags"][trade] ^= int(Flag.AGGRESSOR_SELL)
    return out


def _ticks(text: str) -> int:
    whole, part = text.split(".")
    assert not part[2:].strip("0"), text
    return int(whole) * 100 + int(part[:2])


def _lots(text: str) -> int:
    whole, part = text.split(".")
    return int(whole) * 10**8 + int(part.ljust(8, "0"))


def _top(levels: dict[int, int], best: int, lots: int, sign: int) -> list[tuple[int, int]]:
    """The five best of one side where the venue's own best is (best, lots); sign +1 for asks."""
    behind = sorted((p for p in levels if (p - best) * sign > 0), key=lambda p: p * sign)[: LEVELS - 1]
    return [(best, lots), *((p, levels[p]) for p in behind)]


def read_recording(path: Path, limit: int = 10**9) -> Recs:
    """MARKET_RECORD of a Binance spot BTCUSDT file: one a bookTicker, depth and trade frame, from the snapshot on."""
    bids: dict[int, int] = {}
    asks: dict[int, int] = {}
    pending: list[dict[str, Any]] = []
    best: tuple[int, int, int, int] | None = None
    synced = False
    out: list[Any] = []
    ts = 0

    def apply(message: dict[str, Any]) -> None:
        for side, key in ((bids, "b"), (asks, "a")):
            for price, qty in message[key]:
                lots = _lots(qty)
                if lots:
                    side[_ticks(price)] = lots
                else:
                    side.pop(_ticks(price), None)

    with gzip.open(path, "rt") as lines:
        for line in lines:
            if len(out) >= limit:
                break
            stamp, _, frame = line.partition(" ")
            ts = max(ts + 1, int(stamp))
            message = json.loads(frame)
            if "lastUpdateId" in message:
                bids.update({_ticks(p): _lots(q) for p, q in message["bids"]})
                asks.update({_ticks(p): _lots(q) for p, q in message["asks"]})
                for held in pending:
                    if held["u"] > message["lastUpdateId"]:
                        apply(held)
                synced = True
                continue
            stream, content = message["stream"], message["data"]
            if "depth" in stream:
                if not synced:
                    pending.append(content)
                    continue
                apply(content)
            rec = np.zeros((), MARKET_RECORD)
            rec["ts_ns"] = ts
            if stream.endswith("bookTicker"):
                rec["kind"] = Kind.BBO
                best = (_ticks(content["b"]), _lots(content["B"]), _ticks(content["a"]), _lots(content["A"]))
            elif stream.endswith("trade"):
                rec["kind"] = Kind.TRADE
                rec["price_ticks"], rec["qty_lots"] = _ticks(content["p"]), _lots(content["q"])
                rec["flags"] = Flag.AGGRESSOR_SELL if content["m"] else 0
            else:
                rec["kind"] = Kind.DEPTH
            if best is None or not synced:
                continue
            rec["flags"] |= Flag.BOOK_VALID
            for name, side, price, lots, sign in (("bid", bids, *best[:2], -1), ("ask", asks, *best[2:], 1)):
                near = {p: q for p, q in side.items() if abs(p - price) < 5000}
                for k, (p, q) in enumerate(_top(near, price, lots, sign)):
                    rec[f"{name}_ticks"][k], rec[f"{name}_lots"][k] = p, q
            out.append(rec[()])
    return np.array(out, MARKET_RECORD)


def fill(ts_ns: int, side: int, lots: int, symbol: int = 0) -> Recs:
    """A REPORT_RECORD (1,) of one fill."""
    recs = np.zeros(1, REPORT_RECORD)
    recs["ts_ns"], recs["exec_type"], recs["side"], recs["last_lots"], recs["symbol"] = ts_ns, ExecType.FILL, side, lots, symbol
    return recs


@kernel
def _strengths(state: Recs, symbol: int, row: Any) -> None:
    for k in range(len(row)):
        row[k] = state[symbol].strength[k]


def drive_features(recs: Recs, on_market: Any, world: tuple[Recs, ...], out: Recs, strengths: Any, start: int, stop: int) -> None:
    """Feed recs[start:stop]; out[i] and strengths[i] (full precision) answer recs[i]. `world` = state, glob, params, table."""
    state, glob, params, instruments = world
    for i in range(start, stop):
        assert on_market(recs, i, state, glob, params, instruments, out, i) == 1
        _strengths(state, int(recs["symbol"][i]), strengths[i])


def start_features(strategy: Strategy, symbols: int = 1) -> tuple[Recs, Recs, Recs, Recs]:
    """State, global, params and instruments of the features before the first record."""
    instruments = table(symbols)
    params = features.make_params(strategy, instruments)
    state, glob = np.zeros(symbols, features.FEATURE_STATE), np.zeros(1, features.FEATURE_GLOBAL)
    features.init(state, glob, params, instruments)
    return state, glob, params, instruments
