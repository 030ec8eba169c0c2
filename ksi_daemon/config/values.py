"""Values of a configuration on their way out: how much they unfold to, and what JSON can carry of them.

One rule for what JSON cannot carry: dates and times are ISO 8601 text, bytes Base64, NaN and infinities
`.nan`, `.inf`, `-.inf`, an integer beyond 64 bits its digits, a lone surrogate its escape; a set is the
sorted list of its members, a key that is no text the JSON text of what it stands for.
"""

from __future__ import annotations

import base64
import math
from datetime import date
from typing import Any, Final

import orjson

from ksi_daemon.config.errors import TooLarge

DEEPEST: Final = 100
"""Levels of nesting, the outermost object among them."""

MOST_NODES: Final = 1_000_000
"""Values that a document may unfold to when each alias counts as what it stands for."""

_PASS = orjson.OPT_PASSTHROUGH_DATETIME


def too_deep() -> TooLarge:
    """The error for more than `DEEPEST` levels."""
    return TooLarge(f"configuration is nested more than {DEEPEST} levels deep")


def too_many() -> TooLarge:
    """The error for more than `MOST_NODES` values, found before all of them are in memory."""
    return TooLarge(f"configuration has more than {MOST_NODES} values")


def weigh(document: Any, most_bytes: int) -> bool:
    """Whether JSON can carry all its numbers; nothing is unfolded to find out.

    Raises `TooLarge` when it is nested too deeply or holds itself, or unfolds to too much.
    """
    scale = _Scale()
    nodes, size, _ = scale.weigh(document, 1)
    if nodes > MOST_NODES or size > most_bytes:
        limits = f"at most {MOST_NODES} and {most_bytes}"
        raise TooLarge(f"configuration unfolds to {nodes} values and {size} characters; {limits}")
    return scale.finite


class _Scale:
    """Weighs what many aliases stand for only once."""

    def __init__(self) -> None:
        self.finite = True
        self._known: dict[int, tuple[int, int, int]] = {}

    def weigh(self, value: Any, level: int) -> tuple[int, int, int]:
        """Nodes, characters and height."""
        if isinstance(value, str | bytes):
            return 1, len(value), 0
        if isinstance(value, dict):
            members: Any = (*value, *value.values())
        elif isinstance(value, list | tuple | set):
            members = value
        else:
            if type(value) is float and not math.isfinite(value):
                self.finite = False
            return 1, 0, 0
        return self._container(value, members, level)

    def _container(self, value: Any, members: Any, level: int) -> tuple[int, int, int]:
        found = self._known.get(id(value))
        if found is None:
            if level > DEEPEST:
                raise too_deep()
            nodes, size, height = 1, 0, 1
            for member in members:
                if type(member) is str:  # most are
                    nodes += 1
                    size += len(member)
                    continue
                more, longer, higher = self.weigh(member, level + 1)
                nodes, size, height = nodes + more, size + longer, max(height, higher + 1)
            found = self._known[id(value)] = (nodes, size, height)
        if level + found[2] - 1 > DEEPEST:
            raise too_deep()
        return found


def as_json(value: Any, *, finite: bool) -> bytes:
    """The value as JSON; `finite`: as `weigh` said of it or of what holds it."""
    if finite:
        try:
            return orjson.dumps(value, None, _PASS)
        except orjson.JSONEncodeError:  # something that is none of JSON's
            pass
    return orjson.dumps(plain(value))


def plain(value: Any) -> Any:
    """The value in what JSON has, by the rule above."""
    if isinstance(value, dict):
        return {_key(key): plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    if isinstance(value, set):
        return sorted((plain(member) for member in value), key=orjson.dumps)
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else _digits(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else _endless(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value).encode(errors="backslashreplace").decode()


def _digits(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # more digits than Python writes in decimal
        return hex(value)


def _endless(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    return ".inf" if value > 0 else "-.inf"


def _key(key: Any) -> str:
    found = plain(key)
    return found if isinstance(found, str) else orjson.dumps(found).decode()
