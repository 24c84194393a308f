"""`prices SYMBOL...`: last prices or candles, from the first source that has them, each with its source, age and defects.

The trades of a living pipeline stand in when no endpoint answers, if that pipeline listens to the same venue's own streams: a
generated market's prices are nobody's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from procs import rundir
from procs.cli import running, symbols
from procs.cli.outcome import FAILED, OK, UNHEALTHY, USAGE, CliError
from procs.cli.report import use_kernel_cache
from procs.cli.table import Cell, Column, Paint, clip, paint_for, span, table
from procs.prices.answer import Answer, Candle, Ohlcv, Price, PriceError
from trading.venues.names import CCXT, VENUES

if TYPE_CHECKING:
    from procs.prices.trades import TradeCandles, TradeSource

PRICE_COLUMNS: Final = (
    Column("SYMBOL", right=False),
    Column("LAST"),
    Column("BID", keep=2),
    Column("ASK", keep=2),
    Column("AGE"),
    Column("STATE", right=False),
    Column("SOURCE", right=False, keep=1),
)
CANDLE_COLUMNS: Final = (
    Column("OPENED (UTC)", right=False),
    Column("OPEN"),
    Column("HIGH"),
    Column("LOW"),
    Column("CLOSE"),
    Column("VOLUME"),
    Column("", right=False),
)
GAPLESS: Final = tuple(it.label for it in VENUES if it.facts.gapless_ids)
Asked = dict[str, Any]
"""By symbol: a Price, an Ohlcv, or the PriceError that came instead."""


def prices(args: argparse.Namespace) -> int:
    """The command."""
    use_kernel_cache()  # what follows imports numba
    from procs.prices.source import MOST_CANDLES

    if args.limit > MOST_CANDLES:
        raise CliError(f"--limit {args.limit} is more than the {MOST_CANDLES} candles that can be asked for at once", USAGE)
    found = asyncio.run(_ask(args, addresses_of(args.endpoint or []), trade_sources(args)))
    errors = [answer for answer in found.values() if isinstance(answer, PriceError)]
    if len(errors) == len(found):
        raise errors[0]
    if args.json:
        print(json.dumps({name: shown(answer) for name, answer in found.items()}, indent=2, default=str))
    else:
        print("\n".join(lay_out(found, shutil.get_terminal_size((120, 40)).columns, paint_for(sys.stdout))))
    if errors:
        return FAILED
    return UNHEALTHY if any(answer.stale for answer in found.values()) else OK


def addresses_of(words: Sequence[str]) -> list[str]:
    """`rest=http://...` and `ccxt:<id>` as endpoints_of takes them."""
    found = []
    for word in words:
        address = word.removeprefix("rest=")
        if not (word.startswith(CCXT) or (word != address and address.startswith(("http://", "https://")))):
            raise CliError(f"--endpoint {word!r} is no endpoint: write rest=http://host:port or ccxt:<id>", USAGE)
        found.append(address)
    return found


async def _ask(args: argparse.Namespace, addresses: list[str], trades: Sequence[TradeCandles]) -> Asked:
    from procs.prices.endpoints import endpoints_of
    from procs.prices.source import PriceSource

    endpoints = endpoints_of(args.venue, addresses, timeout_s=max(args.timeout, 0.1), venues_dir=rundir.venues_dir())
    async with PriceSource(endpoints, trades) as source:
        if args.timeframe is None:
            return dict(await source.prices(args.symbols))

        async def one(symbol: str) -> Ohlcv | PriceError:
            try:
                return await source.ohlcv(symbol, args.timeframe, args.limit)
            except PriceError as error:
                return error

        names = list(dict.fromkeys(args.symbols))
        return dict(zip(names, await asyncio.gather(*(one(name) for name in names))))


def trade_sources(args: argparse.Namespace) -> list[TradeCandles]:
    """A living pipeline on the same venue (named by --instance, or the only one), then the recordings of --recording.

    A pipeline whose venue is reached at another address, which may be a simulated one, counts only if --instance names it.
    """
    from procs.prices.trades import RecordedTrades, RunSymbol, RunTrades, TradeCandles

    found: list[TradeSource] = []
    living = [args.instance] if args.instance else running.living()
    for instance in living if len(living) == 1 else []:
        profile = running.running_profile(instance)
        if profile is None or profile.source.kind != "live":
            continue
        elsewhere = [e.stream or e.rest for e in profile.live.endpoints if e.venue == args.venue]
        if elsewhere and not args.instance:
            continue
        own = [
            RunSymbol(
                s.name if (s.market or profile.live.venue) == args.venue else "",  # another venue's price is another price
                Decimal(repr(known.tick_size)),
                Decimal(repr(known.lot_size)),
                args.venue in GAPLESS,
            )
            for s, known in zip(profile.symbols, symbols.symbols_of(instance))
        ]
        if any(s.name for s in own):
            name = f"trades of pipeline {instance}" + (f" (from {elsewhere[0]})" if elsewhere else "")
            found.append(RunTrades(name, own, partial(market_records, instance)))
    if args.recording:
        found.append(RecordedTrades([Path(file) for file in args.recording]))
    return [TradeCandles(source, now_ns=time.time_ns) for source in found]


def market_records(instance: str) -> Any:
    """What a living pipeline's market journal holds, or, without a journal, its ring. Raises SourceFailed."""
    from procs import topology
    from procs.journal.file import JournalReader
    from procs.journal.format import JournalError, journal_path
    from procs.prices.answer import SourceFailed
    from ringbuf.plain import latest

    entry = topology.RING["market"]
    folder = running.journal_folder(instance)
    if folder is not None:
        with contextlib.suppress(JournalError):
            return JournalReader(journal_path(folder, entry.name), entry.record).records()
    try:
        with running.looking_at(instance) as memory:
            return latest(memory.ring(entry.name), entry.record, entry.capacity)
    except CliError as error:
        raise SourceFailed(str(error)) from None


# ---- showing ------------------------------------------------------------------------------------------------------------


def utc(ns: int) -> str:
    """A Unix time in ns as "2024-08-09 00:01:00" UTC."""
    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def shown(answer: Any) -> dict[str, Any]:
    """One answer for --json: decimals as text, times in ns."""
    if isinstance(answer, PriceError):
        return {"error": " ".join(str(answer).split()), "kind": type(answer).__name__}
    found = asdict(answer)
    if isinstance(answer, Ohlcv):
        found["partial"] = answer.partial
    return found


def state(answer: Answer) -> Cell:
    """What is wrong with an answer, in a word or two."""
    if answer.stale:
        return "stale", "red bold"
    return ("ok, after others failed", "yellow") if answer.failed else ("ok", "green")


def lay_out(found: Asked, width: int, paint: Paint) -> list[str]:
    """The answers as lines: last prices in one table, candles in one a symbol; what failed and why below."""
    lines: list[str] = []
    last = [answer for answer in found.values() if isinstance(answer, Price)]
    if last:
        lines += table(PRICE_COLUMNS, [_price_row(p) for p in last], width, paint)
    for answer in found.values():
        if isinstance(answer, Ohlcv):
            word = state(answer)
            head = f"{answer.symbol} {answer.timeframe}: {answer.source}, {span(answer.age_s * 1e9)} old"
            lines += ["", f"{paint(head, 'bold')}, {paint(*word) if isinstance(word, tuple) else word}"]
            lines += table(CANDLE_COLUMNS, [_candle_row(c) for c in answer.candles], width, paint)
    for name, answer in found.items():
        if isinstance(answer, PriceError):
            lines.append(paint(f"{name}: {' '.join(str(answer).split())}", "red"))
        else:
            lines += [clip(f"{name}: {source} gave nothing: {why}", width) for source, why in answer.failed]
    return lines[1:] if lines and not lines[0] else lines


def _price_row(p: Price) -> list[Cell]:
    bid, ask = ("-" if value is None else f"{value:f}" for value in (p.bid, p.ask))
    return [p.symbol, f"{p.last:f}", bid, ask, span(p.age_s * 1e9), state(p), p.source]


def _candle_row(c: Candle) -> list[Cell]:
    note = ("still open" if c.open_ended else "") + (", " if c.open_ended and c.incomplete else "")
    note += "trades may be missing" if c.incomplete else ""
    values = (f"{value:f}" for value in (c.open, c.high, c.low, c.close, c.volume))
    return [utc(c.open_time_ns), *values, (note, "yellow")]
