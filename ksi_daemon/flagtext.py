"""The small part of YAML that flags.yaml may use: scalars in block mappings, each with its place."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

import yaml

from ksi_daemon.errors import KsiError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

LIMIT: Final = 64 * 1024
"""Bytes that a flags file may have."""

_FALSE_BREAKS = re.compile("[\x85\u2028\u2029\ufeff]")
_WORD = re.compile(r"[a-z][a-z0-9_]*")
_DEPTH = 2
_SHOWN = 60

Place = tuple[str, ...]


class FlagsInvalid(KsiError):
    """A flags file that was refused as a whole; `line` counts from 1, and is 0 when no line is to blame.

    `missing` says that there is no such file at all.
    """

    code = "flags_invalid"

    def __init__(self, path: Path | str, line: int, reason: str, *, missing: bool = False) -> None:
        self.path = str(path)
        self.line = line
        self.missing = missing
        self.reason = reason
        super().__init__(f"{path}:{line}: {reason}" if line else f"{path}: {reason}")


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value: `text` without its quotes, `quote` (empty when plain), and its characters in the file."""

    text: str
    quote: str
    line: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Outline:
    """A flags file: the line of every key in file order, and every scalar, both by path."""

    keys: dict[Place, int] = field(default_factory=dict)
    scalars: dict[Place, Scalar] = field(default_factory=dict)


def shown(text: str) -> str:
    """Text from outside as it may stand in a message: quoted, escaped, at most 60 characters."""
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


def decode(data: bytes, path: Path | str) -> str:
    """UTF-8 without byte order mark, NUL and the line breaks that only YAML sees (YAML 1.1, 4.2)."""
    if len(data) > LIMIT:
        raise FlagsInvalid(path, 0, f"more than {LIMIT} bytes; flags are a few lines")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FlagsInvalid(path, line, f"not UTF-8 at byte {error.start}; save it as UTF-8") from None
    odd = _FALSE_BREAKS.search(text)
    if odd or "\0" in text:
        place = odd.start() if odd else text.index("\0")
        line = text.count("\n", 0, place) + 1
        raise FlagsInvalid(path, line, f"has the character U+{ord(text[place]):04X}; remove it")
    return text


def scan(text: str, path: Path | str) -> Outline:
    """The outline of a text; raises `FlagsInvalid` for all that is not scalars in block mappings.

    Reads the events of the pure-Python loader: nothing recurses, nothing is constructed, and an alias or a
    deep nesting ends the reading where it stands (the C loader can crash on 64 KiB of brackets).
    """
    walk = _Walk(path)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            walk.take(event)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise FlagsInvalid(path, line, f"not YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise FlagsInvalid(path, line, f"has the control character U+{error.character:04X}") from None
    except (ValueError, OverflowError) as error:  # PyYAML lets chr() and int() speak for themselves
        raise FlagsInvalid(path, 0, f"not YAML: {error}") from None
    return walk.outline


def set_scalars(text: str, changes: Mapping[str, str], path: Path | str = "flags.yaml") -> str:
    """The text with the scalars at the dotted paths replaced, and not one other character.

    Quotes, comments, layout and line endings stay. The result is read again, and refused with
    `FlagsInvalid` unless exactly the named scalars differ.
    """
    before = scan(text, path)
    wanted = {tuple(name.split(".")): value for name, value in changes.items()}
    for place in wanted:
        if place not in before.scalars:
            raise FlagsInvalid(path, 0, f"has no line for {shown('.'.join(place))}; add it by hand")
    result = text
    for place in sorted(wanted, key=lambda place: before.scalars[place].start, reverse=True):
        old = before.scalars[place]
        result = result[: old.start] + old.quote + wanted[place] + old.quote + result[old.end :]
    _same_but(before, scan(result, path), wanted, path)
    return result


def _same_but(before: Outline, after: Outline, wanted: Mapping[Place, str], path: Path | str) -> None:
    expected = {
        place: (wanted.get(place, old.text), old.quote, old.line) for place, old in before.scalars.items()
    }
    actual = {place: (new.text, new.quote, new.line) for place, new in after.scalars.items()}
    if expected != actual or before.keys != after.keys or not all(map(_WORD.fullmatch, wanted.values())):
        raise FlagsInvalid(path, 0, "the edit would change more than the flags named; edit it by hand")


class _Walk:
    """Takes the events of one file in order, and refuses the first one that has no place in flags.yaml."""

    def __init__(self, path: Path | str) -> None:
        self.outline = Outline()
        self._path = path
        self._parents: list[str] = []
        self._key: str | None = None
        self._depth = 0
        self._documents = 0

    def take(self, event: Any) -> None:
        """One event of `yaml.parse`."""
        self._STEPS[type(event)](self, event)

    def _refuse(self, event: Any, reason: str) -> NoReturn:
        raise FlagsInvalid(self._path, event.start_mark.line + 1, reason)

    def _ignore(self, _: Any) -> None:
        """Begin and end of the stream say nothing."""

    def _document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            self._refuse(event, "a second document begins here; keep one")
        if event.version or event.tags:
            self._refuse(event, "% directives are not taken; remove them")

    def _alias(self, event: Any) -> None:
        self._refuse(event, f"aliases are not taken; write out what *{event.anchor[:60]} stands for")

    def _list(self, event: Any) -> None:
        self._refuse(event, "lists are not taken; write one `name: value` a line")

    def _open(self, event: Any) -> None:
        self._plain(event)
        if event.flow_style:
            self._refuse(event, "braces are not taken; write one `name: value` a line")
        if self._depth and self._key is None:
            self._refuse(event, "a key must be one word")
        if self._depth == _DEPTH:
            self._refuse(event, f"nested too deep below {shown(self._key or '')}; give one value")
        if self._key is not None:
            self._parents.append(self._key)
        self._key = None
        self._depth += 1

    def _close(self, _: Any) -> None:
        self._depth -= 1
        self._key = None
        if self._parents:
            self._parents.pop()

    def _scalar(self, event: Any) -> None:
        self._plain(event)
        if event.style in ("|", ">") or event.start_mark.line != event.end_mark.line:
            self._refuse(event, "a word must stand on one line")
        if not self._depth:
            self._refuse(event, "must hold `version:` and `components:`, not one bare value")
        if self._key is None:
            self._begin(event)
        else:
            self._end(event)

    def _begin(self, event: Any) -> None:
        place = (*self._parents, event.value)
        if place in self.outline.keys:
            first = self.outline.keys[place]
            self._refuse(event, f"{shown('.'.join(place))} is already given in line {first}; keep one")
        self.outline.keys[place] = event.start_mark.line + 1
        self._key = event.value

    def _end(self, event: Any) -> None:
        place = (*self._parents, self._key or "")
        start, end = event.start_mark, event.end_mark
        quote = event.style or ""
        self.outline.scalars[place] = Scalar(event.value, quote, start.line + 1, start.index, end.index)
        self._key = None

    def _plain(self, event: Any) -> None:
        if event.anchor:
            self._refuse(event, f"anchors are not taken; remove &{event.anchor[:60]}")
        if event.tag:
            self._refuse(event, f"tags are not taken; remove {shown(event.tag)}")

    _STEPS: ClassVar[dict[type, Callable[[Any, Any], None]]] = {
        yaml.StreamStartEvent: _ignore,
        yaml.DocumentStartEvent: _document,
        yaml.AliasEvent: _alias,
        yaml.SequenceStartEvent: _list,
        yaml.MappingStartEvent: _open,
        yaml.MappingEndEvent: _close,
        yaml.ScalarEvent: _scalar,
        yaml.DocumentEndEvent: _ignore,
        yaml.StreamEndEvent: _ignore,
    }


def reading(plain: str) -> str:
    """What YAML 1.1 makes of an unquoted word, for a message: `off` is the bool false, `1:30` the int 90."""
    resolver: Any = yaml.SafeLoader("")
    node = yaml.ScalarNode(resolver.resolve(yaml.ScalarNode, plain, (True, False)), plain)
    kind = node.tag.rpartition(":")[2]
    make = _MAKERS.get(kind)
    if make is None:
        return f"a {kind}" if kind != "str" else "text"
    try:
        return f"the {kind} {shown(str(make(yaml.constructor.SafeConstructor(), node)))[1:-1].lower()}"
    except ValueError:  # 0b_, or an integer of 5,000 digits
        return f"a broken {kind}"


_MAKERS: Final[dict[str, Callable[[Any, Any], object]]] = {
    "bool": yaml.constructor.SafeConstructor.construct_yaml_bool,
    "int": yaml.constructor.SafeConstructor.construct_yaml_int,
    "float": yaml.constructor.SafeConstructor.construct_yaml_float,
}
