"""What holds between the keys of a profile, and what the keys mean on this machine: files that exist, markets, pinned models.

Every failure is told at its key, with file, line, column and remedy. Types and ranges are the schema's.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from procs.profiles.schema import PipelineSettings, Profile
from procs.profiles.strict_yaml import Reader
from trading.ranges import MAX_SYMBOLS, MAX_UNITS
from trading.settings import contradiction
from trading.symbol_names import name_fault
from trading.venues.decimals import MAX_DECIMALS, decimals_of
from trading.venues.names import DEFAULT

_BELOW: Final[tuple[tuple[str, str, str], ...]] = (
    ("thresholds.short", "<", "thresholds.long"),
    ("features.ema_fast", "<", "features.ema_slow"),
    ("features.spread_compression", "<", "features.spread_expansion"),
    ("execution.post_only_below", "<=", "execution.market_urgency_threshold"),
    ("risk.max_order_notional", "<=", "risk.max_position_notional"),
    ("quoting.order_notional", "<=", "quoting.max_inventory_notional"),
    ("quoting.order_notional", "<=", "risk.max_order_notional"),
    ("quoting.max_inventory_notional", "<=", "risk.max_position_notional"),
    ("exchange.latency.entry_min_ms", "<=", "exchange.latency.entry_max_ms"),
    ("exchange.latency.response_min_ms", "<=", "exchange.latency.response_max_ms"),
    ("supervisor.backoff_min_ms", "<=", "supervisor.backoff_max_ms"),
    ("live.backoff_min_ms", "<=", "live.backoff_max_ms"),
    ("live.depth_interval_ms", "<", "live.stream_age_ms"),
)
"""Relations between limits; each is asserted of the defaults by a test, and of a profile where both of its parts run."""


def _runs(profile: Profile, key: str) -> bool:
    """Whether the part runs that a setting is of: what nobody reads refuses no run."""
    section = key.partition(".")[0]
    if section == "live":
        return profile.source.kind == "live"
    if section == "supervisor":
        return True
    if section == "quoting" and not profile.quoting.enabled:
        return False
    return profile.world != "record"


def _value(profile: Profile, key: str) -> Any:
    value: Any = profile
    for word in key.split("."):
        value = getattr(value, word)
    return value


def check(profile: Profile, reader: Reader) -> None:
    """Everything that must hold between keys. Raises ConfigError for the first that does not."""
    _check_relations(profile, reader)
    if profile.world == "record" and profile.source.kind != "live":
        raise reader.fail("world", f"record, but source.kind is {profile.source.kind}", "write source.kind: live")
    _check_exchange(profile, reader)
    _check_placement(profile, reader)
    _check_names(profile, reader)
    _check_symbols(profile, reader)
    _check_learner(profile, reader)
    _check_gateway(profile, reader)


def _check_names(profile: Profile, reader: Reader) -> None:
    for n, symbol in enumerate(profile.symbols):
        if fault := name_fault(symbol.name):
            raise reader.fail(f"symbols[{n}].name", f"{symbol.name!r} {fault}", "write e.g. BTCUSDT or BTCUSD_PERP")


def _check_relations(profile: Profile, reader: Reader) -> None:
    for low, relation, high in _BELOW:
        a, b = _value(profile, low), _value(profile, high)
        if _runs(profile, low) and _runs(profile, high) and not (a < b if relation == "<" else a <= b):
            # blame the one that the user wrote; of two, the second
            key = high if high in reader.places else low
            word = "below" if relation == "<" else "at most"
            raise reader.fail(key, f"{low} is {a} and {high} is {b}", f"{low} must be {word} {high}")
    problem = contradiction(profile) if _runs(profile, "features") else None
    if problem is not None:
        raise reader.fail(*problem)
    unheard = not any(msgspec.structs.astuple(profile.weights)) and not any(one.weight for one in profile.signals.user)
    if unheard and _runs(profile, "weights"):
        raise reader.fail("weights", "every weight is 0", "give at least one signal a weight above 0")
    if profile.source.kind == "generated":
        if profile.source.files:
            raise reader.fail("source.files", "files are named but source.kind is generated", "write kind: recording")
        if not profile.symbols:
            raise reader.fail("symbols", "a generated market needs symbols", "write at least one, e.g. - name: BTCUSDT")
    elif profile.source.kind == "live":
        _check_live(profile, reader)
    elif not profile.source.files:
        raise reader.fail("source.files", "a recording needs at least one file", "name it here, or with --recording FILE")
    cores = profile.pipeline.cores
    if not isinstance(cores, str):
        if not cores:
            raise reader.fail("pipeline.cores", "the list is empty", "write core numbers, or auto, or none")
        here = os.sched_getaffinity(0)
        for n, core in enumerate(cores):
            if core not in here:
                names = ", ".join(map(str, sorted(here)))
                raise reader.fail(f"pipeline.cores[{n}]", f"core {core} cannot be used here", f"use of: {names}, or auto")


DEPTH_INTERVALS_MS: Final = (0, 100, 250, 500, 1000)
ARENA_SHARE: Final = 4
"""A frame may take one part in so many of the arena (procs.memory.arena)."""
SNAPSHOT_LEVEL_BYTES: Final = 48
"""A snapshot's bytes for each level and side, at most: ["123456.12345678","123456789.12345678"], is 41."""


def _check_live(profile: Profile, reader: Reader) -> None:
    if profile.live.depth_interval_ms not in DEPTH_INTERVALS_MS:
        raise reader.fail(
            "live.depth_interval_ms",
            f"{profile.live.depth_interval_ms} is no interval that venues offer",
            "write 0, 100, 250, 500 or 1000",
        )
    need_mb = -(-2 * profile.live.snapshot_levels * SNAPSHOT_LEVEL_BYTES * ARENA_SHARE // (1 << 20))
    if need_mb > profile.live.arena_mb:
        problem = f"a snapshot of {profile.live.snapshot_levels} levels does not fit into {profile.live.arena_mb} MB"
        raise reader.fail("live.arena_mb", problem, f"write arena_mb: {need_mb} or more, or fewer snapshot_levels")
    if profile.source.files:
        raise reader.fail("source.files", "files are named but source.kind is live", "write kind: recording")
    if profile.world == "replay":
        raise reader.fail("world", "replay has no live source", "write world: paper, or source.kind: recording")
    if not profile.symbols:
        raise reader.fail("symbols", "live market data needs symbols", "write at least one, e.g. - name: BTCUSDT")
    if not profile.live.venue:
        raise reader.fail("live.venue", "it is empty", f"write e.g. {DEFAULT.label}")
    seen: set[str] = set()
    for n, endpoint in enumerate(profile.live.endpoints):
        if not endpoint.venue or endpoint.venue in seen:
            problem = f"{endpoint.venue or 'nothing'} again or unnamed"
            raise reader.fail(f"live.endpoints[{n}].venue", problem, "name each venue once")
        seen.add(endpoint.venue)
    names: dict[tuple[str, str], int] = {}
    for n, s in enumerate(profile.symbols):
        key = (s.market or profile.live.venue, s.venue_name or s.name)
        if key in names:
            raise reader.fail(f"symbols[{n}].venue_name", f"{key[1]} is already symbols[{names[key]}]", "name each symbol once")
        names[key] = n


def resolve_markets(profile: Profile) -> Profile:
    """Every symbol with its market, its venue's name, and fees."""
    default = profile.live.venue if profile.source.kind == "live" else DEFAULT.label
    return msgspec.structs.replace(profile, symbols=tuple(symbol.placed(default) for symbol in profile.symbols))


def pin_models(profile: Profile, reader: Reader, pin: Callable[[str], str]) -> Profile:
    """Every model with its version, so that whatever is promoted later changes nothing for this start."""
    texts = {"ml.model": profile.ml.model if profile.ml.enabled else ""}
    texts |= {"features.garch": profile.features.garch, "features.microprice": profile.features.microprice}
    for key, text in texts.items():
        if not text:
            continue
        section, _, name = key.partition(".")
        try:
            told = msgspec.structs.replace(getattr(profile, section), **{name: pin(text)})
        except ValueError as error:
            raise reader.fail(key, str(error), "scalperctl model ls lists the models") from None
        profile = msgspec.structs.replace(profile, **{section: told})
    return profile


def _check_exchange(profile: Profile, reader: Reader) -> None:
    """The table of stages needs numpy: only a profile that names another exchange waits for that."""
    name = profile.pipeline.exchange
    if name == PipelineSettings().exchange or not _runs(profile, "exchange"):
        return
    from procs.topology import EXCHANGE, playing

    known = playing(EXCHANGE)
    if name not in known:
        raise reader.fail("pipeline.exchange", f"no stage {name!r} plays the exchange", "known: " + ", ".join(known))


def _check_placement(profile: Profile, reader: Reader) -> None:
    """A list of groups names every hot stage of this run once, and nothing else."""
    groups = profile.pipeline.placement
    if isinstance(groups, str):
        return
    from procs.topology import STAGE, Run

    placing = msgspec.structs.replace(profile, pipeline=msgspec.structs.replace(profile.pipeline, placement="separate"))
    hot = [stage.name for stage in Run.of(placing).hot]
    seen: dict[str, int] = {}
    for n, group in enumerate(groups):
        if not group:
            raise reader.fail(f"pipeline.placement[{n}]", "the group is empty", "name its stages, or remove it")
        for k, name in enumerate(group):
            key = f"pipeline.placement[{n}][{k}]"
            if name not in hot:
                cold = "has a process of its own" if name in STAGE and not STAGE[name].hot else "is no stage of this run"
                raise reader.fail(key, f"{name!r} {cold}", "stages that can share one: " + ", ".join(hot))
            if name in seen:
                raise reader.fail(key, f"{name} stands in group {seen[name] + 1} already", "name each stage once")
            seen[name] = n
    missing = [name for name in hot if name not in seen]
    if missing:
        problem = f"{', '.join(missing)} {'stand' if len(missing) > 1 else 'stands'} in no group"
        raise reader.fail("pipeline.placement", problem, "name each stage once; a group of one has a process of its own")


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is this machine's alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _check_gateway(profile: Profile, reader: Reader) -> None:
    """An address that others reach is opened to those alone who have the token."""
    gateway = profile.gateway
    if gateway.enabled and not is_loopback(gateway.host) and not gateway.token_file:
        problem = f"{gateway.host} is no loopback address: whoever reaches it could read everything"
        raise reader.fail("gateway.host", problem, "write gateway.token_file: a file (0600) with a word of 16 or more characters")


def _check_learner(profile: Profile, reader: Reader) -> None:
    if not profile.ml.learner.enabled or not _runs(profile, "ml"):
        return
    key = "ml.learner.enabled"
    if profile.world == "replay":
        raise reader.fail(
            key, "a replay runs in virtual time, where the moment at which a model comes would be chance",
            "train with `scalperctl model train`, and name the model in ml.model",
        )  # fmt: skip
    if not profile.ml.enabled:
        raise reader.fail(key, "the learner trains, but ml.enabled is false: nothing would use it", "write ml.enabled: true")
    if not profile.pipeline.journal:
        raise reader.fail(key, "the learner reads the journal, but pipeline.journal is false", "write pipeline.journal: true")


MOST_TICK: Final = 10**9
"""With any lot and a contract of 1, the value of a tick is then counted exactly."""


def _check_symbols(profile: Profile, reader: Reader) -> None:
    if len(profile.symbols) > MAX_SYMBOLS:
        raise reader.fail("symbols", f"{len(profile.symbols)} symbols", f"write at most {MAX_SYMBOLS}")
    seen: dict[str, int] = {}
    for n, s in enumerate(profile.symbols):
        key = f"symbols[{n}]"
        if s.name in seen:
            raise reader.fail(f"{key}.name", f"{s.name} is already symbols[{seen[s.name]}]", "name each symbol once")
        seen[s.name] = n
        sizes = {f: Decimal(getattr(s, f)) for f in ("tick_size", "lot_size", "step_size", "min_qty", "max_qty")}
        for field, size in sizes.items():
            if size <= 0:
                raise reader.fail(f"{key}.{field}", f"{size} is not positive", "write the venue's figure, e.g. 0.01")
        lot = sizes["lot_size"].normalize()
        if lot.as_tuple().digits != (1,) or lot > 1:
            raise reader.fail(f"{key}.lot_size", f"{s.lot_size} is no power of ten up to 1", "write e.g. 0.00000001")
        for field in ("step_size", "min_qty", "max_qty"):
            if sizes[field] % lot:
                raise reader.fail(f"{key}.{field}", f"{sizes[field]} is no multiple of lot_size {s.lot_size}",
                                  "write a multiple, or a smaller lot_size")  # fmt: skip
        if s.contract_size and Decimal(s.contract_size) <= 0:
            raise reader.fail(f"{key}.contract_size", f"{s.contract_size} is not positive", "write the venue's figure, e.g. 100")
        if sizes["step_size"] > MAX_UNITS * lot or sizes["min_qty"] > MAX_UNITS * lot:
            raise reader.fail(f"{key}.lot_size", f"{s.lot_size} is too fine for its step_size and min_qty", "write a coarser one")
        if sizes["tick_size"] > MOST_TICK:
            raise reader.fail(f"{key}.tick_size", f"{s.tick_size} is more than {MOST_TICK}", "write the venue's, e.g. 0.01")
        if decimals_of(s.tick_size) + decimals_of(s.lot_size) + decimals_of(s.contract_size or "1") > 8 + MAX_DECIMALS:
            problem = f"{s.tick_size} is too fine for a lot_size of {s.lot_size}"
            raise reader.fail(f"{key}.tick_size", problem, "write a coarser one")
        if sizes["min_qty"] > sizes["max_qty"]:
            raise reader.fail(f"{key}.min_qty", f"{s.min_qty} is above max_qty {s.max_qty}", "swap the two")


def resolve_files(profile: Profile, reader: Reader, path: Path) -> Profile:
    """Recordings and the journal's folder as absolute paths; each recording must exist and be readable."""

    def absolute(text: str, key: str) -> Path:
        base = Path.cwd() if reader.from_override(key) else path.parent
        return Path(os.path.abspath(base / os.path.expanduser(text)))

    files = []
    for n, text in enumerate(profile.source.files):
        key = f"source.files[{n}]"
        file = absolute(text, key)
        try:
            regular = stat.S_ISREG(file.stat().st_mode)
        except OSError as e:
            raise reader.fail(key, f"{file}: {e.strerror}", "check the path of the recording") from None
        if not regular or not os.access(file, os.R_OK):
            raise reader.fail(key, f"{file} is no readable file", "name a recording file, and check its permissions")
        if str(file) in files:
            raise reader.fail(key, f"{file} is named twice", "name each recording once")
        files.append(str(file))
    source = msgspec.structs.replace(profile.source, files=tuple(files))
    pipeline = profile.pipeline
    if pipeline.journal_dir is not None:
        where = str(absolute(pipeline.journal_dir, "pipeline.journal_dir"))
        pipeline = msgspec.structs.replace(pipeline, journal_dir=where)
    record = profile.record
    if record.folder is not None:
        record = msgspec.structs.replace(record, folder=str(absolute(record.folder, "record.folder")))
    gateway = profile.gateway
    if gateway.token_file is not None:
        gateway = msgspec.structs.replace(gateway, token_file=str(absolute(gateway.token_file, "gateway.token_file")))
    user = []
    for n, one in enumerate(profile.signals.user):
        file = absolute(one.file, f"signals.user[{n}].file")
        if not file.is_file() or not os.access(file, os.R_OK):
            raise reader.fail(f"signals.user[{n}].file", f"{file} is no readable file", "name a file of @signal functions")
        user.append(msgspec.structs.replace(one, file=str(file)))
    signals = msgspec.structs.replace(profile.signals, user=tuple(user))
    return msgspec.structs.replace(profile, source=source, pipeline=pipeline, record=record, signals=signals, gateway=gateway)
