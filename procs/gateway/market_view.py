"""The gateway's picture of the run: the newest market and signal record of each symbol, and candles made from the trades.

It is brought up to date by `look`, which costs what has happened since the last one. Candles are the gateway's own: they begin
when it does, and where the ring lapped it they say INCOMPLETE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from procs.board import Words
from procs.gateway.decimals import Scale
from procs.gateway.explain import finite
from procs.gateway.follow import Follower
from procs.gateway.shapes import Candle, CandlePair
from procs.gateway.timeframes import TimeframeFigures, Timeframes
from trading import candles as candle_kernels
from trading.candles import DEFAULT_SIZES_NS, GAPLESS_IDS, CandleFlag, closed_candles, make_candles, open_candle, size_name
from trading.instruments import Market
from trading.jit import Recs, kernel
from trading.records import MARKET_RECORD, SIGNAL_RECORD, Kind
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


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """The features of one symbol at one record. `warm`: names of those that have seen enough, None where that is not said."""

    ts_ns: int
    publish_mono_ns: int
    values: dict[str, float]
    warm: list[str] | None


class FeatureSource(Protocol):
    """Where `/features` gets its values from."""

    name: str
    version: int

    def newest(self, symbol: int) -> FeatureRow | None:
        """The symbol's latest features, None while there are none."""


class SignalRecordFeatures:
    """The numeric fields of the signal record, as features."""

    name: str = "signals"
    version: int = 1
    LEFT_OUT: Final = ("ts_ns", "seq", "spare", "strength")

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        names = SIGNAL_RECORD.names or ()
        header = set(MARKET_RECORD.names or ()) & {"cause_seq", "cause_ring", "kind", "symbol", "flags"}
        self._names = [n for n in names if n not in self.LEFT_OUT and n not in header and not n.endswith("_mono_ns")]

    def newest(self, symbol: int) -> FeatureRow | None:
        """As FeatureSource says."""
        record = self._follower.newest_of(symbol)
        if record is None:
            return None
        values = {name: finite(record[name]) for name in self._names if record[name].ndim == 0}
        return FeatureRow(int(record["ts_ns"]), int(record["ts_publish_mono_ns"]), values, None)


class MarketView:
    """One run's market and signals. `market`, `signals`: the rings' payload words."""

    def __init__(self, market: Words, signals: Words, instruments: Recs, names: Sequence[str], strategy: Strategy) -> None:
        self.names: Final = tuple(names)
        self.instruments: Final = instruments
        self.scales: Final = [Scale(row) for row in instruments]
        self.market: Final = Follower(market, MARKET_RECORD, len(names), (Kind.DEPTH, Kind.STALE))
        self.signals: Final = Follower(signals, SIGNAL_RECORD, len(names), (Kind.SIGNAL, Kind.SIGNAL))
        self.features: FeatureSource = SignalRecordFeatures(self.signals)
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
        for recs, _ in self.signals.look():
            work += len(recs)
        return work

    @property
    def ended(self) -> bool:
        """Whether the market's END was seen."""
        return self.market.ended

    @property
    def lost(self) -> int:
        """Records that were overwritten before they were looked at."""
        return self.market.lost + self.signals.lost

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
