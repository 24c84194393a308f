"""Files made to fill the memory: gzip, zip and heads of arrays that promise more than a machine holds. Each is refused with a
sentence that names the limit, by a process that stayed small."""

from __future__ import annotations

import gzip
import io
import resource
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from measured_child import run

from procs.cli.outcome import OK, UNHEALTHY, USAGE
from procs.recordings.hftbacktest import BUY_EVENT, DEPTH_EVENT, EVENT, LOCAL_EVENT

pytestmark = pytest.mark.hostile

T0 = 1_723_161_253_937_085_768
PEAK = 300 << 20
SECONDS = 5.0
BOMB = 3 << 30
"""Bytes that each bomb becomes; as a file it has about three MB."""
FRAME = b'%d {"stream":"btcusdt@trade","data":{"e":"trade","E":1,"s":"BTCUSDT","t":1,"p":"1","q":"1","T":1,"m":true}}\n' % T0
WIRE = b'wss://stream.binance.com:9443/ws <-> 1633998512.5\n1633998512.06: {"result":null,"id":1}\n'
ROW = b"binance,BTCUSDT,1640995200000000,1640995200000000,1,buy,1,1\n"
CSV = b"exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n" + ROW


def packed(path: Path, head: bytes, piece: bytes, size: int = BOMB) -> Path:
    """A gzip of `head` and then `size` bytes of `piece` over and over, in members of 64 MB: packed once, written many times."""
    block = piece * ((1 << 26) // len(piece))
    path.write_bytes(gzip.compress(head) + gzip.compress(block, 6) * max(size // len(block), 1))
    return path


def members(path: Path, head: bytes) -> Path:
    """A gzip of 150,000 empty members behind one that is none."""
    path.write_bytes(gzip.compress(head) + gzip.compress(b"") * 150_000)
    return path


def npz(path: Path, shape: str, body: int) -> Path:
    """An npz whose array's head says `shape`, and `body` zero bytes behind it, deflated in small memory."""
    fields = repr(np.lib.format.dtype_to_descr(EVENT))
    text = f"{{'descr': {fields}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text = text.ljust(-(-(len(text) + 11) // 64) * 64 - 11) + b"\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("data.npy", "w", force_zip64=True) as member:
        member.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
        for at in range(0, body, 1 << 20):
            member.write(bytes(min(1 << 20, body - at)))
    return path


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> float:
    """Processor seconds that a sound check takes once its kernels are compiled: what a refusal is measured against."""
    sound = tmp_path_factory.mktemp("sound") / "a.gz"
    sound.write_bytes(gzip.compress(FRAME))
    run("data", "check", sound)
    code, said, seconds, peak = run("data", "check", sound)
    assert code == OK and peak < PEAK, said
    return seconds


BOMBS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "blanks": (lambda d: packed(d / "a.gz", FRAME, b" "), "more than 16 MB of blanks"),
    "blank lines": (lambda d: packed(d / "a.gz", FRAME, b"\n"), "more than 16 MB of blanks"),
    "blanks from the beginning": (lambda d: packed(d / "a.gz", b"", b" \n"), "is no recording"),
    "one long line": (lambda d: packed(d / "a.gz", FRAME + b"%d {" % T0, b"[[1,1],"), "line is longer than 16 MB"),
    "empty members": (lambda d: members(d / "a.gz", b"hello\n"), "is no recording"),
    "a capture of blanks": (lambda d: packed(d / "a.gz", WIRE, b"\n"), "more than 16 MB of blanks"),
    "a capture of one line": (lambda d: packed(d / "a.gz", WIRE + b"1633998512.06: ", b"[[1,1],"), "line is longer than 32 MB"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_small_and_soon(tmp_path: Path, warm: float, name: str) -> None:
    """`data check` names file, line and limit; it stays below 300 MB and takes less than five seconds of the processor."""
    make, named = BOMBS[name]
    path = make(tmp_path)
    code, said, seconds, peak = run("data", "check", path)
    assert code == USAGE and named in said and str(path) in said, said
    assert peak < PEAK and seconds < SECONDS + warm, (peak, seconds, warm)


@pytest.mark.parametrize("words", [("ls",), ("cat",), ("convert", "--to", "csv", "--out")])
def test_every_command_reads_within_bounds(tmp_path: Path, warm: float, words: tuple[str, ...]) -> None:
    """`ls` says why it does not count the file and goes on; `cat` and `convert` refuse it."""
    path = packed(tmp_path / "a.gz", FRAME + b"%d {" % T0, b"[[1,1],")
    code, said, seconds, peak = run("data", words[0], path, *words[1:], *((tmp_path / "out",) if len(words) > 1 else ()))
    assert code == (OK if words[0] == "ls" else USAGE) and "a.gz:2: the line is longer than 16 MB" in said, said
    assert peak < PEAK and seconds < SECONDS + warm, (peak, seconds)


TABLES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "csv blanks": (lambda d: packed(d / "a.csv.gz", CSV, b" "), "line is longer than 1 MB"),
    "csv blank lines": (lambda d: packed(d / "a.csv.gz", CSV, b"\n"), "more than 16 MB of blanks"),
    "csv without a line end": (lambda d: packed(d / "a.csv.gz", CSV, b"1,1,"), "line is longer than 1 MB"),
    "csv in quotes": (lambda d: packed(d / "a.csv.gz", CSV + b'"', b"1,\n"), "field"),
    "csv of one moment": (lambda d: packed(d / "a.csv.gz", CSV, ROW, 1 << 26), "rows of one local time"),
    "csv of empty members": (lambda d: members(d / "a.csv.gz", b"a,b\n"), "of no kind that is known"),
    "npz of zeros": (lambda d: npz(d / "a.npz", f"({(1 << 30) // EVENT.itemsize},)", 1 << 30), "more than 200 for each"),
    "npz of a long shape": (lambda d: npz(d / "a.npz", f"({10**15},)", 64), "head says"),
    "npz of a negative shape": (lambda d: npz(d / "a.npz", "(-1,)", 64), "head says"),
    "npz of many axes": (lambda d: npz(d / "a.npz", f"({','.join(['1000000'] * 30)})", 64), "head says"),
    "npz of no shape": (lambda d: npz(d / "a.npz", "'x'", 64), "is no npz"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_bursts_is_refused_small_and_soon(tmp_path: Path, warm: float, name: str) -> None:
    """`data convert` of CSV and npz: the same, and nothing is left where the recording would be."""
    make, named = TABLES[name]
    path, out = make(tmp_path), tmp_path / "out.gz"
    code, said, seconds, peak = run("data", "convert", path, "--to", "recording", "--symbol", "BTCUSDT", "--out", out)
    assert code == USAGE and named in said and str(path) in said, said
    assert sorted(tmp_path.iterdir()) == [path]
    assert peak < PEAK and seconds < SECONDS + warm, (peak, seconds, warm)


def test_a_bomb_in_a_folder_does_not_hide_the_others(tmp_path: Path, warm: float) -> None:
    """The sound file beside it is judged, the bomb is named, the exit code says 5."""
    (tmp_path / "sound.gz").write_bytes(gzip.compress(FRAME))
    packed(tmp_path / "bomb.gz", FRAME, b" ")
    code, said, seconds, peak = run("data", "check", tmp_path)
    assert code == UNHEALTHY and "1 ok, 1 unreadable" in said and "more than 16 MB of blanks" in said
    assert peak < PEAK and seconds < SECONDS + warm


def test_what_is_large_but_sound_is_read(tmp_path: Path) -> None:
    """An npz of many rows in few bytes is data as long as it is not beyond all measure: repeated books inflate a hundredfold."""
    from procs.recordings import hftbacktest

    events = np.zeros(200_000, EVENT)
    events["ev"], events["px"], events["qty"] = DEPTH_EVENT | BUY_EVENT | LOCAL_EVENT, 1.0, 2.0
    events["local_ts"] = events["exch_ts"] = T0 + np.arange(len(events))
    raw = io.BytesIO()
    np.savez_compressed(raw, data=events)
    (tmp_path / "a.npz").write_bytes(raw.getvalue())
    assert len(hftbacktest.load(tmp_path / "a.npz")) == len(events)


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """This process makes the bombs: it stays small too."""
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10 < 2 << 30
