"""Profiles: one YAML file says everything that an instance of the pipeline is told; this module loads and checks it.

`load_profile("paper")` finds a shipped (or the user's own) profile by name, `load_profile("./mine.yaml")` a file.
Types, ranges and unknown keys are refused by procs.profiles.strict_yaml with file, line, column, key and remedy; what only
holds between keys (short below long, files that exist) is checked here. Neither numpy nor numba is imported: the
supervisor and the command line stay small and start at once.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from procs.profiles.strict_yaml import MAX_BYTES, ConfigError, Reader, compose, overlay, value_node
from sim.settings import Generator, SimulatedExchange
from trading.settings import Section, Strategy

if TYPE_CHECKING:
    from trading.instruments import Instrument

__all__ = [
    "ConfigError", "PipelineSettings", "Profile", "SourceSettings", "SupervisorSettings", "SymbolSettings",
    "find_profile", "load_profile", "parse_override", "profile_from_json", "profile_json", "profile_names",
]  # fmt: skip

SHIPPED: Final = Path(__file__).resolve().parent.parent.parent / "config"
"""Beside procs/ both in a checkout and in site-packages (the wheel installs config/*.yaml as package data)."""

NAME_PATTERN: Final = r"^[a-z0-9_-]{1,24}\Z"
MAX_SYMBOLS: Final = 64

MARKET_PATTERN: Final = r"^(|binance_spot|binance_usdm|bybit|okx|kraken|coinbase|deribit|ccxt:[a-z0-9_]{2,32})\Z"
"""Where a symbol is traded: a venue with a decoder of its own, or any that ccxt.pro speaks to."""

DecimalText = Annotated[str, Meta(pattern=r"^[0-9]{1,15}(\.[0-9]{1,15})?\Z")]
Count = Annotated[int, Meta(ge=0, le=100_000_000)]
Millis = Annotated[int, Meta(ge=1, le=3_600_000)]
FeeBps = Annotated[float, Meta(ge=-100.0, le=1000.0)]


class SymbolSettings(Section, frozen=True):
    """One symbol; the fields of trading.instruments.Instrument (a test holds the two together)."""

    name: Annotated[str, Meta(pattern=r"^[A-Z0-9]{1,24}\Z")]
    market: Annotated[str, Meta(pattern=MARKET_PATTERN)] = ""  # "": the venue of `live`, else binance_spot
    venue_name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9/:_.-]{0,48}\Z")] = ""  # how the venue writes it; "": as `name`
    tick_size: DecimalText = "0.01"
    lot_size: DecimalText = "0.00000001"
    step_size: DecimalText = "0.00001"
    min_qty: DecimalText = "0.00001"
    max_qty: DecimalText = "9000"
    min_notional: DecimalText = "5"
    maker_fee_bps: FeeBps = 10.0
    taker_fee_bps: FeeBps = 10.0
    make_market: bool = True
    take_signals: bool = True

    def instrument(self) -> Instrument:
        """The same as an Instrument. Imports trading.instruments, thus numba: only stages call this."""
        from trading.instruments import Instrument, Market

        fields = msgspec.structs.asdict(self)
        del fields["venue_name"]
        fields["market"] = Market[(self.market or "binance_spot").partition(":")[0].upper()]
        return Instrument(**fields)


class SourceSettings(Section, frozen=True):
    """Where market data comes from. `speed` 1 is the recorded pace; "max" as fast as it goes."""

    kind: Literal["generated", "recording", "live"] = "generated"
    files: tuple[str, ...] = ()
    speed: Literal["max"] | Annotated[float, Meta(gt=0.0, le=1_000_000.0)] = 1.0


Url = Annotated[str, Meta(pattern=r"^(|(wss?|https?)://[^\s/?#]+(/[^\s?#]*)?)\Z")]
Seconds = Annotated[float, Meta(gt=0.0, le=86_400.0)]


class EndpointSettings(Section, frozen=True):
    """Other addresses for one venue: a test network, a proxy, or `scalperctl venue`."""

    venue: Annotated[str, Meta(pattern=MARKET_PATTERN)]
    stream: Url = ""
    rest: Url = ""


class LiveSettings(Section, frozen=True):
    """Real venues' market data: where from, which streams, how carefully. Limits of the venue itself are in its module."""

    venue: Annotated[str, Meta(pattern=MARKET_PATTERN)] = "binance_spot"  # of symbols that name no market
    endpoints: tuple[EndpointSettings, ...] = ()  # addresses that replace a venue's own
    lines: Annotated[int, Meta(ge=1, le=2)] = 1  # 2: every stream twice, whichever is first counts
    trade: bool = True
    bbo: bool = True
    mark: bool = False
    depth_interval_ms: Annotated[int, Meta(ge=0, le=1000)] = 100  # one of DEPTH_INTERVALS_MS
    snapshot_levels: Annotated[int, Meta(ge=5, le=5000)] = 1000
    transport: Literal["auto", "picows", "websockets"] = "auto"
    rotate_hours: Annotated[float, Meta(gt=0.0, le=24.0)] = 23.0  # a connection is replaced before the venue ends it
    backoff_min_ms: Annotated[int, Meta(ge=10, le=60_000)] = 250
    backoff_max_ms: Annotated[int, Meta(ge=10, le=600_000)] = 30_000
    silence_timeout_s: Seconds = 60.0
    rest_weight_share: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.5  # of the venue's budget a minute that we may use
    resyncs_per_minute: Annotated[int, Meta(ge=1, le=600)] = 30
    clock_interval_s: Seconds = 60.0
    arena_mb: Annotated[int, Meta(ge=1, le=1024)] = 16
    fetch_rules: bool = True  # ticks, lots and limits of the symbols from the venue, over what the profile says


class RecordSettings(Section, frozen=True):
    """What `record` (and a live pipeline with `raw: true`) keeps of the wire."""

    raw: bool = False
    folder: str | None = None  # None: below the instance's state directory
    rotate_minutes: Annotated[float, Meta(gt=0.0, le=1440.0)] = 60.0
    rotate_mb: Annotated[int, Meta(ge=1, le=100_000)] = 512
    flush_s: Annotated[float, Meta(gt=0.0, le=60.0)] = 1.0  # longest time that a frame waits for the disk
    sync: Literal["never", "flush", "rotate"] = "rotate"  # when fsync is called
    level: Annotated[int, Meta(ge=1, le=9)] = 6  # of gzip


class PipelineSettings(Section, frozen=True):
    """How processes wait, checkpoint, and use the machine."""

    wait: Literal["auto", "spin", "yield", "block"] = "auto"
    spin_iterations: Count = 8  # idle polls before a blocking stage sleeps; more only pays with a core a stage
    checkpoint_every: Annotated[int, Meta(ge=1, le=1024)] = 256  # records between two checkpoints of a stage
    cores: Literal["auto", "none"] | tuple[Annotated[int, Meta(ge=0, le=65_535)], ...] = "auto"
    numa: bool = True
    huge_pages: bool = False
    lock_memory: bool = False
    journal: bool = True
    journal_vectors: bool = False  # the feature vectors too: half a kilobyte a market record
    journal_dir: str | None = None  # None: below the instance's state directory


class SupervisorSettings(Section, frozen=True):
    """Restart intensity, back-off, and how long silence is borne."""

    max_restarts: Annotated[int, Meta(ge=0, le=1_000_000)] = 10  # of one stage within window_s; one more is a crash loop
    window_s: Annotated[float, Meta(gt=0.0, le=86_400.0)] = 60.0
    backoff_min_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 100
    backoff_max_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 5000
    heartbeat_timeout_ms: Annotated[int, Meta(ge=50, le=3_600_000)] = 2000
    start_timeout_ms: Millis = 20_000  # from spawn to ready
    stop_timeout_ms: Millis = 10_000  # for END to run through all stages


HostName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.:-]{0,252})\Z|^::1?\Z")]


class GatewaySettings(Section, frozen=True):
    """The read-only HTTP gateway (extra `web`). It answers only requests that were made to a name that it knows."""

    enabled: bool = False  # not started in world record
    host: HostName = "127.0.0.1"  # address to listen on
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8000  # 0: any free one, named in its log
    hosts: tuple[HostName, ...] = ()  # names besides loopback's that Host and Origin may have
    stale_after_ms: Millis = 10_000  # older market data is answered with 503


class Profile(Strategy, frozen=True):
    """Everything that an instance is told. The strategy's sections stand at the top level."""

    instance: Annotated[str, Meta(pattern=NAME_PATTERN)] = "paper"
    world: Literal["paper", "replay", "record"] = "paper"
    source: SourceSettings = SourceSettings()
    symbols: tuple[SymbolSettings, ...] = ()
    exchange: SimulatedExchange = SimulatedExchange()
    generator: Generator = Generator()
    live: LiveSettings = LiveSettings()
    record: RecordSettings = RecordSettings()
    pipeline: PipelineSettings = PipelineSettings()
    supervisor: SupervisorSettings = SupervisorSettings()
    gateway: GatewaySettings = GatewaySettings()

    def instruments(self) -> tuple[Instrument, ...]:
        """The symbols as Instruments, in order (imports numba; see SymbolSettings.instrument)."""
        return tuple(s.instrument() for s in self.symbols)




def profile_json(profile: Profile) -> bytes:
    """The profile for another process; `profile_from_json` reads it back equal."""
    return msgspec.json.encode(profile)


def profile_from_json(raw: bytes | str) -> Profile:
    """The profile that `profile_json` wrote. Raises msgspec.DecodeError for anything else."""
    return msgspec.json.decode(raw, type=Profile)


def _own_places() -> list[Path]:
    """Where users keep profiles of their own; these go before the shipped ones."""
    places = [Path(p) for p in os.environ.get("CONFIGURATION_DIRECTORY", "").split(":") if p]
    home = os.environ.get("XDG_CONFIG_HOME")
    places.append((Path(home) if home else Path.home() / ".config") / "scalper")
    places.append(Path("/etc/scalper"))
    return places


def profile_names() -> dict[str, Path]:
    """Every profile that can be named, with its file."""
    found: dict[str, Path] = {}
    for place in [*_own_places(), SHIPPED]:
        try:
            for file in sorted(place.glob("*.yaml")):
                found.setdefault(file.stem, file)
        except OSError:
            continue
    return found


def find_profile(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of a profile: text with a slash or a suffix .yaml/.yml is a path, all else a name."""
    text = os.fspath(name_or_path)
    if not text or "\0" in text:
        raise ConfigError("profile", "", f"{text!r} names no profile", "give a name such as paper, or a path")
    if "/" in text or text.endswith((".yaml", ".yml")) or isinstance(name_or_path, Path):
        return Path(os.path.expanduser(text))
    known = profile_names()
    if text not in known:
        raise ConfigError(f"profile {text!r}", "", "no such profile",
                          "known: " + ", ".join(sorted(known)) + "; a path is written with a slash, as ./mine.yaml")  # fmt: skip
    return known[text]


def _bytes_of(path: Path) -> bytes:
    try:
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(str(path), "", "not a regular file", "give the path of a YAML file")
            return file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise ConfigError(str(path), "", "not a regular file", "give the path of a YAML file") from None
    except OSError as e:
        raise ConfigError(str(path), "", f"cannot be read ({e.strerror})", "check the path and its permissions") from None


def parse_override(text: str) -> tuple[str, Any]:
    """`risk.equity=5000` into ("risk.equity", 5000): the value is read as YAML, for the command line's overrides."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError("override", key, f"{text!r} is not KEY=VALUE", "write e.g. risk.equity=5000")
    node = compose(b"v: " + value.encode("utf-8", "replace"), f"override {key}").value[0][1]

    def plain(n: Any) -> Any:
        if isinstance(n.value, list):
            if n.value and isinstance(n.value[0], tuple):
                return {str(k.value): plain(v) for k, v in n.value}
            return [plain(v) for v in n.value]
        return n.value if n.style else _Plain(n.value)

    return key.strip(), plain(node)


class _Plain(str):
    """Text of an unquoted override: the schema decides what it is."""


def load_profile(name_or_path: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> Profile:
    """The checked profile.

    `overrides` maps keys (dotted, `{"risk.equity": 5000}`, or nested) to values and goes over the file; paths in it
    are relative to the working directory, paths in the file to the file. Raises ConfigError.
    """
    path = find_profile(name_or_path)
    root = compose(_bytes_of(path), str(path))
    reader = Reader(str(path))
    kind = msgspec.inspect.type_info(Profile)
    reader.read(root, kind, "")  # the file must be right by itself: an override cannot hide its mistakes
    for key, value in (overrides or {}).items():
        overlay(root, key, _node(value, key))
    reader = Reader(str(path))
    profile: Profile = reader.read(root, kind, "")
    _check_relations(profile, reader)
    if profile.world == "record" and profile.source.kind != "live":
        raise reader.fail("world", f"record, but source.kind is {profile.source.kind}", "write source.kind: live")
    _check_symbols(profile, reader)
    _check_learner(profile, reader)
    return _resolve_files(_resolve_models(_resolve_markets(profile), reader), reader, path)


def _node(value: Any, key: str) -> Any:
    node: Any = value_node(value, key)
    if isinstance(value, _Plain):
        node.style = None  # plain
    elif isinstance(value, (list, tuple)):
        node.value = [_node(v, f"{key}[{i}]") for i, v in enumerate(value)]
    elif isinstance(value, Mapping):
        node.value = [(k, _node(v, f"{key}.{k.value}")) for (k, _), v in zip(node.value, value.values(), strict=True)]
    return node


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
)
"""Relations between limits; each is asserted of the defaults by a test."""


def _value(profile: Profile, key: str) -> Any:
    value: Any = profile
    for word in key.split("."):
        value = getattr(value, word)
    return value


def _check_relations(profile: Profile, reader: Reader) -> None:
    for low, relation, high in _BELOW:
        a, b = _value(profile, low), _value(profile, high)
        if not (a < b if relation == "<" else a <= b):
            # blame the one that the user wrote; of two, the second
            key = high if high in reader.places else low
            word = "below" if relation == "<" else "at most"
            raise reader.fail(key, f"{low} is {a} and {high} is {b}", f"{low} must be {word} {high}")
    if not any(msgspec.structs.astuple(profile.weights)) and not any(one.weight for one in profile.signals.user):
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
        raise reader.fail("live.venue", "it is empty", "write e.g. binance_spot")
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


def _resolve_markets(profile: Profile) -> Profile:
    """Every symbol with its market and its venue's name."""
    default = profile.live.venue if profile.source.kind == "live" else "binance_spot"
    symbols = tuple(
        msgspec.structs.replace(s, market=s.market or default, venue_name=s.venue_name or s.name) for s in profile.symbols
    )
    return msgspec.structs.replace(profile, symbols=symbols)


def _resolve_models(profile: Profile, reader: Reader) -> Profile:
    """Every model with its version, so that whatever is promoted later changes nothing for this start."""
    texts = {"ml.model": profile.ml.model if profile.ml.enabled else ""}
    texts |= {"features.garch": profile.features.garch, "features.microprice": profile.features.microprice}
    for key, text in texts.items():
        if not text:
            continue
        from procs.learning.extras import LearningError
        from procs.learning.registry import all_pinned

        section, _, name = key.partition(".")
        try:
            told = msgspec.structs.replace(getattr(profile, section), **{name: all_pinned(text)})
        except LearningError as error:
            raise reader.fail(key, str(error), "scalperctl model ls lists the models") from None
        profile = msgspec.structs.replace(profile, **{section: told})
    return profile


def _check_learner(profile: Profile, reader: Reader) -> None:
    if not profile.ml.learner.enabled:
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
        if sizes["min_qty"] > sizes["max_qty"]:
            raise reader.fail(f"{key}.min_qty", f"{s.min_qty} is above max_qty {s.max_qty}", "swap the two")


def _resolve_files(profile: Profile, reader: Reader, path: Path) -> Profile:
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
    user = []
    for n, one in enumerate(profile.signals.user):
        file = absolute(one.file, f"signals.user[{n}].file")
        if not file.is_file() or not os.access(file, os.R_OK):
            raise reader.fail(f"signals.user[{n}].file", f"{file} is no readable file", "name a file of @signal functions")
        user.append(msgspec.structs.replace(one, file=str(file)))
    signals = msgspec.structs.replace(profile.signals, user=tuple(user))
    return msgspec.structs.replace(profile, source=source, pipeline=pipeline, record=record, signals=signals)
