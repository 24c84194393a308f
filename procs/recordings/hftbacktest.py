"""hftbacktest's event files: `npz` with one array `data` of EVENT, from recordings and back.

    ev         kind (DEPTH 1, TRADE 2, DEPTH_CLEAR 3, DEPTH_SNAPSHOT 4) | EXCH 2^31 | LOCAL 2^30 | BUY 2^29 | SELL 2^28
    exch_ts    ns, when it happened at the venue       local_ts   ns, when it was received
    px, qty    floats; qty 0 removes a level           order_id, ival, fval: 0

Its backtest wants each event after the ones before it both in exchange and in local order. Where the two orders differ a
row stands twice, once for each. Local times are put later if some event arrives before it happened: the recorder's clock was off.

REST snapshots and spot's best bid/offer carry no exchange time: a snapshot gets that of the event before it. Best bid/offer
messages are left out: the format keeps books and trades.

hftbacktest itself is not needed.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from procs.recordings.folding import Chunk, Folded
from procs.recordings.output import RecordingsError
from procs.recordings.wire_text import ASK, BID, FrameWriter, units_of_floats
from trading.jit import Recs, Words, kernel
from trading.records import TS_END, Flag, Kind
from trading.stamps import OLDEST_NS, UNIT_NAMES, UNIT_NS, unit_of

DEPTH_EVENT, TRADE_EVENT, DEPTH_CLEAR_EVENT, DEPTH_SNAPSHOT_EVENT = 1, 2, 3, 4
KIND_MASK: Final = 0xFF
EXCH_EVENT: Final = 1 << 31
LOCAL_EVENT: Final = 1 << 30
BUY_EVENT: Final = 1 << 29
SELL_EVENT: Final = 1 << 28
EVENT: Final = np.dtype(
    [("ev", "<u8"), ("exch_ts", "<i8"), ("local_ts", "<i8"), ("px", "<f8"), ("qty", "<f8"),
     ("order_id", "<u8"), ("ival", "<i8"), ("fval", "<f8")], align=True,
)  # fmt: skip


# ---- from a recording


def events_of(folded: Folded, symbol: int = 0, progress: Callable[[int], None] | None = None) -> Recs:
    """The events of one symbol as they were received: flags without EXCH and LOCAL, exch_ts 0 where it is unknown."""
    row = folded.table[symbol]
    price = (int(row["tick_units"]), 10.0 ** int(row["price_decimals"]))
    qty_scale = 10.0 ** int(row["qty_decimals"])
    pieces, done = [np.zeros(0, EVENT)], 0
    for chunk in folded.chunks():
        pieces.append(_events(chunk, symbol, price, qty_scale))
        done += len(chunk.counts)
        if progress is not None:
            progress(done)
    return np.concatenate(pieces)


def _events(chunk: Chunk, symbol: int, price: tuple[int, float], qty_scale: float) -> Recs:
    """One chunk's. A frame gives depth rows or a trade, never both, so rows sort by their frame."""
    frames = np.arange(len(chunk.counts))
    market_frame, depth_frame = np.repeat(frames, chunk.counts[:, 0]), np.repeat(frames, chunk.counts[:, 1])
    exchange = np.zeros(len(frames), np.int64)
    exchange[market_frame] = chunk.market["ts_exchange_ns"]

    depth = chunk.depth
    kind = np.full(len(depth), DEPTH_EVENT, np.uint64)
    marker = depth["kind"] == Kind.SNAPSHOT
    kind[marker] = DEPTH_CLEAR_EVENT
    # the snapshot's own levels carry its update id; what follows in the same frame are diffs
    snapshot_id = np.full(len(frames), -1, np.int64)
    snapshot_id[depth_frame[marker]] = depth["update_id"][marker]
    kind[~marker & (depth["update_id"] == snapshot_id[depth_frame])] = DEPTH_SNAPSHOT_EVENT
    side = np.where(depth["flags"] & int(Flag.ASK), SELL_EVENT, BUY_EVENT).astype(np.uint64)
    side[marker] = 0
    kept = (depth["symbol"] == symbol) & ((depth["kind"] == Kind.DEPTH) | marker)
    book = _filled(kind[kept] | side[kept], exchange[depth_frame[kept]], depth[kept], price, qty_scale)

    printed = (chunk.market["kind"] == Kind.TRADE) & (chunk.market["symbol"] == symbol)
    trades = chunk.market[printed]
    seller = (trades["flags"] & int(Flag.AGGRESSOR_SELL)) != 0
    flags = np.where(seller, TRADE_EVENT | SELL_EVENT, TRADE_EVENT | BUY_EVENT).astype(np.uint64)
    prints = _filled(flags, trades["ts_exchange_ns"], trades, price, qty_scale)

    order = np.argsort(np.concatenate([depth_frame[kept], market_frame[printed]]), kind="stable")
    return np.concatenate([book, prints])[order]


def _filled(flags: Any, exchange: Any, recs: Recs, price: tuple[int, float], qty_scale: float) -> Recs:
    out = np.zeros(len(recs), EVENT)
    out["ev"], out["exch_ts"], out["local_ts"] = flags, exchange, recs["ts_ns"]
    out["px"], out["qty"] = recs["price_ticks"] * price[0] / price[1], recs["qty_lots"] / qty_scale
    return out


def corrected(events: Recs, base_latency_ns: int = 0) -> Recs:
    """The events as the backtest wants them: exchange times known, no negative latency, right in both orders."""
    if not len(events):
        return events.copy()
    data = events.copy()
    known = np.flatnonzero(data["exch_ts"])
    if not known.size:
        data["exch_ts"] = data["local_ts"]
    else:
        before = np.searchsorted(known, np.arange(len(data)), side="right") - 1
        data["exch_ts"] = data["exch_ts"][known[np.maximum(before, 0)]]
    least = int((data["local_ts"] - data["exch_ts"]).min())
    if least < 0:
        data["local_ts"] += base_latency_ns - least
    by_exchange = np.argsort(data["exch_ts"], kind="stable").astype(np.int64)
    by_local = np.argsort(data["local_ts"], kind="stable").astype(np.int64)
    rows, flags = np.zeros(2 * len(data), np.int64), np.zeros(2 * len(data), np.int64)
    n = _in_both_orders(by_exchange, by_local, data["exch_ts"].copy(), data["local_ts"].copy(), rows, flags)
    out: Recs = data[rows[:n]]
    out["ev"] |= flags[:n].astype(np.uint64)
    return out


@kernel
def _in_both_orders(by_exchange: Words, by_local: Words, exch: Words, local: Words, rows: Words, flags: Words) -> int:
    """Merge the two orders: a row that is next in both stands once, with both flags; else the earlier one alone."""
    n = by_exchange.size
    i = 0
    j = 0
    out = 0
    while i < n or j < n:
        if i < n and j < n:
            e = by_exchange[i]
            f = by_local[j]
            if e == f:
                rows[out] = e
                flags[out] = EXCH_EVENT | LOCAL_EVENT
                i += 1
                j += 1
                out += 1
                continue
            exchange_first = exch[e] < exch[f] or (exch[e] == exch[f] and local[e] < local[f])
        else:
            exchange_first = i < n
        if exchange_first:
            rows[out] = by_exchange[i]
            flags[out] = EXCH_EVENT
            i += 1
        else:
            rows[out] = by_local[j]
            flags[out] = LOCAL_EVENT
            j += 1
        out += 1
    return out


def save(events: Recs, path: Path) -> None:
    """Write the npz."""
    with path.open("wb") as file:
        np.savez_compressed(file, data=events)


# ---- to a recording


MOST_INFLATION: Final = 200
"""Bytes that a packed byte may become, beyond SMALL of them: market data inflates four- to tenfold."""
SMALL: Final = 1 << 26
_NAME: Final = "data"


def load(path: Path) -> Recs:
    """The events of an npz, or of an npy. Raises RecordingsError.

    The array's head is compared with what is there before anything is held.
    """
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                _judge_archive(path, file)
                file.seek(0)
                data = np.load(file, allow_pickle=False)[_NAME]
            else:
                file.seek(0)
                _judge(path, file, path.stat().st_size)
                file.seek(0)
                data = np.load(file, allow_pickle=False)
    except RecordingsError:
        raise
    except MemoryError:
        raise RecordingsError(f"{path}: its array does not fit into memory; give smaller files, a day each") from None
    except (OSError, ValueError, LookupError, EOFError, TypeError, SyntaxError, RuntimeError, zipfile.error, zlib.error) as error:
        raise RecordingsError(f"{path}: is no npz with an array `data` ({error}); give a file of hftbacktest's") from None
    wanted = EVENT.names or ()
    if data.dtype.names is None or not set(wanted[:5]) <= set(data.dtype.names) or data.ndim != 1:
        raise RecordingsError(f"{path}: its array has no fields {', '.join(wanted[:5])}; convert it with hftbacktest 2 first")
    if not len(data):
        raise RecordingsError(f"{path}: holds no event; leave it out")
    if data.dtype == EVENT:
        return np.asarray(data)
    out = np.zeros(len(data), EVENT)
    for name in wanted:
        if name in data.dtype.names:
            out[name] = data[name]
    return out


def _judge_archive(path: Path, file: IO[bytes]) -> None:
    """Refuse an archive whose array is not what its head says, or inflates beyond all measure. Raises RecordingsError."""
    with zipfile.ZipFile(file) as archive:
        entry = archive.getinfo(f"{_NAME}.npy")
        if entry.file_size > max(SMALL, MOST_INFLATION * max(entry.compress_size, 1)):
            raise RecordingsError(
                f"{path}: {_NAME}.npy would become {entry.file_size:,} bytes from {entry.compress_size:,}, more than "
                f"{MOST_INFLATION} for each; no data of a market does that"
            )
        with archive.open(entry) as member:
            _judge(path, member, entry.file_size)


def _judge(path: Path, file: IO[bytes], size: int) -> None:
    """Compare an array's head with the `size` bytes that head and array have. Raises RecordingsError, ValueError."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    held = size - file.tell()
    said = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or said != held:
        raise RecordingsError(
            f"{path}: the array's head says {'x'.join(map(str, shape)) or 'one'} entries of {dtype.itemsize} bytes, and {held:,} "
            "bytes follow; the file is damaged, fetch it again"
        )


def received(events: Recs) -> Recs:
    """The rows that were received, in order: those flagged LOCAL; all of a file without such flags."""
    local = (events["ev"] & np.uint64(LOCAL_EVENT)) != 0
    if not local.any() and not (events["ev"] & np.uint64(EXCH_EVENT)).any():
        local[:] = True
    found = events[local]
    return found[np.argsort(found["local_ts"], kind="stable")]


def usable(path: Path, events: Recs) -> tuple[Recs, list[str]]:
    """Received events with times in ns, less those that a recording cannot hold; what is to be told of that, a sentence each.

    Raises RecordingsError naming file and row for times of no unit, and for a level that is of no side.
    """
    notes = []
    found = events
    for column in ("local_ts", "exch_ts"):
        stamps = found[column]
        known = stamps[stamps != 0]
        unit = unit_of(int(known[0])) if len(known) else "ns"
        ns = UNIT_NS.get(unit, 1)
        outside = (stamps != 0) & ~((stamps >= -(-OLDEST_NS // ns)) & (stamps < TS_END // ns))
        if column == "local_ts":
            outside |= stamps == 0
        if not unit or outside.any():
            row = int(np.flatnonzero(outside)[0])
            raise RecordingsError(
                f"{path}: {column} {int(stamps[row])} of received row {row} is no time from 2001 to 2116"
                + (f" in {UNIT_NAMES[unit]}, as the first has" if unit else "; wanted ns since 1970")
            )
        if unit != "ns":
            found = found.copy() if found is events else found
            found[column] *= ns
            notes.append(f"{path}: {column} is in {UNIT_NAMES[unit]}")
    kinds = (found["ev"] & np.uint64(KIND_MASK)).astype(np.int64)
    sides = found["ev"] & np.uint64(BUY_EVENT | SELL_EVENT)
    sided = (sides == BUY_EVENT) | (sides == SELL_EVENT)
    odd = np.isin(kinds, (DEPTH_EVENT, DEPTH_SNAPSHOT_EVENT)) & ~sided
    if odd.any():
        row = int(np.flatnonzero(odd)[0])
        raise RecordingsError(f"{path}: received row {row} is a level with neither BUY nor SELL; the file is damaged")
    known_kind = np.isin(kinds, (DEPTH_EVENT, TRADE_EVENT, DEPTH_CLEAR_EVENT, DEPTH_SNAPSHOT_EVENT))
    sideless = (kinds == TRADE_EVENT) & ~sided
    if sideless.any():
        notes.append(f"{path}: {int(sideless.sum()):,} trades with neither BUY nor SELL were left out")
    for kind in np.unique(kinds[~known_kind]).tolist():
        notes.append(f"{path}: {int((kinds == kind).sum()):,} events of kind {kind}, which no recording holds, were left out")
    return found[known_kind & ~sideless], notes


def write_frames(
    events: Recs,
    out: Callable[[bytes], Any],
    symbol: str,
    usdm: bool,
    tick: Decimal | None,
    lot: Decimal | None,
    progress: Callable[[int], None] | None = None,
) -> FrameWriter:
    """Received events as frames: rows of one local and exchange time and one kind are one message."""
    prices, price_decimals = units_of_floats(events["px"], tick, "price", "--tick")
    lots, qty_decimals = units_of_floats(events["qty"], lot, "quantity", "--lot")
    writer = FrameWriter(out, symbol, usdm, price_decimals, qty_decimals)
    kinds = (events["ev"] & np.uint64(KIND_MASK)).astype(np.int64)
    anew = np.isin(kinds, (DEPTH_CLEAR_EVENT, DEPTH_SNAPSHOT_EVENT))
    groups = np.where(anew, DEPTH_CLEAR_EVENT, kinds)
    step = np.ones(len(events), bool)
    for column in (events["local_ts"], events["exch_ts"], groups):
        step[1:] &= column[1:] == column[:-1]
    step[:1] = False
    starts = np.flatnonzero(~step)
    ends = np.append(starts[1:], len(events))
    flags = events["ev"].astype(np.int64)
    sides = np.where(flags & SELL_EVENT, ASK, BID).tolist()
    sided = ((flags & (SELL_EVENT | BUY_EVENT)) != 0).tolist()
    of, price, qty = kinds.tolist(), prices.tolist(), lots.tolist()
    local, exchange = events["local_ts"].tolist(), events["exch_ts"].tolist()
    for count, (a, b) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        if of[a] == TRADE_EVENT:
            for k in range(a, b):
                writer.trade(local[k], exchange[k], price[k], qty[k], sides[k] == ASK)
        elif of[a] == DEPTH_EVENT:
            writer.change(local[a], exchange[a], [(sides[k], price[k], qty[k]) for k in range(a, b)])
        elif anew[a]:
            book = (dict(writer.book[BID]), dict(writer.book[ASK]))
            for k in range(a, b):
                _renew(book, of[k], sided[k], sides[k], price[k], qty[k])
            writer.replace(local[a], exchange[a], *book)
        if progress is not None and count % 4096 == 0:
            progress(b)
    return writer


def _renew(book: tuple[dict[int, int], dict[int, int]], kind: int, sided: bool, side: int, price: int, qty: int) -> None:
    """Take a CLEAR (a side up to a price from the best one, or all) or a level of a SNAPSHOT."""
    if kind == DEPTH_SNAPSHOT_EVENT:
        if qty:
            book[side][price] = qty
        else:
            book[side].pop(price, None)
    elif not sided:
        book[BID].clear()
        book[ASK].clear()
    else:
        for level in [p for p in book[side] if (p >= price if side == BID else p <= price)]:
            del book[side][level]
