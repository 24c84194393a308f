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

from trading import features
from trading.batch import feature_matrix, signals_of
from trading.feature_vector import NAMES
from trading.microprice import MICRO_IMBALANCES, MICRO_SPREADS, fit_microprice, set_microprice
from trading.records import LEVELS, MARKET_RECORD, SIGNAL_RECORD, Flag, Kind
from trading.settings import Features, Strategy


def oracle(folder: Path, name: str, column: str) -> list[float | None]:
    """One column of a published indicator."""
    return [row[column] for row in json.loads((folder / f"{name}.standard.json").read_text())]


@pytest.mark.recordings
def test_indicators_of_bars_equal_published_ones(recordings: Path) -> None:
    """EMA 20, MACD 12/26, RSI 14, ATR 14, SMA 20 (the bands' middle) equal Skender's Stock.Indicators on its 502 bars."""
    folder = recordings / "oracles" / "skender"
    if not folder.is_dir():
        pytest.skip(f"no oracles in {folder}")
    with (folder / "default.csv").open() as rows:
        quotes = [[round(float(row[c]) * 100) for c in ("open", "high", "low", "close")] for row in csv.DictReader(rows)]
    recs = np.zeros(4 * len(quotes) + 1, MARKET_RECORD)
    for i, price in enumerate([price for quote in quotes for price in quote] + [quotes[-1][3]]):
        recs[i]["ts_ns"] = T0 // 10**9 * 10**9 + i * 250_000_000
        recs[i]["kind"], recs[i]["flags"] = Kind.BBO, Flag.BOOK_VALID
        recs[i]["bid_ticks"][0], recs[i]["ask_ticks"][0] = price - 1, price + 1
        recs[i]["bid_lots"][:LEVELS] = recs[i]["ask_lots"][:LEVELS] = 10
    for fast, slow in ((5, 20), (12, 26)):
        world = start_features(Strategy(features=Features(ema_fast=fast, ema_slow=slow)))
        state, out = world[0], np.zeros(1, SIGNAL_RECORD)
        got: dict[str, list[float]] = {name: [] for name in ("ema", "macd", "rsi", "atr", "sma", "deviation")}
        for i in range(len(recs)):
            features.on_market(recs, i, *world, out, 0)
            if i == 0 or i % 4:
                continue
            s = state[0]  # the bar before this record has just closed
            assert s["closed_bars"] == i // 4
            got["ema"].append((s["last_close"] + s["slow_offset"]) / 100)
            got["macd"].append((s["fast_offset"] - s["slow_offset"]) / 100)
            got["rsi"].append(float(s["rsi"]))
            got["atr"].append(float(s["atr"]) / 100)
            closes = s["bar_closes"][(s["window_bars"] - 1 - np.arange(20)) % 64] / 100
            # band_width = 4 deviations over the middle, band_z = (close - middle)/deviation: two equations for the middle
            z, width = float(s["band_z"]), float(s["band_width"])
            got["sma"].append(closes[0] / (1 + z * width / 4))
            got["deviation"].append(closes.std() - closes[0] / (1 + z * width / 4) * width / 4)
        wanted = (
            {"ema": ("ema", "ema"), "rsi": ("rsi", "rsi"), "atr": ("atr", "atr"), "sma": ("sma", "sma")}
            if slow == 20
            else {"macd": ("macd", "macd")}
        )
        for name, (file, column) in wanted.items():
            published = oracle(folder, file, column)
            pairs = [(a, b) for a, b in zip(got[name], published, strict=True) if b is not None]
            assert len(pairs) > 470, name
            mine, theirs = np.array(pairs).T
            np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(got["deviation"][19:], 0.0, atol=1e-9)


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
def test_best_quotes_and_kyle_from_the_raw_frames_alone(recordings: Path) -> None:
    """On bookTicker and trade frames of spot BTCUSDT read with json alone: OFI over ten seconds, weighted mid and Kyle's lambda
    equal the kernels' on market records made of the same frames."""
    frames, recv = read_recording(recordings, RECORDINGS["spot BTCUSDT"][1])
    quotes, trades = raw_best(frames[:20_000], recv[:20_000])
    full = market_records(RECORDINGS["spot BTCUSDT"], recordings)[:20_000]
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
