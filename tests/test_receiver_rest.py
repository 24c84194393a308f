"""The REST client against a server on the loopback, with a clock that only its own waiting moves; and the rules made of it."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable

import msgspec
import pytest
from receiver_world import Tiny, TinyServer

from procs import rundir
from procs.pacing import SECOND
from procs.profiles.schema import EndpointSettings, LiveSettings, Profile, SourceSettings, SymbolSettings
from procs.receiver import markets, rules
from procs.receiver.budget import WeightBudget
from procs.receiver.rest import Answered, Denied, Outcome, RestClient, Unreached, retry_after_s
from procs.receiver.weight import weight_budget
from trading.venues.protocol import RestRequest

Pages = dict[str, list[tuple[int, dict[str, str], bytes]]]


class Waiting:
    """A monotonic clock that stands still but for what is slept."""

    def __init__(self) -> None:
        self.now = 0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """Moves the clock."""
        self.slept.append(seconds)
        self.now += int(seconds * SECOND)


def ask(
    pages: Pages, budget: WeightBudget | None = None, times: int = 1
) -> tuple[Outcome, Waiting, RestClient, list[str]]:
    """The last of some requests to /x of a server with these pages."""

    async def run() -> tuple[Outcome, Waiting, RestClient, list[str]]:
        async with TinyServer() as server:
            server.pages = pages
            clock = Waiting()
            client = RestClient(
                f"http://127.0.0.1:{server.port}/", budget or WeightBudget(6000, 1.0), random.Random(1),
                mono_ns=lambda: clock.now, wall_ns=lambda: clock.now, sleep=clock.sleep, timeout_s=5.0,
            )  # fmt: skip
            try:
                for _ in range(times):
                    outcome = await client.get(RestRequest("/x", {"symbol": "A B"}, 10))
            finally:
                await client.close()
            return outcome, clock, client, server.asked

    return asyncio.run(run())


def test_an_answer_is_its_bytes() -> None:
    """200: the body as it came, however large; the parameters are escaped."""
    body = random.Random(1).randbytes(3_000_000)
    outcome, clock, client, asked = ask({"/x": [(200, {}, body)]})
    assert isinstance(outcome, Answered) and outcome.body == body and clock.slept == []
    assert asked[0].startswith("/x?symbol=A") and client.requests == 1


def test_429_waits_as_long_as_it_is_told() -> None:
    """Retry-After is honoured to the second, then the request goes out again."""
    outcome, clock, client, _ = ask({"/x": [(429, {"Retry-After": "17"}, b"slow down"), (200, {}, b"ok")]})
    assert isinstance(outcome, Answered) and outcome.body == b"ok"
    assert sum(clock.slept) == pytest.approx(17, abs=1.0) and client.limited == 1


def test_418_waits_for_the_end_of_the_ban() -> None:
    """A ban that names its end in the message holds longer than its header says."""
    message = b'{"code":-1003,"msg":"Way too many requests; IP banned until 1000000300000."}'

    async def run() -> float:
        async with TinyServer() as server:
            server.pages = {"/x": [(418, {"Retry-After": "5"}, message), (200, {}, b"ok")]}
            clock = Waiting()
            client = RestClient(f"http://127.0.0.1:{server.port}", WeightBudget(100, 1.0), random.Random(1),
                                mono_ns=lambda: clock.now, wall_ns=lambda: 1_000_000_000_000 * 1_000_000 + clock.now,
                                sleep=clock.sleep)  # fmt: skip
            assert isinstance(await client.get(RestRequest("/x")), Answered)
            await client.close()
            return sum(clock.slept)

    assert 300 <= asyncio.run(run()) < 302


@pytest.mark.parametrize(
    ("status", "header", "seconds"), [(429, "3", 3.0), (429, "", 60.0), (418, "x", 120.0), (418, "-4", 1.0), (503, "9", 0.0)]
)
def test_retry_after_has_a_default_and_a_floor(status: int, header: str, seconds: float) -> None:
    """A missing or foolish header never means "at once"."""
    assert retry_after_s(status, header) == seconds


def test_5xx_is_tried_again_and_then_given_up() -> None:
    """Pauses grow, with jitter; the outcome names the last failure."""
    outcome, clock, client, asked = ask({"/x": [(503, {}, b"busy")]})
    assert outcome == Unreached("HTTP 503: busy") and len(asked) == 5
    assert len(clock.slept) == 4 and all(0.125 * 2**n <= wait <= 0.25 * 2**n for n, wait in enumerate(clock.slept))
    outcome, *_ = ask({"/x": [(502, {}, b""), (200, {}, b"yes")]})
    assert isinstance(outcome, Answered)
    assert client.failed == 1


def test_4xx_is_an_answer() -> None:
    """Asking the same again is useless."""
    outcome, clock, _, asked = ask({"/x": [(400, {}, b'{"code":-1121,"msg":"Invalid symbol."}')]})
    assert isinstance(outcome, Denied) and "Invalid symbol" in outcome.text and len(asked) == 1 and clock.slept == []


def test_nobody_listens() -> None:
    """A refused connection is tried again, then told."""

    async def run() -> Outcome:
        async with TinyServer() as server:
            port = server.port
        clock = Waiting()
        client = RestClient(f"http://127.0.0.1:{port}", WeightBudget(100, 1.0), random.Random(1), sleep=clock.sleep, tries=3)
        try:
            return await client.get(RestRequest("/x"))
        finally:
            await client.close()

    outcome = asyncio.run(run())
    assert isinstance(outcome, Unreached) and "Connect" in outcome.why


def test_who_cannot_wait_is_told_how_long_it_would_be() -> None:
    """A ban of an hour: a client of limited patience says so at once, and the next one of this machine does not even ask."""

    async def run() -> tuple[list[Outcome], list[float], int]:
        async with TinyServer() as server:
            server.pages = {"/x": [(418, {"Retry-After": "3600"}, b"banned")]}
            clock, budget = Waiting(), WeightBudget(100, 1.0)
            found = []
            for _ in range(2):
                client = RestClient(f"http://127.0.0.1:{server.port}", budget, random.Random(1), longest_wait_s=65.0,
                                    mono_ns=lambda: clock.now, sleep=clock.sleep)  # fmt: skip
                found.append(await client.get(RestRequest("/x")))
                await client.close()
            return found, clock.slept, len(server.asked)

    outcomes, slept, asked = asyncio.run(run())
    assert slept == [] and asked == 1
    assert [isinstance(it, Unreached) and "left alone for another 3600 s" in it.why for it in outcomes] == [True, True]
    assert "HTTP 418: banned" in outcomes[0].why and "not tried" in outcomes[1].why  # type: ignore[union-attr]


def test_weight_is_never_over_the_budget() -> None:
    """Twenty requests of weight 10 with 50 a minute: the fourth five wait, and at no time more than 50 are counted."""
    budget = WeightBudget(100, 0.5)
    _, clock, _, asked = ask({"/x": [(200, {}, b"")]}, budget, times=20)
    assert len(asked) == 20 and budget.highest <= 50 and clock.now >= 180 * SECOND


def test_the_venues_own_count_is_believed() -> None:
    """A header that says that the minute is nearly used up makes the next request wait."""
    _, clock, _, _ = ask({"/x": [(200, {"X-MBX-USED-WEIGHT-1M": "5995"}, b"")]}, times=2)
    assert clock.now >= 59 * SECOND


@pytest.fixture(autouse=True)
def own_budgets(own_folders: None) -> None:
    """No budget that another test, or a pipeline of this machine, has spent from."""


def live(port: int, *symbols: SymbolSettings, fetch: bool = True) -> Profile:
    """A live profile of the small venue under Binance's name."""
    url = f"http://127.0.0.1:{port}"
    settings = LiveSettings(endpoints=(EndpointSettings("binance_spot", rest=url),), fetch_rules=fetch)
    return Profile(source=SourceSettings(kind="live"), symbols=symbols, live=settings)


async def fetched(pages: Pages, profile: Callable[[int], Profile]) -> Profile:
    """`rules.fetch_rules` in a thread, as the command line calls it."""
    async with TinyServer() as server:
        server.pages = pages
        return await asyncio.to_thread(rules.fetch_rules, profile(server.port))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small venue speaks for all markets."""
    monkeypatch.setattr(markets, "venue_of", lambda market, symbols, streams: Tiny(len(symbols)))
    monkeypatch.setattr(rules, "venue_of", lambda market, symbols, streams: Tiny(len(symbols)))
    monkeypatch.setattr(rules, "TRIES", 1)


def info(**instruments: tuple[str, str, bool]) -> Pages:
    """An instruments page."""
    return {"/info": [(200, {}, json.dumps(instruments).encode())]}


@pytest.mark.usefixtures("tiny")
def test_rules_come_into_the_profile() -> None:
    """Ticks and lots are the venue's, fees and switches the profile's."""
    mine = SymbolSettings(name="S0USD", venue_name="s0", maker_fee_bps=1.5, make_market=False)
    done = asyncio.run(fetched(info(s0=("0.5", "0.001", True)), lambda port: live(port, mine)))
    assert done.symbols[0] == msgspec.structs.replace(
        mine, tick_size="0.5", lot_size="0.001", step_size="0.001", min_qty="0.001", max_qty="1000", min_notional="5"
    )
    kept = asyncio.run(fetched({}, lambda port: live(port, mine, fetch=False)))
    assert kept.symbols[0] == mine


def test_the_venue_says_what_its_limit_is() -> None:
    """exchangeInfo's rateLimits replace the figure in the code, for this process and for the receiver that starts after it; one
    that names none changes nothing."""
    symbol = {
        "symbol": "BTCUSDT", "status": "TRADING", "filters": [
            {"filterType": "PRICE_FILTER", "tickSize": "0.01"},
            {"filterType": "LOT_SIZE", "stepSize": "0.00001", "minQty": "0.00001", "maxQty": "9000"},
        ],
    }  # fmt: skip
    limits = [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 1200}]
    pages = [json.dumps({"symbols": [symbol], "rateLimits": told}).encode() for told in (limits, [])]

    async def run() -> tuple[WeightBudget, WeightBudget]:
        found = []
        async with TinyServer() as server:
            server.pages = {"/api/v3/exchangeInfo": [(200, {"X-MBX-USED-WEIGHT-1M": "33"}, page) for page in pages]}
            for _ in pages:
                await asyncio.to_thread(rules.fetch_rules, live(server.port, SymbolSettings(name="BTCUSDT")))
                url = f"http://127.0.0.1:{server.port}"
                found.append(weight_budget(url, 6000, 0.5, rundir.venues_dir(), time.monotonic_ns()))
        return found[0], found[1]

    for turn, budget in enumerate(asyncio.run(run()), 1):
        assert budget.limit == 1200 and budget.own.limit == 600
        assert budget.used(time.monotonic_ns()) == 20 * turn, "the receiver knows what the look at the rules has cost"


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("pages", "words"),
    [
        (info(s1=("0.5", "1", True), btc=("1", "1", True)), ("no instrument 's0'", "near it: s1", "symbols[0]")),
        (info(s0=("0.5", "1", False)), ("does not trade s0",)),
        (info(s0=("0.5", "0.3", True)), ("live.fetch_rules: false",)),
        ({"/info": [(200, {}, b"<html>")]}, ("no list of instruments", "127.0.0.1")),
        ({"/info": [(451, {}, b"not in your country")]}, ("HTTP 451", "region", "s0")),
        ({"/info": [(500, {}, b"")]}, ("cannot be reached", "curl -sS", "live.endpoints")),
    ],
)
def test_each_way_to_have_no_rules_says_what_to_do(pages: Pages, words: tuple[str, ...]) -> None:
    """Place, cause and remedy in one sentence."""
    with pytest.raises(rules.RulesError) as error:
        asyncio.run(fetched(pages, lambda port: live(port, SymbolSettings(name="S0USD", venue_name="s0"))))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_clocks_are_the_systems_by_default() -> None:
    """Nothing but tests changes them."""
    client = RestClient("http://127.0.0.1:1", WeightBudget(1, 1.0), random.Random(1))
    assert client._mono is time.monotonic_ns and client._wall is time.time_ns
