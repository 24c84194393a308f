"""Tries a user's signals out over a synthetic market, in a process of its own that may be killed: `python -m
procs.research.signal_trial`.

A strategy (JSON) comes on stdin. Each line on stdout is a JSON object: {"step": ...} before something that may take long,
{"signal": name, "not_finite": n} after each trial, then {"signals": [...]} with what the files declare, or {"problem": ...}.
Whoever started this process limits its time (procs.cli.signal_check): compiled code that never ends cannot be interrupted
from inside.

Every event is asked about twice from equal state: what gives two results (random numbers, a clock) would break "same recording,
same orders", and is refused.

A trial is not a proof: a signal that only a rare market breaks is cut off when that market comes (trading.own_signals.call).
"""

from __future__ import annotations

import json
import re
import sys
import traceback
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from procs.research.signal_files import load
from trading.features.signals import N_SIGNALS
from trading.jit import Bytes, Recs, Words, kernel
from trading.own_signals.call import USER_ANSWER, USER_EVENT, call_signal
from trading.records import LEVELS, Kind
from trading.settings import Strategy
from trading.user_signals import Declaration, SignalError, UserSignals

EVENTS: Final = 20_000
SYMBOLS: Final = 4
CHANCE: Final = re.compile(r"[\w.]*\b(?:random|time|clock|objmode|now)\b[\w.]*")


def trial_market(seed: int = 1, count: int = EVENTS) -> Recs:
    """USER_EVENT (count,): a random walk of several symbols, with the extremes that real markets have now and then."""
    rng = np.random.default_rng(seed)
    e = np.zeros(count, USER_EVENT)
    e["ts_ns"] = 1_700_000_000_000_000_000 + np.cumsum(1 + rng.exponential(2e7, count).astype(np.int64))
    e["ts_ns"][count // 2 :] += 3_600 * 10**9  # an hour's silence
    e["symbol"] = rng.integers(SYMBOLS, size=count)
    e["kind"] = rng.choice([int(Kind.DEPTH), int(Kind.TRADE), int(Kind.BBO)], size=count, p=[0.4, 0.3, 0.3])
    e["tick_size"], e["lot_size"] = 0.01, 1e-8
    middle = 6_000_000 + np.cumsum(rng.normal(0, 20, count)).astype(np.int64)
    half = 1 + rng.integers(0, 5, count)
    depth = 3 * np.arange(LEVELS)
    e["bid_ticks"], e["ask_ticks"] = (middle - half)[:, None] - depth, (middle + half)[:, None] + depth
    for side in ("bid", "ask"):
        e[f"{side}_lots"] = 1 + rng.exponential(1e8, (count, LEVELS)).astype(np.int64)
        thin = rng.random(count) < 0.01  # one level only
        e[f"{side}_ticks"][thin, 1:] = e[f"{side}_lots"][thin, 1:] = 0
    trade = e["kind"] == Kind.TRADE
    e["side"][trade] = rng.choice([-1, 1], size=trade.sum())
    e["price_ticks"][trade] = middle[trade] + e["side"][trade] * half[trade]
    e["qty_lots"][trade] = 1 + rng.pareto(1.2, trade.sum()).clip(0, 1e6).astype(np.int64) * 100_000
    e["mid"] = middle
    e["spread_bps"] = 2e4 * half / middle
    e["microprice"] = e["mid"] + rng.normal(0, 0.3, count) * half
    e["bar_closed"] = rng.random(count) < 0.02
    warm = np.arange(count) > 500
    for name, values in (
        ("volatility", rng.exponential(1e-4, count)), ("atr_ticks", rng.exponential(200, count)),
        ("order_flow", rng.normal(0, 2, count)), ("flow_imbalance", rng.uniform(-1, 1, count)),
        ("vpin", rng.uniform(0, 1, count)),
        ("microstructure", rng.uniform(0, 100, count)), ("regime", rng.integers(1, 4, count)),
    ):  # fmt: skip
        e[name] = np.where(warm, values, 0)
    e["strength"][warm, :N_SIGNALS] = rng.uniform(-1, 1, (int(warm.sum()), N_SIGNALS)).round(1)
    return e


@kernel
def _same(rows: Bytes, kept: Bytes, at: int, count: int) -> bool:
    """Whether two arrays of bytes agree over `count` places from `at`."""
    for i in range(at, at + count):
        if rows[i] != kept[i]:
            return False
    return True


@kernel
def _drive(
    code: int, events: Recs, rows: Bytes, row_bytes: int, answers: Recs, kept: Bytes, again: int, where: Words
) -> tuple[int, int, int]:
    """(events answered before the call that ended it, answers that were not finite, 1 if that call gave two results).

    again: each event is asked about twice from equal state. `kept` has room for the rows before and after the first call;
    `where`: addresses of rows, events and answers, and an event's bytes.
    """
    odd, size = 0, rows.shape[0]
    for i in range(events.shape[0]):
        at = events[i].symbol * row_bytes
        first, ready = 0.0, 0
        for turn in range(1 + again):
            for j in range(at, at + row_bytes):
                if turn == 0:
                    kept[j] = rows[j]
                else:
                    kept[size + j], rows[j] = rows[j], kept[j]
            answers[0].strength, answers[0].ready = 0.0, 1
            if call_signal(code, where[0] + at, where[1] + i * where[3], where[2]) != 0:
                return i, odd, 0
            if turn == 0:
                first, ready = answers[0].strength, answers[0].ready
                continue
            alike = answers[0].strength == first or (np.isnan(first) and np.isnan(answers[0].strength))
            if not alike or answers[0].ready != ready or not _same(rows, kept[size:], at, row_bytes):
                return i, odd, 1
        if not np.isfinite(answers[0].strength):
            odd += 1
    return events.shape[0], odd, 0


def _rows(user: UserSignals, k: int) -> Any:
    rows = np.zeros(SYMBOLS, user.declared[k].dtype)
    for name, value in user.settings[k].params.items():
        rows[name] = value
    return rows


def _run(user: UserSignals, k: int, events: Recs, rows: Any, again: int) -> tuple[int, int, int]:
    flat, answers = rows.view(np.uint8), np.zeros(1, USER_ANSWER)
    kept = np.zeros(2 * len(flat), np.uint8)
    where = np.array([flat.ctypes.data, events.ctypes.data, answers.ctypes.data, events.dtype.itemsize])
    done, odd, two = _drive(user.addresses[k], events, flat, rows.dtype.itemsize, answers, kept, again, where)
    return int(done), int(odd), int(two)


def try_signal(user: UserSignals, k: int, events: Recs) -> int:
    """Answers that were not finite. Raises SignalError, with the line, where the code fails or is no function of its records."""
    declaration = user.declared[k]
    done, odd, two = _run(user, k, events, _rows(user, k), 1)
    if two:
        line, what = _chance(declaration)
        raise SignalError(
            f"{declaration.file}:{line}: {declaration.name}: called twice with the same state and event it gave two results "
            f"(event {done + 1} of the trial){what}: the same recording would give other orders each time. Let it follow from "
            "state and event alone"
        )
    if done == len(events):
        return odd
    rows = _rows(user, k)
    _run(user, k, events[:done], rows, 0)
    # the same call in Python knows its line
    views = [array.view(np.recarray) for array in (rows, events.copy(), np.ones(1, USER_ANSWER))]
    line, what = declaration.line, "its code fails"
    try:
        with np.errstate(all="ignore"):
            declaration.function(views[0][int(events[done]["symbol"])], views[1][done], views[2][0])
    except Exception as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == declaration.file]
        line, what = (lines[-1] or line) if lines else line, f"{type(error).__name__}: {error}"
    raise SignalError(f"{declaration.file}:{line}: {declaration.name}: {what} (at event {done + 1} of the trial): mend it")


def _chance(declaration: Declaration) -> tuple[int, str]:
    """The first line of the file that looks like chance or a clock, and what it says; else the signal's own."""
    lines = Path(declaration.file).read_text("utf-8", "replace").splitlines()
    for number, text in enumerate(lines, 1):
        found = CHANCE.search(text.partition("#")[0])
        if found and not text.lstrip().startswith(("import ", "from ")):
            return number, f", perhaps by {found[0]}"
    return declaration.line, ""


def main() -> int:
    """The child."""

    def tell(**said: Any) -> None:
        print(json.dumps(said), flush=True)

    try:
        strategy = msgspec.json.decode(sys.stdin.buffer.read(), type=Strategy, strict=False)
        tell(step="loading")
        user = load(strategy)
        events = trial_market()
        for k, one in enumerate(user.settings):
            tell(step="trying", signal=one.name, place=user.declared[k].place)
            tell(signal=one.name, not_finite=try_signal(user, k, events), events=len(events))
    except SignalError as error:
        tell(problem=str(error))
        return 1
    tell(signals=msgspec.to_builtins(user.settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
