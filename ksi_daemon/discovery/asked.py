"""The parameters of a search, checked and brought within the limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ksi_daemon.discovery.core import Query
from ksi_daemon.errors import InvalidParameter, KsiError
from ksi_daemon.router import Param, text

if TYPE_CHECKING:
    from ksi_daemon.router import Data
    from ksi_daemon.settings import Settings

LONGEST_PATTERN: Final = 4096
LONGEST_GLOB: Final = 256
LONGEST_ID: Final = 200
MOST_CONTEXT: Final = 20
USUAL_MATCHES: Final = 100


class Unsearchable(KsiError):
    """A pattern or glob that no program can be given, or that is longer than anybody can have meant."""

    code = "invalid_parameter"

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} {why}")


def params(settings: Settings) -> tuple[Param, ...]:
    """As they are declared; the limits are those of this daemon."""
    most, largest = settings.discovery_max_matches, settings.discovery_max_bytes
    return (
        Param("pattern", "str", "a regular expression", required=True, max_length=LONGEST_PATTERN),
        Param("fixed", "bool", "the pattern is text, not an expression", default=False),
        Param("ignore_case", "bool", "upper and lower case are the same", default=False),
        Param("glob", "str", "only files whose path matches, such as *.py", max_length=LONGEST_GLOB),
        Param("context", "int", "lines around each match", default=0, min_value=0, max_value=MOST_CONTEXT),
        Param(
            "max_count",
            "int",
            "matches at most",
            default=min(USUAL_MATCHES, most),
            min_value=1,
            max_value=most,
        ),
        Param(
            "max_bytes", "int", "bytes of all lines at most", default=largest, min_value=1, max_value=largest
        ),
        Param("stream", "bool", "each match in a frame of its own, before the reply", default=False),
        Param(
            "search_id",
            "str",
            "what the frames are known by; a new one if there is none",
            max_length=LONGEST_ID,
        ),
    )


def query(data: Data, settings: Settings) -> Query:
    """The search that is asked for. Raises `MissingParameter`, `InvalidParameter`, `Unsearchable`."""
    most, largest = settings.discovery_max_matches, settings.discovery_max_bytes
    return Query(
        pattern=_argument("pattern", text(data, "pattern"), LONGEST_PATTERN),
        most_matches=_whole(data, "max_count", min(USUAL_MATCHES, most), (1, most)),
        most_bytes=_whole(data, "max_bytes", largest, (1, largest)),
        fixed=flag(data, "fixed"),
        ignore_case=flag(data, "ignore_case"),
        glob=_argument("glob", optional(data, "glob"), LONGEST_GLOB),
        context=_whole(data, "context", 0, (0, MOST_CONTEXT)),
    )


def search_id(data: Data) -> str:
    """The name that the client gives its search; empty if it gives none. Raises `InvalidParameter`."""
    found = optional(data, "search_id")
    if len(found) > LONGEST_ID:
        raise Unsearchable("search_id", f"must have at most {LONGEST_ID} characters, not {len(found)}")
    return found


def flag(data: Data, name: str) -> bool:
    """An optional boolean; absent or null is False. Raises `InvalidParameter`."""
    value = data.get(name)
    if value is not None and type(value) is not bool:
        raise InvalidParameter(name, "true or false", value)
    return bool(value)


def optional(data: Data, name: str) -> str:
    """An optional string; absent or null is empty. Raises `InvalidParameter`."""
    return text(data, name) if data.get(name) not in (None, "") else ""


def _argument(name: str, value: str, longest: int) -> str:
    """A text as an argument of a program."""
    if len(value) > longest:
        raise Unsearchable(name, f"must have at most {longest} characters, not {len(value)}")
    if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in value):
        raise Unsearchable(name, "must not hold NUL or a lone surrogate")
    return value


def _whole(data: Data, name: str, default: int, limits: tuple[int, int]) -> int:
    """A whole number within the limits; absent or null is the default."""
    value: Any = data.get(name)
    if value is None:
        return default
    least, most = limits
    if type(value) is not int or not least <= value <= most:
        raise InvalidParameter(name, f"a whole number from {least} to {most}", value)
    return value
