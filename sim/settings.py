"""The settings of the simulated world: latency, queue model, generator."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from trading.settings import Positive, Section, Share

Ms = Annotated[float, Meta(gt=0.0, le=60_000.0)]


class Latency(Section, frozen=True):
    """One-way delays, drawn per message from a seeded uniform law in [min_ms, max_ms], kept in order as TCP keeps them."""

    entry_min_ms: Ms = 5.0
    entry_max_ms: Ms = 50.0
    response_min_ms: Ms = 5.0
    response_max_ms: Ms = 50.0


class SimulatedExchange(Section, frozen=True):
    """The venue that paper and replay trade at."""

    seed: Annotated[int, Meta(ge=0)] = 1
    latency: Latency = Latency()
    queue_power: Positive = 2.0  # of the probability queue model; larger: cancels come from behind us
    taker_depth_share: Share = 1.0  # share of the visible quantity that a taker may get


class Generator(Section, frozen=True):
    """The embedded market."""

    seed: Annotated[int, Meta(ge=0)] = 7
    start_price: Positive = 60_000.0
    duration_s: Positive = 315_360_000.0  # ten years: in practice it has no end
    events_per_s: Positive = 150.0
    volatility_bps_per_s: Positive = 1.0
    buy_pressure_half_life_s: Positive = 2.0
