"""A plan's market as pieces for the engine (sim.backtest.pieces).

What this module is not: it stages no recording (sim.recordings.venue_staging).
"""

from __future__ import annotations

from procs.fold.plan import Plan
from procs.fold.warm import warm_plan
from procs.profiles.schema import Profile
from sim.backtest.pieces import Pieces
from trading.books import fold as feed


def pieces_of(plan: Plan) -> Pieces:
    """The plan's market: its recording, or the embedded one."""
    generated = plan.spool is None
    params = feed.make_params(
        snapshot_levels=feed.WHOLE if generated else plan.snapshot_levels, owed_limit_ns=plan.owed_limit_ns,
        silence_ns=plan.silence_ns,
    )  # fmt: skip
    return Pieces(plan.instruments, plan.spool, plan.generator, params)


def warm(profile: Profile) -> None:
    """Compile or load what makes pieces."""
    plan = warm_plan(profile)
    made = Pieces(plan.instruments, None, plan.generator, feed.make_params())
    made.warm()
