"""The parameters of the room's events, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ksi_daemon.conversation.core import Wanted
from ksi_daemon.conversation.exporting import ENDINGS
from ksi_daemon.conversation.failures import Unusable
from ksi_daemon.errors import InvalidParameter, KsiError
from ksi_daemon.router import Param

if TYPE_CHECKING:
    from ksi_daemon.router import Data

LONGEST_QUERY = 10_000
"""Characters of a search."""

LIMIT = Param("limit", "int", "so many at most", default=100)
OFFSET = Param("offset", "int", "so many are passed over", default=0)
SESSION = Param("session_id", "str", "the conversation, by its session", required=True)

LIST = (
    LIMIT,
    OFFSET,
    Param("sort_by", "str", "last_timestamp, first_timestamp or message_count", default="last_timestamp"),
    Param("reverse", "bool", "the last one first", default=True),
    Param("start_date", "str", "only those with a last stamp from then on, ISO 8601"),
    Param("end_date", "str", "only those with a last stamp until then, ISO 8601"),
)
SEARCH = (
    Param("query", "str", "what to look for, in upper or lower case", required=True),
    Param("limit", "int", "so many conversations at most", default=50),
    Param("search_in", "list[str]", "content, sender, or both", default=["content"]),
)
GET = (
    SESSION,
    Param("limit", "int", "so many at most", default=1000),
    OFFSET,
    Param("conversation_id", "str", "of the bus's log, message_bus: only this conversation"),
)
EXPORT = (SESSION, Param("format", "str", "markdown or json", default="markdown"))
ACTIVE = (
    Param("max_lines", "int", "so many lines from the end of the bus's log", default=100),
    Param("max_age_hours", "int", "only what is not older", default=2160),
)
REFRESH = (Param("stream", "bool", "send conversation:progress frames meanwhile", default=False),)


class UnsupportedFormat(KsiError):
    """A format that there is not; the text is the original daemon's."""

    code = "invalid_parameter"

    def __init__(self, wanted: str) -> None:
        super().__init__(f"Unsupported format: {wanted}. Supported formats: {', '.join(ENDINGS)}")


def number(data: Data, name: str, default: int) -> int:
    """An optional whole number from 0 on. Raises `InvalidParameter`, `Unusable`."""
    value = data.get(name, default)
    if type(value) is not int:
        raise InvalidParameter(name, "a whole number", value)
    if value < 0:
        raise Unusable(f"{name} must not be negative")
    return value


def maybe(data: Data, name: str) -> str | None:
    """An optional text; absent and null are the same. Raises `InvalidParameter`."""
    value = data.get(name)
    if value is not None and type(value) is not str:
        raise InvalidParameter(name, "a string", value)
    return value


def hours(data: Data) -> float:
    """`max_age_hours`. Raises `InvalidParameter`."""
    value: Any = data.get("max_age_hours", 2160)
    if type(value) not in (int, float):
        raise InvalidParameter("max_age_hours", "a number", value)
    return float(value)


def wanted(data: Data) -> Wanted:
    """A search. Raises `Unusable`, `InvalidParameter`."""
    query = maybe(data, "query")
    if not query:
        raise NoQuery
    if len(query) > LONGEST_QUERY:
        raise Unusable(f"query must not be longer than {LONGEST_QUERY} characters")
    places = data.get("search_in", ["content"])
    if type(places) is not list or not all(type(place) is str for place in places):
        raise InvalidParameter("search_in", "a list of strings", places)
    return Wanted(query.lower(), "content" in places, "sender" in places, number(data, "limit", 50))


def export_format(data: Data) -> str:
    """The format of an export. Raises `UnsupportedFormat`."""
    value = data.get("format", "markdown")
    if type(value) is not str or value not in ENDINGS:
        raise UnsupportedFormat(str(value))
    return value


class NoQuery(KsiError):
    """A search for nothing; the text is the original daemon's."""

    code = "missing_parameter"

    def __init__(self) -> None:
        super().__init__("Search query required")
