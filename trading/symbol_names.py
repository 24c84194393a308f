"""What a symbol may be called: one rule for profiles, recordings, conversions and commands.

A name is what stands in profiles, in paths and on the rings: 1 to NAME_BYTES of A to Z, 0 to 9 and _ (BTCUSDT, BTCUSD_PERP,
BTCUSDT_241227), no _ at its beginning. Venues that write signs between the parts of a name (BTC-USDT, XBT/USD, linear:BTCUSDT)
keep that as the symbol's venue name; here the three signs -, / and : are left out. Nothing else ever is: what is no name is
refused by the character that it is refused for.

What this module is not: it imports nothing of ours; that a venue knows the symbol is the venue's to say.
"""

from __future__ import annotations

from typing import Final

NAME_BYTES: Final = 24
SEPARATORS: Final = "-/:"
PATTERN: Final = rf"[A-Z0-9][A-Z0-9_]{{0,{NAME_BYTES - 1}}}"
"""The names, as a regular expression without anchors."""
_LETTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


class SymbolNameError(ValueError):
    """A text is no symbol; the message quotes it and the character that it is refused for."""


def name_fault(name: str) -> str:
    """Why this is no symbol's name, a clause that begins with a verb; "" if it is one."""
    if not name:
        return "is empty"
    for place, letter in enumerate(name, 1):
        if letter not in _LETTERS:
            shown = f"{letter!r} (U+{ord(letter):04X})" if not letter.isascii() else repr(letter)
            return f"has {shown} as its character {place}; a symbol is made of A to Z, 0 to 9 and _"
    if name[0] == "_":
        return "begins with '_'; a symbol begins with a letter or a digit"
    return f"has {len(name)} characters; a symbol has at most {NAME_BYTES}" if len(name) > NAME_BYTES else ""


def symbol_name(text: str) -> str:
    """The name of what a venue or a person calls `text`: upper case, without separators. Raises SymbolNameError."""
    name = "".join(letter for letter in text.upper() if letter not in SEPARATORS) if text.isascii() else text
    fault = name_fault(name)
    if fault:
        raise SymbolNameError(f"symbol {text[:64]!r} {fault}")
    return name
