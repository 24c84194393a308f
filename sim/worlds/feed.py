"""A feed with its arrays, driven by hand: wire frames go in, the market and depth records of a pipeline's feed come out.

The frames are Binance's (`diff`, `snapshot` and `ticker` write some); any text that trading.wire reads will do.

What this is not: a connection. A snapshot that the fold wants (`wanted`) is yours to send.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from trading.books import fold as market
from trading.instruments import Instrument, instrument_table
from trading.jit import Recs
from trading.records import DEPTH_RECORD, MARKET_RECORD


class Feed:
    """The fold of some instruments, in the order of their numbers; `params` are those of trading.books.fold.make_params."""

    def __init__(self, *instruments: Instrument, **params: Any) -> None:
        self.table = instrument_table(instruments)
        self.state = np.zeros(len(instruments), market.FEED_STATE)
        self.glob = np.zeros(1, market.FEED_GLOBAL)
        self.params = market.make_params(**params)
        self.out = np.zeros(market.MAX_MARKET_OUT, MARKET_RECORD)
        self.rows = np.zeros(market.MAX_DEPTH_OUT, DEPTH_RECORD)
        self.now = 1_000
        market.init(self.state, self.glob, self.table, self.params)

    def send(self, frame: Any, hint: int = 0, at_ns: int | None = None) -> tuple[Recs, Recs]:
        """Fold one frame (bytes, text, or what json makes text of); its MARKET_RECORDs and DEPTH_RECORDs, as copies.

        `hint` is the instrument of a frame that names none. `at_ns` is when it came; without it, 1 ns after the one before.
        """
        if not isinstance(frame, (bytes, str)):
            frame = json.dumps(frame, separators=(",", ":"))
        raw = frame.encode() if isinstance(frame, str) else frame
        buf = np.zeros(len(raw) + 16, np.uint8)
        buf[: len(raw)] = np.frombuffer(raw, np.uint8)
        self.now = self.now + 1 if at_ns is None else at_ns
        came = self.now - 1 if at_ns is None else at_ns
        m = market.on_frame(
            buf, 0, len(raw), self.now, came, hint, self.state, self.glob, self.params, self.table, self.out, self.rows
        )
        return self.out[:m].copy(), self.rows[: int(self.glob[0]["n_depth"])].copy()

    def count(self, name: str, symbol: int = 0) -> int:
        """A counter of the symbol's state (trading.books.state)."""
        return int(self.state[symbol][name])

    def wanted(self) -> int:
        """The instrument whose snapshot the last frame made the fold ask for; -1: none."""
        return int(self.glob[0]["want_symbol"])


def diff(
    first: int, last: int, bids: Any = (), asks: Any = (), prev: int | None = None, symbol: str = "BTCUSDT", ms: int = 1
) -> Any:
    """A depthUpdate of the update ids `first` to `last`, in its envelope; a level is (price, quantity), text; `prev`: USD-M's."""
    body: dict[str, Any] = {"e": "depthUpdate", "E": ms, "s": symbol, "U": first, "u": last}
    if prev is not None:
        body |= {"T": ms, "pu": prev}
    return {
        "stream": f"{symbol.lower()}@depth@100ms",
        "data": body | {"b": [list(x) for x in bids], "a": [list(x) for x in asks]},
    }


def snapshot(last: int, bids: Any = (), asks: Any = ()) -> Any:
    """A REST depth snapshot at the update id `last`."""
    return {"lastUpdateId": last, "bids": [list(x) for x in bids], "asks": [list(x) for x in asks]}


def ticker(u: int, bid: str, bid_qty: str, ask: str, ask_qty: str, symbol: str = "BTCUSDT") -> Any:
    """A spot bookTicker at the update id `u`."""
    return {
        "stream": f"{symbol.lower()}@bookTicker",
        "data": {"u": u, "s": symbol, "b": bid, "B": bid_qty, "a": ask, "A": ask_qty},
    }


def synced(feed: Feed, last: int = 100, bids: Any = (("99", "1"),), asks: Any = (("101", "1"),)) -> None:
    """Bring a spot symbol 0 into step at update id `last`."""
    feed.send(diff(last, last))
    feed.send(snapshot(last - 1, bids, asks))
    assert feed.count("phase") == market.SYNCED
