"""Profiles: one YAML file says everything that an instance of the pipeline is told; this module loads and checks it.

`load_profile("paper")` finds a shipped (or the user's own) profile by name, `load_profile("./mine.yaml")` a file.
Types, ranges and unknown keys are refused by procs.profiles.strict_yaml with file, line, column, key and remedy; what only
holds between keys (short below long, files that exist) by procs.profiles.relations. Neither numpy nor numba is imported: the
supervisor and the command line stay small and start at once.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from procs.profiles import relations
from procs.profiles.schema import Profile
from procs.profiles.strict_yaml import MAX_BYTES, ConfigError, Reader, compose, overlay, value_node

__all__ = [
    "ConfigError", "find_profile", "load_profile", "parse_override", "profile_from_json", "profile_json", "profile_names",
]  # fmt: skip

SHIPPED: Final = Path(__file__).resolve().parent.parent.parent / "config"
"""Beside procs/ both in a checkout and in site-packages (the wheel installs config/*.yaml as package data)."""


def profile_json(profile: Profile) -> bytes:
    """The profile for another process; `profile_from_json` reads it back equal."""
    return msgspec.json.encode(profile)


def profile_from_json(raw: bytes | str) -> Profile:
    """The profile that `profile_json` wrote. Raises msgspec.DecodeError for anything else."""
    return msgspec.json.decode(raw, type=Profile)


def _own_places() -> list[Path]:
    """Where users keep profiles of their own; these go before the shipped ones."""
    places = [Path(p) for p in os.environ.get("CONFIGURATION_DIRECTORY", "").split(":") if p]
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    if os.path.isabs(home):  # a user without an entry in passwd and without HOME has none
        places.append(Path(home) / "scalper")
    places.append(Path("/etc/scalper"))
    return places


def profile_names() -> dict[str, Path]:
    """Every profile that can be named, with its file."""
    found: dict[str, Path] = {}
    for place in [*_own_places(), SHIPPED]:
        try:
            for file in sorted(place.glob("*.yaml")):
                found.setdefault(file.stem, file)
        except OSError:
            continue
    return found


def find_profile(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of a profile: text with a slash or a suffix .yaml/.yml is a path, all else a name."""
    text = os.fspath(name_or_path)
    if not text or "\0" in text:
        raise ConfigError("profile", "", f"{text!r} names no profile", "give a name such as paper, or a path")
    if "/" in text or text.endswith((".yaml", ".yml")) or isinstance(name_or_path, Path):
        return Path(os.path.expanduser(text))
    known = profile_names()
    if text not in known:
        near = difflib.get_close_matches(text, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"profile {text!r}", "", "no such profile",
                          f"{hint}known: {', '.join(sorted(known))}; a path is written with a slash, as ./mine.yaml")  # fmt: skip
    return known[text]


def _bytes_of(path: Path) -> bytes:
    try:
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(str(path), "", "not a regular file", "give the path of a YAML file")
            return file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise ConfigError(str(path), "", "not a regular file", "give the path of a YAML file") from None
    except OSError as e:
        raise ConfigError(str(path), "", f"cannot be read ({e.strerror})", "check the path and its permissions") from None


def parse_override(text: str) -> tuple[str, Any]:
    """`risk.equity=5000` into ("risk.equity", 5000): the value is read as YAML, for the command line's overrides."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError("override", key, f"{text!r} is not KEY=VALUE", "write e.g. risk.equity=5000")
    node = compose(b"v: " + value.encode("utf-8", "replace"), f"override {key}").value[0][1]

    def plain(n: Any) -> Any:
        if isinstance(n.value, list):
            if n.value and isinstance(n.value[0], tuple):
                return {str(k.value): plain(v) for k, v in n.value}
            return [plain(v) for v in n.value]
        return n.value if n.style else _Plain(n.value)

    return key.strip(), plain(node)


class _Plain(str):
    """Text of an unquoted override: the schema decides what it is."""


def load_profile(
    name_or_path: str | os.PathLike[str],
    overrides: Mapping[str, Any] | None = None,
    *,
    pin: Callable[[str], str] | None = None,
) -> Profile:
    """The checked profile.

    `overrides` maps keys (dotted, `{"risk.equity": 5000}`, or nested) to values and goes over the file; paths in it
    are relative to the working directory, paths in the file to the file. `pin` turns the names of models into names with
    versions (procs.learning.registry.all_pinned); None leaves them as they stand. Raises ConfigError.
    """
    path = find_profile(name_or_path)
    root = compose(_bytes_of(path), str(path))
    reader = Reader(str(path))
    kind = msgspec.inspect.type_info(Profile)
    reader.read(root, kind, "")  # the file must be right by itself: an override cannot hide its mistakes
    for key, value in (overrides or {}).items():
        overlay(root, key, _node(value, key))
    reader = Reader(str(path))
    profile: Profile = reader.read(root, kind, "")
    relations.check(profile, reader)
    profile = relations.resolve_markets(profile)
    if pin is not None:
        profile = relations.pin_models(profile, reader, pin)
    return relations.resolve_files(profile, reader, path)


def _node(value: Any, key: str) -> Any:
    node: Any = value_node(value, key)
    if isinstance(value, _Plain):
        node.style = None  # plain
    elif isinstance(value, (list, tuple)):
        node.value = [_node(v, f"{key}[{i}]") for i, v in enumerate(value)]
    elif isinstance(value, Mapping):
        node.value = [(k, _node(v, f"{key}.{k.value}")) for (k, _), v in zip(node.value, value.values(), strict=True)]
    return node
