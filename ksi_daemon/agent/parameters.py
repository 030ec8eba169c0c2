"""Parameters of the room's events, checked: a null counts as absent, and no name is endless."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ksi_daemon.agent.core import DEEPEST
from ksi_daemon.errors import InvalidParameter, KsiError, MissingParameter
from ksi_daemon.router import obj, text

if TYPE_CHECKING:
    from ksi_daemon.router import Data

AUTHOR = "_agent_id"
"""Names the agent in whose answer an event stood; the completion queue sets it."""

LONGEST_ID = 1_000
"""Characters that an agent's id may have."""


class TooLong(KsiError):
    """An id that nobody can have meant."""

    code = "invalid_parameter"

    def __init__(self, name: str, length: int) -> None:
        super().__init__(f"{name} must have at most {LONGEST_ID} characters, not {length}")


def agent_id(data: Data, name: str = "agent_id") -> str:
    """A required id. Raises `MissingParameter`, `InvalidParameter`, `TooLong`."""
    return short(text(data, name), name)


def optional_id(data: Data, name: str = "agent_id") -> str | None:
    """An optional id; null and empty are absent. Raises `InvalidParameter`, `TooLong`."""
    found = optional(data, name)
    return found if found is None else short(found, name)


def short(value: str, name: str) -> str:
    """The value. Raises `TooLong`."""
    if len(value) > LONGEST_ID:
        raise TooLong(name, len(value))
    return value


def optional(data: Data, name: str) -> str | None:
    """An optional string; null and empty are absent. Raises `InvalidParameter`."""
    return text(data, name) if data.get(name) is not None and data[name] != "" else None


def part(data: Data, name: str) -> Data:
    """An optional object; null is absent. Raises `InvalidParameter`."""
    return obj(data, name) if data.get(name) is not None else {}


def required_part(data: Data, name: str) -> Data:
    """An object that is not empty. Raises `MissingParameter`, `InvalidParameter`."""
    found = part(data, name)
    if not found:
        raise MissingParameter(name)
    return found


def objects(data: Data, name: str) -> dict[str, Data]:
    """An optional object whose values are objects and whose keys are ids. Raises as the others."""
    found = part(data, name)
    for key, value in found.items():
        short(key, "agent_id")
        if type(value) is not dict:
            raise InvalidParameter(f"{name}.{key[:80]}", "an object", value)
    return found


def identity(data: Data, name: str) -> Data:
    """An optional object that can be stored. Raises `InvalidParameter`."""
    return storable(part(data, name), name)


def storable(value: Data, name: str) -> Data:
    """The value, if it is nested no deeper than a file of identities may be. Raises `InvalidParameter`."""
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise InvalidParameter(name, f"nested at most {DEEPEST} levels deep", value)


def _inside(outer: Any) -> list[Any]:
    """The objects and arrays in one of them."""
    values = outer.values() if type(outer) is dict else outer
    return [value for value in values if type(value) in (dict, list)]


def flag(data: Data, name: str) -> bool:
    """An optional boolean, False when absent. Raises `InvalidParameter`."""
    value = data.get(name)
    if value is not None and type(value) is not bool:
        raise InvalidParameter(name, "true or false", value)
    return bool(value)


def seconds(data: Data, name: str, default: float) -> float:
    """An optional number above 0. Raises `InvalidParameter`."""
    value: Any = data.get(name)
    if value is None:
        return default
    if type(value) not in (int, float) or not value > 0:
        raise InvalidParameter(name, "a number of seconds above 0", value)
    return float(value)


def whole(data: Data, name: str) -> int | None:
    """An optional whole number from 1 on. Raises `InvalidParameter`."""
    value = data.get(name)
    if value is not None and (type(value) is not int or value < 1):
        raise InvalidParameter(name, "a whole number from 1 on", value)
    return value
