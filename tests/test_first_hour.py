"""What somebody meets in the first hour: progress that is seen, hints to paste, near words, help, journals that can go."""

from __future__ import annotations

import io
import json
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from cli_worlds import HeapMemory

from procs import rundir, topology
from procs.cli import arrival, backtesting, journals, last_run, pace, running
from procs.cli.arguments import COMMANDS
from procs.cli.figures import snapshot
from procs.cli.guide import GROUPS, short
from procs.cli.latencies import headline, hops, kept
from procs.cli.main import main
from procs.cli.outcome import FAILED, OK, USAGE, CliError
from procs.cli.progress import PATIENT_S, Progress
from procs.cli.stats import lay_out_hops, lay_out_stats
from procs.cli.table import paint_for, plain, visible
from procs.cli.tracing import _last
from procs.cli.view import ring_row
from procs.journal.file import JournalWriter, journal_path
from procs.memory import board
from procs.profiles.config import load_profile, profile_json
from ringbuf.layout import FULL_STALLS
from shm import histogram
from trading.records import ORDER_RECORD, Kind


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run, state and configuration below a folder of the test."""
    for variable in ("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY", "CONFIGURATION_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        (tmp_path / variable).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setattr(rundir, "SYSTEM_STATE", tmp_path / "nobody")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command."""
    capsys.readouterr()
    code = main(words)
    out, err = capsys.readouterr()
    return code, out, err


# ---- progress ---------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def test_progress_in_a_pipe_is_a_line_every_few_seconds() -> None:
    """Steps stand there at once; what changes all the time comes every PATIENT_S seconds, not before the first of them."""
    out, clock = io.StringIO(), Clock()
    note = Progress(out, clock=clock)
    note("reading")
    note("reading")
    for n in range(30):
        note.now(f"{n} s")
        clock.now += 1.0
    note.end()
    lines = out.getvalue().splitlines()
    assert lines == ["reading", *(f"{n} s" for n in range(int(PATIENT_S), 30, int(PATIENT_S)))]
    quick = io.StringIO()
    Progress(quick, clock=clock).now("3 %")
    assert quick.getvalue() == ""


def test_progress_on_a_terminal_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text is written over the one before, cut to the terminal's width, and the line is cleared at the end."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "20")
    out, clock = Terminal(), Clock()
    note = Progress(out, clock=clock)
    note("a step")
    note.now("too early")
    clock.now += 1.0
    note.now("a text that is wider than twenty columns")
    note.end()
    assert out.getvalue() == "\r\x1b[Ka step\r\x1b[Ka text that is wid…\r\x1b[K"


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """TERM=dumb knows no escape codes; NO_COLOR takes the colours of a terminal that does."""
    monkeypatch.setenv("TERM", "dumb")
    out = Terminal()
    Progress(out)("a step")
    assert out.getvalue() == "a step\n" and paint_for(out)("x", "red") == "x"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert paint_for(out)("x", "red") != "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint_for(out)("x", "red") == "x"


def test_what_takes_long_in_silence_counts_its_seconds() -> None:
    """While the body runs, lines with the time so far come from beside it; none after it has ended."""
    seen = threading.Event()

    class Out(io.StringIO):
        def write(self, text: str) -> int:
            if ", " in text:
                seen.set()
            return super().write(text)

    out = Out()
    with Progress(out).working("kernels 1/6: feed", every_s=0.001):
        assert seen.wait(60)
    assert out.getvalue().startswith("kernels 1/6: feed\nkernels 1/6: feed, 1 s\n")
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_a_stream_that_is_gone_does_not_end_the_work() -> None:
    """A closed stderr is nobody who looks."""
    out = io.StringIO()
    note = Progress(out)
    out.close()
    note("a step")
    note.end()


# ---- the backtest's beginning and end ---------------------------------------------------------------------------------


def wish(**more: Any) -> Any:
    """A command line of `backtest`."""
    return SimpleNamespace(**{"config": None, "recording": None, "set": None, "instance": None, **more})


def test_a_backtest_without_an_end_gets_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Without arguments ten minutes are simulated, which is said with the way to change it; who names a span gets that."""
    assert backtesting.profile_of(wish()).generator.duration_s == backtesting.SPAN_S
    said = capsys.readouterr().err
    assert "10 min of it are simulated" in said and "--set generator.duration_s=SECONDS" in said
    assert backtesting.profile_of(wish(set=["generator.duration_s=20"])).generator.duration_s == 20
    assert capsys.readouterr().err == ""


def test_a_live_market_is_no_backtest() -> None:
    """One sentence with the remedy, instead of a run that waits for frames for ever."""
    with pytest.raises(CliError, match="give --recording FILE") as error:
        backtesting.profile_of(wish(config="live-paper"))
    assert error.value.code == USAGE


def test_the_first_ctrl_c_asks_and_the_second_ends() -> None:
    """The first is a question that the run looks at after each round; the second is the interrupt that it always was; afterwards
    the handler is as before."""
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), backtesting.ended_by_ctrl_c() as asked:
        assert not asked()
        signal.raise_signal(signal.SIGINT)
        assert asked()
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


# ---- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (("strat",), "start"),
        (("bakctest",), "backtest"),
        (("status", "--wndow", "3"), "--window"),
        (("start", "--instnace=x"), "--instance"),
        (("data", "chekc", "x"), "check"),
        (("data", "ls", "--jsn"), "--json"),
        (("bench", "rng"), "ring"),
        (("model", "train", "x", "--kind", "tres"), "trees"),
        (("restart", "rsik"), "risk"),
        (("start", "--config", "papr"), "paper"),
        (("start", "--set", "rsik.equity=3"), "risk"),
        (("start", "--set", "risk.equty=3"), "equity"),
        (("start", "--set", "source.kind=recordng"), "recording"),
        (("start", "--set", "live.venue=binance_spt"), "binance_spot"),
        (("venue", "--fault", "drp:p=1"), "drop"),
        (("help", "strat"), "start"),
    ],
)
def test_a_near_word_is_suggested(words: tuple[str, ...], near: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Commands, parts, options, choices, profiles, keys and kinds: one sentence that asks whether the near one was meant."""
    code, out, err = run(capsys, *words)
    assert code == USAGE and out == "" and err.count("\n") == 1
    assert "did you mean" in err and near in err.split("did you mean")[1]


def test_a_word_like_none_gets_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing is near, the choices are told."""
    code, _, err = run(capsys, "bench", "zzzzzz")
    assert code == USAGE and "did you mean" not in err and "'pipeline'" in err


def test_the_guide_has_every_command_once(capsys: pytest.CaptureFixture[str]) -> None:
    """`scalperctl` alone and `help` print it, 80 columns wide; `help COMMAND` is its --help; --version is `version`."""
    assert sorted(name for _, names in GROUPS for name in names) == sorted(COMMANDS)
    assert max(map(len, short())) <= 80
    assert run(capsys) == run(capsys, "help") == (OK, "\n".join(short()) + "\n", "")
    for name in COMMANDS:
        assert run(capsys, "help", name) == run(capsys, name, "--help")
    assert run(capsys, "--version") == run(capsys, "version") and run(capsys, "--version")[1].startswith("scalper ")


def test_hints_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    """A hint names the instance where it is not the default one."""
    assert running.command_for("paper", "top") == "scalperctl top"
    assert running.command_for("second", "top") == "scalperctl top --instance second"
    for words in (("stats", "--instance", "second"), ("top", "--instance", "second"), ("report", "--instance", "second")):
        assert "scalperctl start --instance second`" in run(capsys, *words)[2]


# ---- what a start tells -----------------------------------------------------------------------------------------------


def answers(monkeypatch: pytest.MonkeyPatch, **status: Any) -> None:
    """Let the supervisor answer so."""
    monkeypatch.setattr(running, "ask", lambda instance, message: {"halted": None, "stages": [], **status})


def test_a_start_says_that_it_is_halted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latch of an earlier day is the first thing that somebody who starts must know; with the way out for this instance."""
    answers(monkeypatch, halted="halted by operator: \x1b[31mprices look wrong")
    ((text, style),) = arrival.told(load_profile("paper", {"instance": "second"}), lambda: None)
    assert text.startswith("HALTED") and "prices look wrong" in text and "\x1b" not in text and "red" in style
    assert "`scalperctl halt reset --reason TEXT --instance second`" in text
    answers(monkeypatch)
    assert arrival.told(load_profile("paper"), lambda: None) == []


def test_a_start_says_where_the_gateway_listens_or_why_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The address with the port that it got; else the last thing its log says, such as a port that is taken."""
    profile = load_profile("paper", {"gateway.enabled": True, "gateway.port": 0})
    log = tmp_path / "gateway.log"
    problem = "cannot listen on 127.0.0.1 port 8000 (address in use)"
    log.write_text(json.dumps({"event": "cannot start", "problem": problem}) + "\n")
    answers(monkeypatch, stages=[{"name": "gateway", "actual": "BACKOFF", "log": str(log)}])
    monkeypatch.setattr(arrival, "listening_port", lambda instance: 8123)
    assert arrival.told(profile, lambda: None) == [("gateway: http://127.0.0.1:8123/docs", "")]
    monkeypatch.setattr(arrival, "listening_port", lambda instance: 0)
    ((text, style),) = arrival.told(profile, lambda: None)
    assert f"does not listen: {problem}" in text and str(log) in text
    assert style == "yellow"


# ---- latency and pace -------------------------------------------------------------------------------------------------


def test_the_venues_answers_are_counted_apart() -> None:
    """Orders and the venue's answers are inputs of their own: the tables and the sentence show the answers beside the machine's
    own figures, and they are in none of these. So it is with what the venue is sent, and with what is reported behind it."""
    memory = HeapMemory()
    page, inputs = memory.page("router"), topology.STAGE["router"].inputs
    for _ in range(10):
        histogram.record(board.of_input(page, inputs.index("orders"), board.AWAKE), 2_000)
        histogram.record(board.of_input(page, inputs.index("orders"), board.ORIGIN), 90_000)
        histogram.record(board.of_input(page, inputs.index("executions"), board.ORIGIN), 52_000_000)
    found = hops(memory.board_words)
    behind = {(hop["stage"], hop["input"]): hop["venue_in"] for hop in found if hop["venue_in"]}
    assert behind == {
        ("quoter", "reports"): ["origin"], ("risk", "reports"): ["origin"],
        ("router", "executions"): ["hop", "origin"], ("exchange", "wire"): ["hop", "origin"],
    }  # fmt: skip
    router = {hop["input"]: hop for hop in found if hop["stage"] == "router"}
    assert router["orders"]["origin"]["max_ns"] == 90_000 and router["executions"]["origin"]["max_ns"] == 52_000_000
    text = headline(found)
    assert text.startswith("frame to order: p50 ") and " us, this machine's own" in text
    assert "the venue's answer 5" in text and "its simulated delay included" in text
    lines = lay_out_hops(found, 80, plain)
    apart = next(n for n, line in enumerate(lines) if "over the venue" in line)
    assert max(map(visible, lines)) <= 80
    assert not any(" ms" in line for line in lines[:apart]) and any(" ms" in line for line in lines[apart:])


def test_a_run_of_an_older_version_has_no_answers() -> None:
    """Figures that were kept without that histogram are shown as far as they go."""
    empty = hops(HeapMemory().board_words)[0]["hop"]
    one = {"stage": "router", "inputs": ["executions", "orders"], "hop": {**empty, "count": 1}, "origin": {**empty, "count": 3}}
    assert headline(kept([{**one, "origin": empty}])) == ""
    assert not any("over the venue" in line for line in lay_out_hops(kept([one]), 80, plain))


def test_a_run_of_an_older_version_is_shown_by_its_inputs_as_far_as_they_are_told_apart() -> None:
    """It had a row a stage, over all inputs but the venue's answers: orders were alone in it at the router, and are shown so."""
    empty = hops(HeapMemory().board_words)[0]["hop"]
    own, back = {**empty, "count": 3, "p50_ns": 90_000}, {**empty, "count": 2, "p50_ns": 52_000_000}
    rows = kept([
        {"stage": "router", "inputs": ["executions", "orders"], "hop": own, "origin": own, "answer": back},
        {"stage": "risk", "inputs": ["control", "reports", "market"], "hop": own, "origin": own},
    ])  # fmt: skip
    assert [(hop["stage"], hop["input"], bool(hop["venue_in"])) for hop in rows] == [
        ("router", "orders", False), ("router", "executions", True), ("risk", "control+market", False)
    ]  # fmt: skip
    assert headline(rows).startswith("frame to order: p50 90 us") and "answer 52 ms" in headline(rows)
    assert kept(rows) == rows


def test_the_replays_own_pace_is_said() -> None:
    """At any pace but the market's own, full rings are said to be the pace's and are not red; live data has no such excuse."""
    fast = load_profile("paper", {"source.speed": "max"})
    live = load_profile("live-paper")
    assert "as fast as it can" in pace.note(fast) and len(pace.note(fast)) <= 72
    assert "20x its own pace" in pace.note(load_profile("paper", {"source.speed": 20.0}))
    assert pace.note(load_profile("paper")) == pace.note(live) == ""
    assert pace.note(load_profile("paper", {"source.speed": 0.5})) == ""  # slower hurries nobody
    memory = HeapMemory()
    assert pace.verdict(fast, snapshot(memory)) == ""  # type: ignore[arg-type]  # nothing waited
    memory.rings["market"][FULL_STALLS] = 7
    figures = snapshot(memory)  # type: ignore[arg-type]
    assert "market: 7 times" in pace.verdict(fast, figures) and pace.verdict(live, figures) == ""
    full = {**figures["rings"][0], "utilisation": 0.99}
    assert ("red" in str(ring_row(full))) and ("red" not in str(ring_row(full, hurried=True)))  # type: ignore[arg-type]
    lines = lay_out_stats(figures, 80, plain, [pace.note(fast)], True)
    assert max(map(visible, lines)) <= 80 and "as fast as it can: full rings" in lines[-1]


# ---- journals ---------------------------------------------------------------------------------------------------------


def make_runs(instance: str, stamps: list[str], size: int = 10_000) -> list[Path]:
    """Journals of runs at these times."""
    made = []
    for n, stamp in enumerate(stamps):
        folder = rundir.state_dir(instance) / "journal" / f"{stamp}-{100 + n}"
        folder.mkdir(parents=True)
        (folder / "market.journal").write_bytes(b"x" * size)
        made.append(folder)
    return made


STAMPS = ["20240101T000000Z", "20240102T000000Z", "20240103T000000Z", "20240104T000000Z", "20240105T000000Z"]


def test_journals_of_old_runs_go_and_the_last_stay(capsys: pytest.CaptureFixture[str]) -> None:
    """The last three stay by default, of each instance; a dry run removes nothing; nothing that is not named like a run goes."""
    one, two = make_runs("paper", STAMPS), make_runs("second", STAMPS[:2])
    foreign = rundir.state_dir("paper") / "journal" / "notes"
    foreign.mkdir()
    code, out, _ = run(capsys, "clean", "--journals", "--dry-run", "--json")
    said = json.loads(out)
    assert code == OK and [entry["folder"] for entry in said["removed"]] == [str(folder) for folder in one[:2]]
    assert len(said["left"]) == 5 and said["bytes"] >= 20_000 and all(folder.is_dir() for folder in one)
    code, out, _ = run(capsys, "clean", "--journals")
    assert code == OK and "removed the journals of 2 runs" in out and "5 runs of 2 instances stay" in out
    assert [folder.is_dir() for folder in one] == [False, False, True, True, True] and all(folder.is_dir() for folder in two)
    assert foreign.is_dir() and "no journals to remove" in run(capsys, "clean", "--journals")[1]
    assert run(capsys, "clean", "--journals", "--keep", "0", "--instance", "paper")[0] == OK
    assert not any(folder.is_dir() for folder in one) and all(folder.is_dir() for folder in two) and foreign.is_dir()


def test_a_living_runs_journals_never_go(capsys: pytest.CaptureFixture[str]) -> None:
    """Not even with --keep 0, not even if they are the oldest."""
    folders = make_runs("paper", STAMPS)
    running.write_note(rundir.run_dir("paper") / running.RUN_NAME, {"journal_dir": str(folders[0])})
    with rundir.InstanceLock("paper"):
        code, out, _ = run(capsys, "clean", "--journals", "--keep", "0", "--json")
    said = json.loads(out)
    assert code == OK and [entry["folder"] for entry in said["left"]] == [str(folders[0])] and said["left"][0]["living"]
    assert [folder.is_dir() for folder in folders] == [True, False, False, False, False]


def test_a_link_is_nobodys_journal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A link among the runs is left alone, and so is what it leads to."""
    make_runs("paper", STAMPS[:1])
    elsewhere = tmp_path / "precious"
    elsewhere.mkdir()
    link = rundir.state_dir("paper") / "journal" / "20230101T000000Z-7"
    link.symlink_to(elsewhere)
    assert run(capsys, "clean", "--journals", "--keep", "0")[0] == OK
    assert link.is_symlink() and elsewhere.is_dir()


def run_elsewhere(instance: str, place: Path, stamp: str) -> last_run.LastRun:
    """A run of an instance whose profile puts its journals at a place that others may share."""
    folder = place / f"{stamp}-1"
    folder.mkdir(parents=True)
    (folder / "market.journal").write_bytes(b"x" * 9000)
    profile = msgspec.Raw(profile_json(load_profile("paper", {"instance": instance})))
    one = last_run.LastRun(instance=instance, profile=profile, journal_dir=str(folder))
    last_run.note(one)
    return one


def test_journals_that_a_profile_puts_elsewhere_are_found(tmp_path: Path) -> None:
    """By the links of the instance's state, and the last run's own word."""
    for stamp in STAMPS[:4]:
        last_run.save(run_elsewhere("paper", tmp_path / "mine", stamp))
    assert len(journals.runs_of("paper")) == 4 and "4 runs elsewhere" in journals.sentence("paper")


def test_instances_that_share_a_place_never_remove_each_others_journals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a living run's nor one that has ended: cleaning one instance leaves what the other put there."""
    own = [Path(run_elsewhere("paper", tmp_path / "shared", stamp).journal_dir) for stamp in STAMPS[2:4]]
    ended, lives = (Path(run_elsewhere("second", tmp_path / "shared", stamp).journal_dir) for stamp in STAMPS[:2])
    running.write_note(rundir.run_dir("second") / running.RUN_NAME, {"journal_dir": str(lives)})
    with rundir.InstanceLock("second"):
        assert run(capsys, "clean", "--journals", "--instance", "paper", "--keep", "1")[0] == OK
        assert [folder.is_dir() for folder in (*own, ended, lives)] == [False, True, True, True]
        assert run(capsys, "clean", "--journals", "--keep", "0")[0] == OK
    assert [folder.is_dir() for folder in (*own, ended, lives)] == [False, False, False, True]


def test_the_state_says_what_it_takes_and_how_to_make_it_less() -> None:
    """Folder, size, runs; the command only where it would remove something, with the instance where it is not the default."""
    assert journals.sentence("second") == "" and journals.figures("second")["bytes"] == 0
    make_runs("second", STAMPS[:3], 2_000_000)
    text = journals.sentence("second")
    assert "journals of 3 runs 6.0 MB" in text and "clean" not in text
    make_runs("second", STAMPS[3:], 2_000_000)
    assert "`scalperctl clean --journals --instance second` keeps the last 3" in journals.sentence("second")
    figures = journals.figures("second")
    assert figures["runs"] == 5 and isinstance(figures["journal_bytes"], int) and figures["journal_bytes"] >= 10_000_000


def test_a_short_form_of_version_is_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """argparse takes --vers for --version."""
    assert run(capsys, "--vers") == run(capsys, "--version") == run(capsys, "version")


def test_keep_and_dry_run_belong_to_journals(capsys: pytest.CaptureFixture[str]) -> None:
    """Without --journals they would be ignored in silence."""
    for words in (("--keep", "2"), ("--dry-run",)):
        code, _, err = run(capsys, "clean", *words)
        assert code == USAGE and "--journals" in err


# ---- trace ------------------------------------------------------------------------------------------------------------


def test_trace_last_is_the_order_that_was_sent_last(tmp_path: Path) -> None:
    """Cancels and refused orders do not count; a run without an order says so."""
    recs = np.zeros(4, ORDER_RECORD)
    recs["kind"] = [Kind.NEW, Kind.NEW, Kind.CANCEL, Kind.NEW]
    recs["approved"] = [1, 1, 1, 0]
    recs["order_id"] = [11, 12, 0, 13]
    recs["seq"] = np.arange(4) + 1
    with JournalWriter.open(journal_path(tmp_path, "orders"), "orders", ORDER_RECORD, instance="t") as writer:
        writer.append(recs[:0])
        with pytest.raises(CliError, match="no order was sent") as error:
            _last(tmp_path)
        assert error.value.code == FAILED
        writer.append(recs)
    assert _last(tmp_path) == 12
