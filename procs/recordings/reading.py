"""Records as lines for people, or as JSON objects: what a recording says through the fold, or what a journal holds.

Recordings and journals may still be written to: what is whole is shown.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from procs.journal.file import JournalReader
from procs.journal.format import SUFFIX as JOURNAL
from procs.journal.names import FLOAT_PRICES, KINDS, MASKS, SWITCHES, Names, decimal_text, ring_kinds, time_text, whole_name
from procs.recordings import files, instruments
from procs.recordings.checking import staged
from procs.recordings.folding import Folded
from procs.recordings.frame_log_format import came_of
from procs.recordings.output import RecordingsError
from trading.features.vector import NAMES as FEATURES
from trading.records import LEVELS, Flag, Kind
from trading.stamps import WANTED, stamp_of
from trading.venues.names import Market

RECORDING_KINDS: Final = (*KINDS["market"], "level")
"""What can be asked of a recording; `level` is one line a level that changed, and shown only when asked for."""
_SAID_ELSEWHERE: Final = ("ts_ns", "symbol", "kind", "spare", "seq", "cause_ring", "warm_mask")
CHUNK: Final = 4096


@dataclass(frozen=True, slots=True)
class Choice:
    """What to show. Times in Unix ns, 0 for no bound; `limit` 0 for all."""

    symbol: str = ""
    kinds: tuple[str, ...] = ()
    from_ns: int = 0
    to_ns: int = 0
    limit: int = 0


def time_ns(text: str) -> int:
    """A time given by a person: a Unix time in any unit of trading.stamps, or ISO 8601 (UTC unless it says otherwise). Raises
    RecordingsError."""
    if (stamp := stamp_of(text.encode())) is not None:
        return stamp[0]
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise RecordingsError(f"{text!r} is no time: write e.g. 2024-08-08T23:54:13, or a {WANTED}") from None
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1e6) * 1000


def market_fields(record: Any, names: Names) -> dict[str, Any]:
    """A MARKET_RECORD as plain values, in the order in which they are shown."""
    kind, symbol = Kind(int(record["kind"])), int(record["symbol"])
    said: dict[str, Any] = {
        "time": time_text(int(record["ts_ns"])), "symbol": names.symbol(symbol), "kind": kind.name.lower(),
        "valid": bool(int(record["flags"]) & Flag.BOOK_VALID), "id": int(record["update_id"]),
    }  # fmt: skip
    if record["ts_exchange_ns"]:
        said["exchange_time"] = time_text(int(record["ts_exchange_ns"]))
    if kind is Kind.TRADE:
        said["side"] = "sell" if int(record["flags"]) & Flag.AGGRESSOR_SELL else "buy"
        said["price"] = names.price(symbol, int(record["price_ticks"]))
        said["qty"] = names.qty(symbol, int(record["qty_lots"]))
    elif kind is Kind.MARK:
        said["price"], said["funding_rate"] = (decimal_text(int(record[n]), 8) for n in ("price_ticks", "qty_lots"))
    for side in ("bids", "asks"):
        stem = side[:-1]
        said[side] = [
            [names.price(symbol, int(record[f"{stem}_ticks"][k])), names.qty(symbol, int(record[f"{stem}_lots"][k]))]
            for k in range(LEVELS) if record[f"{stem}_lots"][k]
        ]  # fmt: skip
    return said


def depth_fields(record: Any, names: Names) -> dict[str, Any]:
    """A DEPTH_RECORD as plain values."""
    kind, symbol = Kind(int(record["kind"])), int(record["symbol"])
    flags = int(record["flags"])
    said: dict[str, Any] = {
        "time": time_text(int(record["ts_ns"])), "symbol": names.symbol(symbol),
        "kind": "level" if kind is Kind.DEPTH else kind.name.lower(), "id": int(record["update_id"]),
    }  # fmt: skip
    if kind is Kind.DEPTH:
        said["side"] = "ask" if flags & Flag.ASK else "bid"
        said["price"] = names.price(symbol, int(record["price_ticks"]))
        said["qty"] = names.qty(symbol, int(record["qty_lots"]))
        said["last"] = bool(flags & Flag.LAST)
    return said


def other_fields(ring: str, record: Any, names: Names) -> dict[str, Any]:
    """A record of any other ring: its fields that are not 0, numbers that stand for words as words, prices as decimals."""
    symbol = int(record["symbol"])
    about = "-" if ring.partition(".")[0] in ("control", "intake") else names.symbol(symbol)
    said: dict[str, Any] = {"time": time_text(int(record["ts_ns"])), "symbol": about, "kind": kind_name(int(record["kind"]))}
    for name in record.dtype.names:
        value = record[name]
        if name in _SAID_ELSEWHERE or name.endswith("_mono_ns") or not np.any(value):
            continue
        codes = names.codes(ring, name)
        if name == "cause_seq":
            said["cause"] = f"{names.codes(ring, 'cause_ring').get(int(record['cause_ring']), '?')} {int(value)}"  # type: ignore[union-attr]
        elif codes is not None:
            said[name] = codes.get(int(value), str(int(value)))
        elif name == "strength":
            active = int(record["active_mask"])
            said["votes"] = {key: round(float(value[k]), 6) for k, key in enumerate(names.signals) if active >> k & 1}
        elif name == "values":
            warm = int(record["warm_mask"])
            said["values"] = {key: float(value[k]) for k, key in enumerate(FEATURES) if warm >> k & 1}
        elif name in MASKS:
            said[name.removesuffix("_mask")] = names.bits(name, int(value))
        elif name in SWITCHES:
            said[name] = True
        elif name in FLOAT_PRICES:
            said[FLOAT_PRICES[name]] = names.price_of(symbol, float(value))
        elif name == "fee_e8":
            said["fee"] = decimal_text(int(value), 8)
        elif as_decimal := whole_name(name):
            text = names.price if name.endswith("_ticks") else names.qty
            said[as_decimal] = text(symbol, int(value))
        elif name.startswith("ts_"):
            said[name.removeprefix("ts_").removesuffix("_ns") + "_time"] = time_text(int(value))
        elif name == "flags":
            said |= _flags(ring, int(record["kind"]), int(value))
        else:
            said[name] = value.item()
    return said


def _flags(ring: str, kind: int, flags: int) -> dict[str, Any]:
    """What the flags of a ring mean."""
    if ring in ("signals", "vectors"):
        return {"valid": bool(flags & Flag.BOOK_VALID)}
    if ring != "frames":
        return {"flags": flags}
    if kind != Kind.RAW:
        return {"line": flags}
    came = came_of(flags)
    return {"line": came.line, "connection": came.connection} | ({"aside": True} if came.aside else {})


def kind_name(kind: int) -> str:
    """A Kind in lower case, its number where it is none."""
    return Kind(kind).name.lower() if kind in Kind.__members__.values() else str(kind)


def line_of(said: dict[str, Any]) -> str:
    """The values on one line."""
    words = [said["time"], said["symbol"], said["kind"]]
    for key, value in said.items():
        if key in ("time", "symbol", "kind"):
            continue
        if key in ("bids", "asks"):
            if value:
                words.append(f"{key[:-1]} {value[0][1]} @ {value[0][0]}")
        elif key == "valid":
            words.append("" if value else "STALE")
        elif key == "last":
            words.append("." if value else "")
        elif isinstance(value, dict):
            words.append(f"{key} " + " ".join(f"{name}={number:.6g}" for name, number in value.items()))
        elif isinstance(value, list):
            words.append(f"{key} {','.join(map(str, value))}")
        elif isinstance(value, float):
            words.append(f"{key} {value:.12g}")
        elif value is True:
            words.append(key)
        else:
            words.append(f"{key} {value}")
    return "  ".join(word for word in words if word)


def _bounded(recs: Any, choice: Choice) -> Any:
    if choice.from_ns:
        recs = recs[recs["ts_ns"] >= choice.from_ns]
    return recs[recs["ts_ns"] <= choice.to_ns] if choice.to_ns else recs


def _wanted(said: dict[str, Any], choice: Choice) -> bool:
    if choice.symbol and said["symbol"] != choice.symbol:
        return False
    return said["kind"] in choice.kinds if choice.kinds else said["kind"] != "level"


def records_of(
    path: Path, choice: Choice, tell: Callable[[str], None] = lambda _: None, venue: Market | None = None
) -> Iterator[dict[str, Any]]:
    """The records of one recording or journal, in order. venue: of a capture, where it shall not be guessed.

    Raises RecordingsError, RecordingError, JournalError."""
    left = choice.limit or -1
    source = _of_journal(path, choice) if path.suffix == JOURNAL else _of_recording(path, choice, tell, venue)
    for said in source:
        if left == 0:
            return
        left -= 1
        yield said


def _refuse_kinds(path: Path, choice: Choice, there: Sequence[str]) -> None:
    odd = sorted(set(choice.kinds) - set(there))
    if odd:
        raise RecordingsError(f"{path}: --kind {','.join(odd)} is no kind of its records; write some of {', '.join(there)}")


def _of_journal(path: Path, choice: Choice) -> Iterator[dict[str, Any]]:
    reader = JournalReader(path)
    ring = reader.header.ring
    there = ring_kinds(ring)
    if there:
        _refuse_kinds(path, choice, there)
    names = Names(instruments.noted(path.parent), instruments.own_signals(path.parent))
    own: dict[str, Callable[[Any, Names], dict[str, Any]]] = {"market": market_fields, "depth": depth_fields}
    read = own.get(ring) or partial(other_fields, ring)
    if ring == "depth" and not choice.kinds:
        choice = Choice(choice.symbol, there, choice.from_ns, choice.to_ns)
    recs = reader.records()
    for at in range(0, len(recs), CHUNK):
        for record in _bounded(np.array(recs[at : at + CHUNK]), choice):
            if record["kind"] in (Kind.NONE, Kind.END):
                continue
            said = read(record, names)
            if _wanted(said, choice):
                yield said


def _of_recording(
    path: Path, choice: Choice, tell: Callable[[str], None], venue: Market | None
) -> Iterator[dict[str, Any]]:
    _refuse_kinds(path, choice, RECORDING_KINDS)
    found = files.look(path)
    if found is None:
        raise RecordingsError(f"{path}: is no recording, wire capture or journal; name one of these")
    with tempfile.TemporaryDirectory(prefix="scalper-cat-") as folder:
        spool = Path(folder) / "spool"
        recording, _ = staged([found], spool, lambda done, total: tell(f"reading {done * 100 // max(total, 1)}%"), venue)
        folded = Folded(spool, recording)
        names = Names(folded.instruments)
        levels = "level" in choice.kinds
        for chunk in folded.chunks():
            recs = _bounded(chunk.market, choice)
            rows = _bounded(chunk.depth[chunk.depth["kind"] == Kind.DEPTH], choice) if levels else chunk.depth[:0]
            stamps = np.concatenate([recs["ts_ns"], rows["ts_ns"]])
            for k in np.argsort(stamps, kind="stable").tolist():
                said = market_fields(recs[k], names) if k < len(recs) else depth_fields(rows[k - len(recs)], names)
                if _wanted(said, choice):
                    yield said
            if choice.to_ns and len(chunk.market) and int(chunk.market[-1]["ts_ns"]) > choice.to_ns:
                return
