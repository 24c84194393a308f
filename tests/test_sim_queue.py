"""The queue model and the counter-based generator, against plain Python."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sim.exchange.latency import arrival_ns
from sim.exchange.queue_model import moved_ahead, on_level, on_print
from sim.rng import below, exponential, mix, normal, uniform

lots = st.integers(0, 10**12)


def splitmix64(seed: int, n: int) -> int:
    """The published algorithm with Python's integers; the n-th output, signed."""
    mask = 2**64 - 1
    z = (seed + n * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    z ^= z >> 31
    return z - 2**64 if z >= 2**63 else z


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**40))
def test_mix_is_splitmix64(seed: int, counter: int) -> None:
    """Equal to the reference for any seed and counter; seed 0 gives its published first output."""
    assert mix(seed, counter) == splitmix64(seed, counter)
    assert mix(0, 1) == 0xE220A8397B1DCDAF - 2**64


def test_draws_have_their_laws() -> None:
    """Means and deviations of 20,000 draws lie within five standard errors; ranges are kept."""
    n = 20_000
    u = np.array([uniform(5, k) for k in range(n)])
    assert 0 < u.min() and u.max() <= 1 and abs(u.mean() - 0.5) < 5 * 0.29 / n**0.5
    z = np.array([normal(5, k) for k in range(n)])
    assert abs(z.mean()) < 5 / n**0.5 and abs(z.std() - 1) < 0.03
    e = np.array([exponential(5, k) for k in range(n)])
    assert abs(e.mean() - 1) < 5 / n**0.5
    b = np.bincount([below(5, k, 7) for k in range(n)], minlength=7)
    assert len(b) == 7 and abs(b - n / 7).max() < 5 * (n / 7) ** 0.5


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1, max_size=30))
def test_messages_keep_their_order(sends: list[tuple[int, int]]) -> None:
    """Arrivals never decrease, and each is at least the minimum after its sending, at most the maximum or the one before it."""
    last = 0
    for k, (sent, _) in enumerate(sends):
        arrival = arrival_ns(9, k, sent, last, 1000, 5000)
        assert arrival >= max(last, sent + 1000)
        assert arrival == last or arrival <= sent + 5000
        last = arrival


@given(lots, lots, lots, st.floats(0.1, 10.0))
def test_moves_stay_within_the_queue(ahead: int, level: int, decrease: int, power: float) -> None:
    """0 <= moved <= min(ahead, decrease); at the back everything that leaves was ahead, at the front nothing was."""
    moved = moved_ahead(ahead, level, decrease, power)
    assert 0 <= moved <= min(ahead, decrease)
    if level <= ahead:
        assert moved == min(ahead, decrease)
    if ahead == 0:
        assert moved == 0


@given(lots, lots, lots, lots, st.floats(0.1, 10.0))
def test_a_level_never_shows_less_than_stands_ahead(ahead: int, level: int, printed: int, new: int, power: float) -> None:
    """After a change 0 <= ahead <= what the level shows, and it never grew."""
    after, unexplained, moved = on_level(ahead, level, printed, new, power)
    assert 0 <= after <= min(ahead, new)
    assert unexplained >= 0 and 0 <= moved <= unexplained


@given(lots, lots, lots, st.data())
def test_a_print_counts_once_whether_its_level_change_came_before_or_not(
    ahead: int, printed: int, lots_: int, data: st.DataObject
) -> None:
    """Together with what an unexplained decrease moved us, a print of at least that size moves us by exactly itself."""
    unexplained = data.draw(st.integers(0, lots_))
    moved = data.draw(st.integers(0, unexplained))
    after, seen, left, rest = on_print(ahead, printed, unexplained, moved, lots_)
    assert ahead - after == lots_ - moved and left == 0 and rest == 0
    assert seen == printed + lots_ - unexplained


def test_the_power_function_is_the_documented_one() -> None:
    """hftbacktest's PowerProbQueueFunc3: p(behind) = 1 - (front / (front + back))**n; a larger n keeps us further back."""
    assert moved_ahead(300, 400, 100, 2.0) == int(0.75**2 * 100)
    assert moved_ahead(300, 400, 100, 1.0) == 75
    assert moved_ahead(300, 400, 100, 3.0) < moved_ahead(300, 400, 100, 2.0)
    assert moved_ahead(300, 400, 400, 2.0) == 300
