"""Tracing: the chain from frame to last report, over synthetic journals of the real topology."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from procs.journal.file import JournalError, JournalWriter, journal_path
from procs.journal.order_trace import OrderNotFound, TraceError, format_trace, trace_order
from procs.topology import RING, RINGS
from trading.instruments import Instrument, instrument_table
from trading.records import ExecType, Flag, Kind, OrderStatus, OrderType, Purpose, Refusal, Side

TABLE = {ring.ring_id: (ring.name, ring.record) for ring in RINGS}
INSTRUMENTS = instrument_table([Instrument("BTCUSDT")])
T0 = 1_723_125_600 * 10**9
MS = 10**6


class Tape:
    """Rings as lists of records, written to journals at the end."""

    def __init__(self) -> None:
        self.rings: dict[str, list[np.ndarray]] = {}

    def put(self, ring: str, ts_ms: float, cause: tuple[str, int], **fields: float) -> tuple[str, int]:
        """One record; returns its place, which is what the records that it causes name."""
        rows = self.rings.setdefault(ring, [])
        row = np.zeros(1, RING[ring].record)
        row["ts_ns"] = T0 + round(ts_ms * MS)
        row["cause_ring"], row["cause_seq"] = (-1 if cause[0] == "frame" else RING[cause[0]].ring_id), cause[1]
        row["seq"] = len(rows) + 1
        for name, value in fields.items():
            row[name] = value
        rows.append(row)
        return ring, len(rows) - 1

    def write(self, folder: Path, without: tuple[str, ...] = ()) -> None:
        """Journals of all rings but those named."""
        for ring, rows in self.rings.items():
            if ring not in without:
                with JournalWriter.open(journal_path(folder, ring), ring, RING[ring].record, "test") as writer:
                    writer.append(np.concatenate(rows))


def market(tape: Tape, n: int, kind: Kind = Kind.DEPTH) -> tuple[str, int]:
    """Market record n, from frame 100 + n."""
    place = tape.put(
        *("market", n, ("frame", 100 + n)),
        kind=kind,
        flags=Flag.BOOK_VALID,
        update_id=5000 + n,
        ts_origin_mono_ns=10**9 + n * MS,
        ts_publish_mono_ns=10**9 + n * MS + 1_800,
        ts_recv_ns=1,
        qty_lots=250_000,
        price_ticks=5_999_950,
    )
    row = tape.rings["market"][-1]
    row["bid_ticks"][0, 0], row["ask_ticks"][0, 0] = 5_999_900, 6_000_100
    return place


def session() -> Tape:
    """Order 12 from frame 140 by a quote: partial fill, cancel, cancelled; order 13 refused; order 14 rejected; others about."""
    tape = Tape()
    places = [market(tape, n, Kind.TRADE if n == 60 else Kind.DEPTH) for n in range(80)]
    for n in range(40):
        tape.put("signals", n, places[n], kind=Kind.SIGNAL, score=71.26, side=Side.BUY, urgency=55)
        quote = tape.put("quotes", n, places[n], kind=Kind.QUOTE, bid_ticks=5_999_000, bid_lots=10**6, half_spread=5.0)
        tape.put("orders", n, quote, kind=Kind.NEW, order_id=100 + n, approved=1)
    quote = tape.put(
        *("quotes", 40, places[40]),
        kind=Kind.QUOTE,
        bid_ticks=5_999_000,
        bid_lots=1_000_000,
        ask_ticks=6_001_000,
        ask_lots=2_000_000,
        half_spread=1000.0,
    )
    limit = {"kind": Kind.NEW, "order_id": 12, "side": Side.BUY, "order_type": OrderType.POST_ONLY, "purpose": Purpose.QUOTE}
    limit |= {"price_ticks": 5_999_000, "qty_lots": 1_000_000, "approved": 1}
    stamps = {"ts_origin_mono_ns": 10**9 + 40 * MS, "ts_publish_mono_ns": 10**9 + 40 * MS + 91_500}
    order = tape.put("orders", 40, quote, **limit, **stamps)
    wire = tape.put("wire", 40, order, **limit)
    said = {"kind": Kind.REPORT, "order_id": 12, "side": Side.BUY}
    ack = tape.put("executions", 55, wire, **said, exec_type=ExecType.ACK, order_status=OrderStatus.OPEN)
    tape.put("reports", 55, ack, **said, exec_type=ExecType.ACK, order_status=OrderStatus.OPEN)
    fill = {"exec_type": ExecType.FILL, "order_status": OrderStatus.PARTIAL, "last_ticks": 5_999_000, "last_lots": 400_000}
    fill |= {"leaves_lots": 600_000, "fee_e8": 2_399_600, "maker": 1, "trade_id": 9}
    filled = tape.put("executions", 60, places[60], **said, **fill)
    tape.put("reports", 60, filled, **said, **fill)
    cancel = tape.put("orders", 70, places[70], kind=Kind.CANCEL, order_id=15, target_order_id=12, approved=1)
    cancelled = tape.put("wire", 70, cancel, kind=Kind.CANCEL, order_id=15, target_order_id=12)
    gone = tape.put("executions", 78, cancelled, **said, exec_type=ExecType.CANCELED, order_status=OrderStatus.CANCELED)
    tape.put("reports", 78, gone, **said, exec_type=ExecType.CANCELED, order_status=OrderStatus.CANCELED)
    signal = tape.put("signals", 70, places[70], kind=Kind.SIGNAL, score=71.26, side=Side.BUY, urgency=55)
    tape.put("refusals", 70, signal, kind=Kind.REFUSED, order_id=13, side=1, order_type=1, refusal=Refusal.MAX_POSITION)
    lost = tape.put("orders", 71, signal, kind=Kind.NEW, order_id=14, side=-1, order_type=OrderType.MARKET)
    tape.put("reports", 72, lost, kind=Kind.REPORT, order_id=14, exec_type=2, order_status=7, refusal=102)
    tape.put("reports", 79, ("market", 79), kind=Kind.END)
    return tape


def test_the_whole_way_of_an_order(tmp_path: Path) -> None:
    """Back to the frame and forward to the last report, in order of time and cause, and no record of another order."""
    session().write(tmp_path)
    trace = trace_order(tmp_path, 12, TABLE, instruments=INSTRUMENTS)
    assert trace.frame == 140 and not trace.broken
    assert [(hop.ring, hop.sequence, hop.kind) for hop in trace.hops] == [
        ("market", 40, "depth"),
        ("quotes", 40, "quote"),
        ("orders", 40, "new"),
        ("wire", 0, "new"),
        ("executions", 0, "report"),
        ("reports", 0, "report"),
        ("executions", 1, "report"),
        ("reports", 1, "report"),
        ("orders", 41, "cancel"),
        ("wire", 1, "cancel"),
        ("executions", 2, "report"),
        ("reports", 2, "report"),
    ]
    assert [hop.hop_us for hop in trace.hops[:4]] == [1.8, None, 91.5, None]
    assert [hop.depth for hop in trace.hops[:6]] == [0, 1, 2, 3, 4, 5]
    assert trace.hops[6].cause == "market 60" and trace.hops[0].cause == "frame 140"


def test_the_page_names_prices_as_people_do(tmp_path: Path) -> None:
    """With instruments: decimal prices and quantities; without: ticks and lots; one line a hop, below two that say what the
    figures are, the venue's delay among it."""
    session().write(tmp_path)
    text = format_trace(trace_order(tmp_path, 12, TABLE, instruments=INSTRUMENTS))
    assert len(text.splitlines()) == 14
    for said in (
        "order 12 on 2024-08-08 UTC",
        "behind the venue (executions, reports) has the venue's delay in it",
        "14:00:00.040000000",
        "BTCUSDT buy 0.01 at 59990.00 post_only, quote",
        "BTCUSDT fill, now partial: 0.004 at 59990.00 as maker, fee 0.02399600, trade 9, left 0.006",
        "cancel order 12 (command 15)",
        "bid 59999.00, ask 60001.00, update 5040",
        "91.5 us",
        "<- frame 140",
    ):
        assert said in text, said
    plain = format_trace(trace_order(tmp_path, 12, TABLE))
    assert "symbol 0 buy 1000000 lots at 5999000 ticks post_only" in plain


def test_a_refused_and_a_rejected_order(tmp_path: Path) -> None:
    """A refusal ends at risk with its reason; a rejection at the venue with its own."""
    session().write(tmp_path)
    refused = trace_order(tmp_path, 13, TABLE)
    assert [hop.ring for hop in refused.hops] == ["market", "signals", "refusals"] and refused.frame == 170
    assert "refused: max_position" in refused.hops[-1].text and "score 71.3, buy" in refused.hops[1].text
    rejected = trace_order(tmp_path, 14, TABLE)
    assert "sell 0 lots at market" in rejected.hops[-2].text
    assert rejected.hops[-1].text == "symbol 0 reject, now rejected: venue_no_liquidity"


@pytest.mark.parametrize("missing", ["market", "quotes", "wire", "executions"])
def test_a_missing_journal_is_said(tmp_path: Path, missing: str) -> None:
    """Without one ring's journal the rest of the way is still shown, and a broken trail says where it breaks."""
    session().write(tmp_path, without=(missing,))
    trace = trace_order(tmp_path, 12, TABLE)
    assert missing not in {hop.ring for hop in trace.hops}
    if missing in ("market", "quotes"):
        assert trace.frame is None and trace.broken == f"ring {missing} was not recorded"
        assert f"the trail begins in the middle: ring {missing} was not recorded" in format_trace(trace)
    else:
        assert trace.frame == 140


def test_an_unknown_order_names_what_is_there(tmp_path: Path) -> None:
    """No such order, no journals, no folder: each an error that says where it looked."""
    with pytest.raises(TraceError, match="no journal of orders"):
        trace_order(tmp_path, 12, TABLE)
    with pytest.raises(TraceError, match="no folder"):
        trace_order(tmp_path / "x", 12, TABLE)
    session().write(tmp_path)
    with pytest.raises(OrderNotFound, match=r"order 99999 is in none of orders, refusals, wire, .*highest id is 139"):
        trace_order(tmp_path, 99_999, TABLE)
    journal_path(tmp_path, "wire").write_bytes(b"garbage")
    with pytest.raises(JournalError, match=r"wire\.journal"):
        trace_order(tmp_path, 12, TABLE)


def test_a_circle_of_causes_ends(tmp_path: Path) -> None:
    """Journals that do not belong together may name each other as cause: the trace ends and says so."""
    tape = Tape()
    tape.put("signals", 1, ("orders", 0), kind=Kind.SIGNAL)
    tape.put("orders", 1, ("signals", 0), kind=Kind.NEW, order_id=3)
    tape.put("orders", 2, ("signals", 777), kind=Kind.NEW, order_id=4)
    tape.write(tmp_path)
    assert "circle" in trace_order(tmp_path, 3, TABLE).broken
    assert trace_order(tmp_path, 4, TABLE).broken == "ring signals has no sequence 777 in its journal"
