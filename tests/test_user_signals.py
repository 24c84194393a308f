"""A user's own signals: declared, compiled into the one pass, shown like the others; and what becomes of wrong ones."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from features_markets import BTC, random_walk
from user_signal_files import LATE, NAN, WRONG, documented, strategy_of

from procs.cli.outcome import CliError
from procs.cli.signal_check import with_signals
from procs.profiles.schema import Profile
from procs.research.signal_files import load
from procs.research.signal_trial import trial_market, try_signal
from trading.features.signals import N_SIGNALS, SIGNALS, reasons
from trading.own_signals.call import USER_EVENT
from trading.own_signals.guard import WHY_FAULT, WHY_STOPPED
from trading.records import MAX_SIGNALS, Flag, Kind
from trading.scoring.batch import Pass, signals_of
from trading.settings import SignalFiles, Strategy, UserSignal
from trading.user_signals import NONE, SignalError, signal, signal_table

MINE = N_SIGNALS


def profile_of(strategy: Strategy) -> Profile:
    """A profile with a strategy's signals."""
    return msgspec.structs.replace(Profile(), signals=strategy.signals)


@pytest.fixture
def walk() -> np.ndarray:
    """MARKET_RECORDs of two symbols."""
    return random_walk(5, 4000, symbols=2, stale_every=500)


def test_the_documented_signal_says_what_plain_python_says(tmp_path: Path, walk: np.ndarray) -> None:
    """The example of the documentation, compiled into the pass, gives at every record what a plain loop over the prints gives."""
    user = load(strategy_of(tmp_path / "mine.py", documented(), "print_pressure"))
    answers = signals_of(walk, user=user)
    p = user.settings[0].params
    keep, signed, lots, prints = 0.5 ** (1.0 / p["half_life"]), [0.0, 0.0], [0.0, 0.0], [0, 0]
    spoke = 0
    for rec, answer in zip(walk, answers, strict=True):
        s = int(rec["symbol"])
        if not answer["flags"] & Flag.BOOK_VALID:
            assert answer["strength"][MINE] == 0.0
            continue
        if rec["kind"] == Kind.TRADE:
            sign = -1 if rec["flags"] & Flag.AGGRESSOR_SELL else 1
            signed[s] = keep * signed[s] + sign * int(rec["qty_lots"])
            lots[s] = keep * lots[s] + int(rec["qty_lots"])
            prints[s] += 1
        warm = prints[s] >= p["half_life"]
        share = signed[s] / lots[s] if warm else 0.0
        wanted = share if abs(share) > p["threshold"] else 0.0
        assert answer["strength"][MINE] == pytest.approx(wanted, rel=1e-6), s
        assert int(answer["ready_mask"]) >> MINE & 1 == warm
        spoke += wanted != 0.0
    assert spoke > 100


def test_a_users_signal_votes_and_is_explained(tmp_path: Path, walk: np.ndarray) -> None:
    """It changes the score by its weight, is among the active ones, and its sentence is among the reasons."""
    user = load(strategy_of(tmp_path / "mine.py", documented(), "print_pressure", weight=2.0))
    shown = signal_table(Strategy(signals=SignalFiles(user=user.settings)))
    assert [spec.key for spec in shown] == [*(s.key for s in SIGNALS), "print_pressure"]
    plain, answers = signals_of(walk), signals_of(walk, user=user)
    spoke = (answers["active_mask"] >> MINE & 1).astype(bool)
    assert spoke.sum() > 100 and (answers["score"][spoke] != plain["score"][spoke]).mean() > 0.9
    row = answers[np.flatnonzero(spoke)[-1]]
    assert any(text.startswith("aggressors' volume ") for text in reasons(row, Strategy().features, shown))
    decided = ("score", "confidence", "urgency", "active_mask", "side", "gate", "reason", "ready_mask", "strength")
    for name in set(answers.dtype.names) - set(decided):
        assert np.array_equal(plain[name], answers[name]), f"{name} is none of a signal's business"


def test_without_weight_it_is_shown_but_does_not_vote(tmp_path: Path, walk: np.ndarray) -> None:
    """Weight 0: strengths as ever, the decision as without it."""
    user = load(strategy_of(tmp_path / "mine.py", documented(), "print_pressure", weight=0.0))
    plain, answers = signals_of(walk), signals_of(walk, user=user)
    assert np.abs(answers["strength"][:, MINE]).max() > 0.3
    for name in ("score", "confidence", "side", "gate", "active_mask", "reason"):
        assert np.array_equal(plain[name], answers[name])


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_reported_with_its_place(mistake: str, tmp_path: Path) -> None:
    """Syntax, types, fields, an index out of bounds, a loop without an end: one sentence with file and line, in time."""
    text, line, words = WRONG[mistake]
    file = tmp_path / "wrong.py"
    with pytest.raises(CliError) as failed:
        with_signals(profile_of(strategy_of(file, text)), trial_limit_s=3.0)
    assert str(failed.value).startswith(f"{file}:{line}: "), failed.value
    assert words in str(failed.value)


def test_not_a_number_is_told_at_the_start_and_counted_later(tmp_path: Path, walk: np.ndarray) -> None:
    """NaN is a warning at the start; while running the signal is silent for that record, and counted; nothing else is NaN."""
    said: list[str] = []
    strategy = strategy_of(tmp_path / "nan.py", NAN)
    settled = with_signals(profile_of(strategy), said.append)
    assert settled.signals.user[0].voice == "occasional" and len(said) == 1
    assert f"{tmp_path / 'nan.py'}:3: broken answers with what is no finite number" in said[0]
    world = Pass([BTC, BTC], strategy, user=load(strategy))
    answers = world.signals(walk)
    buys = (walk["kind"] == Kind.TRADE) & (walk["flags"] & Flag.AGGRESSOR_SELL == 0) & (answers["flags"] & Flag.BOOK_VALID != 0)
    valid = answers["flags"] & Flag.BOOK_VALID != 0
    assert world.status["not_finite"][0] == buys.sum() > 0 and world.status["off_at"][0] == 0
    assert np.array_equal(answers["strength"][valid, MINE], np.where(buys[valid], 0.0, 0.5).astype(np.float32))
    assert all(np.isfinite(answers[name]).all() for name in answers.dtype.names if answers.dtype[name].kind == "f")


def test_an_index_out_of_bounds_switches_the_signal_off(tmp_path: Path, walk: np.ndarray) -> None:
    """At the record at which it fails it is off for all symbols, counted once, and everything else goes on as without it."""
    strategy = strategy_of(tmp_path / "late.py", LATE, at=500)
    world = Pass([BTC, BTC], strategy, user=load(strategy))
    answers, plain = world.signals(walk), signals_of(walk)
    status = world.status[0]
    assert (status["faults"], status["off_why"]) == (1, WHY_FAULT)
    off = int(status["off_at"])
    assert 500 < off < 1500
    valid = answers["flags"] & Flag.BOOK_VALID != 0
    assert (answers["strength"][: off - 1, MINE] == np.where(valid[: off - 1], np.float32(0.5), 0)).all()
    assert (answers["strength"][off - 1 :, MINE] == 0).all()
    after = answers[off + 200 :]
    assert (after["ready_mask"] >> MINE & 1 == 0).all()
    assert np.array_equal(after["score"], plain["score"][off + 200 :])


def test_a_stop_in_the_guard_takes_effect_at_its_record(tmp_path: Path, walk: np.ndarray) -> None:
    """A signal that somebody switched off from record n on gives what it gave before n, and nothing from n on."""
    strategy = strategy_of(tmp_path / "mine.py", documented(), "print_pressure")
    user = load(strategy)
    free, stopped = Pass([BTC, BTC], strategy, user=user), Pass([BTC, BTC], strategy, user=user)
    guard = stopped.guard
    guard[2] = 2000
    a, b = free.signals(walk)["strength"][:, MINE], stopped.signals(walk)["strength"][:, MINE]
    assert np.array_equal(a[:1999], b[:1999]) and (b[1999:] == 0).all() and (a[1999:] != 0).any()
    assert (stopped.status["off_at"][0], stopped.status["off_why"][0]) == (guard[40], guard[52])
    assert guard[52] == WHY_STOPPED and guard[0] == 0


def test_state_restored_goes_on_as_if_nothing_had_been(tmp_path: Path, walk: np.ndarray) -> None:
    """Rows and status put back give the same answers as no interruption: a checkpoint holds all there is."""
    strategy = strategy_of(tmp_path / "mine.py", documented(), "print_pressure")
    user = load(strategy)
    whole = Pass([BTC, BTC], strategy, user=user).signals(walk)
    first, second = Pass([BTC, BTC], strategy, user=user), Pass([BTC, BTC], strategy, user=user)
    first.signals(walk[:1500])
    for name in ("state", "glob", "rows", "status"):
        getattr(second, name)[:] = getattr(first, name)
    assert np.array_equal(second.signals(walk[1500:]), whole[1500:])


def test_other_code_resumes_nothing(tmp_path: Path) -> None:
    """The hash of the user's code is in the names of what is kept, so that a checkpoint of other code does not fit."""
    one = load(strategy_of(tmp_path / "mine.py", documented(), "print_pressure")).spec(2)
    two = load(strategy_of(tmp_path / "mine.py", documented() + "\n# edited\n", "print_pressure")).spec(2)
    assert [kind for _, kind, _ in one] == [kind for _, kind, _ in two] and one[0][0] != two[0][0]
    assert NONE.spec(2) == ()


def test_the_start_pins_what_it_tried(tmp_path: Path) -> None:
    """A file that changes between its trial and its use is refused."""
    strategy = strategy_of(tmp_path / "mine.py", documented(), "print_pressure")
    settled = with_signals(profile_of(strategy))
    assert load(settled).settings == settled.signals.user
    (tmp_path / "mine.py").write_text(documented() + "\n")
    with pytest.raises(SignalError, match="not what was tried"):
        load(settled)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"params": {"sped": 1.0}}, "has no parameter 'sped': known are half_life, threshold"),
        ({"name": "pressure"}, "declares no signal 'pressure': it declares print_pressure"),
        ({"file": "nowhere.py"}, "nowhere.py: no such file or directory"),
    ],
)
def test_settings_that_do_not_fit_the_file(change: dict[str, object], words: str, tmp_path: Path) -> None:
    """Unknown parameters, names and files are told with what there is."""
    strategy = strategy_of(tmp_path / "mine.py", documented(), "print_pressure")
    one = msgspec.structs.replace(strategy.signals.user[0], **change)
    with pytest.raises(SignalError, match="signals.user|known are|declares") as failed:
        load(Strategy(signals=SignalFiles(user=(one,))))
    assert words in str(failed.value)


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    """Neither a built-in signal's name nor another one's of the user's."""
    text = documented().replace("print_pressure", "spread")
    with pytest.raises(SignalError, match="the name of another signal"):
        load(strategy_of(tmp_path / "mine.py", text, "spread"))
    one = UserSignal(file=str(tmp_path / "mine.py"), name="x")
    (tmp_path / "mine.py").write_text(documented().replace("print_pressure", "x"))
    with pytest.raises(SignalError, match="the name of another signal"):
        load(Strategy(signals=SignalFiles(user=(one, one))))


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"params": {"a": "b"}}, "parameter a is 'b'"),
        ({"params": {"a": math.nan}}, "parameter a is nan"),
        ({"params": {"if": 1}}, "'if' is no name for a field"),
        ({"state": {"a": (float, 0)}}, "field a has the wrong type"),
        ({"state": {"a": (float, 5000)}}, "field a has the wrong type"),
        ({"params": {"a": 1}, "state": {"a": int}}, "both a parameter and a field"),
        ({"voice": "loud"}, "voice 'loud' is not known: write standing, occasional, confirming"),
        ({"sentence": "{strenght}"}, "the sentence names strenght"),
        ({"sentence": "{strength"}, "is no format string"),
    ],
)
def test_a_declaration_is_checked_where_it_stands(declared: dict[str, object], words: str) -> None:
    """Each wrong declaration is refused at once, with this file and the function's line."""

    def mine(state: object, event: object, out: object) -> None:
        pass

    with pytest.raises(SignalError) as failed:
        signal(**declared)(mine)  # type: ignore[call-overload]
    place = f"{__file__}:{mine.__code__.co_firstlineno}: @signal on mine: "
    assert str(failed.value).startswith(place) and words in str(failed.value)


def test_more_signals_than_places(tmp_path: Path) -> None:
    """There is room for as many as the record has places left."""
    many = MAX_SIGNALS - N_SIGNALS + 1
    text = "from trading.user_signals import signal\n" + "".join(
        f"\n@signal\ndef s{k}(state, event, out):\n    out.strength = 0.1\n" for k in range(many)
    )
    (tmp_path / "many.py").write_text(text)
    user = tuple(UserSignal(file=str(tmp_path / "many.py"), name=f"s{k}") for k in range(many))
    with pytest.raises(SignalError, match=f"names {many} signals: there is room for {many - 1}"):
        load(Strategy(signals=SignalFiles(user=user)))


def test_the_trial_market_has_every_field_and_no_nan() -> None:
    """What signals are tried on: all fields of the event, none of them NaN, some of them extreme."""
    events = trial_market()
    assert events.dtype == USER_EVENT
    for name in events.dtype.names:
        assert np.isfinite(events[name]).all() and np.any(events[name]), name
    assert (events["bid_lots"][:, 1] == 0).any() and (events["vpin"][:100] == 0).all()


def test_a_sound_signal_passes_its_trial(tmp_path: Path) -> None:
    """The documented one has nothing to complain of."""
    user = load(strategy_of(tmp_path / "mine.py", documented(), "print_pressure"))
    assert try_signal(user, 0, trial_market()) == 0


CHANCES = {
    "numpy": "out.strength = np.random.random() - 0.5",
    "random": "out.strength = random.random() - 0.5",
    "into the state alone": "state.x = np.random.normal()",
    "only now and then": "if event.vpin > 0.99:\n        out.ready = np.random.randint(2)",
    "seeded once": "if state.n == 0:\n        np.random.seed(7)\n    state.n += 1\n    out.strength = np.random.random() - 0.5",
}


@pytest.mark.parametrize("how", CHANCES)
def test_a_signal_that_draws_lots_is_refused_with_its_line(how: str, tmp_path: Path) -> None:
    """Called twice from equal state it gives two results; a seed once at the beginning does not hide that."""
    head = "import random\n\nimport numpy as np\n\nfrom trading.user_signals import signal\n\n\n"
    head += '@signal(state={"n": int, "x": float})\ndef drawn(state, event, out):\n    '
    text = head + CHANCES[how] + "\n"
    user = load(strategy_of(tmp_path / "mine.py", text, "drawn"))
    line = next(n for n, said in enumerate(text.splitlines(), 1) if "random." in said)
    with pytest.raises(SignalError, match=rf"mine\.py:{line}: drawn: called twice .* two results .*perhaps by [np.]*random\."):
        try_signal(user, 0, trial_market())


def test_a_seeded_answer_is_a_function_of_the_record(tmp_path: Path) -> None:
    """Numbers that each call makes anew from the event are as good as any other function; NaN twice is the same answer."""
    text = (
        "import numpy as np\n\nfrom trading.user_signals import signal\n\n\n"
        '@signal(state={"x": float})\ndef own(state, event, out):\n'
        "    np.random.seed(event.ts_ns % 1000)\n    state.x = np.random.random()\n    out.strength = np.sqrt(state.x - 0.5)\n"
    )
    user = load(strategy_of(tmp_path / "mine.py", text, "own"))
    assert 8_000 < try_signal(user, 0, trial_market()) < 12_000
