"""Files of user's signals for the tests: the one that docs/user-signals.md shows, sound ones, and ones with a mistake each."""

from __future__ import annotations

import re
from pathlib import Path

from trading.settings import SignalFiles, Strategy, UserSignal

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "user-signals.md"

HEAD = "from trading.user_signals import signal\n\n"

WRONG = {
    "syntax": (HEAD + "@signal\ndef broken(state, event, out)\n    out.strength = 1.0\n", 4, "syntax error: expected ':'"),
    "wrong type": (
        HEAD + '@signal(state={"seen": int})\ndef broken(state, event, out):\n    state.seen = "many"\n', 5, "broken:",
    ),
    "wrong declared type": (
        HEAD + '@signal(state={"seen": list})\ndef broken(state, event, out):\n    pass\n', 3, "field seen has the wrong type",
    ),
    "unknown field": (
        HEAD + '@signal(state={"seen": int})\ndef broken(state, event, out):\n    state.sene += 1\n', 5,
        "state has no field 'sene'",
    ),
    "out of bounds": (
        HEAD + '@signal(state={"seen": int, "ring": (float, 8)})\ndef broken(state, event, out):\n    state.seen += 1\n'
        "    state.ring[state.seen] = event.mid\n", 6, "index 8 is out of bounds",
    ),
    "endless loop": (
        HEAD + "@signal\ndef broken(state, event, out):\n    while event.mid > 0:\n        out.strength += 1.0\n", 3,
        "did not come back within",
    ),
}  # fmt: skip
"""Mistake -> (file, the line that the error names, words of the error)."""

NAN = HEAD + (
    '@signal(params={"zero": 0.0})\ndef broken(state, event, out):\n'
    "    out.strength = state.zero / state.zero if event.side > 0 else 0.5\n"
)
"""NaN at every buy, else 0.5."""

LATE = HEAD + (
    '@signal(params={"at": 1000, "what": 1}, state={"seen": int, "ring": (float, 4)})\ndef broken(state, event, out):\n'
    "    state.seen += 1\n    out.strength = 0.5\n"
    "    if state.seen >= state.at:\n"
    "        if state.what == 1:\n            out.strength = state.ring[state.seen]\n"
    "        while state.what == 2 and state.seen > 0:\n            state.seen += 1 if event.mid > 0 else 0\n"
)
"""Sound until the `at`-th record of a symbol; then (what 1) an index out of bounds, or (what 2) a loop without an end."""


def strategy_of(path: Path, text: str, name: str = "broken", weight: float = 0.5, **params: float) -> Strategy:
    """A strategy whose one signal of the user's is in `path`, which gets this text."""
    path.write_text(text)
    return Strategy(signals=SignalFiles(user=(UserSignal(file=str(path), name=name, weight=weight, params=params),)))


def documented() -> str:
    """The file that docs/user-signals.md shows first."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S)
    return blocks[0]
