"""Text for people: tables that fit a width, figures in the unit that reads best, colours that can be switched off.

Pure: strings in, strings out. A table that is too wide loses its least important columns first, never a line's end.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TextIO

from sim.spans import span

__all__ = ["span"]  # and all that is defined here

STYLES: Final = {
    "bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36", "grey": "90",
}  # fmt: skip
_ESCAPE: Final = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

Paint = Callable[[str, str], str]
"""(text, style names with blanks) -> text with or without colour."""


def plain(text: str, style: str) -> str:
    """No colours."""
    return text


def coloured(text: str, style: str) -> str:
    """ANSI colours; several styles are separated by blanks."""
    codes = ";".join(STYLES[name] for name in style.split())
    return f"\x1b[{codes}m{text}\x1b[0m" if codes and text else text


def paint_for(out: TextIO) -> Paint:
    """Colours where `out` is a terminal that has them and NO_COLOR is not set."""
    wanted = out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") not in ("", "dumb")
    return coloured if wanted else plain


def clean_text(text: str) -> str:
    """Text of unknown origin (a log's line, a recording's symbol) without control characters: it must not steer a terminal."""
    return _CONTROL.sub(" ", text)


def visible(text: str) -> int:
    """Columns that a text takes."""
    return len(_ESCAPE.sub("", text))


def clip(text: str, width: int) -> str:
    """The text in at most `width` columns, colours kept, with an ellipsis where something is missing."""
    if visible(text) <= width:
        return text
    out, used, at = [], 0, 0
    while at < len(text) and used < width - 1:
        escape = _ESCAPE.match(text, at)
        if escape:
            out.append(escape[0])
            at = escape.end()
        else:
            out.append(text[at])
            used, at = used + 1, at + 1
    return "".join(out) + "…" + ("\x1b[0m" if "\x1b" in text else "")


def wrapped(text: str, width: int) -> list[str]:
    """A sentence as lines of at most `width` columns, all but the first indented by two; a path stays whole, to be copied."""
    return textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False) or [""]


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `keep` orders what goes first when the table is too wide: 0 never goes, then 1, 2, ... (highest first)."""

    title: str
    right: bool = True
    keep: int = 0


Cell = str | tuple[str, str]
"""A cell's text, or (text, style)."""


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int, paint: Paint = plain) -> list[str]:
    """The rows as lines of at most `width` columns, with a line of titles."""
    shown = list(range(len(columns)))
    texts = [[cell if isinstance(cell, str) else cell[0] for cell in row] for row in rows]
    widths = [max([len(c.title), *(len(row[i]) for row in texts)]) for i, c in enumerate(columns)]
    while sum(widths[i] for i in shown) + 2 * (len(shown) - 1) > width:
        removable = [i for i in shown if columns[i].keep]
        if not removable:
            break
        shown.remove(max(removable, key=lambda i: columns[i].keep))

    def line(cells: Sequence[Cell], style: str = "") -> str:
        parts = []
        for i in shown:
            cell = cells[i]
            text, own = (cell, style) if isinstance(cell, str) else cell
            padded = text.rjust(widths[i]) if columns[i].right else text.ljust(widths[i])
            parts.append(paint(padded, own) if own else padded)
        return clip("  ".join(parts).rstrip(), width)

    return [line([c.title for c in columns], "dim"), *(line(row) for row in rows)]


def bar(share: float, width: int) -> str:
    """A horizontal bar of `width` columns filled to `share` (0..1) in eighths."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    full, rest = divmod(eighths, 8)
    text = "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    return text.ljust(width, "·")[:width]


def count(value: float | int | None) -> str:
    """A whole number with separators; "-" for none."""
    return "-" if value is None else f"{value:,.0f}"


def rate(value: float | None) -> str:
    """Events a second: "1.2M", "35.1k", "480", "2.5", "0"; "-" for none."""
    if value is None:
        return "-"
    for limit, unit in ((1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / (1e6 if unit == 'M' else 1e3):.1f}{unit}"
    return f"{value:.0f}" if value >= 9.95 or value == 0 else f"{value:.1f}"


def share(value: float | None) -> str:
    """A share (0..1) in percent; "-" for none."""
    return "-" if value is None else f"{value * 100:.1f}%"


def megabytes(kb: int | None) -> str:
    """KiB as MB with one digit; "-" for none."""
    return "-" if kb is None else f"{kb / 1024:.1f}"
