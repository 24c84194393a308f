"""`data ls`, `check` and `cat`: the venue's own recordings are proved right, and every planted fault is named."""

from __future__ import annotations

import gzip
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_command import Run

from procs.cli.outcome import OK, UNHEALTHY, USAGE
from procs.journal.file import JournalWriter, journal_path
from procs.recordings import checking, files, instruments
from procs.recordings.frame_log import FrameLog, Policy
from procs.recordings.frame_log_format import Taken, members
from procs.recordings.output import RecordingsError, new_file, new_files
from procs.recordings.reading import time_ns, time_text
from trading.instruments import Instrument
from trading.records import DEPTH_RECORD, MARKET_RECORD, ORDER_RECORD, Flag, Kind

T0 = 1_723_161_253_937_085_768
EXPECTED = {
    "spot_btcusdt (2 files)": 1072, "spot_ethusdt (2 files)": 1056, "usdm_btcusdt (2 files)": 625,
    "usdm_btcusdt_20240808.gz": 629, "usdm_ethusdt_20240808.gz": 551,
}  # fmt: skip

BEYOND_EDGE = {"spot_btcusdt (2 files)": 3933, "usdm_btcusdt_20240808.gz": 3503}
"""Records that show more than the one snapshot of their recording proves."""

def depth(first: int, last: int, bids: Any = (), asks: Any = (), ms: int = 1_723_161_255_208) -> str:
    """A spot depthUpdate."""
    body = {"e": "depthUpdate", "E": ms, "s": "BTCUSDT", "U": first, "u": last, "b": list(bids), "a": list(asks)}
    return json.dumps({"stream": "btcusdt@depth@100ms", "data": body}, separators=(",", ":"))


def ticker(u: int, bid_qty: str) -> str:
    """A spot bookTicker of the sound recording's book."""
    body = {"u": u, "s": "BTCUSDT", "b": "99.00", "B": bid_qty, "a": "101.00", "A": "1.00"}
    return json.dumps({"stream": "btcusdt@bookTicker", "data": body}, separators=(",", ":"))


def trade(number: int) -> str:
    """A spot trade."""
    body = {"e": "trade", "E": 1, "s": "BTCUSDT", "t": number, "p": "99.00", "q": "0.50", "T": 1_723_161_255_300, "m": True}
    return json.dumps({"stream": "btcusdt@trade", "data": body}, separators=(",", ":"))


SNAPSHOT = '{"lastUpdateId":10,"bids":[["99.00","1.00"]],"asks":[["101.00","1.00"]]}'
SOUND = [SNAPSHOT, depth(11, 12, [["98.50", "2.00"]]), ticker(12, "1.00"), trade(5), depth(13, 13, [["99.00", "3.00"]]),
         ticker(13, "3.00"), trade(6), depth(14, 15, [], [["101.50", "4.00"]])]  # fmt: skip


def recorded(path: Path, frames: list[str], start: int = T0) -> Path:
    """A recording of these frames."""
    path.write_bytes(gzip.compress("".join(f"{start + k * 10**6} {frame}\n" for k, frame in enumerate(frames)).encode()))
    return path


@pytest.mark.recordings
@pytest.mark.parametrize("title", ["spot_btcusdt (2 files)", pytest.param("", marks=pytest.mark.slow)])
def test_every_recording_of_the_venue_is_right(title: str, recordings: Path, run: Run) -> None:
    """No gap, and the book equals the venue's best bid/offer at the same update id each time: all counts as known. Of one symbol
    by default, of the whole folder with -m slow."""
    folder = recordings / "hftbacktest_binance"
    code, out, _ = run("data", "check", *(sorted(folder.glob(f"{title.split()[0]}*")) if title else [folder]), "--json")
    found = {verdict["title"]: verdict for verdict in json.loads(out)}
    assert code == OK and {t: v["oracle_checked"] for t, v in found.items()} == ({title: EXPECTED[title]} if title else EXPECTED)
    for verdict in found.values():
        assert verdict["oracle_equal"] == verdict["oracle_checked"] and verdict["ok"] and verdict["books_valid"] == 1
        for counter in ("gaps", "crossed", "malformed", "unknown", "trade_gaps", "lost", "duplicates"):
            assert verdict[counter] == 0, counter
        assert verdict["beyond_edge"] == BEYOND_EDGE.get(verdict["title"], 0)
        july = "20240718" in verdict["files"][0]
        assert round(verdict["clock_offset_median_ns"] / 1e9, 2) == (-1.52 if july else -1.27)
    code, out, _ = run("data", "ls", recordings / "hftbacktest_binance", "--json")
    assert code == OK and sum(one["frames"] for one in json.loads(out)) == 419_911


def test_a_sound_recording_passes(tmp_path: Path, run: Run) -> None:
    """One line that ends in ok, exit code 0; the book is compared where it can be."""
    code, out, _ = run("data", "check", recorded(tmp_path / "a.gz", SOUND))
    assert code == OK and out.rstrip().endswith(": ok") and "book == bbo 2/2" in out and out.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda f: [f[0], *f[2:]], "gaps"),
        (lambda f: [*f[:6], trade(8), f[7]], "1 gaps in trade ids"),
        (lambda f: [*f[:5], ticker(13, "2.00"), *f[6:]], "1 times book and best bid/offer differed"),
        (lambda f: [*f, depth(16, 16, [["102.00", "1.00"]])], "1 crossed books"),
        (lambda f: [*f, '{"e":"trade","s":"BTCUSDT","t":1}'], "1 malformed frames"),
        (lambda f: [*f, '{"hello":1}'], "1 unknown frames"),
        (lambda f: f[1:], "never became valid"),
        (lambda f: [*f, '{"scalper":"lost","s":"BTCUSDT"}'], "1 places where frames were declared lost"),
    ],
)
def test_every_planted_fault_is_named(tmp_path: Path, run: Run, change: Callable[[list[str]], list[str]], named: str) -> None:
    """Exit code 5, and the fault in words."""
    code, out, _ = run("data", "check", recorded(tmp_path / "a.gz", change(SOUND)))
    assert code == UNHEALTHY and named in out


def test_a_file_cut_short_is_judged_up_to_its_last_whole_line(tmp_path: Path, run: Run) -> None:
    """What is there is checked, and the missing end is told."""
    whole = recorded(tmp_path / "a.gz", SOUND * 1).read_bytes()
    (tmp_path / "a.gz").write_bytes(whole[:-30])
    code, out, _ = run("data", "check", tmp_path / "a.gz")
    assert code in (UNHEALTHY, USAGE) and "ends in the middle" in out + _


def test_what_was_set_aside_is_named(tmp_path: Path, run: Run) -> None:
    """A file that a power failure damaged in the middle, after the recorder has repaired it: the hole and the bytes are named."""
    names, sync = [("binance_spot", "BTCUSDT")], Policy(sync="never")
    for number in (1, 2):
        log = FrameLog(tmp_path, names, number, sync)
        for k, frame in enumerate(SOUND if number == 1 else ()):
            log.take([Taken(k, T0 + k * 10**6, Kind.FRAME, 0, 0, frame.encode())])
            log.flush()
        log.close()
        (path,) = (tmp_path / "binance_spot" / "BTCUSDT").glob("*.gz")
        raw = path.read_bytes()
        if number == 1:
            with path.open("rb") as file:
                damaged = list(members(file.fileno()))[5]
            path.write_bytes(raw[: damaged.offset] + bytes(20) + raw[damaged.offset + 20 :])
    code, out, _ = run("data", "check", tmp_path)
    assert code == UNHEALTHY and "1 places where frames were declared lost" in out
    assert f"{damaged.size} bytes were damaged; they lie in {path.name}.damaged-{damaged.offset}" in out


def test_lines_of_the_recorder_are_no_frames(tmp_path: Path, run: Run) -> None:
    """Lines going up and down change nothing in the books; files of a run are one chain, the connection's file is left out."""
    log = FrameLog(tmp_path, [("binance_spot", "BTCUSDT")], 1, Policy(rotate_bytes=1, sync="never"))
    taken = [Taken(0, T0, Kind.LINE_UP, 0, 0, b"")]
    taken += [Taken(k + 1, T0 + k * 10**6, Kind.FRAME, 0, 0, frame.encode()) for k, frame in enumerate(SOUND)]
    taken += [Taken(20, T0 + 10**9, Kind.LINE_DOWN, 0, 1, b""), Taken(21, T0 + 10**9, Kind.RAW, -1, 0, b'{"result":null}')]
    for frame in taken:
        log.take([frame])
        log.flush()
    log.close()
    code, out, _ = run("data", "check", tmp_path, "--json")
    (verdict,) = json.loads(out)
    assert code == OK and verdict["frames"] == len(SOUND) and verdict["events"] == 2 and len(verdict["files"]) > 3
    code, out, _ = run("data", "ls", tmp_path)
    assert code == OK and "binance_spot" in out and "_connection" in out


def test_recordings_apart_in_time_are_apart(tmp_path: Path) -> None:
    """Files of one symbol are joined where one follows the other within a minute."""
    for name, start in (("a", T0), ("b", T0 + 30 * 10**9), ("c", T0 + 3600 * 10**9)):
        recorded(tmp_path / f"{name}.gz", SOUND, start)
    assert [[f.path.name for f in chain] for chain in files.chains(files.expand([tmp_path]))] == [["a.gz", "b.gz"], ["c.gz"]]


def test_what_is_no_recording_is_refused(tmp_path: Path, run: Run) -> None:
    """A sentence with the file and exit code 2."""
    odd = tmp_path / "odd.txt"
    odd.write_text("hello\n")
    for words in (("check", odd), ("check", tmp_path / "none.gz"), ("cat", tmp_path / "none.gz"), ("cat", odd)):
        code, _, err = run("data", *words)
        assert code == USAGE and err.startswith("scalperctl: ") and err.count("\n") == 1 and "\n" not in err.rstrip("\n")


def test_captures_of_other_venues_go_through_their_decoders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """The venues' staging makes the spool and says what it did not know; where it is missing that is said."""
    capture = tmp_path / "KRAKEN.ws.50.0.gz"
    capture.write_bytes(gzip.compress(b'wss://ws.example <-> 1618678132.3\n1618678132.8: {"event":"systemStatus"}\n'))
    monkeypatch.setattr(checking, "WIRE_STAGING", "sim.no_such_staging")
    code, _, err = run("data", "check", capture)
    assert code == USAGE and "no decoders for captures of kraken" in err

    def stage_wire(paths: list[Path], out: Path, **_: Any) -> Any:
        assert paths == [capture]
        return checking.stage([recorded(tmp_path / "as.gz", SOUND)], out)

    monkeypatch.setitem(sys.modules, "sim.fake_staging", types.SimpleNamespace(stage_wire=stage_wire))
    monkeypatch.setattr(checking, "WIRE_STAGING", "sim.fake_staging")
    code, out, _ = run("data", "check", capture)
    assert code == OK and out.startswith("KRAKEN.ws.50.0.gz: kraken BTCUSDT")


def test_cat_shows_records_with_decimals(tmp_path: Path, run: Run) -> None:
    """One a line, or a JSON object each; by kind, time and number."""
    path = recorded(tmp_path / "a.gz", SOUND)
    code, out, _ = run("data", "cat", path, "--kind", "trade")
    assert code == OK and len(out.splitlines()) == 2 and "price 99.0  qty 0.5" in out and "side sell" in out
    code, out, _ = run("data", "cat", path, "--json", "--kind", "level", "--limit", "3")
    assert [json.loads(line)["price"] for line in out.splitlines()] == ["99.0", "101.0", "98.5"]
    code, out, _ = run("data", "cat", path, "--from", time_text(T0 + 4 * 10**6), "--to", str(T0 + 5 * 10**6), "--json")
    assert [json.loads(line)["kind"] for line in out.splitlines()] == ["depth", "bbo"]
    code, _, err = run("data", "cat", path, "--kind", "nothing")
    assert code == USAGE and "is no kind" in err


def test_cat_reads_a_journal_while_it_is_written(tmp_path: Path, run: Run) -> None:
    """Whole slots are shown; with instruments.json beside it prices are decimals, without they are ticks."""
    recs = np.zeros(3, MARKET_RECORD)
    recs["ts_ns"], recs["kind"], recs["price_ticks"], recs["qty_lots"] = T0, Kind.TRADE, 6_183_763, 150_000_000
    recs["flags"], recs["seq"] = Flag.BOOK_VALID, [1, 2, 3]
    orders = np.zeros(1, ORDER_RECORD)
    orders["ts_ns"], orders["kind"], orders["order_id"], orders["price_ticks"], orders["seq"] = T0, Kind.NEW, 7, 100, 1
    with JournalWriter.open(journal_path(tmp_path, "market"), "market", MARKET_RECORD, "x") as journal:
        journal.append(recs[:2])
        code, out, _ = run("data", "cat", journal.path)
        assert code == OK and out.count("6183763 ticks") == 2
        instruments.note(tmp_path, [Instrument("BTCUSDT")])
        assert instruments.noted(tmp_path) == [Instrument("BTCUSDT")]
        journal.append(recs[2:])
        code, out, _ = run("data", "cat", journal.path)
        assert code == OK and out.count("BTCUSDT  trade  id 0  side buy  price 61837.63  qty 1.5") == 3
    with JournalWriter.open(journal_path(tmp_path, "orders"), "orders", ORDER_RECORD, "x") as journal:
        journal.append(orders)
        code, out, _ = run("data", "cat", journal.path, "--json")
        assert json.loads(out) == {"time": time_text(T0), "symbol": "BTCUSDT", "kind": "new", "order_id": 7, "price": "1.00"}
    with JournalWriter.open(journal_path(tmp_path, "depth"), "depth", DEPTH_RECORD, "x") as journal:
        rows = np.zeros(1, DEPTH_RECORD)
        rows["ts_ns"], rows["kind"], rows["price_ticks"], rows["qty_lots"], rows["seq"] = T0, Kind.DEPTH, 100, 5 * 10**7, 1
        journal.append(rows)
        assert "bid  price 1.00  qty 0.5" in run("data", "cat", journal.path)[1]


def test_outputs_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    """A block that fails leaves neither file nor folder nor anything temporary; nothing is written over without force."""
    for maker, name in ((new_file, "f"), (new_files, "d")):
        with pytest.raises(ZeroDivisionError), maker(tmp_path / name) as path:
            (path if name == "f" else path / "x").write_text("half")
            raise ZeroDivisionError
        assert list(tmp_path.iterdir()) == []
        for text in ("one", "two"):
            with maker(tmp_path / name, force=text == "two") as path:
                (path if name == "f" else path / "x").write_text(text)
        with pytest.raises(RecordingsError, match="--force"), maker(tmp_path / name) as path:
            (path / "x").write_text("three")
        found = tmp_path / name if name == "f" else tmp_path / name / "x"
        assert found.read_text() == "two" and len(list(tmp_path.iterdir())) == 1
        found.unlink()
        if name == "d":
            (tmp_path / name).rmdir()


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_keeps_what_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool) -> None:
    """Into a folder that is there, `.` among them: files of other names stay, force or not; nothing temporary is left. A
    folder in a file's place is named, and nothing is moved then."""
    (tmp_path / "sub").mkdir()
    for name in ("notes.txt", "sub/other.csv"):
        (tmp_path / name).write_text("mine")
    monkeypatch.chdir(tmp_path)
    with new_files(Path("."), force=force) as made:
        (made / "a.csv").write_text("ours")
        (made / "sub").mkdir()
        (made / "sub" / "b.csv").write_text("ours")
    found = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"notes.txt": "mine", "sub/other.csv": "mine", "a.csv": "ours", "sub/b.csv": "ours"}
    (tmp_path / "c.csv").mkdir()
    with pytest.raises(RecordingsError), new_files(Path("."), force=force) as made:
        for name in ("b.csv", "c.csv"):
            (made / name).write_text("ours")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "c.csv", "notes.txt", "sub"]


def test_a_folder_is_checked_to_its_end(tmp_path: Path, run: Run) -> None:
    """Foreign and empty files that a folder brought are passed over with a note; one that cannot be read is named, and the others
    are judged all the same; a last line sums up, and the exit code says 5. What is sound beside foreign files alone is ok."""
    recorded(tmp_path / "a.gz", SOUND)
    (tmp_path / "README.txt").write_text("made on the laptop")
    (tmp_path / "zero.gz").write_bytes(b"")
    code, out, err = run("data", "check", tmp_path)
    assert code == OK and "a.gz: binance_spot BTCUSDT" in out and "1 ok, 2 files passed over" in out
    assert "README.txt: is no recording" in err and "zero.gz: is no recording" in err
    recorded(tmp_path / "b.gz", SOUND, T0 + 1800 * 10**9)
    whole = gzip.decompress((tmp_path / "b.gz").read_bytes())
    (tmp_path / "b.gz").write_bytes(gzip.compress(whole + b"12 nothing\n"))
    recorded(tmp_path / "c.gz", [*SOUND, '{"hello":1}'], T0 + 3600 * 10**9)
    code, out, _ = run("data", "check", tmp_path)
    assert code == UNHEALTHY and "b.gz: CANNOT BE READ" in out and f"b.gz:{len(SOUND) + 1}" in out
    assert "3 recordings: 1 ok, 1 wrong, 1 unreadable, 2 files passed over" in out
    code, out, _ = run("data", "check", tmp_path, "--json")
    assert code == UNHEALTHY and sorted((v["title"], v["ok"]) for v in json.loads(out)) == [
        ("a.gz", True), ("b.gz", False), ("c.gz", False)]  # fmt: skip


def test_times_are_read_as_people_write_them() -> None:
    """ISO 8601, and Unix times in any unit, to the ns; anything else is refused."""
    assert time_ns("2024-08-08T23:54:13") == T0 // 10**9 * 10**9 == time_ns("1723161253") == time_ns("2024-08-09T01:54:13+02:00")
    assert time_ns(str(T0)) == T0 == time_ns(f"{T0 // 10**9}.{T0 % 10**9:09d}")
    assert time_ns("1723161253937") == 1723161253937 * 10**6
    assert time_ns("20240808") == time_ns("2024-08-08")
    with pytest.raises(RecordingsError, match="is no time"):
        time_ns("yesterday")
