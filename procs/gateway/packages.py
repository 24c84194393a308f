"""Whether the packages that the gateway stands on are there, said before anything is started. Imports none of them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

NEEDED: Final = ("fastapi", "uvicorn")


def missing() -> str:
    """One sentence on what is not installed and what to do; "" if all is there."""
    absent = [name for name in NEEDED if find_spec(name) is None]
    if not absent:
        return ""
    return (
        f"gateway.enabled is true, but {' and '.join(absent)} cannot be imported: install the extra `web` "
        "(pip install 'scalper[web]'), or set gateway.enabled=false"
    )
