"""One rule for the names of symbols, wherever they come from: what is none is refused by its character."""

from __future__ import annotations

from pathlib import Path

import pytest

from procs.profiles.config import load_profile
from procs.profiles.strict_yaml import ConfigError
from procs.recordings.output import RecordingsError
from procs.recordings.words import plain_name
from trading.instruments import Instrument, InstrumentError, instrument_table
from trading.symbol_names import NAME_BYTES, SymbolNameError, name_fault, symbol_name

NAMES = [
    ("BTCUSDT", "BTCUSDT"), ("btcusd_perp", "BTCUSD_PERP"), ("BTCUSDT_241227", "BTCUSDT_241227"), ("1000SHIB", "1000SHIB"),
    ("XBT/USD", "XBTUSD"), ("linear:BTCUSDT", "LINEARBTCUSDT"), ("BTC-USDT-SWAP", "BTCUSDTSWAP"), ("A/B:C", "ABC"),
]  # fmt: skip
WRONG = [
    ("BTC USDT", "' ' as its character 4"), ("BTC.USDT", "'.' as its character 4"), ("币安USDT", "U+5E01) as its character 1"),
    ("BTCUSDŤ", "U+0164) as its character 7"), ("_BTC", "begins with '_'"), ("", "is empty"), ("-/:", "is empty"),
    ("A" * 25, "has 25 characters"), ("BTC\nUSDT", "has '\\n' as its character 4"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "name"), NAMES)
def test_a_venues_name_becomes_ours_without_its_separators(text: str, name: str) -> None:
    """Upper case, `-`, `/` and `:` left out, nothing else; a name is its own."""
    assert symbol_name(text) == symbol_name(name) == name and name_fault(name) == "" and len(name) <= NAME_BYTES
    assert bytes(instrument_table([Instrument(name)])[0]["name"]).rstrip(b"\0") == name.encode()


@pytest.mark.parametrize(("text", "why"), WRONG)
def test_what_is_no_name_is_refused_by_its_character(tmp_path: Path, text: str, why: str) -> None:
    """The same words from the function, the instrument table, a conversion and a profile."""
    with pytest.raises(SymbolNameError) as caught:
        symbol_name(text)
    assert why in str(caught.value)
    with pytest.raises(RecordingsError) as converted:
        plain_name(text)
    assert why in str(converted.value)
    if why != "is empty":
        with pytest.raises(InstrumentError) as tabled:
            instrument_table([Instrument(text)])
        assert why in str(tabled.value)


@pytest.mark.parametrize(("name", "why"), [("BTC-USDT", "'-' as its character 4"), ("btc", "'b' as its"), ("BTCŤ", "U+0164")])
def test_a_profile_names_the_character(tmp_path: Path, name: str, why: str) -> None:
    """A profile's symbol is written as it is used; what is none is refused at its line, `_` is taken."""
    path = tmp_path / "p.yaml"
    path.write_text(f"symbols:\n  - name: {name}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_profile(path)
    assert why in str(caught.value) and "p.yaml:2" in str(caught.value)
    path.write_text("symbols:\n  - name: BTCUSDT_241227\n")
    assert load_profile(path).symbols[0].name == "BTCUSDT_241227"
