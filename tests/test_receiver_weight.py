"""REST weight that processes share through a file: one purse, whoever asks, whatever crashes, whatever the file looks like."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
from pathlib import Path

import pytest
from receiver_world import TinyServer

from procs.pacing import MINUTE, SECOND
from procs.receiver.budget import WeightBudget
from procs.receiver.rest import Answered, RestClient
from procs.receiver.weight import FORGOTTEN_S, LOCKED_NS, MOST_LOCKED, SharedWeight, weight_budget
from trading.venues.protocol import RestRequest

S = SECOND
WALL = 1_700_000_000 * S


class Process:
    """One process with a monotonic clock of its own, which reads the same wall clock as the others."""

    def __init__(self, file: Path, began: int, *, limit: int = 100, share: float = 0.5, wall: int = WALL) -> None:
        self.wall = wall
        self.began = began - (wall - WALL)
        self.budget = SharedWeight(limit, share, file, began, wall_ns=lambda: self.wall)

    def mono(self, wall: int) -> int:
        """Its monotonic time at a time of the wall clock."""
        self.wall = wall
        return self.began + wall - WALL


def test_all_processes_spend_from_one_purse(tmp_path: Path) -> None:
    """Three processes with clocks of their own, one of them born again all the time: never more than the share within any minute,
    and each gets something."""
    file = tmp_path / "weight.json"
    rng = random.Random(1)
    processes = [Process(file, began) for began in (0, 5 * S, 10**15)]
    spent: list[tuple[int, int]] = []
    got = [0, 0, 0]
    for step in range(6000):
        wall = WALL + step * S // 5
        n = rng.randrange(3)
        if n == 2 and rng.random() < 0.3:
            processes[2] = Process(file, rng.randrange(10**12), wall=wall)
        one, weight = processes[n], rng.choice([1, 5, 20])
        if one.budget.admit(one.mono(wall), weight) == 0:
            spent.append((wall, weight))
            got[n] += weight
            assert sum(w for at, w in spent if at > wall - MINUTE) <= 50
    assert min(got) > 250 and sum(got) > 900, "twenty minutes of 50"


def test_the_venues_count_its_limit_and_its_ban_are_everybodys(tmp_path: Path) -> None:
    """What one process reads off the headers and exchangeInfo holds for the next one, also over a crash of all."""
    file = tmp_path / "weight.json"
    one = Process(file, 0, share=1.0)
    one.budget.admit(0, 10)
    one.budget.observe(0, 95)
    other = Process(file, 7 * S, share=1.0)
    assert other.budget.admit(other.mono(WALL + S), 10) == MINUTE - S
    assert other.budget.admit(other.mono(WALL + S), 5) == 0
    assert one.budget.admit(one.mono(WALL + S), 1) > 0, "the other's five count"
    later = WALL + 3 * MINUTE
    other.budget.set_limit(other.mono(later), 40)
    third = Process(file, 0, limit=100, share=0.5)
    assert third.budget.limit == 40 and third.budget.own.limit == 20
    third.budget.hold(third.mono(later), third.mono(later) + 90 * S)
    again = Process(file, 3 * S)
    assert again.budget.admit(again.mono(later + S), 1) == 89 * S
    assert again.budget.held_ns(again.mono(later + S)) == 89 * S
    assert again.budget.admit(again.mono(later + 90 * S), 1) == 0


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[1]", b"null", b"\xff\xfe", b'{"taken": [[1], ["a", 2], [1e99, 1], [-5, 3], null], "limit": -3, "seen": [1]}',
     b'{"held_until": "x", "limit": true, "seen": [1, 2, null], "taken": 7}', b"[" * 100_000],
)  # fmt: skip
def test_a_damaged_file_is_an_empty_one(tmp_path: Path, damage: bytes) -> None:
    """Whatever stands there, the budget works, and the file is whole afterwards."""
    file = tmp_path / "weight.json"
    file.write_bytes(damage)
    one = Process(file, 0)
    assert one.budget.limit == 100 and one.budget.admit(0, 7) == 0
    assert [weight for _, weight in json.loads(file.read_bytes())["taken"]] == [7]


def test_a_ban_from_a_clock_that_was_wrong_ends(tmp_path: Path) -> None:
    """A file from the far future holds back no longer than the longest ban there is; what was taken then counts as now."""
    file = tmp_path / "weight.json"
    file.write_text(json.dumps({"held_until": WALL * 5, "taken": [[WALL * 5, 3]]}))
    one = Process(file, 0)
    assert one.budget.held_ns(0) == 3 * 24 * 60 * MINUTE and one.budget.used(0) == 3


def test_who_has_the_file_is_waited_for_but_not_for_ever(tmp_path: Path) -> None:
    """Another process at work with the file: ask again in a moment. One that was stopped with it does not stop us, and what
    we took meanwhile is told once it lets go. Where no file can be had, memory has to do."""
    file = tmp_path / "weight.json"
    one = Process(file, 0)
    fd = os.open(file, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    waits = [one.budget.admit(0, 10) for _ in range(MOST_LOCKED)]
    assert waits == [LOCKED_NS] * (MOST_LOCKED - 1) + [0]
    os.close(fd)
    other = Process(file, 0)
    assert other.budget.admit(0, 1) == 0
    assert one.budget.admit(0, 40) > 0 and sum(weight for _, weight in one.budget.own.entries()) == 11
    nowhere = SharedWeight(100, 0.5, tmp_path / "no" / "where", 0)
    assert [nowhere.admit(0, 25) for _ in range(3)] == [0, 0, MINUTE]


def test_each_address_has_its_own_file_and_old_ones_go(tmp_path: Path) -> None:
    """By host and port; credentials and paths are no part of it. A local venue has another port every time."""
    old = tmp_path / "weight-127.0.0.1_1.json"
    old.write_text("{}")
    os.utime(old, (0, os.stat(tmp_path).st_mtime - FORGOTTEN_S - 60))
    weight_budget("https://me:secret@API.binance.com/x", 6000, 0.5, tmp_path, 0)
    weight_budget("http://127.0.0.1:9000", 6000, 0.5, tmp_path, 0)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["weight-127.0.0.1_9000.json", "weight-api.binance.com.json"]
    assert (tmp_path / "weight-api.binance.com.json").stat().st_mode & 0o777 == 0o600
    assert type(weight_budget("http://x", 6000, 0.5, None, 0)) is WeightBudget


def test_a_ban_outlives_the_client_that_earned_it(tmp_path: Path) -> None:
    """A 418 to one client, then a crash: the next client of this machine keeps quiet until it is over."""
    slept: list[float] = []

    async def run() -> None:
        async with TinyServer() as server:
            server.pages = {"/x": [(418, {"Retry-After": "50"}, b""), (200, {}, b"ok")]}
            url = f"http://127.0.0.1:{server.port}"

            class Crash(Exception):
                pass

            async def crash(seconds: float) -> None:
                raise Crash

            async def sleep(seconds: float) -> None:
                slept.append(seconds)
                clock[0] += int(seconds * S)

            clock = [0]
            for how in (crash, sleep):
                budget = SharedWeight(100, 1.0, tmp_path / "weight.json", clock[0], wall_ns=lambda: WALL + clock[0])
                client = RestClient(url, budget, random.Random(1), mono_ns=lambda: clock[0], sleep=how)
                try:
                    answer = await client.get(RestRequest("/x"))
                    assert isinstance(answer, Answered)
                except Crash:
                    assert len(server.asked) == 1
                finally:
                    await client.close()
            assert len(server.asked) == 2

    asyncio.run(run())
    assert 50 <= sum(slept) < 51
