"""What a line of a conversation means, and what is counted of a log. Pure; both sides count the same."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ksi_daemon.settings import Settings

USER, HUMAN, CLAUDE, DIRECT = "user", "human", "claude", "DIRECT_MESSAGE"
YOU, IT = "You", "Claude"
UNKNOWN = "Unknown"

BUS = "message_bus"
"""The one log that is no conversation."""

ENDING = ".jsonl"

PARTICIPANTS = 1000
"""Names of one conversation that are kept; those that come later are left out."""

LONGEST_ID = 255 - len(ENDING)
"""Bytes of a session id: it is a file's name with an ending."""

DAMAGED = b"\xff"
"""What a reader gives in the place of a line that is too long: it is no UTF-8, so it counts as damage."""


class Summary(NamedTuple):
    """What is known of one conversation; `modified` in nanoseconds, `skipped` are its damaged lines."""

    session: str
    size: int
    modified: int
    messages: int
    first: str | None
    last: str | None
    participants: tuple[str, ...]
    has_claude: bool
    has_user: bool
    skipped: int


class Counts(NamedTuple):
    """A tally as plain values; `names` are the senders of direct messages."""

    messages: int
    skipped: int
    first: str | None
    last: str | None
    names: tuple[str, ...]
    claude: bool
    user: bool


class Wanted(NamedTuple):
    """What to search for: `text` in lower case, where, and how many conversations at most."""

    text: str
    content: bool
    sender: bool
    limit: int


class Found(NamedTuple):
    """A conversation that matches: how often (ten are enough), and the matches as a JSON array."""

    session: str
    hits: int
    matches: bytes


class Which(NamedTuple):
    """A page of one log; of the bus's log perhaps one conversation alone. `most` bounds its bytes."""

    session: str
    offset: int
    limit: int
    conversation: str | None
    most: int


class Page(NamedTuple):
    """How many messages there are in all, and those of the page as a JSON array."""

    total: int
    messages: bytes


class Order(NamedTuple):
    """An export: of which session, in which format, under which name without its ending, made when."""

    session: str
    format: str
    name: str
    at: float


class Exported(NamedTuple):
    """An export's file name, its size, and how many messages it holds."""

    messages: int
    size: int
    name: str


class Tally:
    """Counts the lines of one log, in their order (the KSI contract, 3.3)."""

    __slots__ = ("claude", "count", "first", "last", "names", "skipped", "user")

    def __init__(self, counts: Counts = Counts(0, 0, None, None, (), claude=False, user=False)) -> None:  # noqa: B008 - it is frozen
        self.count, self.skipped, self.first, self.last, names, self.claude, self.user = counts
        self.names = dict.fromkeys(names)

    def counts(self) -> Counts:
        """What was counted so far."""
        first = None if self.first is None else clean(self.first)
        last = None if self.last is None else clean(self.last)
        return Counts(self.count, self.skipped, first, last, tuple(self.names), self.claude, self.user)

    def add_line(self, line: bytes) -> None:
        """Count one line of any content."""
        try:
            value = decode(line)
        except ValueError:
            self.skipped += 1
        else:
            if value is not None:
                self.add(value)

    def add(self, value: dict[str, Any]) -> None:
        """Count an entry, if its stamp is one."""
        stamp, kind = value.get("timestamp"), value.get("type")
        if stamp is None and type(ksi := value.get("ksi")) is dict:
            stamp, kind = ksi.get("timestamp"), CLAUDE
        try:
            datetime.fromisoformat(stamp)  # type: ignore[arg-type]
        except (ValueError, TypeError):  # TypeError: what is no text is no stamp either
            return
        self.count += 1
        self.last = stamp
        if self.first is None:
            self.first = self.last
        if kind == CLAUDE:
            self.claude = True
        elif kind == DIRECT:
            self._add_name(value.get("from"))
        elif kind in (USER, HUMAN):  # a tuple: a kind may be what no set can hold
            self.user = True

    def add_names(self, senders: Iterable[object]) -> None:
        """Note who sent direct messages."""
        for sender in senders:
            self._add_name(sender)

    def _add_name(self, sender: object) -> None:
        if type(sender) is str and sender not in self.names and sender and len(self.names) < PARTICIPANTS:
            self.names[clean(sender)] = None


def summary(session: str, size: int, modified: int, counts: Counts) -> Summary:
    """A conversation's summary from what was counted of its log."""
    names = {*counts.names, *((IT,) if counts.claude else ()), *((YOU,) if counts.user else ())}
    return Summary(
        session,
        size,
        modified,
        counts.messages,
        counts.first,
        counts.last,
        tuple(sorted(names)),
        counts.claude,
        counts.user,
        counts.skipped,
    )


def decode(line: bytes) -> dict[str, Any] | None:
    """The object of one line; None for a blank one. Raises `ValueError` for any damage.

    It takes what `json.loads` takes, and numbers and nesting beyond what that bears.
    """
    text = line.decode().strip()
    if not text:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        value = orjson.loads(text)
    except ValueError:  # an integer of more than 4,300 digits
        value = json.loads(text, parse_int=str)
    if type(value) is not dict:
        raise ValueError("not an object")
    return value


def clean(text: str) -> str:
    """The text without lone surrogates, which neither UTF-8 nor the wire can carry."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def plain(value: Any) -> Any:
    """A value that the wire can carry: texts are cleaned, what it cannot carry becomes JSON text."""
    if type(value) is str:
        return clean(value)
    try:
        orjson.dumps(value)
    except (orjson.JSONEncodeError, RecursionError):
        return _as_text(value)
    return value


def _as_text(value: Any) -> str:
    try:
        return json.dumps(value)
    except (ValueError, RecursionError):
        return "(a value that cannot be shown)"


def is_session(session: str) -> bool:
    """Whether it can be the name of a log: one path component, in UTF-8, not too long."""
    try:
        size = len(session.encode())
    except UnicodeEncodeError:
        return False
    return 0 < size <= LONGEST_ID and session not in (".", "..") and not {"/", "\0"} & set(session)


def exports_dir(settings: Settings) -> Path:
    """Where exports are written."""
    return settings.state_dir / "exports"


def utc(nanoseconds: int) -> str | None:
    """A file's time as ISO 8601 in UTC; None where that has no year for it."""
    try:
        return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return None
