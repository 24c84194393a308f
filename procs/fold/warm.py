"""Load or compile everything that a stage's loop calls, by running it once over rings on the heap.

The zygote does this before it forks, so that a restarted stage computes its first record within milliseconds. The run is
real (same types, same code), but its STOP word is set, so that it ends at once.
"""

from __future__ import annotations

import importlib
from typing import Any

from procs import topology
from procs.fold.assembly import LoopSettings, World, heap_world, spec_of
from procs.fold.checkpoint import restore
from procs.fold.group import group_words, run
from procs.fold.plan import Plan, plan_of
from procs.memory import board
from procs.profiles.schema import Profile, SymbolSettings

loop_is_elsewhere: bool = False
"""Set by who compiles the loop in another process (procs.supervision.compiling): a stage's warm-up is then its handlers alone."""


def warm_plan(profile: Profile) -> Plan:
    """A plan to warm up with: the profile's symbols, or one made up where a recording will bring them."""
    import msgspec

    symbols = profile.symbols or (SymbolSettings(name="BTCUSDT"),)
    return plan_of(msgspec.structs.replace(profile, symbols=symbols))


def warm_stage(name: str, profile: Profile) -> None:
    """Compile or load one stage's loop."""
    module: Any = importlib.import_module(topology.STAGE[name].module)
    plan = warm_plan(profile)
    world: World = heap_world({name: spec_of(module, plan)})
    board.page(world.board, topology.stage_id(name))[board.STOP] = 1
    bound = module.build(plan, world, LoopSettings())  # which compiles its handlers
    if loop_is_elsewhere:
        return
    restore(bound.block)
    run(group_words([bound.block]))
