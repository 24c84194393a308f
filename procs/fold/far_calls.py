"""Heavy functions of a stage compiled apart: called through an address in the stage's block instead of linked into callers.

numba puts the code of everything that a function calls into that function's own module and optimises it there again, on each
level: the feed's fold was compiled in `_fold_frame`, in `_take_wired`, in `_consume`, in `poll` and in `run`, a second or two
each [measured]. A function decorated with `apart` is compiled once; its callers only know where in the block its address
stands, jump there, and pass its exceptions on as numba's own calls do. Such a call
cannot be inlined, so this is for what runs once a record, not for what runs once a level.

The addresses are this process's: `link` writes them into the block whenever a stage is bound, they stand in no checkpoint, and
a child forked later has the same code at the same place. Called with a block that nobody linked, the process dies of a jump
to address zero; procs.fold.assembly.assemble links every block.

Who does not know what it calls (procs.fold.loop, which serves all stages) names the place instead: `call_numbered`.

Arguments are the block and int64s, which a caller's narrower integers and bools are widened to. Only compiled code can call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from procs.fold.block import CALLS, MAX_CALLS
from ringbuf.jit import Words, kernel

_BLOCK: Final = types.Array(types.int64, 1, "C")
NOTHING: Final = types.none
INT: Final = types.int64


@dataclass(slots=True, frozen=True)
class _Apart:
    """A function compiled apart."""

    module: str
    number: int
    compiled: Any  # numba's dispatcher
    takes: tuple[Any, ...]

    def address(self) -> int:
        """Of its machine code under numba's calling convention, compiled or loaded now if it was not before."""
        self.compiled.compile(self.takes)
        result = self.compiled.overloads[self.takes]
        return int(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))


_made: list[_Apart] = []


def _jump(context: Any, builder: Any, returns: Any, takes: tuple[Any, ...], args: Any, number: Any) -> Any:
    """Call the function at place `number` of the block's calls; what it raises goes on to the caller's caller."""
    block = context.make_array(_BLOCK)(context, builder, args[0])
    word = builder.load(builder.gep(block.data, [builder.add(ir.Constant(ir.IntType(64), CALLS), number)]))
    convention = context.call_conv
    code = builder.inttoptr(word, convention.get_function_type(returns, takes).as_pointer())
    status, result = convention.call_function(builder, code, returns, takes, args)
    with cgutils.if_unlikely(builder, status.is_error):
        convention.return_status_propagate(builder, status)
    return result


def apart(number: int, returns: Any = NOTHING) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a function of the block and any int64s. `number`: its place among the block's calls, 0 .. MAX_CALLS - 1."""
    assert 0 <= number < MAX_CALLS

    def decorate(function: Callable[..., Any]) -> Any:
        shape = inspect.signature(function)
        takes = (_BLOCK, *[INT] * (len(shape.parameters) - 1))
        _made.append(_Apart(function.__module__, number, kernel(function), takes))

        def typing(typingctx: Any, *given: Any) -> Any:
            words = all(isinstance(kind, types.Integer | types.Boolean) for kind in given[1:])
            return (returns(*takes), _call) if len(given) == len(takes) and given[0] == _BLOCK and words else None

        def _call(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _jump(context, builder, returns, takes, args, ir.Constant(ir.IntType(64), number))

        context = inspect.Parameter("typingctx", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        typing.__signature__ = inspect.Signature([context, *shape.parameters.values()])  # type: ignore[attr-defined]
        typing.__name__, typing.__doc__ = function.__name__, function.__doc__
        return intrinsic(typing)  # type: ignore[arg-type,unused-ignore]

    return decorate


@intrinsic  # type: ignore[arg-type,unused-ignore]
def call_numbered(typingctx: Any, block: Any, number: Any, word: Any) -> Any:
    """Call whatever stands at place `number` of the block's calls with (block, word); it returns nothing."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _jump(context, builder, NOTHING, (_BLOCK, INT), [args[0], args[2]], args[1])

    return NOTHING(_BLOCK, INT, INT), codegen


@intrinsic  # type: ignore[arg-type,unused-ignore]
def ask_numbered(typingctx: Any, block: Any, number: Any, word: Any) -> Any:
    """`call_numbered` for a function that returns an int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _jump(context, builder, INT, (_BLOCK, INT), [args[0], args[2]], args[1])

    return INT(_BLOCK, INT, INT), codegen


def link(block: Words, *modules: str) -> None:
    """Write the addresses of these modules' functions into a stage's block; compiles what is not compiled yet."""
    block[CALLS : CALLS + MAX_CALLS] = 0
    for call in _made:
        if call.module in modules:
            assert block[CALLS + call.number] == 0, f"{call.module}: call {call.number} is another function's"
            block[CALLS + call.number] = call.address()
