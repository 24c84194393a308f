"""The whole way of one order: from the raw frame that caused it, through every ring, to the venue's last word on it.

Every record names its cause (ring and sequence). Backwards, `trace_order` follows that chain from the order to the frame
(`cause_ring` -1); forwards, it takes every journalled record that carries the order's id. Hops are listed in time, and within
one instant in the order of cause and effect.

Journals are read, never a live segment. `rings` says which there are (procs.topology has the table).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import numpy as np

from procs.journal.file import JournalReader, journal_path
from trading.jit import Recs, Words
from trading.records import ExecType, Flag, Kind, OrderStatus, OrderType, Purpose, Refusal, Side

RAW_FRAME: Final = -1
"""The `cause_ring` of a record made straight from a frame; `cause_seq` is then the frame's number."""

MAX_CHAIN: Final = 64
"""Longer chains of causes than any topology has: a loop in damaged journals ends here."""

_BATCH: Final = 65_536


class TraceError(Exception):
    """The order cannot be traced; the message names the order, the place and the remedy."""


class OrderNotFound(TraceError):
    """No journal has this order id."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One record on the order's way. `hop_us`: from the frame's arrival until it was published, None without stamps; of what the
    venue answered the venue's delay is in it."""

    ring_id: int
    ring: str
    sequence: int
    ts_ns: int
    kind: str
    hop_us: float | None
    depth: int  # causes between the frame and this record
    cause: str  # "quotes 512", "frame 7"
    text: str


@dataclass(frozen=True, slots=True)
class Trace:
    """An order's hops; `frame`: the number of the raw frame at its root, None if the chain breaks before; `broken`: where."""

    order_id: int
    hops: tuple[Hop, ...]
    frame: int | None
    broken: str


class _Journals:
    """The journals of a folder, opened when first asked for."""

    def __init__(self, folder: Path, rings: Mapping[int, tuple[str, np.dtype]]) -> None:
        self.folder = folder
        self.rings = rings
        self._open: dict[int, JournalReader | None] = {}
        self._depth: dict[tuple[int, int], int] = {}

    def reader(self, ring_id: int) -> JournalReader | None:
        """The ring's journal, None if it was not recorded. A damaged or foreign one raises JournalError."""
        if ring_id not in self._open:
            name, dtype = self.rings[ring_id]
            path = journal_path(self.folder, name)
            self._open[ring_id] = JournalReader(path, dtype) if path.exists() else None
        return self._open[ring_id]

    def record(self, ring_id: int, sequence: int) -> np.void | None:
        """One record, None if its ring or sequence is not in the journals."""
        reader = self.reader(ring_id) if ring_id in self.rings else None
        row = reader.index_of(sequence) if reader is not None else -1
        return reader.records()[row] if reader is not None and row >= 0 else None

    def depth(self, ring_id: int, sequence: int, limit: int = MAX_CHAIN) -> int:
        """How many causes lie before a record, as far as the journals tell."""
        key = (ring_id, sequence)
        if key not in self._depth:
            found = self.record(ring_id, sequence)
            if found is None or int(found["cause_ring"]) == RAW_FRAME or limit == 0:
                return 0
            self._depth[key] = 1 + self.depth(int(found["cause_ring"]), int(found["cause_seq"]), limit - 1)
        return self._depth[key]


def _rows_of_order(recs: Recs, order_id: int) -> Words:
    """Rows that speak of the order: by its own id, or as the target of a cancel. A mapped file is scanned in pieces."""
    names = recs.dtype.names or ()
    rows = []
    for start in range(0, len(recs), _BATCH):
        batch = recs[start : start + _BATCH]
        mine = batch["order_id"] == order_id
        if "target_order_id" in names:
            mine = np.where(batch["kind"] == Kind.CANCEL, batch["target_order_id"] == order_id, mine)
        rows.append(np.flatnonzero(mine & (batch["kind"] != Kind.END)) + start)
    return np.concatenate(rows) if rows else np.zeros(0, np.int64)


def trace_order(
    journal_dir: str | Path, order_id: int, rings: Mapping[int, tuple[str, np.dtype]], *, instruments: Recs | None = None
) -> Trace:
    """The way of an order (its client order id) through the journals in a folder.

    rings: {ring id: (name, record dtype)}; instruments: INSTRUMENT table, for names and decimal prices instead of indices
    and ticks. Raises OrderNotFound, and JournalError for a journal that is damaged or of another layout.
    """
    journals = _Journals(Path(journal_dir), rings)
    if not journals.folder.is_dir():
        raise TraceError(f"{journals.folder} is no folder of journals; name the one that the recorder wrote")
    speaks = [ring_id for ring_id, (_, dtype) in rings.items() if "order_id" in (dtype.names or ())]
    found: set[tuple[int, int]] = set()
    searched: list[str] = []
    highest = -1
    for ring_id in speaks:
        reader = journals.reader(ring_id)
        if reader is None:
            continue
        recs = reader.records()
        searched.append(rings[ring_id][0])
        found |= {(ring_id, int(recs[row]["seq"]) - 1) for row in _rows_of_order(recs, order_id)}
        if len(recs):
            highest = max(highest, int(recs["order_id"].max()))
    if not searched:
        raise TraceError(f"{journals.folder} holds no journal of orders or reports; name the folder that the recorder wrote")
    if not found:
        known = f"the highest id is {highest}" if highest > 0 else "they hold no order"
        raise OrderNotFound(f"order {order_id} is in none of {', '.join(searched)} in {journals.folder}; {known}")
    root = min(found, key=lambda at: (int(_known(journals, at)["ts_ns"]), journals.depth(*at), at))
    chain, frame, broken = _causes(journals, root)
    hops = [_hop(journals, at, instruments) for at in found | set(chain)]
    hops.sort(key=lambda hop: (hop.ts_ns, hop.depth, hop.ring_id, hop.sequence))
    return Trace(order_id, tuple(hops), frame, broken)


def _known(journals: _Journals, at: tuple[int, int]) -> np.void:
    record = journals.record(*at)
    assert record is not None, f"{at} was read a moment ago"
    return record


def _causes(journals: _Journals, start: tuple[int, int]) -> tuple[list[tuple[int, int]], int | None, str]:
    """(places from `start`'s cause back to the first record, frame number, why the chain ended early)."""
    chain: list[tuple[int, int]] = []
    record = _known(journals, start)
    while len(chain) < MAX_CHAIN:
        ring_id, sequence = int(record["cause_ring"]), int(record["cause_seq"])
        if ring_id == RAW_FRAME:
            return chain, sequence, ""
        if ring_id not in journals.rings:
            return chain, None, f"ring {ring_id} is not in the topology"
        name = journals.rings[ring_id][0]
        found = journals.record(ring_id, sequence)
        if found is None:
            missing = "was not recorded" if journals.reader(ring_id) is None else f"has no sequence {sequence} in its journal"
            return chain, None, f"ring {name} {missing}"
        chain.append((ring_id, sequence))
        record = found
    return chain, None, "the causes go round in a circle: the journals do not belong together"


# ---- what a record says -----------------------------------------------------------------------------------------------


def _word(kind: type[IntEnum], value: Any) -> str:
    number = int(value)
    return kind(number).name.lower() if number in kind._value2member_map_ else f"{kind.__name__.lower()} {number}"


class _Units:
    """Prices, quantities and symbols as text: in ticks and lots, or in decimals where the instruments are known."""

    def __init__(self, instruments: Recs | None, symbol: int) -> None:
        self._row = instruments[symbol] if instruments is not None and 0 <= symbol < len(instruments) else None
        self.symbol = f"symbol {symbol}"
        if self._row is not None:
            self.symbol = bytes(self._row["name"][: int(self._row["name_len"])]).decode("ascii", "replace")

    def price(self, ticks: Any) -> str:
        if self._row is None:
            return f"{int(ticks)} ticks"
        return f"{Decimal(int(ticks) * int(self._row['tick_units'])).scaleb(-int(self._row['price_decimals'])):f}"

    def quantity(self, lots: Any) -> str:
        if self._row is None:
            return f"{int(lots)} lots"
        text = f"{Decimal(int(lots)).scaleb(-int(self._row['qty_decimals'])):f}"
        return text.rstrip("0").rstrip(".") if "." in text else text


def _says(record: np.void, names: Sequence[str], units: _Units) -> str:
    """The fields that matter of a record, by what it has rather than by which ring it is on."""
    kind = int(record["kind"])
    if "exec_type" in names:
        text = f"{_word(ExecType, record['exec_type'])}, now {_word(OrderStatus, record['order_status'])}"
        if int(record["exec_type"]) == ExecType.FILL:
            role = "maker" if int(record["maker"]) else "taker"
            text += f": {units.quantity(record['last_lots'])} at {units.price(record['last_ticks'])} as {role}"
            text += f", fee {Decimal(int(record['fee_e8'])).scaleb(-8):f}, trade {int(record['trade_id'])}"
            text += f", left {units.quantity(record['leaves_lots'])}"
        elif int(record["refusal"]):
            text += f": {_word(Refusal, record['refusal'])}"
        return text
    if "target_order_id" in names:
        if kind == Kind.CANCEL:
            return f"cancel order {int(record['target_order_id'])} (command {int(record['order_id'])})"
        text = f"{_word(Side, record['side'])} {units.quantity(record['qty_lots'])}"
        market = int(record["order_type"]) == OrderType.MARKET
        text += " at market" if market else f" at {units.price(record['price_ticks'])} {_word(OrderType, record['order_type'])}"
        text += f", {_word(Purpose, record['purpose'])}"
        if int(record["refusal"]):
            text += f", refused: {_word(Refusal, record['refusal'])}"
        return text
    if "score" in names:
        return f"score {float(record['score']):.1f}, {_word(Side, record['side'])}, urgency {float(record['urgency']):.0f}"
    if "half_spread" in names:
        return (
            f"bid {units.quantity(record['bid_lots'])} at {units.price(record['bid_ticks'])}, "
            f"ask {units.quantity(record['ask_lots'])} at {units.price(record['ask_ticks'])}"
        )
    if "ts_recv_ns" in names:
        text = f"bid {units.price(record['bid_ticks'][0])}, ask {units.price(record['ask_ticks'][0])}"
        if kind == Kind.TRADE:
            done = "sold" if int(record["flags"]) & Flag.AGGRESSOR_SELL else "bought"
            text = f"{units.quantity(record['qty_lots'])} {done} at {units.price(record['price_ticks'])}, {text}"
        valid = "" if int(record["flags"]) & Flag.BOOK_VALID else ", book not valid"
        return f"{text}, update {int(record['update_id'])}{valid}"
    return ""


def _cause(journals: _Journals, record: np.void) -> str:
    ring_id, sequence = int(record["cause_ring"]), int(record["cause_seq"])
    if ring_id == RAW_FRAME:
        return f"frame {sequence}"
    return f"{journals.rings[ring_id][0]} {sequence}" if ring_id in journals.rings else f"ring {ring_id} {sequence}"


def _hop(journals: _Journals, at: tuple[int, int], instruments: Recs | None) -> Hop:
    ring_id, sequence = at
    record = _known(journals, at)
    names = record.dtype.names or ()
    took = None
    if "ts_publish_mono_ns" in names and int(record["ts_publish_mono_ns"]) and int(record["ts_origin_mono_ns"]):
        took = (int(record["ts_publish_mono_ns"]) - int(record["ts_origin_mono_ns"])) / 1e3
    units = _Units(instruments, int(record["symbol"]))
    return Hop(
        ring_id=ring_id,
        ring=journals.rings[ring_id][0],
        sequence=sequence,
        ts_ns=int(record["ts_ns"]),
        kind=_word(Kind, record["kind"]),
        hop_us=took,
        depth=journals.depth(ring_id, sequence),
        cause=_cause(journals, record),
        text=f"{units.symbol} {_says(record, names, units)}".rstrip(),
    )


def format_trace(trace: Trace) -> str:
    """The trace as text, one line a hop: time, ms since the first hop, ring, sequence, kind, us since the frame came in, cause,
    what it says."""
    first = trace.hops[0].ts_ns
    day = datetime.fromtimestamp(first // 10**9, UTC).strftime("%Y-%m-%d")
    lines = [
        f"order {trace.order_id} on {day} UTC; + ms of the market's time since the first hop; us of this machine's time from the",
        "frame's arrival to publishing, which behind the venue (executions, reports) has the venue's delay in it",
    ]
    if trace.frame is None:
        lines.append(f"the trail begins in the middle: {trace.broken}")
    ring = max(len(hop.ring) for hop in trace.hops)
    place = max(len(str(hop.sequence)) for hop in trace.hops)
    kind, cause = max(len(hop.kind) for hop in trace.hops), max(len(hop.cause) for hop in trace.hops)
    for hop in trace.hops:
        seconds, fraction = divmod(hop.ts_ns, 10**9)
        clock = datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S") + f".{fraction:09}"
        took = "" if hop.hop_us is None else f"{hop.hop_us:,.1f} us"
        since = f"+{(hop.ts_ns - first) / 1e6:.3f}"
        lines.append(
            f"{clock} {since:>10}  {hop.ring:<{ring}} {hop.sequence:>{place}} <- {hop.cause:<{cause}} {took:>11}  "
            f"{hop.kind:<{kind}} {hop.text}".rstrip()
        )
    return "\n".join(lines) + "\n"
