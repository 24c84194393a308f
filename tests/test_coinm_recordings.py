"""Recordings of COIN-M and of futures with a delivery date: told apart, checked, and traded in the coin."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from procs import topology
from procs.cli.main import main
from procs.cli.outcome import OK
from procs.fold.plan import plan_of
from procs.memory import board
from procs.profiles.config import load_profile
from procs.recordings.files import look
from procs.recordings.frame_log_format import head_of
from procs.research import backtest
from sim.recordings.recording import RecordingError, StagedRecording, open_spool, stage
from sim.recordings.venue_recording import venue_of
from sim.recordings.venue_staging import stage_any
from sim.report.build import RunFacts, build_report
from trading.instruments import Market, instrument_table
from trading.records import ExecType, Kind

T0 = 1_723_161_253_937_085_768
JOINED = ("cm_ethusd_perp_20240808.gz", "cm_ethusd_perp_20240809.gz")
MEETINGS = 2278
"""How often the book and the venue's best bid/offer stand at one update id."""


def frames(symbol: str, pair: str = "") -> list[str]:
    """A snapshot and some frames as a futures market sends them; with `pair` COIN-M's."""
    names = {"s": symbol, **({"ps": pair} if pair else {})}
    times = {"E": 1_723_161_255_100, "T": 1_723_161_255_099}
    print_ = {"e": "trade", **times, "s": symbol, "t": 9, "p": "2682.50", "q": "7", "X": "MARKET", "m": False}
    said = (
        ("depth@0ms", {"e": "depthUpdate", **times, **names, "U": 9, "u": 11, "pu": 8, "b": [["2682.00", "30"]], "a": []}),
        ("bookTicker", {"u": 11, "e": "bookTicker", **names, "b": "2682.00", "B": "30", "a": "2682.50", "A": "40", **times}),
        ("trade", print_),
    )
    whole = {"lastUpdateId": 10, **times, "symbol": symbol, "pair": pair, "bids": [["2681.50", "5"]], "asks": [["2682.50", "40"]]}
    streamed = [{"stream": f"{symbol.lower()}@{kind}", "data": body} for kind, body in said]
    return [json.dumps(frame, separators=(",", ":")) for frame in (whole, *streamed)]


def written(path: Path, told: list[str]) -> Path:
    """A recording of these frames."""
    path.write_text("".join(f"{T0 + k * 1_000_000} {frame}\n" for k, frame in enumerate(told)))
    return path


@pytest.mark.parametrize(
    ("symbol", "pair", "market"),
    [
        ("ETHUSD_PERP", "ETHUSD", Market.BINANCE_COINM), ("ETHUSD_241227", "ETHUSD", Market.BINANCE_COINM),
        ("ETHUSDT_241227", "", Market.BINANCE_USDM),
    ],
)  # fmt: skip
def test_the_market_is_told_by_the_frames(symbol: str, pair: str, market: Market, tmp_path: Path) -> None:
    """Who names the pair is COIN-M; the symbol keeps its `_`; quantities are whole contracts, inverse where they are COIN-M's."""
    path = written(tmp_path / "a.gz", frames(symbol, pair))
    staged = stage([path], tmp_path / "spool")
    (found,) = staged.symbols
    assert (found.name, found.market, found.n_frames) == (symbol, market, 4)
    assert venue_of(path) is market
    seen = look(path)
    assert seen is not None and (seen.symbol, seen.venue) == (symbol, market.label)
    table = instrument_table([found.instrument()])
    inverse = market is Market.BINANCE_COINM
    assert (table["inverse"][0], table["contract_size"][0]) == ((1, 10.0) if inverse else (0, 1.0))
    assert (found.instrument().tick_size, found.instrument().lot_size) == ("0.5", "1")
    own = [{"name": symbol, "market": market.label, "contract_size": "50"}]
    given = load_profile("replay", {"source.files": [str(path)], "symbols": own})
    assert plan_of(given, staged).instruments["contract_size"][0] == 50.0


def test_what_a_contract_is_stays_with_the_recording(tmp_path: Path) -> None:
    """A file of a typed venue begins with its contract's kind and size, and a replay has them, also where the profile names the
    symbol; what is no contract is refused by name."""
    levels = [["1", "2"]]
    body = {"arg": {"channel": "books", "instId": "BTC-USD-SWAP"}, "action": "snapshot",
            "data": [{"bids": levels, "asks": [["3", "2"]], "ts": "1700000000000", "seqId": 5, "prevSeqId": -1}]}  # fmt: skip

    def staged_with(contract: tuple[str, str]) -> StagedRecording:
        head = head_of("BTCUSDSWAP", "okx", "BTC-USD-SWAP", "0.1", "1", "1", 400, contract).decode()
        path = written(tmp_path / "BTCUSDSWAP_20240808.gz", [head, json.dumps(body)])
        return stage_any([path], tmp_path / "spool")

    staged = staged_with(("inverse", "100"))
    again = open_spool(staged.path)[1]
    for one in (staged, again):
        (found,) = one.symbols
        assert (found.market, found.contract, found.contract_size) == (Market.OKX, "inverse", "100")
    own = [{"name": "BTCUSDSWAP", "market": "okx"}]
    profile = load_profile("replay", {"source.files": [str(staged.path)], "symbols": own})
    assert plan_of(profile, again).instruments["contract_size"][0] == 100.0
    assert staged_with(("", "0.01")).symbols[0].contract_size == "0.01"
    assert (staged_with(("", "")).symbols[0].contract, staged_with(("", "")).symbols[0].contract_size) == ("", "")
    with pytest.raises(RecordingError, match="no contract"):
        staged_with(("quanto", "1"))


@pytest.mark.recordings
def test_the_joined_recording_is_right(recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No gap over both files, and the book equals the venue's best bid/offer at every shared update id."""
    files = [str(recordings / "binance_coinm" / name) for name in JOINED]
    assert main(["data", "check", *files, "--json"]) == OK
    (verdict,) = json.loads(capsys.readouterr().out)
    assert verdict["oracle_checked"] == verdict["oracle_equal"] == MEETINGS and verdict["ok"]
    for counter in ("gaps", "crossed", "malformed", "unknown", "trade_gaps", "lost", "duplicates"):
        assert verdict[counter] == 0, counter


@pytest.mark.recordings
def test_a_wire_capture_of_coinm_is_read(recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Raw frames of ten symbols with their REST answers: of COIN-M by their address, and all right."""
    files = sorted(str(path) for path in (recordings / "binance_coinm").glob("BINANCE_DELIVERY.*"))
    assert {venue_of(Path(path)) for path in files} == {Market.BINANCE_COINM}
    assert main(["data", "check", *files, "--json"]) == OK
    (verdict,) = json.loads(capsys.readouterr().out)
    assert verdict["ok"] and verdict["oracle_checked"] == verdict["oracle_equal"] > 0 and verdict["gaps"] == 0


@pytest.mark.recordings
@pytest.mark.slow
def test_a_backtest_of_coinm_ends_in_coins(recordings: Path, tmp_path: Path) -> None:
    """Orders and fills happen; every fee is the rate of contracts * 10 / price in ETH; the report's profit is that of the fills
    added up in floats, and its equity ends at what risk says."""
    paths = [recordings / "binance_coinm" / name for name in JOINED]
    staged = stage(paths, tmp_path / "spool")
    profile = load_profile("replay", {"source.files": [str(path) for path in paths]})
    plan = plan_of(profile, staged)
    run = backtest.run(plan, keep=tuple(entry.name for entry in topology.RINGS))
    feed = board.page(run.world.board, topology.stage_id("feed"))
    assert (feed[board.ORACLE_CHECKED], feed[board.ORACLE_EQUAL], feed[board.GAPS]) == (MEETINGS, MEETINGS, 0)
    reports = run.kept["reports"]
    fills = reports[(reports["kind"] == Kind.REPORT) & (reports["exec_type"] == ExecType.FILL)]
    assert len(fills) > 0 and len(run.kept["orders"]) > len(fills) // 2
    price, contracts = fills["last_ticks"] * plan.instruments["tick_size"][0], fills["last_lots"]
    coins = contracts * 10 / price
    rates = np.where(fills["maker"] == 1, plan.instruments["maker_fee_e6"][0], plan.instruments["taker_fee_e6"][0]) / 1e6
    assert np.abs(fills["fee_e8"] - coins * rates * 1e8).max() <= 1.0
    facts = RunFacts(title="T", profile="p", sources=(), messages=0, wall_s=1.0, start_equity=100_000.0, exchange=None)
    kept = {name: run.kept[name] for name in ("market", "orders", "reports", "refusals")}
    report = build_report(facts, instruments=plan.instruments, **kept)
    (row,) = report.money.symbols
    position = int((fills["side"] * contracts).sum())
    mark = report.money.settled[0].quoted / report.money.settled[0].net
    profit = float((fills["side"] * coins).sum()) - position * 10 / mark - float(fills["fee_e8"].sum()) / 1e8
    assert (row.asset, row.inverse, row.position) == ("ETH", True, float(position))
    assert row.net == pytest.approx(profit, abs=len(fills) * 1e-8)
    assert report.money.end_equity == pytest.approx(100_000.0 + profit * mark, abs=0.01)
    assert "ETHUSD_PERP: inverse, a contract is worth 10 USD, settled in ETH" in report.ran.assumptions


@pytest.mark.recordings
@pytest.mark.slow
def test_features_of_coinm_are_written(recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`features` reads the recording whole and writes as many rows as it says."""
    out = tmp_path / "features.csv"
    assert main(["features", str(recordings / "binance_coinm" / JOINED[0]), "--out", str(out), "--json"]) == OK
    said = json.loads(capsys.readouterr().out)
    with out.open() as file:
        assert sum(1 for _ in file) - 1 == said["rows"] > 1_000
