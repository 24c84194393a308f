"""Whether our packages are ours: a `trading/` or `sim.py` of somebody else, found first, would run in our place.

`procs/__init__.py` asks as soon as anything of `procs` is imported, so every command and every stage does. A program of ours
says which file stands in the way and ends with exit code 2; a program of a user's own gets an ImportError that says the same.

What this cannot see: a `procs` that is found before ours (then not a line of ours runs), `sitecustomize`, and other libraries'
names. Whoever sets PYTHONPATH or writes to site-packages runs code as that user anyhow. Our own children are started with -P and
with our folder first, so for them neither the working directory nor PYTHONPATH can put anything in the way.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

PACKAGES: Final = ("shm", "ringbuf", "trading", "sim", "procs")
ROOT: Final = Path(__file__).resolve().parent.parent
PROGRAM: Final = "scalperctl"
EXIT_USAGE: Final = 2


def intruder() -> str:
    """What stands in the place of one of our packages, as a sentence with the remedy; "" if nothing does."""
    for name in PACKAGES:
        try:
            spec = find_spec(name)
        except (ImportError, ValueError):  # a half-made module of that name
            spec = None
        if spec is None:
            return f"{ROOT / name} is not found as the package `{name}`: install scalper again, or start it from its own folder"
        for place in spec.submodule_search_locations or [spec.origin or "nowhere"]:
            if Path(place).resolve() != (ROOT / name).resolve():
                found = spec.origin or place
                return (
                    f"{found} is found in place of scalper's own package `{name}` ({ROOT / name}): rename or move it, "
                    "or take its folder out of the working directory, PYTHONPATH or site-packages"
                )
    return ""


def is_own_program(words: list[str]) -> bool:
    """Whether the interpreter was started (`sys.orig_argv`) for a program of ours: scalperctl, or `-m procs...`."""
    left = iter(words[1:])
    for word in left:
        if word == "-m":
            return next(left, "").partition(".")[0] in PACKAGES
        if word in ("-X", "-W"):
            next(left, "")
        elif word == "-c" or not word.startswith("-"):
            return word != "-c" and Path(word).name == PROGRAM
    return False


def refuse_intruders() -> None:
    """End a program of ours with the sentence and exit code 2; raise ImportError in any other."""
    problem = intruder()
    if not problem:
        return
    if not is_own_program(sys.orig_argv):
        raise ImportError(problem)
    print(f"{PROGRAM}: {problem}", file=sys.stderr)
    raise SystemExit(EXIT_USAGE)
