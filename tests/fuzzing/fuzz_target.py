"""What a fuzz target is: seeds, a property that holds for any bytes, and mutations that know the input's structure.

A target's `run` raises AssertionError (Broken) where the property fails; any other exception is a crash. It answers its
*features*, a tuple of small numbers that says how far the bytes came: compiled code shows the fuzzer nothing else.

What this module is not: a runner (`fuzz_run`), nor does it need atheris.
"""

from __future__ import annotations

import os
import random
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

ROOT = Path(__file__).resolve().parents[2]
SCRATCH = "SCALPER_FUZZ_SCRATCH"
"""The folder where inputs become files, by this variable."""
Features = tuple[int, ...]

_TOKENS = re.compile(rb'"(?:[^"\\\n]|\\.)*"|-?[0-9]+(?:\.[0-9]+)?|true|false|null|[A-Za-z_]+|\s|.', re.S)
_NUMBERS = (b"0", b"1", b"-1", b"01", b"1.5", b"1e3", b"0.00000001", b"999999999999999999", b"9223372036854775807",
            b"18446744073709551616", b"100000000.00000001", b"-0", b".5", b"5.", b"NaN", b"null")  # fmt: skip
_PIECES = (b"{", b"}", b"[", b"]", b",", b":", b'"', b'""', b"\\", b"\\u0041", b"\x00", b"\xff", b"\xc3\xa9", b" ", b"\t",
           b"null", b"true", b"{}", b"[]", b'"x":1,', b"[[" * 70)  # fmt: skip


class Broken(AssertionError):
    """The property does not hold for these bytes."""


def claim(holds: object, what: str) -> None:
    """Raise Broken if it does not hold; unlike `assert` it survives python -O."""
    if not holds:
        raise Broken(what)


def recordings() -> Path | None:
    """The folder of recorded market data, None where there is none."""
    folder = Path(os.environ.get("SCALPER_DATA") or ROOT.parent / "shared" / "data")
    return folder if folder.is_dir() else None


class Target(ABC):
    """One thing to fuzz."""

    name: ClassVar[str]
    meaning: ClassVar[str]
    instrument: ClassVar[tuple[str, ...]] = ()
    """Python modules whose branches the fuzzer may watch."""
    max_bytes: ClassVar[int] = 16384

    @abstractmethod
    def seeds(self) -> list[bytes]:
        """Sound inputs to begin with; the same on every machine, more where there are recordings."""

    @abstractmethod
    def run(self, raw: bytes) -> Features:
        """Check the property on these bytes."""

    def mutate(self, raw: bytes, rng: random.Random, pool: list[bytes]) -> bytes:
        """Another input made of this one; `pool`: inputs to take pieces from."""
        for _ in range(rng.randint(1, 4)):
            raw = mutate_text(raw, rng, pool)
        return raw[: self.max_bytes]

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of what it holds."""


def mutate_text(raw: bytes, rng: random.Random, pool: list[bytes]) -> bytes:
    """One change to a text of lines of JSON (or YAML): of a byte, a token, a member, a line, or a piece of another input."""
    if not raw or rng.random() < 0.15:
        return mutate_bytes(raw, rng, pool)
    tokens = _TOKENS.findall(raw)
    at = rng.randrange(len(tokens))
    match rng.randrange(8):
        case 0:  # another number, bare or in quotes
            numeric = [i for i, token in enumerate(tokens) if token.strip(b'"')[:1].isdigit()]
            at = rng.choice(numeric) if numeric else at
            value = rng.choice(_NUMBERS)
            plain = tokens[at].strip(b'"')
            if plain.isdigit() and len(plain) < 19 and rng.random() < 0.6:
                value = b"%d" % max(0, int(plain) + rng.choice((-2, -1, 1, 2, 1000)))
            tokens[at] = b'"%s"' % value if tokens[at][:1] == b'"' else value
        case 1:
            del tokens[at : at + rng.randint(1, 6)]
        case 2:
            tokens[at:at] = [rng.choice(_PIECES)]
        case 3:
            other = rng.randrange(len(tokens))
            tokens[at], tokens[other] = tokens[other], tokens[at]
        case 4:  # say something twice
            length = rng.randint(1, 12)
            tokens[at:at] = tokens[at : at + length]
        case 5:  # a piece of another
            theirs = _TOKENS.findall(rng.choice(pool)) if pool else tokens
            start = rng.randrange(len(theirs)) if theirs else 0
            tokens[at : at + rng.randint(0, 8)] = theirs[start : start + rng.randint(1, 24)]
        case 6:  # swap the type of a value: in quotes or not
            token = tokens[at]
            tokens[at] = token[1:-1] if token[:1] == b'"' else b'"%s"' % token
        case _:
            lines = raw.split(b"\n")
            i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
            how = rng.randrange(4)
            if how == 0:
                lines[i], lines[j] = lines[j], lines[i]
            elif how == 1:
                lines.insert(j, lines[i])
            elif how == 2 and len(lines) > 1:
                del lines[i]
            else:
                lines[i:i] = (rng.choice(pool) if pool else raw).split(b"\n")[: rng.randint(1, 4)]
            return b"\n".join(lines)
    return b"".join(tokens)


def mutate_bytes(raw: bytes, rng: random.Random, pool: list[bytes]) -> bytes:
    """One change that knows no structure."""
    out = bytearray(raw)
    at = rng.randrange(len(out) + 1)
    match rng.randrange(5):
        case 0:
            del out[at : at + rng.randint(1, 16)]
        case 1:
            out[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 8)))
        case 2 if at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        case 3:
            del out[at:]
        case _:
            other = rng.choice(pool) if pool else raw
            start = rng.randrange(len(other) + 1)
            out[at:at] = other[start : start + rng.randint(1, 64)]
    return bytes(out)
