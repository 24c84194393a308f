"""Load kernels from numba's cache without what only compiling needs.

As numba does it, the first kernel that comes out of the cache brings in every implementation that a compiler may ask for (75
modules), and each kernel's LLVM bitcode is parsed, to be linked into kernels yet to be compiled. A process that compiles nothing
uses none of that, and loads faster and smaller without it. A kernel that the
cache lacks is compiled as ever: the compiler refreshes its contexts itself, and the bitcode is kept as bytes until then.

    load_lean()         from here on, in this process
    forget_bitcode()    nothing is compiled any more

What is put in place of numba's own is checked against the names that it takes; where they differ, numba loads as it likes.
"""

from __future__ import annotations

import gc
from typing import Any, Final

KEPT: Final = "_bitcode_to_parse"


def load_lean() -> bool:
    """Make numba load cached kernels this way; answers whether this numba is one that it can be done with."""
    from llvmlite import binding as llvm
    from numba.core.caching import Cache
    from numba.core.codegen import CPUCodeLibrary
    from numba.core.runtime import rtsys

    taken = {
        Cache: ("_load_overload", "_guard_against_spurious_io_errors"),
        CPUCodeLibrary: ("_unserialize", "_get_module_for_linking", "_set_compiled_object", "enable_object_caching"),
        rtsys: ("initialize",),
    }
    if not all(hasattr(owner, name) for owner, names in taken.items() for name in names):
        return False
    numbas_own, for_linking = CPUCodeLibrary._unserialize.__func__, CPUCodeLibrary._get_module_for_linking

    def load_overload(cache: Any, sig: Any, target_context: Any) -> Any:
        rtsys.initialize(target_context)  # the symbols that the object code calls
        with cache._guard_against_spurious_io_errors():
            return cache._load_overload(sig, target_context)

    def unserialize(cls: Any, codegen: Any, state: Any) -> Any:
        name, kind, data = state
        if kind != "object":
            return numbas_own(cls, codegen, state)
        code, bitcode = data
        library = codegen.create_library(name)
        library.enable_object_caching()
        library._set_compiled_object(code)
        parsed = llvm.parse_bitcode(bitcode)
        library._finalize_final_module()
        codegen._engine._load_defined_symbols(parsed)
        library.__dict__[KEPT] = bitcode  # and `parsed` goes: its room is the next one's
        return library

    def get_module_for_linking(library: Any) -> Any:
        bitcode = library.__dict__.pop(KEPT, None)
        if bitcode is not None:
            library._shared_module = llvm.parse_bitcode(bitcode)
        return for_linking(library)

    Cache.load_overload = load_overload
    CPUCodeLibrary._unserialize = classmethod(unserialize)
    CPUCodeLibrary._get_module_for_linking = get_module_for_linking
    return True


def forget_bitcode() -> None:
    """Let go of the bitcode of all loaded kernels. A process that had to compile after this would only do so slower."""
    from numba.core.dispatcher import Dispatcher

    for found in gc.get_objects():
        if isinstance(found, Dispatcher):
            for overload in found.overloads.values():
                overload.library.__dict__.pop(KEPT, None)
                if hasattr(overload.library, "_shared_module"):
                    overload.library._shared_module = None
