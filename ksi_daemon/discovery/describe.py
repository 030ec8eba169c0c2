"""Events described, in each style of the KSI contract, 3.6. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ksi_daemon import wire

if TYPE_CHECKING:
    from ksi_daemon.router import Event, Param

Shown = dict[str, Any]
Style = Callable[["Event", bool], Shown]

_LIMITS: Final = ("min_value", "max_value", "max_length")
_PACKAGE: Final = "ksi_daemon."
_SHORT: Final = 100

LEGEND: Final = {
    "m": "module, without ksi_daemon.",
    "h": "handler, without handle_",
    "s": "summary, at most 100 characters",
    "p": "parameters in order: 1 required or 0, or [1 or 0, default]",
    "t": "events that it triggers",
}
"""What the letters of `ultra_compact` mean."""

_JSON_TYPES: Final = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "dict": "object",
    "list": "array",
    "Any": "object",
}


def verbose(event: Event, detail: bool) -> Shown:
    """Everything in words; parameters and triggers with `detail`."""
    shown = {"module": event.module, "handler": event.function, "async": True, "summary": _summary(event)}
    if detail:
        shown["parameters"] = {param.name: _parameter(param) for param in event.params}
        shown["triggers"] = list(event.triggers)
    return shown


def compact(event: Event, detail: bool) -> Shown:
    """The same with short keys; parameters are rows."""
    shown = {"m": _short_module(event), "h": event.function, "s": _summary(event)}
    return {**shown, **_more(event, _row)} if detail else shown


def ultra_compact(event: Event, detail: bool) -> Shown:
    """As short as can be; `LEGEND` explains it."""
    shown = {
        "m": _short_module(event),
        "h": event.function.removeprefix("handle_"),
        "s": _summary(event)[:_SHORT],
    }
    return {**shown, **_more(event, _mark)} if detail else shown


def mcp(event: Event, _detail: bool) -> Shown:
    """As a tool of the Model Context Protocol."""
    return {
        "name": event.name,
        "description": _summary(event),
        "inputSchema": {
            "type": "object",
            "properties": {param.name: _property(param) for param in event.params},
            "required": [param.name for param in event.params if param.required],
        },
    }


STYLES: Final[dict[str, Style]] = {
    "verbose": verbose,
    "compact": compact,
    "ultra_compact": ultra_compact,
    "mcp": mcp,
}
HELP_STYLES: Final = ("verbose", "compact", "mcp")


def usage(event: Event, socket: str) -> Shown:
    """A command that sends the event, with its required parameters."""
    data = {param.name: f"<{param.type}>" for param in event.params if param.required}
    request = wire.encode({"event": event.name, "data": data}).decode().rstrip()
    return {"command": f"echo {shlex.quote(request)} | nc -U {shlex.quote(socket)}"}


def _summary(event: Event) -> str:
    return event.summary.partition("\n")[0] or f"Handle {event.function}"


def _short_module(event: Event) -> str:
    return event.module.removeprefix(_PACKAGE)


def _more(event: Event, shape: Callable[[Param], Any]) -> Shown:
    more: Shown = {"p": [shape(param) for param in event.params]}
    return {**more, "t": list(event.triggers)} if event.triggers else more


def _parameter(param: Param) -> Shown:
    shown: Shown = {"type": param.type, "required": param.required, "description": param.description}
    if not param.required and param.default is not None:
        shown["default"] = param.default
    return {**shown, **_limits(param)}


def _limits(param: Param) -> Shown:
    limits: Shown = {name: getattr(param, name) for name in _LIMITS if getattr(param, name) is not None}
    if param.allowed_values is not None:
        limits["allowed_values"] = list(param.allowed_values)
    return limits


def _row(param: Param) -> list[Any]:
    return [param.name, param.type, param.required, param.default, param.description]


def _mark(param: Param) -> int | list[Any]:
    mark = int(param.required)
    return mark if param.default is None else [mark, param.default]


def _property(param: Param) -> Shown:
    shown: Shown = {"type": _JSON_TYPES.get(param.type, "string"), "description": param.description}
    if param.default is not None:
        shown["default"] = param.default
    if param.allowed_values is not None:
        shown["enum"] = list(param.allowed_values)
    return shown
