"""What `data convert` reads of others' files is what pandas reads of them, value by value. Needs the extra `peers`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import archive_files as af
import pytest
from archive_files import SYMBOL, put
from archive_readings import FREQ_BARS, FREQ_TRADES, converted, feather, folded, prints, run

from procs.cli.outcome import OK

pd = pytest.importorskip("pandas")
STEPS, TRADES = af.market(seed=7)


def read_prints(path: Path) -> Any:
    """A file of prints as pandas reads it, with columns price, qty, seller."""
    name = path.name
    if "aggTrades" in name:
        raw = pd.read_csv(path)
        return raw.rename(columns={"quantity": "qty", "is_buyer_maker": "seller"})[["price", "qty", "seller"]]
    if name.endswith((".json", ".feather")):
        raw = pd.DataFrame(json.loads(path.read_text()), columns=FREQ_TRADES) if name.endswith("json") else pd.read_feather(path)
        return pd.DataFrame({"price": raw["price"], "qty": raw["amount"], "seller": raw["side"] == "sell"})
    raw = pd.read_csv(path)
    return pd.DataFrame(
        {"price": raw["price"], "qty": raw.get("size", raw.get("volume")), "seller": raw["side"].str.lower() == "sell"}
    )


NAMES = [f"{SYMBOL}-aggTrades-2024-01-01.csv.gz", "BTCUSDT2024-01-01.csv.gz", "BTCUSDT_2024-01-01.csv.gz", "BTC_USDT-trades.json",
         "BTC_USDT-trades.feather"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_prints_are_those_that_pandas_reads(tmp_path: Path, name: str) -> None:
    """Price, quantity and side of every row, to the last digit."""
    texts = {
        "aggTrades": lambda: af.agg_trades(TRADES, header=True),
        "BTCUSDT2": lambda: af.bybit_trades(TRADES),
        "BTCUSDT_2": lambda: af.bybit_spot_trades(TRADES),
        "json": lambda: json.dumps(af.freqtrade_trades(TRADES)),
    }
    if name.endswith("feather"):
        path = feather(af.freqtrade_trades(TRADES), FREQ_TRADES, tmp_path / name)
    else:
        path = put(tmp_path / name, next(text for word, text in texts.items() if word in name)())
    raw = read_prints(path)
    found = prints(folded(converted(tmp_path / "x.gz", path), tmp_path))
    assert [t.price / 10 for t in found] == raw["price"].tolist()
    assert [t.lots / 1000 for t in found] == raw["qty"].tolist()
    assert [t.seller for t in found] == raw["seller"].tolist()


@pytest.mark.parametrize("name", [f"{SYMBOL}-1s-2024-01-01.csv", "BTC_USDT-1s.feather"])
def test_candles_are_those_that_pandas_reads(tmp_path: Path, name: str) -> None:
    """Every figure of every candle, and after joining to five seconds what `resample` makes of them."""
    if name.endswith("csv"):
        path = put(tmp_path / name, af.klines(TRADES, header=True))
        raw = pd.read_csv(path)
        raw.index = pd.to_datetime(raw["open_time"], unit="ms")
    else:
        path = feather(af.freqtrade_candles(TRADES), FREQ_BARS, tmp_path / name)
        raw = pd.read_feather(path)
        raw.index = pd.DatetimeIndex(raw["date"]).tz_convert(None)
    names = ["open", "high", "low", "close", "volume"]
    for size, wanted in (
        ("", raw),
        ("5s", raw.resample("5s").agg(dict(zip(names, ["first", "max", "min", "last", "sum"], strict=True)))),
    ):
        out = tmp_path / f"c{size}.parquet"
        more = ["--size", size] if size else []
        assert run("data", "convert", path, "--to", "candles", "--out", out, *more) == OK
        found = pd.read_parquet(out)
        wanted = wanted.dropna(subset=["open"])
        assert found["open_time_ns"].tolist() == wanted.index.astype("int64").tolist() or found["open_time_ns"].tolist() == [
            stamp.value for stamp in wanted.index]  # fmt: skip
        for column in names[:4]:
            assert found[column].tolist() == wanted[column].tolist()
        assert found["volume"].tolist() == pytest.approx(wanted["volume"].tolist(), rel=1e-12)
