"""Features as columns: data frames in and out, the file that `scalperctl features` writes, the score of a history."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from features_markets import BTC, random_walk
from user_signal_files import LATE, documented, strategy_of

from procs.cli.main import main
from procs.cli.outcome import UNHEALTHY
from procs.journal.names import Names
from procs.recordings.columns import KINDS, columns_of
from procs.recordings.output import RecordingsError
from procs.research.columns import features_of, frame_of, market_microstructure_score, market_of, signal_values
from procs.research.signal_files import load
from sim.recordings.recording import RecordingError
from trading.features.signals import N_SIGNALS, SIGNALS
from trading.features.vector import NAMES
from trading.own_signals.guard import STOP_FROM
from trading.records import LEVELS
from trading.scoring import batch
from trading.scoring.batch import Pass
from trading.user_signals import SignalError


@pytest.fixture(scope="module")
def walk() -> np.ndarray:
    """MARKET_RECORDs of one symbol."""
    return random_walk(9, 6000, stale_every=700)


@pytest.fixture(scope="module")
def frame(walk: np.ndarray) -> pl.DataFrame:
    """The same as `scalperctl data convert --to parquet` writes them."""
    columns = columns_of("market", 0, walk, Names([BTC]))
    return pl.DataFrame({name: value.tolist() if value.dtype == object else value for name, value in columns.items()})


def test_a_frame_becomes_the_records_that_it_was_made_of(walk: np.ndarray, frame: pl.DataFrame) -> None:
    """Prices and quantities come back as the same ticks and lots, kinds and flags with them."""
    market, instruments = market_of(frame, BTC)
    assert [it.name for it in instruments] == ["BTCUSDT"]
    for name in ("ts_ns", "kind", "flags", "price_ticks", "qty_lots", "bid_ticks", "bid_lots", "ask_ticks", "ask_lots"):
        assert np.array_equal(market[name], walk[name]), name


def test_every_signal_and_feature_is_a_column(walk: np.ndarray, frame: pl.DataFrame, tmp_path: Path) -> None:
    """A polars frame in, a polars frame out: the values of the batch functions; null where not warm; the user's signal too."""
    strategy = strategy_of(tmp_path / "mine.py", documented(), "print_pressure")
    out = features_of(frame, strategy, BTC)
    assert isinstance(out, pl.DataFrame) and len(out) == len(walk)
    assert {*NAMES, *(f"signal_{spec.key}" for spec in SIGNALS), "signal_print_pressure"} <= set(out.columns)
    answers, matrix, ready = Pass([BTC], strategy, user=load(strategy)).all(walk)
    for k, name in enumerate(NAMES):
        column = out[name].to_numpy()
        np.testing.assert_array_equal(column, np.where(ready[:, k], matrix[:, k], np.nan), err_msg=name)
    mine = np.where(answers["ready_mask"] >> N_SIGNALS & 1, answers["strength"][:, N_SIGNALS].astype(float), np.nan)
    np.testing.assert_array_equal(out["signal_print_pressure"].to_numpy(), mine)
    assert out["rsi"].null_count() > 0 and out["score"].null_count() == 0 and out["gate"].n_unique() > 1


def test_pandas_in_pandas_out(frame: pl.DataFrame) -> None:
    """The same of a pandas frame, where pandas is installed."""
    pd = pytest.importorskip("pandas")
    out = features_of(pd.DataFrame({name: frame[name].to_list() for name in frame.columns}), None, BTC)
    assert isinstance(out, pd.DataFrame) and len(out) == len(frame)
    np.testing.assert_array_equal(out["spread_bps"].to_numpy(), features_of(frame, None, BTC)["spread_bps"].to_numpy())


def test_the_score_of_a_history(walk: np.ndarray, frame: pl.DataFrame) -> None:
    """market_microstructure_score takes records and frames, and says the same of both."""
    wanted = batch.market_microstructure_score(walk)
    np.testing.assert_array_equal(market_microstructure_score(frame, None, BTC), wanted)
    np.testing.assert_array_equal(market_microstructure_score(walk), wanted)


def test_a_frame_that_cannot_be_read_is_told(frame: pl.DataFrame) -> None:
    """No frame, a column missing, a kind unknown, time that falls."""
    for wrong, words in (
        ({"ts_ns": [1]}, "a polars or pandas DataFrame is wanted, this is a dict"),
        (frame.drop("bid_qty_1"), "no column bid_qty_1"),
        (frame.with_columns(kind=pl.lit("print")), "kind 'print' is not known: write depth, trade"),
        (frame.reverse(), "ts_ns falls"),
    ):
        with pytest.raises(RecordingsError) as failed:
            market_of(wrong, BTC)
        assert words in str(failed.value)
    assert set(KINDS.values()) >= set(frame["kind"].unique()) and LEVELS == 5


def test_a_price_between_two_ticks_is_refused(frame: pl.DataFrame) -> None:
    """Nothing is rounded: row, column, value, tick and remedy are named; with the right tick the frame is read."""
    wrong = frame.with_columns(bid_price_1=pl.Series([0.12341] * len(frame)))
    with pytest.raises(RecordingsError) as failed:
        features_of(wrong, None, BTC)
    for words in ("row 0: bid_price_1 0.12341 is no whole number of ticks of 0.01", 'tick_size="0.00001"', "by name"):
        assert words in str(failed.value)
    odd = frame.with_columns(ask_qty_2=frame["ask_qty_2"].cast(pl.Float64).scatter(7, 1.5e-9))
    with pytest.raises(RecordingsError, match=r"row 7: ask_qty_2 1.5e-09 is no whole number of lots of 1e-08.*lot_size="):
        market_of(odd, BTC)
    with pytest.raises(RecordingsError, match="row 3: bid_price_1"):
        market_of(frame.with_columns(bid_price_1=frame["bid_price_1"].cast(pl.Float64).scatter(3, 1e300)), BTC)
    fine = replace(BTC, tick_size="0.00001")
    assert market_of(wrong, fine)[0]["bid_ticks"][0, 0] == 12_341


def test_each_symbol_has_its_own_ticks(frame: pl.DataFrame) -> None:
    """Instruments by name: the same prices in other units, symbol by symbol; a symbol without one is named."""
    two = frame.with_columns(symbol=pl.Series(["A", "B"] * (len(frame) // 2)))
    market, instruments = market_of(two, {"A": BTC, "B": replace(BTC, tick_size="0.001")})
    assert [it.name for it in instruments] == ["A", "B"]
    mine = market_of(frame, BTC)[0]["bid_ticks"][:, 0]
    assert np.array_equal(market["bid_ticks"][:, 0], np.where(market["symbol"] == 0, mine, 10 * mine))
    with pytest.raises(RecordingsError, match="no instrument for B: there are A"):
        market_of(two, {"A": BTC})


@pytest.mark.parametrize(("what", "words"), [(1, "its code failed"), (2, "did not come back")])
def test_a_signal_that_breaks_in_batch_is_cut_off_and_said(
    what: int, words: str, walk: np.ndarray, frame: pl.DataFrame, tmp_path: Path
) -> None:
    """Past its trial it fails, or loops for ever: from that record on it is off, as in the pipeline, the rest is there, and a
    warning says it."""
    strategy = strategy_of(tmp_path / "late.py", LATE, at=2000, what=what)
    with pytest.warns(UserWarning, match=rf"user signal broken: off from record [\d,]+ on: .*{words}"):
        out = features_of(frame, strategy, BTC)
    mine = out["signal_broken"].is_not_null()
    assert mine[1000] and not mine[3000:].any()
    plain = features_of(frame, None, BTC)
    for name in NAMES:
        np.testing.assert_array_equal(out[name].to_numpy(), plain[name].to_numpy(), err_msg=name)
    stopped = Pass([BTC], strategy, user=load(strategy))
    stopped.guard[STOP_FROM] = 1 + int(np.flatnonzero(mine.to_numpy())[-1]) + 1
    wanted = stopped.signals(walk)
    np.testing.assert_array_equal(out["score"].to_numpy(), wanted["score"])


def test_the_command_says_what_went_off(tmp_path: Path, recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`scalperctl features` with a signal that loops for ever on the way: the file is whole, stderr names signal and record, the
    exit code is that of a run that went not well. The test kit raises the same."""
    recording = str(recordings / "hftbacktest_binance" / "usdm_btcusdt_20240718.gz")
    (tmp_path / "mine.py").write_text(LATE)
    profile = tmp_path / "mine.yaml"
    own = "{file: ./mine.py, name: broken, params: {at: 6500, what: 2}}"
    profile.write_text(f"instance: x\nworld: replay\nsource: {{kind: recording}}\nsignals:\n  user:\n    - {own}\n")
    out = tmp_path / "f.parquet"
    code = main(["features", recording, "--config", str(profile), "--out", str(out), "--json"])
    told = capsys.readouterr()
    assert code == UNHEALTHY and "user signal broken: off from record 6,5" in told.err
    said = json.loads(told.out)
    assert said["rows"] == len(pl.read_parquet(out)) > 7_000 and len(said["complaints"]) == 1
    with pytest.raises(SignalError, match=r"mine.py:3: broken is off from record 6,5\d\d on: its code did not come back"):
        signal_values(recording, tmp_path / "mine.py", "broken", {"at": 6500, "what": 2})


def test_a_pass_goes_on_where_it_was(walk: np.ndarray) -> None:
    """Chunks give what the whole gives."""
    whole, parts = Pass([BTC]).all(walk), Pass([BTC])
    pieces = [parts.all(walk[at : at + 700]) for at in range(0, len(walk), 700)]
    for k in range(3):
        assert np.array_equal(np.concatenate([piece[k] for piece in pieces]), whole[k])


def test_the_command_writes_parquet_and_csv(tmp_path: Path, recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`scalperctl features` over a recording: the same figures in both forms, and never over a file that is there."""
    recording = str(recordings / "hftbacktest_binance" / "usdm_btcusdt_20240718.gz")
    for suffix in ("parquet", "csv"):
        assert main(["features", recording, "--out", str(tmp_path / f"f.{suffix}"), "--json"]) == 0
    a, b = pl.read_parquet(tmp_path / "f.parquet"), pl.read_csv(tmp_path / "f.csv", infer_schema_length=None)
    assert a.columns == b.columns and len(a) == len(b) > 1000
    for name in ("ts_ns", "score", "vpin", "signal_book_imbalance"):
        assert a[name].equals(b[name].cast(a[name].dtype), null_equal=True), name
    assert main(["features", recording, "--out", str(tmp_path / "f.csv")]) == 2
    assert main(["features", recording, "--out", str(tmp_path / "f.txt")]) == 2
    said = capsys.readouterr().err
    assert "exists already" in said and "ends with .parquet or .csv" in said


def test_the_test_kit_says_where_a_signal_went_off(tmp_path: Path, recordings: Path) -> None:
    """A signal that fails on the way is an error with its place, not a column of zeros. The place counts every market record, as
    the rows of the kit's frame do, also those before the first book and marks, at which no signal is asked."""
    recording = recordings / "hftbacktest_binance" / "usdm_btcusdt_20240718.gz"
    text = (
        "from trading.user_signals import signal\n\n\n@signal(state={'n': int, 'ring': (float, SLOTS)})\n"
        "def mine(state, event, out):\n    state.n += 1\n    state.ring[state.n % 4096] = 1.0\n"
    )
    (tmp_path / "mine.py").write_text(text.replace("SLOTS", "4096"))
    asked = signal_values(recording, tmp_path / "mine.py", "mine")["state.n"]
    row = 1 + int(np.flatnonzero(asked == 4000)[0])
    assert row > 4000, "this recording begins with mark prices"
    (tmp_path / "mine.py").write_text(text.replace("SLOTS", "4000"))
    with pytest.raises(SignalError, match=rf"mine.py:4: mine is off from record {row:,} on"):
        signal_values(recording, tmp_path / "mine.py", "mine")
    with pytest.raises(RecordingError):
        signal_values(tmp_path / "mine.py", tmp_path / "mine.py", "mine")


def test_frames_need_their_library() -> None:
    """A library that is not there is named with the remedy."""
    with pytest.raises(RecordingsError, match="pip install nosuchlibrary"):
        frame_of({"a": np.zeros(1)}, "nosuchlibrary")


@pytest.mark.parametrize("side", [None, "unknown", "SELL"])
def test_a_trade_of_no_side_is_refused(frame: pl.DataFrame, side: str | None) -> None:
    """It does not become a buy: the row is named; without the column the first trade is."""
    trade = int(np.flatnonzero(frame["kind"].to_numpy() == "trade")[0])
    sides = frame["aggressor_side"].to_list()
    sides[trade] = side
    for odd in (frame.with_columns(pl.Series("aggressor_side", sides, pl.String)), frame.drop("aggressor_side")):
        with pytest.raises(RecordingsError, match=f"of the trade in row {trade} is neither buy nor sell"):
            market_of(odd, BTC)
