"""A quoter that is no fold: it reads this machine's clock and lets it decide. For the test that such a stage is caught."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from procs import topology
from procs.fold.assembly import Bound, LoopSettings, World, emit, in_recs, in_row, own, own_words
from procs.fold.block import CALLS, MAX_CALLS
from procs.fold.far_calls import apart, link
from procs.fold.plan import Plan
from procs.stages import quoter
from ringbuf.intrinsics import mono_ns
from ringbuf.jit import Words
from trading.records import MARKET_RECORD, QUOTE_RECORD

STAGE: Final = replace(topology.STAGE["quoter"], module="clocked_quoter")
FIELDS: Final = ("bid_lots",)
state_spec: Any = quoter.state_spec


def build(plan: Plan, world: World, loop: LoopSettings) -> Bound:
    """The quoter, with another handler of market records."""
    bound = quoter.build(plan, world, loop)
    calls = bound.block[CALLS : CALLS + MAX_CALLS]
    before = calls.copy()
    link(bound.block, "clocked_quoter")
    mine = calls[quoter.MARKET]
    calls[:] = before
    calls[quoter.MARKET] = mine
    return bound


@apart(quoter.MARKET)
def _on_market(b: Words, now: int) -> None:
    recs, row = in_recs(b, quoter.MARKET, MARKET_RECORD), in_row(b, quoter.MARKET)
    head, origin = recs[row].seq - 1, recs[row].ts_origin_mono_ns
    n = quoter.quoting.on_market(recs, row, quoter._arrays(b))
    if n > 0:
        own(b, quoter.SCRATCH, QUOTE_RECORD)[0].bid_lots = 1 + mono_ns() % 3
        emit(b, quoter.QUOTES, own_words(b, quoter.SCRATCH, quoter.WIDTH), 0, quoter.MARKET_ID, head, origin, now)
