"""The kinds of files that are read, a row each: how one is recognised, what it gives, and by which function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from procs.archives import bars, binance_public, bybit_public, ccapi, freqtrade, tardis_windows
from procs.archives.events import Told
from procs.archives.sources import Source, sources_of
from procs.recordings.output import RecordingsError

FRAMES, EVENTS, BARS = "frames", "events", "bars"
PRINTS, BOOK, QUOTES = 0, 1, 2
"""Messages of one time are taken in this order: a book has the prints of its time in its quantities already."""
Read = Callable[[Source, Told, str], Iterator[Any]]


def _unknown(_: Source) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of file. gives: FRAMES (the venue's own messages), EVENTS (somebody else's word of the market) or BARS (candles).

    read: its contents one after another; together: of all files of the kind at once, where their order depends on one another.
    beside: of no interest alone, since another reader has it then.
    """

    name: str
    family: str
    gives: str
    fits: Callable[[Source], bool]
    symbol_of: Callable[[Source], str]
    read: Read | None = None
    together: Callable[[Sequence[tuple[Source, Told]], str], Iterator[Any]] | None = None
    market_of: Callable[[Source], str] = _unknown
    rank: int = PRINTS
    beside: bool = False


KINDS: Final = (
    Kind("Binance aggTrades", "Binance", FRAMES, binance_public.is_agg_trades, binance_public.symbol_of,
         binance_public.agg_trades, market_of=binance_public.market_of),
    Kind("Binance trades", "Binance", FRAMES, binance_public.is_trades, binance_public.symbol_of, binance_public.trades,
         market_of=binance_public.market_of),
    Kind("Binance klines", "Binance", BARS, binance_public.is_klines, binance_public.symbol_of, binance_public.klines),
    Kind("Binance T_DEPTH", "Binance", FRAMES, binance_public.is_depth, binance_public.symbol_of, together=binance_public.depth,
         market_of=binance_public.market_of, rank=BOOK),
    Kind("Bybit order book archive", "Bybit", FRAMES, bybit_public.is_book, bybit_public.symbol_of, bybit_public.book, rank=BOOK),
    Kind("Bybit contract trades", "Bybit", FRAMES, bybit_public.is_contract_trades, bybit_public.symbol_of,
         bybit_public.contract_trades),
    Kind("Bybit spot trades", "Bybit", FRAMES, bybit_public.is_spot_trades, bybit_public.symbol_of, bybit_public.spot_trades),
    Kind("tardis book_snapshot", "tardis", EVENTS, tardis_windows.is_windows, tardis_windows.symbol_of, tardis_windows.windows,
         market_of=tardis_windows.market_of, rank=BOOK),
    Kind("tardis trades", "tardis", EVENTS, tardis_windows.is_trades, tardis_windows.symbol_of, tardis_windows.trades,
         market_of=tardis_windows.market_of, beside=True),
    Kind("tardis quotes", "tardis", EVENTS, tardis_windows.is_quotes, tardis_windows.symbol_of, tardis_windows.quotes,
         market_of=tardis_windows.market_of, rank=QUOTES, beside=True),
    Kind("freqtrade trades", "freqtrade", EVENTS, freqtrade.is_trades, freqtrade.symbol_of, freqtrade.trades),
    Kind("freqtrade candles", "freqtrade", BARS, freqtrade.is_bars, freqtrade.symbol_of, freqtrade.bars),
    Kind("ccapi quotes", "ccapi", EVENTS, ccapi.is_quotes, ccapi.symbol_of, ccapi.quotes, rank=QUOTES),
    Kind("ccapi trades", "ccapi", EVENTS, ccapi.is_trades, ccapi.symbol_of, ccapi.trades),
    Kind("Lean trade bars", "Lean", BARS, bars.is_lean, bars.symbol_of, bars.lean_bars),
    Kind("candles in CSV", "CSV", BARS, bars.is_csv, bars.symbol_of, bars.csv_bars),
)  # fmt: skip
"""A file is of the first kind that fits it."""

OTHERS: Final = "recordings, wire captures, journals, hftbacktest npz, tardis incremental_book_L2, trades and quotes"


@dataclass(frozen=True, slots=True)
class Found:
    """A source and its kind."""

    source: Source
    kind: Kind


def kind_of(source: Source) -> Kind | None:
    """The first kind that fits."""
    return next((kind for kind in KINDS if kind.fits(source)), None)


def found_in(path: Path) -> list[Found]:
    """What a file holds that is known here; empty for a file of another room's, or of nobody's. Raises RecordingsError."""
    found = [(source, kind_of(source)) for source in sources_of(path)]
    if any(kind is None for _, kind in found) and any(kind is not None for _, kind in found):
        odd = next(source for source, kind in found if kind is None)
        raise RecordingsError(f"{odd.place}: {unknown(odd)}; unpack the archive and name the others")
    return [Found(source, kind) for source, kind in found if kind is not None]


def unknown(source: Source) -> str:
    """What to say of a file that is of no kind."""
    seen = ",".join(source.columns)[:120] if source.arrow else source.first[:120].decode("utf-8", "replace")
    names = ", ".join(kind.name for kind in KINDS if not kind.beside)
    return f"is of no kind that is known here (it begins {seen!r}); known are {OTHERS}, {names}"
