"""The report: its sums agree with the records, its page fits, and it never shows a figure without its sample."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from sim.report.build import (
    BookStats,
    HopLatency,
    Report,
    RingStats,
    RunFacts,
    build_report,
    render_json,
    render_text,
    symbol_names,
)
from sim.report.tearsheet import WIDTH, sparkline
from sim.settings import Latency, SimulatedExchange
from sim.spans import span
from trading.instruments import Instrument, Market, fee_e8, instrument_table, notional_e8
from trading.jit import Recs
from trading.records import (
    MARKET_RECORD,
    ORDER_RECORD,
    REPORT_RECORD,
    ExecType,
    Flag,
    Kind,
    OrderType,
    Purpose,
    Refusal,
)

S = 10**9
T0 = 1_723_125_600 * S
TABLE = instrument_table(
    [
        Instrument("BTCUSDT", maker_fee_bps=2.0, taker_fee_bps=5.0),
        Instrument("ETHUSDT", Market.BINANCE_USDM, tick_size="0.10", lot_size="0.001", step_size="0.001", min_qty="0.001"),
    ]
)
FACTS = RunFacts(
    title="scalper report: replay of a recording through the pipeline",
    profile="replay",
    sources=("spot_btcusdt_20240808.gz", "spot_btcusdt_20240809.gz"),
    messages=99_574,
    wall_s=3.21,
    start_equity=100_000.0,
    exchange=SimulatedExchange(latency=Latency()),
    order_digest="0123456789abcdef0123456789abcdef",
    fill_digest="fedcba9876543210fedcba9876543210",
)
LATENCY: dict[str, HopLatency] = {
    "frame to market": {"count": 99_574, "p50_ns": 1_820, "p99_ns": 5_400, "p999_ns": 24_000, "max_ns": 310_000},
    "market to signals": {"count": 98_022, "p50_ns": 86_000, "p99_ns": 240_000, "p999_ns": 1_900_000, "max_ns": 12_400_000},
    "decision to wire": {"count": 812, "p50_ns": 43_000, "p99_ns": 180_000, "p999_ns": 700_000, "max_ns": 900_000},
}
RINGS: dict[str, RingStats] = {
    "market": {
        "capacity": 4096,
        "tail": 98_023,
        "backpressure": 12,
        "readers": {"features": {"head": 98_023, "overruns": 0}, "recorder": {"head": 98_001, "overruns": 0}},
    },
    "control": {"capacity": 64, "tail": 0, "backpressure": 0, "readers": {}},
}
BOOKS: dict[str, BookStats] = {"BTCUSDT": {"oracle_checked": 1072, "oracle_equal": 1072, "gaps": 0, "resyncs": 1}}


def session(trades: int, seconds: int, seed: int = 5) -> dict[str, Recs]:
    """A made-up session: a random walk, orders that alternate between buying and selling, fills, cancels, a rejection."""
    rng = np.random.default_rng(seed)
    n = seconds * 10
    market = np.zeros(n + 1, MARKET_RECORD)
    market["ts_ns"] = T0 + np.arange(n + 1) * S // 10
    market["kind"], market["flags"] = Kind.DEPTH, Flag.BOOK_VALID
    mid = 6_000_000 + np.cumsum(rng.integers(-120, 121, n + 1))
    market["bid_ticks"][:, 0], market["ask_ticks"][:, 0] = mid - 1, mid + 1
    market["kind"][-1] = Kind.END
    orders, reports = np.zeros(3 * trades + 2, ORDER_RECORD), np.zeros(4 * trades + 3, REPORT_RECORD)
    o = r = 0

    def report(ts_ns: int, order: Recs, kind: ExecType, **fields: int) -> None:
        nonlocal r
        row = reports[r]
        row["kind"], row["ts_ns"], row["exec_type"] = Kind.REPORT, ts_ns, kind
        for name in ("order_id", "side", "purpose", "symbol", "decision_ticks"):
            row[name] = order[name]
        for name, value in fields.items():
            row[name] = value
        r += 1

    for k in range(trades):
        at = (k + 1) * (n - 20) // (trades + 1)
        ts = int(market["ts_ns"][at])
        new = orders[o]
        new["kind"], new["approved"], new["ts_ns"], new["order_id"] = Kind.NEW, 1, ts, k + 1
        new["side"], new["qty_lots"], new["decision_ticks"] = (1 if k % 2 == 0 else -1), 1_000_000, float(mid[at])
        new["order_type"] = OrderType.LIMIT
        new["purpose"] = Purpose.QUOTE if k % 3 == 0 else Purpose.ENTRY if k % 2 == 0 else Purpose.EXIT_STOP
        o += 1
        ack = ts + int(rng.integers(10, 100)) * 10**6
        if k == trades // 2:
            report(ack, new, ExecType.REJECT, refusal=Refusal.VENUE_POST_ONLY)
            continue
        report(ack, new, ExecType.ACK)
        parts = (400_000, 600_000) if k % 4 == 0 else (1_000_000,)
        left = 1_000_000
        for part in parts:
            left -= part
            price = int(mid[at]) - int(new["side"]) * int(rng.integers(0, 40))
            value = notional_e8(TABLE, 0, price, part)
            maker = k % 3 == 0
            fee = fee_e8(value, int(TABLE[0]["maker_fee_e6" if maker else "taker_fee_e6"]))
            report(
                ack + S,
                new,
                ExecType.FILL,
                last_ticks=price,
                last_lots=part,
                leaves_lots=left,
                fee_e8=fee,
                maker=int(maker),
                ts_exchange_ns=ack + S,
            )
            if k % 8 == 0:
                cancel = orders[o]
                cancel["kind"], cancel["ts_ns"], cancel["target_order_id"] = Kind.CANCEL, ack + 2 * S, k + 1
                o += 1
                report(ack + 2 * S, new, ExecType.CANCELED, leaves_lots=left)
                break
    orders["kind"][o] = reports["kind"][r] = Kind.END
    refusals = np.zeros(8, ORDER_RECORD)
    refusals["kind"] = Kind.REFUSED
    refusals["refusal"] = [Refusal.MAX_POSITION] * 4 + [Refusal.PRICE_COLLAR] * 2 + [77, 0]
    refusals["kind"][-1] = Kind.END
    return {"market": market, "orders": orders[: o + 1], "reports": reports[: r + 1], "refusals": refusals}


def whole(trades: int = 120, seconds: int = 1200) -> Report:
    """The report of a made-up session with all sections."""
    return build_report(FACTS, instruments=TABLE, **session(trades, seconds), latency=LATENCY, rings=RINGS, books=BOOKS)


def test_counts_and_money_agree_with_the_records() -> None:
    """Counts by another route, money to the last unit: net = end - start, gross - fees, and the table's sum."""
    parts = session(120, 1200)
    report = build_report(FACTS, instruments=TABLE, **parts)
    counts, money = report.orders, report.money
    reports = parts["reports"][parts["reports"]["kind"] == Kind.REPORT]
    kinds = [ExecType(k) for k in reports["exec_type"].tolist()]
    assert counts.sent == 120 and counts.acknowledged == kinds.count(ExecType.ACK) == 119
    assert counts.rejected == 1 and counts.rejects_by_reason == {"VENUE_POST_ONLY": 1}
    assert counts.fills == kinds.count(ExecType.FILL) and counts.canceled == kinds.count(ExecType.CANCELED) == counts.cancels_sent
    assert counts.filled_whole + counts.filled_partly + counts.rejected == 120 and counts.open_at_end == 0
    assert counts.partial_fills == int(((reports["exec_type"] == ExecType.FILL) & (reports["leaves_lots"] > 0)).sum())
    assert sum(row.sent for row in counts.by_purpose) == 120 and sum(row.fills for row in counts.by_purpose) == counts.fills
    assert [row.purpose for row in counts.by_purpose] == ["entry", "exit stop", "quote"]
    assert report.refusals == {"MAX_POSITION": 4, "PRICE_COLLAR": 2, "Refusal 77": 1}

    fills = reports[reports["exec_type"] == ExecType.FILL]
    cash = position = 0
    for one in fills:
        cash -= int(one["side"]) * int(one["last_ticks"]) * int(one["last_lots"]) // 100 + int(one["fee_e8"])
        position += int(one["side"]) * int(one["last_lots"])
    mid = (parts["market"]["bid_ticks"][-2, 0] + parts["market"]["ask_ticks"][-2, 0]) / 2
    assert math.isclose(money.net, cash / 1e8 + position * mid * 1e-10, abs_tol=1e-6)
    assert math.isclose(money.end_equity - money.start_equity, money.net, abs_tol=1e-6)
    assert math.isclose(money.gross - money.fees, money.net, abs_tol=1e-9)
    assert money.fees == int(fills["fee_e8"].sum()) / 1e8
    assert math.isclose(sum(row.net for row in money.symbols), money.net) and len(money.symbols) == 1
    assert math.isclose(money.symbols[0].position, position * 1e-8) and money.currency == "USDT"
    assert math.isclose(money.turnover, float((fills["last_ticks"] * fills["last_lots"]).sum()) * 1e-10, rel_tol=1e-9)
    assert money.drawdown.money > 0 and len(money.curve) == 78
    assert report.ran.market_records == 12_000 and report.ran.observed_ns == 1_199_900_000_000
    assert report.kpis.shortfall.orders == counts.sent - next(r.sent for r in counts.by_purpose if r.purpose == "quote")


def test_the_page_fits_and_says_what_it_rests_on() -> None:
    """No line is wider than 80 columns; source, fees, latency, samples and caveat are on it; it is the same each time."""
    text = render_text(whole())
    assert max(map(len, text.splitlines())) <= WIDTH and text.endswith("\n")
    assert all(line == line.rstrip() for line in text.splitlines())
    for said in (
        "spot_btcusdt_20240808.gz",
        "2024-08-08 14:00:00 to 2024-08-08 14:19:59 UTC",
        "99,574 raw, 12,000 market records, in 3.21 s of wall time (374x recorded speed)",
        "fees for BTCUSDT: maker 2 bps, taker 5 bps",
        "an order takes 5 to 50 ms to it, its answer 5 to 50 ms back",
        "over 1,199 returns",
        "0.014 days observed, at least 1 wanted",
        "VENUE_POST_ONLY",
        "MAX_POSITION",
        "1,072 of 1,072",
        "all equal",
        "86 us",
        "promise no profit",
        "The fills are simulated",
        "0123456789abcdef0123456789abcdef",
    ):
        assert said in text or said in " ".join(text.split()), said
    assert text == render_text(whole())
    assert "nan" not in text.lower() and "None" not in text


def test_an_ascii_page_for_plain_terminals() -> None:
    """With ascii_only every character is ASCII and the page still fits."""
    text = render_text(whole(), ascii_only=True)
    assert text.isascii() and max(map(len, text.splitlines())) <= WIDTH


def test_nothing_happened() -> None:
    """A run without a single record is a page of zeros and reasons, not an error."""
    empty = {"market": MARKET_RECORD, "orders": ORDER_RECORD, "reports": REPORT_RECORD, "refusals": ORDER_RECORD}
    facts = RunFacts(title="t", profile="p", sources=(), messages=0, wall_s=0.0, start_equity=5.0, exchange=None)
    report = build_report(facts, instruments=TABLE, **{name: np.zeros(0, dtype) for name, dtype in empty.items()})
    text = render_text(report)
    assert report.money.end_equity == 5.0 and report.kpis.sharpe.value is None and report.money.net == 0.0
    for said in ("no market record", "no accepted order", "None.", "Not measured", "No rings", "Not checked", "no figure"):
        assert said in text, said
    assert "simulated" not in text
    assert json.loads(render_json(report))["orders"]["sent"] == 0


def test_a_market_without_a_trade() -> None:
    """Market data but no orders: equity never moved, and the report says so instead of a ratio."""
    parts = session(4, 60)
    report = build_report(FACTS, instruments=TABLE, **{**parts, **{k: parts[k][:0] for k in ("orders", "reports", "refusals")}})
    assert report.kpis.sharpe.note == "equity never moved" and report.money.symbols == ()
    assert "equity never moved" in render_text(report)


def test_json_carries_everything_the_page_does() -> None:
    """The JSON is one object with the report's fields; figures without a value are null with a note; nothing is NaN."""
    report = whole()
    said = json.loads(render_json(report), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert set(said) == set(Report.__dataclass_fields__)
    assert said["kpis"]["sharpe_year"]["value"] is None and "observed" in said["kpis"]["sharpe_year"]["note"]
    assert said["money"]["net"] == report.money.net
    assert said["latency"]["market to signals"]["p99_ns"] == 240_000
    assert said["rings"]["market"]["readers"]["recorder"]["head"] == 98_001
    assert [row["group"] for row in said["markouts"]] == ["all", "as maker", "as taker"]


def test_a_wrong_book_and_a_lagging_reader_catch_the_eye() -> None:
    """A book that differs is said in capitals; a ring shows its slowest reader and how far it is behind."""
    books: dict[str, BookStats] = {"X": {"oracle_checked": 10, "oracle_equal": 7, "gaps": 1, "resyncs": 0}}
    lines = render_text(build_report(FACTS, instruments=TABLE, **session(4, 60), rings=RINGS, books=books)).splitlines()
    assert any("3 DIFFER" in line for line in lines)
    row = next(line.split() for line in lines if line.startswith("  market  "))
    assert row == ["market", "recorder", "4,096", "98,023", "22", "12", "0"]


def test_unlike_quote_currencies_are_not_added_silently() -> None:
    """Fills in symbols of different quote currencies put a warning under the table."""
    table = instrument_table([Instrument("BTCUSDT"), Instrument("ETHBTC", tick_size="0.00001", lot_size="0.000001")])
    parts = session(40, 100)
    parts["reports"]["symbol"][::2] = 1
    report = build_report(FACTS, instruments=table, **parts)
    assert not report.money.one_currency and report.money.currency == ""
    assert "different quote currencies" in render_text(report)
    assert symbol_names(table) == ("BTCUSDT", "ETHBTC")


def test_large_money_and_long_names_fit() -> None:
    """Millions in money, 24-letter symbols and thirty sources stay within the page."""
    table = instrument_table([Instrument("ABCDEFGHIJKLMNOPQRSTUSDT", max_qty="90000000")])
    parts = session(120, 1200)
    for name in ("last_lots", "leaves_lots"):
        parts["reports"][name] *= 100_000
    parts["reports"]["fee_e8"] *= 100_000
    facts = replace(FACTS, sources=tuple(f"recording_number_{n:02}.gz" for n in range(30)), start_equity=1e9)
    text = render_text(build_report(facts, instruments=table, **parts, latency=LATENCY, rings=RINGS, books=BOOKS))
    assert max(map(len, text.splitlines())) <= WIDTH
    first, second = (line.split() for line in text.splitlines() if line.startswith("  ABCDEF"))
    assert first[1] == "-10,000" and second[1:] == ["-2,387,460", "6,598,869,690"]  # what is too wide goes on below


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (850, "850 ns"),
        (999.9, "1 us"),
        (1820, "1.82 us"),
        (86_000, "86 us"),
        (310_000, "310 us"),
        (999_950, "1 ms"),
        (27.04e6, "27 ms"),
        (3.21e9, "3.21 s"),
        (59.99e9, "1 min"),
        (200e9, "3 min 20 s"),
        (7200e9, "2 h"),
        (187_200e9, "2 d 4 h"),
    ],
)
def test_durations_read_well(ns: float, text: str) -> None:
    """Each in its best unit, three digits, never "1000 us"."""
    assert span(ns) == text


def test_sparkline_spans_its_range() -> None:
    """The lowest value is the lowest bar, the highest the highest; a flat line is flat; nothing is nothing."""
    assert sparkline([0.0, 3.5, 7.0]) == "▁▅█" and sparkline([2.0, 2.0]) == "▄▄" and sparkline([]) == ""
