"""`features`: every signal and feature of recorded frames as columns of one file, Parquet or CSV."""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from procs.cli import running
from procs.cli.outcome import INTERRUPTED, OK, UNHEALTHY, USAGE, CliError
from procs.cli.progress import Progress
from procs.cli.report import use_kernel_cache
from procs.cli.signal_check import with_signals

SUFFIXES = (".parquet", ".csv")


def features(args: argparse.Namespace) -> int:
    """The command."""
    out = Path(args.out)
    if out.suffix not in SUFFIXES:
        raise CliError(f"{out}: what shall it be? name a file that ends with {' or '.join(SUFFIXES)}", USAGE)
    profile = running.profile_for(argparse.Namespace(config=args.config or "replay", set=args.set, recording=args.files))
    use_kernel_cache()
    profile = with_signals(profile, lambda text: print(text, file=sys.stderr))
    from procs.recordings.output import new_file
    from procs.recordings.parquet import arrow
    from procs.research.columns import recording_columns

    arrow()
    note = Progress()
    wrong: list[str] = []

    def progress(done: int, total: int) -> None:
        note.now(f"reading {done * 100 // max(total, 1)}%")

    try:
        with new_file(out, force=args.force) as partial:
            pieces = recording_columns(profile.source.files, profile, progress, wrong.append)
            with note.working("reading, and loading the kernels (the first time compiles them: some minutes)"):
                first = next(pieces, None)
            made = _write(partial, out.suffix, itertools.chain([first] if first is not None else [], pieces), note)
    except KeyboardInterrupt:
        note.end()
        print(f"interrupted: {out} was not written", file=sys.stderr)
        return INTERRUPTED
    finally:
        note.end()
    words = f"{out}: {made['rows']:,} rows of {made['columns']} columns"
    if not made["valid"]:
        wrong.append("no record of it has a valid order book (prints alone?), so every signal and feature is null; "
                     "candles of its prints: scalperctl data convert --to candles")  # fmt: skip
    print(json.dumps({"out": str(out), **made, "complaints": wrong}, indent=2) if args.json else words)
    for text in wrong:
        print(f"scalperctl: {text}", file=sys.stderr)
    return UNHEALTHY if wrong else OK


def _write(path: Path, suffix: str, pieces: Iterable[dict[str, Any]], note: Progress) -> dict[str, int]:
    from procs.research.columns import units

    pa: Any = importlib.import_module("pyarrow")
    writer: Any = None
    rows = columns = valid = 0
    try:
        for piece in pieces:
            batch = pa.table({
                key: pa.array(value.tolist(), pa.string()) if value.dtype == object else pa.array(value, from_pandas=True)
                for key, value in piece.items()
            })  # fmt: skip
            if writer is None:
                if suffix == ".csv":
                    writer = importlib.import_module("pyarrow.csv").CSVWriter(path, batch.schema)
                else:
                    schema = batch.schema.with_metadata({f"unit.{name}": unit for name, unit in units().items()})
                    writer = importlib.import_module("pyarrow.parquet").ParquetWriter(path, schema, compression="zstd")
            writer.write_table(batch.cast(writer.schema) if suffix == ".parquet" else batch)
            rows, columns = rows + batch.num_rows, batch.num_columns
            valid += int(piece["valid"].sum())
            note.now(f"{rows:,} rows written")
    finally:
        if writer is not None:
            writer.close()
    if not rows:
        raise CliError("the recording holds no market record: check it with `scalperctl data check`", USAGE)
    return {"rows": rows, "columns": columns, "valid": valid}
