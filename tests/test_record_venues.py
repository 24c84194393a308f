"""Recordings of every venue with a typed decoder: whatever the connections and the recorder go through, what is on disk gives the
books that the live fold had, record for record, and `data check` says so."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_live import Session, session
from venue_wires import LOT, NAMES, TICK, Wires

from procs.cli.main import main
from procs.cli.outcome import OK, UNHEALTHY
from procs.fold.plan import plan_of
from procs.profiles.config import load_profile
from procs.recordings.files import chains
from procs.recordings.frame_log import Policy
from procs.research import backtest
from sim.recordings.venue_staging import VenueRecording, stage_any
from sim.recordings.wire_files import WireKind, read_wire_file
from trading.instruments import Market
from trading.records import MARKET_RECORD, Kind, identity_words
from trading.venues.protocol import Streams, Venue, VenueSymbol
from trading.venues.registry import make_venue

TYPED = sorted(NAMES)


def venue_of(market: Market, **streams: Any) -> Venue:
    """The venue with two symbols."""
    symbols = [VenueSymbol(i, f"{'AB'[i] * 3}USD", name, TICK, LOT) for i, name in enumerate(NAMES[market])]
    return make_venue(market, symbols, Streams(**streams))


def sockets_of(at: Session, wires: Wires, copy: int) -> list[Any]:
    """New connections of every plan, on the first or second line of each strand; each with a market's connection."""
    return [(at.connect(strand.pair[copy].number), *wires.connect()) for strand in at.link.lines.strands]


def heard(at: Session, wires: Wires, pairs: list[Any], steps: int) -> None:
    """The market moves; all connections hear of it, each what its plan has."""
    for _ in range(steps):
        for (socket, *_), frames in zip(pairs, wires.step([it[1] for it in pairs]), strict=True):
            at.hear(socket, [raw for raw in frames if mine(at, socket, raw)])


def mine(at: Session, socket: Any, raw: bytes) -> bool:
    """Whether the plan of this connection subscribes what the frame is about."""
    if at.venue.market is not Market.BYBIT:
        return True
    others = [it.venue_name.partition(":")[2] for it in at.venue.symbols if it.index not in socket.line.plan.symbols]
    return not any(name.encode() in raw for name in others)


def begin(at: Session, wires: Wires, copy: int) -> list[Any]:
    """Connections that have had their snapshots."""
    pairs = sockets_of(at, wires, copy)
    for socket, _, opening in pairs:
        at.hear(socket, [raw for raw in opening if mine(at, socket, raw)])
    return pairs


@pytest.mark.parametrize("market", TYPED)
def test_what_is_replayed_is_what_was_live(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files that rotate every few frames, a recorder killed time and again, a connection replaced with overlap, one cut, a
    receiver killed: every record is the live one, and the check finds nothing wrong."""
    wires = Wires(market, 3)
    with session(venue_of(market), tmp_path / "raw", monkeypatch) as at:
        first = begin(at, wires, 0)
        heard(at, wires, first, 400)
        second = begin(at, wires, 1)  # overlap
        heard(at, wires, first + second, 200)
        for socket, *_ in first:
            at.cut(socket.number)
        heard(at, wires, second, 200)
        for socket, *_ in second:
            at.cut(socket.number)
        wires.step([])  # nobody hears it
        third = begin(at, wires, 0)
        heard(at, wires, third, 200)
        at.link = at.receiver()  # the old one is gone without a word
        fourth = begin(at, wires, 0)
        heard(at, wires, fourth, 200)
        at.end()
        n, valid = at.compare(tmp_path / "spool")
        files = at.files()
    assert n > 1000 and valid > 0.95 * n and len(files) > 10
    assert main(["data", "check", str(tmp_path / "raw"), "--json"]) == OK
    verdicts = json.loads(capsys.readouterr().out)
    assert [v["symbols"] for v in verdicts] == [["AAAUSD"], ["BBBUSD"]] and all(v["ok"] and v["lost"] == 0 for v in verdicts)
    assert all(v["checksums_checked"] == v["checksums_equal"] for v in verdicts)
    assert (market is Market.KRAKEN) == all(v["checksums_checked"] > 300 for v in verdicts)
    assert all(v["gaps"] == v["crossed"] == v["unknown"] == v["malformed"] == 0 for v in verdicts)
    own = [str(path) for path in files if path.parent.name == "AAAUSD"]
    assert main(["data", "cat", own[-1], "--json", "--kind", "trade"]) == OK
    assert all(json.loads(line)["price"] in ("500.0", "500.00") for line in capsys.readouterr().out.splitlines())
    records = np.concatenate(at.records)
    last = records[records["symbol"] == 0][-1]["ts_ns"]
    for words in (["--to", "npz", "--out", "a.npz"], ["--to", "csv", "--out", "csv"], ["--to", "parquet", "--out", "parquet"]):
        assert main(["data", "convert", *own, *words[:3], str(tmp_path / words[3]), "--json"]) == OK
        made = json.loads(capsys.readouterr().out)
    assert made["rows"]["market"] == int((records["symbol"] == 0).sum())
    begun = next(found.first_ns for found in files_of(own) if found.path == Path(own[-1]))
    out = ["--to", "parquet", "--out", str(tmp_path / "p"), "--json"]
    assert main(["data", "convert", own[-1], "--after", *own[:-1], *out]) == OK
    made = json.loads(capsys.readouterr().out)
    part = records[(records["symbol"] == 0) & (records["ts_ns"] >= begun)]
    assert made["rows"]["market"] == len(part) > 0 and part[-1]["ts_ns"] == last


def files_of(paths: list[str]) -> list[Any]:
    """What `data ls` knows of them."""
    return [found for chain in chains([Path(path) for path in paths]) for found in chain]


def test_a_recording_is_replayed_by_the_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The feed stage takes the notices between the frames: what it publishes are the live records."""
    wires = Wires(Market.COINBASE, 8)
    with session(venue_of(Market.COINBASE), tmp_path / "raw", monkeypatch) as at:
        first = begin(at, wires, 0)
        heard(at, wires, first, 150)
        second = begin(at, wires, 1)
        heard(at, wires, first + second, 50)
        at.cut(first[0][0].number)
        second[0][1].beat()  # lost on the way
        heard(at, wires, second, 50)
        at.cut(second[0][0].number)
        heard(at, wires, begin(at, wires, 0), 100)
        at.end()
        files = at.files()
    staged = stage_any(files, tmp_path / "spool")
    profile = load_profile("replay", {"source.files": [str(path) for path in files]})
    kept = backtest.run(plan_of(profile, staged), keep=("market",)).kept["market"]
    words = [w for w in identity_words(MARKET_RECORD).tolist() if w not in (0, 1, 2)]
    for symbol in (0, 1):
        live, replayed = (
            recs[(recs["kind"] != Kind.END) & (recs["symbol"] == symbol)].copy().view("<i8")
            .reshape(-1, MARKET_RECORD.itemsize // 8)[:, words] for recs in (np.concatenate(at.records), kept)
        )  # fmt: skip
        assert len(live) > 100 and np.array_equal(live, replayed)


@pytest.mark.parametrize("market", [Market.COINBASE])
def test_a_hole_in_the_connections_count_is_declared(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Heartbeats and other symbols' messages are no holes in a symbol's file; a true hole is told in every file, where it was."""
    wires = Wires(market, 5)
    with session(venue_of(market), tmp_path / "raw", monkeypatch) as at:
        pairs = begin(at, wires, 0)
        heard(at, wires, pairs, 300)
        pairs[0][1].beat()  # lost on the way
        heard(at, wires, pairs, 100)
        at.hear(pairs[0][0], list(pairs[0][1].opening()))
        heard(at, wires, pairs, 100)
        at.end()
        n, valid = at.compare(tmp_path / "spool")
    assert n > 400 and 0.6 * n < valid < 0.95 * n
    assert main(["data", "check", str(tmp_path / "raw"), "--json"]) == UNHEALTHY
    for verdict in json.loads(capsys.readouterr().out):
        assert verdict["lost"] == 1 and verdict["gaps"] == 0 and verdict["resyncs"] == 2
        assert [text for text in verdict["wrong"] if "declared lost" in text] == verdict["wrong"]


@pytest.mark.recordings
@pytest.mark.parametrize("name", ["BYBIT", "COINBASE", "DERIBIT", "KRAKEN", "OKX"])
def test_frames_of_the_venues_themselves(name: str, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the venues once sent, file by file on connections that take turns, with overlap: recorded, replayed, the same."""
    captured = sorted((recordings / "cryptofeed_wire").glob(f"{name}.*"))
    source = VenueRecording(captured)
    made = make_venue(source.market, source.symbols, Streams())
    frames = [[item.body for item in read_wire_file(path) if item.kind is WireKind.FRAME][:1500] for path in captured]
    frames = [one for one in frames if one] * 2
    with session(made, tmp_path / "raw", monkeypatch, policy=Policy(rotate_bytes=20_000, sync="never")) as at:
        before, rest = None, []
        for turn, one in enumerate(frames):
            socket = at.connect(at.link.lines.strands[0].pair[turn % 2].number)
            half = len(one) // 2
            for k in range(max(half, len(rest))):
                at.hear(socket, one[k : k + 1] if k < half else [])
                if before is not None:
                    at.hear(before, rest[k : k + 1])
            if before is not None:
                at.cut(before.number)
            before, rest = socket, one[half:]
        at.hear(before, rest)
        at.end()
        n, valid = at.compare(tmp_path / "spool")
    print(f"{name}: {n} records, {valid} with a good book")
    assert n > 100 and valid > 0


@pytest.mark.parametrize("market", [Market.KRAKEN, Market.COINBASE])
def test_files_that_name_no_connection_go_on_with_one_another(
    market: Market, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recordings of others, and of ours from before connections were told: the books go on from file to file, lines and losses
    are the recorder's word, and none of it is handed to the venue's decoder."""
    wires, stamp = Wires(market, 6), 1_800_000_000_000_000_000
    connection, opening = wires.connect()
    other = wires.books[1].name.encode()
    frames = [raw for raw in opening if other not in raw]
    while len(frames) < 300:
        ((raw,),) = wires.step([connection])
        of_book = b'"channel":"book"' in raw or b'"l2_data"' in raw
        frames += [raw] if of_book and other not in raw else []
    folder = tmp_path / market.name.lower() / "AAAUSD"
    folder.mkdir(parents=True)
    for n in range(3):
        lines = [b"%d %s\n" % (stamp + k, raw) for k, raw in enumerate(frames) if k // 100 == n]
        line = b'%d {"scalper":"line","s":"AAAUSD","line":0,"up":true}\n' % (stamp + 100 * n)
        (folder / f"AAAUSD_2027011{n}T000000Z.gz").write_bytes(gzip.compress(b"".join([*([] if n else [line]), *lines])))
    assert main(["data", "check", str(tmp_path), "--json"]) == OK
    (verdict,) = json.loads(capsys.readouterr().out)
    assert verdict["gaps"] == 0 and verdict["resyncs"] == 1 and verdict["events"] == 1 and len(verdict["files"]) == 3
    last = folder / "AAAUSD_20270112T000000Z.gz"
    last.write_bytes(last.read_bytes() + gzip.compress(b'%d {"scalper":"lost","s":"AAAUSD"}\n' % (stamp + 300)))
    assert main(["data", "check", str(tmp_path), "--json"]) == UNHEALTHY
    (verdict,) = json.loads(capsys.readouterr().out)
    assert verdict["lost"] == 1 and verdict["gaps"] == 0
    cut = last.read_bytes()[:-12]
    last.write_bytes(cut)
    assert main(["data", "check", str(tmp_path)]) == UNHEALTHY
    assert "ends in the middle" in capsys.readouterr().out


def test_the_depth_that_was_subscribed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kraken drops levels beyond the depth without a word: a recording of 25 levels is replayed as of 25."""
    wires = Wires(Market.KRAKEN, 9)
    with session(venue_of(Market.KRAKEN, snapshot_levels=25), tmp_path / "raw", monkeypatch, levels=25) as at:
        pairs = begin(at, wires, 0)
        heard(at, wires, pairs, 300)
        at.end()
        at.compare(tmp_path / "spool")


def test_frames_that_are_no_text_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame with blanks around it is understood live, and its base64 form is in a replay."""
    wires = Wires(Market.OKX, 4)
    with session(venue_of(Market.OKX), tmp_path / "raw", monkeypatch, policy=Policy(sync="never")) as at:
        ((socket, connection, opening),) = sockets_of(at, wires, 0)
        at.hear(socket, opening)
        for _ in range(50):
            ((raw,),) = wires.step([connection])
            at.hear(socket, [b"\t" + raw + b"\t"])
        at.end()
        n, valid = at.compare(tmp_path / "spool")
    assert n == valid > 40
