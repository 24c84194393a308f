"""The commands as a user meets them: exit codes, one-sentence errors, JSON, against a supervisor that is a control socket."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from cli_worlds import status_reply

from procs import rundir, topology
from procs.cli import main as cli
from procs.cli.arguments import COMMANDS
from procs.cli.last_run import LastRun, load, save
from procs.cli.main import main
from procs.cli.outcome import ALREADY_RUNNING, FAILED, NOT_RUNNING, OK, UNHEALTHY, USAGE, CliError
from procs.cli.starting import step_of
from procs.memory import board
from procs.memory import segments as pipeline
from procs.memory.segments import Placement
from procs.profiles.config import load_profile, profile_json
from procs.supervision import control
from procs.supervision.instance import Instance
from ringbuf import layout
from trading.own_signals import guard as user_guard
from trading.records import CONTROL_RECORD, Kind
from trading.settings import SignalFiles, UserSignal

ROOT = Path(__file__).resolve().parents[1]
NAME = "cli-test"


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run, state, cache and shared memory below a folder of the test."""
    for variable in ("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY", "CONFIGURATION_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)
    homes = {"XDG_RUNTIME_DIR": "r", "XDG_STATE_HOME": "s", "XDG_CACHE_HOME": "c", "XDG_CONFIG_HOME": "f"}
    for variable, folder in homes.items():
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / folder))
    (tmp_path / "shm").mkdir()
    monkeypatch.setenv("SCALPER_SHM_DIR", str(tmp_path / "shm"))
    monkeypatch.setattr(rundir, "instances", lambda: _names(tmp_path / "r" / "scalper"))
    monkeypatch.setattr(rundir, "run_dir_candidates", lambda name: [tmp_path / "r" / "scalper" / rundir.checked_name(name)])
    return tmp_path


def _names(base: Path) -> list[str]:
    return sorted(entry.name for entry in base.iterdir()) if base.is_dir() else []


class Supervised:
    """A living instance as far as the command line can tell: a lock, a socket with answers, shared memory, a profile."""

    def __init__(self) -> None:
        self.asked: list[control.AnyRequest] = []
        self.status = status_reply(instance=NAME, pid=os.getpid())
        for entry in self.status["stages"]:  # type: ignore[attr-defined]
            entry["pid"] = os.getpid()
        self.memory = pipeline.create(NAME, Placement())
        folder = rundir.run_dir(NAME)
        (folder / "profile.json").write_bytes(profile_json(load_profile("paper", {"instance": NAME})))
        self._lock = rundir.InstanceLock(NAME)
        self._selector = selectors.DefaultSelector()
        self._server = control.ControlServer(folder, self._selector, self._answer)
        self._end_read, self._end_write = os.pipe()
        self._selector.register(self._end_read, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                key.data()

    def _answer(self, message: control.AnyRequest, uid: int, pid: int) -> dict[str, Any]:
        self.asked.append(message)
        match message:
            case control.Status():
                return dict(self.status)
            case control.RestartStage():
                for entry in self.status["stages"]:  # type: ignore[attr-defined]
                    if entry["name"] == message.stage:
                        entry["incarnation"] = 2
                return {"stage": message.stage, "was": 1, "actual": "STARTING"}
            case control.Halt():
                return {"halted": f"halted by uid {uid}: {message.reason}", "unlatched": self.status.get("unlatched")}
            case control.Resume():
                return {"was": "halted by x: y"}
        return {"instance": NAME, "pid": os.getpid(), "phase": "running"}

    def close(self) -> None:
        """End it, as a supervisor ends."""
        os.write(self._end_write, b".")
        self._thread.join()
        self._server.close()
        self._selector.close()
        os.close(self._end_read)
        os.close(self._end_write)
        self._lock.release()
        self.memory.destroy()


@pytest.fixture
def supervised() -> Iterator[Supervised]:
    """A living instance `cli-test`."""
    it = Supervised()
    yield it
    it.close()


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command."""
    capsys.readouterr()
    code = main(words)
    out, err = capsys.readouterr()
    return code, out, err


BAD_WORDS = [
    (("nonsense",), USAGE, "nonsense"),
    (("status", "--no-such-option"), USAGE, "--no-such-option"),
    (("restart", "nobody"), USAGE, "nobody"),
    (("restart",), USAGE, "STAGE"),
    (("status", "--window", "-1"), USAGE, "--window"),
    (("trace", "0"), USAGE, "whole number"),
    (("status",), NOT_RUNNING, "scalperctl start"),
    (("stop",), NOT_RUNNING, "scalperctl start"),
    (("stop", "--instance", "gone"), NOT_RUNNING, "gone"),
    (("top", "--instance", "../etc"), USAGE, "../etc"),
    (("stats",), NOT_RUNNING, "scalperctl demo"),
    (("latency", "--instance", "gone"), NOT_RUNNING, "gone"),
    (("report",), NOT_RUNNING, "scalperctl"),
    (("trace", "1"), NOT_RUNNING, "scalperctl"),
    (("halt", "trip", "--instance", "x"), USAGE, "--reason"),
    (("halt", "status"), USAGE, "--instance"),
    (("start", "--config", "nope"), USAGE, "paper"),
    (("start", "--config", "./nope.yaml"), USAGE, "nope.yaml"),
    (("start", "--config", "replay"), USAGE, "--recording"),
    (("start", "--recording", "no-such-file.gz"), USAGE, "no-such-file.gz"),
    (("start", "--set", "risk.equity"), USAGE, "KEY=VALUE"),
    (("start", "--set", "risk.equity=-5"), USAGE, "risk.equity"),
    (("start", "--set", "risk.unknown=5"), USAGE, "unknown"),
    (("start", "--speed", "quick"), USAGE, "quick"),
    (("start", "--instance", "Not Good"), USAGE, "instance"),
    (("backtest", "--recording", "no-such-file.gz"), USAGE, "no-such-file.gz"),
    (("clean", "--instance", "a/b"), USAGE, "a/b"),
]


@pytest.mark.parametrize(("words", "code", "says"), BAD_WORDS)
def test_every_mistake_is_one_sentence_with_a_remedy(
    words: tuple[str, ...], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The documented exit code, one line on stderr that names place or remedy, nothing on stdout, no traceback."""
    got, out, err = run(capsys, *words)
    assert got == code, err
    assert out == "" and says in err
    assert err.startswith("scalperctl: ") and err.count("\n") == 1


BAD_PROFILES = [
    (b"instance: [", "line 1"),
    (b"instance: a\ninstance: b\n", "instance"),
    (b"symbols: []\n", "symbol"),
    (b"risk: {equity: .nan}\nsymbols: [{name: X}]\n", "risk.equity"),
    (b"no_such_key: 1\n", "no_such_key"),
    (b"\x00\xff\xfe", "mine.yaml"),
    (b"", "mine.yaml"),
]


@pytest.mark.parametrize(("raw", "says"), BAD_PROFILES)
def test_a_bad_profile_is_refused_by_name(raw: bytes, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Broken YAML, repeated and unknown keys, NaN, garbage: exit 2 and a sentence that names file and place."""
    file = tmp_path / "mine.yaml"
    file.write_bytes(raw)
    code, out, err = run(capsys, "start", "--config", str(file))
    assert code == USAGE and out == "" and "mine.yaml" in err and err.count("\n") == 1
    assert says in err or says == "line 1"


def test_help_has_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """Every command's --help shows how it is used and what its exit codes mean."""
    for name in COMMANDS:
        code, out, _ = run(capsys, name, "--help")
        assert code == 0 and f"  scalperctl {name}" in out and "exit codes:" in out


def test_a_defect_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only operating errors become sentences: an assertion that fails still shows its traceback."""

    def broken(args: object) -> int:
        raise AssertionError("a defect")

    monkeypatch.setattr("procs.cli.drawing.version", broken)
    with pytest.raises(AssertionError):
        main(["version"])


def test_errors_are_known_by_their_module() -> None:
    """Every class in the table of operating errors exists, so that none can fall through by a renaming."""
    import importlib

    for module, name, _ in cli.ERRORS:
        assert issubclass(getattr(importlib.import_module(module), name), Exception)
    assert cli.exit_code_of(CliError("x", 7)) == 7
    assert cli.exit_code_of(KeyError("x")) is None
    assert cli.exit_code_of(PermissionError(13, "no", "f")) == FAILED


def test_status_tells_every_process(supervised: Supervised, capsys: pytest.CaptureFixture[str]) -> None:
    """`status --json` has the promised keys, PSS of each process and the sum of it."""
    code, out, err = run(capsys, "status", "--json", "--window", "0.01")
    said = json.loads(out)
    assert code == OK, err
    assert [entry["name"] for entry in said["stages"]] == [stage.name for stage in topology.Run().essential]
    for key in ("instance", "world", "supervisor", "zygote", "total_pss_kb", "cpu_pct_total", "halted"):
        assert key in said
    keys = ("pid", "state", "ready", "incarnation", "restarts", "heartbeat_age_ms", "core", "pss_kb", "cpu_pct")
    assert all(key in entry for entry in said["stages"] for key in keys)
    assert said["supervisor"]["pss_kb"] > 1000 and said["total_pss_kb"] >= said["supervisor"]["pss_kb"]
    assert said["standbys"] == []  # nobody was forked ahead here
    code, out, _ = run(capsys, "status")
    assert code == OK and "supervisor" in out


def test_status_of_a_stage_that_gave_up_is_unhealthy(supervised: Supervised, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 5, and the table says which stage and what to do."""
    supervised.status["stages"][0]["actual"] = "FATAL"  # type: ignore[index]
    code, out, _ = run(capsys, "status", "--window", "0")
    assert code == UNHEALTHY and "was given up" in out


def test_stages_that_share_a_process_count_once(supervised: Supervised, capsys: pytest.CaptureFixture[str]) -> None:
    """The first of them has the memory, the others say with whom they run; a crash is told once, a restart names the process."""
    hot = [stage.name for stage in topology.Run().hot]
    alone = json.loads(run(capsys, "status", "--json", "--window", "0")[1])
    for entry in supervised.status["stages"]:  # type: ignore[attr-defined]
        if entry["name"] in hot:
            entry |= {"process": "hot", "actual": "BACKOFF"}
    code, out, _ = run(capsys, "status", "--json", "--window", "0")
    said = json.loads(out)
    shared = [entry for entry in said["stages"] if entry["process"] == "hot"]
    assert [(entry["name"], entry["with"]) for entry in shared] == [(name, "feed" if name != "feed" else None) for name in hot]
    assert shared[0]["pss_kb"] > 1000 and all(entry["pss_kb"] is entry["cpu_pct"] is None for entry in shared[1:])
    assert code == UNHEALTHY and said["total_pss_kb"] < alone["total_pss_kb"] * 2
    code, out, _ = run(capsys, "status", "--window", "0")
    assert out.count("with feed") == len(hot) - 1 and out.count("hot crashed and waits") == 1
    code, out, _ = run(capsys, "restart", "risk")
    assert code == OK and out.startswith("risk runs again, with all stages of the process hot, as pid")


def test_stats_and_latency_of_the_living(supervised: Supervised, capsys: pytest.CaptureFixture[str]) -> None:
    """Every ring with every reader, every hop, read from the segments without asking anybody."""
    code, out, _ = run(capsys, "stats", "--json", "--window", "0.01")
    said = json.loads(out)
    assert code == OK and said["running"] and len(said["rings"]) == len(topology.Run().rings)
    assert all("rate" in ring for ring in said["rings"])
    code, out, _ = run(capsys, "latency", "--json")
    rows = {(hop["stage"], hop["input"]): hop for hop in json.loads(out)["hops"]}
    assert code == OK and {("features", "market"), ("risk", "quotes"), ("router", "orders")} <= set(rows)
    assert {"meaning", "venue_in", "hop", "origin", "wake", "wait"} <= set(rows["router", "orders"])
    code, out, _ = run(capsys, "latency")
    assert code == OK and all(f"{stage:<8}  {ring}" in out for stage, ring in rows)
    assert supervised.asked == []


def test_top_without_a_terminal_prints_one_frame(supervised: Supervised, capsys: pytest.CaptureFixture[str]) -> None:
    """Into a pipe: one frame, no escape codes."""
    code, out, _ = run(capsys, "top", "--interval", "0.01", "--width", "100")
    assert code == OK and "HEAD (READ)" in out and "BTCUSDT" in out and "\x1b" not in out


def test_top_in_a_terminal_ends_with_q_and_puts_it_back(supervised: Supervised) -> None:
    """A full-screen view on a pseudo-terminal: drawn, ended by one key, the screen and the cursor as they were."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (40, 100))
    before = termios.tcgetattr(theirs)
    command = [sys.executable, "-m", "procs.cli.main", "top", "--instance", NAME, "--interval", "0.1"]
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=environment) as child:
        seen = b""
        while b"HEAD (READ)" not in seen:
            seen += os.read(ours, 65_536)
        os.write(ours, b"q")
        while b"\x1b[?1049l" not in seen:
            seen += os.read(ours, 65_536)
        assert child.wait(120) == OK
    assert seen.startswith(b"\x1b[?1049h\x1b[?25l") and seen.rstrip().endswith(b"\x1b[?25h\x1b[?1049l")
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


def test_restart_waits_for_the_next_incarnation(supervised: Supervised, capsys: pytest.CaptureFixture[str]) -> None:
    """The stage is asked for once, and the command ends when its next process is ready."""
    code, out, _ = run(capsys, "restart", "risk")
    assert code == OK and out.startswith("risk runs again")
    assert [m.stage for m in supervised.asked if isinstance(m, control.RestartStage)] == ["risk"]


def test_halt_goes_to_the_living(supervised: Supervised, capsys: pytest.CaptureFixture[str]) -> None:
    """Trip and reset are the supervisor's to do while it lives."""
    code, out, _ = run(capsys, "halt", "trip", "--reason", "prices look wrong")
    assert code == OK and "prices look wrong" in out
    code, out, _ = run(capsys, "halt", "reset", "--reason", "fixed")
    assert code == OK and "it was halted by x" in out
    assert [type(message).__name__ for message in supervised.asked] == ["Halt", "Resume"]


def test_halt_of_an_instance_that_does_not_run_is_a_latch(capsys: pytest.CaptureFixture[str]) -> None:
    """Set, seen with exit 5, and removed again, all on disk."""
    assert run(capsys, "halt", "trip", "--reason", "no", "--instance", "sleeping")[0] == OK
    code, out, _ = run(capsys, "halt", "status", "--instance", "sleeping", "--json")
    assert code == UNHEALTHY and json.loads(out)["latch"]["reason"] == "no"
    assert run(capsys, "halt", "reset", "--reason", "yes", "--instance", "sleeping")[0] == OK
    assert run(capsys, "halt", "status", "--instance", "sleeping")[0] == OK


def test_a_second_pipeline_of_one_name_is_refused(supervised: Supervised, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 4, naming the pid and the way out, and the first one is untouched."""
    code, out, err = run(capsys, "start", "--instance", NAME)
    assert code == ALREADY_RUNNING and str(os.getpid()) in err and "scalperctl stop" in err and out == ""


def test_clean_leaves_the_living_alone(supervised: Supervised, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of a living pipeline is removed."""
    code, out, _ = run(capsys, "clean", "--json")
    said = json.loads(out)
    assert code == OK and said["removed"] == [] and {s["state"] for s in said["left"]} == {"living"}


def test_the_last_run_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """What a run leaves is read back equal, and `stats` and `latency` speak of it when nothing runs."""
    profile = load_profile("paper", {"instance": "past"})
    import msgspec
    from cli_worlds import HeapMemory

    from procs.cli import figures, latencies

    memory = HeapMemory("past")
    run_ = LastRun(
        instance="past", profile=msgspec.Raw(profile_json(profile)), journal_dir="/nowhere", frames=7, started=1.0, ended=2.0,
        figures=dict(figures.snapshot(memory)), hops=[dict(hop) for hop in latencies.hops(memory.board_words)],  # type: ignore[arg-type]
    )  # fmt: skip
    path = save(run_)
    assert path.stat().st_mode & 0o777 == 0o600
    found = load("past")
    assert found is not None and found.frames == 7 and bytes(found.profile) == profile_json(profile)
    code, out, _ = run(capsys, "stats", "--json")
    assert code == OK and json.loads(out)["instance"] == "past" and not json.loads(out)["running"]
    assert run(capsys, "latency")[0] == OK
    code, _, err = run(capsys, "report")
    assert code == FAILED and "/nowhere" in err
    path.write_bytes(b"{damaged")
    assert load("past") is None


def test_drawings_come_from_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """`topology` in all its forms names every ring."""
    for words in ((), ("--dot",), ("--mermaid",), ("--json",)):
        code, out, _ = run(capsys, "topology", *words)
        assert code == OK
        for ring in topology.RINGS:
            assert ring.name in out or ring.name.startswith(("intake.", "refusals")) or ring.readers == ("recorder",)
    assert len(json.loads(run(capsys, "topology", "--json")[1])["rings"]) == len(topology.RINGS)


def test_looking_imports_no_compiler() -> None:
    """status, stats, latency, top, stop, halt and clean start without numba: their modules import none of it."""
    modules = ["status", "stats", "top", "stopping", "halt", "starting", "drawing", "doctor", "completion", "arguments", "main"]
    program = f"import sys\nfor m in {modules!r}: __import__('procs.cli.' + m)\nprint([m for m in sys.modules if m == 'numba'])"
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]", found.stdout


# ---- the pipeline as the supervisor sees it --------------------------------------------------------------------------


def test_an_instance_makes_and_removes_its_segments(own_places: Path) -> None:
    """create, the words that the supervisor reads and writes, destroy: nothing is left."""
    seen: list[int] = []
    it = Instance(load_profile("paper", {"instance": NAME}), "", None, lambda memory: seen.append(len(memory.segments)))
    it.create()
    assert [stage.name for stage in it.stages] == list(topology.Run().names)
    it.prepare("risk", 3)
    assert not it.ready("risk") and not it.finished("risk") and it.heartbeat("risk") == 0 and it.progress() == 0
    it.request_stop()
    it.destroy()
    assert seen == [len(topology.RINGS) + 1] and list((own_places / "shm").iterdir()) == []


class Heard:
    """A log that remembers its warnings."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **more: Any) -> None:
        """Keep it."""
        self.said.append((event, more))


def test_what_goes_wrong_in_a_users_signal_is_logged(own_places: Path) -> None:
    """A line when the first answer is no finite number and as their count doubles, one when it goes off, and the rest at the end;
    nothing twice."""
    log, own = Heard(), UserSignal(file="/nowhere/mine.py", name="mine")
    profile = msgspec.structs.replace(load_profile("paper", {"instance": NAME}), signals=SignalFiles(user=(own,)))
    it = Instance(profile, "", None, None, log)
    it.create()
    assert it.memory is not None
    guard = board.page(it.memory.board_words, topology.stage_id("features"))[board.USER_GUARD :]
    for count in (0, 1, 1, 2, 3, 3, 4, 5):
        guard[user_guard.NOT_FINITE] = count
        it.heartbeat("features")
    assert [more["not_finite"] for _, more in log.said] == [1, 2, 4]
    guard[user_guard.OFF_AT], guard[user_guard.OFF_WHY], guard[user_guard.FAULTS] = 77, user_guard.WHY_FAULT, 1
    it.heartbeat("features")
    it.heartbeat("features")
    assert len(log.said) == 4 and log.said[-1][0] == "user signal" and log.said[-1][1]["off_from"] == 77
    assert log.said[-1][1]["problem"].startswith("off from record 77 on: its code failed")
    guard[user_guard.NOT_FINITE] = 6
    it.destroy()
    assert len(log.said) == 5 and log.said[-1][1]["not_finite"] == 6
    assert step_of(json.dumps({"event": "user signal", "signal": "mine", "problem": "x"})) == "user signal mine: x"


def test_status_shows_the_users_signals(supervised: Supervised, capsys: pytest.CaptureFixture[str]) -> None:
    """Each by name, as figures and as a sentence; a signal that is off is said, and does not make the pipeline unhealthy."""
    own = (UserSignal(file="/nowhere/mine.py", name="mine"), UserSignal(file="/nowhere/mine.py", name="other"))
    profile = msgspec.structs.replace(load_profile("paper", {"instance": NAME}), signals=SignalFiles(user=own))
    (rundir.run_dir(NAME) / "profile.json").write_bytes(profile_json(profile))
    guard = board.page(supervised.memory.board_words, topology.stage_id("features"))[board.USER_GUARD :]
    guard[user_guard.OFF_AT + 1], guard[user_guard.OFF_WHY + 1] = 4007, user_guard.WHY_STOPPED
    code, out, _ = run(capsys, "status", "--json")
    said = json.loads(out)["user_signals"]
    assert code == OK and [one["name"] for one in said] == ["mine", "other"]
    assert (said[0]["off_from"], said[0]["problem"], said[1]["off_from"]) == (0, "", 4007)
    _, out, _ = run(capsys, "status")
    assert "user signal mine: all is well" in out and "user signal other: off from record 4,007 on: its code did not" in out


def test_a_model_for_a_pipeline_without_models(
    supervised: Supervised, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`model publish` names the setting that is off, and that it takes a new start."""
    from procs.learning import registry

    monkeypatch.setattr(registry, "pinned", lambda name: "edge@1")
    monkeypatch.setattr(registry, "load", lambda name: SimpleNamespace(kind="trees"))
    code, _, err = run(capsys, "model", "publish", "edge", "--instance", NAME)
    assert code == FAILED and f"{NAME} runs without models: start it with ml.enabled: true" in err
    code, _, err = run(capsys, "model", "publish", "edge", "--instance", "gone")
    assert code == NOT_RUNNING and "gone" in err


def test_what_a_dead_run_left_does_not_hinder_the_next(own_places: Path) -> None:
    """Segments of a process that is gone are removed by the next start of that name."""
    program = f"from procs.memory import segments as s; s.create({NAME!r}, s.Placement()); import os; os._exit(0)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
    assert list((own_places / "shm").iterdir())
    it = Instance(load_profile("paper", {"instance": NAME}), "", None)
    it.create()
    it.destroy()
    assert list((own_places / "shm").iterdir()) == []


def test_halt_and_resume_are_records_on_the_control_ring(own_places: Path) -> None:
    """Each word is one record in order; a full ring raises instead of overwriting, so that it is told again."""
    it = Instance(load_profile("paper", {"instance": NAME}), "", None)
    it.create()
    try:
        it.halt("because")
        it.resume("again")
        assert it.memory is not None
        ctl, _, recs = layout.views(it.memory.ring("control"), CONTROL_RECORD)
        assert recs["kind"][:2].tolist() == [Kind.HALT, Kind.RESUME] and recs["seq"][:2].tolist() == [1, 2]
        for _ in range(int(ctl[layout.CAPACITY]) - 2):
            it.halt("because")
        with pytest.raises(BufferError):
            it.halt("one too many")
        assert int(ctl[layout.TAIL]) == int(ctl[layout.CAPACITY]) and np.all(recs["seq"][:-1] > 0)
        del ctl, recs
    finally:
        it.destroy()
