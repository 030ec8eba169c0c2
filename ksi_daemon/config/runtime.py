"""Runtime settings: three that a client may set for as long as the daemon runs, in memory only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ksi_daemon.config.errors import Unusable
from ksi_daemon.router import Client, Data, Event, Param, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ksi_daemon.settings import Settings

TIMEOUT: Final = 300
"""Seconds of `completion_timeout_default` when nobody has set it."""


class Known(NamedTuple):
    """One setting: its words or the range of its numbers, and what it is for."""

    description: str
    words: tuple[str, ...] = ()
    range: tuple[int, int] = (0, 0)

    def takes(self, value: object) -> bool:
        """Whether the setting can have that value."""
        if self.words:
            return value in self.words
        return type(value) is int and self.range[0] <= value <= self.range[1]

    def shown(self) -> dict[str, Any]:
        """Its type and what it takes."""
        if self.words:
            return {"type": "string", "values": list(self.words)}
        return {"type": "integer", "range": list(self.range)}


KNOWN: Final[dict[str, Known]] = {
    "error_verbosity": Known("how much details an error reply carries", ("minimal", "medium", "verbose")),
    "log_level": Known(
        "the least urgent messages of the log", ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    ),
    "completion_timeout_default": Known("seconds that a completion may take", range=(60, 1800)),
}

_KEY = Param("key", "str", "the setting; without, all of them")


class RuntimeConfig:
    """What clients have set; nothing of it outlives the daemon."""

    def __init__(self, settings: Settings) -> None:
        self._defaults: dict[str, Any] = {
            "error_verbosity": settings.error_verbosity,
            "log_level": settings.log_level,
            "completion_timeout_default": TIMEOUT,
        }
        self._set: dict[str, Any] = {}

    def events(self) -> Sequence[Event]:
        """The `runtime:config:*` events."""
        named = Param("key", "str", "the setting", required=True)
        value = Param("value", "Any", "its new value", required=True)
        return (
            Event("runtime:config:set", self.set, "Set a runtime setting", (named, value)),
            Event("runtime:config:get", self.get, "Show runtime settings", (_KEY,)),
            Event("runtime:config:query", self.query, "Show what runtime settings take", (_KEY,)),
            Event("runtime:config:reset", self.reset, "Reset runtime settings", (_KEY,)),
        )

    def memory(self) -> dict[str, Any]:
        """What was set."""
        return dict(self._set)

    async def set(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Set one. Raises `Unusable`."""
        key, value = text(data, "key"), data.get("value")
        known = KNOWN.get(key)
        if known is None or not known.takes(value):
            raise Unusable(f"Failed to set runtime config: {key}={value}")
        self._set[key] = value
        return {"status": "updated", "key": key, "value": value}

    async def get(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """One with its source, or all that were set."""
        if not data.get("key"):
            return {"runtime_config": dict(self._set)}
        key = self._known(data)
        return {"key": key, "value": self._value(key), "source": self._source(key)}

    async def query(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """One with what it takes, or all of them."""
        if not data.get("key"):
            return {"runtime_config": {key: self._described(key) for key in KNOWN}}
        key = self._known(data)
        return {"key": key, "value": self._value(key), **self._described(key)}

    async def reset(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Forget one, or all."""
        if not data.get("key"):
            self._set.clear()
            return {"status": "reset", "message": "All runtime settings have their defaults"}
        key = self._known(data)
        self._set.pop(key, None)
        return {"status": "reset", "message": f"{key} has its default"}

    def _known(self, data: Data) -> str:
        key = text(data, "key")
        if key not in KNOWN:
            raise Unusable(f"Unknown runtime setting: {key}; known are {', '.join(KNOWN)}")
        return key

    def _value(self, key: str) -> Any:
        return self._set.get(key, self._defaults[key])

    def _source(self, key: str) -> str:
        return "runtime" if key in self._set else "default"

    def _described(self, key: str) -> dict[str, Any]:
        return {
            **KNOWN[key].shown(),
            "default": self._defaults[key],
            "description": KNOWN[key].description,
            "current": self._value(key),
            "source": self._source(key),
        }
