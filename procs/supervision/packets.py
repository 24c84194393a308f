"""What supervisor, zygote and the children that it forks ahead say to each other: one JSON packet each, over SOCK_SEQPACKET.

    supervisor -> zygote   Begin(profile, stages, runner, runtime)      once, first
                           Breed()                                      fork a child ahead; any time after Ready
    zygote -> supervisor   Waiting()                                    another process compiles, its lock is awaited
                           Warmed(stage, seconds, compiled)             one stage's kernels are loaded
                           Compiled(seconds, compiled)                  after compiling it starts over
                           Ready(seconds)
                           Bred(pid), with the child's channel          answers Breed
                           Barren(error)                                so does this: the fork failed
                           Failed(what, error)                          import or compile error: the zygote ends
    supervisor -> child    Spawn(stage, incarnation, requested_ns)      be this stage
                           Lead()                                       be the zygote

A child's channel is the supervisor's alone: what a child becomes is decided and known in one place, whoever dies meanwhile.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from procs.kernels.choice import CACHE_DIR

MAX_PACKET: Final = 131_072


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """What to load. `profile` is procs.profiles.config.profile_json's text, `stages` maps names to modules in start order."""

    profile: msgspec.Raw
    stages: dict[str, str]
    runner: str
    runtime: dict[str, Any]
    numba: dict[str, str]  # procs.kernels.choice.Choice.variables
    log_dir: str

    @property
    def cache_dir(self) -> str:
        """The folder of the compiled kernels."""
        return self.numba[CACHE_DIR]


class Breed(msgspec.Struct, frozen=True, tag="breed"):
    """Fork one child ahead."""


class Spawn(msgspec.Struct, frozen=True, tag="spawn"):
    """Be one incarnation of a stage."""

    stage: str
    incarnation: int
    requested_ns: int  # CLOCK_MONOTONIC


class Lead(msgspec.Struct, frozen=True, tag="lead"):
    """Be the zygote: the last one is dead."""


class Waiting(msgspec.Struct, frozen=True, tag="waiting"):
    """Another process holds the compile lock."""


class Warmed(msgspec.Struct, frozen=True, tag="warmed"):
    """One stage's kernels are loaded; `compiled` is how many had to be compiled (0: warm start)."""

    stage: str
    seconds: float
    compiled: int


class Compiled(msgspec.Struct, frozen=True, tag="compiled"):
    """Kernels had to be compiled; the zygote starts over and loads them: Warmed comes again for each stage."""

    seconds: float
    compiled: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Children are forked on request from here on; `seconds` it took to get there."""

    seconds: float


class Bred(msgspec.Struct, frozen=True, tag="bred"):
    """A child is the supervisor's and waits at the channel whose end comes with this packet."""

    pid: int


class Barren(msgspec.Struct, frozen=True, tag="barren"):
    """There is no child: out of processes or memory."""

    error: str


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The zygote cannot serve and ends."""

    what: str
    error: str


ToZygote = Begin | Breed
ToChild = Spawn | Lead
FromZygote = Waiting | Warmed | Compiled | Ready | Bred | Barren | Failed
