"""Loads the files that a profile names under `signals.user` and compiles their functions. Needs numba.

Compiled code is kept below the pipeline's cache of kernels, in a folder named by the hash of the user's file: an edited signal
is compiled anew, and nothing else is. A file runs as Python when it is loaded: name only files that you would run.

What this module is not: it does not try a signal out; procs.research.signal_trial does.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.abc
import importlib.util
import linecache
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from numba.core import config

from trading.own_signals.call import USER_ANSWER, USER_EVENT
from trading.settings import Strategy, UserSignal
from trading.user_signals import ATTRIBUTE, NONE, Declaration, SignalError, UserSignals, compiled

MAX_FILE_BYTES: Final = 1_000_000
_loaded: dict[tuple[Any, ...], UserSignals] = {}


class _Loader(importlib.abc.SourceLoader):
    """Runs exactly the bytes that were read, and leaves no bytecode beside the user's file."""

    def __init__(self, path: str, raw: bytes) -> None:
        self._path, self._raw = path, raw

    def get_filename(self, fullname: str) -> str:
        """For tracebacks and for numba."""
        return self._path

    def get_data(self, path: str) -> bytes:
        """The bytes that were read before."""
        return self._raw


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SignalError(f"{path}: {(error.strerror or 'cannot be read').lower()}: check signals.user in the profile") from None
    if len(raw) > MAX_FILE_BYTES:
        raise SignalError(f"{path}: longer than {MAX_FILE_BYTES} bytes: name a file of signals")
    return raw


def file_hash(raw: bytes) -> str:
    """16 hex digits of a file's content."""
    return hashlib.blake2b(raw, digest_size=8).hexdigest()


@contextmanager
def _own_cache(folder: str) -> Iterator[None]:
    """Functions decorated meanwhile keep their machine code in this folder below the kernels' cache."""
    before = config.CACHE_DIR
    if before:
        config.CACHE_DIR = str(Path(before) / f"user-{folder}")
    try:
        yield
    finally:
        config.CACHE_DIR = before


def _line_in(path: str, error: BaseException) -> int:
    """The last line of the file that an error passed through; 1 if none."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return lines[-1] or 1 if lines else 1


def _declared(path: str, raw: bytes) -> dict[str, Declaration]:
    """Every signal that a file declares. Raises SignalError with its line."""
    try:
        tree = ast.parse(raw, path)
    except (SyntaxError, ValueError) as error:
        line, what = getattr(error, "lineno", None) or 1, getattr(error, "msg", None) or str(error)
        raise SignalError(f"{path}:{line}: syntax error: {what}") from None
    linecache.checkcache(path)
    name = f"user_signals_{file_hash(path.encode() + raw)}"
    spec = importlib.util.spec_from_loader(name, _Loader(path, raw), origin=path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = path
    sys.modules[name] = module  # numba asks for it by name when it loads compiled code
    try:
        spec.loader.exec_module(module)
    except SignalError as error:
        raise SignalError(str(error)) from None
    except Exception as error:
        raise SignalError(f"{path}:{_line_in(path, error)}: {type(error).__name__}: {error}") from None
    found: dict[str, Declaration] = {
        one.name: one for value in vars(module).values() if isinstance(one := getattr(value, ATTRIBUTE, None), Declaration)
    }
    for declaration in found.values():
        if declaration.file == path:
            _check_fields(tree, declaration)
    return found


def _check_fields(tree: ast.Module, declaration: Declaration) -> None:
    """Fields of state, event and out that do not exist, by line: numba's own words on them take a page."""
    function = next(
        (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == declaration.name), None
    )  # fmt: skip
    known = {"event": USER_EVENT.names or (), "out": USER_ANSWER.names or ()}
    known["state"] = (*declaration.params, *declaration.state)
    for node in ast.walk(function) if function is not None else ():
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
            fields = known[node.value.id]
            if node.attr not in fields:
                remedy = "declare it in @signal(state=...)" if node.value.id == "state" else "use one of its fields"
                there = ", ".join(fields) or "none"
                place = f"{declaration.file}:{node.lineno}"
                raise SignalError(
                    f"{place}: {declaration.name}: {node.value.id} has no field {node.attr!r}: {remedy} (there are: {there})"
                )
            if node.value.id == "event" and not isinstance(node.ctx, ast.Load):
                raise SignalError(f"{declaration.file}:{node.lineno}: {declaration.name}: event is not to be changed: use state")


def _declaration(one: UserSignal, found: dict[str, Declaration]) -> Declaration:
    if one.name not in found:
        there = ", ".join(found) or "none: put @signal above a function"
        raise SignalError(f"{one.file}: declares no signal {one.name!r}: it declares {there}")
    return found[one.name]


def load(strategy: Strategy) -> UserSignals:
    """The compiled signals of a strategy; a second call for the same files gives the same object. Raises SignalError."""
    wanted = strategy.signals.user
    if not wanted:
        return NONE
    raws = {one.file: _read(one.file) for one in wanted}
    key = (*((one.file, one.name, one.weight, tuple(one.params.items()), file_hash(raws[one.file])) for one in wanted),)
    if key in _loaded:
        return _loaded[key]
    builtin = {*strategy.weights.__struct_fields__}
    for n, one in enumerate(wanted):
        if one.code and one.code != file_hash(raws[one.file]):
            raise SignalError(f"{one.file}: its content is not what was tried at the start (signals.user code): start again")
        if one.name in builtin or one.name in {other.name for other in wanted[:n]}:
            raise SignalError(f"{one.file}: {one.name} is the name of another signal: rename the function")
    together = file_hash(b"".join(raws[one.file] + one.name.encode() for one in wanted))
    with _own_cache(together):
        files = {file: _declared(file, raw) for file, raw in raws.items()}
        settings = [_with_code(one, file_hash(raws[one.file])) for one in wanted]
        declared = [_declaration(one, files[one.file]) for one in wanted]
        _loaded[key] = compiled(settings, declared, together)
    return _loaded[key]


def _with_code(one: UserSignal, code: str) -> UserSignal:
    return UserSignal(
        file=one.file, name=one.name, weight=one.weight, params=one.params, voice=one.voice, sentence=one.sentence, code=code
    )
