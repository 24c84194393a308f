"""Every fuzz target's property over its seeds and a fixed run of mutations: the same as scripts/fuzz, without atheris."""

from __future__ import annotations

import random

import pytest
from fuzz_list import TARGETS
from fuzz_target import Broken, Target

ROUNDS = {"venue-decoders": 120, "profiles": 150, "instrument-lists": 200}
EACH = 500


@pytest.mark.parametrize("name", TARGETS)
def test_the_property_holds_for_seeds_and_mutations(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No crash and nothing of garbage, on sound inputs and on a few hundred damaged ones; the seeds come further than junk."""
    monkeypatch.setenv("SCALPER_DATA", "/nonexistent")  # the same inputs on every machine
    target = TARGETS[name]()
    try:
        pool = target.seeds()
        assert len(pool) >= 3 and all(len(seed) <= target.max_bytes for seed in pool)
        features = {target.run(seed) for seed in pool}
        if features == {()}:
            pytest.skip("there is nothing to fuzz: no venue module is installed")
        junk = target.run(b"\x00\xffjunk")
        assert features - {junk}, "no seed comes further than junk does"
        rng = random.Random(name)
        for _ in range(ROUNDS.get(name, EACH)):
            raw = target.mutate(rng.choice(pool), rng, pool)
            seen = target.run(raw)
            if seen not in features:
                features.add(seen)
                pool.append(raw)
    finally:
        target.close()


def test_the_judge_has_teeth(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fold that tells of a frame that the judge refuses, or another price than it derives, is caught."""
    target = TARGETS["binance-spot"]()
    frame = next(seed for seed in target.seeds() if seed.startswith(b'{"e":"trade"'))
    target.run(frame)
    judge = target.judge  # type: ignore[attr-defined]

    def other_price(raw: bytes, hint: int) -> object:
        said = judge(raw, hint)
        said.price += 1
        return said

    for wrong in (lambda raw, hint: None, other_price):
        monkeypatch.setattr(target, "judge", wrong)
        with pytest.raises(Broken):
            target.run(frame)
    target.close()


def test_every_target_names_itself() -> None:
    """Names are unique, fit for a command line, and explained."""
    kinds: list[type[Target]] = list(TARGETS.values())
    assert len({kind.meaning for kind in kinds}) == len(kinds) >= 9
    assert all(name.replace("-", "").isalpha() and name.islower() for name in TARGETS)
