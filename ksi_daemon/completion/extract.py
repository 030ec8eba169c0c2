"""Events in an answer's text: JSON objects with a string `event`, in prose or code fences.

The scan is linear. At each `{` that may begin an object it is read once; what is nested in it is known then,
whether it came to an end or not. Two readings that pass the same place differ in which of its characters are
in strings, so no place is read more than twice.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from ksi_daemon import wire
from ksi_daemon.errors import KsiError

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_TEXT = 1024 * 1024
"""Characters that are looked at, from the beginning."""

MOST_EVENTS = 100
"""Events taken from one answer, the first ones."""

MOST_STEPS = 400_000
"""Tokens read in one answer; honest JSON has about one for five characters."""

MOST_REFUSED = 100
"""Objects that look like events and cannot be decoded, after which the rest is left alone."""

DEEPEST = 100
"""Levels of nesting in an event; deeper ones are passed over, since no reply could carry them."""

MOST_OPEN = 1_000
"""Levels that one reading follows; where there are more, the next reading begins below them."""

PIECE = 1_000
"""Tokens read without a pause: well under a millisecond."""

_STRING = r'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+"'
_SCALAR = r"true|false|null|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?"
_TOKEN = re.compile(rf"[ \t\n\r]*+(?:([{{}}\[\]:,])|({_STRING})|{_SCALAR})")
_BEGIN = re.compile(r'\{[ \t\n\r]*+"')
_KEY = '"event"'


class Found(NamedTuple):
    """An event as the answer has it; `data` is {} where it has none."""

    event: str
    data: dict[str, Any]


class Scan:
    """One text. `steps` counts the tokens read so far."""

    def __init__(self, text: str) -> None:
        self._text = text[:MOST_TEXT]
        self._ends: dict[int, int] = {}
        self.steps = 0

    def run(self) -> Iterator[Found | None]:
        """The events in their order, and a None now and then: a chance to let others run."""
        pause, found, refused = PIECE, 0, 0
        place, last = 0, self._text.rfind(_KEY)
        while found < MOST_EVENTS and refused < MOST_REFUSED and self.steps < MOST_STEPS:
            begin = _BEGIN.search(self._text, place, last + 1)
            if begin is None:
                return
            start = begin.start()
            if start not in self._ends:
                for _ in self._read(start):
                    yield None
            if self.steps >= pause:
                pause = self.steps + PIECE
                yield None
            place = start + 1
            if end := self._ends[start]:
                event = _decoded(self._text[start:end])
                if event is None:
                    refused += 1
                else:
                    found, place = found + 1, end
                yield event

    def _read(self, start: int) -> Iterator[None]:
        """Read the object at `start` until it ends or is none; note the end of each event in it, else 0."""
        reading, place = _Reading(self._ends), start
        while True:
            self.steps += 1
            token = _TOKEN.match(self._text, place)
            if token is None or not reading.take(token) or self._too_much(reading):
                reading.give_up()
                return
            place = token.end()
            if not reading.open:
                return
            if self.steps % PIECE == 0:
                yield

    def _too_much(self, reading: _Reading) -> bool:
        return self.steps >= MOST_STEPS or len(reading.open) > MOST_OPEN


# what may come next
_FIRST_KEY, _KEY_NEXT, _COLON, _VALUE, _FIRST_VALUE, _AFTER = range(6)


class _Level:
    """An object (`start` is its place) or an array (-1) that is open, and what is known of it."""

    __slots__ = ("event", "height", "key", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.height = 1
        self.key = ""
        self.event = False


class _Reading:
    """The grammar of RFC 8259, a token at a time."""

    def __init__(self, ends: dict[int, int]) -> None:
        self._ends = ends
        self.open: list[_Level] = []
        self._next = _VALUE

    def take(self, token: re.Match[str]) -> bool:
        """Go on by one token; False when it may not stand here."""
        mark, string = token.group(1, 2)
        if mark is None:
            return self._string(string) if string is not None else self._scalar()
        if mark in "{[":
            return self._begin(mark, token.end() - 1)
        if mark in "}]":
            return self._end(mark, token.end())
        return self._colon() if mark == ":" else self._comma()

    def give_up(self) -> None:
        """What is still open here ends nowhere."""
        for level in self.open:
            if level.start >= 0:
                self._ends[level.start] = 0

    def _string(self, text: str) -> bool:
        if self._next in (_FIRST_KEY, _KEY_NEXT):
            self.open[-1].key = text
            self._next = _COLON
            return True
        if not self._scalar():
            return False
        level = self.open[-1]
        if level.key == _KEY:
            level.event = True
        return True

    def _scalar(self) -> bool:
        if self._next not in (_VALUE, _FIRST_VALUE):
            return False
        self._next = _AFTER
        return True

    def _begin(self, mark: str, place: int) -> bool:
        if not self._scalar():
            return False
        self.open.append(_Level(place if mark == "{" else -1))
        self._next = _FIRST_KEY if mark == "{" else _FIRST_VALUE
        return True

    def _end(self, mark: str, end: int) -> bool:
        level = self.open[-1]
        is_object = level.start >= 0
        if is_object != (mark == "}") or self._next not in (
            _AFTER,
            _FIRST_KEY if is_object else _FIRST_VALUE,
        ):
            return False
        self.open.pop()
        if is_object:
            self._ends[level.start] = end if level.event and level.height <= DEEPEST else 0
        if self.open:
            self.open[-1].height = max(self.open[-1].height, level.height + 1)
        self._next = _AFTER
        return True

    def _colon(self) -> bool:
        if self._next != _COLON:
            return False
        self._next = _VALUE
        return True

    def _comma(self) -> bool:
        if self._next != _AFTER:
            return False
        self._next = _KEY_NEXT if self.open[-1].start >= 0 else _VALUE
        return True


def _decoded(text: str) -> Found | None:
    try:
        value = wire.decode(text.encode())
    except (KsiError, UnicodeEncodeError):
        return None
    event, data = value["event"], value.get("data")
    if type(event) is not str or not event or type(data) not in (dict, type(None)):
        return None
    return Found(event, data or {})
