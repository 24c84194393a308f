"""Compile a kernel's callees into it and nowhere else: each function is optimised once, not once for every level above it.

numba makes machine code of every function that is called: it links the code of everything below into the function's own module,
optimises that, and generates code, although nobody ever calls most functions but the kernels above them. A loop seven levels
deep has its innermost function optimised seven times. Here a function that was compiled only because another one calls it stays
as numba lowered it. What is called from Python, or by its address (procs.fold.far_calls), is made of all of them, at once.

    compile_at_once()     from here on, in this process: for the processes that fill a cache (procs.supervision.compiling)

The cache then holds what is called, not what is only linked; whoever calls such a function from Python has it compiled then, as
ever. What is put in place of numba's own is checked against the names that it takes; where they differ, numba compiles as it
likes.
"""

from __future__ import annotations

from typing import Any, Final

PART: Final = "_only_a_part"


class _NoEntry:
    """Stands for the entry point of a function that has no machine code of its own."""


def compile_at_once() -> bool:
    """Make numba compile this way; answers whether this numba is one that it can be done with."""
    from numba.core import sigutils
    from numba.core.caching import Cache
    from numba.core.codegen import CPUCodeLibrary
    from numba.core.cpu import CPUContext
    from numba.core.dispatcher import Dispatcher

    taken = {
        Dispatcher: ("compile", "add_overload"),
        CPUCodeLibrary: ("finalize", "_finalize_dynamic_globals", "_ensure_finalized", "add_linking_library"),
        CPUContext: ("get_executable", "create_cpython_wrapper", "create_cfunc_wrapper"),
        Cache: ("save_overload",),
    }
    if not all(hasattr(owner, name) for owner, names in taken.items() for name in names):
        return False
    compile_one, add_overload = Dispatcher.compile, Dispatcher.add_overload
    finalize, get_executable, save_overload = CPUCodeLibrary.finalize, CPUContext.get_executable, Cache.save_overload
    wrappers = {name: getattr(CPUContext, name) for name in ("create_cpython_wrapper", "create_cfunc_wrapper")}
    depth = 0

    def is_part(library: Any) -> bool:
        return PART in getattr(library, "__dict__", ())

    def compile_counted(dispatcher: Any, sig: Any) -> Any:
        nonlocal depth
        args = tuple(sigutils.normalize_signature(sig)[0])
        known = dispatcher.overloads.get(args)
        if known is not None and not depth and is_part(known.library):
            del dispatcher.overloads[args]  # it is called by itself after all
        depth += 1
        try:
            return compile_one(dispatcher, sig)
        finally:
            depth -= 1

    def finalize_whole(library: Any) -> None:
        if depth > 1:
            library._raise_if_finalized()
            library._finalize_dynamic_globals()
            library.__dict__[PART] = library._finalized = True
            return
        waiting, found = list(library._linking_libraries), dict[Any, None]()
        while waiting:
            one = waiting.pop(0)
            if one not in found:
                found[one] = None
                if is_part(one):
                    waiting += one._linking_libraries
        library._linking_libraries = list(found)
        finalize(library)

    def wrapped(make: Any) -> Any:
        """The way in from Python or C, a module of its own each: a part needs none."""
        return lambda *given, **named: None if depth > 1 else make(*given, **named)

    def executable(context: Any, library: Any, fndesc: Any, env: Any) -> Any:
        library._ensure_finalized()
        return _NoEntry() if is_part(library) else get_executable(context, library, fndesc, env)

    def add(dispatcher: Any, compiled: Any) -> None:
        if is_part(compiled.library):
            dispatcher.overloads[tuple(compiled.signature.args)] = compiled  # and not where Python looks for it
        else:
            add_overload(dispatcher, compiled)

    def save(cache: Any, sig: Any, data: Any) -> None:
        if not is_part(getattr(data, "library", None)):
            save_overload(cache, sig, data)

    for name, make in wrappers.items():
        setattr(CPUContext, name, wrapped(make))
    for name, ours in (("compile", compile_counted), ("add_overload", add)):
        setattr(Dispatcher, name, ours)
    CPUCodeLibrary.finalize, CPUContext.get_executable, Cache.save_overload = finalize_whole, executable, save
    return True
