"""Events to handlers: who answers which event, and what comes of their results."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from ksi_daemon import elsewhere
from ksi_daemon.errors import InvalidParameter, KsiError, MissingParameter, reply_fields

log = structlog.get_logger("ksi.router")


LONGEST_TYPO = 200
"""Characters of an unknown name up to which similar ones are looked for: that takes 0.2 s for a MiB."""


class Client(Protocol):
    """A connection, as handlers see it."""

    def send(self, frame: bytes) -> bool:
        """Queue one whole line for the client; False when it is gone, or reads too slowly and was dropped."""

    async def writable(self) -> None:
        """Wait until the client has read most of what it was sent, or is gone."""

    def on_close(self, call: Callable[[], None]) -> None:
        """Have `call` called once, when the connection is gone."""


Data = dict[str, Any]
Handler = Callable[[Data, Client | None], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter of an event, as `system:help` shows it. A limit that is None is none."""

    name: str
    type: str
    description: str
    required: bool = False
    default: Any = None
    allowed_values: tuple[str, ...] | None = None
    min_value: float | None = None
    max_value: float | None = None
    max_length: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One event that a handler answers. `name` may hold `*` for one whole part, or be `*`."""

    name: str
    handler: Handler
    summary: str
    params: tuple[Param, ...] = ()
    triggers: tuple[str, ...] = ()
    """The events and frames that the handler, or what it sets going, sends out by name."""

    @property
    def module(self) -> str:
        """The handler's module, as `module:list` names it."""
        return self.handler.__module__

    @property
    def function(self) -> str:
        """The handler's name."""
        return getattr(self.handler, "__name__", type(self.handler).__name__)


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern stands for an event: `*` for everything, else part for part between the colons."""
    if pattern == "*":
        return True
    wanted, parts = pattern.split(":"), name.split(":")
    return len(wanted) == len(parts) and all(w in ("*", p) for w, p in zip(wanted, parts, strict=True))


class Router:
    """The events of all services. Handlers of one event run together; their results come in one list."""

    def __init__(self, verbosity: str = "medium") -> None:
        self._verbosity = verbosity
        self._direct: dict[str, tuple[Event, ...]] = {}
        self._patterns: list[Event] = []

    def add(self, events: Iterable[Event]) -> None:
        """Register events, in order."""
        for event in events:
            if "*" in event.name:
                self._patterns.append(event)
            else:
                self._direct[event.name] = (*self._direct.get(event.name, ()), event)

    def events(self) -> list[Event]:
        """Every registered event, direct ones first, in registration order."""
        return [event for found in self._direct.values() for event in found] + self._patterns

    def patterns(self) -> list[Event]:
        """The events registered with a wildcard."""
        return list(self._patterns)

    def answers(self, name: str) -> bool:
        """Whether any handler is registered for the event."""
        return name in self._direct or any(matches(event.name, name) for event in self._patterns)

    async def emit(self, name: str, data: Data, client: Client | None = None) -> list[Any]:
        """Run all handlers of an event and return their results without the Nones.

        An error is a result too: `{"error": TEXT, "code": CODE, …}`. When one handler of several fails its
        error is logged and left out; when all fail the first error is the result.
        """
        found = self._direct.get(name, ())
        if self._patterns:
            found = (*found, *(event for event in self._patterns if matches(event.name, name)))
        if len(found) == 1:
            event = found[0]
            try:
                result = await event.handler(data, client)
            except Exception as error:  # noqa: BLE001 - becomes the reply: a fault must not cost the client it
                result = self._failure(event, error)
            return [] if result is None else [result]
        if not found:
            return [self._unknown(name)]
        calls = (event.handler(data, client) for event in found)
        results = await asyncio.gather(*calls, return_exceptions=True)
        failed = [
            self._failure(event, error)
            for event, error in zip(found, results, strict=True)
            if isinstance(error, Exception)
        ]
        if len(failed) == len(found):
            return failed[:1]
        return [result for result in results if result is not None and not isinstance(result, Exception)]

    def _failure(self, event: Event, error: Exception) -> dict[str, Any]:
        if isinstance(error, KsiError):
            return reply_fields(error)
        log.error("handler failed", event_name=event.name, handler=event.function, exc_info=error)
        details = {} if self._verbosity != "verbose" else {"details": {"help": f"Use: help {event.name}"}}
        text = f"{type(error).__name__}: {error}"
        return {"status": "error", "error": text, "code": "handler_failed", **details}

    def _unknown(self, name: str) -> dict[str, Any]:
        details: dict[str, Any] = {}
        if len(name) <= LONGEST_TYPO and (similar := difflib.get_close_matches(name, self._direct)):
            details["similar"] = similar
        if self._verbosity != "minimal":
            details["namespaces"] = self.namespaces()
        if (hint := elsewhere.hint(name)) is not None:
            details["help"] = hint
        shape = {"status": "error", "error": f"Unknown event: {name}", "code": "unknown_event"}
        return {**shape, **({"details": details} if details else {})}

    def namespaces(self) -> list[str]:
        """The first parts of all names with a colon, sorted."""
        return sorted({name.partition(":")[0] for name in self._direct if ":" in name})


def text(data: Data, name: str) -> str:
    """A required string parameter. Raises `MissingParameter`, `InvalidParameter`."""
    value = data.get(name)
    if value is None or value == "":
        raise MissingParameter(name)
    if type(value) is not str:
        raise InvalidParameter(name, "a string", value)
    return value


def texts(data: Data, name: str) -> list[str]:
    """An optional list of strings; absent is empty. Raises `InvalidParameter`."""
    value = data.get(name) or []
    if type(value) is not list or not all(type(item) is str for item in value):
        raise InvalidParameter(name, "a list of strings", value)
    return value


def obj(data: Data, name: str) -> Data:
    """An optional object; absent is empty. Raises `InvalidParameter`."""
    value = data.get(name, {})
    if type(value) is not dict:
        raise InvalidParameter(name, "an object", value)
    return value
