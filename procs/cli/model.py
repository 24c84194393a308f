"""`model`: list, train, judge, promote and publish models. Progress goes to stderr, what was asked for to stdout."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from procs.cli import running
from procs.cli.model_text import drift_lines, model_lines, study_lines, synthetic_lines
from procs.cli.outcome import NOT_RUNNING, OK, UNHEALTHY, USAGE, CliError
from procs.cli.progress import Progress
from procs.cli.report import use_kernel_cache
from procs.cli.table import Column, clean_text, paint_for, table
from procs.learning import registry
from procs.learning.model_file import VOTING
from procs.profiles.schema import Profile


def tools(args: argparse.Namespace) -> int:
    """The command."""
    use_kernel_cache()
    parts: dict[str, Callable[[argparse.Namespace], int]] = {
        "ls": ls, "train": train, "promote": promote, "publish": publish, "report": report
    }  # fmt: skip
    return parts[args.what](args)


def _say(args: argparse.Namespace, said: Any, lines: list[str]) -> None:
    print(json.dumps(msgspec.to_builtins(said), indent=2) if args.json else "\n".join(clean_text(line) for line in lines))


def ls(args: argparse.Namespace) -> int:
    """`model ls`."""
    rows: list[dict[str, Any]] = []
    for name in registry.names():
        voted = [p.version for p in registry.promotions(name)]
        for version in registry.versions(name):
            model = registry.load(f"{name}@{version}", promoted=False)
            rows.append({
                "model": f"{name}@{version}", "kind": model.kind, "horizon_ms": model.horizon_ms, "cost_bps": model.cost_bps,
                "rows": model.verdict.rows, "auc": model.verdict.auc.value, "created": model.created,
                "symbols": model.span.symbols, "promoted": version in voted, "latest": bool(voted) and version == voted[-1],
                "last_training": msgspec.to_builtins(registry.attempt(name)),
            })  # fmt: skip
    if args.json:
        print(json.dumps(rows, indent=2))
        return OK
    trained = [f"  {clean_text(one.sentence)}" for one in registry.attempts()]
    trained = ["", "learner, last training:", *trained] if trained else []
    if not rows:
        print("\n".join(["no models yet: scalperctl model train NAME --recording FILE makes one", *trained]))
        return OK
    columns = [Column("model", False), Column("kind", False), Column("symbols", False, 2), Column("horizon"), Column("beyond"),
               Column("rows tested", keep=1), Column("AUC"), Column("votes", False), Column("made (UTC)", False, 3)]  # fmt: skip
    cells = [
        [
            r["model"], r["kind"], " ".join(r["symbols"])[:24], f"{r['horizon_ms']} ms", f"{r['cost_bps']:g} bps",
            str(r["rows"]), f"{r['auc']:.3f}" if r["auc"] is not None else "-",
            "yes, the latest" if r["latest"] else "yes" if r["promoted"] else "no", r["created"],
        ]
        for r in rows
    ]  # fmt: skip
    lines = table(columns, cells, 400, paint_for(sys.stdout))
    print("\n".join([*lines, *trained]))
    return OK


def _profile(args: argparse.Namespace) -> Profile:
    """The profile whose `features` and `ml` count; which model it names is of no interest here."""
    if not args.recording:
        raise CliError("which recordings? name them with --recording FILE...", USAGE)
    return running.profile_for(args, last={"ml.model": "", "ml.learner.enabled": False})


def train(args: argparse.Namespace) -> int:
    """`model train`."""
    profile = _profile(args)
    from procs.learning import datasets, training

    progress = Progress()
    past = datasets.histories(profile.source.files, progress.now)
    if args.symbol:
        known = " ".join(h.symbol for h in past)
        past = [h for h in past if h.symbol == args.symbol]
        if not past:
            raise CliError(f"{args.symbol} is not in these recordings, they have {known}", USAGE)
    progress.now("training, fold by fold")
    model = training.train(args.name, args.kind, past, profile, barrier=args.barrier)
    progress.end()
    model = registry.save(model)
    if args.promote and model.verdict.passed:
        registry.promote(f"{model.name}@{model.version}")
    _say(args, model, model_lines(model, args.promote and model.verdict.passed))
    return UNHEALTHY if args.promote and not model.verdict.passed else OK


def promote(args: argparse.Namespace) -> int:
    """`model promote`."""
    model = registry.promote(args.name)
    said = {"promoted": f"{model.name}@{model.version}"}
    _say(args, said, [f"{said['promoted']} may vote: write `ml: {{enabled: true, model: {model.name}}}` into a profile"])
    return OK


def publish(args: argparse.Namespace) -> int:
    """`model publish`."""
    from procs.learning import publishing

    instance = args.instance or _only_one()
    pinned = registry.pinned(args.name)
    profile = running.running_profile(instance)
    if profile is None:
        start = running.command_for(instance, "start")
        raise CliError(f"instance {instance!r} is not running: start it with `{start}`", NOT_RUNNING)
    spool = running.spool_of(instance)
    names = publishing.names_of(profile, str(spool) if spool else None)
    number, took_s = publishing.publish(profile, names, registry.load(pinned), args.timeout)
    said = {"instance": instance, "model": pinned, "number": number, "taken_ms": round(took_s * 1e3, 3)}
    _say(args, said, [f"{instance} computes with {pinned} (change {number}, taken after {took_s * 1e3:.0f} ms)"])
    return OK


def _only_one() -> str:
    names = running.living()
    if len(names) != 1:
        raise CliError(f"{len(names)} pipelines run: say which one with --instance NAME", USAGE)
    return names[0]


def report(args: argparse.Namespace) -> int:
    """`model report`."""
    if args.synthetic:
        return _synthetic(args)
    if not args.name:
        return _study(args)
    model = registry.load(args.name, promoted=False)
    if not args.recording:
        voted = model.version in [p.version for p in registry.promotions(model.name)]
        last = registry.attempt(model.name)
        _say(args, model, [*model_lines(model, voted), *([f"last training by a learner: {last.sentence}"] if last else [])])
        return OK
    from procs.learning import study

    profile = _profile(args)
    progress = Progress()
    found = study.drift(model, profile, profile.source.files, progress.now)
    progress.end()
    _say(args, found, drift_lines(model, found))
    return OK


def _study(args: argparse.Namespace) -> int:
    from procs.learning import study

    profile = _profile(args)
    progress = Progress()
    found = study.study(profile, profile.source.files, VOTING, progress.now)
    progress.end()
    _say(args, found, study_lines(found))
    return OK


def _synthetic(args: argparse.Namespace) -> int:
    from procs.learning import study, synthetic
    from procs.learning.extras import LearningError, wanted

    kinds = ["online"]
    for kind, module in (("trees", "lightgbm"), ("linear", "sklearn")):
        try:
            wanted(module)
            kinds.append(kind)
        except LearningError as error:
            print(f"without {kind}: {error}", file=sys.stderr)
    progress = Progress()
    trials = []
    for edge in (synthetic.PLANTED_EDGE, 0.0):
        for seed in range(1, args.seeds + 1):
            progress.now(f"market {seed} of {args.seeds}, edge {edge:g}")
            trials.append(synthetic.trial(seed, edge, tuple(kinds)))
    progress.end()
    found = synthetic.summary(trials)
    _say(args, found, synthetic_lines(found))
    return OK if study.as_planted(found) else UNHEALTHY
