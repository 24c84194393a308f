"""The last orders of a run and the last that were filled, each with its id: what `scalperctl trace` takes."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np

from sim.report.model import OrderRow
from trading.jit import Recs
from trading.records import ExecType, Kind, OrderStatus, OrderType, Purpose, Side
from trading.results.kpis import new_orders

SHOWN: Final = 5


def symbol_names(instruments: Recs) -> tuple[str, ...]:
    """The names of an INSTRUMENT table, in its order."""
    return tuple(bytes(row["name"][: int(row["name_len"])]).decode("ascii", "replace") for row in instruments)


def names_of(kind: type[IntEnum], value: int) -> str:
    """The name of a number of a vocabulary; the number itself where it has none."""
    return kind(value).name if value in kind._value2member_map_ else f"{kind.__name__} {value}"


def last_orders(orders: Recs, reports: Recs, instruments: Recs, shown: int = SHOWN) -> tuple[OrderRow, ...]:
    """The last `shown` orders that risk approved and the last `shown` of those that were filled at least in part, oldest first,
    from ORDER_RECORDs and REPORT_RECORDs in ring order."""
    names = symbol_names(instruments)
    sent = new_orders(orders)
    answers = reports[reports["kind"] == Kind.REPORT]
    filled = np.flatnonzero(np.isin(sent["order_id"], answers["order_id"][answers["exec_type"] == ExecType.FILL]))
    chosen = np.union1d(np.arange(max(len(sent) - shown, 0), len(sent)), filled[-shown:])
    sent = sent[chosen]
    rows = []
    for order in sent:
        own = answers[answers["order_id"] == order["order_id"]]
        fills = own[own["exec_type"] == ExecType.FILL]
        lots = int(fills["last_lots"].sum())
        number = int(order["symbol"])
        tick, lot = float(instruments[number]["tick_size"]), float(instruments[number]["lot_size"])
        price = int(order["price_ticks"])
        rows.append(
            OrderRow(
                order_id=int(order["order_id"]),
                ts_ns=int(order["ts_ns"]),
                symbol=names[number],
                side=names_of(Side, int(order["side"])),
                purpose=names_of(Purpose, int(order["purpose"])).lower().replace("_", " "),
                kind=names_of(OrderType, int(order["order_type"])).lower().replace("_", "-"),
                quantity=int(order["qty_lots"]) * lot,
                price=price * tick if price > 0 and order["order_type"] != OrderType.MARKET else None,
                filled=lots * lot,
                average=float((fills["last_ticks"] * fills["last_lots"]).sum()) / lots * tick if lots else None,
                status=_status(own),
            )
        )
    return tuple(rows)


def _status(answers: Recs) -> str:
    if not len(answers):
        return "sent"
    return names_of(OrderStatus, int(answers[-1]["order_status"])).lower().replace("_", " ")
