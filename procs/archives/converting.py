"""Files of other programs become a recording or candles; what comes out appears when it has been checked, or not at all.

What the venue itself sent (Binance's and Bybit's archives) goes into the recording with its own ids, so a gap in it shows. What
others say of a market is written in Binance's frames with made-up ids by `procs.recordings.wire_text`.

A row of a book snapshot is a window: its best levels. A level that is missing within the window, or beside a window with fewer
levels than it could hold, is gone. One that lies behind the window's last level is unknown, not gone: it keeps its last quantity
until the window reaches it again. So the best levels, as many as a row has, are right at every row; those behind them are what
was seen last.
"""

from __future__ import annotations

import gzip
import heapq
import tempfile
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from procs.archives import binance_public, bybit_public, candle_files
from procs.archives.events import Frame, Numbers, Print, Quote, Told, Window
from procs.archives.kinds import BARS, BOOK, FRAMES, KINDS, Found, found_in, unknown
from procs.archives.sources import sources_of
from procs.recordings import files
from procs.recordings.checking import Verdict, check, staged
from procs.recordings.convert import Tell, Wish
from procs.recordings.folding import Folded
from procs.recordings.output import RecordingsError, new_file
from procs.recordings.wire_text import ASK, BID, Change, FrameWriter, step_of, units_of_text
from procs.recordings.words import plain_name
from sim.recordings.spool import RecordingError
from trading.venues.names import NATIVE

CANDLES: Final = "candles"
DEFAULT_SIZE: Final = "1m"
_TOLD_EVERY: Final = 4096
_KEPT: Final = 1 << 16
"""Numbers whose texts are read but once."""
Pair = tuple[Found, Told]


def taken(paths: Sequence[Path], to: str) -> list[Found] | None:
    """What the files hold, if they are converted here; None where `procs.recordings.convert` does it. Raises RecordingsError."""
    found = {path: [] if _of_others(path) else found_in(path) for path in paths}
    ours = [it for path in paths for it in found[path]]
    if to != CANDLES and all(it.kind.beside for it in ours):
        ours = []  # without a window beside them the other converter reads them
    for path in paths:
        if found[path]:
            continue
        if not _of_others(path) and not _is_table(path):
            raise RecordingsError(f"{path}: {unknown(sources_of(path)[0])}")
        if ours:
            raise RecordingsError(f"{path} and {ours[0].source.place} are of different forms; convert one form at a time")
    return ours if ours or to == CANDLES else None


def is_known(path: Path) -> bool:
    """Whether a file is of a kind that is read here."""
    try:
        return bool(found_in(path))
    except RecordingsError:
        return False


def _of_others(path: Path) -> bool:
    """Recordings, captures, journals, event files."""
    return path.suffix in (".npz", ".npy") or files.look(path) is not None


def _is_table(path: Path) -> bool:
    """One of Tardis' that procs.recordings.tardis reads, or should."""
    return any(cell.strip().lower() == "local_timestamp" for source in sources_of(path) for cell in source.columns)


def convert(paths: Sequence[Path], found: Sequence[Found], wish: Wish, size: str, tell: Tell) -> dict[str, Any]:
    """Do it; what was made. Raises RecordingsError, sim.recordings.spool.RecordingError."""
    if wish.to not in ("recording", CANDLES):
        raise RecordingsError(
            f"{found[0].source.place}: {found[0].kind.name} can be made a recording or candles, not {wish.to}; "
            "make a recording first, and that of the recording"
        )
    families = sorted({it.kind.family for it in found})
    if len(families) > 1:
        raise RecordingsError(f"the files are of several sources ({', '.join(families)}); convert those of one at a time")
    gives = {it.kind.gives for it in found}
    if BARS in gives and len(gives) > 1:
        raise RecordingsError("candles and trades are given together; convert them one at a time")
    if wish.to == CANDLES:
        return _to_candles(paths, found, wish, size, tell)
    if BARS in gives:
        raise RecordingsError(
            f"{found[0].source.place}: {found[0].kind.name} hold neither prints nor a book, so no recording can be made of them; "
            "make a table of candles with --to candles"
        )
    pairs = [(it, Told(it.source)) for it in found]
    symbol = _symbol(found, wish)
    with new_file(wish.out, force=wish.force) as partial:
        made = _write(pairs, symbol, wish, partial, tell)
        tell(f"checking {wish.out.name}")
        verdict = _checked(partial, found, wish.out)
    notes = _notes(verdict, found)
    return {"out": str(wish.out), **made, "prints": verdict.trades, "read": [told.said for _, told in pairs], "notes": notes}


# ---- a recording


def _symbol(found: Sequence[Found], wish: Wish) -> str:
    """The symbol as the source writes it."""
    names = {name for it in found if (name := it.kind.symbol_of(it.source))}
    if len(names) > 1:
        raise RecordingsError(f"the files hold {', '.join(sorted(names))}; convert one symbol at a time")
    symbol = names.pop() if names else wish.symbol.upper()
    if not symbol:
        raise RecordingsError(f"{found[0].source.place}: does not say its symbol; give --symbol, e.g. --symbol BTCUSDT")
    return symbol


def _write(pairs: Sequence[Pair], symbol: str, wish: Wish, path: Path, tell: Tell) -> dict[str, Any]:
    with path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as out:
        if all(found.kind.gives == FRAMES for found, _ in pairs):
            head: list[bytes] = []
            if pairs[0][0].kind.family == "Bybit":
                head = bybit_public.head([it.source for it, _ in pairs], symbol, plain_name(symbol), wish.tick, wish.lot)
            else:
                market = _market(pairs, wish)
                if all(found.kind.rank != BOOK for found, _ in pairs):
                    head = binance_public.head([it.source for it, _ in pairs], symbol, market, wish.tick, wish.lot)
            count = 0
            for count, frame in enumerate(_merged(pairs, symbol), 1):
                for line in head if count == 1 else ():
                    out.write(b"%d %s\n" % (frame.recv_ns, line))
                out.write(b"%d %s\n" % frame)
                if count % _TOLD_EVERY == 0:
                    tell(f"{count:,} messages")
            made: dict[str, Any] = {"frames": count}
        else:
            made = _write_events(pairs, plain_name(wish.symbol or symbol), wish, out.write, tell)
    if not made["frames"]:
        raise RecordingsError(f"{pairs[0][0].source.place}: holds no row; nothing to convert")
    return made


def _market(pairs: Sequence[Pair], wish: Wish) -> str:
    """Whose frames they become. Raises RecordingsError where the files and the wish disagree."""
    found = {market for it, _ in pairs if (market := it.kind.market_of(it.source))}
    if len(found) > 1:
        raise RecordingsError(f"the files are of several markets ({', '.join(sorted(found))}); convert those of one at a time")
    market = found.pop() if found else ""
    frames = all(it.kind.gives == FRAMES for it, _ in pairs)
    if frames and wish.market and market and wish.market != market:
        place = pairs[0][0].source.place
        raise RecordingsError(f"{place}: is of {market} by its columns, not of {wish.market}; leave --market out")
    market = wish.market or market or NATIVE[0]
    if market not in NATIVE:
        raise RecordingsError(f"{pairs[0][0].source.place}: is of {market}, which this version cannot read; leave it out")
    return market


def _merged(pairs: Sequence[Pair], symbol: str) -> Iterator[Any]:
    """All contents in the order of time; at one time prints before books before quotes."""
    streams: list[Iterator[tuple[int, int, int, Any]]] = []
    for kind in KINDS:
        own = [(found.source, told) for found, told in pairs if found.kind is kind]
        if own and kind.together is not None:
            streams.append(_ranked(kind.together(own, symbol), kind.rank, 0))
        elif kind.read is not None:
            streams += [_ranked(kind.read(source, told, symbol), kind.rank, n) for n, (source, told) in enumerate(own)]
    for *_, it in heapq.merge(*streams, key=lambda ranked: ranked[:3]):
        yield it


def _ranked(items: Iterator[Any], rank: int, number: int) -> Iterator[tuple[int, int, int, Any]]:
    for it in items:
        yield (it[0] if isinstance(it, Frame) else it.recv_ns, rank, number, it)


class _Side:
    """One side of a book that is seen through windows. Keys: prices of asks, negative ones of bids, so that the best is least."""

    def __init__(self, side: int) -> None:
        self._side, self._sign = side, 1 if side == ASK else -1
        self._keys: list[int] = []
        self._lots: dict[int, int] = {}

    def changes(self, levels: Sequence[tuple[int, int]], depth: int) -> list[Change]:
        """What a window says of the side beyond what is known."""
        now = {self._sign * price: lots for price, lots in levels}
        end = len(self._keys) if len(levels) < depth else bisect_right(self._keys, max(now))
        found: list[Change] = []
        for key in [key for key in self._keys[:end] if key not in now]:
            del self._keys[bisect_left(self._keys, key)], self._lots[key]
            found.append((self._side, self._sign * key, 0))
        for key, lots in now.items():
            was = self._lots.get(key)
            if was is None:
                insort(self._keys, key)
            if was != lots:
                self._lots[key] = lots
                found.append((self._side, self._sign * key, lots))
        return found


def _write_events(pairs: Sequence[Pair], symbol: str, wish: Wish, write: Callable[[bytes], Any], tell: Tell) -> dict[str, Any]:
    tell("looking at the numbers")
    price_step = step_of(wish.tick, "--tick") if wish.tick else None
    lot_step = step_of(wish.lot, "--lot") if wish.lot else None
    numbers = Numbers()
    for found, _ in pairs if price_step is None or lot_step is None else ():
        for it in found.kind.read(found.source, Told(found.source), symbol) if found.kind.read else ():
            _texts(it, numbers, price_step is None, lot_step is None)
    price_decimals = _decimals(price_step) if price_step else numbers.price_decimals
    qty_decimals = _decimals(lot_step) if lot_step else numbers.qty_decimals
    futures = _market(pairs, wish) != binance_public.SPOT
    writer = FrameWriter(write, symbol, futures, price_decimals, qty_decimals)
    sides = (_Side(BID), _Side(ASK))

    @lru_cache(_KEPT)
    def price(text: str) -> int:
        return _units(text, price_decimals, price_step, "price", "--tick")

    @lru_cache(_KEPT)
    def lots(text: str) -> int:
        return _units(text, qty_decimals, lot_step, "quantity", "--lot")

    begun, empty = False, 0
    for count, it in enumerate(_merged(pairs, symbol)):
        if isinstance(it, Print):
            if not lots(it.qty) or not price(it.price):
                empty += 1
                continue
            writer.trade(it.recv_ns, it.exch_ns, price(it.price), lots(it.qty), it.seller)
        elif isinstance(it, Quote):
            bid, ask = (price(it.bid or "0"), lots(it.bid_qty or "0")), (price(it.ask or "0"), lots(it.ask_qty or "0"))
            writer.bbo(it.recv_ns, it.exch_ns, bid if all(bid) else (0, 0), ask if all(ask) else (0, 0))
        elif isinstance(it, Window):
            levels = [[(price(p), lots(q)) for p, q in side] for side in (it.bids, it.asks)]
            changes = [
                change for side, found in zip(sides, levels, strict=True) for change in side.changes(found, it.depth)
            ]  # fmt: skip
            if not begun:
                writer.replace(it.recv_ns, it.exch_ns, dict(levels[0]), dict(levels[1]))
            elif changes:
                writer.change(it.recv_ns, it.exch_ns, sorted(changes, key=lambda change: change[2] > 0))  # what goes first
            begun = True
        if count % _TOLD_EVERY == 0:
            tell(f"{count:,} rows")
    return {"frames": writer.frames, "crossed_quotes_left_out": writer.crossed_bbos, "empty_trades_left_out": empty}


def _texts(it: Any, numbers: Numbers, prices: bool, amounts: bool) -> None:
    """Look at those numbers whose step nobody gave."""
    if isinstance(it, Print):
        pairs = [(it.price, it.qty)]
    elif isinstance(it, Quote):
        pairs = [(it.bid, it.bid_qty), (it.ask, it.ask_qty)]
    else:
        pairs = [*it.bids, *it.asks]
    for price, amount in pairs:
        if prices:
            numbers.price(price)
        if amounts:
            numbers.amount(amount)


def _decimals(step: Decimal) -> int:
    return max(-int(step.normalize().as_tuple().exponent), 0)


def _units(text: str, decimals: int, step: Decimal | None, what: str, option: str) -> int:
    """Exactly, or with a step given as the nearest multiple, which must lie within a millionth of a step."""
    if step is None:
        return units_of_text(text, decimals, what)
    try:
        count = Decimal(text) / step
        nearest = round(count)
    except (ArithmeticError, ValueError):
        raise RecordingsError(f"{text[:40]!r} is no {what}; the file is damaged") from None
    if abs(count - nearest) > Decimal("1e-6") or nearest < 0:
        raise RecordingsError(f"{what} {text[:40]} is no multiple of {option} {step}; give the finer size that the data has")
    return int(nearest * step.scaleb(decimals))


# ---- is it right?


def _checked(path: Path, found: Sequence[Found], out: Path) -> Verdict:
    one = files.look(path)
    if one is None:
        raise RecordingsError(f"{out}: what was made of {found[0].source.place} is no recording; it is not kept")
    try:
        verdict = check([one])
    except RecordingError as error:
        raise RecordingsError(
            f"what was made cannot be read back, so it is not kept: {str(error).replace(str(path), str(out))}"
        ) from None
    book = any(it.kind.rank == BOOK for it in found)
    own = all(it.kind.gives == FRAMES for it in found)
    wrong = list(verdict.wrong) if not own else []
    odd = ((verdict.malformed, "malformed frames"), (verdict.unknown, "unknown frames"))
    wrong += [f"{count:,} {what}" for count, what in odd if count and own]
    if book and not verdict.resyncs:
        wrong.append("the book never became valid; give the file with the snapshots too (T_DEPTH: `_depth_snap`)")
    if wrong:
        places = ", ".join(it.source.place for it in found[:3])
        raise RecordingsError(f"{places}: the recording made of it fails its check and is not kept: {'; '.join(wrong)}")
    return verdict


def _notes(verdict: Verdict, found: Sequence[Found]) -> list[str]:
    """What a user should know of the result."""
    notes = [f"the source itself has {text}" for text in verdict.wrong]
    if not any(it.kind.rank == BOOK for it in found):
        notes.append("it holds no order book: check, cat and candles work on it, signals, features and orders need a book")
    elif not verdict.trades:
        notes.append("it holds no prints: give the trades of the same time along, or no resting order is ever filled by them")
    return notes


# ---- candles


def _to_candles(paths: Sequence[Path], found: Sequence[Found], wish: Wish, size: str, tell: Tell) -> dict[str, Any]:
    if wish.out.suffix not in candle_files.SUFFIXES:
        raise RecordingsError(f"{wish.out}: what shall it be? name a file that ends with {' or '.join(candle_files.SUFFIXES)}")
    read: list[str] = []
    with new_file(wish.out, force=wish.force) as partial, tempfile.TemporaryDirectory(prefix="scalper-candles-") as folder:
        if found and found[0].kind.gives == BARS:
            tables = _bars(found, wish, candle_files.size_of(size) if size else 0, read)
        else:
            wanted = candle_files.size_of(size or DEFAULT_SIZE)
            if found:
                between = Path(folder) / "prints.gz"
                pairs = [(it, Told(it.source)) for it in found]
                _write(pairs, _symbol(found, wish), wish, between, tell)
                _checked(between, found, wish.out)
                read += [told.said for _, told in pairs]
                paths = [between]
            tables = []
            for number, chain in enumerate(files.chains(paths)):
                tell(f"reading {files.title(chain)}")
                spool = Path(folder) / f"spool-{number}"
                recording, _ = staged(chain, spool, venue=wish.venue)
                tables += candle_files.tables_of(Folded(spool, recording), wanted)
        count = candle_files.write(tables, partial, wish.out.suffix)
        if not count:
            raise RecordingsError(f"{paths[0]}: holds no trade, so there is no candle; give a recording with trades")
    return {"out": str(wish.out), "candles": count, "read": read, "notes": []}


def _bars(found: Sequence[Found], wish: Wish, size: int, read: list[str]) -> list[candle_files.Table]:
    """The candles of all files, a table a symbol."""
    by_symbol: dict[str, list[Pair]] = {}
    for it in found:
        name = it.kind.symbol_of(it.source) or wish.symbol or it.source.name.partition(".")[0]
        by_symbol.setdefault(name, []).append((it, Told(it.source)))
    tables = []
    for name, pairs in by_symbol.items():
        bars = (bar for it, told in pairs if it.kind.read for bar in it.kind.read(it.source, told, name))
        tables.append(candle_files.table_of(bars, pairs[0][1], name, size))
        read += [told.said for _, told in pairs]
    return tables
