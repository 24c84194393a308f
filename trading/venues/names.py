"""Every venue, one row each: what other rooms have to know of a venue without loading its module. Other tables follow from this.

To add a venue is a row here and a file beside this one (docs/add-a-venue.md). Numbers are in recordings and journals: append,
never renumber. What a kernel takes from here is frozen when it is compiled.

What this module is not: it imports nothing of ours and loads no venue's class, so that every room may import it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

SPOT: Final = "spot"
LINEAR: Final = "linear"
INVERSE: Final = "inverse"


class SequenceRule(IntEnum):
    """How a venue's book messages follow one another (trading.books.sync_rules)."""

    SPOT = 0  # Binance spot's frames: first id == last id + 1
    USDM = 1  # the frames of Binance's futures: they name the message before
    PLAIN = 2  # what a typed decoder hands on: each names the message before, or says that none is numbered


class Checksum(IntEnum):
    """Which checksum of its books the feed verifies (trading.books.checksum)."""

    NONE = 0
    PRINTED = 1  # Kraken's: over ten levels a side, as the digits of the venue's own decimals
    SHORTEST = 2  # OKX's: over 25 levels, sides by turns, without zeros behind


class BestRule(IntEnum):
    """When a venue owes a best bid/offer message (trading.books.ages)."""

    CHANGES = 0  # whenever the best price or its quantity changes
    PRICES = 1  # whenever the best price changes
    PRINTS = 2  # with every print
    NEVER = 3  # nothing is known: it may be a summary that comes now and then


class Facts(NamedTuple):
    """What a row tells. A venue with a typed decoder needs `venue` alone: the defaults are of such a one."""

    venue: str  # module:class that speaks for it; "": none does
    native: bool = False  # its market frames go to the compiled scanner as they are
    sequence: SequenceRule = SequenceRule.PLAIN
    checksum: Checksum = Checksum.NONE
    many_in_one: bool = False  # a frame may tell of several symbols
    gapless_ids: bool = False  # a symbol's trades are numbered without gaps (every recording of it shows that)
    best: BestRule = BestRule.CHANGES  # what makes its best bid/offer stream speak
    lot_decimals: int | None = None  # decimals of a lot where a recording alone tells; None: those that it prints
    files: tuple[str, ...] = ()  # how names of its files and folders begin, upper case, besides its own name
    hosts: tuple[str, ...] = ()  # what parts of its hosts' names begin with; (): its own name
    ccxt: str = ""  # ccxt's id of it; "": ccxt is not asked
    kind: str = SPOT  # which kind of market a bare symbol such as BTCUSDT means to ccxt (the other where there is none)
    ccxt_lists: tuple[str, ...] = ()  # kinds of markets that ccxt shall list; (): all, perhaps of other hosts
    other_rest: tuple[str, ...] = ()  # addresses that it offers beside its first, for market data alone
    tardis: str = ""  # its name in Tardis' files; "": its own
    maker_fee_bps: float = 10.0  # of symbols for which the profile names none
    taker_fee_bps: float = 10.0
    inverse: tuple[tuple[str, str], ...] = ()  # (how names begin, worth of a contract in the quote currency) of inverse contracts


NO_MODULE: Final = Facts("", best=BestRule.NEVER)


class Market(IntEnum):
    """The venues: which rules a symbol's frames follow. Profiles, folders and recordings name a venue by its `label`."""

    facts: Facts

    def __new__(cls, number: int, facts: Facts = NO_MODULE) -> Market:
        """A member is its number, with its row beside it."""
        found = int.__new__(cls, number)
        found._value_ = number
        found.facts = facts
        return found

    BINANCE_SPOT = 1, Facts(
        "trading.venues.binance:BinanceSpot", native=True, sequence=SequenceRule.SPOT, gapless_ids=True, lot_decimals=8,
        files=("BINANCE", "SPOT_"), ccxt="binance", ccxt_lists=(SPOT,), tardis="binance",
        other_rest=("https://data-api.binance.vision",),
        hosts=("stream.binance", "api.binance", "api1.binance", "api2.binance", "api3.binance", "api4.binance", "api-gcp.binance",
               "ws-api.binance", "data-stream.binance", "data-api.binance", "testnet.binance"),
    )  # fmt: skip
    BINANCE_USDM = 2, Facts(
        "trading.venues.binance:BinanceUsdm", native=True, sequence=SequenceRule.USDM, gapless_ids=True,
        files=("BINANCE_FUTURES", "USDM_"), hosts=("fapi.binance", "fstream.binance"), ccxt="binanceusdm", kind=LINEAR,
        tardis="binance-futures",
    )  # fmt: skip
    BYBIT = 3, Facts("trading.venues.bybit:Bybit", ccxt="bybit", kind=LINEAR)
    OKX = 4, Facts("trading.venues.okx:Okx", checksum=Checksum.SHORTEST, hosts=("okx", "okex"), ccxt="okx")
    KRAKEN = 5, Facts(
        "trading.venues.kraken:Kraken", checksum=Checksum.PRINTED, many_in_one=True, best=BestRule.PRICES, ccxt="kraken",
    )  # fmt: skip
    COINBASE = 6, Facts("trading.venues.coinbase:Coinbase", many_in_one=True, best=BestRule.PRINTS, ccxt="coinbase")
    DERIBIT = 7, Facts("trading.venues.deribit:Deribit", ccxt="deribit", kind=LINEAR)
    CCXT = 8, NO_MODULE  # any venue that ccxt.pro speaks to, as ccxt:<id>
    BINANCE_COINM = 9, Facts(
        "trading.venues.binance:BinanceCoinm", native=True, sequence=SequenceRule.USDM, gapless_ids=True,
        files=("BINANCE_DELIVERY", "COINM_", "CM_"), hosts=("dapi.binance", "dstream.binance"), ccxt="binancecoinm", kind=INVERSE,
        tardis="binance-delivery", inverse=(("BTC", "100"), ("", "10")),
    )  # fmt: skip

    @property
    def label(self) -> str:
        """Its name as profiles write it."""
        return self.name.lower()

    @classmethod
    def of(cls, text: str) -> Market:
        """The venue that a profile names: "okx", or "ccxt:kucoin" for one of ccxt's. Raises KeyError."""
        return cls[text.partition(":")[0].upper()]


DEFAULT: Final = Market.BINANCE_SPOT
"""The venue of symbols that name none."""
VENUES: Final = tuple(it for it in Market if it.facts.venue)
"""Those with a module of their own."""
NAMES: Final = tuple(it.label for it in VENUES)
"""Their names, as profiles write them."""
NATIVE: Final = tuple(it.label for it in VENUES if it.facts.native)
"""Names of those whose market frames the compiled scanner reads."""
CCXT: Final = f"{Market.CCXT.label}:"
"""What a profile writes before ccxt's id of a venue."""
FILE_MARKS: Final = sorted(((mark, it) for it in VENUES for mark in (it.name, *it.facts.files)), key=lambda row: -len(row[0]))
HOST_MARKS: Final = sorted(
    ((part, it) for it in VENUES for part in it.facts.hosts or (it.label,)), key=lambda row: -len(row[0])
)  # fmt: skip
"""(mark, venue), the longest first: the first that fits tells the venue."""
