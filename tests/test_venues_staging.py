"""Wire files and their spools: every line told apart, errors by file and line, frames as decoded, in time order."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from sim.recordings.recording import stage
from sim.recordings.spool import OUT_END, OUT_RECV_NS, OUT_START, OUT_SYMBOL, OUT_WORDS, RecordingError, next_frame, open_spool
from sim.recordings.venue_staging import decode_wire_files, stage_any, stage_wire, venue_of
from sim.recordings.wire_files import WireKind, read_wire_file, read_wire_files
from sim.worlds.feed import Feed
from trading.instruments import Market

FRAMES = (
    b"wss://ws.okx.com:8443/ws/v5/public <-> 1652459224.5300605\n"
    b'wss://ws.okx.com:8443/ws/v5/public <- 1652459225.2987883: {"op":"subscribe","args":[]}\n'
    b'configuration: {"l2_book":["A-B"]}\n\n'
    b'1652459225.5073643: {"arg":{"channel":"books","instId":"A-B"},"action":"snapshot","data":[{"asks":[["2.5","1","0","1"]],'
    b'"bids":[["2","0.25","0","1"]],"ts":"1652459225393","checksum":1,"seqId":5,"prevSeqId":-1}]}\n'
    b'1652459225.50737: {"arg":{"channel":"trades","instId":"A-B"},"data":[{"instId":"A-B","tradeId":"7","px":"2.5","sz":"1",'
    b'"side":"buy","ts":"1652459225400"}]}\n'
)

TAKEN = ("snapshots", "snapshots_ignored", "depth_messages", "bbos", "trades")
"""What the feed counts of the frames that it has taken, by kind."""


def written(path: Path, text: bytes) -> Path:
    """The file, gzip where its name says so."""
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def spooled(path: Path) -> list[tuple[int, int, bytes]]:
    """(recv_ns, symbol, bytes) of all frames of a spool."""
    spool, _ = open_spool(path)
    out, found, at = np.zeros(OUT_WORDS, np.int64), [], 0
    while at := next_frame(spool, at, out):
        found.append((int(out[OUT_RECV_NS]), int(out[OUT_SYMBOL]), spool[out[OUT_START] : out[OUT_END]].tobytes()))
    return found


@pytest.mark.parametrize("name", ["OKX.ws", "OKX.ws.gz"])
def test_lines_are_told_apart(tmp_path: Path, name: str) -> None:
    """Connects, sent messages, frames with their stamps to the last digit; frames know their connection."""
    items = list(read_wire_file(written(tmp_path / name, FRAMES)))
    assert [item.kind for item in items] == [WireKind.CONNECT, WireKind.SENT, WireKind.FRAME, WireKind.FRAME]
    assert [item.recv_ns for item in items][0::2] == [1652459224530060500, 1652459225507364300]
    assert {item.connection for item in items} == {"wss://ws.okx.com:8443/ws/v5/public"}
    assert [item.line for item in items] == [1, 2, 5, 6]


@pytest.mark.parametrize(("text", "what"), [
    (FRAMES + b"what is this\n", r":7: the line is of no known form"),
    (FRAMES + b"1652459225.5: \n", r":7: the line is of no known form"),
    (FRAMES + b'1652459226.5: {"arg":{"chan', r":7: the last line ends in the middle"),
])  # fmt: skip
def test_odd_lines_are_named(tmp_path: Path, text: bytes, what: str) -> None:
    """A line of no known form, and a tail that is cut off, are errors that name file and line."""
    with pytest.raises(RecordingError, match=what):
        list(read_wire_file(written(tmp_path / "OKX.ws", text)))


def test_cut_gzip_is_named_or_allowed(tmp_path: Path) -> None:
    """A gzip that ends or breaks in the middle is an error, or ends there if that is allowed, and the note says how."""
    whole = gzip.compress(FRAMES * 200, mtime=0)
    path = tmp_path / "OKX.ws.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordingError, match=r"OKX.ws.gz: the gzip data ends in the middle; lines 1 to \d+ are whole"):
        list(read_wire_file(path))
    assert list(read_wire_file(path, allow_truncated=True))
    path.write_bytes(whole[:100] + b"\0" * 50 + whole[150:])
    with pytest.raises(RecordingError, match="gzip data is damaged"):
        list(read_wire_file(path))
    cut: list[str] = []
    list(read_wire_file(path, allow_truncated=True, cut=cut))
    assert "the gzip data is damaged; lines 1 to" in cut[0]
    with pytest.raises(RecordingError, match="check the path"):
        list(read_wire_file(tmp_path / "none"))


def test_files_are_merged_by_time(tmp_path: Path) -> None:
    """Several files become one stream in the order of time; a stamp that runs backwards is raised."""
    one = written(tmp_path / "a", b"1000000001.0: {}\n1000000003.0: {}\n1000000002.0: {}\n")
    two = written(tmp_path / "b", b"1000000001.0: []\n1000000002.5: []\n1000000004: []\n")
    found = [(item.recv_ns // 10**8 - 10**10, item.body) for item in read_wire_files([one, two])]
    assert found == [(10, b"{}"), (10, b"[]"), (25, b"[]"), (30, b"{}"), (30, b"{}"), (40, b"[]")]


def test_a_wire_file_becomes_a_spool(tmp_path: Path) -> None:
    """Ticks and lots from the digits; frames plain; the same by decode_wire_files and in the spool."""
    path = written(tmp_path / "x.gz", FRAMES)
    assert venue_of(path) is Market.OKX
    found = decode_wire_files([path])
    assert dict(found.counts) == {"Plain": 2}
    told: list[tuple[int, int]] = []
    staged = stage_wire([path], tmp_path / "x.spool", progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (path.stat().st_size, path.stat().st_size)
    (symbol,) = staged.symbols
    assert (symbol.name, symbol.market, symbol.n_frames) == ("AB", Market.OKX, 2)
    assert (symbol.instrument().tick_size, symbol.instrument().lot_size) == ("0.5", "0.01")
    assert spooled(staged.path) == [(it.recv_ns, it.symbol, it.frame) for it in found.frames]
    _, again = open_spool(staged.path)
    assert again.symbols == staged.symbols and again.n_bytes == staged.n_bytes


def test_rules_of_the_list_are_taken_where_they_hold(tmp_path: Path) -> None:
    """The instrument list's tick and lot count if all that was printed keeps to them, else the digits do."""
    url = b"https://www.okx.com/api/v5/public/instruments?instType=SPOT -> 1652459220.1: "
    for tick, lot, want in ((b"0.1", b"0.001", ("0.1", "0.001")), (b"0.2", b"0.1", ("0.5", "0.01"))):
        listed = b'{"code":"0","data":[{"instId":"A-B","tickSz":"%s","lotSz":"%s","minSz":"1","maxLmtSz":"9","state":"live"}]}\n'
        path = written(tmp_path / "OKX.gz", url + listed % (tick, lot) + FRAMES)
        (symbol,) = decode_wire_files([path]).symbols
        assert (symbol.tick_size, symbol.lot_size) == want


def test_what_cannot_be_staged_is_said(tmp_path: Path) -> None:
    """No file, no venue, several venues, no market frame, a spool folder that is none."""
    okx = written(tmp_path / "OKX.ws", FRAMES)
    odd = written(tmp_path / "odd", b"1000000001.0: {}\n")
    kraken = written(tmp_path / "KRAKEN.x", b"1000000001.0: {}\n")
    for paths, market, what in (
        ([], None, "no recording given"), ([odd], None, "of no venue that is known here"),
        ([okx, kraken], None, "several venues"),
        ([kraken], None, "no market frame of kraken"), ([okx], Market.CCXT, "no decoder"),
    ):  # fmt: skip
        with pytest.raises(RecordingError, match=what):
            stage_wire(paths, tmp_path / "s", market)
    with pytest.raises(RecordingError, match="needs a folder"):
        stage_wire([okx], tmp_path / "none" / "s")
    assert not list(tmp_path.glob(".s*"))


def test_unknown_and_missed_are_noted(tmp_path: Path) -> None:
    """What a decoder could not take is counted, with file and line, and noted in the spool's description."""
    path = written(tmp_path / "OKX.ws", FRAMES + b'1652459226.5: {"arg":{"channel":"new"},"data":[{}]}\n')
    found = decode_wire_files([path])
    assert len(found.unknown) == 1 and found.unknown[0].startswith(f"{path}:7: ")
    assert "1 frames were not understood" in stage_wire([path], tmp_path / "s").notes[0]


@pytest.mark.recordings
@pytest.mark.parametrize(("name", "n_frames"), [("BINANCE", 267), ("BINANCE_FUTURES", 1472)])
def test_binance_wire_files_feed_the_scanner(recordings: Path, tmp_path: Path, name: str, n_frames: int) -> None:
    """Market frames and REST snapshots stay raw, and the compiled scanner takes every one, for the symbol that it is of."""
    staged = stage_wire(sorted((recordings / "cryptofeed_wire").glob(f"{name}.*")), tmp_path / "b.spool")
    feed = Feed(*(symbol.instrument() for symbol in staged.symbols))
    sent = [0] * len(staged.symbols)
    for _, symbol, raw in spooled(staged.path):
        feed.send(raw, hint=symbol)
        sent[symbol] += 1
    taken = [[feed.count(name, symbol) for name in TAKEN] for symbol in range(len(sent))]
    assert [sum(row) for row in taken] == sent and sum(sent) == n_frames
    assert sum(row[0] + row[1] for row in taken) == 4, "snapshots, and those that were of no use"
    assert feed.glob[0]["unknown"] == feed.glob[0]["malformed"] == feed.glob[0]["odd"] == 0


def test_our_own_binance_files_take_the_short_way(tmp_path: Path) -> None:
    """stage_any makes the same spool of them as sim.recordings.recording does; of another venue's it makes plain frames."""
    line = b'1723161256000000000 {"stream":"ab@trade","data":{"e":"trade","s":"ABUSDT","t":1,"p":"1","q":"2","T":1,"m":true}}\n'
    ours = written(tmp_path / "ab.gz", line * 3)
    assert stage_any([ours], tmp_path / "one").symbols == stage([ours], tmp_path / "two").symbols
    assert spooled(tmp_path / "one") == spooled(tmp_path / "two")
    other = written(
        tmp_path / "c.gz", b"".join(b"1723161256000000000 " + line.split(b": ", 1)[1] + b"\n" for line in FRAMES.splitlines()[4:])
    )
    assert stage_any([other], tmp_path / "three").symbols[0].market is Market.OKX
    assert len(spooled(tmp_path / "three")) == 2
