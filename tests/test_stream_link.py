"""The link subscribes dead streams anew over its sockets: what the feed, the other line or the silence tells it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from receiver_world import LIVE, LinkWorld, Tiny, TinyServer, until

from procs.receiver import link as link_module
from procs.receiver import stream_watch
from procs.receiver.line_table import SILENT, venue_row
from procs.receiver.lines import LineState
from trading.records import Kind, Stream
from trading.venues.protocol import Limits, RestRequest, code_of

LIMITS = Limits(client_messages_per_s=1000.0)


class Leaving(Tiny):
    """The small venue, whose streams can be left and entered anew."""

    def stream_messages(self, symbol: int, stream: Stream) -> list[bytes]:
        """Two messages."""
        return [json.dumps({op: [symbol, int(stream)]}).encode() for op in ("leave", "enter")]

    def snapshot_request(self, symbol: int) -> RestRequest | None:
        """By REST."""
        return RestRequest("/depth", {"symbol": str(symbol)})


def entered(server: TinyServer) -> list[tuple[int, int]]:
    """(symbol, stream) of what was entered anew."""
    return [tuple(json.loads(text)["enter"]) for text in server.got if "enter" in text]


def play(body: Any, venue: Tiny | None = None, **live: Any) -> None:
    """A link over a small server."""

    async def whole() -> None:
        async with asyncio.timeout(120), TinyServer() as server:
            made = venue or Leaving(limits=LIMITS)
            async with LinkWorld(server, made, msgspec.structs.replace(LIVE, **live)) as at:
                await at.up()
                await body(server, at)

    asyncio.run(whole())


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses and looks of milliseconds."""
    monkeypatch.setattr(stream_watch, "PAUSE_NS", 20_000_000)
    monkeypatch.setattr(link_module, "LOOK_NS", 5_000_000)


def test_what_the_feed_wants_is_left_and_entered_until_it_flows() -> None:
    """Best bid/offer and mark price of a symbol, no other stream; said once, shown in the table. Four tries in vain, and the
    connection is replaced."""

    async def body(server: TinyServer, at: LinkWorld) -> None:
        at.link.want_streams(1, 1 << Stream.BBO | 1 << Stream.MARK)
        await until(lambda: (1, int(Stream.BBO)) in entered(server))
        row = venue_row(at.link)["streams"][1]
        assert {it["stream"] for it in row["wanted"]} == {"bbo", "mark"} and row["symbol"] == "S1USD"
        await until(lambda: len(server.sockets) >= 2)
        assert any("bbo does not come back" in text for text in at.said)
        assert sum("S1USD: bbo is subscribed anew" in text for text in at.said) == 1
        assert {symbol for symbol, _ in entered(server)} == {1}

    play(body)


def test_a_symbol_of_which_nothing_comes_is_subscribed_anew_and_its_book_is_proved_or_told_lost() -> None:
    """All streams of a symbol are silent for the whole timeout while the connection lives by another's: they are entered anew and
    a snapshot is fetched. While it cannot be had the book is told LOST, once; the other symbol is left alone."""

    async def body(server: TinyServer, at: LinkWorld) -> None:
        heard = at.link.watch.heard[0]

        def other() -> bool:
            heard[code_of(0, Stream.DEPTH)] = heard[code_of(0, Stream.BBO)] = heard[code_of(0, Stream.PRINTS)] = 2**62
            return True

        await until(lambda: other() and bool(at.kinds(Kind.LOST)))
        await until(lambda: other() and {(1, 0), (1, 1), (1, 2)} <= set(entered(server)))
        assert {symbol for symbol, _ in entered(server)} == {1}
        assert [symbol for symbol, _, _ in at.kinds(Kind.LOST)] == [1] and any(SILENT in text for text in at.said)
        assert "/depth?symbol=1" in server.asked and "/depth?symbol=0" not in server.asked
        assert at.link.lines.lines[0].state is LineState.UP

    venue = Leaving(limits=Limits(client_messages_per_s=1000.0, ping_interval_s=0.1))
    play(body, venue, silence_timeout_s=0.5)
