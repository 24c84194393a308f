"""Profiles: what is shipped loads; overrides and paths; every bad input is refused by place, key and remedy."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procs.profiles import relations, schema
from procs.profiles.config import ConfigError, load_profile, parse_override, profile_from_json, profile_json
from procs.profiles.schema import Profile
from procs.profiles.strict_yaml import MAX_ALIASES, MAX_BYTES, MAX_DEPTH
from trading.settings import Weights

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes a profile and returns its path; text or bytes."""

    def to_file(text: str | bytes) -> Path:
        path = tmp_path / "p.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return to_file


GOOD = "symbols:\n  - name: BTCUSDT\n"

BAD: list[tuple[str, str | bytes, int, str, str, str]] = [
    # name, text, line, key, part of the problem, part of the remedy
    ("unknown key", GOOD + "rsik:\n  equity: 1\n", 3, "rsik", "unknown key", "did you mean 'risk'?"),
    ("unknown key below", GOOD + "risk:\n  equty: 1\n", 4, "risk.equty", "unknown key", "did you mean 'equity'?"),
    ("nothing like it", GOOD + "gates:\n  zzz: 1\n", 4, "gates.zzz", "unknown key", "known here: max_spread_bps"),
    ("unknown key of a symbol", "symbols:\n  - nam: BTCUSDT\n", 2, "symbols[0].nam", "unknown key", "did you mean 'name'?"),
    ("repeated key", GOOD + "risk:\n  equity: 1\n  equity: 2\n", 5, "risk.equity", "written twice", "remove one"),
    ("repeated section", GOOD + "risk:\n  equity: 1\nrisk:\n  equity: 2\n", 5, "risk", "written twice", "remove one"),
    ("missing name", "symbols:\n  - tick_size: '0.1'\n", 2, "symbols[0].name", "missing", "write text"),
    ("nan", GOOD + "risk: {equity: .nan}\n", 3, "risk.equity", "not a finite number", "greater than 0"),
    ("NaN in words", GOOD + "risk: {equity: NaN}\n", 3, "risk.equity", "not a finite number", "greater than 0"),
    ("inf", GOOD + "risk: {equity: .inf}\n", 3, "risk.equity", "not a finite number", "greater than 0"),
    ("-inf", GOOD + "thresholds: {long: -.INF}\n", 3, "thresholds.long", "not a finite number", "at most 100"),
    ("overflows to inf", GOOD + "risk: {equity: 1e999}\n", 3, "risk.equity", "not a finite number", "greater than 0"),
    ("number in quotes", GOOD + "risk: {equity: '5'}\n", 3, "risk.equity", "'5' is not a number", "without quotes"),
    (
        "text for a number",
        GOOD + "risk: {equity: lots}\n",
        3,
        "risk.equity",
        "lots is not a number",
        "write a number greater than 0",
    ),
    ("list for a number", GOOD + "risk: {equity: [1]}\n", 3, "risk.equity", "a list is not", "write a number"),
    ("mapping for a number", GOOD + "risk: {equity: {a: 1}}\n", 3, "risk.equity", "a mapping is not", "write a number"),
    ("nothing for a number", GOOD + "risk:\n  equity:\n", 4, "risk.equity", "has no value", "or remove the key"),
    ("empty section", GOOD + "risk:\n", 3, "risk", "has no value", "or remove the key"),
    ("number for a section", GOOD + "risk: 5\n", 3, "risk", "5 is not a mapping", "a mapping of keys"),
    ("list for a section", GOOD + "risk: [1]\n", 3, "risk", "a list is not a mapping", "a mapping of keys"),
    (
        "too high",
        GOOD + "thresholds: {long: 101}\n",
        3,
        "thresholds.long",
        "101 is out of range",
        "at least 0.0 and at most 100.0",
    ),
    ("too low", GOOD + "risk: {equity: 0}\n", 3, "risk.equity", "0 is out of range", "greater than 0"),
    ("negative", GOOD + "weights: {spread: -1}\n", 3, "weights.spread", "-1 is out of range", "at least 0"),
    ("float for an integer", GOOD + "features: {ema_fast: 5.0}\n", 3, "features.ema_fast", "not a whole number", "at least 1"),
    ("integer out of range", GOOD + "features: {ema_fast: 0}\n", 3, "features.ema_fast", "out of range", "at least 1"),
    ("integer beyond int64", GOOD + "exchange: {seed: 9223372036854775808}\n", 3, "exchange.seed", "out of range", "at least 0"),
    ("endless integer", GOOD + f"exchange: {{seed: {'9' * 9000}}}\n", 3, "exchange.seed", "out of range", "at least 0"),
    ("octal", GOOD + "features: {ema_fast: 010}\n", 3, "features.ema_fast", "010 is not a whole number", "write a whole"),
    ("hexadecimal", GOOD + "features: {ema_fast: 0x5}\n", 3, "features.ema_fast", "0x5 is not a whole number", "write a whole"),
    ("sexagesimal", GOOD + "features: {bar_ms: 1:30}\n", 3, "features.bar_ms", "1:30 is not a whole number", "write a whole"),
    ("true for a number", GOOD + "risk: {max_open_orders: true}\n", 3, "risk.max_open_orders", "true is not", "a whole number"),
    ("yes", GOOD + "quoting: {enabled: yes}\n", 3, "quoting.enabled", "yes is not true or false", "write true or false"),
    ("1 for true", GOOD + "quoting: {enabled: 1}\n", 3, "quoting.enabled", "1 is not true or false", "write true or false"),
    ("wrong choice", GOOD + "pipeline: {wait: spn}\n", 3, "pipeline.wait", "spn is not auto or block", "did you mean 'spin'?"),
    ("wrong world", GOOD + "world: live\n", 3, "world", "live is not paper or record or replay", "write paper or"),
    ("live, replayed", GOOD + "world: replay\nsource: {kind: live}\n", 3, "world", "replay has no live source", "write world:"),
    ("record what", GOOD + "world: record\n", 3, "world", "record, but source.kind is generated", "write source.kind: live"),
    ("live files", GOOD + "source: {kind: live, files: [a]}\n", 3, "source.files", "files are named", "kind: recording"),
    ("no such venue", GOOD + "live: {venue: mtgox}\n", 3, "live.venue", "mtgox is not allowed", "binance_spot"),
    ("a snapshot larger than its arena bears", GOOD + "source: {kind: live}\nlive: {snapshot_levels: 5000, arena_mb: 1}\n", 4,
     "live.arena_mb", "5000 levels does not fit into 1 MB", "arena_mb: 2 or more"),
    ("a venue twice", GOOD + "source: {kind: live}\nlive: {endpoints: [{venue: okx}, {venue: okx}]}\n", 4,
     "live.endpoints[1].venue", "okx again", "name each venue once"),
    ("speed 0", GOOD + "source: {speed: 0}\n", 3, "source.speed", "0 is out of range", "greater than 0"),
    ("speed in words", GOOD + "source: {speed: fast}\n", 3, "source.speed", "fast is not max or a number", "write max or"),
    ("speed nan", GOOD + "source: {speed: .nan}\n", 3, "source.speed", "not a finite number", "greater than 0"),
    ("instance", GOOD + "instance: Paper!\n", 3, "instance", "Paper! is not allowed", "a-z"),
    ("instance too long", GOOD + f"instance: {'a' * 25}\n", 3, "instance", "is not allowed", "1,24"),
    ("instance a path", GOOD + "instance: ../x\n", 3, "instance", "../x is not allowed", "a-z"),
    ("instance with a line break", GOOD + 'instance: "a\\n"\n', 3, "instance", "is not allowed", "a-z"),
    ("instance a boolean", GOOD + "instance: true\n", 3, "instance", "true is not text", 'put it in quotes: "true"'),
    ("cores", GOOD + "pipeline: {cores: [0, x]}\n", 3, "pipeline.cores[1]", "x is not a whole number", "write a whole"),
    ("core not here", GOOD + "pipeline: {cores: [65535]}\n", 3, "pipeline.cores[0]", "core 65535 cannot be used", "or auto"),
    ("no cores", GOOD + "pipeline: {cores: []}\n", 3, "pipeline.cores", "the list is empty", "or none"),
    ("cores in words", GOOD + "pipeline: {cores: all}\n", 3, "pipeline.cores", "all is not", "auto or none"),
    ("symbols no list", "symbols: BTCUSDT\n", 1, "symbols", "BTCUSDT is not a list", "write a list"),
    ("symbol in lower case", "symbols: [{name: btcusdt}]\n", 1, "symbols[0].name", "has 'b' as its character 1", "BTCUSD_PERP"),
    ("symbol twice", GOOD + "  - name: BTCUSDT\n", 3, "symbols[1].name", "already symbols[0]", "once"),
    ("tick size 0", "symbols: [{name: A, tick_size: 0.00}]\n", 1, "symbols[0].tick_size", "not positive", "0.01"),
    ("tick size in words", "symbols: [{name: A, tick_size: tiny}]\n", 1, "symbols[0].tick_size", "not allowed", "text that"),
    ("tick size negative", "symbols: [{name: A, tick_size: '-1'}]\n", 1, "symbols[0].tick_size", "not allowed", "text that"),
    ("lot no power of ten", "symbols: [{name: A, lot_size: '0.5'}]\n", 1, "symbols[0].lot_size", "power of ten", "0.00000001"),
    (
        "step no multiple",
        "symbols: [{name: A, lot_size: '0.1'}]\n",
        1,
        "symbols[0]",
        "no multiple of lot_size",
        "smaller lot_size",
    ),
    ("min above max", "symbols: [{name: A, max_qty: '0.000001'}]\n", 1, "symbols[0].min_qty", "is above max_qty", "swap"),
    ("no symbols", "world: paper\n", 1, "symbols", "needs symbols", "- name: BTCUSDT"),
    ("short above long", GOOD + "thresholds:\n  long: 20\n", 4, "thresholds.long", "thresholds.short is 30.0", "must be below"),
    ("short equals long", GOOD + "thresholds: {short: 70}\n", 3, "thresholds.short", "is 70.0 and", "must be below"),
    ("ema crossed", GOOD + "features: {ema_fast: 13}\n", 3, "features.ema_fast", "is 13 and features.ema_slow is 13", "below"),
    ("latency", GOOD + "exchange: {latency: {entry_min_ms: 60}}\n", 3, "exchange.latency.entry_min_ms", "is 60.0 and", "at most"),
    ("backoff", GOOD + "supervisor: {backoff_min_ms: 6000}\n", 3, "supervisor.backoff_min_ms", "is 6000 and", "at most"),
    ("order above position", GOOD + "risk: {max_order_notional: 3e4}\n", 3, "risk.max_order_notional", "is 30000.0", "at most"),
    (
        "no weights",
        GOOD + "weights: {" + ", ".join(f"{k}: 0" for k in Weights.__struct_fields__) + "}\n",
        3,
        "weights",
        "every",
        "above 0",
    ),
    ("recording without files", "source: {kind: recording}\n", 1, "source.files", "at least one file", "--recording FILE"),
    ("files of a generator", GOOD + "source: {files: [a.gz]}\n", 3, "source.files", "kind is generated", "kind: recording"),
    (
        "missing file",
        "source: {kind: recording, files: [no.gz]}\n",
        1,
        "source.files[0]",
        "no.gz: No such file",
        "check the path",
    ),
    ("a folder", "source: {kind: recording, files: [.]}\n", 1, "source.files[0]", "no readable file", "name a recording"),
    ("NUL in a name", 'source: {kind: recording, files: ["a\\0b"]}\n', 1, "source.files[0]", "not allowed", "write text"),
    ("file twice", "source: {kind: recording, files: [p.yaml, ./p.yaml]}\n", 1, "source.files[1]", "named twice", "once"),
    ("tag", GOOD + "risk: !!python/object:os.system {}\n", 3, "", "tag tag:yaml.org,2002:python", "without a tag"),
    ("harmless tag", GOOD + "instance: !!str a\n", 3, "", "tag tag:yaml.org,2002:str is not", "without a tag"),
    ("merge key", GOOD + "risk: &r {equity: 1}\ngates:\n  <<: *r\n", 5, "gates.<<", "merge keys", "write the values out"),
    ("undefined alias", GOOD + "risk: *no\n", 3, "", "undefined alias", "mend the YAML"),
    (
        "many aliases",
        "symbols: &s []\nx: [" + "*s, " * (MAX_ALIASES + 1) + "]\n",
        2,
        "",
        f"more than {MAX_ALIASES} aliases",
        "write",
    ),
    ("deep", "[" * 5000, 1, "", f"deeper than {MAX_DEPTH}", "at most 4"),
    ("key is a list", GOOD + "? [a, b]\n: 1\n", 3, "", "must be a plain word", "known here"),
    ("tab", GOOD + "risk:\n\tequity: 1\n", 4, "", "cannot start any token", "mend the YAML"),
    ("open bracket", GOOD + "risk: {equity: 1\n", 4, "", "flow mapping", "mend the YAML"),
    ("open quote", GOOD + "instance: 'a\n", 4, "", "quoted scalar", "mend the YAML"),
    ("bad indentation", GOOD + "risk:\n  equity: 1\n gates: 2\n", 5, "", "block", "mend the YAML"),
    ("two documents", GOOD + "---\nworld: paper\n", 3, "", "another document", "mend the YAML"),
    ("empty", "", 0, "", "empty", "world: paper"),
    ("only comments", "# nothing\n", 0, "", "empty", "world: paper"),
    ("only text", "hello\n", 1, "", "a profile is a mapping", "world: paper"),
    ("only a list", "- a\n", 1, "", "a profile is a mapping", "world: paper"),
    ("not UTF-8", b"world: paper\nx: \xff\xfe\n", 2, "", "not UTF-8", "save the file as UTF-8"),
    ("NUL bytes", b"world: paper\n\x00\n", 2, "", "is not allowed", "remove it"),
    ("gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00", 1, "", "not UTF-8", "UTF-8"),
    ("too large", b"#" * (MAX_BYTES + 1), 0, "", "bytes long", f"at most {MAX_BYTES}"),
    ("bad escape", GOOD + 'instance: "\\q"\n', 3, "", "unknown escape", "mend the YAML"),
    ("bad directive", "%YAML 9.9.9\n---\na: 1\n", 1, "", "expected", "mend the YAML"),
]


@pytest.mark.parametrize(("name", "text", "line", "key", "problem", "remedy"), BAD, ids=[row[0] for row in BAD])
def test_bad_input(write: Any, name: str, text: str | bytes, line: int, key: str, problem: str, remedy: str) -> None:
    """Each mistake is refused with the file, its line, the dotted key, what is wrong and what to do."""
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        load_profile(path)
    error = caught.value
    assert error.where.startswith(str(path))
    if line:
        assert error.where.removeprefix(str(path)).split(":")[1:2] in ([str(line)], []), error.where
    assert error.key.startswith(key) and bool(error.key) == bool(key), error.key
    assert problem in error.problem, error.problem
    assert remedy in error.remedy, error.remedy
    assert "\n" not in str(error) and all(part in str(error) for part in (error.where, error.problem, error.remedy))


def test_line_and_column(write: Any) -> None:
    """The place is exact, so that an editor can jump there."""
    path = write(GOOD + "risk: {base_risk_pct: 1, equity: -5}\n")
    with pytest.raises(ConfigError) as caught:
        load_profile(path)
    assert caught.value.where == f"{path}:3:34"


def test_shipped_profiles_load(tmp_path: Path) -> None:
    """paper loads as it is; replay needs a recording and says so."""
    paper = load_profile("paper")
    assert paper.instance == "paper" and paper.world == "paper" and paper.source.speed == 1.0
    assert [s.name for s in paper.symbols] == ["BTCUSDT"]
    with pytest.raises(ConfigError, match="--recording FILE"):
        load_profile("replay")
    (tmp_path / "r.gz").touch()
    replay = load_profile("replay", {"source.files": [str(tmp_path / "r.gz")]})
    assert replay.world == "replay" and replay.source.speed == "max" and replay.symbols == ()
    assert replay.source.files == (str(tmp_path / "r.gz"),)


def test_paper_shows_the_defaults() -> None:
    """What paper.yaml writes is the default, but for what its comments call otherwise."""
    paper = load_profile("paper")
    known = {"symbols"}
    for name in Profile.__struct_fields__:
        if name not in known:
            assert getattr(paper, name) == getattr(Profile(), name), name


def test_defaults_satisfy_the_relations() -> None:
    """The relations between limits hold for the defaults themselves."""
    for low, relation, high in relations._BELOW:
        a, b = relations._value(Profile(), low), relations._value(Profile(), high)
        assert a < b if relation == "<" else a <= b, (low, high)


def test_symbols_are_instruments() -> None:
    """SymbolSettings has Instrument's fields, order and defaults (fees: the venue's), and converts."""
    from trading.instruments import Instrument, Market, instrument_table

    ours = {f.name: f.default for f in msgspec.structs.fields(schema.SymbolSettings) if f.name != "venue_name"}
    theirs = {f.name: f.default for f in dataclasses.fields(Instrument)}
    assert list(ours) == list(theirs)
    apart = ("name", "market", "maker_fee_bps", "taker_fee_bps")
    assert {k: v for k, v in ours.items() if k not in apart} == {k: v for k, v in theirs.items() if k not in apart}
    assert ours["maker_fee_bps"] is ours["taker_fee_bps"] is None
    assert schema.SymbolSettings(name="A").instrument() == Instrument("A")
    assert schema.SymbolSettings(name="A", market="binance_usdm").instrument().market is Market.BINANCE_USDM
    assert len(instrument_table(load_profile("paper").instruments())) == 1


def test_decimals_stay_text(write: Any) -> None:
    """An unquoted decimal keeps its digits: it never was a float."""
    profile = load_profile(write("symbols: [{name: A, tick_size: 0.10, min_notional: 5.000}]\n"))
    assert (profile.symbols[0].tick_size, profile.symbols[0].min_notional) == ("0.10", "5.000")


def test_what_is_accepted(write: Any) -> None:
    """Spellings that are fine: underscores, exponents, aliases, a byte order mark, a list of cores."""
    text = "\ufeff" + GOOD + "risk: {equity: 1_000_000, max_position_notional: 2.5e4}\nthresholds: {long: &x 60, short: 40}\n"
    profile = load_profile(write(text + "execution: {market_urgency_threshold: *x}\npipeline: {cores: none}\n"))
    assert profile.risk.equity == 1e6 and profile.risk.max_position_notional == 25_000.0
    assert profile.execution.market_urgency_threshold == 60.0 and profile.pipeline.cores == "none"
    core = min(os.sched_getaffinity(0))
    assert load_profile(write(GOOD + f"pipeline: {{cores: [{core}]}}\n")).pipeline.cores == (core,)


def test_overrides(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Overrides go over the file: dotted or nested, new sections too; the file's other keys stay."""
    path = write(GOOD + "risk: {equity: 5000, base_risk_pct: 2}\n")
    profile = load_profile(path, {"risk.equity": 7, "thresholds": {"long": 80}, "source": {"speed": "max"}, "instance": "x"})
    assert (profile.risk.equity, profile.risk.base_risk_pct) == (7.0, 2.0)
    assert (profile.thresholds.long, profile.source.speed, profile.instance) == (80.0, "max", "x")
    assert load_profile(path, {"exchange.latency.entry_min_ms": 1.5}).exchange.latency.entry_min_ms == 1.5
    assert load_profile(path, {"symbols": [{"name": "ETHUSDT"}]}).symbols[0].name == "ETHUSDT"
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "r.gz").touch()
    monkeypatch.chdir(tmp_path / "here")
    found = load_profile(path, {"source": {"kind": "recording", "files": ["r.gz"]}})
    assert found.source.files == (str(tmp_path / "here" / "r.gz"),)


BAD_OVERRIDES: list[tuple[dict[str, Any], str, str]] = [
    ({"risk.equty": 1}, "risk.equty", "did you mean 'equity'?"),
    ({"risk.equity": "much"}, "risk.equity", "write a number"),
    ({"risk.equity": float("nan")}, "risk.equity", "write a number"),
    ({"risk.equity": None}, "risk.equity", "remove the key"),
    ({"risk": 5}, "risk", "a mapping of keys"),
    ({"risk.equity.x": 5}, "risk.equity", "write a number"),
    ({"thresholds.long": 10}, "thresholds.long", "must be below"),
    ({"source": {"kind": "recording", "files": ["none.gz"]}}, "source.files[0]", "check the path"),
    ({"instance": object()}, "instance", "give text"),
    ({"": 1}, "", "known here"),
]


@pytest.mark.parametrize(("overrides", "key", "remedy"), BAD_OVERRIDES)
def test_bad_overrides(write: Any, overrides: dict[str, Any], key: str, remedy: str) -> None:
    """A wrong override is refused by its key; the place says that it was an override."""
    with pytest.raises(ConfigError) as caught:
        load_profile(write(GOOD), overrides)
    assert caught.value.key == key and caught.value.where == "override"
    assert remedy in caught.value.remedy, caught.value


def test_parse_override(write: Any) -> None:
    """KEY=VALUE of the command line: the schema decides what an unquoted value is."""
    path = write(GOOD)
    texts = ["risk.equity=5_000", "quoting.enabled=false", "source.speed=max", 'instance="a"', "features.ema_slow=20"]
    profile = load_profile(path, dict(map(parse_override, [*texts, "symbols=[{name: ETHUSDT, tick_size: 0.10}]"])))
    assert (profile.risk.equity, profile.quoting.enabled, profile.source.speed) == (5000.0, False, "max")
    assert (profile.instance, profile.features.ema_slow) == ("a", 20)
    assert (profile.symbols[0].name, profile.symbols[0].tick_size) == ("ETHUSDT", "0.10")
    for text in ("risk.equity", "=5", "risk.equity=[", "risk.equity=!!int 5"):
        with pytest.raises(ConfigError):
            parse_override(text)


def test_profiles_by_name_and_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked up in the user's folder, then among the shipped; an unknown one lists what there is."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("CONFIGURATION_DIRECTORY", raising=False)
    (tmp_path / "scalper").mkdir()
    (tmp_path / "scalper" / "mine.yaml").write_text(GOOD + "instance: mine\n")
    assert load_profile("mine").instance == "mine"
    with pytest.raises(ConfigError, match=r"profile 'nosuch': no such profile; known: .*mine.*paper.*replay"):
        load_profile("nosuch")
    for bad in ("", "a\0b"):
        with pytest.raises(ConfigError):
            load_profile(bad)
    with pytest.raises(ConfigError, match="No such file"):
        load_profile("./nosuch.yaml")
    with pytest.raises(ConfigError, match="not a regular file"):
        load_profile(tmp_path)
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="not a regular file"):
        load_profile(tmp_path / "pipe.yaml")


def test_profile_survives_json() -> None:
    """What a stage reads from the zygote equals what the supervisor loaded."""
    paper = load_profile("paper", {"source.speed": "max", "pipeline.cores": [min(os.sched_getaffinity(0))]})
    assert profile_from_json(profile_json(paper)) == paper


def test_profile_is_immutable() -> None:
    """Nobody changes a loaded profile."""
    with pytest.raises(AttributeError):
        Profile().risk.equity = 5.0  # type: ignore[misc]


def test_loading_imports_neither_numpy_nor_numba() -> None:
    """The supervisor and the command line stay small: a profile is loaded without the heavy libraries."""
    code = "import sys; from procs.profiles.config import load_profile; load_profile('paper')"
    code += "; import procs.supervision.supervisor; print([m for m in ('numpy', 'numba', 'llvmlite') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert out.stdout.strip() == "[]"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    """Any bytes: a profile or a ConfigError, nothing else."""
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(raw)
    try:
        assert isinstance(load_profile(path), Profile)
    except ConfigError as e:
        assert str(path) in e.where


YAML_WORDS = st.sampled_from(
    r"""risk equity : - [ ] { } &a *a ! ' " | > % 5 symbols name A # ? , << --- null .nan thresholds""".split()
    + [" ", "\n", "\t", "- ", "  "]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(YAML_WORDS, max_size=30))
def test_any_yaml_like_text(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    """Any order of YAML's own signs: a profile or a ConfigError, nothing else."""
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text("".join(words))
    try:
        assert isinstance(load_profile(path), Profile)
    except ConfigError as e:
        assert str(path) in e.where
