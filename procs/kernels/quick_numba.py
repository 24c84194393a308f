"""numba without what only its developers look at: the same machine code comes out, sooner.

    quicken()     from here on, in this process (procs.kernels.locator calls it in each that uses our kernels)

Compiling a kernel is numba's own Python for the most part, and much of that is done over and over:

    operators   `int64 + int64` is looked for among all that adds, strings and sets included, wherever it stands
    passes      timed, described in text and checked for what no pass does
    timers      each function that waits for a callee hears of every lock that is taken below it
    flags       compared and hashed by a dict made anew each time
    types       asked for their kind as if classes of others could be registered with them

What is put in place of numba's own is checked against the names that it takes; where they differ, numba compiles as it likes.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

OURS: Final = ("shm", "ringbuf", "trading", "sim", "procs")
NOT_OURS: Final = ("inline_closure_likes", "nopython_rewrites")
"""Passes for closures and for arithmetic of whole arrays, of which our kernels have none."""
LEAVES: Final = frozenset({str, int, bool, float, type(None)})


def quicken() -> bool:
    """Make numba compile this way; answers whether this numba is one that it can be done with."""
    from numba.core import errors, event, ir, types
    from numba.core.compiler_machinery import PassManager
    from numba.core.targetconfig import TargetConfig
    from numba.core.types.functions import BaseFunction

    taken = {
        errors: ("new_error_context",),
        event: ("start_event", "end_event", "trigger_event", "install_timer", "_registered"),
        ir.Inst: ("_rec_list_vars",),
        PassManager: ("_runPass", "_ENFORCING"),
        BaseFunction: ("get_call_type", "get_impl_key"),
        TargetConfig: ("values", "options"),
    }
    if not all(hasattr(owner, name) for owner, names in taken.items() for name in names) or PassManager._ENFORCING:
        return False
    start, end, trigger, call_type = event.start_event, event.end_event, event.trigger_event, BaseFunction.get_call_type
    nothing, said_of = contextlib.nullcontext(), vars(errors)["new_error_context"]
    known: dict[Any, Any] = {}
    defaults: dict[Any, Any] = {}

    def heard(tell: Any, otherwise: Any = None) -> Any:
        """Tell only where somebody listens."""
        return lambda kind, *given, **named: tell(kind, *given, **named) if event._registered.get(kind) else otherwise

    def run_pass(manager: Any, index: int, one: Any, state: Any) -> None:
        if one.name() in NOT_OURS and state.func_id.modname.partition(".")[0] in OURS:
            return
        one.analysis = manager._analysis
        try:
            one.run_initialization(state)
            one.run_pass(state)
            one.run_finalizer(state)
        except Exception:
            with said_of("Pass {name}", name=one.name()):
                raise

    def get_call_type(function: Any, context: Any, args: Any, kws: Any) -> Any:
        key = id(function.templates), id(context), *map(id, args)
        if kws or key not in known:
            signature = call_type(function, context, args, kws)
            if not kws and function.get_impl_key(signature) is function.typing_key:  # not what was compiled for this very call
                known[key] = signature, args, function.templates, context  # all of them kept, and with them their ids
            return signature
        signature = known[key][0]
        function._impl_keys[signature.args] = function.typing_key
        return signature

    def values(config: Any) -> Any:
        kind = type(config)
        if kind not in defaults:
            defaults[kind] = {name: option.default for name, option in kind.options.items()}
        return defaults[kind] | config._values

    def list_vars(_: Any, value: Any) -> list[Any]:
        found: list[Any] = []
        waiting = [value]
        while waiting:
            one = waiting.pop()
            kind = type(one)
            if kind is ir.Var:
                found.append(one)
            elif kind in LEAVES:
                continue
            elif isinstance(one, ir.Inst):
                found += one.list_vars()
            elif kind is tuple or kind is list:
                waiting += reversed(one)
            elif kind is dict:
                waiting += reversed(one.values())
        return found

    event.start_event, event.end_event, event.trigger_event = heard(start), heard(end), heard(trigger, nothing)
    event.install_timer = lambda *given, **named: nothing
    ir.Inst._rec_list_vars = list_vars
    PassManager._runPass, TargetConfig.values = run_pass, values
    kinds: tuple[Any, Any] = BaseFunction, type(types.Type)
    kinds[0].get_call_type, kinds[1].__instancecheck__ = get_call_type, type.__instancecheck__
    return True
