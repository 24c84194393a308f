"""The oracle has teeth: a builder that applies the snapshot on arrival, without buffering, ends crossed on real data."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import orjson
import pytest
from market_feed import RECORDINGS, read_recording


@pytest.mark.recordings
def test_a_snapshot_applied_on_arrival_ends_crossed(recordings: Path) -> None:
    """Spot BTCUSDT: diffs applied as they come, the snapshot put over them when it arrives, no id ever looked at. The book ends
    crossed, and differs from the venue's bookTicker at most of the update ids where both stand."""
    frames, _ = read_recording(recordings, RECORDINGS["spot BTCUSDT"][1])
    bids: dict[Decimal, Decimal] = {}
    asks: dict[Decimal, Decimal] = {}
    tickers: dict[int, tuple[Decimal, Decimal]] = {}
    met, equal = 0, 0
    for raw in frames:
        message = orjson.loads(raw)
        body = message.get("data", message)
        if body.get("e") == "depthUpdate" or "lastUpdateId" in body:
            if "lastUpdateId" in body:
                bids, asks = {}, {}
            for side, names in ((bids, ("b", "bids")), (asks, ("a", "asks"))):
                for price, qty in body.get(names[0]) or body.get(names[1]) or ():
                    side[Decimal(price)] = Decimal(qty)
                    if side[Decimal(price)] == 0:
                        del side[Decimal(price)]
            if body.get("u") in tickers and bids and asks:
                met += 1
                equal += (max(bids), min(asks)) == tickers[body["u"]]
        elif "b" in body and "B" in body:
            tickers[body["u"]] = Decimal(body["b"]), Decimal(body["a"])
    assert max(bids) >= min(asks), f"best bid {max(bids)}, best ask {min(asks)}"
    assert met > 500 and equal < met
