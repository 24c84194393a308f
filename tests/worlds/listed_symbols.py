"""Sixty-four symbols as Binance spot lists them (tick, step, where they traded), and recordings of them by the embedded market.

The cheapest and the dearest are among them: BTTC, PEPE, SHIB, BONK, FLOKI, and bitcoin in pesos, won and rupiah.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from sim.local_venue.source import SymbolRules, generated

_ROWS: Final = """
BTCUSDT 0.01000000 0.00001000 61000 9000      ETHUSDT 0.01000000 0.00010000 2600 9000
BNBUSDT 0.01000000 0.00100000 520 900000      SOLUSDT 0.01000000 0.00100000 150 90000
XRPUSDT 0.00010000 0.10000000 0.56 9222449    DOGEUSDT 0.00001000 1.00000000 0.1 9000000
ADAUSDT 0.00010000 0.10000000 0.35 900000     TRXUSDT 0.00010000 0.10000000 0.15 9222449
AVAXUSDT 0.01000000 0.01000000 24 90000       LINKUSDT 0.01000000 0.01000000 11 90000
DOTUSDT 0.00100000 0.01000000 4.5 90000       POLUSDT 0.00010000 0.10000000 0.4 900000
LTCUSDT 0.01000000 0.00100000 65 90000        BCHUSDT 0.10000000 0.00100000 330 9000
UNIUSDT 0.00100000 0.01000000 6.5 90000       ATOMUSDT 0.00100000 0.01000000 4.6 900000
ETCUSDT 0.01000000 0.01000000 19 900000       FILUSDT 0.00100000 0.01000000 3.6 90000
NEARUSDT 0.00100000 0.10000000 4.1 900000     APTUSDT 0.01000000 0.01000000 6.3 922327
ARBUSDT 0.00010000 0.10000000 0.54 900000     OPUSDT 0.00100000 0.01000000 1.4 922327
INJUSDT 0.01000000 0.01000000 18 900000       SUIUSDT 0.00010000 0.10000000 0.9 9222449
SEIUSDT 0.00010000 0.10000000 0.28 900000     TIAUSDT 0.00100000 0.01000000 5.1 922327
RUNEUSDT 0.00100000 0.10000000 3.9 900000     AAVEUSDT 0.01000000 0.00100000 110 90000
MKRUSDT 1.00000000 0.00010000 2100 9000       LDOUSDT 0.00100000 0.01000000 1.1 900000
GRTUSDT 0.00010000 1.00000000 0.15 900000     ALGOUSDT 0.00010000 1.00000000 0.12 9000000
VETUSDT 0.00001000 0.10000000 0.022 9000000   ICPUSDT 0.00100000 0.01000000 7.8 90000
HBARUSDT 0.00001000 1.00000000 0.055 9000000  XLMUSDT 0.00010000 1.00000000 0.1 900000
SHIBUSDT 0.00000001 1.00 0.0000132 46116860414     PEPEUSDT 0.00000001 1.00 0.0000079 46116860414
FLOKIUSDT 0.00000001 1.00 0.000128 46116860414     BONKUSDT 0.00000001 1.00 0.0000184 46116860414
BTTCUSDT 0.00000001 1.0 0.00000075 922337203685    LUNCUSDT 0.00000001 0.01 0.000078 922337203
XECUSDT 0.00000001 1.00 0.0000321 46116860414      WINUSDT 0.00000001 1.00 0.0000865 46116860414
DENTUSDT 0.000001 1.00000000 0.00078 90000000      HOTUSDT 0.00000100 1.00000000 0.0014 90000000
SPELLUSDT 0.00000010 1.00000000 0.00055 90000000   NOTUSDT 0.00000100 1.00000000 0.0098 90000000
1000SATSUSDT 0.00000001 1.00 0.000254 46116860414  WIFUSDT 0.00100000 0.01000000 1.5 900000
ETHBTC 0.00001000 0.00010000 0.0426 100000    BNBBTC 0.00000100 0.00100000 0.0085 100000
SOLBTC 0.00000010 0.00100000 0.00246 90000    XRPBTC 0.00000001 1.00000000 0.0000092 90000000
DOGEBTC 0.00000001 1.00000000 0.0000016 90000000   BTCEUR 0.01000000 0.00001000 55000 9000
BTCTRY 1.00000000 0.00001000 2050000 9000     BTCBRL 1.00000000 0.00001000 340000 9000
BTCJPY 1.00000000 0.00001000 8900000 9000     BTCARS 1.00000000 0.00001000 80000000 9000
BTCCOP 1.00 0.00001 250000000 9000            BTCIDR 1.00 0.00001 1600000000 9000
BTCKRW 1000.00 0.00001 84000000 9000          BTCZAR 1.00000000 0.00001000 1100000 9000
"""

LISTED: Final[dict[str, SymbolRules]] = {
    name: SymbolRules(tick_size=tick, step_size=step, price=float(price), max_qty=most)
    for line in _ROWS.strip().splitlines()
    for name, tick, step, price, most in zip(*[iter(line.split())] * 5, strict=True)
}
"""By symbol, in the order above."""
CHEAPEST_AND_DEAREST: Final = ("SHIBUSDT", "PEPEUSDT", "FLOKIUSDT", "BTTCUSDT", "BTCCOP", "BTCIDR")
_STREAMS: Final = {"depthUpdate": "depth@100ms", "trade": "trade", "bookTicker": "bookTicker"}


def write_recordings(
    folder: Path, names: Sequence[str], *, seconds: float, events_per_s: float, seed: int = 7, printed: int = 8
) -> list[Path]:
    """A recording NAME.gz of each symbol, all of one market of `seconds`; quantities with `printed` decimals."""
    rules: Mapping[str, SymbolRules] = {name: LISTED[name] for name in names}
    source = generated(names, ("spot",), seed=seed, events_per_s=events_per_s, duration_s=seconds, rules=rules)
    lines: list[list[bytes]] = [[] for _ in names]
    for recv_ns, symbol, event in source.frames():
        if "lastUpdateId" in event:
            frame = event
        else:
            stream = f"{names[symbol].lower()}@{_STREAMS[event.get('e', 'bookTicker')]}"
            frame = {"stream": stream, "data": event}
        for key in ("b", "a", "bids", "asks"):
            levels = frame.get("data", frame).get(key)
            if isinstance(levels, list):
                frame.get("data", frame)[key] = [[price, _padded(qty, printed)] for price, qty in levels]
        lines[symbol].append(b"%d %s\n" % (recv_ns, msgspec.json.encode(frame)))
    paths = []
    for name, own in zip(names, lines, strict=True):
        paths.append(folder / f"{name}.gz")
        paths[-1].write_bytes(gzip.compress(b"".join(own), 1))
    return paths


def _padded(qty: str, decimals: int) -> str:
    whole, _, rest = qty.partition(".")
    return f"{whole}.{rest.ljust(decimals, '0')}" if decimals else qty
