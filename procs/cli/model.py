"""`model`: list, train, judge, promote and publish models. Progress goes to stderr, what was asked for to stdout."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from procs.cli import running
from procs.cli.data_tools import _Progress as Progress
from procs.cli.model_text import drift_lines, model_lines, study_lines, synthetic_lines
from procs.cli.outcome import NOT_RUNNING, OK, UNHEALTHY, USAGE, CliError
from procs.cli.report import use_kernel_cache
from procs.cli.table import Column, clean_text, paint_for, table
from procs.config import Profile
from procs.learning import registry
from procs.learning.model_file import KINDS, Model


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
            })  # fmt: skip
    if args.json:
        print(json.dumps(rows, indent=2))
        return OK
    if not rows:
        print("no models yet: scalperctl model train NAME --recording FILE makes one")
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
    print("\n".join(table(columns, cells, 400, paint_for(sys.stdout))))
    return OK


def _profile(args: argparse.Namespace) -> Profile:
    """The profile whose `features` and `ml` count; which model it names is of no interest here."""
    if not args.recording:
        raise CliError("which recordings? name them with --recording FILE...", USAGE)
    return running.profile_for(args, last={"ml.model": ""})


def train(args: argparse.Namespace) -> int:
    """`model train`."""
    profile = _profile(args)
    from procs.learning import datasets, training

    progress = Progress()
    past = datasets.histories(profile.source.files, progress)
    progress("training, fold by fold")
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
    from procs.learning import channel

    instance = args.instance or _only_one()
    pinned = registry.pinned(args.name)
    model = registry.load(pinned)
    image = _image(model, instance)
    began = time.monotonic()
    with registry.publishing():
        segment = channel.attach(instance)
        try:
            number = channel.publish(segment.words, image)
            while int(segment.words[channel.IN_FORCE]) != number:
                if time.monotonic() - began > args.timeout:
                    raise CliError(
                        f"{pinned} was published, but {instance} has not taken it in {args.timeout:g} s: see `scalperctl status`"
                    )
                time.sleep(0.001)
        finally:
            segment.close()
    took_ms = (time.monotonic() - began) * 1e3
    said = {"instance": instance, "model": pinned, "number": number, "taken_ms": round(took_ms, 3)}
    _say(args, said, [f"{instance} computes with {pinned} (change {number}, taken after {took_ms:.0f} ms)"])
    return OK


def _only_one() -> str:
    names = running.living()
    if len(names) != 1:
        raise CliError(f"{len(names)} pipelines run: say which one with --instance NAME", USAGE)
    return names[0]


def _image(model: Model, instance: str) -> Any:
    """The words that the features stage copies."""
    import numpy as np

    from procs.learning.model_file import install
    from trading import features
    from trading.feature_layout import FEATURE_STATE, IMAGE_OFFSET

    profile = running.running_profile(instance)
    if profile is None:
        raise CliError(f"instance {instance!r} is not running: start it with `scalperctl start`", NOT_RUNNING)
    if not profile.ml.enabled:
        raise CliError(f"{instance} runs without models: stop it and start it again with ml.enabled=true", USAGE)
    if profile.world == "replay":
        raise CliError(f"{instance} replays in virtual time: when a model comes would be chance; name it in ml.model", USAGE)
    if model.kind == "online":
        raise CliError("an online model lives in the pipeline's own state: name it in ml.model and start anew", USAGE)
    params = np.zeros(1, features.FEATURE_PARAMS)
    install(model, params, np.zeros(1, FEATURE_STATE), profile.ml.horizon_ms * 1_000_000)
    return params.view(np.int64)[IMAGE_OFFSET // 8 :]


def report(args: argparse.Namespace) -> int:
    """`model report`."""
    if args.synthetic:
        return _synthetic(args)
    if not args.name:
        return _study(args)
    model = registry.load(args.name, promoted=False)
    if not args.recording:
        voted = model.version in [p.version for p in registry.promotions(model.name)]
        _say(args, model, model_lines(model, voted))
        return OK
    from procs.learning import study

    profile = _profile(args)
    progress = Progress()
    found = study.drift(model, profile, profile.source.files, progress)
    progress.end()
    _say(args, found, drift_lines(model, found))
    return OK


def _study(args: argparse.Namespace) -> int:
    from procs.learning import study

    profile = _profile(args)
    progress = Progress()
    found = study.study(profile, profile.source.files, KINDS, progress)
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
            progress(f"market {seed} of {args.seeds}, edge {edge:g}")
            trials.append(synthetic.trial(seed, edge, tuple(kinds)))
    progress.end()
    found = synthetic.summary(trials)
    _say(args, found, synthetic_lines(found))
    return OK if study.as_planted(found) else UNHEALTHY
