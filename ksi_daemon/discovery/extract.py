"""Examples of emitted events in the text of a Python file (the KSI contract, 3.6). Pure, and heavy."""

from __future__ import annotations

import ast
import math
import warnings
from typing import TYPE_CHECKING, Any, Final

from ksi_daemon import wire
from ksi_daemon.discovery.core import Example, chosen

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

EMITTERS: Final = frozenset({"emit", "emit_event"})

LARGEST: Final = 8192
"""Bytes that an example's data may have."""

_DEEPEST: Final = 20
_LEFT_OUT: Final = object()


def examples(path: str, source: bytes, events: Collection[str]) -> dict[str, list[Example]]:
    """Of each event the first two different ones by line. There are none in what cannot be parsed."""
    found: dict[str, list[Example]] = {}
    for call in _calls(source, events):
        data = wire.encode(_value(call.args[1], 0)).rstrip()
        if len(data) <= LARGEST:
            event: Any = call.args[0]
            rows = found.setdefault(event.value, [])
            rows.append(Example(path, call.lineno, call.col_offset, data))
    return {event: list(chosen(rows)) for event, rows in found.items()}


def _calls(source: bytes, events: Collection[str]) -> Iterator[ast.Call]:
    """The calls that name one of `events` and give it a literal object."""
    for node in ast.walk(_parsed(source)):
        if type(node) is ast.Call and len(node.args) > 1 and type(node.args[1]) is ast.Dict:
            first = node.args[0]
            event = first.value if type(first) is ast.Constant else None
            if _name(node.func) in EMITTERS and type(event) is str and event in events:
                yield node


def _parsed(source: bytes) -> ast.AST:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the file's own making
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _value(node: ast.expr, depth: int) -> Any:
    """Constants as they are; what is none that JSON has is left out of objects, and null in lists."""
    if depth > _DEEPEST:
        return _LEFT_OUT
    if isinstance(node, ast.Constant):
        return node.value if _is_json(node.value) else _LEFT_OUT
    if isinstance(node, ast.List):
        items = (_value(item, depth + 1) for item in node.elts)
        return [None if item is _LEFT_OUT else item for item in items]
    if isinstance(node, ast.Dict):
        pairs = (
            (key.value, _value(value, depth + 1))
            for key, value in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant) and type(key.value) is str and _is_json(key.value)
        )
        return {key: value for key, value in pairs if value is not _LEFT_OUT}
    return _LEFT_OUT


def _is_json(value: Any) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    if type(value) is int:
        return -(2**63) <= value < 2**64
    if type(value) is str:
        return not any("\ud800" <= char <= "\udfff" for char in value)
    return value is None or type(value) is bool
