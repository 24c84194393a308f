"""Before a live pipeline starts: the symbols' ticks, lots and limits as the venue says they are, into the profile.

Fees and switches stay the profile's. Whatever cannot be had is a RulesError, one sentence with the remedy: a run on guessed
ticks would read every price wrongly.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import random
import time
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from procs import rundir
from procs.profiles.schema import Profile, SymbolSettings
from procs.receiver.markets import addresses_of, by_market, streams_of, venue_of
from procs.receiver.rest import Answered, Denied, RestClient
from procs.receiver.weight import weight_budget
from trading.instruments import InstrumentError, instrument_table
from trading.venues.names import CCXT
from trading.venues.protocol import InstrumentRules, Venue, VenueError, VenueSymbol

TIMEOUT_S: Final = 10.0
TRIES: Final = 3
LONGEST_WAIT_S: Final = 65.0  # until the venue's minute is over; who waits for the end of a ban wants to know it


class RulesError(ValueError):
    """The venue's rules cannot be had or do not fit; the message names venue, symbol and remedy."""


def fetch_rules(profile: Profile) -> Profile:
    """The profile with the venue's rules in its symbols. Asks the venues' REST interfaces; seconds at most. Raises RulesError."""
    if profile.source.kind != "live" or not profile.live.fetch_rules:
        return profile
    return asyncio.run(_fetch(profile))


async def _fetch(profile: Profile) -> Profile:
    found: dict[int, InstrumentRules] = {}
    for market, symbols in by_market(profile).items():
        stream_url, rest_url = addresses_of(market, profile.live)
        if market.startswith(CCXT):
            known = await _from_ccxt(market, symbols, stream_url, rest_url)
        else:
            known = await _from_venue(profile, market, symbols, rest_url)
        for symbol in symbols:
            found[symbol.index] = _rules_of(market, symbol, known)
    symbols_now = tuple(_with_rules(it, found[index]) for index, it in enumerate(profile.symbols))
    changed = msgspec.structs.replace(profile, symbols=symbols_now)
    try:
        instrument_table(changed.instruments())
    except InstrumentError as error:
        raise RulesError(f"{error}: the venue's rules do not fit; write your own, with live.fetch_rules: false") from None
    return changed


async def _from_venue(
    profile: Profile, market: str, symbols: Sequence[VenueSymbol], rest_url: str
) -> Mapping[str, InstrumentRules]:
    try:
        venue: Venue = venue_of(market, symbols, streams_of(profile.live))
    except VenueError as error:
        raise RulesError(str(error)) from None
    base = rest_url or venue.rest_url
    share = profile.live.rest_weight_share
    budget = weight_budget(base, venue.limits.rest_weight_per_minute, share, rundir.venues_dir(), time.monotonic_ns())
    client = RestClient(base, budget, random.Random(), timeout_s=TIMEOUT_S, tries=TRIES, longest_wait_s=LONGEST_WAIT_S)
    try:
        known: dict[str, InstrumentRules] = {}
        for request in venue.instruments_requests():
            outcome = await client.get(request)
            if not isinstance(outcome, Answered):
                break
            known.update(venue.parse_instruments(outcome.body))
            with contextlib.suppress(VenueError):  # it names no limit: the one that we know stays
                limit = venue.rest_weight_limit(outcome.body)
                if limit is not None:  # for the receiver that starts next too
                    budget.set_limit(time.monotonic_ns(), limit)
        else:
            return known
    except VenueError as error:
        raise RulesError(f"{market} at {base}: {error}") from None
    finally:
        await client.close()
    if isinstance(outcome, Denied):
        names = ", ".join(symbol.venue_name for symbol in symbols)
        raise RulesError(
            f"{market} at {base} refused the list of instruments (HTTP {outcome.status}: {outcome.text}): "
            f"check that it trades {names}, and that it serves your region"
        )
    raise RulesError(
        f"{market} at {base} cannot be reached ({outcome.why}): try `curl -sS {base}{venue.instruments_request().path}`; for "
        "another address or a test venue set live.endpoints (venue, stream, rest), without any network live.fetch_rules: false"
    )


async def _from_ccxt(
    market: str, symbols: Sequence[VenueSymbol], stream_url: str, rest_url: str
) -> Mapping[str, InstrumentRules]:
    from procs.receiver.ccxt_line import CcxtLine  # type: ignore[import-not-found,unused-ignore]

    line = CcxtLine(market.removeprefix(CCXT), symbols, lambda *_: None, lambda *_: None, rest=rest_url, stream=stream_url)
    try:
        known: Mapping[str, InstrumentRules] = await asyncio.wait_for(line.fetch_rules(), TIMEOUT_S * TRIES)
        return known
    except VenueError as error:
        raise RulesError(str(error)) from None
    except Exception as error:  # ccxt's own
        raise RulesError(
            f"{market} cannot be asked for its markets ({type(error).__name__}: {str(error)[:200]}): check the network, set "
            "live.endpoints for another address, or live.fetch_rules: false to use the profile's sizes"
        ) from None
    finally:
        await line.exchange.close()


def _rules_of(market: str, symbol: VenueSymbol, known: Mapping[str, InstrumentRules]) -> InstrumentRules:
    rules = known.get(symbol.venue_name)
    if rules is None:
        near = difflib.get_close_matches(symbol.venue_name, list(known), 3, 0.5)
        hint = f"near it: {', '.join(near)}" if near else f"it lists {len(known)} instruments"
        raise RulesError(f"{market} has no instrument {symbol.venue_name!r} ({hint}): correct symbols[{symbol.index}].venue_name")
    if not rules.trading:
        raise RulesError(f"{market} does not trade {symbol.venue_name} at the moment: remove symbols[{symbol.index}] or wait")
    return rules


def _with_rules(it: SymbolSettings, rules: InstrumentRules) -> SymbolSettings:
    """The venue's figures; what it does not say (an empty string) stays the profile's."""
    said = {
        field: text
        for field in ("tick_size", "lot_size", "step_size", "min_qty", "max_qty", "min_notional", "contract", "contract_size")
        if (text := getattr(rules, field))
    }
    return msgspec.structs.replace(it, **said)
