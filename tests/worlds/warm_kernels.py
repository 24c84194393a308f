"""Compiles what many tests call besides the stages of pipelines, once for all runs of the tests, on two cores.

    python tests/worlds/warm_kernels.py recordings|columns     into NUMBA_CACHE_DIR

Both halves of `scripts/test`, and each command that a test starts, would compile it anew. Nothing depends on it: what is not
here is compiled where it is called first. Holds no tests.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPLETE = "complete-tests"
T0 = 1_723_161_253_937_085_768


def recordings(folder: Path) -> None:
    """Files of Binance's frames: staged, folded, checked; a feed that is driven by hand."""
    from market_feed import SPOT_BTC, market_records

    from procs.cli.main import main
    from sim.worlds.feed import Feed, diff, snapshot, synced, ticker

    one = [("99.00", "1")], [("101.00", "1")]
    frames = [diff(100, 100), snapshot(99, *one), diff(101, 101, *one), ticker(101, "99.00", "1", "101.00", "1")]
    lines = "".join(f"{T0 + n} {json.dumps(frame, separators=(',', ':'))}\n" for n, frame in enumerate(frames))
    path = folder / "hftbacktest_binance" / "a.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(lines.encode()))
    main(["data", "check", str(path)])
    market_records((SPOT_BTC, ("a",), 1), folder)
    synced(Feed(SPOT_BTC))


def columns(folder: Path) -> None:
    """Signals, features and candles in batch."""
    import numpy as np
    from features_markets import BTC, random_walk

    from trading import candles
    from trading.scoring.batch import Pass

    recs = random_walk(1, 200)
    for name in ("signals", "all", "score"):
        getattr(Pass([BTC]), name)(recs)
    candles.on_records(candles.make_candles(1), recs)
    few = np.arange(1, 4)
    candles.candles_of(few, few, few, few, few > 1)


def environment(cache: Path) -> dict[str, str]:
    """Of a process that compiles into this cache, each kernel where the tests look for it: else all is compiled twice."""
    from procs.kernels.choice import numba_variables

    return {**os.environ, **numba_variables(cache), "PYTHONPATH": str(ROOT)}


def compile_shared(folder: Path) -> None:
    """Into this cache, which holds the stages' kernels: each process into a copy of its own, then what each has added together.

    numba's cache is not made for two writers (procs.supervision.compiling). What fails here fails where it is called as well.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="part-") as scratch:
        parts = [Path(scratch) / name for name in ("recordings", "columns")]
        workers = []
        for part in parts:
            shutil.copytree(folder, part, copy_function=os.link, ignore=shutil.ignore_patterns("part-*"))
            command = [sys.executable, __file__, part.name]
            workers.append(subprocess.Popen(command, env=environment(part), stdout=subprocess.DEVNULL))
        for worker in workers:
            worker.wait()
        taken: set[Path] = set()
        for part in parts:
            for index in sorted(part.rglob("*.nbi")):
                name = index.relative_to(part)
                place = folder / name
                if name in taken or (place.exists() and place.samefile(index)):
                    continue
                taken.add(name)
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                for code in index.parent.glob(f"{index.name.removesuffix('.nbi')}.*.nbc"):
                    os.replace(code, place.parent / code.name)
                os.replace(index, place)
    (folder / COMPLETE).touch()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="scalper-warm-") as scratch:
        {"recordings": recordings, "columns": columns}[sys.argv[1]](Path(scratch))
