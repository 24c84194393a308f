"""The features against figures that others published, and against the venue's raw frames read without the feed."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from features_markets import T0, random_walk, start_features
from market_feed import RECORDINGS, market_records, read_recording

from trading import candles
from trading.features.last_prints import LANE_BITS
from trading.features.microprice import fit_microprice, set_microprice
from trading.features.model_layout import MICRO_IMBALANCES, MICRO_SPREADS
from trading.features.vector import NAMES
from trading.records import LEVELS, MARKET_RECORD, SIGNAL_RECORD, Flag, Kind
from trading.scoring import one_pass as features
from trading.scoring.batch import feature_matrix, signals_of
from trading.settings import Features, Strategy

Array = Any


def oracle(folder: Path, name: str, column: str) -> list[float | None]:
    """One column of a published indicator."""
    return [row[column] for row in json.loads((folder / f"{name}.standard.json").read_text())]


def quotes_of(folder: Path) -> Array:
    """Open, high, low, close and volume of the published bars, (502, 5); prices in hundredths."""
    if not folder.is_dir():
        pytest.skip(f"no oracles in {folder}")
    with (folder / "default.csv").open() as rows:
        table = [[float(row[c]) for c in ("open", "high", "low", "close", "volume")] for row in csv.DictReader(rows)]
    return np.round(np.array(table) * (100, 100, 100, 100, 1)).astype(np.int64)


def indicators(quotes: Array, fast: int, slow: int) -> dict[str, Array]:
    """What the state says after each bar: four mids a bar, one bar a second. Prices as published; `bands` are of 20 bars."""
    recs = np.zeros(4 * len(quotes) + 1, MARKET_RECORD)
    for i, price in enumerate([*quotes[:, :4].reshape(-1), quotes[-1, 3]]):
        recs[i]["ts_ns"] = T0 // 10**9 * 10**9 + i * 250_000_000
        recs[i]["kind"], recs[i]["flags"] = Kind.BBO, Flag.BOOK_VALID
        recs[i]["bid_ticks"][0], recs[i]["ask_ticks"][0] = price - 1, price + 1
        recs[i]["bid_lots"][:LEVELS] = recs[i]["ask_lots"][:LEVELS] = 10
    world = start_features(Strategy(features=Features(ema_fast=fast, ema_slow=slow)))
    state, out = world[0], np.zeros(1, SIGNAL_RECORD)
    names = ("slow", "macd", "rsi", "atr", "sma", "lower", "upper", "deviation")
    got: dict[str, list[float]] = {name: [] for name in names}
    for i in range(len(recs)):
        features.on_market(recs, i, *world, out, 0)
        if i == 0 or i % 4:
            continue
        s = state[0]  # the bar before this record has just closed
        assert s["closed_bars"] == i // 4
        got["slow"].append((s["last_close"] + s["slow_offset"]) / 100)
        got["macd"].append((s["fast_offset"] - s["slow_offset"]) / 100)
        got["rsi"].append(float(s["rsi"]))
        got["atr"].append(float(s["atr"]) / 100)
        closes = s["bar_closes"][(s["window_bars"] - 1 - np.arange(20)) % 64] / 100
        # band_width = 4 deviations over the middle, band_z = (close - middle)/deviation: two equations for the middle
        z, width = float(s["band_z"]), float(s["band_width"])
        middle = closes[0] / (1 + z * width / 4)
        got["sma"].append(middle)
        got["lower"].append(middle * (1 - width / 2))
        got["upper"].append(middle * (1 + width / 2))
        got["deviation"].append(closes.std() - middle * width / 4)
    return {name: np.array(column) for name, column in got.items()}


@pytest.mark.recordings
def test_indicators_of_bars_equal_published_ones(recordings: Path) -> None:
    """EMA 20, MACD 12/26, RSI 14, ATR 14, SMA 20 (the bands' middle) equal Skender's Stock.Indicators on its 502 bars."""
    folder = recordings / "oracles" / "skender"
    quotes = quotes_of(folder)
    for fast, slow, names in ((5, 20, {"ema": "slow", "rsi": "rsi", "atr": "atr", "sma": "sma"}), (12, 26, {"macd": "macd"})):
        got = indicators(quotes, fast, slow)
        for name, ours in names.items():
            published = oracle(folder, name, name)
            pairs = [(a, b) for a, b in zip(got[ours], published, strict=True) if b is not None]
            assert len(pairs) > 470, name
            mine, theirs = np.array(pairs).T
            np.testing.assert_allclose(mine, theirs, rtol=1e-11, atol=1e-11, err_msg=name)
        np.testing.assert_allclose(got["deviation"][19:], 0.0, atol=1e-9)


@pytest.mark.recordings
def test_volume_weighted_prices_equal_published_ones(recordings: Path) -> None:
    """VWAP from the first bar on equals Skender's: that of a candle of the same prints, and the micro trend's over its window."""
    folder = recordings / "oracles" / "skender"
    quotes, published = quotes_of(folder), np.array(oracle(folder, "vwap", "vwap"), float)
    recs = np.zeros(len(quotes), MARKET_RECORD)
    recs["ts_ns"] = recs["ts_exchange_ns"] = T0 // 300_000_000_000 * 300_000_000_000 + np.arange(len(recs)) * 1_000_000
    recs["kind"], recs["update_id"] = Kind.TRADE, np.arange(len(recs))
    recs["price_ticks"], recs["qty_lots"] = quotes[:, 1:4].sum(1), quotes[:, 4]  # of the typical price, in three-hundredths
    making = candles.make_candles(1)
    for k in range(len(recs)):
        candles.on_records(making, recs[k : k + 1])
        vwap = candles.vwap_ticks(candles.open_candle(making, 0, 300_000_000_000))[0] / 300
        assert vwap == pytest.approx(published[k], rel=1e-14), k
    for n in (10, 37, 64):
        world = start_features(Strategy(features=Features(micro_trend_trades=n)))
        out = np.zeros(1, SIGNAL_RECORD)
        for k in range(n):
            features.on_market(recs, k, *world, out, 0)
        s = world[0][0]
        low, high = s["offset_sum"].tolist()
        lots = int(s["lots_sum"][0]) + (int(s["lots_sum"][1]) << LANE_BITS)
        vwap = (int(s["last_trade_ticks"]) + ((high << LANE_BITS) + low) / lots) / 300
        assert vwap == pytest.approx(published[n - 1], rel=1e-14)


@pytest.mark.recordings
def test_indicators_of_bars_equal_talibs(recordings: Path) -> None:
    """EMA, RSI, ATR and Bollinger bands equal TA-Lib's on the same bars from their first figure on; MACD, whose fast average it
    seeds later, once the seed is forgotten."""
    talib: Any = pytest.importorskip("talib", reason="TA-Lib is not installed: scripts/install all")
    quotes = quotes_of(recordings / "oracles" / "skender")
    high, low, close = (quotes[:, k] / 100 for k in (1, 2, 3))
    got, twelve = indicators(quotes, 5, 20), indicators(quotes, 12, 26)["macd"]
    upper, middle, lower = talib.BBANDS(close, 20, 2.0, 2.0)
    theirs = {
        "slow": talib.EMA(close, 20), "rsi": talib.RSI(close, 14), "atr": talib.ATR(high, low, close, 14),
        "sma": middle, "upper": upper, "lower": lower,
    }  # fmt: skip
    for name, wanted in theirs.items():
        known = ~np.isnan(wanted)
        assert known.sum() > 470, name
        np.testing.assert_allclose(got[name][known], wanted[known], rtol=1e-9, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(twelve[250:], talib.MACD(close, 12, 26, 9)[0][250:], rtol=1e-6, atol=1e-9)


def raw_best(frames: list[bytes], recv: Any) -> Any:
    """From bookTicker and trade frames alone: (ns, bid, bid lots, ask, ask lots) rows and (ns, signed lots) rows."""
    quotes, trades = [], []
    for frame, at in zip(frames, recv.tolist(), strict=True):
        message = json.loads(frame)
        if "stream" not in message:
            continue
        body = message["data"]
        if message["stream"].endswith("bookTicker"):
            row = [round(float(body["b"]) * 100), round(float(body["B"]) * 1e8), round(float(body["a"]) * 100)]
            quotes.append([at, *row, round(float(body["A"]) * 1e8), body["u"]])
        elif message["stream"].endswith("trade"):
            trades.append([at, round(float(body["q"]) * 1e8) * (-1 if body["m"] else 1)])
    return np.array(quotes), np.array(trades)


@pytest.mark.recordings
@pytest.mark.parametrize(("name", "count"), [("spot BTCUSDT", 20_000), ("spot ETHUSDT", 20_000)])
def test_best_quotes_and_kyle_from_the_raw_frames_alone(name: str, count: int, recordings: Path) -> None:
    """On bookTicker and trade frames read with json alone: OFI over ten seconds, weighted mid and Kyle's lambda equal the
    kernels' on market records made of the same frames."""
    frames, recv = read_recording(recordings, RECORDINGS[name][1])
    quotes, trades = raw_best(frames[: count + 1000], recv[: count + 1000])  # not every frame makes a record
    full = market_records(RECORDINGS[name], recordings)[:count]
    recs = full[np.isin(full["kind"], (Kind.BBO, Kind.TRADE)) & (full["flags"] & Flag.BOOK_VALID > 0)]
    quotes = quotes[quotes[:, 0] >= recs["ts_ns"][0]]
    matrix, _, ready = feature_matrix(recs)
    column = {name: matrix[:, k] for k, name in enumerate(NAMES)}
    warm = {name: ready[:, k] for k, name in enumerate(NAMES)}
    rows = np.flatnonzero(recs["kind"] == Kind.BBO)
    # in this recording no ticker is older than the book
    same = recs["bid_ticks"][rows, 0] == quotes[: len(rows), 1]
    assert same.all()
    ns, pb, qb, pa, qa, _ = quotes[: len(rows)].T
    share = qb / (qb + qa)
    mid = (pb + pa) / 2
    wanted = share * (pa - mid) + (1 - share) * (pb - mid)
    exact = same & (recs["bid_lots"][rows, 0] == qb) & (recs["ask_lots"][rows, 0] == qa) & (recs["ask_ticks"][rows, 0] == pa)
    assert exact.all()
    np.testing.assert_allclose(column["weighted_mid_gap"][rows][exact], wanted[exact], rtol=1e-9, atol=1e-11)
    e = (pb[1:] >= pb[:-1]) * qb[1:] - (pb[1:] <= pb[:-1]) * qb[:-1]
    e += (pa[1:] >= pa[:-1]) * qa[:-1] - (pa[1:] <= pa[:-1]) * qa[1:]
    second = ns // 10**9
    total = np.concatenate(([0], np.cumsum(np.append(0, e))))
    window = total[1:] - total[np.searchsorted(second, second - 9, side="left")]
    ratio = column["ofi_1"][rows] * signals_depth(recs)[rows]
    checked = exact & warm["ofi_1"][rows] & (np.abs(window) > 0)
    good = np.isclose(ratio[checked], window[checked], rtol=1e-9, atol=1.0)
    assert checked.sum() > 5_000 and good.all()
    compared = 0
    for i in range(int(np.flatnonzero(warm["kyle_lambda"])[0]), len(recs), 997):
        now = int(recs["ts_ns"][i] // 10**9)
        ends = np.searchsorted(second, np.arange(now - 61, now), side="right") - 1
        flow = np.bincount(trades[:, 0] // 10**9 - now + 60 + 10**6, weights=trades[:, 1], minlength=10**6 + 60)[10**6 :][:60]
        slope = np.polyfit(flow / 1e8, np.diff(mid[ends]), 1)[0] / 1e8
        assert column["kyle_lambda"][i] == pytest.approx(slope, rel=1e-9), i
        compared += 1
    assert compared > 3


def signals_depth(recs: Any) -> Any:
    """Average depth by its definition: weights 0.5 ** (age/200) over book changes, both sides, five levels."""
    change = recs["kind"] != Kind.TRADE
    depth = (recs["bid_lots"].sum(1) + recs["ask_lots"].sum(1)).astype(float)[change]
    mean, weight, out = 0.0, 0.0, []
    keep = 0.5 ** (1 / 200)
    for x in depth:
        mean, weight = mean * keep + x, weight * keep + 1.0
        out.append(mean / weight)
    return np.append(np.nan, out)[np.cumsum(change)]


def test_the_microprice_finds_a_planted_drift() -> None:
    """Where the mid's next move follows the imbalance, the fitted table rises with it, is antisymmetric, and is used."""
    rng = np.random.default_rng(3)
    recs = random_walk(1, 20_000)
    recs["kind"] = Kind.BBO
    bid = 6_000_000
    for r in recs:
        lots = rng.integers(1, 100, 2)
        r["bid_ticks"], r["ask_ticks"] = bid - np.arange(5), bid + 1 + np.arange(5)
        r["bid_lots"][0], r["ask_lots"][0] = lots
        if rng.random() < 0.2:
            bid += 1 if rng.random() < lots[0] / lots.sum() else -1
    table = fit_microprice(recs)
    assert table.shape == (MICRO_SPREADS, MICRO_IMBALANCES)
    np.testing.assert_allclose(table, -table[:, ::-1], atol=1e-9)
    assert (np.diff(table[0]) > 0).all() and not table[1:].any()
    assert 0.05 < table[0, -1] < 0.5
    plain, fitted = signals_of(recs), signals_of(recs, microprices={0: table})
    share = (recs["bid_lots"][:, 0] / (recs["bid_lots"][:, 0] + recs["ask_lots"][:, 0]) * 10).astype(int).clip(0, 9)
    np.testing.assert_allclose(fitted["microprice"] - fitted["mid"], table[0][share], atol=1e-8)
    weight = recs["bid_lots"][:, 0] / (recs["bid_lots"][:, 0] + recs["ask_lots"][:, 0])
    np.testing.assert_allclose(plain["microprice"], recs["bid_ticks"][:, 0] + weight, atol=1e-8)
    with pytest.raises(ValueError, match="never moves"):
        fit_microprice(recs[:1])
    with pytest.raises(ValueError, match="4 x 10"):
        set_microprice(start_features(Strategy())[0], 0, np.zeros((2, 2)))


def test_a_mark_price_changes_no_book_and_no_window() -> None:
    """MARK records between the others say the book as it stands, and leave every other answer as it was."""
    recs = random_walk(4, 3000, stale_every=500)
    marks = np.repeat(recs, 2)
    marks["kind"][1::2] = Kind.MARK
    for name in ("bid_ticks", "bid_lots", "ask_ticks", "ask_lots", "flags"):
        marks[name][1::2] = 0
    marks["price_ticks"][1::2] = 1
    alone, among = signals_of(recs), signals_of(marks)
    assert among[::2].tobytes() == alone.tobytes()
    for name in ("mid", "score", "flags", "bid_ticks", "gate", "strength"):
        np.testing.assert_array_equal(among[1::2][name], alone[name], err_msg=name)
