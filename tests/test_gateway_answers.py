"""What the gateway answers, over records on the heap: every field from the records, every refusal with its status."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from gateway_world import ASK, BID, LOT, NAMES, START_NS, GatewayWorld, S
from reference_bars import ema_of

from procs import topology
from procs.gateway.answers import ROUTES
from procs.gateway.decimals import Scale, decimal_text
from procs.gateway.market_view import TIMEFRAMES
from procs.memory import board
from shm import histogram
from trading.features import signals
from trading.features.patterns import Pattern
from trading.features.vector import FEATURES, VERSION
from trading.own_signals import guard as user_guard
from trading.records import MAX_SIGNALS, Kind, Side
from trading.risk import layout as risk_layout
from trading.risk import limits, sizing
from trading.scoring import ensemble
from trading.settings import UserSignal


def asked(world: GatewayWorld, path: str, **query: str) -> tuple[int, Any]:
    """Status and parsed JSON of one GET."""
    reply = world.answers.get(path, query)
    assert reply is not None, path
    return reply[0], json.loads(reply[1])


@pytest.fixture
def world() -> GatewayWorld:
    """Two symbols; the first has a market record, a trade and a signal."""
    found = GatewayWorld()
    found.market()
    found.trade(BID)
    found.signal()
    return found


def test_a_signal_tells_side_scores_gate_and_reasons(world: GatewayWorld) -> None:
    """The decision's fields are the record's; each signal has its state, its strength and its sentence."""
    status, said = asked(world, "/signal/BTCUSDT")
    decision = said["decision"]
    assert status == 200 and said["symbol"] == "BTCUSDT" and said["tf"] == "1m"
    assert (decision["side"], decision["score"], decision["confidence"], decision["urgency"]) == ("BUY", 75.0, 0.8, 60.0)
    assert decision["gate"] == {"name": "NONE", "sentence": ensemble.GATE_SENTENCES[ensemble.Gate.NONE]}
    words = {word["key"]: word for word in decision["signals"]}
    assert list(words) == [spec.key for spec in signals.SIGNALS]
    first = words["book_imbalance"]
    assert first["state"] == "active" and first["strength"] == pytest.approx(0.41)
    assert "imbalance +0.41 over 0.30" in first["reason"]
    assert words["micro_trend"]["state"] == "silent" and words["ema_cross"]["state"] == "active"
    assert words["spread"]["state"] == "warming" and words["spread"]["strength"] == 0
    assert said["ages"] == {"market_ms": 0.0, "signal_ms": 0.0}
    assert decision["leading"] == "book_imbalance" and all(word["own"] is None for word in words.values())


@pytest.mark.parametrize("gate", [gate for gate in ensemble.Gate if gate])
def test_a_gate_is_told_with_its_sentence(world: GatewayWorld, gate: ensemble.Gate) -> None:
    """Whatever gate held a side back stands in the answer, and the side is NONE."""
    world.signal(side=Side.NONE, gate=int(gate))
    decision = asked(world, "/signal/BTCUSDT")[1]["decision"]
    assert decision["side"] == "NONE"
    assert decision["gate"] == {"name": gate.name, "sentence": ensemble.GATE_SENTENCES[gate]}


def test_microstructure_is_of_the_newest_book(world: GatewayWorld) -> None:
    """Prices are exact decimals; mid and imbalances follow from the levels; what the pipeline computes is its record's own."""
    world.market(bid_lots=np.array([3, 1, 1, 1, 1]) * LOT)
    world.signal(patterns=int(Pattern.INSIDE | Pattern.PIN_UP))
    found = asked(world, "/signal/BTCUSDT")[1]["microstructure"]
    assert found["bid"] == {"price": "60000.00", "qty": "3.00000000", "price_ticks": BID, "qty_lots": 3 * LOT}
    assert found["ask"]["price"] == "60000.10" and found["spread"] == "0.10"
    assert found["mid"] == pytest.approx(60_000.05) and found["microprice"] == pytest.approx(60_000.075)
    assert (found["score"], found["vpin"], found["order_flow"]) == (71.0, 0.25, -0.5)
    assert found["patterns"] == ["pin up", "inside bar"]
    world.signal(microprice=0.0, microstructure=0.0, vpin=0.0)
    cold = asked(world, "/signal/BTCUSDT")[1]["microstructure"]
    assert cold["microprice"] is cold["score"] is cold["vpin"] is None
    assert found["top_imbalance"] == pytest.approx(0.5) and found["depth_imbalance"] == pytest.approx(2 / 12)
    assert found["atr"] == pytest.approx(20.0) and found["atr_bps"] == pytest.approx(1e4 * 20 / 60_000.05)
    assert found["volatility_pct_minute"] == pytest.approx(100 * 0.0001 * 60**0.5)


@pytest.mark.parametrize(
    ("urgency", "side", "order_type", "price"),
    [
        (80.0, Side.BUY, "MARKET", None), (79.9, Side.BUY, "LIMIT", "60000.00"), (40.0, Side.SELL, "LIMIT", "60000.10"),
        (39.9, Side.SELL, "POST_ONLY", "60000.10"),
    ],
)  # fmt: skip
def test_timing_follows_the_urgency(world: GatewayWorld, urgency: float, side: Side, order_type: str, price: str | None) -> None:
    """The order type is risk's: MARKET from the threshold on, POST_ONLY below the other, LIMIT between, at our own touch."""
    world.signal(side=side, urgency=urgency)
    timing = asked(world, "/signal/BTCUSDT")[1]["timing"]
    assert (timing["order_type"], timing["price"], timing["side"]) == (order_type, price, side.name)
    assert f"{urgency:.0f}" in timing["why"] and timing["max_hold_s"] == 300.0


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
def test_the_size_is_the_sizing_kernels(world: GatewayWorld, side: Side) -> None:
    """The quantity is what trading.risk.sizing gives a flat account with the profile's equity."""
    world.signal(side=side)
    size = asked(world, "/signal/BTCUSDT")[1]["size"]
    instruments = world.answers.view.instruments
    flat = risk_layout.at_start(world.profile, instruments)
    state = flat.state
    state[0]["bid_ticks"][0], state[0]["ask_ticks"][0] = BID, ASK
    price = BID if side > 0 else ASK
    distance = sizing.stop_distance_ticks(flat.params, 0.5 * (BID + ASK), 2000.0)
    lots = sizing.entry_lots(flat, 0, int(side), price, distance)
    assert flat.glob[0]["portfolio_e8"] == 1e5 * 1e8
    assert lots > 0 and size["qty_lots"] == lots and Decimal(size["qty"]) == Decimal(lots) / LOT
    assert size["refusal"] is None and size["side"] == side.name
    assert Decimal(size["stop_distance"]) == round(distance) / Decimal(100)
    assert Decimal(size["stop_price"]) == Decimal(price - side * round(distance)) / 100
    assert abs(Decimal(size["notional"]) - Decimal(size["qty"]) * price / 100) <= Decimal("0.01")
    assert limits.value_ticks(state, 0) == (BID + ASK) // 2
    assert any("equity 100000" in text for text in size["assumptions"])


def test_without_a_side_the_size_is_for_the_one_that_the_score_leans_to(world: GatewayWorld) -> None:
    """It says so among its assumptions."""
    world.signal(side=Side.NONE, score=45.0)
    size = asked(world, "/signal/BTCUSDT")[1]["size"]
    assert size["side"] == "SELL" and any("leans" in text for text in size["assumptions"])


def test_an_unusable_book_suggests_nothing_and_is_said_to_be_stale(world: GatewayWorld) -> None:
    """A symbol whose book is STALE has size 0 with the reason, no mid, and /book says stale."""
    world.market(kind=Kind.STALE, bid_ticks=0, bid_lots=0, ask_ticks=0, ask_lots=0)
    world.signal(side=Side.NONE, gate=int(ensemble.Gate.BOOK))
    status, said = asked(world, "/signal/BTCUSDT")
    assert status == 200 and said["size"]["qty_lots"] == 0 and "not usable" in said["size"]["refusal"]
    assert said["microstructure"]["bid"] is None and said["microstructure"]["mid"] is None and said["timing"]["price"] is None
    assert asked(world, "/book/BTCUSDT")[1]["state"] == "stale"


def test_a_size_below_the_venues_least_is_refused() -> None:
    """The quantity is told, and why risk would not send it."""
    small = GatewayWorld(**{"risk.equity": 1.0, "risk.base_risk_pct": 0.1})
    small.both()
    size = asked(small, "/signal/BTCUSDT")[1]["size"]
    assert 0 < size["qty_lots"] and size["refusal"] == "worth less than the venue's least notional"


def test_a_book_is_told_as_decimals_and_integers(world: GatewayWorld) -> None:
    """Five levels a side, best first; the update id is the last depth message's, not the trade's."""
    status, book = asked(world, "/book/BTCUSDT")
    assert status == 200 and book["state"] == "valid" and book["update_id"] == 101
    assert [level["price_ticks"] for level in book["bids"]] == [BID - k for k in range(5)]
    assert [level["price"] for level in book["asks"]] == [f"60000.1{k}" for k in range(5)]
    assert book["ts_exchange_ns"] == book["ts_ns"] - 1000


def test_a_thin_side_has_fewer_levels(world: GatewayWorld) -> None:
    """Where there is no level there is none in the answer."""
    world.market(ask_ticks=np.array([ASK, 0, 0, 0, 0]), ask_lots=np.array([LOT, 0, 0, 0, 0]))
    assert len(asked(world, "/book/BTCUSDT")[1]["asks"]) == 1


def test_features_are_the_vector_by_name(world: GatewayWorld) -> None:
    """Every feature of the vector's ring by name, with its unit and whether it is warm, and which record they stand for."""
    world.vector(cause_seq=77)
    status, said = asked(world, "/features/BTCUSDT")
    assert status == 200 and (said["version"], said["market_seq"], said["state"]) == (VERSION, 77, "valid")
    assert list(said["features"]) == [feature.name for feature in FEATURES]
    for k, feature in enumerate(FEATURES):
        assert said["features"][feature.name] == {"value": k / 10 if k < 40 else 0.0, "unit": feature.unit, "warm": k < 40}
    world.vector(flags=0, warm_mask=0, values=np.zeros(50))
    said = asked(world, "/features/BTCUSDT")[1]
    assert said["state"] == "stale" and not any(one["warm"] or one["value"] for one in said["features"].values())


def test_features_wait_for_their_first_vector(world: GatewayWorld) -> None:
    """A symbol whose market has begun, but of which no vector was seen, is not ready; the age is the vector's own."""
    world.market(1)
    assert asked(world, "/features/ETHUSDT")[0] == 503
    world.vector(1, ts_publish_mono_ns=world.now_ns - S)
    status, said = asked(world, "/features/ETHUSDT")
    assert status == 200 and said["ages"]["signal_ms"] == 1000.0


def test_candles_are_made_from_the_trades() -> None:
    """The last closed and the open candle of every size, the asked one first; a gap in the ids marks the candle."""
    world = GatewayWorld()
    world.event_ns = START_NS + 30 * S - S // 10
    for number, ticks in enumerate((BID, BID + 50, BID - 50, BID + 10)):
        world.trade(ticks, update_id=1000 + number, ts_exchange_ns=START_NS + (30 + 10 * number) * S)
    world.signal()
    candles = asked(world, "/signal/BTCUSDT", tf="15s")[1]["candles"]
    assert list(candles) == ["15s", "1s", "5s", "1m", "5m"]
    minute = candles["1m"]
    closed, making = minute["closed"], minute["open"]
    assert (closed["open"], closed["high"], closed["low"], closed["close"]) == ("60000.00", "60000.50", "59999.50", "59999.50")
    assert closed["trades"] == 3 and closed["volume"] == "3.00000000" and closed["open_time_ns"] == START_NS
    assert closed["flags"] == ["INCOMPLETE"]  # it had begun before we looked
    assert making["trades"] == 1 and making["flags"] == ["OPEN"] and making["open"] == "60000.10"


OWN = UserSignal(file="/nowhere/mine.py", name="mine", voice="occasional", sentence="mine says {strength:+.2f}", weight=0.5)


def test_a_users_signal_is_told_like_a_built_in_one() -> None:
    """Last of the signals, with its sentence; what went wrong in it, and that it is off, stand there and in health's warnings."""
    world = GatewayWorld(own=(OWN,))
    strength = np.zeros(MAX_SIGNALS)
    strength[signals.N_SIGNALS] = 0.5
    bit = 1 << signals.N_SIGNALS
    told = {"ready_mask": bit, "active_mask": bit, "strength": strength, "reason": signals.N_SIGNALS + 1}
    world.both(**told)
    world.both(1)
    decision = asked(world, "/signal/BTCUSDT")[1]["decision"]
    own = {"not_finite": 0, "faults": 0, "off_from": None}
    assert decision["signals"][-1] == {"key": "mine", "state": "active", "strength": 0.5, "reason": "mine says +0.50", "own": own}
    assert decision["leading"] == "mine" and asked(world, "/healthz")[1]["warnings"] == []

    guard = world.memory.page("features")[board.USER_GUARD :]
    guard[user_guard.NOT_FINITE] = 3
    world.both(**told)
    word = asked(world, "/signal/BTCUSDT")[1]["decision"]["signals"][-1]
    assert word["reason"] == "mine says +0.50; 3 answers were no finite number" and word["own"]["not_finite"] == 3
    guard[user_guard.FAULTS], guard[user_guard.OFF_AT], guard[user_guard.OFF_WHY] = 1, 4007, user_guard.WHY_FAULT
    world.both()
    word = asked(world, "/signal/BTCUSDT")[1]["decision"]["signals"][-1]
    assert word["state"] == "off" and word["own"] == {"not_finite": 3, "faults": 1, "off_from": 4007}
    assert word["reason"].startswith("off from record 4,007 on: its code failed (an index out of bounds")
    status, said = asked(world, "/healthz")
    assert status == 200 and said["warnings"] == [f"mine: {word['reason']}"]


def test_a_timeframe_is_what_its_closed_candles_say() -> None:
    """Trend, RSI, ATR and volatility of the size that was asked for, as computed again in plain Python from the closed candles;
    not warm before. A candle that may lack trades is no bar. The decision is the same for every size."""
    world = GatewayWorld()
    world.event_ns = START_NS
    rng, ids = np.random.default_rng(5), iter(range(1, 10_000))
    moves, bars = rng.integers(-40, 41, 260), []
    ticks = BID
    for second, move in enumerate(moves):
        own = [ticks, ticks + int(move) + 7, ticks + int(move)]
        ticks = own[-1]
        if second % 50 == 49:
            continue  # a second without a trade
        for k, price in enumerate(own):
            world.trade(price, update_id=next(ids), ts_exchange_ns=START_NS + second * S + k * 1000)
        bars.append((second, own[0], max(own), min(own), own[-1]))
    world.signal()
    found = asked(world, "/signal/BTCUSDT", tf="1s")[1]
    said = found["timeframe"]
    table = bars_of(bars[1:-1])  # the first began before we looked, the last is open
    f = world.profile.features
    close, before = table[:, 3], np.concatenate([[0.0], table[:-1, 3]])
    true_range = (np.maximum(table[:, 1], before) - np.minimum(table[:, 2], before))[1:]
    change = np.diff(close)
    gain, loss = (ema_of(np.maximum(sign * change, 0.0), f.rsi_bars, 1 / f.rsi_bars)[-1] for sign in (1, -1))
    fast, slow = (ema_of(close, span, 2 / (span + 1))[-1] for span in (f.ema_fast, f.ema_slow))
    returns = np.diff(np.log(close))
    weight = f.volatility_lambda ** np.arange(len(returns))[::-1]
    assert said["warm"] and said["candles"] == len(table) and said["tf"] == "1s"
    assert said["ema_fast"] == pytest.approx(fast / 100) and said["ema_slow"] == pytest.approx(slow / 100)
    assert said["trend"] == ("UP" if fast > slow else "DOWN")
    assert said["rsi"] == pytest.approx(100 * gain / (gain + loss))
    assert said["atr"] == pytest.approx(ema_of(true_range, f.atr_bars, 1 / f.atr_bars)[-1] / 100)
    assert said["volatility"] == pytest.approx(np.sqrt((weight * returns**2).sum() / weight.sum()))
    assert said["last"] == found["candles"]["1s"]["closed"] and "pipeline's" in said["decided_by"]

    other = asked(world, "/signal/BTCUSDT", tf="1m")[1]
    assert other["decision"] == found["decision"]
    assert not other["timeframe"]["warm"] and other["timeframe"]["rsi"] is None and other["timeframe"]["candles"] == 3
    assert other["timeframe"]["last"] == other["candles"]["1m"]["closed"]


def bars_of(bars: list[tuple[int, int, int, int, int]]) -> np.ndarray:
    """(second, open, high, low, close) with flat bars where a second has none: open, high, low, close, as floats."""
    found: list[tuple[float, float, float, float]] = []
    for second, open_, high, low, close in bars:
        while len(found) < second - bars[0][0]:
            last = found[-1][3]
            found.append((last, last, last, last))
        found.append((open_, high, low, close))
    return np.array(found, float)


def test_unknown_names_are_refused_with_the_known_ones(world: GatewayWorld) -> None:
    """404 with the symbols, 422 with the timeframes; a path that is no route is nobody's."""
    for path in ("/signal/DOGE", "/book/DOGE", "/features/DOGE", "/signal/", "/signal/btcusdt"):
        status, said = asked(world, path)
        assert status == 404 and said["error"]["kind"] == "unknown_symbol" and said["error"]["known"] == list(NAMES)
    status, said = asked(world, "/signal/BTCUSDT", tf="2m")
    assert status == 422 and said["error"]["known"] == list(TIMEFRAMES) == ["1s", "5s", "15s", "1m", "5m"]
    for path in ("/", "/signal", "/signal/BTCUSDT/x", "/docs", "/symbols/"):
        assert world.answers.get(path, {}) is None


def test_data_that_is_too_old_is_refused_with_its_age(world: GatewayWorld) -> None:
    """503 once gateway.stale_after_ms has passed; a new record ends it."""
    world.pass_ms(10_000)
    assert asked(world, "/signal/BTCUSDT")[0] == 200
    world.pass_ms(1)
    for path in ("/signal/BTCUSDT", "/book/BTCUSDT", "/features/BTCUSDT"):
        status, said = asked(world, path)
        assert status == 503 and said["error"]["kind"] == "stale" and said["error"]["age_ms"] == 10_001.0
        assert "gateway.stale_after_ms (10000)" in said["error"]["message"]
    world.both()
    assert asked(world, "/signal/BTCUSDT")[0] == 200


def test_a_symbol_of_which_nothing_was_seen_is_not_ready(world: GatewayWorld) -> None:
    """503 not_ready for a symbol without records, and for one whose signal has not come yet."""
    status, said = asked(world, "/book/ETHUSDT")
    assert status == 503 and said["error"]["kind"] == "not_ready" and "age_ms" not in said["error"]
    world.market(1)
    assert asked(world, "/book/ETHUSDT")[0] == 200
    status, said = asked(world, "/signal/ETHUSDT")
    assert status == 503 and said["error"]["kind"] == "not_ready" and "signal" in said["error"]["message"]


@pytest.mark.parametrize("stage", ["feed", "features"])
def test_a_pipeline_that_is_down_is_refused(world: GatewayWorld, stage: str) -> None:
    """A source that shows no sign of life, or has finished, is 503 pipeline_down, and names it."""
    asked(world, "/healthz")
    world.pass_ms(2001, dead=[stage])
    status, said = asked(world, "/signal/BTCUSDT")
    assert status == 503 and said["error"]["kind"] == "pipeline_down" and stage in said["error"]["message"]
    world.pass_ms(1)
    assert asked(world, "/signal/BTCUSDT")[0] == 200
    world.memory.page(stage)[board.FINISHED] = 1
    assert asked(world, "/signal/BTCUSDT")[1]["error"]["kind"] == "pipeline_down"


def test_a_pause_of_the_gateway_is_nobodys_silence(world: GatewayWorld) -> None:
    """Heartbeats that moved while the gateway itself stood still count as moved, however long that was."""
    asked(world, "/healthz")
    world.pass_ms(9_000)
    assert asked(world, "/signal/BTCUSDT")[0] == 200


def test_an_answer_follows_every_record(world: GatewayWorld) -> None:
    """Asked twice without a new record only the ages differ; any new market or signal record is in the next answer."""
    first = asked(world, "/signal/BTCUSDT")[1]
    world.pass_ms(5)
    second = asked(world, "/signal/BTCUSDT")[1]
    assert second["ages"] == {"market_ms": 5.0, "signal_ms": 5.0} and second | {"ages": first["ages"]} == first
    world.market(bid_ticks=np.arange(5)[::-1] + BID - 9)
    assert asked(world, "/signal/BTCUSDT")[1]["microstructure"]["bid"]["price"] == "59999.95"
    world.signal(score=91.0)
    assert asked(world, "/signal/BTCUSDT")[1]["decision"]["score"] == 91.0


def test_the_end_of_the_market_is_said(world: GatewayWorld) -> None:
    """After END nothing new comes: 503 pipeline_down everywhere, and /healthz says why."""
    world.market(-1, Kind.END)
    for path in ("/signal/BTCUSDT", "/book/BTCUSDT", "/features/BTCUSDT"):
        status, said = asked(world, path)
        assert status == 503 and said["error"]["kind"] == "pipeline_down" and "ended" in said["error"]["message"]
    assert "the market has ended" in asked(world, "/healthz")[1]["problems"]


def test_health_is_200_only_while_all_is_well(world: GatewayWorld) -> None:
    """Every stage ready and beating, every symbol fresh; whatever is not is named."""
    world.both(1)
    status, said = asked(world, "/healthz")
    assert status == 200 and said["ok"] and said["problems"] == [] and said["lost"] == 0
    assert [row["name"] for row in said["stages"]] == list(topology.Run().names)
    assert {row["state"] for row in said["stages"]} == {"running"}
    assert [(row["name"], row["book"]) for row in said["symbols"]] == [(name, "valid") for name in NAMES]
    router = world.memory.page("router")
    assert said["frame_to_order"]["count"] == said["venue_answer"]["count"] == 0
    inputs = topology.STAGE["router"].inputs
    histogram.record(board.of_input(router, inputs.index("orders"), board.ORIGIN), 90_000)
    histogram.record(board.of_input(router, inputs.index("executions"), board.ORIGIN), 52_000_000)
    said = asked(world, "/healthz")[1]
    assert said["frame_to_order"]["max_ns"] == 90_000 and said["venue_answer"]["max_ns"] == 52_000_000
    world.memory.page("risk")[board.READY] = 0
    status, said = asked(world, "/healthz")
    assert status == 503 and not said["ok"] and said["problems"] == ["risk is starting"]
    world.memory.page("risk")[board.READY] = 1
    world.memory.page("recorder")[board.FAULT] = board.FAULT_DISK_FULL
    status, said = asked(world, "/healthz")
    assert status == 503 and ["no room left on its disk" in text for text in said["problems"]] == [True]
    world.memory.page("recorder")[board.FAULT] = 0
    world.memory.page("recorder")[board.FINISHED] = 1  # it keeps no journal
    assert asked(world, "/healthz")[0] == 200
    world.pass_ms(2500, dead=["quoter"])
    status, said = asked(world, "/healthz")
    assert status == 503 and ["quoter" in text for text in said["problems"]] == [True]


def test_symbols_are_listed_with_what_they_trade_in(world: GatewayWorld) -> None:
    """Names, sizes as the venue prints them, and whether anything was seen."""
    status, said = asked(world, "/symbols")
    assert status == 200 and [row["name"] for row in said["symbols"]] == list(NAMES)
    assert said["symbols"][0] == {
        "name": "BTCUSDT", "market": "binance_spot", "tick_size": "0.01", "lot_size": "0.00000001", "min_notional": "5.00",
        "contract": "linear", "contract_size": "1", "settles_in": "USDT", "take_signals": True, "seen": True,
    }  # fmt: skip
    assert said["symbols"][1]["seen"] is False and said["timeframes"] == list(TIMEFRAMES)


def test_a_lapped_gateway_shows_the_newest_and_counts_what_it_missed(world: GatewayWorld) -> None:
    """More records than the ring holds between two looks: the answer is the last one's, the candle says INCOMPLETE."""
    asked(world, "/signal/BTCUSDT")
    for number in range(topology.RING["market"].capacity + 100):
        world.market(bid_ticks=np.arange(5)[::-1] + BID - 100 + number % 50)
    world.trade(BID + 7)
    last = world.update_id
    world.signal()
    said = asked(world, "/signal/BTCUSDT")[1]
    assert said["ts_ns"] == world.event_ns and said["candles"]["1m"]["open"]["close"] == "60000.07"
    assert "INCOMPLETE" in said["candles"]["1m"]["open"]["flags"]
    assert asked(world, "/healthz")[1]["lost"] > 0
    assert asked(world, "/book/BTCUSDT")[1]["update_id"] == last - 1


def test_a_slot_that_is_being_written_is_not_read(world: GatewayWorld) -> None:
    """An open slot (sequence 0) and one of another lap are never shown: the record before stays the newest."""
    asked(world, "/book/BTCUSDT")
    before = asked(world, "/book/BTCUSDT")[1]
    entry = topology.RING["market"]
    from ringbuf import layout

    ctl, slots, recs = layout.views(world.memory.ring("market"), entry.record)
    row = int(ctl[layout.TAIL]) & (entry.capacity - 1)
    recs[row]["symbol"], recs[row]["kind"], recs[row]["bid_ticks"] = 0, int(Kind.DEPTH), 1
    assert asked(world, "/book/BTCUSDT")[1] == before
    slots[row, -1] = int(ctl[layout.TAIL]) + 1 - entry.capacity  # the lap before
    assert asked(world, "/book/BTCUSDT")[1] == before


def test_a_gateway_that_starts_late_sees_what_the_ring_still_holds(world: GatewayWorld) -> None:
    """A new incarnation needs no new record."""
    world.answers = world.build()
    assert asked(world, "/signal/BTCUSDT")[0] == 200


def test_looking_reads_and_never_writes(world: GatewayWorld) -> None:
    """Every word of rings and board is as it was, and no reader's cursor has moved."""
    kept = {name: words.copy() for name, words in world.memory.rings.items()}
    page = world.memory.board_words.copy()
    for route in ROUTES:
        asked(world, route.prefix + ("BTCUSDT" if route.takes_symbol else ""))
    assert all(np.array_equal(words, kept[name]) for name, words in world.memory.rings.items())
    assert np.array_equal(world.memory.board_words, page)


@pytest.mark.parametrize(
    ("units", "decimals", "text"),
    [(0, 2, "0.00"), (5, 2, "0.05"), (-5, 2, "-0.05"), (-12345, 2, "-123.45"), (7, 0, "7"), (10**18, 8, "10000000000.00000000")],
)
def test_decimals_are_exact(units: int, decimals: int, text: str) -> None:
    """Integers in, the venue's notation out."""
    assert decimal_text(units, decimals) == text


def test_a_scale_values_as_the_kernel_does(world: GatewayWorld) -> None:
    """notional_e8 of the gateway is trading.instruments.notional_e8."""
    from trading.instruments import notional_e8

    scale = Scale(world.answers.view.instruments[0])
    rng = np.random.default_rng(1)
    for ticks, lots in rng.integers(1, 10**9, (100, 2)).tolist():
        assert scale.notional_e8(ticks, lots) == notional_e8(world.answers.view.instruments, 0, ticks, lots)
