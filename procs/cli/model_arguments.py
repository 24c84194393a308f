"""The options of `scalperctl model`."""

from __future__ import annotations

import argparse

from procs.cli import arguments


def parts(p: argparse.ArgumentParser) -> None:
    """The parts of `model`, with their options."""
    made = p.add_subparsers(metavar="WHAT", dest="what", required=True, parser_class=arguments.Parser)

    def part(name: str, sentence: str, example: str) -> argparse.ArgumentParser:
        found: argparse.ArgumentParser = made.add_parser(
            name, help=sentence, description=sentence[0].upper() + sentence[1:] + ".", epilog=arguments._examples((example,)),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        return found

    arguments._json(part("ls", "the models on disk, and which may vote", "model ls"))
    train = part("train", "train a model on recordings, judged out of sample", "model train edge --recording day1.gz day2.gz")
    train.add_argument("name", metavar="NAME", help="its name; a new version each time")
    train.add_argument("--kind", choices=("trees", "linear", "online", "garch", "microprice"), default="trees",
                       help="what to train (default trees); garch and microprice are fitted for the features")  # fmt: skip
    train.add_argument("--symbol", metavar="NAME", help="of recordings that hold several: the one to train on")
    train.add_argument("--barrier", action="store_true", help="label by the triple barrier, not by the mid at the horizon")
    train.add_argument("--promote", action="store_true", help="let it vote, if it beat the baseline")
    arguments._profile_options(train, speed=False)
    arguments._json(train)
    promote = part("promote", "let a model vote; refused if it did not beat the baseline out of sample", "model promote edge@3")
    promote.add_argument("name", metavar="NAME[@VERSION]", help="the latest version unless one is named")
    arguments._json(promote)
    publish = part("publish", "give a promoted model to a running pipeline", "model publish edge --instance paper")
    publish.add_argument("name", metavar="NAME[@VERSION]", help="the version promoted last unless one is named")
    arguments._instance(publish)
    publish.add_argument("--timeout", metavar="S", type=arguments.positive, default=5.0,
                         help="wait so long for it to be taken (default 5)")  # fmt: skip
    arguments._json(publish)
    report = part("report", "figures of a model, of recordings, or of markets with a known edge", "model report edge")
    report.add_argument("name", metavar="NAME[@VERSION]", nargs="?", default="", help="a model; with recordings: its drift")
    report.add_argument("--synthetic", action="store_true", help="learn on markets with and without an edge, and print the rates")
    report.add_argument("--seeds", metavar="N", type=arguments.whole, default=20,
                        help="synthetic: markets of each sort (default 20)")  # fmt: skip
    arguments._profile_options(report, speed=False)
    arguments._json(report)
