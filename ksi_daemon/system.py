"""The daemon's own events: health, emit, startup and shutdown."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from ksi_daemon import __version__
from ksi_daemon.errors import InvalidParameter, KsiError, ShuttingDown
from ksi_daemon.router import Client, Data, Event, Param, Router, obj, text

if TYPE_CHECKING:
    from collections.abc import Callable

_EMIT = (
    Param("event", "str", "the event to emit", required=True),
    Param("data", "dict[str, Any]", "its data", default={}),
    Param("delay", "float", "seconds to wait first", default=0, min_value=0),
    Param("condition", "str", "`false` skips the event"),
)


class MissingText(KsiError):
    """A required parameter is absent; the original words this differently for each event."""

    code = "missing_parameter"


class System:
    """What every daemon answers, whatever its rooms; replies as in the KSI contract, 2.6."""

    def __init__(self, router: Router, stop: Callable[[], None], tasks: Callable[[], int]) -> None:
        self._router = router
        self._stop = stop
        self._tasks = tasks
        self._began = time.monotonic()

    def events(self) -> tuple[Event, ...]:
        """Those that need no room: health, the lifecycle, and emitting another event."""
        service = Param("service_name", "str", "who has finished", required=True)
        return (
            Event("system:health", self.health, "Show that the daemon is well, and what it runs"),
            Event("system:startup", self.startup, "Tell that the daemon has started"),
            Event("system:ready", self.ready, "Tell that the daemon is ready"),
            Event(
                "system:shutdown",
                self.shutdown,
                "Stop the daemon when accepted requests are answered",
                triggers=("system:shutdown_notification", "system:shutdown_complete"),
            ),
            Event("shutdown:acknowledge", self.acknowledge, "Acknowledge a shutdown", (service,)),
            Event("event:emit", self.emit, "Emit an event, now or later", _EMIT),
        )

    async def health(self, _data: Data, _client: Client | None) -> dict[str, Any]:
        """Healthy, by answering; stays under the 4,096 bytes that old clients read."""
        modules = self._modules()
        return {
            "status": "healthy",
            "uptime": time.monotonic() - self._began,
            "version": __version__,
            "modules_loaded": len(modules),
            "services_registered": len(modules),
            "events_registered": len({event.name for event in self._router.events()}),
            "background_tasks": self._tasks(),
            "modules": list(modules),
        }

    async def startup(self, _data: Data, _client: Client | None) -> dict[str, Any]:
        """Answers only; nothing is initialised twice."""
        return {"module.system": {"loaded": True}}

    async def ready(self, _data: Data, _client: Client | None) -> dict[str, Any]:
        """Answers only."""
        return {"status": "ready"}

    async def shutdown(self, _data: Data, _client: Client | None) -> dict[str, Any]:
        """Begin the stop; harmless when it has begun."""
        self._stop()
        return {"status": "shutdown_initiated"}

    async def acknowledge(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Answers only: rooms are awaited, not asked."""
        if not data.get("service_name"):
            raise MissingText("Missing service_name")
        return {"acknowledged": data["service_name"]}

    async def emit(self, data: Data, client: Client | None) -> Any:
        """Emit another event on the same client's behalf, after `delay` seconds."""
        if not data.get("event"):
            raise MissingText("Target event name required")
        name, inner, delay = text(data, "event"), obj(data, "data"), data.get("delay") or 0
        if not isinstance(delay, int | float) or isinstance(delay, bool) or delay < 0:
            raise InvalidParameter("delay", "a number of seconds", delay)
        try:
            await asyncio.sleep(delay)
        except asyncio.CancelledError:  # by the stop: nothing was begun, so this is an answer like another
            raise ShuttingDown from None
        condition = data.get("condition")
        if isinstance(condition, str) and condition.strip().lower() == "false":
            return {"status": "skipped", "reason": "condition is false"}
        results = await self._router.emit(name, inner, client)
        if len(results) == 1:
            return results[0]
        if not results:
            return {"status": "success", "results": [], "message": "no handler answered"}
        return {"status": "success", "results": results, "count": len(results)}

    def _modules(self) -> dict[str, list[Event]]:
        modules: dict[str, list[Event]] = {}
        for event in self._router.events():
            modules.setdefault(event.module, []).append(event)
        return modules
