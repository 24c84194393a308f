"""The shapes of the gateway's answers. Their fields are the JSON's keys, and the OpenAPI document is made from them.

Prices and quantities are decimals as text, exactly as the venue would print them, beside the integers (ticks, lots) that the
pipeline works with; what is an average or a score is a float. Times are Unix ns, ages ms.
"""

from __future__ import annotations

import msgspec


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all answers."""


class Gate(Shape, frozen=True):
    """The gate that holds a side back; `name` is NONE where none does."""

    name: str
    sentence: str


class Regime(Shape, frozen=True):
    """The kind of market, as the features process numbers it; 0: not known."""

    number: int
    name: str


class OwnSignal(Shape, frozen=True):
    """What became of the calls of a user's own signal. `off_from`: the market record from which it is off; None: it is on."""

    not_finite: int
    faults: int
    off_from: int | None


class SignalWord(Shape, frozen=True):
    """One signal. `state`: active (it votes), silent (it is warm and says nothing), warming, or off
    (a user's own that failed; no model votes).

    `own` is None for a built-in one.
    """

    key: str
    state: str
    strength: float
    reason: str
    own: OwnSignal | None = None


class Decision(Shape, frozen=True):
    """What the ensemble makes of a market record. `side`: BUY, SELL or NONE, after the gates; `leading`: the signal that votes
    most for the side that the score leans to, None where none does."""

    side: str
    score: float
    confidence: float
    urgency: float
    long_threshold: float  # the score from which a buy is asked for, as the regime has moved it; 0: no usable book
    short_threshold: float  # ... and the one down to which a sale is
    gate: Gate
    regime: Regime
    leading: str | None
    signals: list[SignalWord]


class Level(Shape, frozen=True):
    """One price level."""

    price: str
    qty: str
    price_ticks: int
    qty_lots: int


class Ages(Shape, frozen=True):
    """Milliseconds since the pipeline published each record."""

    market_ms: float
    signal_ms: float | None = None


class Microstructure(Shape, frozen=True):
    """The market around the top of the book. Imbalances are (bids - asks)/(bids + asks) of quantity, -1..1.

    `score` (0..100), `microprice`, `vpin` (0..1), `order_flow` (best-quote OFI over the average depth), `patterns` (on the bar
    that closed last) and the volatilities are the pipeline's own, of the signal record; None: not warm.
    """

    bid: Level | None
    ask: Level | None
    mid: float | None
    microprice: float | None
    spread: str | None
    spread_bps: float
    score: float | None
    vpin: float | None
    order_flow: float
    patterns: list[str]
    top_imbalance: float | None
    depth_imbalance: float | None
    volatility: float
    volatility_pct_minute: float
    atr: float
    atr_bps: float | None


class Timing(Shape, frozen=True):
    """How an entry would be sent, by the profile's `execution` section. `price` is None for MARKET."""

    side: str
    order_type: str
    price: str | None
    why: str
    max_hold_s: float


class Size(Shape, frozen=True):
    """How much an entry would buy or sell, by the kernel that risk uses; `refusal` says why it is 0."""

    side: str
    qty: str
    qty_lots: int
    notional: str
    stop_price: str
    stop_distance: str
    refusal: str | None
    assumptions: list[str]


class Candle(Shape, frozen=True):
    """One candle of trades, by exchange time. `flags`: OPEN, INCOMPLETE, AMENDED, OVERFLOW."""

    open_time_ns: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    buy_volume: str
    trades: int
    flags: list[str]


class CandlePair(Shape, frozen=True):
    """The last closed candle of a size and the one in the making; None where there is none yet."""

    closed: Candle | None
    open: Candle | None


class Timeframe(Shape, frozen=True):
    """What the closed candles of the size `tf` say, since the gateway began; what has not seen enough is None.

    `trend`: UP, DOWN or FLAT, the fast EMA of the closes against the slow one; `volatility`: deviation of the closes' returns a
    second, as a fraction. `last`: the last closed candle. The decision is not made of this: see `decided_by`.
    """

    tf: str
    candles: int
    warm: bool
    trend: str | None
    ema_fast: float | None
    ema_slow: float | None
    rsi: float | None
    atr: float | None
    atr_bps: float | None
    volatility: float | None
    volatility_pct_minute: float | None
    patterns: list[str]
    last: Candle | None
    decided_by: str = "the decision is the pipeline's, made at every market record; tf does not change it"


class SignalAnswer(Shape, frozen=True):
    """GET /signal/{symbol}."""

    symbol: str
    tf: str
    ts_ns: int
    ages: Ages
    decision: Decision
    microstructure: Microstructure
    timeframe: Timeframe
    timing: Timing
    size: Size
    candles: dict[str, CandlePair]


class BookAnswer(Shape, frozen=True):
    """GET /book/{symbol}. `state`: valid, or stale while the book does not follow the venue's sequence. `update_id`: of its last
    depth message, 0 where none was seen."""

    symbol: str
    state: str
    update_id: int
    ts_ns: int
    ts_exchange_ns: int
    ages: Ages
    bids: list[Level]
    asks: list[Level]


class FeatureValue(Shape, frozen=True):
    """One feature. `warm`: it has seen enough of the market; else `value` is 0."""

    value: float
    unit: str
    warm: bool


class FeaturesAnswer(Shape, frozen=True):
    """GET /features/{symbol}: the feature vector after one market record. `version`: of the vector's layout; `market_seq`: that
    record's sequence on the ring `market`. `state`: valid, or stale while the book is not usable and nothing is warm."""

    symbol: str
    version: int
    ts_ns: int
    market_seq: int
    state: str
    ages: Ages
    features: dict[str, FeatureValue]


class SymbolRow(Shape, frozen=True):
    """One symbol of the run. `contract`: linear or inverse; `contract_size`: what a quantity of 1 is, in units of the base
    currency (linear) or the quote currency (inverse); `settles_in`: what profit and fees are paid in, by its name."""

    name: str
    market: str
    tick_size: str
    lot_size: str
    min_notional: str
    contract: str
    contract_size: str
    settles_in: str
    take_signals: bool
    seen: bool


class SymbolsAnswer(Shape, frozen=True):
    """GET /symbols."""

    symbols: list[SymbolRow]
    timeframes: list[str]


class StageRow(Shape, frozen=True):
    """One process of the pipeline, as the board shows it. `state`: running, starting, finished or silent."""

    name: str
    state: str
    beat_age_ms: float
    records: int


class SymbolAge(Shape, frozen=True):
    """How fresh one symbol is; None: no record seen yet."""

    name: str
    market_ms: float | None
    signal_ms: float | None
    book: str


class Way(Shape, frozen=True):
    """How long something took, ns, since the run began; all 0 while there was none."""

    count: int
    p50_ns: int
    p99_ns: int
    max_ns: int


class HealthAnswer(Shape, frozen=True):
    """GET /healthz. `ok` is False, and the status 503, while anything in `problems` is wrong; `warnings` do not count: signals of
    the user's that are off, or answered with no finite number. `frame_to_order`: this machine's own latency, from a frame's
    arrival to the order's leaving, of orders alone; `venue_answer`: to the venue's answer, its simulated delay included."""

    ok: bool
    instance: str
    problems: list[str]
    warnings: list[str]
    stages: list[StageRow]
    symbols: list[SymbolAge]
    lost: int
    frame_to_order: Way
    venue_answer: Way


class Problem(Shape, frozen=True, omit_defaults=True):
    """Why there is no answer. `kind` is for programs, `message` for people."""

    kind: str
    message: str
    known: list[str] | None = None
    age_ms: float | None = None


class ErrorAnswer(Shape, frozen=True):
    """Every answer that is no 200, but for /healthz's."""

    error: Problem
