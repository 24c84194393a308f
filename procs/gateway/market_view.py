"""The gateway's picture of the run: the newest market, signal and feature record of each symbol, and candles made from the
trades.

It is brought up to date by `look`, which costs what has happened since the last one. Candles are the gateway's own: they begin
when it does, and where the ring lapped it they say INCOMPLETE.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from procs.gateway.decimals import Scale
from procs.gateway.follow import Follower
from procs.gateway.shapes import Candle, CandlePair
from procs.gateway.timeframes import TimeframeFigures, Timeframes
from procs.memory.board import Words
from trading import candles as candle_kernels
from trading.candles import DEFAULT_SIZES_NS, GAPLESS_IDS, CandleFlag, closed_candles, make_candles, open_candle, size_name
from trading.instruments import Market
from trading.jit import Recs, kernel
from trading.records import MARKET_RECORD, SIGNAL_RECORD, VECTOR_RECORD, Kind
from trading.settings import Strategy

TIMEFRAMES: Final = {size_name(size): size for size in DEFAULT_SIZES_NS}
"""1s 5s 15s 1m 5m, in ns."""
KEPT: Final = 128  # closed candles a size: only the last is shown, the others are for the timeframes' bars
_DEPTH: Final = int(Kind.DEPTH)
_SNAPSHOT: Final = int(Kind.SNAPSHOT)


@kernel
def note_updates(recs: Recs, update_ids: Words) -> None:
    """Keep the update id of each symbol's book as its last depth message or snapshot left it (a trade's id is the trade's)."""
    for i in range(len(recs)):
        kind, symbol = recs[i].kind, recs[i].symbol
        if (kind == _DEPTH or kind == _SNAPSHOT) and 0 <= symbol < len(update_ids):
            update_ids[symbol] = recs[i].update_id


class MarketView:
    """One run's market, signals and features. `market`, `signals`, `vectors`: the rings' payload words."""

    def __init__(
        self, market: Words, signals: Words, vectors: Words, instruments: Recs, names: Sequence[str], strategy: Strategy
    ) -> None:
        self.names: Final = tuple(names)
        self.instruments: Final = instruments
        self.scales: Final = [Scale(row) for row in instruments]
        self.market: Final = Follower(market, MARKET_RECORD, len(names), (Kind.DEPTH, Kind.STALE))
        self.signals: Final = Follower(signals, SIGNAL_RECORD, len(names), (Kind.SIGNAL, Kind.SIGNAL))
        self.vectors: Final = Follower(vectors, VECTOR_RECORD, len(names), (Kind.VECTOR, Kind.VECTOR))
        self.update_ids: Final = np.zeros(len(names), np.int64)
        gapless = [Market(int(row["market"])) in GAPLESS_IDS for row in instruments]
        self._candles = make_candles(len(names), ring=KEPT, counts_ids=gapless)
        self._timeframes = Timeframes(self._candles, strategy, instruments)

    def look(self) -> int:
        """Take what is new; how many records that was."""
        work = 0
        for recs, missed in self.market.look():
            if missed:
                for symbol in range(len(self.names)):
                    candle_kernels.interrupt(self._candles, symbol)
            for first in range(0, len(recs), KEPT // 2):  # so that no closed candle is overwritten before it is taken
                candle_kernels.on_records(self._candles, recs[first : first + KEPT // 2])
                self._timeframes.look()
            note_updates(recs, self.update_ids)
            work += len(recs)
        for follower in (self.signals, self.vectors):
            for recs, _ in follower.look():
                work += len(recs)
        return work

    @property
    def ended(self) -> bool:
        """Whether the market's END was seen."""
        return self.market.ended

    @property
    def lost(self) -> int:
        """Records that were overwritten before they were looked at."""
        return self.market.lost + self.signals.lost + self.vectors.lost

    def timeframe(self, symbol: int, tf: str) -> TimeframeFigures:
        """What a size's closed candles say."""
        return self._timeframes.figures(symbol, list(TIMEFRAMES).index(tf))

    def candles(self, symbol: int, tf: str) -> CandlePair:
        """The last closed candle and the open one."""
        size, scale = TIMEFRAMES[tf], self.scales[symbol]
        closed = closed_candles(self._candles, symbol, size)
        making = open_candle(self._candles, symbol, size)
        return CandlePair(
            closed=_candle(closed[-1], scale) if len(closed) else None, open=_candle(making[0], scale) if len(making) else None
        )


def _candle(found: Any, scale: Scale) -> Candle:
    return Candle(
        open_time_ns=int(found["open_time_ns"]),
        open=scale.price(found["open_ticks"]),
        high=scale.price(found["high_ticks"]),
        low=scale.price(found["low_ticks"]),
        close=scale.price(found["close_ticks"]),
        volume=scale.qty(found["volume_lots"]),
        buy_volume=scale.qty(found["buy_volume_lots"]),
        trades=int(found["trades"]),
        flags=[str(flag.name) for flag in CandleFlag if int(found["flags"]) & flag],
    )
