"""`scalperctl record` as far as it goes without a venue: what it asks of the pipeline, and what it refuses."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from procs.cli import record
from procs.cli.arguments import parser
from procs.cli.outcome import CliError
from procs.profiles.config import ConfigError


def asked(*words: str) -> argparse.Namespace:
    """The parsed command line."""
    return parser("record").parse_args(["record", *words])


def profile(*words: str) -> Any:
    """The profile that the words make."""
    args = asked(*words)
    return record.profile_of(args, record.words_of(args))


def test_words_become_a_profile(tmp_path: Path) -> None:
    """Venue, symbols, folder, addresses and overrides stand in the profile of world `record`, without journals."""
    found = profile(
        "--venue", "binance_usdm", "--symbols", "btcusdt, ETHUSDT", "--out", str(tmp_path), "--endpoint",
        "stream=ws://127.0.0.1:1,rest=http://127.0.0.1:2", "--set", "record.rotate_minutes=5",
    )  # fmt: skip
    assert (found.world, found.source.kind, found.instance, found.pipeline.journal) == ("record", "live", "record", False)
    assert [(s.name, s.market) for s in found.symbols] == [("BTCUSDT", "binance_usdm"), ("ETHUSDT", "binance_usdm")]
    assert found.record.folder == str(tmp_path) and found.record.rotate_minutes == 5
    (endpoint,) = found.live.endpoints
    assert (endpoint.venue, endpoint.stream, endpoint.rest) == ("binance_usdm", "ws://127.0.0.1:1", "http://127.0.0.1:2")
    assert record.folder_of(found) == tmp_path


@pytest.mark.parametrize(
    ("words", "error", "match"),
    [
        ((), CliError, "nothing to record"),
        (("--symbols", "BTCUSDT", "--endpoint", "ws://x"), CliError, "is no address"),
        (("--symbols", "BTCUSDT", "--venue", "nowhere"), ConfigError, "'nowhere' is not allowed"),
        (("--symbols", "BTCUSDT", "--venue", "ccxt:kucoin"), CliError, "ccxt:kucoin cannot be recorded"),
    ],
)  # fmt: skip
def test_what_cannot_be_recorded_is_refused(words: tuple[str, ...], error: type[Exception], match: str) -> None:
    """Each with a sentence that says what to write."""
    with pytest.raises(error, match=match):
        profile(*words)


def test_parquet_is_made_of_finished_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file at hand is left until the end; each goes on with those before it; files of earlier recordings are not touched."""
    folder = tmp_path / "binance_spot" / "BTCUSDT"
    folder.mkdir(parents=True)
    (folder / "BTCUSDT_20240101T000000Z.gz").touch()
    converter = record.Converter(tmp_path, True)
    begun: list[tuple[str, list[str]]] = []

    def begin(path: Path, after: list[Path]) -> None:
        converter._taken.add(path)
        begun.append((path.name[8:16], [p.name[8:16] for p in after]))

    monkeypatch.setattr(converter, "_begin", begin)
    for day in ("02", "03", "04"):
        (folder / f"BTCUSDT_202401{day}T000000Z.gz").touch()
    while converter.step():
        pass
    assert begun == [("20240102", []), ("20240103", ["20240102"])]
    while converter.step(ended=True):
        pass
    assert begun[2:] == [("20240104", ["20240102", "20240103"])]
    assert not record.Converter(tmp_path, False).step(ended=True)
