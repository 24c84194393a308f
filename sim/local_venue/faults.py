"""What goes wrong, when, and for whom: a seeded schedule of faults. Pure: times and messages come in, decisions go out.

A fault is `kind:key=value,...`. Its trigger:

    p=0.01                    each matching item is hit with this chance
    at=10s  every=30s         the next matching item after this moment (and after every such span) is hit
    at=10s  for=2s            every matching item within the window is hit (with p: with that chance); every= repeats it
    n=5                       a hit goes on for so many matching items

`mute` silences each stream that it aims at, from its moment on, until the client has subscribed it anew (`n` times).

Its aim: symbol=BTCUSDT, stream=depth (a kind of sim.local_venue.stream_names.KINDS), market=spot|usdm|coinm, conn=2 (the second
connection that was opened). Times count from the venue's start. Each fault draws from a generator of its own for each
connection, so the same seed and the same sequence of messages give the same faults, whatever other connections do.

What a fault means for sockets is sim.local_venue.server's.
"""

from __future__ import annotations

import difflib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from sim.local_venue.stream_names import KINDS as STREAM_KINDS
from sim.local_venue.stream_names import MARKETS

SECOND: Final = 1_000_000_000
MOST_BYTES: Final = 1 << 18
"""That a file of faults may have."""
_TRIGGER: Final = ("p", "at", "every", "for", "n")
_AIM: Final = ("symbol", "stream", "market", "conn")
KEYS: Final[dict[str, tuple[str, ...]]] = {
    "drop": (*_TRIGGER, *_AIM),
    "duplicate": (*_TRIGGER, *_AIM),
    "reorder": (*_TRIGGER, *_AIM),
    "gap": (*_TRIGGER, *_AIM),
    "corrupt": (*_TRIGGER, *_AIM, "how"),
    "stall": ("p", "at", "every", "for", *_AIM),
    "mute": ("at", "every", "n", *_AIM),
    "disconnect": ("p", "at", "every", *_AIM, "how"),
    "slow_consumer": ("bytes", "conn", "market"),
    "refuse": (*_TRIGGER, "market", "status"),
    "limit": (*_TRIGGER, "market", "status"),
    "wrong_clock": ("at", "every", "for", *_AIM, "by"),
    "stale_snapshot": (*_TRIGGER, "symbol", "market", "age"),
    "slow_snapshot": (*_TRIGGER, "symbol", "market", "delay"),
}
"""Every kind with the keys that it takes."""
REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "stall": ("for",), "wrong_clock": ("by",), "slow_consumer": ("bytes",), "stale_snapshot": ("age",),
    "slow_snapshot": ("delay",),
}  # fmt: skip
NEEDS_TRIGGER: Final = ("drop", "duplicate", "reorder", "gap", "corrupt", "stall", "disconnect", "mute", "refuse", "limit")
HOW: Final[dict[str, tuple[str, ...]]] = {"corrupt": ("bytes", "cut", "digits"), "disconnect": ("abort", "close")}
"""Ways of a kind; the first one is the default."""
GAP_LENGTH: Final = 5
REORDER_WAIT_NS: Final = SECOND
"""A message that waits for the one after it is sent without it after this long."""
_DURATIONS: Final = ("at", "every", "for", "by", "age", "delay")
_UNITS: Final = {"ms": 1_000_000, "us": 1_000, "ns": 1, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND}


class FaultError(ValueError):
    """A fault that cannot be understood; the message names it, the key and the remedy."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of the schedule. Times in ns; None where a key is not given."""

    kind: str
    p: float | None = None
    at_ns: int | None = None
    every_ns: int | None = None
    for_ns: int | None = None
    n: int = 1
    symbol: str = ""
    stream: str = ""
    market: str = ""
    conn: int = 0
    how: str = ""
    by_ns: int = 0
    age_ns: int = 0
    delay_ns: int = 0
    bytes: int = 0
    status: int = 0

    @property
    def first_ns(self) -> int:
        """When it begins: `every` alone means: after the first such span."""
        if self.at_ns is not None:
            return self.at_ns
        return self.every_ns if self.every_ns is not None and self.for_ns is None else 0

    def shots(self, now_ns: int) -> int:
        """How many of its moments have come."""
        if now_ns < self.first_ns:
            return 0
        return 1 + ((now_ns - self.first_ns) // self.every_ns if self.every_ns else 0)

    def window_end(self, now_ns: int) -> int | None:
        """End of the window that `now_ns` is in, None when it is in none."""
        since = now_ns - self.first_ns
        if since < 0:
            return None
        begin = self.first_ns + (since // self.every_ns * self.every_ns if self.every_ns else 0)
        if self.for_ns is None:
            return 2**62
        return begin + self.for_ns if now_ns < begin + self.for_ns else None

    def aims_at(self, conn: int, market: str, symbol: str, stream: str) -> bool:
        """Whether it is meant for this item."""
        return (
            (not self.conn or self.conn == conn)
            and (not self.market or self.market == market)
            and (not self.symbol or self.symbol == symbol)
            and (not self.stream or self.stream == stream)
        )


def _duration(text: str, where: str) -> int:
    digits = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = text[len(digits) :] or "s"
    try:
        return round(float(digits) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise FaultError(f"{where}: {text!r} is no duration; write one such as 500ms, 2s or 1m") from None


def _value(kind: str, key: str, text: str, where: str) -> Any:
    if key in _DURATIONS:
        value = _duration(text, where)
        if value < 0 and key != "by":
            raise FaultError(f"{where}: {text} is before the start; write a duration of 0 or more")
        if value == 0 and key in ("every", "for"):
            raise FaultError(f"{where}: 0 is no span; write a duration such as 2s")
        return value
    if key == "p":
        try:
            chance = float(text)
        except ValueError:
            chance = -1.0
        if not 0.0 < chance <= 1.0:
            raise FaultError(f"{where}: {text!r} is no chance; write a number above 0 and up to 1")
        return chance
    if key in ("n", "conn", "bytes", "status"):
        if not text.isdigit() or int(text) < 1:
            raise FaultError(f"{where}: {text!r} is no whole number above 0; write one such as 5")
        return int(text)
    allowed = {"how": HOW.get(kind, ()), "stream": STREAM_KINDS, "market": MARKETS}.get(key)
    if allowed is not None and text not in allowed:
        raise FaultError(f"{where}: {text!r} is not known; write one of {', '.join(allowed)}")
    return text.upper() if key == "symbol" else text


def parse_fault(text: str) -> Fault:
    """The fault that `kind:key=value,key=value` says. Raises FaultError."""
    kind, _, rest = text.strip().partition(":")
    pairs = {}
    for part in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = part.partition("=")
        if not equals:
            raise FaultError(f"fault {text!r}: {part!r} is no key=value; write for example p=0.01")
        pairs[key.strip()] = value.strip()
    return make_fault(kind.strip(), pairs)


def make_fault(kind: str, pairs: Mapping[str, Any]) -> Fault:
    """The fault of this kind with these keys (as in the text form). Raises FaultError."""
    if kind not in KEYS:
        near = difflib.get_close_matches(kind, KEYS, 1)
        hint = f"did you mean {near[0]}" if near else f"write one of {', '.join(KEYS)}"
        raise FaultError(f"fault {kind!r} is not known; {hint}")
    fields: dict[str, Any] = {"n": GAP_LENGTH} if kind == "gap" else {}
    if kind == "gap" and "stream" not in pairs:
        fields["stream"] = "depth"
    for key, raw in pairs.items():
        where = f"fault {kind}, {key}"
        if key not in KEYS[kind]:
            raise FaultError(f"{where}: {kind} has no such key; it takes {', '.join(KEYS[kind])}")
        fields[key + "_ns" if key in _DURATIONS else key] = _value(kind, key, str(raw), where)
    for key in REQUIRED.get(kind, ()):
        if key not in pairs:
            example = "65536" if key == "bytes" else "2s"
            raise FaultError(f"fault {kind}: {key} is missing; write for example {kind}:{key}={example}")
    if kind in NEEDS_TRIGGER and not {"p", "at", "every", "for"} & set(pairs):
        raise FaultError(f"fault {kind}: nothing says when; write p=0.01, at=10s, every=30s or at=10s,for=2s")
    fields.setdefault("how", HOW[kind][0] if kind in HOW else "")
    fault = Fault(kind, **fields)
    if fault.every_ns and fault.for_ns and fault.for_ns > fault.every_ns:
        raise FaultError(f"fault {kind}: for is longer than every; write a shorter window")
    return fault


def load_faults(path: Path) -> tuple[list[Fault], int | None]:
    """The faults of a YAML file (`faults:` a list of texts or of mappings with `kind`; `seed:`). Raises FaultError."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise FaultError(f"{path}: larger than the {MOST_BYTES >> 10} kB that a list of faults may have; name another file")
        content = yaml.safe_load(raw.decode("utf-8"))
    except OSError as error:
        raise FaultError(f"{path}: {error.strerror}; check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FaultError(f"{path}: not valid YAML ({' '.join(str(error).split())}); mend it there") from error
    if not isinstance(content, dict) or set(content) - {"faults", "seed"} or not isinstance(content.get("faults"), list):
        raise FaultError(f"{path}: wanted `faults:` with a list, and perhaps `seed:`; see docs/local-venue.md")
    seed = content.get("seed")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
        raise FaultError(f"{path}: seed {seed!r} is no whole number")
    found = []
    for number, entry in enumerate(content["faults"], 1):
        try:
            if isinstance(entry, str):
                found.append(parse_fault(entry))
            elif isinstance(entry, dict) and "kind" in entry:
                found.append(make_fault(str(entry["kind"]), {str(key): value for key, value in entry.items() if key != "kind"}))
            else:
                raise FaultError("wanted text such as drop:p=0.01, or a mapping with kind")
        except FaultError as error:
            raise FaultError(f"{path}: entry {number}: {error}") from None
    return found, seed


@dataclass(slots=True)
class _Lane:
    """What one fault remembers of one connection (0: of requests)."""

    draws: random.Random
    shots: int
    run: int = 0
    until_ns: int = 0
    held: list[tuple[int, bytes]] = field(default_factory=list)  # (not before, message)


class Faults:
    """A schedule in force. `hits` counts what was done, by kind. `now_ns` is everywhere the time since the venue's start."""

    def __init__(self, faults: Sequence[Fault | str] = (), seed: int = 1) -> None:
        self.schedule = tuple(parse_fault(fault) if isinstance(fault, str) else fault for fault in faults)
        self.seed = seed
        self.hits: Counter[str] = Counter()
        self._lanes: dict[tuple[int, int], _Lane] = {}
        self._subscribed: dict[tuple[int, str, str, str], list[int]] = {}  # (connection, market, symbol, stream) -> when
        self._of = {kind: [(n, f) for n, f in enumerate(self.schedule) if f.kind == kind] for kind in KEYS}
        self._on_messages = [(n, f) for n, f in enumerate(self.schedule) if f.kind in NEEDS_TRIGGER[:8]]
        self.holding = any(fault.kind in ("stall", "reorder") for fault in self.schedule)
        """Whether messages may be held: `released` is to be asked then."""
        for number in range(len(self.schedule)):
            self._lane(number, 0, -1)

    def _lane(self, number: int, conn: int, now_ns: int) -> _Lane:
        lane = self._lanes.get((number, conn))
        if lane is None:
            # what was due before a connection stood is not meant for it
            lane = _Lane(random.Random(f"{self.seed}/{number}/{conn}"), self.schedule[number].shots(now_ns))
            self._lanes[number, conn] = lane
        return lane

    def opened(self, conn: int, now_ns: int) -> None:
        """A connection stands; its number is that of the opening, from 1."""
        for number in range(len(self.schedule)):
            self._lane(number, conn, now_ns)

    def subscribed(self, conn: int, market: str, symbol: str, stream: str, now_ns: int) -> None:
        """A connection has subscribed a stream, for the first time or anew."""
        if self._of["mute"]:
            self._subscribed.setdefault((conn, market, symbol, stream), []).append(now_ns)

    def _muted(self, fault: Fault, conn: int, market: str, symbol: str, stream: str, now_ns: int) -> bool:
        """Whether the stream's last moment of silence has come, and it was not subscribed often enough since."""
        shots = fault.shots(now_ns)
        if not shots:
            return False
        struck_ns = fault.first_ns + (shots - 1) * (fault.every_ns or 0)
        return sum(at > struck_ns for at in self._subscribed.get((conn, market, symbol, stream), ())) < fault.n

    def closed(self, conn: int) -> None:
        """A connection is gone, and what was held for it."""
        for key in [key for key in self._subscribed if key[0] == conn]:
            del self._subscribed[key]
        for number in range(len(self.schedule)):
            self._lanes.pop((number, conn), None)

    def _hit(self, number: int, fault: Fault, conn: int, now_ns: int) -> bool:
        """Whether this item is hit; counts it."""
        lane = self._lane(number, conn, now_ns)
        if lane.run:
            lane.run -= 1
        elif fault.p is None and fault.for_ns is None and (fault.at_ns is not None or fault.every_ns is not None):
            due = fault.shots(now_ns)
            if due <= lane.shots:
                return False
            lane.shots = due
            lane.run = fault.n - 1
        elif fault.window_end(now_ns) is None or (fault.p is not None and fault.p < 1.0 and lane.draws.random() >= fault.p):
            return False
        else:
            lane.run = fault.n - 1
        self.hits[fault.kind] += 1
        return True

    def deliver(self, conn: int, market: str, symbol: str, stream: str, text: bytes, now_ns: int) -> list[bytes] | None:
        """What is to be sent now instead of this message, in order; None: cut the connection."""
        if not self._on_messages:
            return [text]
        out = [text]
        for number, fault in self._on_messages:
            if not out or not fault.aims_at(conn, market, symbol, stream):
                continue
            kind = fault.kind
            if kind == "stall":
                out = self._stalled(number, fault, conn, out, now_ns)
            elif kind == "reorder":
                out = self._reordered(number, fault, conn, out, now_ns)
            elif kind == "mute":
                if self._muted(fault, conn, market, symbol, stream, now_ns):
                    self.hits[kind] += 1
                    out = []
            elif kind == "disconnect":
                if fault.p is not None and self._hit(number, fault, conn, now_ns):
                    return None
            elif not self._hit(number, fault, conn, now_ns):
                continue
            elif kind in ("drop", "gap"):
                out = []
            elif kind == "duplicate":
                out = [one for one in out for _ in range(2)]
            elif kind == "corrupt":
                draws = self._lane(number, conn, now_ns).draws
                out = [corrupted(one, fault.how, draws) for one in out]
        return out

    def _stalled(self, number: int, fault: Fault, conn: int, out: list[bytes], now_ns: int) -> list[bytes]:
        lane = self._lane(number, conn, now_ns)
        if lane.until_ns <= now_ns:
            if fault.p is not None and fault.at_ns is None and fault.every_ns is None:
                end = now_ns + (fault.for_ns or 0) if lane.draws.random() < fault.p else None
            else:
                end = fault.window_end(now_ns)
            if end is None:
                return out if not lane.held else self._hold(lane, out, lane.until_ns)
            lane.until_ns = end
            self.hits[fault.kind] += 1
        return self._hold(lane, out, lane.until_ns)

    @staticmethod
    def _hold(lane: _Lane, out: list[bytes], until_ns: int) -> list[bytes]:
        lane.held += [(until_ns, one) for one in out]
        return []

    def _reordered(self, number: int, fault: Fault, conn: int, out: list[bytes], now_ns: int) -> list[bytes]:
        lane = self._lane(number, conn, now_ns)
        if lane.held:
            held, lane.held = lane.held, []
            return [*out, *(one for _, one in held)]
        if self._hit(number, fault, conn, now_ns):
            return self._hold(lane, out, now_ns + REORDER_WAIT_NS)
        return out

    def released(self, conn: int, now_ns: int) -> list[bytes]:
        """Messages that were held and may go now, in order; ask before anything else is delivered."""
        free: list[bytes] = []
        for number, fault in self._on_messages:
            if fault.kind not in ("stall", "reorder"):
                continue
            lane = self._lane(number, conn, now_ns)
            if lane.held:
                free += [one for due, one in lane.held if due <= now_ns]
                lane.held = [entry for entry in lane.held if entry[0] > now_ns]
        return free

    def cut(self, conn: int, market: str, now_ns: int) -> str:
        """How the connection is to be ended now ("abort", "close"), "" if it is not."""
        for number, fault in self._of["disconnect"]:
            aimed = fault.p is None and fault.aims_at(conn, market, fault.symbol, fault.stream)
            if aimed and self._hit(number, fault, conn, now_ns):
                return fault.how
        return ""

    def cut_way(self, conn: int) -> str:
        """How a connection ends that `deliver` said to cut."""
        return next((fault.how for _, fault in self._of["disconnect"] if not fault.conn or fault.conn == conn), "abort")

    def _status(self, kind: str, market: str, now_ns: int) -> tuple[int, int]:
        for number, fault in self._of[kind]:
            if fault.aims_at(fault.conn, market, fault.symbol, fault.stream) and self._hit(number, fault, 0, now_ns):
                end = fault.window_end(now_ns) if fault.for_ns is not None else None
                return fault.status or {"refuse": 503, "limit": 429}[kind], max(0, end - now_ns) if end is not None else SECOND
        return 0, 0

    def refused(self, market: str, now_ns: int) -> int:
        """The HTTP status that a new stream connection is refused with, 0 if it is not."""
        return self._status("refuse", market, now_ns)[0]

    def limited(self, market: str, now_ns: int) -> tuple[int, int]:
        """(HTTP status, ns until it may be tried again) for a request, (0, 0) if it goes through."""
        return self._status("limit", market, now_ns)

    def clock_shift_ms(self, now_ns: int, conn: int = 0, market: str = "", symbol: str = "", stream: str = "") -> int:
        """By how much the times said there are wrong now."""
        shift = 0
        for _, fault in self._of["wrong_clock"]:
            if fault.aims_at(conn, market, symbol, stream) and fault.window_end(now_ns) is not None:
                shift += fault.by_ns // 1_000_000
        return shift

    def snapshot(self, market: str, symbol: str, now_ns: int) -> tuple[int, int]:
        """(age, delay) in ns of a REST snapshot that is asked for now."""
        age = delay = 0
        for kind in ("stale_snapshot", "slow_snapshot"):
            for number, fault in self._of[kind]:
                if fault.aims_at(0, market, symbol, "") and self._hit(number, fault, 0, now_ns):
                    age, delay = max(age, fault.age_ns), max(delay, fault.delay_ns)
        return age, delay

    def queue_bytes(self, conn: int, market: str, otherwise: int) -> int:
        """How much may wait for a slow reader before it is cut off."""
        found = [f.bytes for _, f in self._of["slow_consumer"] if f.aims_at(conn, market, f.symbol, f.stream)]
        return min([*found, otherwise])


def corrupted(text: bytes, how: str, draws: random.Random) -> bytes:
    """The message with an error in it that is not its frame's: cut short, bytes replaced by signs, or one digit by another."""
    if how == "cut":
        return text[: draws.randrange(1, max(2, len(text)))]
    broken = bytearray(text)
    if how == "digits":
        places = [n for n, byte in enumerate(broken) if 48 <= byte <= 57]
        if places:
            place = draws.choice(places)
            broken[place] = 48 + (broken[place] - 48 + draws.randrange(1, 10)) % 10
        return bytes(broken)
    start = draws.randrange(max(1, len(broken) - 4))
    broken[start : start + 4] = bytes(draws.choice(b"#$%&?") for _ in range(min(4, len(broken) - start)))
    return bytes(broken)
