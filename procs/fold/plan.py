"""What a run is made of, resolved: the profile with its symbols as an instrument table and its recording staged.

A stage gets a `Plan` and nothing else; it never reads a file of settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from procs.fold.assembly import LoopSettings
from procs.fold.block import BLOCK, SPIN, YIELD
from procs.profiles.schema import Profile
from procs.topology import Run
from sim.recordings.spool import StagedRecording, open_spool
from sim.settings import Generator, SimulatedExchange
from trading.instruments import MAX_QTY, Instrument, instrument_table
from trading.jit import Recs
from trading.settings import Strategy, unfitted


class PlanError(ValueError):
    """Profile and recording do not fit together; the message names symbol and remedy."""


@dataclass(slots=True)
class Plan:
    """One run's settings as the stages take them."""

    strategy: Strategy
    instruments: Recs
    names: tuple[str, ...]
    exchange: SimulatedExchange
    generator: Generator
    spool: Path | None
    speed: float  # 0: as fast as it goes
    frames: int  # in the recording; 0: no end known
    run: Run = Run()
    snapshot_levels: int = 0  # a side, that snapshots are asked for; 0: not known (a recording)
    owed_limit_ns: int = 2_000_000_000  # a stream that owes a message for longer has died
    silence_ns: int = 60_000_000_000  # and prints that are silent for longer, and much longer than is usual

    @property
    def live(self) -> bool:
        """Whether frames come over the frames ring."""
        return self.run.source == "live"

    @property
    def symbols(self) -> int:
        """How many symbols the run has."""
        return len(self.names)


def plan_of(profile: Profile, recording: StagedRecording | None = None) -> Plan:
    """The plan of a profile; a recording brings its symbols, in its order, with ticks and lots inferred from its frames.

    A symbol that the profile describes as well keeps the profile's fees, limits and switches. Raises PlanError where
    the two contradict each other.
    """
    if recording is None:
        instruments: Sequence[Instrument] = profile.instruments()
        if not instruments:
            raise PlanError(
                "the profile names no symbols and no recording: add `symbols:` (e.g. [{name: BTCUSDT}]) or give --recording FILE"
            )
    else:
        known = {instrument.name: instrument for instrument in profile.instruments()}
        instruments = [_merged(symbol.instrument(), known.get(symbol.name)) for symbol in recording.symbols]
    lacking = unfitted(profile, (it.name for it in instruments if it.make_market)) if profile.world != "record" else []
    if lacking:
        raise PlanError(
            f"quoting.rule {profile.quoting.rule} knows no A and k of {', '.join(lacking)}: put what "
            "`scalperctl calibrate RECORDING` prints under quoting.intensity, or write source: measured there"
        )
    speed = 0.0 if profile.source.speed == "max" else float(profile.source.speed)
    return Plan(
        strategy=profile,
        instruments=instrument_table(instruments),
        names=tuple(instrument.name for instrument in instruments),
        exchange=profile.exchange,
        generator=profile.generator,
        spool=recording.path if recording is not None else None,
        speed=speed,
        frames=recording.n_frames if recording is not None else 0,
        run=Run.of(profile),
        snapshot_levels=profile.live.snapshot_levels if profile.source.kind == "live" else 0,
        owed_limit_ns=profile.live.stream_age_ms * 1_000_000,
        silence_ns=int(profile.live.silence_timeout_s * 1e9),
    )


def _merged(found: Instrument, given: Instrument | None) -> Instrument:
    if given is None:
        return found
    if given.market != found.market:
        raise PlanError(
            f"{given.name}: the profile says {given.market.label}, the frames are {found.market.label}: "
            "correct `market:` or remove the symbol from the profile"
        )
    # what the frames print decides ticks and lots; where the profile's figures are no multiples of such a lot, they are of
    # another symbol (the defaults are of BTCUSDT): then the frames' own, and no maximum where none was written
    lot = Decimal(found.lot_size)
    fits = Decimal(given.step_size) % lot == 0 and Decimal(given.min_qty) % lot == 0
    return replace(
        given,
        tick_size=found.tick_size,
        lot_size=found.lot_size,
        contract=given.contract or found.contract,
        contract_size=given.contract_size or found.contract_size,
        step_size=given.step_size if fits else found.step_size,
        min_qty=given.min_qty if fits else found.min_qty,
        max_qty=found.max_qty if given.max_qty == MAX_QTY else given.max_qty,
    )


def load_recording(spool: Path | None) -> StagedRecording | None:
    """Describe a staged recording again (a restarted stage knows only its path)."""
    return None if spool is None else open_spool(spool)[1]


def loop_settings(profile: Profile, cores: int, run: Run) -> LoopSettings:
    """How the stages wait: `auto` blocks when there are more processes than cores."""
    wait = profile.pipeline.wait
    if wait == "auto":
        wait = "block" if cores < sum(process.essential for process in run.processes) + 1 else "spin"
    strategy = {"spin": SPIN, "yield": YIELD, "block": BLOCK}[wait]
    return LoopSettings(
        strategy=strategy, spin=max(profile.pipeline.spin_iterations, 1), checkpoint_every=profile.pipeline.checkpoint_every,
        look=sum(process.members[0].hot for process in run.processes) > 1,
    )  # fmt: skip
