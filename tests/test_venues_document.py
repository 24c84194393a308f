"""docs/add-a-venue.md is true: who does what it says has a venue that profiles, recordings and `data check` know."""

from __future__ import annotations

import filecmp
import gzip
import json
import re
from pathlib import Path

import corner_venue
import pytest
from corner_venue import DOCUMENT, ROOT, Book, call, follow, scalperctl

from procs.cli.outcome import UNHEALTHY, USAGE

START_NS = 1_800_000_000_000_000_000
SIZES = {"tick_size": "0.5", "lot_size": "0.1", "step_size": "0.1", "min_qty": "0.1"}
PROFILE = {"source": {"kind": "live"}, "live": {"venue": "corner"}, "symbols": [{"name": "AB", **SIZES}]}
HEAD = {
    "scalper": "file", "s": "AB", "market": "corner", "venue_name": "AB", "tick": "0.5", "lot": "0.1", "step": "0.1",
    "levels": 1000,
}  # fmt: skip
"""What the recorder writes at the beginning of a file."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of somebody who followed the document."""
    return follow(tmp_path_factory.mktemp("corner"))


def frames() -> list[tuple[int, str]]:
    """(ms since the start, frame): what one connection of two seconds brings, of a market that was not recorded."""
    book = Book("AB", 7)
    at = START_NS // 1_000_000
    found = [(0, '{"op":"joined","names":["AB"]}'), (1, book.whole(at))]
    for k in range(2, 200):
        found.append((10 * k, book.change(at + 10 * k)))
        if k % 5 == 0:
            found.append((10 * k + 1, book.print(at + 10 * k)))
        if k % 100 == 0:
            found.append((10 * k + 2, '{"op":"beat"}'))
    return found


def test_one_file_and_one_row(tree: Path) -> None:
    """Beside the venue's own file, following the document changes one file, by the one row that it shows."""
    compared = filecmp.dircmp(ROOT / "trading" / "venues", tree / "trading" / "venues", ignore=["__pycache__"])
    assert (compared.left_only, compared.right_only, compared.diff_files) == ([], ["corner.py"], ["names.py"])
    before, after = ((root / "trading/venues/names.py").read_text().splitlines() for root in (ROOT, tree))
    at = next(n for n, (old, new) in enumerate(zip(before, after, strict=False)) if old != new)
    assert after[:at] + after[at + 1 :] == before and after[at] + "\n" == corner_venue.blocks()[1]


def test_the_worked_example_runs(tree: Path) -> None:
    """The document's module is imported, and the document's test passes on it."""
    _, _, test = corner_venue.blocks()
    done = call(tree, "-c", test + "\nprint((__import__('trading.venues.corner').venues.corner.__doc__ or '').split(':')[0])")
    assert done.returncode == 0 and done.stdout == "Corner\n", done.stderr


def test_the_profile_knows_the_venue(tree: Path, tmp_path: Path) -> None:
    """`venue: corner` is accepted, its symbols become instruments of the venue; without the row it is refused."""
    (tmp_path / "corner.yaml").write_text(json.dumps(PROFILE))  # JSON is YAML
    program = (
        "from procs.profiles.config import load_profile\n"
        "from procs.receiver.markets import by_market, streams_of, venue_of\n"
        f"profile = load_profile({str(tmp_path / 'corner.yaml')!r})\n"
        "((market, symbols),) = by_market(profile).items()\n"
        "print(profile.symbols[0].market, profile.instruments()[0].market.name, int(profile.instruments()[0].market))\n"
        "print(venue_of(market, symbols, streams_of(profile.live)).connections()[0].messages[0].decode())\n"
    )
    done = call(tree, "-c", program)
    assert done.stdout == 'corner CORNER 10\n{"op":"join","names":["AB"]}\n', done.stderr
    refused = call(tmp_path, "-c", program)
    assert refused.returncode != 0 and "'corner' is not allowed" in refused.stderr


def test_recordings_are_proved_right(tree: Path, tmp_path: Path) -> None:
    """A recording of ours and a capture that names nothing but the host: sound, every frame known, the whole book after each
    change; a change left out is a gap, and a frame of no kind is told."""
    stamped = [(START_NS + ms * 1_000_000, frame) for ms, frame in frames()]
    told = [corner_venue.to_json(HEAD), *(frame for _, frame in stamped)]
    made = {"sound": told, "cut": [*told[:40], *told[41:]], "odd": [*told, '{"op":"new"}']}
    for hour, (name, lines) in enumerate(made.items()):  # an hour apart, they are recordings of their own
        folder = tmp_path / name / "corner" / "AB"
        folder.mkdir(parents=True)
        text = "".join(f"{START_NS + hour * 3600 * 10**9 + 10**7 * n} {line}\n" for n, line in enumerate(lines))
        (folder / f"AB_20270115T0{8 + hour}0000Z.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "wire").mkdir()
    captured = [f"wss://stream.corner.example/feed <-> {START_NS // 10**9}.0\n"]
    captured += [f"{at // 10**9}.{at % 10**9:09}: {frame}\n" for at, frame in stamped]
    (tmp_path / "wire" / "day.log").write_text("".join(captured))
    done = scalperctl(tree, "data", "check", *(str(tmp_path / name) for name in (*made, "wire")), "--json")
    sound, cut, odd, wire = json.loads(done.stdout)
    for verdict in (sound, wire):
        assert verdict["ok"] and verdict["unknown"] == verdict["gaps"] == verdict["trade_gaps"] == 0
        assert verdict["books_valid"] == verdict["resyncs"] == 1
        assert verdict["symbols"] == ["AB"] and verdict["depth_messages"] == 198 and verdict["trades"] == 39
    assert sound["venue"] == "corner" and not cut["ok"] and cut["gaps"] == 1
    assert not odd["ok"] and "not understood" in str(odd["wrong"])
    assert done.returncode == UNHEALTHY
    refused = scalperctl(tmp_path, "data", "check", str(tmp_path / "sound"))
    assert refused.returncode == USAGE and "no venue 'corner' is known" in refused.stderr


def test_the_document_names_what_exists() -> None:
    """Each path that the document names is in the repository, but for the example's own."""
    text = DOCUMENT.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:trading|tests|sim)/[\w/]+\.py)`", text)) - {"trading/venues/corner.py"}
    assert len(named) >= 5
    assert [path for path in named if not (DOCUMENT.parents[1] / path).is_file()] == []
