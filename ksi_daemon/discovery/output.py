"""What `rg --json` prints, read while it comes. Pure, and shared by both sides."""

from __future__ import annotations

import base64
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import orjson

from ksi_daemon.discovery.core import MOST_OUTPUT, Found, Match
from ksi_daemon.discovery.failures import BadPattern, RgFailed
from ksi_daemon.linesplitter import LineSplitter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ksi_daemon.discovery.core import Query

LONGEST_LINE: Final = 500
"""Characters of a line that are shown; of a longer one those around the match."""

_LEAD: Final = 100
_SAID: Final = 300
"""Characters of `rg`'s own words that are passed on."""

_REFUSES: Final = ("regex parse error", "error parsing glob", "size limit", "not allowed in a regex")
"""What it says of a pattern or a glob that it cannot use."""

FAILED: Final = 2
"""Its exit code when anything went wrong: with a summary the search went on, without it never began."""


class Enough(Exception):
    """A limit is reached: the rest is not wanted."""


class Messages:
    """Pieces of output in, whole messages out. What is no message is passed over."""

    def __init__(self) -> None:
        self._lines = LineSplitter(MOST_OUTPUT)
        self.summed_up = False
        """Whether the search came to its end."""

    def feed(self, piece: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        """The kind and data of each message that `piece` ends."""
        for line in self._lines.feed(piece):
            if line[:1] != b"{":  # a flood of short lines would hold the loop
                continue
            try:
                message = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            kind = message["type"]
            self.summed_up = self.summed_up or kind == "summary"
            yield kind, message["data"]

    def whole(self, code: int, said: bytes) -> bool:
        """Whether `rg`, which ended with `code`, could read everything.

        Raises `BadPattern` or `RgFailed` where it did not search. To find nothing is no failure.
        """
        if self.summed_up and 0 <= code <= FAILED:
            return code != FAILED
        words = said.decode("utf-8", "replace")
        if code == FAILED and any(refusal in words for refusal in _REFUSES):
            raise BadPattern(shortened(words))
        raise RgFailed(code, shortened(words))


class Emitters:
    """Which files emit which events, by one run; added to `files`."""

    def __init__(self, files: dict[str, set[str]]) -> None:
        self.messages = Messages()
        self._files = files

    def feed(self, piece: bytes) -> None:
        """Take in a piece of the output."""
        for kind, data in self.messages.feed(piece):
            if kind == "match" and "text" in data["path"]:
                path = data["path"]["text"]
                for found in data["submatches"]:
                    literal = found["match"]["text"].partition("(")[2].strip()
                    self._files.setdefault(literal[1:-1], set()).add(path)


class _Open:
    """A match whose following lines are still to come."""

    def __init__(self, match: Match, context: int) -> None:
        self.match = match
        self.until = match.line + context
        self.after: list[str] = []

    def closed(self) -> Match:
        return self.match._replace(after=tuple(self.after)) if self.after else self.match


class Matches:
    """The matches of one search, up to its limits."""

    def __init__(self, query: Query) -> None:
        self.messages = Messages()
        self._query = query
        self._before: deque[tuple[int, str]] = deque(maxlen=query.context or 1)
        self._open: deque[_Open] = deque()
        self._found: list[Match] = []
        self._begun = 0
        self._size = 0
        self._stopped = ""

    @property
    def count(self) -> int:
        """How many are complete."""
        return len(self._found)

    @property
    def full(self) -> bool:
        """Whether a limit is reached, and nothing that is still to come counts."""
        return bool(self._stopped) and not self._open

    def feed(self, piece: bytes) -> tuple[Match, ...]:
        """Those that `piece` completes."""
        known = len(self._found)
        for kind, data in self.messages.feed(piece):
            if self.full:
                break
            self._take(kind, data)
        return tuple(self._found[known:])

    def found(self, code: int, said: bytes) -> Found:
        """All of them. Raises as `Messages.whole`."""
        trouble = ""
        if not self._stopped and not self.messages.whole(code, said):
            trouble = shortened(said.decode("utf-8", "replace")) or "rg could not read everything"
        return Found(tuple(self._found), self._stopped, trouble, self._size)

    def cut_off(self, stopped: str) -> Found:
        """What there is when it was ended from outside, by `time` or by `bytes`."""
        self._close_all()
        return Found(tuple(self._found), self._stopped or stopped, "", self._size)

    def _take(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "match":
            self._match(data)
        elif kind == "context":
            self._context(data["line_number"], _text(data["lines"]))
        else:  # a file begins or ends, or the search
            self._close_all()
            self._before.clear()

    def _match(self, data: dict[str, Any]) -> None:
        number, text = data["line_number"], _text(data["lines"])
        self._close_before(number)
        if self._begun == self._query.most_matches:
            self._stopped = self._stopped or "matches"
        if self._stopped:
            return
        self._begun += 1
        column = _column(data, text)
        first = number - self._query.context
        before = tuple(_cut(line, 0) for at, line in self._before if at >= first)
        match = Match(_text(data["path"]).removeprefix("./"), number, column, _cut(text, column - 1), before)
        self._open.append(_Open(match, self._query.context))
        if not self._query.context:
            self._close_all()

    def _context(self, number: int, text: str) -> None:
        self._close_before(number)
        for one in self._open:
            one.after.append(_cut(text, 0))
        self._before.append((number, text))

    def _close_before(self, number: int) -> None:
        while self._open and self._open[0].until < number:
            self._close(self._open.popleft())

    def _close_all(self) -> None:
        while self._open:
            self._close(self._open.popleft())

    def _close(self, one: _Open) -> None:
        match = one.closed()
        size = sum(len(text.encode()) for text in (match.path, match.text, *match.before, *match.after))
        if self._size + size > self._query.most_bytes:
            self._stopped = "bytes"
            self._open.clear()
        else:
            self._size += size
            self._found.append(match)


def shortened(said: str) -> str:
    """The beginning of `rg`'s words, in one line."""
    return " ".join(said.removeprefix("rg: ").split())[:_SAID]


def _text(found: dict[str, Any]) -> str:
    """Text, or what is not UTF-8 with its damage marked; a line without its end."""
    text = found["text"] if "text" in found else base64.b64decode(found["bytes"]).decode("utf-8", "replace")
    return str(text).rstrip("\r\n")


def _column(data: dict[str, Any], text: str) -> int:
    """From 1, in characters; `rg` counts bytes."""
    first = next(iter(data.get("submatches", ())), None)
    return 1 if first is None else len(text.encode()[: first["start"]].decode("utf-8", "ignore")) + 1


def _cut(text: str, at: int) -> str:
    if len(text) <= LONGEST_LINE:
        return text
    begin = max(0, min(at - _LEAD, len(text) - LONGEST_LINE))
    end = begin + LONGEST_LINE
    return f"{'…' if begin else ''}{text[begin:end]}{'…' if end < len(text) else ''}"
