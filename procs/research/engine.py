"""A plan through the engine (sim.backtest.engine): what a backtest keeps, how it is watched and ended.

The decisions are those of the pipeline of processes, and of `procs.research.backtest`, which runs its stages over rings in one
process and is the yardstick: orders, reports and refusals are equal in every field but this machine's stamps. A test says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from procs.fold.plan import Plan
from procs.fold.warm import warm_plan
from procs.learning import install
from procs.profiles.schema import Profile
from procs.research import signal_files
from procs.research.decoding import pieces_of
from procs.research.watched import cut_off
from procs.topology import RING
from sim.backtest import engine
from sim.backtest.pieces import FRAMES, LAST_NS
from sim.exchange import fold as exchange
from sim.exchange.state import EXCH_GLOBAL, EXCH_STATE, OUT_ROWS, ExchangeArrays
from trading.jit import Recs, Words
from trading.models import vote as model_vote
from trading.orders import routing
from trading.orders.routing import ROUTE_GLOBAL, RouterArrays
from trading.own_signals.guard import GUARD_WORDS
from trading.quoting import targets as quoting
from trading.quoting.targets import QUOTE_GLOBAL, QUOTE_STATE, QuoterArrays
from trading.records import MARKET_RECORD, ORDER_RECORD, QUOTE_RECORD, REPORT_RECORD, SIGNAL_RECORD
from trading.risk import fold as risk
from trading.scoring import one_pass
from trading.scoring.one_pass import FEATURE_GLOBAL, FEATURE_STATE

ROWS: Final = 1 << 15
"""Orders, reports and the like that are handed out at once."""
CAUSES: Final = ("market", "orders", "executions", "reports", "signals", "quotes")
KEPT: Final = ("orders", "wire", "reports", "refusals")

Fold = Callable[[Recs], None]
"""Takes records piece by piece, in order; a piece is only lent."""


class EngineFull(RuntimeError):
    """More orders or executions are under way than the engine has room for."""


@dataclass(slots=True)
class Outcome:
    """What came of it. `kept`: records by the name of their ring; `feed`: FEED_STATE (symbols,); `guard`: over user's signals."""

    kept: dict[str, Recs]
    folded: dict[str, Fold]
    feed: Recs
    guard: Words
    frames: int
    rows: dict[str, int]
    """How many records there were of each ring, kept or not."""


def stages_of(plan: Plan, guard: Words, alive: list[Any]) -> engine.Stages:
    """The plan's stages at their start; `alive` keeps what user's signals need."""
    n, instruments, strategy = plan.symbols, plan.instruments, plan.strategy
    venue_params = exchange.make_params(plan.exchange, instruments)
    venue = ExchangeArrays(
        np.zeros(n, EXCH_STATE), np.zeros(1, EXCH_GLOBAL), venue_params, instruments, np.zeros(OUT_ROWS, REPORT_RECORD)
    )
    exchange.init(venue.state, venue.glob, venue.params, instruments)
    router = RouterArrays(
        np.zeros(1, ROUTE_GLOBAL), routing.make_params(strategy, instruments), instruments,
        np.zeros(routing.MAX_WIRE_OUT, ORDER_RECORD), np.zeros(routing.MAX_REPORTS_OUT, REPORT_RECORD),
    )  # fmt: skip
    routing.init(router.glob, router.params, instruments)
    figures = quoting.make_figures(strategy, plan.names)
    install.microprices(strategy, plan.names, figures)
    quoter = QuoterArrays(
        np.zeros(n, QUOTE_STATE), np.zeros(1, QUOTE_GLOBAL), quoting.make_params(strategy, instruments), instruments, figures,
        np.zeros(1, QUOTE_RECORD),
    )  # fmt: skip
    quoting.init(quoter.state, quoter.glob, quoter.params, instruments)
    params = one_pass.make_params(strategy, instruments)
    features = engine.Features(np.zeros(n, FEATURE_STATE), np.zeros(1, FEATURE_GLOBAL), params, instruments)
    one_pass.init(features.state, features.glob, params, instruments)
    user = signal_files.load(strategy)
    if user.settings:
        rows, status = (np.zeros(count, dtype) for _, dtype, count in user.spec(n))
        alive += [rows, status, user.bind(params, rows, status, guard)]
    images = model_vote.make_images(params, n)
    install.start(strategy, plan.names)(features.state, images)
    alive.append(images)
    return engine.Stages(
        venue, router, quoter, features, risk.at_start(strategy, instruments), *engine.under_way()
    )


def warm(profile: Profile) -> None:
    """Compile or load the engine."""
    plan = warm_plan(profile)
    stages, pieces = stages_of(plan, np.zeros(GUARD_WORDS, np.int64), []), pieces_of(plan)
    out, at = engine.out_of(1, 1), np.zeros(engine.AT_WORDS, np.int64)
    engine.run(stages, at, pieces.none(), out, 1, 1)


class _Taken:
    """What is kept and folded of `Out`, and how many rows there were."""

    def __init__(self, keep: tuple[str, ...], folds: Mapping[str, Fold]) -> None:
        self.pieces: dict[str, list[Recs]] = {name: [] for name in keep}
        self.folds = folds
        self.rows: dict[str, int] = {}

    def take(self, name: str, recs: Recs) -> None:
        before = self.rows.get(name, 0)
        self.rows[name] = before + len(recs)
        if not len(recs) or not (name in self.pieces or name in self.folds):
            return
        recs["seq"] = np.arange(before + 1, before + 1 + len(recs))
        if name in self.pieces:
            self.pieces[name].append(recs.copy())
        if name in self.folds:
            self.folds[name](recs)

    def empty(self, at: Words, out: engine.Out) -> None:
        """Take what stands in `out`, and set `at` back."""
        for word, name, recs in (
            (engine.ORDERS, "orders", out.orders), (engine.WIRE, "wire", out.wire), (engine.REPORTS, "reports", out.reports),
            (engine.REFUSALS, "refusals", out.refusals), (engine.QUOTES, "quotes", out.quotes),
            (engine.SIGNALS, "signals", out.signals),
        ):  # fmt: skip
            self.take(name, recs[: at[word]])
            if word in GONE:
                at[GONE[word]] += at[word]
            at[word] = 0


GONE: Final = {engine.REPORTS: engine.REPORTS_GONE, engine.SIGNALS: engine.SIGNALS_GONE, engine.QUOTES: engine.QUOTES_GONE}
DTYPES: Final = {"market": MARKET_RECORD, "orders": ORDER_RECORD, "wire": ORDER_RECORD, "refusals": ORDER_RECORD,
                 "reports": REPORT_RECORD, "quotes": QUOTE_RECORD, "signals": SIGNAL_RECORD}  # fmt: skip


def begin() -> Words:
    """`at` of the engine: nothing done; the rings' numbers, so that records name their causes as the pipeline's do."""
    at = np.zeros(engine.AT_WORDS, np.int64)
    for word, ring in zip(range(engine.MARKET_ID, engine.QUOTES_ID + 1), CAUSES):
        at[word] = RING[ring].ring_id
    return at


def run(
    plan: Plan,
    *,
    keep: tuple[str, ...] = KEPT,
    folds: Mapping[str, Callable[[], Fold]] | None = None,
    progress: Callable[[int, int, int], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Run a plan to its end.

    `keep` names the rings whose records are returned, `folds` makes what takes those of others; `progress(frames, expected, ns of
    the market)` is called for each piece. `stop` is asked as often: once it says yes the market ends there. A signal of the
    user's that does not come back is off from that record on, and all is computed anew.
    """

    def begin_anew() -> tuple[Words, Callable[[], Outcome]]:
        guard = np.zeros(GUARD_WORDS, np.int64)
        return guard, lambda: _run(plan, guard, keep, folds or {}, progress, stop)

    return cut_off(begin_anew, plan.strategy)


def _run(
    plan: Plan,
    guard: Words,
    keep: tuple[str, ...],
    folds: Mapping[str, Callable[[], Fold]],
    progress: Callable[[int, int, int], None] | None,
    stop: Callable[[], bool],
) -> Outcome:
    alive: list[Any] = []
    stages, pieces = stages_of(plan, guard, alive), pieces_of(plan)
    out = engine.out_of(ROWS, ROWS)
    at = begin()
    folded = {name: make() for name, make in folds.items()}
    taken = _Taken(keep, folded)
    for piece in pieces:
        at[engine.FRAME] = 0
        taken.take("market", piece.market[: piece.market_to[-1]])
        while _checked(engine.run(stages, at, piece, out, 0, 0)) == engine.FULL:
            taken.empty(at, out)
        taken.empty(at, out)
        if progress is not None:
            progress(int(pieces.at[FRAMES]), plan.frames, int(pieces.at[LAST_NS]) - pieces.first_ns)
        if stop():
            break
    closing = pieces.none(), out, pieces.end_ns, exchange.min_entry_ns(stages.venue.params)
    while _checked(engine.run(stages, at, *closing)) == engine.FULL:
        taken.empty(at, out)
    taken.empty(at, out)
    kept = {name: np.concatenate(found) if found else np.zeros(0, DTYPES[name]) for name, found in taken.pieces.items()}
    return Outcome(kept, folded, pieces.state, guard, int(pieces.at[FRAMES]), taken.rows)


def _checked(said: int) -> int:
    if said == engine.LOST:
        most = engine.UNDER_WAY - OUT_ROWS
        raise EngineFull(f"more than {most:,} orders or executions are under way: lower risk.max_open_orders")
    return said
