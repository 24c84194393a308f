"""`venue`: serves sim.local_venue on loopback until it is told to stop, with a line that shows what it does.

What this is not: the venue. All that speaks the protocol is in sim.local_venue.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from procs.cli.outcome import OK, USAGE, CliError
from procs.cli.report import use_kernel_cache

if TYPE_CHECKING:
    from sim.local_venue import Faults, LocalVenue, Market

INTERVAL_S: Final = 1.0
_SEVERAL: Final = {"both": ("spot", "usdm"), "all": ("spot", "usdm", "coinm")}


def venue(args: argparse.Namespace) -> int:
    """The command."""
    if args.recording and (args.symbols or args.market or args.rules):
        raise CliError("--symbols, --market and --rules are of the embedded market: leave them out with --recording", USAGE)
    if not 0 <= args.port <= 65535:
        raise CliError(f"--port {args.port} is no port: choose 0 to 65535", USAGE)
    if not args.speed:
        raise CliError("--speed 0 would stand still: choose a number above 0", USAGE)
    use_kernel_cache()  # before anything imports numba
    faults = _faults(args)
    market = _market(args)
    return asyncio.run(_serve(args, market, faults))


def _faults(args: argparse.Namespace) -> Faults:
    from sim.local_venue.faults import Faults, load_faults, parse_fault

    schedule = [parse_fault(text) for text in args.fault or ()]
    seed = args.seed
    if args.faults:
        more, own_seed = load_faults(Path(args.faults))
        schedule = [*more, *schedule]
        seed = own_seed if own_seed is not None else seed
    return Faults(schedule, seed)


def _market(args: argparse.Namespace) -> Market:
    from sim.local_venue import Market, generated, load_rules, recorded

    if args.recording:
        source = recorded(*args.recording)
    else:
        rules = load_rules(Path(args.rules)) if args.rules else {}
        wanted = args.symbols or ",".join(rules) or "BTCUSDT,ETHUSDT"
        names = [name.strip().upper() for name in wanted.split(",") if name.strip()]
        markets: Any = _SEVERAL.get(args.market or "both", (args.market,))
        source = generated(names, markets, seed=args.seed, rules=rules)
    return Market(source, start_ns=time.time_ns if args.time == "now" else None, loop=args.loop)


def described(server: LocalVenue) -> dict[str, Any]:
    """Where it listens, what it serves, and the settings of a profile that lead there."""
    served = server.market.markets
    streams = server.stream_urls
    endpoints = [{"venue": f"binance_{name}", "stream": streams[name], "rest": server.rest_url} for name in served]
    return {
        "rest": server.rest_url,
        "streams": {name: streams[name] for name in served},
        "symbols": {name: [symbol.spec.name for symbol in server.market.of(name)] for name in served},
        "settings": {"live": {"endpoints": endpoints}},
    }


def figures(server: LocalVenue) -> dict[str, Any]:
    """What happened so far."""
    stats = server.stats
    return {
        "clients": stats.open,
        "connections": stats.connections,
        "closed_by_venue": dict(stats.closed),
        "messages": stats.messages,
        "frames": server.market.frames,
        "rounds": server.market.rounds,
        "requests": dict(stats.requests),
        "statuses": {str(status): n for status, n in sorted(stats.statuses.items())},
        "weight_used_max": dict(server.budget.used_max),
        "faults": dict(server.faults.hits),
        "source_ended": server.market.ended,
    }


def _heading(told: dict[str, Any]) -> str:
    lines = [f"listening: REST {told['rest']}, streams {', '.join(f'{name} {url}' for name, url in told['streams'].items())}"]
    lines.append("in a profile:")
    lines.append("  live:")
    lines.append("    endpoints:")
    for end in told["settings"]["live"]["endpoints"]:
        lines.append(f'      - {{venue: {end["venue"]}, stream: "{end["stream"]}", rest: "{end["rest"]}"}}')
    return "\n".join(lines)


async def _serve(args: argparse.Namespace, market: Market, faults: Faults) -> int:
    from sim.local_venue import LocalVenue

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with LocalVenue(market, port=args.port, faults=faults, speed=args.speed) as server:
        told = described(server)
        print(json.dumps({"event": "listening", **told}) if args.json else _heading(told), flush=True)
        await _watch(args, server, stop)
        last = figures(server)
    if args.json:
        print(json.dumps({"event": "stopped", **last}), flush=True)
    else:
        requests = sum(last["requests"].values())
        print(f"stopped: {last['connections']} connections, {last['messages']:,} messages, {requests} requests")
    return OK


async def _watch(args: argparse.Namespace, server: LocalVenue, stop: asyncio.Event) -> None:
    """Show the living line until the end."""
    living = sys.stdout.isatty() and not args.json
    began = time.monotonic()
    before, at = server.stats.messages, began
    while not stop.is_set():
        left = args.seconds - (time.monotonic() - began) if args.seconds else INTERVAL_S
        if left <= 0:
            break
        try:
            await asyncio.wait_for(stop.wait(), min(INTERVAL_S, left) if living or args.seconds else None)
        except TimeoutError:
            pass
        if living:
            now = time.monotonic()
            rate = (server.stats.messages - before) / max(1e-9, now - at)
            before, at = server.stats.messages, now
            shown = f"{server.stats.open} clients  {rate:,.0f} messages/s  {sum(server.stats.requests.values())} requests"
            shown += f"  {sum(server.faults.hits.values())} faults" if server.faults.schedule else ""
            shown += "  the recording has ended" if server.market.ended else ""
            sys.stdout.write(f"\r\x1b[K{shown}")
            sys.stdout.flush()
    if living:
        sys.stdout.write("\n")
