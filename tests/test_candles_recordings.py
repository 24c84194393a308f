"""Candles of the venue's own trades against an independent group-by of the same trades, candle by candle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from candle_streams import all_candles, naive, recorded_trades, shown, streamed
from market_feed import RECORDINGS, read_recording

from sim.worlds.feed import Feed
from trading import candles as cd
from trading.candles import CandleFlag

SIZES = list(cd.DEFAULT_SIZES_NS)


@pytest.mark.parametrize("name", ["spot BTCUSDT", "spot ETHUSDT", "USD-M BTCUSDT", "USD-M ETHUSDT"])
def test_every_candle_of_every_size_is_the_group_by_of_its_trades(name: str, recordings: Path) -> None:
    """1 s, 5 s, 15 s, 1 min and 5 min: streamed and batch candles equal a plain group-by in every field; the ids have no gap,
    so only the first candle may lack trades."""
    instrument, files, _ = RECORDINGS[name]
    trades = recorded_trades(recordings, files, instrument.tick_size, instrument.lot_size)
    state = streamed([trades], SIZES, ring=1024, counts_ids=True)
    batch = cd.candles_of(*zip(*trades), counts_ids=True)
    for size in SIZES:
        wanted = naive(trades, size)
        got = all_candles(state, size)
        assert shown(got) == wanted and len(wanted) > 1
        assert got.tobytes() == batch[size].tobytes()
        flags = [CandleFlag.INCOMPLETE, *[CandleFlag(0)] * (len(got) - 2), CandleFlag.OPEN]
        assert got["flags"].tolist() == flags
    assert state.feeds[0]["trades"] == len(trades) and state.feeds[0]["gaps"] == 0 == state.series["late"].sum()


def test_polars_agrees(recordings: Path) -> None:
    """polars' group_by_dynamic over spot BTCUSDT gives the same OHLCV at every size."""
    instrument, files, _ = RECORDINGS["spot BTCUSDT"]
    trades = recorded_trades(recordings, files, instrument.tick_size, instrument.lot_size)
    frame = pl.DataFrame(trades, schema=["ts", "id", "ticks", "lots", "sell"], orient="row").with_columns(
        pl.from_epoch("ts", time_unit="ns")
    )
    for size, candles in cd.candles_of(*zip(*trades)).items():
        price = pl.col("ticks")
        rows = frame.group_by_dynamic("ts", every=f"{size}ns").agg(
            price.first().alias("open"), price.max().alias("high"), price.min().alias("low"), price.last().alias("close"),
            pl.col("lots").sum(), pl.len(), (price * pl.col("lots")).sum().alias("value"),
        )  # fmt: skip
        assert rows["ts"].dt.epoch("ns").to_list() == candles["open_time_ns"].tolist()
        for column, name in (("open", "open_ticks"), ("high", "high_ticks"), ("low", "low_ticks"), ("close", "close_ticks"),
                             ("lots", "volume_lots"), ("len", "trades")):  # fmt: skip
            assert rows[column].to_list() == candles[name].tolist(), (size, name)
        assert rows["value"].to_list() == [cd.notional(c) for c in candles]
        assert np.allclose(cd.vwap_ticks(candles), (rows["value"] / rows["lots"]).to_numpy(), rtol=1e-15)


def test_market_records_give_the_same_candles(recordings: Path) -> None:
    """The feed's market records, given one by one to `on_record`, make the candles of the bare trades."""
    instrument, files, _ = RECORDINGS["spot ETHUSDT"]
    frames, recv = read_recording(recordings, files[:1])
    feed = Feed(instrument)
    state = cd.make_candles(1, SIZES, counts_ids=[True])
    for frame in frames[:6000]:
        rows, _ = feed.send(frame)
        cd.on_records(state, np.ascontiguousarray(rows))
    trades = recorded_trades(recordings, files[:1], instrument.tick_size, instrument.lot_size)
    taken = int(state.feeds[0]["trades"])
    assert taken > 500
    for size in SIZES:
        assert shown(all_candles(state, size)) == naive(trades[:taken], size)
