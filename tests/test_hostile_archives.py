"""Files of others made to fill the memory: each is refused with a sentence that names the place, by a small process."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import archive_files as af
import pytest
from measured_child import run

from procs.cli.outcome import USAGE

pytestmark = pytest.mark.hostile

PEAK = 300 << 20
SECONDS = 5.0
BLOCK = 1 << 26
BOMB = 1 << 31
ROW = b"5000000,42300.1,0.100,5000000,5000000,1704067200123,true\n"
NAME = "BTCUSDT-aggTrades-2024-01-01.csv"


def packed(path: Path, head: bytes, piece: bytes) -> Path:
    """A gzip of `head` and then BOMB bytes of `piece`, packed once and written many times."""
    block = gzip.compress(piece * (BLOCK // len(piece)), 6)
    path.write_bytes(gzip.compress(head) + block * (BOMB // BLOCK))
    return path


def zipped(path: Path, head: bytes, piece: bytes) -> Path:
    """The same as a member of a zip, of an eighth of the size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(NAME, "w", force_zip64=True) as member:
        member.write(head)
        for _ in range(BOMB // BLOCK // 8):
            member.write(piece * (BLOCK // len(piece)))
    return path


def many(path: Path) -> Path:
    """A zip of very many empty files."""
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(20_000):
            archive.writestr(f"{number}.csv", b"")
    return path


JSON = ("BTC_USDT-trades.json.gz", b'[[1704067200123,"1",null,"buy",1.0,2.0,2.0],', b" " * 64, "a row is longer")
OB = af.ob500(af.market(steps=1)[0]).encode()
BOMBS = {
    "blank lines": lambda d: (packed(d / f"{NAME}.gz", ROW, b"\n" * 64), "blank lines together"),
    "one line": lambda d: (packed(d / f"{NAME}.gz", ROW, b"9" * 64), "longer than 1 MB"),
    "one line in a zip": lambda d: (zipped(d / "BTCUSDT-aggTrades-2024-01-01.zip", ROW, b"9" * 64), "longer than 1 MB"),
    "blanks in a zip": lambda d: (zipped(d / "BTCUSDT-aggTrades-2024-01-01.zip", ROW, b" \n" * 32), "blank lines together"),
    "a message": lambda d: (packed(d / "x_BTCUSDT_ob500.data.gz", OB, b"[" * 64), "longer than 1 MB"),
    "a row of json": lambda d: (packed(d / JSON[0], JSON[1], JSON[2]), JSON[3]),
    "nothing but blanks": lambda d: (packed(d / f"{NAME}.gz", b"\n", b" " * 64), "of no kind that is known"),
    "many files": lambda d: (many(d / "many.zip"), "more than 1000"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_is_held(tmp_path: Path, name: str) -> None:
    """Two GB behind a sound beginning: one sentence, the exit code of a wrong input, 300 MB and five seconds at most."""
    path, words = BOMBS[name](tmp_path)
    code, said, seconds, peak = run("data", "convert", path, "--to", "recording", "--out", tmp_path / "x.gz")
    assert code == USAGE and words in said and said.count("\n") == 1, said
    assert peak <= PEAK and seconds <= SECONDS, (peak, seconds)
    assert not (tmp_path / "x.gz").exists()
