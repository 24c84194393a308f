"""The frames that `bench decode` and `bench link` work on: one symbol's, recorded or generated, in one buffer."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from procs.bench.pair import BenchError
from sim.market import generator as market_generator
from sim.market.generator import GEN_GLOBAL, GEN_STATE, MAX_FRAME_BYTES
from sim.recordings.recording import open_spool, stage
from sim.recordings.spool import OUT_END, OUT_RECV_NS, OUT_START, OUT_WORDS, next_frame
from sim.settings import Generator
from trading.instruments import Instrument, instrument_table
from trading.jit import Bytes, Recs, Words, kernel

RECORDED: Final = ("spot_btcusdt_20240808.gz", "spot_btcusdt_20240809.gz")
GENERATED_S: Final = 300.0
_GENERATED: Final = Instrument("BTCUSDT")


@dataclass(frozen=True, slots=True)
class Frames:
    """Frame i is `buf[spans[i, 0]:spans[i, 1]]`, received at `recv[i]`. `market` says where they are from."""

    market: str
    instrument: Instrument
    buf: Bytes
    spans: Words
    recv: Words

    def raw(self, i: int) -> bytes:
        """One frame as bytes."""
        return self.buf[self.spans[i, 0] : self.spans[i, 1]].tobytes()

    def all(self) -> list[bytes]:
        """Every frame as bytes."""
        text = self.buf.tobytes()
        return [text[start:end] for start, end in self.spans.tolist()]


def recorded_files() -> tuple[Path, ...]:
    """The recording to measure with when none is named: spot BTCUSDT in SCALPER_DATA; empty where it is absent."""
    root = Path(os.environ.get("SCALPER_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
    files = tuple(root / "hftbacktest_binance" / name for name in RECORDED)
    return files if all(file.is_file() for file in files) else ()


@kernel
def _walk(buf: Bytes, spans: Words, recv: Words, where: Words) -> int:
    """Fill spans and recv with every frame of the spool; how many there are."""
    n = 0
    at = next_frame(buf, 0, where)
    while at != 0:
        spans[n, 0] = where[OUT_START]
        spans[n, 1] = where[OUT_END]
        recv[n] = where[OUT_RECV_NS]
        n += 1
        at = next_frame(buf, at, where)
    return n


def load(files: Sequence[str | Path] = ()) -> Frames:
    """The frames of these recordings of one symbol, or of `recorded_files()`, or generated ones. BenchError, RecordingError."""
    paths = tuple(map(Path, files)) or recorded_files()
    if not paths:
        return generated()
    with tempfile.TemporaryDirectory(prefix="scalper-bench-") as folder:
        staged = stage(paths, Path(folder, "spool"))
        spool, _ = open_spool(Path(folder, "spool"))
        buf = np.array(spool)
    if len(staged.symbols) != 1:
        names = ", ".join(f"{symbol.name} ({symbol.market.label})" for symbol in staged.symbols)
        raise BenchError(f"the recordings hold {names}: name recordings of one symbol on one market")
    spans, recv = np.zeros((staged.n_frames, 2), np.int64), np.zeros(staged.n_frames, np.int64)
    n = _walk(buf, spans, recv, np.zeros(OUT_WORDS, np.int64))
    return Frames(", ".join(path.name for path in paths), staged.symbols[0].instrument(), buf, spans[:n], recv[:n])


def generated(
    seconds: float = GENERATED_S, *, limit: int = 0, seed: int | None = None, instrument: Instrument = _GENERATED
) -> Frames:
    """The embedded market's frames of `seconds` of its time (or its first `limit`), as the instrument's venue would send them."""
    settings = Generator(duration_s=0 if limit else seconds, seed=Generator().seed if seed is None else seed)
    table: Recs = instrument_table([instrument])
    params = market_generator.make_params(settings)
    state, glob = np.zeros(1, GEN_STATE), np.zeros(1, GEN_GLOBAL)
    market_generator.init(state, glob, params, table)
    scratch: Any = np.zeros(MAX_FRAME_BYTES, np.uint8)
    pieces: list[bytes] = []
    recv: list[int] = []
    while (not limit or len(pieces) < limit) and (n := market_generator.next_frame(state, glob, params, table, scratch)):
        pieces.append(scratch[:n].tobytes())
        recv.append(int(glob[0]["recv_ns"]))
    ends = np.cumsum([len(piece) for piece in pieces])
    spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1).astype(np.int64)
    market = f"embedded, {f'{limit} frames' if limit else f'{seconds:g} s'}, seed {settings.seed}"
    buf = np.frombuffer(b"".join(pieces) + bytes(64), np.uint8).copy()
    return Frames(market, instrument, buf, spans, np.array(recv, np.int64))
