"""Recordings become spools: what is written is what was recorded, and whatever cannot be used is refused by file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from sim.recordings.recording import RecordingError, infer_instrument, next_frame, open_spool, stage
from sim.recordings.spool import DATA_OFFSET, OUT_END, OUT_RECV_NS, OUT_START, OUT_SYMBOL, OUT_WORDS
from trading.instruments import Market

T0 = 1_723_161_253_937_085_768


def bbo(symbol: str = "BTCUSDT", bid: str = "61837.63000000", qty: str = "3.78826000") -> str:
    """A bookTicker frame."""
    return json.dumps(
        {
            "stream": f"{symbol.lower()}@bookTicker",
            "data": {"u": 5, "s": symbol, "b": bid, "B": qty, "a": "61837.64000000", "A": qty},
        },
        separators=(",", ":"),
    )


def depth(symbol: str = "BTCUSDT", pu: bool = False) -> str:
    """A depthUpdate frame, of USD-M with `pu`."""
    previous = {"pu": 3} if pu else {}
    event = {
        "e": "depthUpdate",
        "E": 1,
        "s": symbol,
        "U": 4,
        "u": 5,
        **previous,
        "b": [["61837.60000000", "0.00000000"]],
        "a": [],
    }
    return json.dumps({"stream": f"{symbol.lower()}@depth@100ms", "data": event}, separators=(",", ":"))


def lines(*frames: str, start: int = T0, step: int = 1000) -> str:
    """A recording of these frames."""
    return "".join(f"{start + k * step} {frame}\n" for k, frame in enumerate(frames))


def written(path: Path, text: str | bytes) -> Path:
    """A file with this content."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def content(spool_path: Path) -> list[tuple[int, int, bytes]]:
    """(recv_ns, symbol, frame) of every frame, as the kernel walks them."""
    spool, staged = open_spool(spool_path)
    out = np.zeros(OUT_WORDS, np.int64)
    rows, offset = [], 0
    while offset := next_frame(spool, offset, out):
        assert out[OUT_START] % 8 == 0
        rows.append((int(out[OUT_RECV_NS]), int(out[OUT_SYMBOL]), spool[out[OUT_START] : out[OUT_END]].tobytes()))
    assert len(rows) == staged.n_frames
    return rows


def test_a_spool_holds_the_recorded_bytes(tmp_path: Path) -> None:
    """Plain and gzip, LF and CRLF, blank lines, no newline at the end: the same frames with their stamps."""
    frames = [bbo(), depth(), bbo(bid="61837.00000000")]
    wanted = [(T0 + k * 1000, 0, frame.encode()) for k, frame in enumerate(frames)]
    text = lines(*frames)
    for name, raw in (
        ("plain", text.encode()),
        ("crlf", text.replace("\n", "\r\n").encode()),
        ("blank", text.replace("\n", "\n\n").encode()),
        ("open", text.rstrip("\n").encode()),
        ("gz", gzip.compress(text.encode())),
        ("members", gzip.compress(text[:200].encode()) + gzip.compress(text[200:].encode())),
    ):
        staged = stage([written(tmp_path / name, raw)], tmp_path / "out.spool")
        assert content(tmp_path / "out.spool") == wanted, name
        assert (staged.n_frames, staged.first_recv_ns, staged.last_recv_ns, staged.clamped) == (3, T0, T0 + 2000, 0)
        assert open_spool(tmp_path / "out.spool")[1] == staged


def test_symbols_are_merged_by_time_and_files_of_one_are_joined(tmp_path: Path) -> None:
    """Merged by receive time, ties to the symbol named first; the files of a symbol in the order of time, not of naming."""
    late = written(tmp_path / "btc2", lines(bbo(), bbo(), start=T0 + 10_000))
    eth = written(tmp_path / "eth", lines(*[bbo("ETHUSDT")] * 13))
    early = written(tmp_path / "btc1", lines(bbo(), bbo()))
    futures = written(tmp_path / "usdm", lines(depth(pu=True), start=T0 + 500))
    staged = stage([late, eth, early, futures], tmp_path / "out.spool")
    assert [(s.name, s.market, s.n_frames) for s in staged.symbols] == [
        ("BTCUSDT", Market.BINANCE_SPOT, 4),
        ("ETHUSDT", Market.BINANCE_SPOT, 13),
        ("BTCUSDT", Market.BINANCE_USDM, 1),
    ]
    rows = content(tmp_path / "out.spool")
    keys = [(recv, symbol) for recv, symbol, _ in rows]
    assert keys == sorted(keys) and len(keys) == 18
    assert keys[:3] == [(T0, 0), (T0, 1), (T0 + 500, 2)] and keys[-1] == (T0 + 12_000, 1)


def test_a_clock_that_goes_backwards_is_clamped_and_counted(tmp_path: Path) -> None:
    """A stamp below the one before it is raised to it, within a file and across files of a symbol."""
    text = f"{T0 + 5000} {bbo()}\n{T0 + 1000} {bbo()}\n{T0 + 6000} {bbo()}\n"
    staged = stage([written(tmp_path / "a", text)], tmp_path / "out.spool")
    assert [row[0] - T0 for row in content(tmp_path / "out.spool")] == [5000, 5000, 6000]
    assert staged.clamped == 1


BROKEN: list[tuple[str, str | bytes, str]] = [
    ("empty", "", "a: is empty"),
    ("blank lines only", "\n\n\n", "holds no frame"),
    ("no stamp", lines(bbo()) + bbo() + "\n", "a:2: the line does not begin with a receive time"),
    ("stamp with a letter", f"17231x {bbo()}\n", "a:1: the line does not begin with a receive time"),
    ("stamp too long", f"{T0}0 {bbo()}\n", "a:1: the line does not begin with a receive time"),
    ("stamp in no unit", f"17231612539 {bbo()}\n", "a:1: the line has a receive time that is no Unix time in s, ms, us or ns"),
    ("stamp alone", lines(bbo()) + f"{T0}\n", "a:2: the line has a receive time but no frame"),
    ("text for a frame", lines(bbo(), "hello"), r"a:2: the line has no \{json\} frame"),
    ("frame cut in a middle line", lines(bbo(), bbo()[:40], bbo()), r"a:2: the line has no \{json\} frame"),
    ("last line cut", lines(bbo(), bbo())[:-30], "a:2: the last line ends in the middle"),
    ("binary", bytes(range(256)) * 40, "a:1: the line does not begin with a receive time"),
    ("unknown venue", lines('{"channel":"trades","symbol":"BTC-USD"}'), "no depthUpdate, bookTicker or trade frame of Binance"),
    ("answers only", lines('{"result":null,"id":1}'), "no depthUpdate, bookTicker or trade frame of Binance"),
    ("two symbols", lines(bbo(), bbo(), bbo("ETHUSDT")), "a:3: names ETHUSDT where the lines before name another symbol"),
    ("two markets", lines(bbo(), depth(), depth(pu=True)), "holds frames of Binance spot .* and of USD-M"),
    ("no price", lines(bbo(bid="x").replace("61837.64000000", "y")), "no frame of BTCUSDT holds a price"),
    (
        "truncated gzip",
        gzip.compress(lines(*[bbo(bid=f"6{k}.5") for k in range(2000)]).encode())[:-200],
        "ends in the middle; lines 1 to",
    ),
    ("gzip of one byte more", gzip.compress(lines(bbo()).encode())[:12], "holds no frame|ends in the middle"),
    ("damaged gzip", b"\x1f\x8b\x08\x00" + bytes(200), "the gzip data is damaged; it holds no whole frame"),
    ("bad checksum", gzip.compress(lines(bbo()).encode())[:-8] + bytes(8), "the gzip data does not fit its checksum"),
]


@pytest.mark.parametrize(("name", "raw", "message"), BROKEN, ids=[row[0] for row in BROKEN])
def test_what_cannot_be_used_is_refused_by_place(tmp_path: Path, name: str, raw: str | bytes, message: str) -> None:
    """RecordingError names file (and line), nothing is left behind, and an older spool at the place stays as it was."""
    out = tmp_path / "spools" / "out.spool"
    out.parent.mkdir()
    out.write_text("older")
    with pytest.raises(RecordingError, match=message) as caught:
        stage([written(tmp_path / "a", raw)], out)
    assert str(tmp_path / "a") in str(caught.value) and "\n" not in str(caught.value)
    assert [path.name for path in out.parent.iterdir()] == ["out.spool"] and out.read_text() == "older"


def test_a_damaged_frame_is_not_another_market(tmp_path: Path) -> None:
    """A USD-M message whose `pu` is damaged looks like one of spot: one in hundreds leaves the file USD-M's."""
    frames = [depth(pu=True) for _ in range(200)]
    frames[77] = frames[77].replace('"pu"', '"xu"')
    staged = stage([written(tmp_path / "a", lines(*frames))], tmp_path / "out.spool")
    assert [symbol.market for symbol in staged.symbols] == [Market.BINANCE_USDM]
    assert len(content(tmp_path / "out.spool")) == 200


def test_paths_that_are_no_recordings(tmp_path: Path) -> None:
    """A missing file, a directory, nothing at all, an out folder that is not there: each its own sentence."""
    good = written(tmp_path / "good", lines(bbo()))
    out = tmp_path / "out.spool"
    for files, message in (
        ([tmp_path / "nowhere"], "nowhere: No such file or directory; check the path"),
        ([tmp_path], "is a directory; name the recording files"),
        ([], "no recording given"),
        ([good, tmp_path / "nowhere"], "nowhere"),
    ):
        with pytest.raises(RecordingError, match=message):
            stage(files, out)
        assert not out.exists()
    with pytest.raises(RecordingError, match="needs a folder that can be written"):
        stage([good], tmp_path / "no" / "out.spool")


def test_a_truncated_tail_can_be_allowed(tmp_path: Path) -> None:
    """allow_truncated takes the whole lines of a cut gzip and of a cut plain file, and says up to which line."""
    rng = np.random.default_rng(1)
    frames = [bbo(bid=f"{price}.5") for price in rng.integers(10_000, 99_999, 3000)]
    text = lines(*frames)
    cut = written(tmp_path / "gz", gzip.compress(text.encode())[:-3000])
    staged = stage([cut], tmp_path / "out.spool", allow_truncated=True)
    rows = content(tmp_path / "out.spool")
    assert 1000 < len(rows) < 3000 and [row[2].decode() for row in rows] == frames[: len(rows)]
    assert staged.notes == (f"{cut}: the gzip data ends in the middle; lines 1 to {len(rows)} are whole",)
    plain = written(tmp_path / "plain", text[:-20])
    staged = stage([plain], tmp_path / "out.spool", allow_truncated=True)
    assert staged.n_frames == 2999 and "3000: the last line ends in the middle; lines 1 to 2999 are whole" in staged.notes[0]


def test_progress_reaches_its_total(tmp_path: Path) -> None:
    """progress(done, total) rises to the files' size on disk."""
    files = [written(tmp_path / "a", lines(*[bbo()] * 9)), written(tmp_path / "b", gzip.compress(lines(bbo("ETHUSDT")).encode()))]
    calls: list[tuple[int, int]] = []
    stage(files, tmp_path / "out.spool", progress=lambda done, total: calls.append((done, total)))
    total = sum(path.stat().st_size for path in files)
    assert calls[-1] == (total, total) and calls == sorted(calls)


def test_tick_lot_and_step_come_from_what_is_printed(tmp_path: Path) -> None:
    """The greatest common tick of all prices; a spot lot is 1e-8, a futures lot what is printed; the step is the coarsest
    power of ten that 99 % of the quantities keep."""
    spot = [bbo(bid="61837.65000000", qty="1.50000000"), bbo(bid="61837.00000000", qty="0.00100000")] * 60
    spot.append(bbo(bid="61836.50000000", qty="0.00000017").replace("61837.64", "61837.60"))
    instrument = infer_instrument(written(tmp_path / "a", lines(*[frame.replace("61837.64", "61837.60") for frame in spot])))
    assert (instrument.tick_size, instrument.lot_size, instrument.step_size, instrument.min_qty) == (
        "0.05",
        "0.00000001",
        "0.001",
        "0.001",
    )
    usdm = depth(pu=True).replace("61837.60000000", "61837.50").replace("0.00000000", "0.250")
    instrument = infer_instrument(written(tmp_path / "b", lines(usdm, usdm.replace("61837.50", "61840.00"))))
    assert (instrument.tick_size, instrument.lot_size, instrument.market) == ("2.5", "0.001", Market.BINANCE_USDM)


def test_what_is_no_spool_is_refused(tmp_path: Path) -> None:
    """Missing, short, foreign, cut: each a RecordingError that says to stage again."""
    stage([written(tmp_path / "a", lines(bbo(), bbo()))], tmp_path / "good.spool")
    good = (tmp_path / "good.spool").read_bytes()
    for name, raw in (("short", good[:100]), ("foreign", bytes(DATA_OFFSET * 2)), ("cut", good[:-8]), ("empty", b"")):
        with pytest.raises(RecordingError, match="stage the recording again"):
            open_spool(written(tmp_path / name, raw))
    with pytest.raises(RecordingError, match="stage the recording again"):
        open_spool(tmp_path / "nowhere")


REAL = [
    (["spot_btcusdt_20240808", "spot_btcusdt_20240809"], 99_574, "0.01", "0.00000001", "0.00001", Market.BINANCE_SPOT),
    (["spot_ethusdt_20240808", "spot_ethusdt_20240809"], 79_744, "0.01", "0.00000001", "0.0001", Market.BINANCE_SPOT),
    (["usdm_btcusdt_20240808"], 93_954, "0.1", "0.001", "0.001", Market.BINANCE_USDM),
    (["usdm_ethusdt_20240808"], 74_655, "0.01", "0.001", "0.001", Market.BINANCE_USDM),
]


@pytest.mark.parametrize(("names", "n", "tick", "lot", "step", "venue"), REAL, ids=[row[0][0] for row in REAL])
def test_the_recordings_stage_whole(
    recordings: Path, tmp_path: Path, names: list[str], n: int, tick: str, lot: str, step: str, venue: Market
) -> None:
    """All messages of the real recordings, byte for byte and in order, with the instruments' true tick, lot and step."""
    files = [recordings / "hftbacktest_binance" / f"{name}.gz" for name in names]
    staged = stage(list(reversed(files)), tmp_path / "out.spool")
    (symbol,) = staged.symbols
    assert (staged.n_frames, symbol.market, staged.clamped) == (n, venue, 0)
    instrument = symbol.instrument()
    assert (instrument.tick_size, instrument.lot_size, instrument.step_size) == (tick, lot, step)
    wanted = b"".join(gzip.decompress(path.read_bytes()) for path in files).splitlines()
    assert [b"%d %s" % (recv, frame) for recv, _, frame in content(tmp_path / "out.spool")] == wanted
