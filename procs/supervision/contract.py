"""What the supervisor asks of the pipeline that it supervises, as Protocols. No code: procs.supervision.supervisor calls these.

To supervise something: give `Supervisor(profile, pipeline)` an object with these members; the stages themselves run in
children of the zygote through the runner, `run_stage(name, runtime) -> exit code` (procs.supervision.zygote says what `runtime`
holds).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class StageSpec(Protocol):
    """A stage of the topology: its name, and the module with `warm(profile)`."""

    @property
    def name(self) -> str:
        """Short."""

    @property
    def module(self) -> str:
        """Importable; imported by the zygote, where it must start no thread."""

    @property
    def essential(self) -> bool:
        """False: the pipeline runs without it. It neither delays start and end nor trips the kill switch."""


class Pipeline(Protocol):
    """The pipeline's shared memory and its commands. Calls are cheap and never block; no stage makes any.

    A process is one stage and called like it, or several that share a thread: they start, crash and end together.
    """

    @property
    def stages(self) -> Sequence[StageSpec]:
        """All stages that run."""

    @property
    def processes(self) -> Mapping[str, Sequence[str]]:
        """Names of the processes (part of log file names), each with its stages, in start order.

        Stopping by signals goes the other way round.
        """

    @property
    def runtime(self) -> Mapping[str, Any]:
        """JSON-able entries that `run_stage(name, runtime)` gets besides the supervisor's own."""

    def create(self) -> None:
        """Segments and board. What it raises is logged, and the start fails with EXIT_FAILED."""

    def destroy(self) -> None:
        """Removes everything that `create` made; called once, when no stage lives, also after a failed create."""

    def prepare(self, process: str, incarnation: int) -> None:
        """Before each spawn; the predecessor is dead and reaped. Clears READY, notes the incarnation."""

    def heartbeat(self, process: str) -> int:
        """A word that changes while the process's loop turns, asleep for want of input or not."""

    def ready(self, process: str) -> bool:
        """Each of its stages says that it is attached, recovered and consuming."""

    def finished(self, process: str) -> bool:
        """Each of its stages says that END came through and all its outputs are published: its exit with 0 is final."""

    def at_work(self, process: str) -> str:
        """The stage that was at work when a process of several ended or fell silent; "" where that says nothing new."""

    def progress(self) -> int:
        """Records processed by all stages, for status lines."""

    def trouble(self) -> str:
        """What keeps it from going on although all processes live (a full disk), as a sentence; "" if nothing does."""

    def request_stop(self) -> None:
        """Asks the source to end, so that END runs through all stages. May be called again."""

    def halt(self, reason: str) -> None:
        """Tells risk: cancel everything, open nothing. An exception means "not told yet": called again."""

    def resume(self, reason: str) -> None:
        """Takes halt back. An exception means "not told yet": called again."""
