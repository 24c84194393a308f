"""Before anything starts: a user's signals are loaded, compiled and tried in a child process, whose time is limited here.

Nothing of the user's runs in this process, and numba is not needed here.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from procs.cli.outcome import FAILED, USAGE, CliError
from procs.cli.staging import child_environment
from procs.kernels.choice import CACHE_DIR, chosen
from procs.profiles.schema import Profile
from trading.settings import Strategy, UserSignal

LOAD_LIMIT_S: Final = 120.0
"""Importing numba and compiling on a busy machine."""

TRIAL_LIMIT_S: Final = 10.0
"""Twenty thousand events take a sound signal some milliseconds, and compiling the loop around it a second or two."""


def with_signals(
    profile: Profile, say: Callable[[str], None] = lambda _: None, *, trial_limit_s: float = TRIAL_LIMIT_S
) -> Profile:
    """The profile with what the user's files declare filled in; the same object if it names none.

    `say` hears warnings (answers that are not finite). Raises CliError with file and line of a signal that cannot be used.
    """
    if not profile.signals.user:
        return profile
    settled = _asked(profile, say, trial_limit_s)
    return msgspec.structs.replace(profile, signals=msgspec.structs.replace(profile.signals, user=settled))


def _asked(profile: Profile, say: Callable[[str], None], trial_limit_s: float) -> tuple[UserSignal, ...]:
    environment = {**child_environment(), **({} if os.environ.get(CACHE_DIR) else chosen().variables())}
    strategy = {name: getattr(profile, name) for name in Strategy.__struct_fields__}
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "procs.research.signal_trial"], env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with child:
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        try:
            child.stdin.write(msgspec.json.encode(strategy))
            child.stdin.close()
            return _hear(child, say, trial_limit_s)
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()


def _hear(child: subprocess.Popen[bytes], say: Callable[[str], None], trial_limit_s: float) -> tuple[UserSignal, ...]:
    assert child.stdout is not None and child.stderr is not None
    rest, doing = b"", ("loading", "", "")
    deadline = time.monotonic() + LOAD_LIMIT_S
    streams = [child.stdout, child.stderr]
    complaint = b""
    while child.stdout in streams:
        ready, _, _ = select.select(streams, [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise _too_long(doing, trial_limit_s)
        for stream in ready:
            raw = os.read(stream.fileno(), 65_536)
            if not raw:
                streams.remove(stream)
            elif stream is child.stderr:
                complaint = (complaint + raw)[-4000:]
            else:
                rest += raw
        while b"\n" in rest:
            line, _, rest = rest.partition(b"\n")
            said = _object(line)  # whatever a user's file prints itself is not ours
            if "problem" in said:
                raise CliError(said["problem"], USAGE)
            if "signals" in said:
                return tuple(msgspec.convert(said["signals"], type=list[UserSignal], strict=False))
            if said.get("step") == "trying":
                doing = ("trying", said["signal"], said["place"])
                deadline = time.monotonic() + trial_limit_s
            if said.get("not_finite"):
                say(
                    f"{doing[2]}: {said['signal']} answers with what is no finite number for {said['not_finite']} of "
                    f"{said['events']} trial events: such answers are counted and the signal is silent"
                )
    child.wait()
    last = complaint.decode("utf-8", "replace").strip().splitlines()
    what = f"{doing[2]}: {doing[1]} ended the process that tried it" if doing[1] else "the signals could not be tried"
    raise CliError(f"{what} ({last[-1] if last else f'exit code {child.returncode}'}): mend the file in signals.user", FAILED)


def _object(line: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        said = json.loads(line)
        if isinstance(said, dict):
            return said
    return {}


def _too_long(doing: tuple[str, str, str], trial_limit_s: float) -> CliError:
    if doing[0] == "trying":
        return CliError(
            f"{doing[2]}: {doing[1]} did not come back within {trial_limit_s:g} s: is there a loop without an end?", USAGE
        )
    return CliError(
        f"the files in signals.user did not load within {LOAD_LIMIT_S:g} s: is there a loop at their top level?", USAGE
    )
