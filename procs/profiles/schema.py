"""What a profile may say: every section and key with its type, range and default. Data only; procs.profiles.config loads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import Meta

from sim.settings import Generator, SimulatedExchange
from trading.settings import Section, Strategy
from trading.venues.names import CCXT, DEFAULT, NAMES, Market

if TYPE_CHECKING:
    from trading.instruments import Instrument

NAME_PATTERN: Final = r"^[a-z0-9_-]{1,24}\Z"

MARKET_PATTERN: Final = rf"^(|{'|'.join(NAMES)}|{CCXT}[a-z0-9_]{{2,32}})\Z"
"""Where a symbol is traded: a venue with a decoder of its own, or any that ccxt.pro speaks to."""

DecimalText = Annotated[str, Meta(pattern=r"^[0-9]{1,15}(\.[0-9]{1,15})?\Z")]
SizeText = Annotated[str, Meta(pattern=r"^(|[0-9]{1,15}(\.[0-9]{1,15})?)\Z")]
Count = Annotated[int, Meta(ge=0, le=100_000_000)]
Millis = Annotated[int, Meta(ge=1, le=3_600_000)]
FeeBps = Annotated[float, Meta(ge=-100.0, le=1000.0)]


class SymbolSettings(Section, frozen=True):
    """One symbol; the fields of trading.instruments.Instrument (a test holds the two together)."""

    name: Annotated[str, Meta(pattern=r"^\S{1,64}\Z")]  # trading.symbol_names says which; relations refuses others by the letter
    market: Annotated[str, Meta(pattern=MARKET_PATTERN)] = ""  # "": the venue of `live`, else DEFAULT
    venue_name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9/:_.-]{0,48}\Z")] = ""  # how the venue writes it; "": as `name`
    tick_size: DecimalText = "0.01"
    lot_size: DecimalText = "0.00000001"
    step_size: DecimalText = "0.00001"
    min_qty: DecimalText = "0.00001"
    max_qty: DecimalText = "9000"
    min_notional: DecimalText = "5"
    maker_fee_bps: FeeBps | None = None  # None: what the venue takes by default
    taker_fee_bps: FeeBps | None = None
    make_market: bool = True
    take_signals: bool = True
    contract: Literal["", "linear", "inverse"] = ""  # "": as the venue says, else by its row in trading.venues.names
    contract_size: SizeText = ""

    def placed(self, venue: str) -> SymbolSettings:
        """The same with its market, its venue's name for it, and fees. `venue`: where it is traded if it names none."""
        market = self.market or venue
        facts = Market.of(market).facts
        return msgspec.structs.replace(
            self,
            market=market,
            venue_name=self.venue_name or self.name,
            maker_fee_bps=facts.maker_fee_bps if self.maker_fee_bps is None else self.maker_fee_bps,
            taker_fee_bps=facts.taker_fee_bps if self.taker_fee_bps is None else self.taker_fee_bps,
        )

    def instrument(self) -> Instrument:
        """The same as an Instrument. Imports trading.instruments, thus numba: only stages call this."""
        from trading.instruments import Instrument

        fields = msgspec.structs.asdict(self.placed(DEFAULT.label))
        del fields["venue_name"]
        fields["market"] = Market.of(fields["market"])
        return Instrument(**fields)


class SourceSettings(Section, frozen=True):
    """Where market data comes from. `speed` 1 is the recorded pace; "max" as fast as it goes."""

    kind: Literal["generated", "recording", "live"] = "generated"
    files: tuple[str, ...] = ()
    speed: Literal["max"] | Annotated[float, Meta(gt=0.0, le=1_000_000.0)] = 1.0


Url = Annotated[str, Meta(pattern=r"^(|(wss?|https?)://[^\s/?#]+(/[^\s?#]*)?)\Z")]
Seconds = Annotated[float, Meta(gt=0.0, le=86_400.0)]


class EndpointSettings(Section, frozen=True):
    """Other addresses for one venue: a test network, a proxy, or `scalperctl venue`."""

    venue: Annotated[str, Meta(pattern=MARKET_PATTERN)]
    stream: Url = ""
    rest: Url = ""


class LiveSettings(Section, frozen=True):
    """Real venues' market data: where from, which streams, how carefully. Limits of the venue itself are in its module."""

    venue: Annotated[str, Meta(pattern=MARKET_PATTERN)] = DEFAULT.label  # of symbols that name no market
    endpoints: tuple[EndpointSettings, ...] = ()  # addresses that replace a venue's own
    lines: Annotated[int, Meta(ge=1, le=2)] = 1  # 2: every stream twice, whichever is first counts
    trade: bool = True
    bbo: bool = True
    mark: bool = False
    depth_interval_ms: Annotated[int, Meta(ge=0, le=1000)] = 100  # one of DEPTH_INTERVALS_MS
    snapshot_levels: Annotated[int, Meta(ge=5, le=5000)] = 1000
    transport: Literal["auto", "picows", "websockets"] = "auto"
    rotate_hours: Annotated[float, Meta(gt=0.0, le=24.0)] = 23.0  # a connection is replaced before the venue ends it
    backoff_min_ms: Annotated[int, Meta(ge=10, le=60_000)] = 250
    backoff_max_ms: Annotated[int, Meta(ge=10, le=600_000)] = 30_000
    silence_timeout_s: Seconds = 60.0
    stream_age_ms: Annotated[int, Meta(ge=500, le=600_000)] = 2000  # a stream that owes a message for longer is dead
    rest_weight_share: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.5  # of the venue's budget a minute that we may use
    resyncs_per_minute: Annotated[int, Meta(ge=1, le=600)] = 30
    clock_interval_s: Seconds = 60.0
    arena_mb: Annotated[int, Meta(ge=1, le=1024)] = 16
    fetch_rules: bool = True  # ticks, lots and limits of the symbols from the venue, over what the profile says


class RecordSettings(Section, frozen=True):
    """What `record` (and a live pipeline with `raw: true`) keeps of the wire."""

    raw: bool = False
    folder: str | None = None  # None: below the instance's state directory
    rotate_minutes: Annotated[float, Meta(gt=0.0, le=1440.0)] = 60.0
    rotate_mb: Annotated[int, Meta(ge=1, le=100_000)] = 512
    flush_s: Annotated[float, Meta(gt=0.0, le=60.0)] = 1.0  # longest time that a frame waits for the disk
    sync: Literal["never", "flush", "rotate"] = "rotate"  # when fsync is called
    level: Annotated[int, Meta(ge=1, le=9)] = 6  # of gzip


class PipelineSettings(Section, frozen=True):
    """How processes wait, checkpoint, and use the machine."""

    wait: Literal["auto", "spin", "yield", "block"] = "auto"
    placement: Literal["separate", "grouped", "auto"] | tuple[tuple[str, ...], ...] = "separate"  # who shares a thread
    spin_iterations: Count = 2  # idle polls before a blocking stage sleeps; more only pays with a core a stage
    checkpoint_every: Annotated[int, Meta(ge=1, le=1024)] = 256  # records between two checkpoints of a stage
    cores: Literal["auto", "none"] | tuple[Annotated[int, Meta(ge=0, le=65_535)], ...] = "auto"
    numa: bool = True
    huge_pages: bool = False
    lock_memory: bool = False
    journal: bool = True
    journal_vectors: bool = False  # the feature vectors too: half a kilobyte a market record
    journal_dir: str | None = None  # None: below the instance's state directory
    exchange: str = "exchange"  # the stage that plays the exchange (procs.topology)


class SupervisorSettings(Section, frozen=True):
    """Restart intensity, back-off, and how long silence is borne."""

    max_restarts: Annotated[int, Meta(ge=0, le=1_000_000)] = 10  # of one stage within window_s; one more is a crash loop
    window_s: Annotated[float, Meta(gt=0.0, le=86_400.0)] = 60.0
    backoff_min_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 100
    backoff_max_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 5000
    heartbeat_timeout_ms: Annotated[int, Meta(ge=50, le=3_600_000)] = 2000
    start_timeout_ms: Millis = 20_000  # from spawn to ready
    stop_timeout_ms: Millis = 10_000  # for END to run through all stages


HostName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.:-]{0,252})\Z|^::1?\Z")]


class GatewaySettings(Section, frozen=True):
    """The read-only HTTP gateway (extra `web`). It answers only requests that were made to a name that it knows."""

    enabled: bool = False  # not started in world record
    host: HostName = "127.0.0.1"  # address to listen on
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8000  # 0: any free one, named in its log
    hosts: tuple[HostName, ...] = ()  # names besides loopback's that Host and Origin may have
    token_file: str | None = None  # holds the word that requests must carry; needed where host is not loopback's
    stale_after_ms: Millis = 10_000  # older market data is answered with 503


class Profile(Strategy, frozen=True):
    """Everything that an instance is told. The strategy's sections stand at the top level."""

    instance: Annotated[str, Meta(pattern=NAME_PATTERN)] = "paper"
    world: Literal["paper", "replay", "record"] = "paper"
    source: SourceSettings = SourceSettings()
    symbols: tuple[SymbolSettings, ...] = ()
    exchange: SimulatedExchange = SimulatedExchange()
    generator: Generator = Generator()
    live: LiveSettings = LiveSettings()
    record: RecordSettings = RecordSettings()
    pipeline: PipelineSettings = PipelineSettings()
    supervisor: SupervisorSettings = SupervisorSettings()
    gateway: GatewaySettings = GatewaySettings()

    def instruments(self) -> tuple[Instrument, ...]:
        """The symbols as Instruments, in order (imports numba; see SymbolSettings.instrument)."""
        return tuple(s.instrument() for s in self.symbols)
