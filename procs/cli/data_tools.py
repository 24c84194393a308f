"""`data`: list, check, read and convert recordings. Progress goes to stderr, what was asked for to stdout."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from procs.cli.outcome import OK, UNHEALTHY, USAGE, CliError
from procs.cli.report import use_kernel_cache
from procs.cli.starting import Note
from procs.cli.table import Column, clean_text, count, paint_for, span, table


def tools(args: argparse.Namespace) -> int:
    """The command."""
    use_kernel_cache()
    from procs.recordings.piped_input import piped_files

    parts: dict[str, Callable[[argparse.Namespace], int]] = {"ls": ls, "check": check, "cat": cat, "convert": convert}
    with piped_files() as file_of:
        if "paths" in args:
            args.paths = [file_of(path) for path in args.paths]
        else:
            args.path = file_of(args.path)
        return parts[args.what](args)


class _Progress:
    """Steps on stderr for whoever looks; silent in a pipe."""

    def __init__(self) -> None:
        self._note = Note(sys.stderr)
        self._shown = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        if self._shown:
            self._note(clean_text(text))

    def end(self) -> None:
        """Clear the line."""
        self._note.end()


def _reading(name: str, progress: _Progress) -> Callable[[int, int], None]:
    return lambda done, total: progress(f"reading {name}: {done * 100 // max(total, 1)}%")


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def ls(args: argparse.Namespace) -> int:
    """`data ls`."""
    from procs.recordings import files
    from procs.recordings.reading import time_text

    progress, found = _Progress(), []
    for path in files.expand(args.paths):
        progress(f"looking into {path.name}")
        one = files.look(path)
        if one is not None:
            found.append(files.measured(one))
    progress.end()
    if args.json:
        print(json.dumps([asdict(one) | {"path": str(one.path)} for one in found], indent=2))
        return OK
    columns = [Column("file", False), Column("form", False, 3), Column("venue", False), Column("symbol", False),
               Column("frames"), Column("from (UTC)", False, 2), Column("span"), Column("size")]  # fmt: skip
    rows = [
        [
            clean_text(str(one.path)), one.form, one.venue, one.symbol, count(one.frames) if one.frames else "-",
            time_text(one.first_ns)[:19] if one.first_ns else "-", span(one.last_ns - one.first_ns) if one.first_ns else "-",
            _size(one.size),
        ]
        for one in found
    ]  # fmt: skip
    width = shutil.get_terminal_size((200, 40)).columns if sys.stdout.isatty() else 400
    print("\n".join(table(columns, rows, width, paint_for(sys.stdout))) if rows else "no recordings here")
    return OK


def check(args: argparse.Namespace) -> int:
    """`data check`."""
    from procs.recordings import files
    from procs.recordings.checking import Verdict
    from procs.recordings.checking import check as judged

    progress = _Progress()
    chains = files.chains(files.expand(args.paths))
    if not chains:
        raise CliError(f"no recording among {', '.join(args.paths)[:200]}: name files or folders that hold some", USAGE)
    verdicts: list[Verdict] = []
    for chain in chains:
        name = files.title(chain)
        progress(f"checking {name}")
        verdict = judged(chain, _reading(name, progress))
        verdicts.append(verdict)
        progress.end()
        if not args.json:
            print(verdict_line(verdict, paint_for(sys.stdout)), flush=True)
    if args.json:
        print(json.dumps([asdict(v) | {"wrong": v.wrong, "ok": not v.wrong} for v in verdicts], indent=2))
    return UNHEALTHY if any(verdict.wrong for verdict in verdicts) else OK


def verdict_line(verdict: Any, paint: Callable[[str, str], str]) -> str:
    """One line a chain."""
    from procs.recordings.checking import aside_text

    said = [
        f"{clean_text(verdict.title)}: {verdict.venue} {' '.join(verdict.symbols[:4])}"
        + (f" +{len(verdict.symbols) - 4}" if len(verdict.symbols) > 4 else ""),
        f"{verdict.frames:,} frames", span(verdict.last_ns - verdict.first_ns), f"{verdict.gaps} gaps",
        f"{verdict.duplicates} duplicates", f"{verdict.crossed} crossed", f"{verdict.malformed} malformed",
        f"{verdict.unknown} unknown", f"book == bbo {verdict.oracle_equal}/{verdict.oracle_checked}",
    ]  # fmt: skip
    if verdict.checksums_checked:
        said.append(f"checksums {verdict.checksums_equal}/{verdict.checksums_checked}")
    said.append(f"{verdict.trade_gaps} trade gaps")
    if verdict.aside:
        said.append(aside_text(verdict.aside))
    if verdict.beyond_edge:
        said.append(f"{verdict.beyond_edge:,} records beyond the depth of the snapshots")
    if verdict.clock_offset_median_ns is not None:
        least, median = (ns / 1e6 for ns in (verdict.clock_offset_min_ns, verdict.clock_offset_median_ns))
        said.append(f"recv - exchange min {least:,.1f} ms median {median:,.1f} ms")
    said += [clean_text(text) for text in verdict.said[:4]]
    good = paint("ok", "green") if not verdict.wrong else paint("WRONG: " + clean_text("; ".join(verdict.wrong)), "red")
    return ", ".join(said) + ": " + good


def cat(args: argparse.Namespace) -> int:
    """`data cat`."""
    from procs.recordings.reading import KINDS, Choice, line_of, records_of, time_ns

    kinds = tuple(kind for kind in args.kind.split(",") if kind)
    odd = sorted(set(kinds) - set(KINDS))
    if odd:
        raise CliError(f"--kind {','.join(odd)} is no kind: write some of {', '.join(KINDS)}", USAGE)
    path = Path(args.path)
    if not path.is_file():
        raise CliError(f"{path}: there is no such file; check the path", USAGE)
    first, last = (time_ns(text) if text else 0 for text in (args.from_time, args.to_time))
    progress = _Progress()
    for said in records_of(path, Choice(args.symbol, kinds, first, last, args.limit), progress):
        progress.end()
        print(json.dumps(said) if args.json else clean_text(line_of(said)))
    progress.end()
    return OK


def convert(args: argparse.Namespace) -> int:
    """`data convert`."""
    from procs.recordings import files
    from procs.recordings.convert import Wish
    from procs.recordings.convert import convert as converted

    progress = _Progress()
    wish = Wish(
        to=args.to, out=Path(args.out), force=args.force, symbol=args.symbol, market=args.market, tick=args.tick, lot=args.lot,
        base_latency_ns=args.base_latency_ns, after=tuple(files.expand(args.after)),
    )  # fmt: skip
    paths = [path for given in args.paths for path in ([Path(given)] if not Path(given).is_dir() else files.expand([given]))]
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise CliError(f"{missing[0]}: there is no such file or folder; check the path", USAGE)
    try:
        made = converted(paths, wish, progress)
    finally:
        progress.end()
    if args.json:
        print(json.dumps(made, indent=2))
        return OK
    for text in made.get("said", ()):
        print(clean_text(text))
    counted = {key: value for key, value in made.items() if isinstance(value, int) and value}
    counted |= made["rows"] if isinstance(made.get("rows"), dict) else {}
    if "files" in made:
        counted["files"] = len(made["files"])
    print(f"{made['out']}: " + ", ".join(f"{value:,} {key.replace('_', ' ')}" for key, value in counted.items()))
    return OK
