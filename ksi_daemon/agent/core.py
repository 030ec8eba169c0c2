"""Identities as bytes: the text that `json.dump(…, indent=2)` makes, whole or one identity at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import orjson

from ksi_daemon.errors import Unserialisable

if TYPE_CHECKING:
    from pathlib import Path

    from ksi_daemon.settings import Settings

DEEPEST = 50
"""Levels of nesting that an identity may have; the standard encoder gives up some hundred deeper."""

PIECE = 32 * 1024
"""Bytes of a stored file that are decoded at a time: a third of a millisecond."""

ENCODING_FAILS = (TypeError, ValueError, RecursionError)
"""What the standard encoder raises for values that JSON cannot carry, and for those too deep or too long."""

_DELETE = b"\x7f"
"""The one ASCII character that orjson writes as it is and the standard encoder as an escape."""

_NEXT = b'\n  "'
"""Begins an identity, and nothing else, in what we and the original write: deeper lines are indented more."""


def storage_path(settings: Settings) -> Path:
    """Where identities are kept."""
    return settings.identity_storage_path


class View(Mapping[str, Any]):
    """What is saved with the changes under way laid over it: cheap to make, read once at most.

    In `changes` None stands for an identity that is removed. Neither of the two may change while this is
    read, and the identities themselves never do.
    """

    __slots__ = ("_changes", "_saved")

    def __init__(self, saved: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        self._saved = saved
        self._changes = changes

    def __getitem__(self, agent: str) -> Any:
        if agent not in self._changes:
            return self._saved[agent]  # which may be null: the file is the user's too
        if (found := self._changes[agent]) is None:
            raise KeyError(agent)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.copy())

    def __len__(self) -> int:
        return len(self.copy())

    def __repr__(self) -> str:
        return repr(self.copy())

    def copy(self) -> dict[str, Any]:
        """A dict of it, in the order of the file."""
        found = dict(self._saved)
        for agent, identity in self._changes.items():
            apply(found, agent, identity)
        return found


def apply(identities: dict[str, Any], agent: str, identity: Any) -> None:
    """Make one change: an identity keeps its place, a new one goes last, None removes it."""
    if identity is None:
        identities.pop(agent, None)
    else:
        identities[agent] = identity


def whole(identities: Mapping[str, Any]) -> dict[str, Any]:
    """A dict of them that stays as it is, made in one piece: a view that is asked one by one takes long."""
    return identities.copy() if isinstance(identities, View) else dict(identities)


def entry(agent: str, identity: Any) -> bytes:
    """One identity as it stands in the file, from its indent on, without the comma behind it.

    Raises `Unserialisable`.
    """
    try:
        text = _encoded(identity).replace(b"\n", b"\n  ")
        return b"  %b: %b" % (json.dumps(agent).encode(), text)
    except ENCODING_FAILS as error:
        raise unserialisable(error) from error


def unserialisable(error: Exception) -> Unserialisable:
    """What to raise for one of `ENCODING_FAILS`."""
    return Unserialisable(f"identities cannot be written as JSON: {error}")


def _encoded(value: Any) -> bytes:
    """What `json.dumps(value, indent=2)` gives, ten times as fast where orjson gives the same."""
    with suppress(
        orjson.JSONEncodeError, RecursionError
    ):  # a lone surrogate, a key that is no text, too deep
        if _is_plain(value):
            text = orjson.dumps(value, option=orjson.OPT_INDENT_2)
            if text.isascii() and _DELETE not in text:
                return text
    return json.dumps(value, indent=2).encode()


def _is_plain(value: Any) -> bool:
    """Whether there are only kinds of values that both encoders write alike: no float, no long integer."""
    kind = type(value)
    if kind is dict:
        return all(map(_is_plain, value.values()))
    if kind is list:
        return all(map(_is_plain, value))
    return kind is str or kind is bool or value is None or (kind is int and -(2**63) <= value < 2**63)


def decode(data: bytes) -> dict[str, Any]:
    """The identities of a stored file. Raises `ValueError` when it is not one JSON object in UTF-8."""
    found = json.loads(data.decode("utf-8"))
    if type(found) is not dict:
        raise ValueError("it is not an object")
    return found


def decode_in_pieces(data: bytes) -> Iterator[dict[str, Any]]:
    """The same some hundred identities at a time, in order, so that others can run between two pieces.

    Only for a file laid out as we write it; another one raises `ValueError` somewhere, and can only be read
    whole. A piece that is no complete list of members never passes for one.
    """
    if not (data.startswith(b"{\n") and data.endswith(b"\n}")):
        raise ValueError("it is laid out in another way")
    start, end = 1, len(data) - 2
    while start < end:
        stop = data.find(_NEXT, start + PIECE, end)
        stop = end if stop < 0 else stop
        members = data[start:stop]
        last = stop == end
        if members.endswith(b",") == last:
            raise ValueError("a comma is missing or too many")
        piece = decode(b"{" + (members if last else members[:-1]) + b"}")
        if not piece:
            raise ValueError("a member is missing")
        yield piece
        start = stop
