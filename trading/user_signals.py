"""A user's own signal: the decorator that declares one, and what the one pass needs to call it.

    @signal(params={"window": 20.0}, state={"average": float, "seen": int, "recent": (float, 16)})
    def my_signal(state, event, out):
        ...
        out.strength = ...

`state` is the signal's own fields for the record's symbol, the parameters among them; `event` is the record
(trading.own_signals.call.USER_EVENT), `out` the answer: `strength` in [-1, 1], and `ready`, which is 1 unless the function says
0. Functions that it calls are decorated with `checked_kernel`.

What this module is not: it opens no file; procs.research.signal_files does.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter
from typing import Any, Final, overload

import numpy as np
from numba import from_dtype
from numba.core import errors, types

from trading.features.signals import N_SIGNALS, SIGNALS, SignalSpec, Voice
from trading.jit import Recs, Words, checked_kernel
from trading.own_signals.call import MAX_USER_SIGNALS, USER_ANSWER, USER_EVENT, USER_STATUS, USER_TABLE
from trading.own_signals.guard import GUARD_WORDS, Health
from trading.records import MAX_SIGNALS
from trading.settings import Features, Strategy, UserSignal

__all__ = ["Declaration", "SignalError", "UserSignals", "checked_kernel", "compiled", "signal", "signal_table"]

MAX_FIELD: Final = 4096
"""Most numbers of one field of the state."""

ATTRIBUTE: Final = "declared_signal"
"""Where the decorator leaves the Declaration."""

NO_SENTENCE: Final = "{name} {strength:+.2f}"


class SignalError(ValueError):
    """A user's signal that cannot be used: the message begins with file and line, and says what to change."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """What the decorator was told. `line` is the function's."""

    name: str
    function: Callable[[Any, Any, Any], None]
    file: str
    line: int
    params: dict[str, float]
    state: dict[str, tuple[str, int]]  # field -> (numpy type, how many; 0: one number)
    voice: Voice
    sentence: str

    @property
    def place(self) -> str:
        """file:line of the function."""
        return f"{self.file}:{self.line}"

    @property
    def dtype(self) -> np.dtype:
        """The signal's fields of one symbol: parameters, then state."""
        fields: list[Any] = [(name, "i8" if isinstance(value, int) else "f8") for name, value in self.params.items()]
        fields += [(name, kind, count) if count else (name, kind) for name, (kind, count) in self.state.items()]
        return np.dtype(fields or [("unused", "i8")], align=True)


_KINDS: Final[dict[Any, str]] = {float: "f8", "float": "f8", int: "i8", "int": "i8"}


@overload
def signal(function: Callable[[Any, Any, Any], None], /) -> Callable[[Any, Any, Any], None]: ...
@overload
def signal(
    *, params: Mapping[str, float] | None = None, state: Mapping[str, Any] | None = None, voice: str = "occasional",
    sentence: str = "",
) -> Callable[[Callable[[Any, Any, Any], None]], Callable[[Any, Any, Any], None]]: ...  # fmt: skip


def signal(
    function: Callable[[Any, Any, Any], None] | None = None,
    /,
    *,
    params: Mapping[str, float] | None = None,
    state: Mapping[str, Any] | None = None,
    voice: str = "occasional",
    sentence: str = "",
) -> Any:
    """Declare a function (state, event, out) as a signal.

    params: name -> default (int or float), read as fields of `state`. state: name -> float, int, or (float | int, how many);
    all begin at 0. voice: occasional (votes when it speaks), standing (its silence pulls to neutral), confirming (has no side
    of its own). sentence: what a human reads of it, a format string over `strength` and the parameters. Raises SignalError.
    """

    def declare(found: Callable[[Any, Any, Any], None]) -> Callable[[Any, Any, Any], None]:
        code = getattr(found, "__code__", None)
        if code is None:
            raise SignalError(f"@signal takes a function, this is a {type(found).__name__}: put it right above `def`")
        place = f"{code.co_filename}:{code.co_firstlineno}: @signal on {found.__name__}"
        if code.co_varnames[: code.co_argcount] != ("state", "event", "out"):
            raise SignalError(f"{place}: its arguments are {code.co_varnames[: code.co_argcount]}: write (state, event, out)")
        declaration = Declaration(
            name=found.__name__,
            function=found,
            file=code.co_filename,
            line=code.co_firstlineno,
            params=_params(params or {}, place),
            state=_state(state or {}, place),
            voice=_voice(voice, place),
            sentence=sentence or NO_SENTENCE,
        )
        twice = sorted(set(declaration.params) & set(declaration.state))
        if twice:
            raise SignalError(f"{place}: {', '.join(twice)} is both a parameter and a field: give one another name")
        _check_sentence(declaration, place)
        setattr(found, ATTRIBUTE, declaration)
        return found

    return declare if function is None else declare(function)


def _word(name: Any, place: str) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,47}", name) or keyword.iskeyword(name):
        raise SignalError(f"{place}: {name!r} is no name for a field: write letters, digits and _")
    return name


def _params(params: Mapping[str, float], place: str) -> dict[str, float]:
    for name, value in params.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise SignalError(f"{place}: parameter {_word(name, place)} is {value!r}: write a number as its default")
    return {_word(name, place): value for name, value in params.items()}


def _state(state: Mapping[str, Any], place: str) -> dict[str, tuple[str, int]]:
    found: dict[str, tuple[str, int]] = {}
    for name, given in state.items():
        kind, count = given if isinstance(given, tuple) and len(given) == 2 else (given, 0)
        in_bounds = isinstance(count, int) and not isinstance(count, bool) and 0 <= count <= MAX_FIELD
        if not isinstance(kind, type | str) or kind not in _KINDS or not in_bounds or (isinstance(given, tuple) and not count):
            raise SignalError(
                f"{place}: field {_word(name, place)} has the wrong type {given!r}: "
                f"write float, int, or (float, n) with n from 1 to {MAX_FIELD}"
            )
        found[_word(name, place)] = (_KINDS[kind], count)
    return found


def _voice(voice: str, place: str) -> Voice:
    known = {one.name.lower(): one for one in Voice}
    if voice not in known:
        raise SignalError(f"{place}: voice {voice!r} is not known: write {', '.join(known)}")
    return known[voice]


def _check_sentence(declaration: Declaration, place: str) -> None:
    names = {"name", "strength", *declaration.params}
    try:
        used = [name for _, name, _, _ in Formatter().parse(declaration.sentence) if name is not None]
        unknown = sorted(set(used) - names)
        if not unknown:
            say(declaration.name, declaration.sentence, 0.5, declaration.params)
    except (ValueError, IndexError, KeyError) as error:
        raise SignalError(f"{place}: the sentence {declaration.sentence!r} is no format string ({error}): mend it") from None
    if unknown:
        raise SignalError(f"{place}: the sentence names {', '.join(unknown)}: it can name {', '.join(sorted(names))}")


def say(name: str, sentence: str, strength: float, params: Mapping[str, float]) -> str:
    """The sentence with its figures."""
    return sentence.format(**{**params, "name": name, "strength": strength})


def signal_table(strategy: Strategy) -> tuple[SignalSpec, ...]:
    """Every signal of a strategy in the order of the indices: the built-in ones, then the user's, ready to be shown.

    The strategy is a running profile, in which the start has filled in what the user's files declare.
    """
    return (*SIGNALS, *(_spec(N_SIGNALS + k, one) for k, one in enumerate(strategy.signals.user)))


def _spec(index: int, one: UserSignal) -> SignalSpec:
    def sentence(strength: float, features: Features) -> str:
        return say(one.name, one.sentence or NO_SENTENCE, strength, one.params)

    voice = Voice[one.voice.upper()] if one.voice else Voice.OCCASIONAL
    return SignalSpec(index, one.name, voice, sentence)


@dataclass(slots=True)
class UserSignals:
    """Signals that are compiled: their settings and declarations, code addresses, and the layout of their state."""

    settings: tuple[UserSignal, ...]
    declared: tuple[Declaration, ...]
    code_hash: str
    _compiled: tuple[Any, ...] = ()  # keeps the machine code alive
    addresses: tuple[int, ...] = ()
    row: np.dtype = field(default_factory=lambda: np.dtype([("unused", "i8")]))

    def spec(self, symbols: int) -> tuple[tuple[str, np.dtype, int], ...]:
        """What is kept between records, as a stage declares it; the name holds the code's hash: other code resumes nothing."""
        if not self.settings:
            return ()
        return ((f"user_rows:{self.code_hash}", self.row, symbols), ("user_status", USER_STATUS, len(self.settings)))

    def arrays(self, symbols: int) -> tuple[Recs, Recs]:
        """(rows, status) on the heap, as `bind` takes them."""
        return np.zeros(symbols, self.row), np.zeros(max(len(self.settings), 1), USER_STATUS)

    def bind(self, params: Recs, rows: Recs, status: Recs, guard: Words | None = None) -> list[Any]:
        """Put the signals into FEATURE_PARAMS (1,) and the rows into their start state; returns what must be kept alive.

        `guard`: int64 (GUARD_WORDS,), on the board in a pipeline.
        """
        if not self.settings:
            return []
        assert rows.dtype == self.row and status.dtype == USER_STATUS
        p = params[0]
        table = np.zeros(MAX_SIGNALS, USER_TABLE)
        event, answer = np.zeros(1, USER_EVENT), np.zeros(1, USER_ANSWER)
        guard = np.zeros(GUARD_WORDS, np.int64) if guard is None else guard
        assert guard.shape == (GUARD_WORDS,) and guard.dtype == np.int64 and guard.flags.c_contiguous
        rows[:], status[:] = np.zeros((), self.row), np.zeros((), USER_STATUS)
        assert self.row.fields is not None
        for k, (one, declaration) in enumerate(zip(self.settings, self.declared, strict=True)):
            index = N_SIGNALS + k
            name = self.row.names[k] if self.row.names else ""
            table[k] = (self.addresses[k], self.row.fields[name][1])
            for key, value in one.params.items():
                rows[name][key] = value
            p["weight"][index] = one.weight
            if one.weight > 0.0 and declaration.voice == Voice.STANDING:
                p["standing_mask"] |= 1 << index
                p["required_mask"] |= 1 << index
            elif one.weight > 0.0 and declaration.voice == Voice.CONFIRMING:
                p["confirming_mask"] |= 1 << index
                p["required_mask"] |= 1 << index
        p["n_signals"] = N_SIGNALS + len(self.settings)
        p["user_signals"], p["user_row_bytes"] = len(self.settings), self.row.itemsize
        p["user_table"], p["user_rows"], p["user_status"] = table.ctypes.data, rows.ctypes.data, status.ctypes.data
        p["user_event"], p["user_answer"], p["user_guard"] = event.ctypes.data, answer.ctypes.data, guard.ctypes.data
        return [table, rows, status, event, answer, guard, self]

    def failure(self, k: int, health: Health) -> SignalError:
        """Signal k's end in words."""
        return SignalError(f"{self.declared[k].place}: {self.declared[k].name} is {health.sentence}")


NONE: Final = UserSignals((), (), "")


def merged(one: UserSignal, declaration: Declaration) -> UserSignal:
    """The settings with what the file declares: every parameter, voice, sentence. Raises SignalError for a parameter unknown."""
    params = dict(declaration.params)
    for name, value in one.params.items():
        if name not in params:
            known = ", ".join(params) or "it has none"
            raise SignalError(f"{declaration.place}: {one.name} has no parameter {name!r}: known are {known}")
        if isinstance(params[name], int):
            if value != int(value):
                raise SignalError(f"{declaration.place}: parameter {name} of {one.name} is {value}: write a whole number")
            value = int(value)
        params[name] = value
    return UserSignal(
        file=one.file, name=one.name, weight=one.weight, params=params, voice=declaration.voice.name.lower(),  # type: ignore[arg-type]
        sentence=declaration.sentence, code=one.code,
    )  # fmt: skip


_NUMBA_PLACE: Final = re.compile(r'File "([^"]+)", line (\d+)|(?m: at (.+) \((\d+)\)$)')


def _reason(error: Exception, declaration: Declaration) -> str:
    """file:line and one sentence of what numba has to say."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    line = declaration.line
    for one, at, other, there in _NUMBA_PLACE.findall(text):
        if declaration.file.endswith(one or other):
            line = int(at or there)
    # numba's own preamble says nothing of the code
    passing = re.compile(r"^(Failed in|No implementation of function|There are \d+|During:|File|- |Overload|Rejected|raised)")
    lines = [one.strip() for one in text.splitlines() if one.strip()]
    said = [one for one in lines if not passing.match(one)] or lines or ["cannot be compiled"]
    return f"{declaration.file}:{line}: {declaration.name}: {' '.join(said[:2])[:300]}"


def _compile(declaration: Declaration) -> tuple[Any, int]:
    """The dispatcher and the address of its machine code. Raises SignalError with the place."""
    signature = types.void(from_dtype(declaration.dtype), from_dtype(USER_EVENT), from_dtype(USER_ANSWER))
    dispatcher = checked_kernel(declaration.function)
    try:
        dispatcher.compile(signature)
    except (errors.NumbaError, TypeError, ValueError, KeyError) as error:
        raise SignalError(_reason(error, declaration)) from None
    result = dispatcher.overloads[tuple(signature.args)]
    return dispatcher, int(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))


def compiled(settings: Sequence[UserSignal], declared: Sequence[Declaration], code_hash: str) -> UserSignals:
    """Compile declared signals, in the order of the settings. Raises SignalError."""
    if not settings:
        return NONE
    if len(settings) > MAX_USER_SIGNALS:
        raise SignalError(f"signals.user names {len(settings)} signals: there is room for {MAX_USER_SIGNALS}")
    complete = tuple(merged(one, declaration) for one, declaration in zip(settings, declared, strict=True))
    built = [_compile(declaration) for declaration in declared]
    row = np.dtype([(one.name, declaration.dtype) for one, declaration in zip(complete, declared, strict=True)], align=True)
    return UserSignals(complete, tuple(declared), code_hash, tuple(d for d, _ in built), tuple(a for _, a in built), row)
