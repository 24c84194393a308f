"""One-way delays between us and the simulated venue: seeded, bounded, and in order as TCP keeps them.

A delay is a pure function of (seed, message number), drawn uniformly from [min, max]. A message that drew a shorter
delay than the one before it waits for that one: arrival = max(last arrival, sent + delay). No loss, no reconnects,
no burst congestion: those faults belong to the local venue that speaks the protocol.
"""

from __future__ import annotations

from typing import Final

from sim.rng import below
from sim.settings import Latency
from trading.jit import kernel

NS_PER_MS: Final = 1_000_000


def bounds_ns(latency: Latency) -> tuple[int, int, int, int]:
    """(entry min, entry max, response min, response max) in ns. Raises ValueError when a minimum exceeds its maximum."""
    entry = round(latency.entry_min_ms * NS_PER_MS), round(latency.entry_max_ms * NS_PER_MS)
    response = round(latency.response_min_ms * NS_PER_MS), round(latency.response_max_ms * NS_PER_MS)
    for name, (least, most) in (("entry", entry), ("response", response)):
        if least > most:
            raise ValueError(f"latency.{name}_min_ms {least / NS_PER_MS} is above {name}_max_ms {most / NS_PER_MS}; swap them")
    return *entry, *response


@kernel
def arrival_ns(seed: int, message: int, sent_ns: int, last_ns: int, least_ns: int, most_ns: int) -> int:
    """When the message sent at `sent_ns` arrives, the one before it having arrived at `last_ns`."""
    return max(last_ns, sent_ns + least_ns + below(seed, message, most_ns - least_ns + 1))
