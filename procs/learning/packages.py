"""Whether the packages that the learner trains with are there, said before anything is started. Imports none of them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from procs.profiles.schema import Profile

NEEDED: Final = {"trees": ("lightgbm",), "linear": ("sklearn",), "garch": ("arch",), "microprice": ()}
CALLED: Final = {"sklearn": "scikit-learn"}


def missing(profile: Profile) -> str:
    """One sentence on what is not installed and what to do; "" if all is there, or the learner is off."""
    told = profile.ml.learner
    absent = [CALLED.get(name, name) for name in NEEDED[told.kind] if find_spec(name) is None]
    if not told.enabled or not absent:
        return ""
    return (
        f"ml.learner.enabled is true, but {' and '.join(absent)} cannot be imported: install the extra `ml` "
        "(pip install 'scalper[ml]'), or set ml.learner.enabled=false"
    )
