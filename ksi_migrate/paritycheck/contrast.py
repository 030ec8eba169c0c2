"""What was seen on each side, and in which words two sights differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

Seen = tuple[str, object]
"""What was looked at, in words, and what was there; a value of plain JSON kinds and bytes."""

MOST = 3
"""Mismatches told per case: after the first, the later ones mostly follow from it."""

WIDTH = 160
LEAD = 40


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One difference: in which case, where in it, and what each side showed there."""

    case: str
    what: str
    sync: str
    candidate: str

    def document(self) -> dict[str, str]:
        """The four values as `--json` gives them; the candidate's key is `async`."""
        return {"case": self.case, "what": self.what, "sync": self.sync, "async": self.candidate}


class _Nothing:
    def __repr__(self) -> str:
        return "(nothing)"


NOTHING = _Nothing()


def compare(case: str, control: Sequence[Seen], candidate: Sequence[Seen]) -> tuple[Mismatch, ...]:
    """The first few differences of two sequences of sights, position by position."""
    found: list[Mismatch] = []
    for left, right in zip_longest(control, candidate, fillvalue=("the end", NOTHING)):
        if left != right:
            found.append(differ(case, left[0] if left[1] is not NOTHING else right[0], left[1], right[1]))
        if len(found) == MOST:
            break
    return tuple(found)


def differ(case: str, what: str, control: object, candidate: object) -> Mismatch:
    """A mismatch between two values that are not equal, narrowed down to where they part."""
    path, left, right = narrow(control, candidate)
    return Mismatch(case, " ".join((what, *path)), *windows(left, right))


def narrow(left: object, right: object) -> tuple[list[str], object, object]:
    """Follow two values that differ down to the first part in which they do; the path to it comes first."""
    path: list[str] = []
    while keys := _keys(left, right):
        key = next(key for key in keys if _part(left, key) != _part(right, key))
        path.append(str(key))
        left, right = _part(left, key), _part(right, key)
    return path, left, right


def windows(left: object, right: object) -> tuple[str, str]:
    """Both values as text, cut to the surroundings of the first difference."""
    texts = _text(left), _text(right)
    same = 0
    for one, other in zip(*texts, strict=False):
        if one != other:
            break
        same += 1
    start = max(0, same - LEAD)
    return _window(texts[0], start), _window(texts[1], start)


def _window(text: str, start: int) -> str:
    head = "…" if start else ""
    tail = "…" if len(text) > start + WIDTH else ""
    return f"{head}{text[start : start + WIDTH]}{tail}"


def _text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str) else repr(value)


def _keys(left: object, right: object) -> list[object]:
    """All keys or positions of two objects or two lists; none for values that have no parts in common."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return list(dict.fromkeys((*left, *right)))
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return list(range(max(len(left), len(right))))
    return []


def _part(value: object, key: Any) -> object:
    if isinstance(value, Mapping):
        return value.get(key, NOTHING)
    return value[key] if isinstance(value, list | tuple) and key < len(value) else NOTHING
