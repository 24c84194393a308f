"""The dense book against a plain dict, far levels and moving windows included."""

from __future__ import annotations

import bisect
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading.books import book
from trading.jit import kernel
from trading.records import LEVELS


@kernel
def apply(books: Any, sides: Any, keys: Any, lots: Any, every: int) -> None:
    """Set all levels in turn; follow after each `every`."""
    for i in range(keys.shape[0]):
        book.set_level(books[0], sides[i], keys[i], lots[i])
        if i % every == every - 1:
            book.follow(books[0])


@kernel
def start(books: Any) -> None:
    """Clear."""
    book.clear(books[0])


@kernel
def levels(books: Any, side: int, keys: Any, lots: Any) -> int:
    """All levels of a side, by stepping."""
    n = 0
    key = book.next_key(books[0], side, -(2**62))
    while key != book.NO_KEY:
        keys[n] = key
        lots[n] = book.lots_at(books[0], side, key)
        n += 1
        key = book.next_key(books[0], side, key + 1)
    return n


@kernel
def tops(books: Any, side: int, key: int) -> None:
    """Fill the top from `key`."""
    book.fill_top(books[0], side, key, 0)


def new() -> np.ndarray:
    """An empty book."""
    books = np.zeros(1, book.BOOK)
    start(books)
    return books


def run(books: np.ndarray, changes: list[tuple[int, int, int]], every: int = 3) -> None:
    """Apply (side, key, lots) changes."""
    columns = np.array(changes, np.int64).reshape(-1, 3)
    apply(books, columns[:, 0].copy(), columns[:, 1].copy(), columns[:, 2].copy(), every)


def content(books: np.ndarray, side: int) -> dict[int, int]:
    """The levels of a side, by stepping through them."""
    keys = np.zeros(2 * book.WINDOW, np.int64)
    lots = np.zeros(2 * book.WINDOW, np.int64)
    n = levels(books, side, keys, lots)
    assert list(keys[:n]) == sorted(set(keys[:n].tolist()))
    return dict(zip(keys[:n].tolist(), lots[:n].tolist()))


def check(books: np.ndarray, plain: list[dict[int, int]]) -> None:
    """Content, counts, best and the invariants that the module states."""
    b = books[0]
    for side in range(2):
        assert content(books, side) == plain[side]
        assert b["best"][side] == min(plain[side], default=book.NO_KEY)
        assert b["near_count"][side] + b["far_count"][side] == len(plain[side])
        used = b["far_used"][side]
        far, alive = b["far_key"][side][:used], b["far_lots"][side][:used] > 0
        assert np.all(np.diff(far) < 0)
        assert alive.sum() == b["far_count"][side] and (not used or alive[-1])
        if plain[side]:
            base = b["base"][side]
            assert base <= b["best"][side] < base + book.WINDOW
            assert np.all(far >= base + book.WINDOW)
            tops(books, side, int(b["best"][side]))
            wanted = sorted(plain[side])[:LEVELS]
            shown = b["top_ticks"][side][: len(wanted)].tolist()
            assert shown == (wanted if side == book.ASK else [-k for k in wanted])
            assert b["top_lots"][side][: len(wanted)].tolist() == [plain[side][k] for k in wanted]
            assert not b["top_ticks"][side][len(wanted) :].any()


def into(plain: list[dict[int, int]], changes: list[tuple[int, int, int]]) -> None:
    """The same changes to dicts."""
    for side, key, lots in changes:
        if lots:
            plain[side][key] = lots
        else:
            plain[side].pop(key, None)


_CLUSTERS = [0, 63, 64, 4095, 4096, 8191, 16383, 16384, 16385, 20480, 40000, 10**6, 10**12, -5000, -16384, -(10**9)]
_KEY = st.builds(lambda c, d: c + d, st.sampled_from(_CLUSTERS), st.integers(-3, 3))
_CHANGE = st.tuples(st.integers(0, 1), _KEY, st.one_of(st.just(0), st.integers(1, 2**60)))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(_CHANGE, max_size=80), st.integers(1, 7))
def test_any_changes_leave_the_same_levels_as_a_dict(changes: list[tuple[int, int, int]], every: int) -> None:
    """Any sequence of changes, keys near and 1e12 ticks apart, leaves exactly the levels that a dict holds."""
    books, plain = new(), [{}, {}]
    run(books, changes, every)
    into(plain, changes)
    check(books, plain)


@pytest.mark.parametrize("seed", range(4))
def test_a_wandering_market_loses_no_level(seed: int) -> None:
    """A best price that wanders over many windows, with thousands of levels behind it, never loses or invents a level."""
    rng = np.random.default_rng(seed)
    books, plain = new(), [{}, {}]
    centre = 6_000_000
    for _ in range(60):
        centre += int(rng.normal(0, 6000))
        changes = []
        for side in range(2):
            edge = -centre if side == book.BID else centre
            gone = [k for k in plain[side] if k < edge] + list(rng.permutation(list(plain[side]) or [edge])[:20])
            keys = edge + np.abs(rng.standard_cauchy(60) * 2000).astype(np.int64) % 10**6
            changes += [(side, int(k), 0) for k in gone] + [(side, int(k), int(rng.integers(1, 10**9))) for k in keys]
        order = rng.permutation(len(changes))
        changes = [changes[i] for i in order]
        run(books, changes)
        into(plain, changes)
        check(books, plain)
    assert books[0]["window_moves"] > 20 and books[0]["levels_dropped"] == 0


def test_when_far_levels_overflow_the_worst_go_and_are_counted() -> None:
    """With more far levels than there is room for, exactly the best FAR of them stay, and each one forgotten is counted."""
    books = new()
    run(books, [(1, 0, 1)])
    keys = [book.WINDOW * 2 + 7 * int(i) for i in np.random.default_rng(5).permutation(book.FAR + 300)]
    run(books, [(1, k, 5) for k in keys])
    kept = content(books, 1)
    assert sorted(kept) == [0, *sorted(keys)[: book.FAR]]
    assert books[0]["levels_dropped"] == 300


def test_a_far_better_price_and_its_end_bring_everything_back() -> None:
    """A level far better than the best moves the window away from the book; when it goes, every level is back in place."""
    books, plain = new(), [{}, {}]
    changes = [(1, 10**6 + 3 * i, i + 1) for i in range(3000)]
    run(books, changes)
    into(plain, changes)
    for change in [(1, 5, 7), (1, 5, 0), (1, -(10**9), 1), (1, -(10**9), 0)]:
        run(books, [change], 1)
        into(plain, [change])
        check(books, plain)


def test_an_eviction_larger_than_the_room_keeps_the_best() -> None:
    """Moving the window off more levels than `far` can take keeps the best FAR of all, window and far together."""
    books = new()
    near = [(1, 10**6 + i, 1) for i in range(7000)]
    far = [(1, 10**7 + i, 1) for i in range(100)]
    run(books, near + far)
    run(books, [(1, 10, 1)])
    assert sorted(content(books, 1)) == [10, *(10**6 + i for i in range(book.FAR))]
    assert books[0]["levels_dropped"] == 7100 - book.FAR


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("room", [40, 900, book.FAR - 100])
def test_levels_that_flicker_far_out_are_right(seed: int, room: int) -> None:
    """Far levels that come and go among dead entries, in a crowd, with windows that move, are those of a dict."""
    rng = np.random.default_rng(seed)
    books, plain = new(), [{}, {}]
    far = 3 * book.WINDOW + rng.permutation(20 * room)[:room]
    near = 0
    for step in range(25):
        changes = [(1, near, 7)] + [(1, k, 0) for k in plain[1] if k < near]
        chance = (0.2, 0.5, 0.9)[step % 3]  # of a removal: the crowd grows, stays, thins out
        for key in rng.choice(far, max(60, room // 4)):
            changes.append((1, int(key), 0 if rng.random() < chance else int(rng.integers(1, 10**9))))
        if step % 5 == 4:
            near = int(rng.integers(-book.WINDOW, 5 * book.WINDOW))
            changes.append((1, near, 5))
        run(books, changes)
        into(plain, changes)
        assert books[0]["levels_dropped"] == 0
        check(books, plain)


@pytest.mark.parametrize("seed", range(3))
def test_in_a_full_crowd_that_flickers_the_worst_go(seed: int) -> None:
    """With as many far levels as there is room for, each new one pushes out the worst one alive, dead entries or not."""
    rng = np.random.default_rng(seed)
    books, plain = new(), [{}, {0: 1}]
    run(books, [(1, 0, 1)])
    keys = book.WINDOW + rng.permutation(4 * book.FAR)[: 2 * book.FAR]
    dropped = 0
    alive: list[int] = []  # the far keys of plain, sorted
    for first in range(0, len(keys), 500):
        changes = []
        for key in keys[first : first + 500].tolist():
            full = len(alive) == book.FAR
            dropped += full
            changes.append((1, key, 3))
            if not full or key < alive[-1]:
                if full:
                    plain[1].pop(alive.pop())
                plain[1][key] = 3
                bisect.insort(alive, key)
            if rng.random() < 0.15:
                gone = int(keys[rng.integers(min(first + 500, len(keys)))])
                changes.append((1, gone, 0))
                if plain[1].pop(gone, 0):
                    alive.remove(gone)
        run(books, changes)
        check(books, plain)
    assert books[0]["levels_dropped"] == dropped > 500


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=120))
def test_few_far_prices_in_any_order(changes: list[tuple[int, bool]]) -> None:
    """Any coming and going of few far prices leaves what a dict holds: each way of placing one among dead entries is met."""
    books, plain = new(), [{}, {}]
    steps = [(1, 0, 1), *((1, book.WINDOW + 7 * place, place + 1 if on else 0) for place, on in changes)]
    run(books, steps)
    into(plain, steps)
    check(books, plain)
