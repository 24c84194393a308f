"""YAML text into typed, immutable settings; whatever is wrong is refused by place, key and remedy.

The schema directs the reading: text is composed into nodes (never constructed by tag), then each node is read as
the type that the msgspec class wants there. So `0.010` stays the text "0.010" where a decimal string is wanted,
`yes` is no boolean, and every error knows line and column. Tags, merge keys and repeated keys are refused;
aliases, depth and size are limited (a small file must not cost much memory). This module knows nothing of what
the settings mean: names are procs.profiles.config's, files and relations procs.profiles.relations'.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import yaml

MAX_BYTES: Final = 65_536
MAX_DEPTH: Final = 16
MAX_ALIASES: Final = 32
MAX_ITEMS: Final = 4096
INT_LIMIT: Final = 2**63 - 1


class ConfigError(ValueError):
    """A profile that cannot be used: `where` (file:line:column), `key` (dotted), `problem` and `remedy`."""

    def __init__(self, where: str, key: str, problem: str, remedy: str, *, of_value: bool = False) -> None:
        self.where, self.key, self.problem, self.remedy = where, key, problem, remedy
        self.of_value = of_value  # the type was right, its value was not
        place = f"{where}: {key}" if key else where
        super().__init__(f"{place}: {problem}; {remedy}")


_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*(?:_[0-9]+)*)")
_FLOAT: Final = re.compile(r"[-+]?(?:[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4})?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.?(?:nan|inf|infinity)", re.IGNORECASE)
_NULLS: Final = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLS: Final = {"true": True, "True": True, "false": False, "False": False}
_LOOSE_BOOLS: Final = frozenset(("yes", "no", "on", "off", "y", "n", "TRUE", "FALSE"))


class _StrictLoader(yaml.SafeLoader):
    """Composes nodes only. Refuses tags; counts aliases and depth."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name
        self.depth = 0
        self.aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """As SafeLoader's, with the limits of this module."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        where = f"{self.name}:{event.start_mark.line + 1}:{event.start_mark.column + 1}"
        if isinstance(event, yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > MAX_ALIASES:
                raise ConfigError(where, "", f"more than {MAX_ALIASES} aliases", "write the values out")
        elif getattr(event, "tag", None) is not None:
            raise ConfigError(where, "", f"tag {event.tag} is not allowed", "write the plain value without a tag")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ConfigError(where, "", f"nested deeper than {MAX_DEPTH} levels", "profiles are at most 4 levels deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def compose(raw: bytes, name: str) -> yaml.MappingNode:
    """The root mapping of one YAML document; ConfigError for everything else (`name` is shown in messages)."""
    if len(raw) > MAX_BYTES:
        raise ConfigError(name, "", f"{len(raw)} bytes long", f"a profile has at most {MAX_BYTES} bytes")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = raw.count(b"\n", 0, e.start) + 1
        raise ConfigError(f"{name}:{line}", "", "not UTF-8 text", "save the file as UTF-8") from None
    try:
        loader = _StrictLoader(text, name)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as e:
        line = text.count("\n", 0, e.position) + 1
        raise ConfigError(f"{name}:{line}", "", f"character {e.character!r} is not allowed", "remove it") from None
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        where = name if mark is None else f"{name}:{mark.line + 1}:{mark.column + 1}"
        what = " ".join(part for part in (e.context, e.problem) if part) or "not valid YAML"
        raise ConfigError(where, "", what, "mend the YAML there (indentation, colons, quotes)") from None
    except (yaml.YAMLError, ValueError, IndexError, RecursionError) as e:
        if isinstance(e, ConfigError):
            raise
        raise ConfigError(name, "", f"not valid YAML ({e})", "mend the YAML") from None
    if node is None:
        raise ConfigError(name, "", "the profile is empty", "write at least one key, such as `world: paper`")
    if not isinstance(node, yaml.MappingNode):
        where = f"{name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
        raise ConfigError(where, "", "a profile is a mapping of sections", "write lines such as `world: paper`")
    return node


def value_node(value: Any, key: str) -> yaml.Node:
    """A node without a mark for a Python value of an override; ConfigError names `key`."""
    if value is None:
        return yaml.ScalarNode("", "null")
    if isinstance(value, bool):
        return yaml.ScalarNode("", "true" if value else "false")
    if isinstance(value, (int, float)):
        return yaml.ScalarNode("", repr(value))
    if isinstance(value, str):
        return yaml.ScalarNode("", value, style='"')
    if isinstance(value, Mapping):
        return yaml.MappingNode("", [(value_node(str(k), key), value_node(v, f"{key}.{k}")) for k, v in value.items()])
    if isinstance(value, (list, tuple)):
        return yaml.SequenceNode("", [value_node(v, f"{key}[{i}]") for i, v in enumerate(value)])
    raise ConfigError("override", key, f"a {type(value).__name__} is no setting", "give text, a number, a list or a mapping")


def overlay(root: yaml.MappingNode, key: str, node: yaml.Node) -> None:
    """Puts `node` at dotted `key` below `root`, replacing what is there; mappings merge key by key."""
    head, _, rest = key.partition(".")
    place = next((i for i, (k, _) in enumerate(root.value) if getattr(k, "value", None) == head), None)
    old = None if place is None else root.value[place][1]
    if rest or isinstance(node, yaml.MappingNode):
        below = yaml.MappingNode("", list(old.value)) if isinstance(old, yaml.MappingNode) else yaml.MappingNode("", [])
        below.start_mark = getattr(old, "start_mark", None)
        if rest:
            overlay(below, rest, node)
        else:
            for k, v in node.value:
                overlay(below, str(k.value), v)
        node = below
    if place is None:
        root.value.append((value_node(head, key), node))
    else:
        root.value[place] = (root.value[place][0], node)


_WORD: Final = re.compile(r"[a-z_]{3,}")
"""A whole word among the alternatives of a pattern, such as a venue's name."""


def _closest(word: str, words: list[str]) -> str:
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else "known here: " + ", ".join(words)


def _shown(node: Any) -> str:
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    text = str(node.value)
    text = text if len(text) <= 40 else text[:37] + "..."
    return repr(text) if node.style else (text or "empty")


def _bounds(kind: Any) -> str:
    low = f"at least {kind.ge}" if kind.ge is not None else f"greater than {kind.gt}" if kind.gt is not None else ""
    high = f"at most {kind.le}" if kind.le is not None else f"less than {kind.lt}" if kind.lt is not None else ""
    return f" {low} and {high}" if low and high else f" {low or high}" if low or high else ""


def wanted(kind: Any) -> str:
    """In words, what a msgspec.inspect type accepts."""
    i = msgspec.inspect
    match kind:
        case i.BoolType():
            return "true or false"
        case i.IntType():
            return f"a whole number{_bounds(kind)}"
        case i.FloatType():
            return f"a number{_bounds(kind)}"
        case i.StrType():
            return "text" if kind.pattern is None else f"text that matches {kind.pattern}"
        case i.LiteralType():
            return " or ".join(str(v) for v in kind.values)
        case i.NoneType():
            return "null"
        case i.DictType():
            return f"a mapping, each value {wanted(kind.value_type)}"
        case i.VarTupleType():
            return f"a list, each item {wanted(kind.item_type)}"
        case i.UnionType():
            return " or ".join(wanted(t) for t in kind.types)
        case _:
            return "a mapping of keys"


class Reader:
    """Reads nodes as typed values and remembers where each dotted key stood."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.places: dict[str, str] = {}

    def where(self, key: str) -> str:
        """The place of a dotted key, or of its nearest section that was written, or the file."""
        while key:
            if key in self.places:
                return self.places[key]
            key = key.rpartition("[")[0] if key.endswith("]") else key.rpartition(".")[0]
        return self.name

    def from_override(self, key: str) -> bool:
        """Whether the key's value came from an override and not from the file."""
        return self.where(key) == "override"

    def fail(self, key: str, problem: str, remedy: str) -> ConfigError:
        """The error for a key that was read before (relations between keys)."""
        return ConfigError(self.where(key), key, problem, remedy)

    def _mark(self, node: yaml.Node, key: str) -> str:
        mark = node.start_mark
        place = "override" if mark is None else f"{self.name}:{mark.line + 1}:{mark.column + 1}"
        self.places[key] = place
        return place

    def read(self, node: yaml.Node, kind: Any, key: str) -> Any:
        """The value of `node` as `kind` (a msgspec.inspect type)."""
        where = self._mark(node, key)
        i = msgspec.inspect
        match kind:
            case i.StructType():
                return self._struct(node, kind, key, where)
            case i.VarTupleType():
                if not isinstance(node, yaml.SequenceNode):
                    raise self._wrong(where, key, node, kind)
                if len(node.value) > MAX_ITEMS:
                    raise ConfigError(where, key, f"{len(node.value)} items", f"write at most {MAX_ITEMS}")
                return tuple(self.read(item, kind.item_type, f"{key}[{n}]") for n, item in enumerate(node.value))
            case i.DictType():
                return self._mapping(node, kind, key, where)
            case i.UnionType():
                return self._union(node, kind, key, where)
            case _:
                return self._scalar(node, kind, key, where)

    def _wrong(self, where: str, key: str, node: yaml.Node, kind: Any) -> ConfigError:
        remedy = f"write {wanted(kind)}"
        if isinstance(node, yaml.ScalarNode):
            if not node.style and node.value in _NULLS and not isinstance(kind, msgspec.inspect.LiteralType):
                return ConfigError(where, key, "has no value", f"{remedy}, or remove the key")
            if isinstance(kind, msgspec.inspect.LiteralType):
                near = difflib.get_close_matches(str(node.value), [str(v) for v in kind.values], n=1, cutoff=0.5)
                remedy += f" (did you mean {near[0]!r}?)" if near else ""
            elif node.style and node.start_mark is not None:
                remedy += ", without quotes"
        return ConfigError(where, key, f"{_shown(node)} is not {wanted(kind)}", remedy)

    def _struct(self, node: yaml.Node, kind: Any, key: str, where: str) -> Any:
        if not isinstance(node, yaml.MappingNode):
            raise self._wrong(where, key, node, kind)
        fields = {f.encode_name: f for f in kind.fields}
        values: dict[str, Any] = {}
        for key_node, child in node.value:
            mark = key_node.start_mark
            at = "override" if mark is None else f"{self.name}:{mark.line + 1}:{mark.column + 1}"
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(at, key, "a key must be a plain word", "known here: " + ", ".join(fields))
            word = str(key_node.value)
            dotted = f"{key}.{word}" if key else word
            if word == "<<":
                raise ConfigError(at, dotted, "merge keys are not allowed", "write the values out")
            if word not in fields:
                raise ConfigError(at, dotted, "unknown key", _closest(word, list(fields)))
            if word in values:
                raise ConfigError(at, dotted, f"written twice (first at {self.places[dotted]})", "remove one of the two")
            values[word] = self.read(child, fields[word].type, dotted)
        for word, field in fields.items():
            if field.required and word not in values:
                raise ConfigError(where, f"{key}.{word}" if key else word, "missing", f"write {wanted(field.type)}")
        return kind.cls(**{fields[word].name: value for word, value in values.items()})

    def _mapping(self, node: yaml.Node, kind: Any, key: str, where: str) -> dict[str, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise self._wrong(where, key, node, kind)
        values: dict[str, Any] = {}
        for word, child in node.value:
            if not isinstance(word, yaml.ScalarNode) or word.value in values:
                raise ConfigError(where, key, "a key is written twice or is no plain word", "write each name once")
            values[str(word.value)] = self.read(child, kind.value_type, f"{key}.{word.value}")
        return values

    def _union(self, node: yaml.Node, kind: Any, key: str, where: str) -> Any:
        first: ConfigError | None = None
        for option in kind.types:
            try:
                return self.read(node, option, key)
            except ConfigError as e:
                # the error inside a list, or of a number out of range, says more than "is not a or b"
                if e.key != key or (isinstance(node, yaml.ScalarNode) and e.of_value):
                    first = first or e
        raise first or self._wrong(where, key, node, kind)

    def _scalar(self, node: yaml.Node, kind: Any, key: str, where: str) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise self._wrong(where, key, node, kind)
        text, plain = str(node.value), not node.style
        i = msgspec.inspect
        match kind:
            case i.NoneType() if plain and text in _NULLS:
                return None
            case i.BoolType() if plain and text in _BOOLS:
                return _BOOLS[text]
            case i.IntType() if plain and _INT.fullmatch(text):
                return self._in_range(int(text.replace("_", "")) if len(text) < 40 else 2**64, kind, key, where, text)
            case i.FloatType() if plain and _NOT_FINITE.fullmatch(text):
                raise ConfigError(where, key, f"{text} is not a finite number", f"write {wanted(kind)}", of_value=True)
            case i.FloatType() if plain and len(text) <= 400 and _FLOAT.fullmatch(text):
                number = float(text.replace("_", ""))
                if not math.isfinite(number):
                    raise ConfigError(where, key, f"{text[:40]} is not a finite number", f"write {wanted(kind)}", of_value=True)
                return self._in_range(number, kind, key, where, text)
            case i.LiteralType() if text in kind.values:
                return text
            case i.StrType():
                return self._text(node, kind, key, where)
        raise self._wrong(where, key, node, kind)

    def _in_range(self, number: float, kind: Any, key: str, where: str, text: str) -> float:
        low = (kind.ge is None or number >= kind.ge) and (kind.gt is None or number > kind.gt)
        high = (kind.le is None or number <= kind.le) and (kind.lt is None or number < kind.lt)
        if not (low and high and abs(number) <= (INT_LIMIT if isinstance(number, int) else math.inf)):
            raise ConfigError(where, key, f"{text[:40]} is out of range", f"write {wanted(kind)}", of_value=True)
        return number

    def _text(self, node: yaml.ScalarNode, kind: Any, key: str, where: str) -> str:
        text = str(node.value)
        if not node.style:
            if text in _NULLS:
                raise self._wrong(where, key, node, kind)
            looks = text in _BOOLS or text in _LOOSE_BOOLS or (kind.pattern is None and _FLOAT.fullmatch(text))
            if looks:
                raise ConfigError(where, key, f"{text} is not text", f'put it in quotes: "{text}"')
        if kind.max_length is not None and len(text) > kind.max_length:
            raise ConfigError(where, key, f"{len(text)} characters long", f"write at most {kind.max_length} characters")
        if "\0" in text or (kind.pattern is not None and not re.search(kind.pattern, text)):
            near = difflib.get_close_matches(text, _WORD.findall(kind.pattern or ""), n=1, cutoff=0.7)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ConfigError(where, key, f"{_shown(node)} is not allowed", f"write {wanted(kind)}{hint}")
        return text
