"""Prices through the unmodified ccxt from a small Binance on loopback, with failures; from recordings; and the command."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candle_streams import naive, recorded_trades
from prices_venue import MINUTE_MS, T0_MS, Clock, SmallVenue

from procs.cli import main as cli
from procs.cli import prices as command
from procs.journal.file import JournalReader, JournalWriter, journal_path
from procs.prices.answer import AllSourcesFailed, BadAnswer, BudgetSpent, SourceFailed, UnknownSymbol, UnknownTimeframe
from procs.prices.budget import Budgets
from procs.prices.endpoints import CcxtEndpoint, endpoints_of
from procs.prices.shared import shared_units
from procs.prices.source import PriceSource
from procs.prices.trades import RecordedTrades, RunSymbol, RunTrades, TradeCandles
from procs.receiver.weight import weight_budget
from trading.records import MARKET_RECORD, Flag, Kind
from trading.venues.protocol import VenueError


def run(main: Callable[[Clock, SmallVenue, CcxtEndpoint], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine with a clock, a venue and an endpoint at it, with two minutes of patience."""

    async def world() -> None:
        clock = Clock()
        async with SmallVenue(clock) as venue:
            endpoint = CcxtEndpoint("binance_spot", venue.url, now_ns=clock, timeout_s=60.0)
            try:
                await main(clock, venue, endpoint)
            finally:
                await endpoint.close()

    asyncio.run(asyncio.wait_for(world(), 120))


def test_candles_and_prices_of_the_real_ccxt_are_the_venues_decimals() -> None:
    """klines and ticker as printed, the last candle open, one look at the markets, no request that the cache can spare."""

    async def main(clock: Clock, venue: SmallVenue, endpoint: CcxtEndpoint) -> None:
        source = PriceSource([endpoint], now_ns=clock)
        found = await source.ohlcv("BTCUSDT", "1m", 3)
        assert [c.open_time_ns for c in found.candles] == [(T0_MS - k * MINUTE_MS) * 1_000_000 for k in (2, 1, 0)]
        assert [c.open_ended for c in found.candles] == [False, False, True] and found.partial and not found.stale
        low = 60000 + T0_MS // MINUTE_MS % 100
        last = found.candles[-1]
        assert (last.open, last.high, last.low, last.close, last.volume) == tuple(
            map(Decimal, (f"{low}.1", f"{low + 9}", f"{low}", f"{low + 5}.55", "12.34567"))
        )
        price = await source.ticker("BTC/USDT")
        assert (price.last, price.bid, price.ask) == tuple(map(Decimal, ("61837.63", "61837.63", "61837.64")))
        assert price.source == f"binance_spot at {venue.url}" and price.age_s == 0.0
        await asyncio.gather(*(source.ohlcv("BTCUSDT", "1m", 3) for _ in range(20)))
        assert venue.calls == {"exchangeInfo": 1, "klines": 1, "ticker/24hr": 1}
        clock.turn(21)
        await source.ohlcv("BTCUSDT", "1m", 3)
        assert venue.calls["klines"] == 2

    run(main)


def test_failures_of_the_venue_are_typed() -> None:
    """What it does not list, sizes that it has not, refusals, errors, garbage, silence: each its own error, with words."""

    async def main(clock: Clock, venue: SmallVenue, endpoint: CcxtEndpoint) -> None:
        with pytest.raises(UnknownSymbol, match="no symbol 'BTCUSD': did you mean BTCUSDT"):
            await endpoint.ticker("BTCUSD")
        with pytest.raises(UnknownTimeframe, match="no candles of '7m': it has 1s, 1m"):
            await endpoint.ohlcv("BTCUSDT", "7m", 5)
        for status, headers, hold_s in ((429, {"Retry-After": "17"}, 17.0), (418, {}, 30.0), (503, {}, 0.0)):
            venue.status, venue.headers = status, headers
            with pytest.raises(SourceFailed) as caught:
                await endpoint.ticker("BTCUSDT")
            assert caught.value.hold_s == hold_s and not isinstance(caught.value, BadAnswer)
        venue.status = 200
        for body in ("[]", "nonsense", '{"lastPrice": "0"}', '{"lastPrice": null}', '{"lastPrice": "NaN"}'):
            venue.body = body
            with pytest.raises(SourceFailed):
                await endpoint.ticker("BTCUSDT")
        for body in ("[]", "[[1]]", '[["x",1,2,3,4,5]]', '[[1723161240000,"5","4","6","5","1"]]', '{"a":1}'):
            venue.body = body
            with pytest.raises(SourceFailed):
                await endpoint.ohlcv("BTCUSDT", "1m", 5)

    run(main)


def test_every_step_down_and_up_again_against_servers(tmp_path: Path) -> None:
    """Second address when the first refuses, trades of a recording when both do, then last known, stale; then the first again."""

    async def main(clock: Clock, venue: SmallVenue, endpoint: CcxtEndpoint) -> None:
        async with SmallVenue(clock) as other:
            second = CcxtEndpoint("binance_spot", other.url, now_ns=clock, timeout_s=60.0)
            file = recording(tmp_path / "day.gz", clock() - 3_000_000_000)
            trades = TradeCandles(RecordedTrades([file]), now_ns=clock)
            source = PriceSource([endpoint, second], [trades], now_ns=clock)
            known = await source.ticker("ETHUSDT")
            venue.status = 503
            assert (await source.ticker("BTCUSDT")).source == second.name
            other.status = 429
            clock.turn(21)
            answer = await source.ticker("BTCUSDT")
            assert (answer.source, answer.last, answer.age_s) == ("trades of day.gz", Decimal("61000.5"), 24.0)
            stale = await source.ticker("ETHUSDT")
            assert stale.stale and stale.last == known.last and stale.age_s == 21.0
            with pytest.raises(AllSourcesFailed):
                await source.ohlcv("ETHUSDT")
            venue.status = 200
            clock.turn(3)
            back = await source.ticker("ETHUSDT")
            assert back.source == endpoint.name and not back.stale and back.failed == ()
            await second.close()

    run(main)


def test_receiver_and_prices_spend_from_one_budget(tmp_path: Path) -> None:
    """What prices cost (exchangeInfo 20, a ticker 2) and what the venue's headers say is what the receiver finds; once it has
    spent the rest, prices are not asked any more."""

    async def main(clock: Clock, venue: SmallVenue, _: CcxtEndpoint) -> None:
        mine = CcxtEndpoint("binance_spot", venue.url, now_ns=clock, timeout_s=60.0, venues_dir=tmp_path)
        await mine.ticker("BTCUSDT")
        receiver = weight_budget(venue.url, 6000, 0.5, tmp_path, time.monotonic_ns())
        assert 20 <= receiver.used(time.monotonic_ns()) <= 40
        venue.headers = {"X-MBX-USED-WEIGHT-1M": "77"}
        await mine.ticker("BTCUSDT")
        assert [json.loads(file.read_bytes())["seen"][1] for file in tmp_path.iterdir()] == [77]
        assert receiver.admit(time.monotonic_ns(), 2950) == 0
        with pytest.raises(BudgetSpent, match="this machine may ask the venue again in"):
            for _ in range(30):
                await mine.ticker("BTCUSDT")
        await mine.close()
        assert shared_units("ccxt:gate", "", 50.0, tmp_path) is None and shared_units("okx", "", 50.0, None) is None

    run(main)


def test_a_server_that_is_not_there_and_one_budget_for_all() -> None:
    """A refused connection is a failed source; two endpoints of a venue spend one budget, by ccxt's weights, to its end."""

    async def main(clock: Clock, venue: SmallVenue, endpoint: CcxtEndpoint) -> None:
        gone = CcxtEndpoint("binance_spot", "http://127.0.0.1:1", timeout_s=2.0)
        with pytest.raises(SourceFailed, match="ExchangeNotAvailable|NetworkError"):
            await gone.ticker("BTCUSDT")
        await gone.close()
        budgets = Budgets(0.5, max_wait_s=0.0, clock=clock, sleep=clock.sleep)
        pair = [CcxtEndpoint("binance_spot", venue.url, budgets=budgets, now_ns=clock) for _ in range(2)]
        with pytest.raises(BudgetSpent):
            for n in range(2000):
                await pair[n % 2].ticker("BTCUSDT")
        budget = budgets.of("binance", 50.0)
        assert budget.refused == 1 and budget.spent <= 100.001 and sum(venue.calls.values()) < 2000
        for one in pair:
            await one.close()

    run(main)


def recording(path: Path, last_ns: int) -> Path:
    """A gzip recording of three trades and other frames, the last trade at `last_ns`; one trade is there twice."""
    lines = []
    for n, (price, age_s) in enumerate((("61000.10", 90), ("61000.20", 4), ("61000.50", 0), ("61000.50", 0))):
        data = {"e": "trade", "E": 1, "s": "BTCUSDT", "t": min(n, 2) + 7, "p": price, "q": "0.50000000",
                "T": (last_ns - age_s * 10**9) // 1_000_000, "m": n == 1}  # fmt: skip
        lines.append(f"{n} {json.dumps({'stream': 'btcusdt@trade', 'data': data})}\n")
    lines.insert(1, '5 {"stream":"btcusdt@bookTicker","data":{"u":1,"s":"BTCUSDT","a":"1"},"x":"trade"}\n')
    path.write_bytes(gzip.compress("".join(lines).encode()))
    return path


def test_recorded_trades_make_the_candles_of_the_group_by(recordings: Path) -> None:
    """spot BTCUSDT, one day's end: prices and volumes of every minute as decimals; the ends are marked as doubtful."""
    name = "spot_btcusdt_20240808"
    wanted = naive(recorded_trades(recordings, [name], "0.01", "0.00000001"), MINUTE_MS * 1_000_000)
    file = recordings / "hftbacktest_binance" / f"{name}.gz"
    found = TradeCandles(RecordedTrades([file]), now_ns=lambda: 0).ohlcv("BTC/USDT", "1m", 1000)
    assert [(c.open_time_ns, c.open, c.high, c.low, c.close, c.volume) for c in found] == [
        (w["open_time_ns"], *(Decimal(w[k]) / 100 for k in ("open_ticks", "high_ticks", "low_ticks", "close_ticks")),
         Decimal(w["volume_lots"]) / 10**8) for w in wanted
    ]  # fmt: skip
    assert [c.incomplete for c in found] == [True, *[False] * (len(found) - 2), True]


def test_a_recording_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    """Cut off, absent, without the symbol: an error with the file and a way on."""
    whole = recording(tmp_path / "a.gz", 10**18)
    with pytest.raises(UnknownSymbol, match="no trade of ETHUSDT: it holds BTCUSDT"):
        RecordedTrades([whole]).trades("ETHUSDT")
    (tmp_path / "cut.gz").write_bytes(whole.read_bytes()[:-40])
    (tmp_path / "odd.txt").write_text('1 {"data":{"e":"trade","t":"x"}}\n')
    for name in ("cut.gz", "odd.txt", "absent.gz"):
        with pytest.raises(SourceFailed, match=f"{name} cannot be read to its end"):
            RecordedTrades([tmp_path / name]).trades("BTCUSDT")


def test_trades_of_a_pipeline_are_read_from_its_journal(tmp_path: Path) -> None:
    """The market journal's trades of the symbol asked for, as decimals; a symbol of another venue is none of it."""
    recs = np.zeros(4, MARKET_RECORD)
    recs["kind"] = Kind.TRADE, Kind.DEPTH, Kind.TRADE, Kind.TRADE
    recs["symbol"] = 1, 1, 0, 1
    recs["price_ticks"], recs["qty_lots"], recs["update_id"] = (500, 0, 7, 510), (3, 0, 1, 4), (1, 9, 1, 2)
    recs["ts_exchange_ns"] = np.arange(1, 5) * 10**9 + 10**18
    recs["flags"][0] = Flag.AGGRESSOR_SELL
    recs["seq"] = np.arange(1, 5)
    with JournalWriter.open(journal_path(tmp_path, "market"), "market", MARKET_RECORD, "paper") as journal:
        journal.append(recs)
    symbols = [RunSymbol("", Decimal("1"), Decimal("1"), True), RunSymbol("ETHUSDT", Decimal("0.5"), Decimal("0.1"), True)]
    source = RunTrades("pipeline", symbols, JournalReader(journal_path(tmp_path, "market"), MARKET_RECORD).records)
    trades = source.trades("ETH/USDT")
    assert trades.ticks.tolist() == [500, 510] and trades.sells.tolist() == [1, 0] and trades.ids.tolist() == [1, 2]
    ticker = TradeCandles(source, now_ns=lambda: 0).ticker("ETHUSDT")
    assert (ticker.last, ticker.as_of_ns) == (Decimal("255.0"), 10**18 + 4 * 10**9)
    with pytest.raises(UnknownSymbol):
        source.trades("BTCUSDT")
    with pytest.raises(SourceFailed, match="no trade of ETHUSDT"):
        RunTrades("empty", symbols, lambda: recs[:0]).trades("ETHUSDT")


def test_endpoints_of_a_venue() -> None:
    """Its own addresses, or those given, in order; what is no venue is refused."""
    assert [e.name for e in endpoints_of("binance_spot")] == ["binance_spot", "binance_spot at https://data-api.binance.vision"]
    assert [e.name for e in endpoints_of("okx", ("http://127.0.0.1:1", "ccxt:kraken"))] == [
        "okx at http://127.0.0.1:1",
        "ccxt:kraken",
    ]
    with pytest.raises(VenueError, match="is no venue"):
        endpoints_of("nowhere")
    nobody = CcxtEndpoint("ccxt:nobody")
    with pytest.raises(SourceFailed, match="ccxt knows no venue 'nobody'"):
        asyncio.run(nobody.ticker("BTCUSDT"))


# ---- the command ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallVenue]:
    """A small venue in a thread of its own: the command runs a loop itself."""
    monkeypatch.setattr(command.running, "living", list)  # not those of whoever else uses this machine
    ready, end, box = threading.Event(), None, {}

    async def serve() -> None:
        nonlocal end
        end = asyncio.Event()
        clock = Clock()
        clock.ns = time.time_ns()
        async with SmallVenue(clock) as venue:
            box["venue"], box["loop"] = venue, asyncio.get_running_loop()
            ready.set()
            await end.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(120)
    yield box["venue"]
    box["loop"].call_soon_threadsafe(end.set)
    thread.join(120)
    assert not thread.is_alive()


def test_the_command_prints_prices_and_candles(served: SmallVenue, capsys: pytest.CaptureFixture[str]) -> None:
    """Tables for people, JSON for programs; a symbol that is not there costs the others nothing but the exit code."""
    rest = f"rest={served.url}"
    assert cli.main(["prices", "BTCUSDT", "ETHUSDT", "--endpoint", rest]) == 0
    out = capsys.readouterr().out
    assert "61837.63" in out and "ETHUSDT" in out and "binance_spot at" in out and "ok" in out
    assert cli.main(["prices", "BTCUSDT", "--timeframe", "1m", "--limit", "2", "--endpoint", rest, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["BTCUSDT"]
    assert len(found["candles"]) == 2 and found["partial"] and not found["stale"] and found["candles"][0]["volume"] == "12.34567"
    assert cli.main(["prices", "BTCUSDT", "--timeframe", "1m", "--limit", "2", "--endpoint", rest]) == 0
    assert "still open" in capsys.readouterr().out
    assert cli.main(["prices", "BTCUSDT", "BTCUSD", "--endpoint", rest]) == 1
    assert "BTCUSD: binance_spot at" in capsys.readouterr().out


def test_the_command_falls_back_and_says_so(served: SmallVenue, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A venue that fails, a recording that has the symbol: the trade's price, stale by its age (exit code 5), with the reason."""
    served.status = 503
    rest = f"rest={served.url}"
    file = str(recording(tmp_path / "day.gz", T0_MS * 1_000_000))
    assert cli.main(["prices", "BTCUSDT", "--endpoint", rest, "--recording", file]) == 5
    out = capsys.readouterr().out
    assert "61000.5" in out and "stale" in out and "trades of day.gz" in out and "gave nothing" in out
    assert cli.main(["prices", "ETHUSDT", "--endpoint", rest, "--recording", file]) == 1
    assert "no source has a price of ETHUSDT" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "code", "sentence"), [
    (["--endpoint", "ftp://x"], 2, "write rest=http://host:port or ccxt:<id>"),
    (["--endpoint", "rest=binance"], 2, "write rest=http://host:port or ccxt:<id>"),
    (["--limit", "1001"], 2, "more than the 1000"),
    (["--venue", "nowhere"], 2, "is no venue: write one of"),
])  # fmt: skip
def test_the_command_refuses_with_a_sentence(words: list[str], code: int, sentence: str, monkeypatch: Any, capsys: Any) -> None:
    """A wrong word: exit code 2 and the remedy, before anything is asked."""
    monkeypatch.setattr(command.running, "living", list)
    assert cli.main(["prices", "BTCUSDT", *words]) == code
    assert sentence in capsys.readouterr().err


def test_only_a_pipeline_on_the_same_real_venue_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generated market's prices are nobody's, a recording's are old, another venue's are others': none of them is a source.
    One whose venue is at another address, perhaps simulated, has to be named."""
    from procs.profiles.schema import EndpointSettings, LiveSettings, Profile, SourceSettings, SymbolSettings

    def sources(kind: Any, venue: str, endpoints: tuple[EndpointSettings, ...] = (), words: tuple[str, ...] = ()) -> list[str]:
        live = LiveSettings(venue=venue, endpoints=endpoints)
        profile = Profile(source=SourceSettings(kind=kind), live=live, symbols=(SymbolSettings("BTCUSDT"),))
        monkeypatch.setattr(command.running, "living", lambda: ["paper"])
        monkeypatch.setattr(command.running, "running_profile", lambda _: profile)
        args = cli.parser("prices").parse_args(["prices", "BTCUSDT", *words])
        return [source.name for source in command.trade_sources(args)]

    assert sources("live", "binance_spot") == ["trades of pipeline paper"]
    assert sources("generated", "binance_spot") == sources("recording", "binance_spot") == sources("live", "okx") == []
    local = (EndpointSettings("binance_spot", stream="ws://127.0.0.1:1"),)
    assert sources("live", "binance_spot", local) == []
    named = ["trades of pipeline paper (from ws://127.0.0.1:1)"]
    assert sources("live", "binance_spot", local, ("--instance", "paper")) == named
