"""What the receiver must know of a venue, without any I/O: a venue is one class that answers these questions.

A venue module turns symbols and wanted streams into connection plans (address, first messages), says what a frame is, how to ask
for a snapshot, and what its limits are. Sockets, clocks and retries are the receiver's (procs.receiver). Adding a venue is one
file here, one row in trading.venues.names and one test; docs/add-a-venue.md walks through it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from trading.instruments import Market
from trading.records import Stream


class VenueError(ValueError):
    """A venue's answer or a symbol cannot be used; the message names venue, place and remedy."""


Row = tuple[str, Any, Any]
"""(the symbol as frames name it, price, quantity); price or quantity None where a frame tells only the other."""

RESUBSCRIBE: Final = 20_000_000
"""A resubscription that carries a request id carries this plus the symbol's index: so a refusal tells whose it was."""
RESTREAM: Final = 30_000_000
"""Of one stream alone it carries this plus the stream's code."""
STREAMS: Final = len(Stream)


def code_of(symbol: int, stream: Stream) -> int:
    """One number for a symbol's stream: `code // STREAMS` is the symbol, `code % STREAMS` the Stream."""
    return symbol * STREAMS + stream


@dataclass(frozen=True, slots=True)
class VenueSymbol:
    """One symbol of a run. `index` is its id on every ring; `venue_name` is how the venue writes it ("BTC-USDT")."""

    index: int
    name: str
    venue_name: str
    tick_size: str = "0.01"
    lot_size: str = "0.00000001"


@dataclass(frozen=True, slots=True)
class Streams:
    """Which streams are wanted."""

    depth: bool = True
    trade: bool = True
    bbo: bool = True
    mark: bool = False
    depth_interval_ms: int = 100  # where the venue offers a choice
    snapshot_levels: int = 1000  # a side


@dataclass(frozen=True, slots=True)
class Limits:
    """What the venue bears from one IP address; the receiver never goes over it."""

    streams_per_connection: int = 1024
    client_messages_per_s: float = 5.0  # on one connection, pings and pongs included
    messages_shared: bool = False  # that rate holds for all connections of the address together
    requests_per_connection: int = 0  # subscribing and unsubscribing, on one connection within request_window_s; 0: no limit
    request_window_s: float = 3600.0
    connects_per_window: int = 300
    connect_window_s: float = 300.0
    lifetime_s: float = 24 * 3600.0  # of a connection; 0: no limit
    ping_interval_s: float = 0.0  # the client pings this often; 0: the venue pings and wants the pong
    silence_timeout_s: float = 60.0  # nothing at all from the venue for so long: the connection is dead
    rest_weight_per_minute: int = 6000


@dataclass(frozen=True, slots=True)
class RestRequest:
    """One GET. `weight` is what it costs of the venue's budget."""

    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    weight: int = 1


@dataclass(frozen=True, slots=True)
class ConnectionPlan:
    """One connection: `path` is appended to the stream base address; `messages` are sent after it stands, in order.

    A message that carries a request id carries its place, from 1: that is the `request_id` of what the venue answers.
    """

    path: str
    messages: tuple[bytes, ...]
    symbols: tuple[int, ...]  # indices of the symbols whose streams it carries
    book: bool = True  # it carries what their books are made of; False: prints and mark prices alone
    requests: int = 0  # what the messages cost of `requests_per_connection`; 0: one each
    streams: tuple[Stream, ...] = ()  # what it carries of each symbol; (): all that is wanted, but no mark prices


@dataclass(frozen=True, slots=True)
class InstrumentRules:
    """What the venue's instrument list says of one symbol; decimal strings as it prints them."""

    venue_name: str
    tick_size: str
    lot_size: str
    step_size: str
    min_qty: str
    max_qty: str
    min_notional: str
    trading: bool = True
    contract: str = ""  # linear or inverse, where it says so
    contract_size: str = ""  # what a quantity of 1 is (trading.instruments), where it says so


# ---- what a decoder finds in one frame


@dataclass(frozen=True, slots=True)
class Plain:
    """A message of a symbol, in integers: bytes of trading.wire.plain_frame."""

    symbol: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The venue confirms a subscription. symbols: those that it names, or () for all of the message `request_id`."""

    request_id: int = 0
    symbols: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """The venue refused something that we sent, in its words."""

    text: str
    request_id: int = 0


@dataclass(frozen=True, slots=True)
class Send:
    """Answer with this (an application-level pong, say)."""

    message: bytes


@dataclass(frozen=True, slots=True)
class Missed:
    """Messages of these symbols are missing: their books are not to be trusted."""

    symbols: tuple[int, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Closing:
    """The venue says that it will end this connection soon: open another."""

    text: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """Understood and of no use (a heartbeat, a channel that brings nothing that we keep). `what` names it for the counters."""

    what: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Not understood: counted and shown, its bytes are kept by the recorder."""

    why: str


Item = Plain | Subscribed | Refused | Send | Missed | Closing | Ignored | Unknown


class Decoder(ABC):
    """Reads the frames of one connection; keeps what that needs (sequences, channel numbers). Never raises on any bytes."""

    excerpt: bool = False
    """True: it is given one symbol's share of the connection only, so that a count over the whole of it tells nothing."""

    @abstractmethod
    def decode(self, raw: bytes, recv_ns: int) -> Sequence[Item]:
        """What this frame says, at least one item."""


class Venue(ABC):
    """One venue for one run's symbols and streams."""

    market: Market
    native: bool
    """As the venue's row in trading.venues.names says. True: the feed's compiled scanner reads market frames itself; the decoder
    sees only what `is_market_frame` denies."""
    arbitrates: bool = True
    """Whether a symbol's book messages carry the same ids on every connection. False: two lines cannot be told apart or joined;
    take one at a time, and let a new connection's snapshot end the old one's share."""

    def __init__(self, symbols: Sequence[VenueSymbol], streams: Streams) -> None:
        self.native = self.market.facts.native
        self.symbols: Final = tuple(symbols)
        self.streams: Final = streams

    @property
    @abstractmethod
    def limits(self) -> Limits:
        """The venue's limits."""

    @property
    @abstractmethod
    def stream_url(self) -> str:
        """Base address of its market streams."""

    @property
    @abstractmethod
    def rest_url(self) -> str:
        """Base address of its REST interface."""

    @abstractmethod
    def connections(self) -> Sequence[ConnectionPlan]:
        """How many connections and what each subscribes, within `limits`."""

    @abstractmethod
    def decoder(self) -> Decoder:
        """A decoder for a new connection."""

    def decoder_for(self, plan: ConnectionPlan) -> Decoder:
        """A decoder for a new connection of this plan, for venues whose frames mean what their connection says."""
        return self.decoder()

    @abstractmethod
    def resubscribe(self, symbol: int) -> Sequence[bytes]:
        """Messages that make the venue send the symbol's book anew within the stream; () where a snapshot comes by REST.

        The last one is what a refusal would refuse; where the venue knows request ids it carries RESUBSCRIBE plus the index.
        """

    def stream_messages(self, symbol: int, stream: Stream) -> Sequence[bytes]:
        """Messages that leave one stream of the symbol and enter it anew, for one that has died alone; () where there is none.

        A request id is RESTREAM plus the stream's code (`code_of`).
        """
        return ()

    def carried(self, plan: ConnectionPlan) -> tuple[Stream, ...]:
        """The streams of each symbol that a connection carries."""
        wanted = self.streams
        every = ((wanted.depth, Stream.DEPTH), (wanted.bbo, Stream.BBO), (wanted.trade, Stream.PRINTS))
        return plan.streams or tuple(stream for want, stream in every if want)

    @abstractmethod
    def snapshot_request(self, symbol: int) -> RestRequest | None:
        """How to fetch the symbol's book; None where it comes within the stream."""

    @abstractmethod
    def instruments_request(self) -> RestRequest:
        """How to fetch the instruments' rules."""

    def instruments_requests(self) -> Sequence[RestRequest]:
        """All requests that together list the run's instruments, for venues that list them by kind."""
        return (self.instruments_request(),)

    @abstractmethod
    def parse_instruments(self, raw: bytes) -> Mapping[str, InstrumentRules]:
        """Rules by venue_name. Raises VenueError."""

    def rest_weight_limit(self, raw: bytes) -> int | None:
        """Request weight a minute that an answer to `instruments_requests` grants; None where it says nothing of it."""
        return None

    def time_request(self) -> RestRequest | None:
        """How to ask the venue's clock; None where it has none."""
        return None

    def parse_time(self, raw: bytes) -> int:
        """The venue's clock, Unix ns. Raises VenueError."""
        raise VenueError(f"{self.market.label} tells no time")

    @staticmethod
    def rows(frame: Any) -> Iterable[Row]:
        """What a recorded frame prints, for the survey that finds a recording's symbols, ticks and lots before it is decoded.

        `frame` is untyped JSON whose numbers kept their text. Be generous: step over what is not known, raise what bad input
        raises. Without rows only our own recordings, which say all of that at their beginning, can be replayed.
        """
        return ()

    @staticmethod
    def is_own(frame: Any) -> bool:
        """Whether a frame that has `rows` is of this venue by all that its frames must have: where another venue's look like it.
        May raise what bad input raises."""
        return True

    def printed_name(self, venue_name: str) -> str:
        """How frames name the symbol that the list of instruments calls `venue_name`."""
        return venue_name

    def ping_message(self, now_ns: int) -> bytes | None:
        """An application-level ping, sent every `limits.ping_interval_s`; None: a WebSocket ping frame."""
        return None

    def is_market_frame(self, raw: bytes) -> bool:
        """native venues: whether these bytes go straight to the feed."""
        return False

    def stream_code(self, raw: bytes) -> int:
        """native venues: `code_of` the stream that a market frame came by, -1 if it is none of ours. Cheap: it runs on every
        frame."""
        return -1

    def symbol_of(self, raw: bytes) -> int:
        """native venues: index of the symbol that a market frame is about, -1 if it is none of ours."""
        return self.stream_code(raw) // STREAMS
