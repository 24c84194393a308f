"""What the command line shows: every line fits, figures stand where they belong, colours only where asked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cli_worlds import HeapMemory, status_reply

from procs import topology
from procs.cli import doctor, status, view
from procs.cli.completion import bash, fish, zsh
from procs.cli.figures import snapshot
from procs.cli.latencies import hops
from procs.cli.observe import Account, Counts, Symbol, Top
from procs.cli.starting import problem_of, step_of
from procs.cli.stats import lay_out_hops, lay_out_stats
from procs.cli.table import Column, bar, clean_text, clip, coloured, count, plain, rate, span, table, visible
from procs.cli.view import View, compact, frame
from procs.memory import board


def _view(**more: Any) -> View:
    memory = HeapMemory()
    page = memory.page("feed")
    page[board.FRAMES], page[board.FRAMES_EXPECTED], page[board.ORACLE_CHECKED], page[board.ORACLE_EQUAL] = 500, 1000, 7, 7
    risk = memory.page("risk")
    board.of_input(risk, topology.STAGE["risk"].inputs.index("signals"), board.AWAKE)[8 + 40] = 10
    board.of_input(risk, topology.STAGE["risk"].inputs.index("signals"), board.AWAKE)[1] = 40
    reply = status_reply()
    stages = [
        {**entry, "state": entry["actual"], "heartbeat_age_ms": entry["silent_ms"], "pss_kb": 20_480, "cpu_pct": 12.5}
        for entry in reply["stages"]  # type: ignore[attr-defined]
    ]
    said = {
        **reply, "stages": stages[:-1], "zygote": stages[-1], "standbys": [],
        "supervisor": {"pid": 99, "pss_kb": 10_240, "cpu_pct": 0.3}, "total_pss_kb": 153_600, "cpu_pct_total": 87.8,
    }  # fmt: skip
    return View(
        instance="synthetic",
        figures=snapshot(memory),  # type: ignore[arg-type]
        hops=hops(memory.board_words),
        symbols=[Symbol("BTCUSDT", 0.01, 1e-8, 2)],
        tops=[Top(1, 6_000_000, 10**8, 6_000_200, 2 * 10**8, 6_000_100, True)],
        accounts=[Account(position_lots=10**6, cost=600.0, realised=1.5, fees=0.4, turnover=1200.0, fills=3)],
        counts=Counts(acks=5, fills=3, live={1: 0}),
        status=more.pop("status", said),
        **more,
    )


@pytest.mark.parametrize("width", [60, 80, 120, 200])
@pytest.mark.parametrize("height", [0, 24, 40])
def test_every_line_of_the_view_fits(width: int, height: int) -> None:
    """No line is wider than the terminal, no frame higher, in any size, with and without colour."""
    for paint in (plain, coloured):
        lines = frame(_view(), width, height, paint, note=" q quits")
        assert max(visible(line) for line in lines) <= width
        assert height == 0 or len(lines) <= height
        assert not any("\n" in line for line in lines)


def test_the_view_shows_what_matters() -> None:
    """Stages, rings with tail and head, the book, the position and its profit are on one wide frame."""
    text = "\n".join(frame(_view(), 200, 0, plain))
    for stage in topology.Run().essential:
        assert stage.name in text
    for ring in topology.Run().rings:
        assert ring.name in text
    for words in ("TAIL (WRITE)", "HEAD (READ)", "60,000.00", "60,002.00", "+0.01000", "7 of 7 times", " 50.0%"):
        assert words in text, words


def test_the_view_without_a_supervisor_says_ended() -> None:
    """Once the supervisor is gone the last figures are still shown."""
    lines = frame(_view(status=None), 100, 0, plain)
    assert "ended" in lines[0]


def test_a_halt_is_the_first_thing_seen() -> None:
    """The kill switch stands in the header, in red, and its words cannot steer the terminal."""
    seen = _view()
    assert seen.status is not None
    seen.status["halted"] = "halted by x: \x1b[2Jboo"
    lines = frame(seen, 100, 0, plain)
    assert any(line.startswith(" HALTED") and "\x1b" not in line for line in lines)


def test_a_users_signal_that_is_off_is_seen() -> None:
    """A line in the header for each signal in which something is wrong, none for a sound one."""
    seen = _view()
    assert seen.status is not None
    off = {"name": "mine", "problem": "off from record 7 on: x"}
    seen.status["user_signals"] = [{"name": "sound", "problem": ""}, off]
    told = [line for line in frame(seen, 100, 0, plain) if "user signal" in line]
    assert told == [" user signal mine: off from record 7 on: x"]


def test_the_compact_line_tells_progress_and_money() -> None:
    """One line: frames, share, rate, rings, fills, net."""
    text = compact(_view())
    assert text == "500 frames (50%), -/s, rings 0% full, 3 fills, net +1.11"


@pytest.mark.parametrize("width", [80, 120])
def test_stats_and_latency_fit(width: int) -> None:
    """The tables of `stats` and `latency` fit 80 columns, and use the words tail (write) and head (read)."""
    memory = HeapMemory()
    lines = lay_out_stats(snapshot(memory), width, plain)  # type: ignore[arg-type]
    lines += lay_out_hops(hops(memory.board_words), width, plain)
    assert max(map(visible, lines)) <= width
    assert "TAIL (WRITE)" in lines[0] and "HEAD (READ)" in lines[0]


@pytest.mark.parametrize("width", [80, 120])
def test_status_shows_every_process_and_what_is_wrong(width: int) -> None:
    """All stages, zygote and supervisor; a stage that gave up is named with the remedy."""
    seen = _view().status
    assert seen is not None
    seen["stages"][2]["state"], seen["stages"][2]["last_end"] = "FATAL", "SIGSEGV"
    lines = status.lay_out({**seen, "world": "paper", "progress": 5}, width, plain)
    text = "\n".join(lines)
    for name in (*topology.Run().names, "zygote", "supervisor"):
        assert name in text
    assert "was given up (SIGSEGV)" in text and "scalperctl restart" in text
    assert max(map(visible, lines[:-1])) <= width


def test_a_table_loses_its_least_important_columns_first() -> None:
    """When it is too narrow, `keep` decides; columns with keep 0 stay."""
    columns = (Column("A", right=False), Column("B", keep=2), Column("C", keep=1))
    rows = [["aaaa", "bbbb", "cccc"]]
    assert table(columns, rows, 80)[1] == "aaaa  bbbb  cccc"
    assert table(columns, rows, 12)[1] == "aaaa  cccc"
    assert table(columns, rows, 5)[1] == "aaaa"


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, "0 ns"), (999, "999 ns"), (1000, "1 us"), (86_400, "86.4 us"), (123_456, "123 us"), (4_560_000, "4.56 ms"),
     (7_800_000_000, "7.8 s"), (61e9, "1 min 1 s"), (7500e9, "2 h 5 min"), (187_200e9, "2 d 4 h")],
)  # fmt: skip
def test_spans_have_the_unit_that_reads_best(ns: float, text: str) -> None:
    """From nanoseconds to days."""
    assert span(ns) == text


def test_small_figures() -> None:
    """Rates, counts and bars at their edges."""
    assert [rate(v) for v in (None, 0, 2.5, 480, 35_100, 1_200_000)] == ["-", "0", "2.5", "480", "35.1k", "1.2M"]
    assert count(1_234_567) == "1,234,567" and count(None) == "-"
    assert bar(0, 4) == "····" and bar(1, 4) == "████" and bar(0.5, 4) == "██··" and bar(9, 2) == "██"
    assert clip("abcdef", 4) == "abc…" and visible(clip(coloured("abcdef", "red"), 4)) == 4
    assert clean_text("a\x1b[31m\nb") == "a [31m b"


def test_a_crash_while_it_starts_is_a_step() -> None:
    """A stage that ends again and again is told each time, with its last line: `start` is not silent meanwhile."""
    line = json.dumps({"event": "crash", "stage": "recorder", "crashes": 3, "ended_by": "exit 1", "last_line": "no\x1b[2J room"})
    assert step_of(line) == "recorder has ended and is started again (3): no [2J room"


def test_log_lines_become_steps_and_problems() -> None:
    """The background start reads the supervisor's log: steps of progress, and the sentence that says what went wrong."""
    kernels = json.dumps({"event": "kernels", "of": "3/7", "stage": "risk", "how": "compiled", "seconds": 12.34, "level": "info"})
    assert step_of(kernels) == "kernels 3/7: risk compiled in 12.3 s" and problem_of(kernels) == ""
    failed = json.dumps({"event": "failed", "problem": "no room", "level": "error"})
    assert problem_of(failed) == "no room" and step_of(failed) == ""
    assert problem_of("scalperctl: it is so\n") == "it is so" and step_of("not json") == ""
    assert step_of("[1]") == "" and step_of(json.dumps({"event": "staging", "done": 5, "total": 10})).endswith("50%")


def test_completion_names_every_command() -> None:
    """All three shells complete every command, and restart its stages."""
    from procs.cli.arguments import COMMANDS

    for text in (bash(), zsh(), fish()):
        for name in COMMANDS:
            assert name in text
        assert "recorder" in text and "--recording" in text or "recording" in text


@pytest.mark.parametrize(
    ("finding", "state"),
    [
        (doctor.isolation("", "", {0, 1}, {0, 1}), "warn"),
        (doctor.isolation("1-2", "1-2", {0, 1, 2}, {0, 1, 2}), "ok"),
        (doctor.isolation("1-2", "", {0, 1, 2}, {0, 1, 2, 3}), "warn"),
        (doctor.clock_source("tsc", "constant_tsc nonstop_tsc"), "ok"),
        (doctor.clock_source("hpet", ""), "warn"),
        (doctor.memlock(-1, 1 << 20), "ok"),
        (doctor.memlock(8 << 20, 26 << 20), "warn"),
        (doctor.huge_pages("0", "0", 2048, "always [madvise] never"), "warn"),
        (doctor.huge_pages("64", "60", 2048, ""), "ok"),
        (doctor.kernel_version("6.1.0-13-amd64"), "ok"),
        (doctor.kernel_version("4.15.0"), "fail"),
        (doctor.governor({"powersave"}), "warn"),
        (doctor.governor(set()), "ok"),
        (doctor.sharing("1"), "warn"),
        (doctor.sharing("0"), "ok"),
        (doctor.sharing(""), "ok"),
    ],
)
def test_doctor_judges_machines(finding: doctor.Finding, state: str) -> None:
    """Each check of a given machine's words; what is not ok has a remedy."""
    assert finding.state == state
    assert state == "ok" or finding.remedy


@pytest.mark.parametrize("width", [80, 120])
def test_doctor_wraps_instead_of_cutting(width: int) -> None:
    """Every word of every remedy is readable."""
    findings = [doctor.Finding("x", "warn", "word " * 40, "do " * 60)]
    lines = doctor.lay_out(findings, width, plain)
    assert max(map(visible, lines)) <= width and " ".join(lines).split().count("do") == 60


def test_net_is_realised_and_unrealised_less_fees() -> None:
    """1.50 realised, 0.01 BTC bought at 60,000 marked at 60,001, fees 0.40."""
    assert view.net(_view()) == pytest.approx(1.5 + 0.01 - 0.4)


@pytest.mark.parametrize("height", [24, 40, 120])
def test_sixty_four_symbols_leave_room_for_what_matters(height: int) -> None:
    """Where 64 books do not fit, the stale ones are shown and the traded ones, the rest is counted; the orders stay in sight."""
    seen = _view()
    seen.symbols = [Symbol(f"S{n}USDT", 1e-8, 1.0, 8) for n in range(64)]
    seen.tops = [Top(1, 1300, 12_000_000_000, 1301, 10**14, 1300, n != 63) for n in range(64)]
    seen.accounts = [Account(fills=int(n == 40), position_lots=5 * 10**9 * int(n == 40)) for n in range(64)]
    lines = frame(seen, 80, height, plain)
    text = "\n".join(lines)
    assert len(lines) <= height and max(visible(line) for line in lines) <= 80
    assert "S63USDT" in text and "S40USDT" in text and ("S50USDT" in text) == (height > 100)
    assert "sent " in text and (height > 100 or " more, " in text)


def test_quantities_of_cheap_coins_stay_narrow() -> None:
    """A quantity takes no more than twelve characters, from 1e-5 to 1e14 coins."""
    for quantity, text in ((0.12345, "0.12345"), (99_999.5, "99,999.50000"), (12e6, "12,000,000"), (12e9, "12G"), (1e14, "100T")):
        assert view.coins(quantity) == text and len(text) <= 12
