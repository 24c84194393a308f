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

from procs.cli.outcome import INTERRUPTED, OK, UNHEALTHY, USAGE, CliError
from procs.cli.progress import Progress
from procs.cli.report import use_kernel_cache
from procs.cli.table import Column, clean_text, count, paint_for, span, table


def tools(args: argparse.Namespace) -> int:
    """The command."""
    use_kernel_cache()
    from procs.recordings.piped_input import piped_files

    parts: dict[str, Callable[[argparse.Namespace], int]] = {"ls": ls, "check": check, "cat": cat, "convert": convert}
    try:
        with piped_files() as file_of:
            if "paths" in args:
                args.paths = [file_of(path) for path in args.paths]
            else:
                args.path = file_of(args.path)
            return parts[args.what](args)
    except KeyboardInterrupt:
        print(f"\ninterrupted: `data {args.what}` did not come to its end, and left nothing half done", file=sys.stderr)
        return INTERRUPTED


def _reading(name: str, progress: Progress) -> Callable[[int, int], None]:
    return lambda done, total: progress.now(f"reading {name}: {done * 100 // max(total, 1)}%")


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _note(text: str) -> None:
    """A sentence on stderr, about what was left out or taken otherwise than it stands."""
    print(clean_text(text), file=sys.stderr, flush=True)


def _venue(name: str) -> Any:
    """The venue that a user names; None for none named."""
    from trading.venues.names import NAMES, Market

    if not name:
        return None
    if name not in NAMES:
        raise CliError(f"--venue {name}: no venue of that name reads recordings; write one of {', '.join(NAMES)}", USAGE)
    return Market.of(name)


def ls(args: argparse.Namespace) -> int:
    """`data ls`."""
    from procs.journal.names import time_text
    from procs.recordings import files
    from sim.recordings.bounded import RecordingError

    progress, found = Progress(), []
    for path in files.expand(args.paths):
        progress.now(f"looking into {path.name}")
        one = files.look(path)
        if one is not None:
            try:
                found.append(files.measured(one))
            except RecordingError as error:
                progress.end()
                _note(f"{error}; it is not counted")
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
    """`data check`: goes on after what it cannot read, and sums up."""
    from procs.recordings import files
    from procs.recordings.checking import check as judged
    from procs.recordings.output import RecordingsError
    from sim.recordings.bounded import RecordingError

    progress, venue, left_out = Progress(), _venue(args.venue), list[str]()

    def pass_over(sentence: str) -> None:
        left_out.append(sentence)
        _note(sentence)

    unread: list[tuple[str, list[str], str]] = []
    chains = files.chains(files.gathered(args.paths, pass_over), lambda path, said: unread.append((path.name, [str(path)], said)))
    if not chains and not unread:
        raise CliError(f"no recording among {', '.join(args.paths)[:200]}: name files or folders that hold some", USAGE)
    alone = len(chains) + len(unread) == 1 and not left_out
    paint, told, wrong = paint_for(sys.stdout), list[dict[str, Any]](), 0
    for chain in chains:
        name = files.title(chain)
        progress.now(f"checking {name}")
        try:
            verdict = judged(chain, _reading(name, progress), venue)
        except (RecordingError, RecordingsError) as error:
            if alone:
                raise
            unread.append((name, [str(found.path) for found in chain], str(error)))
            continue
        finally:
            progress.end()
        wrong += bool(verdict.wrong)
        told.append(asdict(verdict) | {"wrong": verdict.wrong, "ok": not verdict.wrong})
        if not args.json:
            print(verdict_line(verdict, paint), flush=True)
    if alone and unread:
        raise RecordingsError(unread[0][2])
    for name, paths, said in unread:
        told.append({"title": name, "files": paths, "wrong": [said], "ok": False})
        if not args.json:
            print(f"{clean_text(name)}: " + paint(f"CANNOT BE READ: {clean_text(said)}", "red"))
    if args.json:
        print(json.dumps(told, indent=2))
    elif not alone and len(told) + len(left_out) > 1:
        good = sum(bool(one["ok"]) for one in told)
        counts = {"ok": good, "wrong": wrong, "unreadable": len(unread), "files passed over": len(left_out)}
        print(f"{len(told)} recordings: " + ", ".join(f"{value} {what}" for what, value in counts.items() if value))
    return UNHEALTHY if wrong or unread else OK


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
    from procs.journal.names import KINDS
    from procs.recordings.reading import Choice, line_of, records_of, time_ns

    kinds = tuple(kind for kind in args.kind.split(",") if kind)
    known = sorted({kind for found in KINDS.values() for kind in found})
    odd = sorted(set(kinds) - set(known))
    if odd:
        raise CliError(f"--kind {','.join(odd)} is no kind: write some of {', '.join(known)}", USAGE)
    path = Path(args.path)
    if not path.is_file():
        raise CliError(f"{path}: there is no such file; check the path", USAGE)
    first, last = (time_ns(text) if text else 0 for text in (args.from_time, args.to_time))
    progress = Progress()
    for said in records_of(path, Choice(args.symbol, kinds, first, last, args.limit), progress.now, _venue(args.venue)):
        progress.end()
        print(json.dumps(said) if args.json else clean_text(line_of(said)))
    progress.end()
    return OK


def convert(args: argparse.Namespace) -> int:
    """`data convert`."""
    from procs.archives import converting
    from procs.recordings import files
    from procs.recordings.convert import Wish, is_known
    from procs.recordings.convert import convert as converted

    progress = Progress()
    wish = Wish(
        to=args.to, out=Path(args.out), force=args.force, symbol=args.symbol, market=args.market, tick=args.tick, lot=args.lot,
        base_latency_ns=args.base_latency_ns, after=tuple(files.expand(args.after)), venue=_venue(args.venue),
    )  # fmt: skip
    try:
        paths = files.gathered(args.paths, _note, lambda path: is_known(path) or converting.is_known(path))
        ours = converting.taken(paths, wish.to)
        if ours is None:
            made = converted(paths, wish, progress.now)
        else:
            made = converting.convert(paths, ours, wish, args.size, progress.now)
    finally:
        progress.end()
    for note in made.get("notes", ()):
        _note(note)
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
    for text in made.get("read", ()):
        print(clean_text(f"  {text}"))
    return OK
