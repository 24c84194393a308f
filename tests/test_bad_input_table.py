"""Every bad input through the public surface: the right exit code, one sentence that names place and remedy, nothing left.

One table. A row says what is wrong, how it is brought about, the words of the command, the exit code, and what the sentence
must name. After each row there is no process, no segment and no file of the run, and no kill switch is latched.
"""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from procs import rundir, topology
from procs.cli.main import main
from procs.cli.outcome import ALREADY_RUNNING, FAILED, NOT_RUNNING, OK, USAGE
from procs.memory import segments as pipeline
from procs.supervision import killswitch
from shm import cleanup
from shm.segment import Segment

ROOT = Path(__file__).resolve().parents[1]
NAME = "bad-input"
SPOT = '{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":%d,"s":"BTCUSDT","U":%d,"u":%d,"b":[["100.01","1.00000000"]],"a":[["100.02","2.00000000"]]}}'  # noqa: E501
USDM = '{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":%d,"T":%d,"s":"BTCUSDT","U":%d,"u":%d,"pu":%d,"b":[["100.0","1.000"]],"a":[["100.1","2.000"]]}}'  # noqa: E501
FIRST_MS = 1_723_161_253_000


def spot_lines(count: int, first: int = 0) -> bytes:
    """Recorded lines of Binance spot."""
    lines = (f"{(FIRST_MS + n) * 1_000_000} " + SPOT % (FIRST_MS + n, n + 1, n + 1) for n in range(first, first + count))
    return ("\n".join(lines) + "\n").encode()


def usdm_lines(count: int) -> bytes:
    """Recorded lines of Binance USD-M."""
    lines = (
        f"{(FIRST_MS + n) * 1_000_000} " + USDM % (FIRST_MS + n, FIRST_MS + n, n + 1, n + 1, n) for n in range(count)
    )
    return ("\n".join(lines) + "\n").encode()


@dataclass
class Places:
    """The folders of one row, and what it needs undone."""

    base: Path
    monkeypatch: pytest.MonkeyPatch
    undo: list[Callable[[], None]] = field(default_factory=list)

    def file(self, name: str, raw: bytes) -> str:
        """A file with these bytes."""
        (self.base / name).write_bytes(raw)
        return str(self.base / name)

    @property
    def shm(self) -> Path:
        """Where segments go."""
        return Path(os.environ["SCALPER_SHM_DIR"])

    def left(self) -> list[str]:
        """What a run should have taken with it: all but its logs, the lock that it held, and folders."""
        found = [path for top in ("r", "s") for path in (self.base / top).rglob("*") if not path.is_dir()]
        journals = list((self.base / "s").rglob("journal/*"))
        kept = ("lock", "supervisor.log", "supervisor.log.1", "zygote.log")
        return sorted(str(path) for path in (*found, *journals) if path.name not in kept) + sorted(
            path.name for path in self.shm.glob("*")
        )


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    """Run, state and shared memory below a folder of the row; the cache of compiled kernels is the user's."""
    for variable in ("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY", "CONFIGURATION_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)
    own = {"XDG_RUNTIME_DIR": "r", "XDG_STATE_HOME": "s", "XDG_CONFIG_HOME": "f", "SCALPER_SHM_DIR": "m"}
    for variable, folder in own.items():
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / folder))
    base = tmp_path / "r" / "scalper"
    monkeypatch.setattr(rundir, "instances", lambda: sorted(e.name for e in base.iterdir()) if base.is_dir() else [])
    monkeypatch.setattr(rundir, "run_dir_candidates", lambda name: [base / rundir.checked_name(name)])
    it = Places(tmp_path, monkeypatch)
    yield it
    while it.undo:
        it.undo.pop()()


Prepare = Callable[[Places], "tuple[str, ...]"]


@dataclass(frozen=True)
class Row:
    """One bad input."""

    what: str
    prepare: Prepare
    code: int
    says: tuple[str, ...]
    stays: tuple[str, ...] = ()  # files of others that must still be there, by the end of their names


def start(*words: str) -> tuple[str, ...]:
    """`start` of our instance."""
    return ("start", "--instance", NAME, "--timeout", "60", *words)


def profile(raw: bytes) -> Prepare:
    """`start` with a profile of these bytes."""
    return lambda places: start("--config", places.file("mine.yaml", raw))


def recording(raw: bytes, name: str = "day.txt") -> Prepare:
    """`start` with a recording of these bytes."""
    return lambda places: start("--recording", places.file(name, raw))


def says(*words: str) -> Prepare:
    """A command that needs nothing prepared."""
    return lambda places: words


SYMBOLS = b"symbols: [{name: BTCUSDT}]\n"

PROFILES = [
    Row("broken YAML", profile(b"risk: {equity: 5\nsymbols: ["), USAGE, ("mine.yaml", ":")),
    Row("a tab for a blank", profile(b"risk:\n\tequity: 5\n"), USAGE, ("mine.yaml:2", "YAML", "indentation")),
    Row("no YAML at all", profile(bytes(range(256))), USAGE, ("mine.yaml",)),
    Row("nothing", profile(b""), USAGE, ("mine.yaml",)),
    Row("a list", profile(b"- 1\n- 2\n"), USAGE, ("mine.yaml",)),
    Row("wrong type", profile(b"risk: {equity: much}\n" + SYMBOLS), USAGE, ("mine.yaml:1", "risk.equity", "write")),
    Row("a mapping for a number", profile(b"risk: {equity: {a: 1}}\n" + SYMBOLS), USAGE, ("mine.yaml:1", "risk.equity")),
    Row("a number for a section", profile(b"risk: 7\n" + SYMBOLS), USAGE, ("mine.yaml:1", "risk")),
    Row("unknown key", profile(b"risk:\n  equty: 5\n" + SYMBOLS), USAGE, ("mine.yaml:2", "equty")),
    Row("unknown section", profile(b"rsk: {}\n" + SYMBOLS), USAGE, ("mine.yaml:1", "rsk")),
    Row("duplicate key", profile(b"instance: a\ninstance: b\n" + SYMBOLS), USAGE, ("mine.yaml:2", "instance")),
    Row("duplicate symbol", profile(b"symbols: [{name: A}, {name: A}]\n"), USAGE, ("mine.yaml", "A")),
    Row("not a number", profile(b"risk: {equity: .nan}\n" + SYMBOLS), USAGE, ("mine.yaml:1", "risk.equity")),
    Row("infinite", profile(b"risk: {equity: .inf}\n" + SYMBOLS), USAGE, ("mine.yaml:1", "risk.equity")),
    Row("out of range", profile(b"risk: {base_risk_pct: 101}\n" + SYMBOLS), USAGE, ("mine.yaml:1", "base_risk_pct")),
    Row("negative", profile(b"risk: {equity: -1}\n" + SYMBOLS), USAGE, ("mine.yaml:1", "risk.equity")),
    Row("thresholds that cross", profile(b"thresholds: {long: 20, short: 80}\n" + SYMBOLS), USAGE, ("mine.yaml", "thresholds")),
    Row("an alias that grows", profile(b"a: &a [1]\nb: [*a, *a]\n" + SYMBOLS), USAGE, ("mine.yaml",)),
    Row("a Python object", profile(b"risk: !!python/object/apply:os.abort []\n" + SYMBOLS), USAGE, ("mine.yaml:1",)),
    Row("no symbols", profile(b"symbols: []\n"), USAGE, ("mine.yaml", "symbols")),
    Row("an instance that is a path", profile(b"instance: ../../etc\n" + SYMBOLS), USAGE, ("mine.yaml:1", "instance")),
    Row("no such profile", says("start", "--config", "nope"), USAGE, ("nope", "paper")),
    Row("no such file", says("start", "--config", "./nope.yaml"), USAGE, ("nope.yaml",)),
    Row("a folder as profile", lambda p: start("--config", str(p.base)), USAGE, ("regular file",)),
]

WORDS = [
    Row("a speed that is none", says(*start("--speed", "quick")), USAGE, ("quick", "max")),
    Row("speed not a number", says(*start("--speed", "nan")), USAGE, ("speed", "number")),
    Row("speed 0", says(*start("--speed", "0")), USAGE, ("speed", "greater than 0")),
    Row("speed negative", says(*start("--speed", "-1")), USAGE, ("speed", "greater than 0")),
    Row("an override without a value", says(*start("--set", "risk.equity")), USAGE, ("KEY=VALUE",)),
    Row("an override of nothing", says(*start("--set", "risk.nothing=1")), USAGE, ("nothing",)),
    Row("an instance that is a path", says("start", "--instance", "../x"), USAGE, ("../x",)),
    Row("restart of nobody", says("restart", "nobody"), USAGE, ("nobody", "recorder")),
    Row("restart when nothing runs", says("restart", "risk"), NOT_RUNNING, ("scalperctl start",)),
    Row("stop when nothing runs", says("stop"), NOT_RUNNING, ("scalperctl start",)),
    Row("stop of another", says("stop", "--instance", NAME), NOT_RUNNING, (NAME, "scalperctl start")),
    Row("status when nothing runs", says("status"), NOT_RUNNING, ("scalperctl start",)),
    Row("report of no run", says("report", "--instance", NAME), NOT_RUNNING, (NAME, "scalperctl")),
    Row("trace of no run", says("trace", "7", "--instance", NAME), NOT_RUNNING, (NAME, "scalperctl")),
    Row("trace in no folder", says("trace", "7", "--journal", "/nowhere/at/all"), FAILED, ("/nowhere/at/all",)),
    Row("trace in an empty folder", lambda p: ("trace", "7", "--journal", str(p.base)), FAILED, ("recorder",)),
    Row("trace of no number", says("trace", "seven"), USAGE, ("seven", "whole number")),
    Row("halt reset without a reason", says("halt", "reset", "--instance", NAME), USAGE, ("--reason",)),
    Row("halt reset with blanks", says("halt", "reset", "--instance", NAME, "--reason", "  "), USAGE, ("--reason",)),
    Row("halt trip without a reason", says("halt", "trip", "--instance", NAME), USAGE, ("--reason",)),
]


def cut_gzip(lines: bytes) -> bytes:
    """A gzip file whose end is missing."""
    return gzip.compress(lines, mtime=0)[:-20]


def folder_as_recording(places: Places) -> tuple[str, ...]:
    """A folder where a file is wanted."""
    (places.base / "folder").mkdir()
    return start("--recording", str(places.base / "folder"))


def other_market(places: Places) -> tuple[str, ...]:
    """The profile says spot, the frames are of USD-M."""
    day = places.file("usdm.txt", usdm_lines(20))
    return start("--recording", day, "--set", "symbols=[{name: BTCUSDT, market: binance_spot}]")


def backtest_of(raw: bytes, name: str = "day.txt") -> Prepare:
    """`backtest` over a recording of these bytes."""
    return lambda places: ("backtest", "--recording", places.file(name, raw))


RECORDINGS = [
    Row("no such recording", says(*start("--recording", "no-such.gz")), USAGE, ("no-such.gz", "path")),
    Row("a folder as recording", folder_as_recording, USAGE, ("folder", "file")),
    Row("an empty recording", recording(b""), USAGE, ("day.txt", "empty")),
    Row("garbage", recording(bytes(range(1, 256)) * 40), USAGE, ("day.txt:", "<recv_ns> {json}")),
    Row("garbage called .gz", recording(b"\x1f\x8b\x08\x00" + bytes(range(256)) * 8, "day.gz"), USAGE, ("day.gz", "gzip")),
    Row("a gzip without its end", recording(cut_gzip(spot_lines(400)), "day.gz"), USAGE, ("day.gz", "in the middle", "fetch")),
    Row("a line without its end", recording(spot_lines(20)[:-30]), USAGE, ("day.txt:20", "ends in the middle")),
    Row("a line without a time", recording(spot_lines(3) + b'{"e":"x"}\n'), USAGE, ("day.txt:4", "receive time")),
    Row("a line without a frame", recording(b"1723161253000000000 hello\n"), USAGE, ("day.txt:1", "{json}")),
    Row("another venue's frames", recording(b'1723161253000000000 {"type":"ticker"}\n' * 9), USAGE, ("day.txt", "no venue")),
    Row("two venues in one file", recording(spot_lines(20) + usdm_lines(20)), USAGE, ("day.txt", "its own file")),
    Row("two symbols in one file", recording(spot_lines(9) + spot_lines(9, 9).replace(b"BTC", b"ETH").replace(b"btc", b"eth")),
        USAGE, ("day.txt:10", "its own file")),  # fmt: skip
    Row("another market than the profile's", other_market, USAGE, ("BTCUSDT", "binance_spot", "`market:`")),
    Row("backtest of garbage", backtest_of(b"garbage\n" * 99), USAGE, ("day.txt:1", "<recv_ns> {json}")),
    Row("backtest of nothing", says("backtest", "--recording", "no-such.gz"), USAGE, ("no-such.gz",)),
]


def full_memory(places: Places) -> tuple[str, ...]:
    """A tmpfs of 4 MB, too small for the rings."""
    tiny = places.base / "tiny"
    tiny.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tiny)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mount refuses a small tmpfs: {done.stderr.strip()}")
    places.undo.append(lambda: subprocess.run(["umount", str(tiny)], check=True) and None)
    places.monkeypatch.setenv("SCALPER_SHM_DIR", str(tiny))
    return start()


def no_memory_folder(places: Places) -> tuple[str, ...]:
    """SCALPER_SHM_DIR names nothing."""
    places.monkeypatch.setenv("SCALPER_SHM_DIR", str(places.base / "gone"))
    return start()


FOREIGN = (
    "import os, sys; from shm.segment import Segment; from procs.memory import segments as pipeline; "
    f"name = pipeline.segment_name({NAME!r}, 'ring.market'); "
    "Segment.create(name, 8192, layout_hash=12345, kind=pipeline.KIND_RING, segment_id=0); "
)


def living_foreign_layout(places: Places) -> tuple[str, ...]:
    """Another program lives on a segment of our name with another layout."""
    owner = subprocess.Popen(
        [sys.executable, "-c", FOREIGN + "print('made', flush=True); sys.stdin.read()"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert owner.stdout is not None and owner.stdout.readline() == b"made\n"
    places.undo.append(lambda: owner.communicate() and None)
    return start()


def foreign_file(places: Places) -> tuple[str, ...]:
    """A file that is no segment has the name of one."""
    (places.shm / f"scalper.{NAME}.ring.market").write_bytes(b"hello")
    return start()


def attached_with_another_layout(places: Places) -> tuple[str, ...]:
    """A board of another version: whoever looks at it is told so."""
    board = Segment.create(pipeline.segment_name(NAME, "board"), 8192, layout_hash=1, kind=pipeline.KIND_BOARD, segment_id=0)
    places.undo.append(lambda: (board.unlink(), board.close()) and None)
    lock = rundir.InstanceLock(NAME)
    places.undo.append(lock.release)
    return ("stats", "--instance", NAME)


def name_taken(places: Places) -> tuple[str, ...]:
    """A pipeline of this name lives."""
    lock = rundir.InstanceLock(NAME)
    places.undo.append(lock.release)
    return start()


def state_is_a_file(places: Places) -> tuple[str, ...]:
    """The state directory cannot be made, not even by root."""
    places.monkeypatch.setenv("XDG_STATE_HOME", places.file("state", b""))
    return start()


def run_is_a_file(places: Places) -> tuple[str, ...]:
    """The run directory cannot be made."""
    places.monkeypatch.setenv("XDG_RUNTIME_DIR", places.file("run", b""))
    return start()


def journals_in_a_file(places: Places) -> tuple[str, ...]:
    """The folder of journals cannot be made."""
    return start("--set", f"pipeline.journal_dir={places.file('journals', b'')}")


MEMORY = [
    Row("a full /dev/shm", full_memory, FAILED, ("tiny", "bytes do not fit", "scalperctl clean")),
    Row("no folder for segments", no_memory_folder, FAILED, ("gone", "SCALPER_SHM_DIR")),
    Row("a living segment of another layout", living_foreign_layout, FAILED, ("ring.market", "living", "instance name"),
        (f"scalper.{NAME}.ring.market",)),  # fmt: skip
    Row("a file with a segment's name", foreign_file, FAILED, ("ring.market", "foreign", "move the file"),
        (f"scalper.{NAME}.ring.market",)),  # fmt: skip
    Row("a board of another version", attached_with_another_layout, FAILED, ("board", "layout", "scalperctl clean"),
        (f"scalper.{NAME}.board",)),  # fmt: skip
    Row("two pipelines of one name", name_taken, ALREADY_RUNNING, (str(os.getpid()), "scalperctl stop")),
    Row("an unwritable state directory", state_is_a_file, FAILED, ("state", "permissions")),
    Row("an unwritable run directory", run_is_a_file, FAILED, ("run", "permissions")),
    Row("an unwritable folder of journals", journals_in_a_file, FAILED, ("journals", "pipeline.journal_dir")),
]

TABLE = [*PROFILES, *WORDS, *RECORDINGS, *MEMORY]


@pytest.mark.parametrize("row", TABLE, ids=[row.what.replace(" ", "-") for row in TABLE])
def test_every_bad_input_is_one_clear_sentence_and_leaves_nothing(
    row: Row, places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code; nothing on stdout; one `scalperctl:` sentence, the last line of stderr; no traceback; and nothing left."""
    words = row.prepare(places)
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    capsys.readouterr()
    code = main(words)
    out, err = capsys.readouterr()
    assert code == row.code, err
    assert out == ""
    assert "Traceback" not in err
    lines = err.splitlines()
    assert [line.startswith("scalperctl: ") for line in lines] == [False] * (len(lines) - 1) + [True], err
    for text in row.says:
        assert text in lines[-1], err
    after = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert after == []
    left = places.left()
    assert [name for name in left if not name.endswith(row.stays or "\0")] == []
    assert len(left) == len(row.stays), "what belongs to others stays"
    if row.code != ALREADY_RUNNING and not (places.base / "state").is_file():
        assert killswitch.status(NAME) is None


def test_what_a_dead_owner_left_with_another_layout_is_swept_by_the_next_start(places: Places) -> None:
    """A leftover of another version does not stand in the way: creating the pipeline removes it."""
    from procs.profiles.config import load_profile
    from procs.supervision.instance import Instance

    subprocess.run([sys.executable, "-c", FOREIGN + "os._exit(0)"], cwd=ROOT, check=True)
    assert [segment.state for segment in cleanup.list_segments(NAME)] == [cleanup.State.DEAD]
    it = Instance(load_profile("paper", {"instance": NAME}), "", None)
    it.create()
    assert len(cleanup.list_segments(NAME)) == len(topology.RINGS) + 1
    it.destroy()
    assert places.left() == []


def test_clean_takes_what_the_dead_left_and_only_that(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    """`clean` removes a dead owner's segment of any layout, and not a foreign file."""
    subprocess.run([sys.executable, "-c", FOREIGN + "os._exit(0)"], cwd=ROOT, check=True)
    stranger = places.shm / f"scalper.{NAME}.ring.depth"
    stranger.write_bytes(b"hello")
    assert main(("clean", "--instance", NAME)) == OK
    out, err = capsys.readouterr()
    assert f"removed /scalper.{NAME}.ring.market" in out and "not ours to remove" in out and err == ""
    assert stranger.read_bytes() == b"hello" and stat.S_ISREG(stranger.stat().st_mode)
