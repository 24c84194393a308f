"""What an entry would look like now: order type and price by the profile's `execution`, quantity by the kernel that risk uses.

Risk's own account is not read (it is no one else's business): the figures are those of a flat account with the profile's
equity, and every answer says so.
"""

from __future__ import annotations

from typing import Any, Final

from procs.gateway.decimals import Scale
from procs.gateway.explain import finite, side_name
from procs.gateway.shapes import Size, Timing
from trading.jit import Recs
from trading.records import Flag, OrderType, Side
from trading.risk import layout as risk_layout
from trading.risk import limits, sizing
from trading.settings import Strategy

LEANING: Final = "no side is asked for: computed for the side that the score leans to, as if it were asked for"


class Suggestions:
    """Sizing for the symbols of one run."""

    def __init__(self, strategy: Strategy, instruments: Recs) -> None:
        self._execution, self._risk = strategy.execution, strategy.risk
        self._instruments = instruments
        self._flat = risk_layout.at_start(strategy, instruments)
        self._assumptions = [
            f"equity {strategy.risk.equity:g}, as the profile says: profit and loss of the run are not counted",
            "no position and no open order in this symbol, none in any other",
            f"risk.base_risk_pct {strategy.risk.base_risk_pct:g} % of equity is lost at the stop, which is the larger of "
            f"{strategy.execution.atr_stop_multiplier:g} ATR and {strategy.execution.min_stop_bps:g} bps away",
            "bounded by risk.max_order_notional and risk.max_position_notional, rounded down to the venue's step",
        ]

    def side_of(self, signal: Any) -> int:
        """The side that a SIGNAL_RECORD asks for, else the one that its score leans to."""
        side = int(signal["side"])
        return side if side else int(Side.BUY if finite(signal["score"]) >= 50.0 else Side.SELL)

    def timing(self, scale: Scale, signal: Any, market: Any) -> Timing:
        """How risk would send an entry of this urgency."""
        urgency, settings = finite(signal["urgency"]), self._execution
        side = self.side_of(signal)
        order_type = OrderType.LIMIT
        why = f"urgency {urgency:.0f} is between execution.post_only_below ({settings.post_only_below:g}) and "
        why += f"market_urgency_threshold ({settings.market_urgency_threshold:g})"
        if urgency >= settings.market_urgency_threshold:
            order_type = OrderType.MARKET
            why = f"urgency {urgency:.0f} has reached execution.market_urgency_threshold ({settings.market_urgency_threshold:g})"
        elif urgency < settings.post_only_below:
            order_type = OrderType.POST_ONLY
            why = f"urgency {urgency:.0f} is below execution.post_only_below ({settings.post_only_below:g})"
        ticks = int(market["bid_ticks" if side > 0 else "ask_ticks"][0])
        return Timing(
            side=side_name(side),
            order_type=order_type.name,
            price=None if order_type is OrderType.MARKET or not ticks else scale.price(ticks),
            why=why,
            max_hold_s=settings.max_hold_minutes * 60.0,
        )

    def size(self, symbol: int, scale: Scale, signal: Any, market: Any, order_type: str) -> Size:
        """The quantity of that entry."""
        side = self.side_of(signal)
        assumptions = [*self._assumptions, *([] if int(signal["side"]) else [LEANING])]
        bid, ask = int(market["bid_ticks"][0]), int(market["ask_ticks"][0])
        if not int(market["flags"]) & Flag.BOOK_VALID or bid <= 0 or ask <= bid:
            return self._nothing(side, "the book is not usable: risk would refuse any entry", assumptions)
        state = self._flat.state
        state[symbol]["bid_ticks"], state[symbol]["ask_ticks"] = market["bid_ticks"], market["ask_ticks"]
        price = bid if side > 0 else ask
        valued = int(limits.value_ticks(state, symbol)) if order_type == OrderType.MARKET.name else price
        distance = float(sizing.stop_distance_ticks(self._flat.params, 0.5 * (bid + ask), finite(signal["atr_ticks"])))
        lots = int(sizing.entry_lots(self._flat, symbol, side, valued, distance))
        refusal = None
        if lots == 0:
            refusal = "the limits leave no room for one step of the venue's"
        elif scale.notional_e8(valued, lots) < scale.min_notional_e8:
            refusal = "worth less than the venue's least notional"
        elif not int(self._instruments[symbol]["take_signals"]):
            refusal = "take_signals is false for this symbol: its signals open nothing"
        stop = round(distance)
        return Size(
            side=side_name(side),
            qty=scale.qty(lots),
            qty_lots=lots,
            notional=scale.money(scale.notional_e8(valued, lots)),
            stop_price=scale.price(valued - side * stop),
            stop_distance=scale.price(stop),
            refusal=refusal,
            assumptions=assumptions,
        )

    def _nothing(self, side: int, why: str, assumptions: list[str]) -> Size:
        return Size(
            side=side_name(side), qty="0", qty_lots=0, notional="0", stop_price="0", stop_distance="0", refusal=why,
            assumptions=assumptions,
        )  # fmt: skip
