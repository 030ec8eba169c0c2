"""The daemon's own events: health, discovery, help, modules, emit, shutdown."""

from __future__ import annotations

import asyncio
import fnmatch
import time
from typing import TYPE_CHECKING, Any

from ksi_daemon import __version__
from ksi_daemon.errors import InvalidParameter, KsiError, NotFound, ShuttingDown
from ksi_daemon.router import Client, Data, Event, Param, Router, obj, text

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_PATTERN = 200
"""Characters that a pattern of `system:discover` may have: compiling a MiB takes the loop for minutes."""

_PRIORITY = 50
"""The original's normal priority; here handlers of one event simply begin in registration order."""

_FILTERS = (
    Param("detail", "bool", "parameters too", default=False),
    Param("namespace", "str", "only events of this namespace"),
    Param("event", "str", "only events whose name matches this shell-style pattern"),
    Param("module", "str", "only events of this module, by its full name or last part"),
)
_EMIT = (
    Param("event", "str", "the event to emit", required=True),
    Param("data", "dict[str, Any]", "its data", default={}),
    Param("delay", "float", "seconds to wait first", default=0),
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
        """The system, module and event namespaces."""
        name = Param("event", "str", "the event's name", required=True)
        module = Param("module_name", "str", "the module's dotted name", required=True)
        service = Param("service_name", "str", "who has finished", required=True)
        return (
            Event("system:health", self.health, "Show that the daemon is well, and what it runs"),
            Event("system:discover", self.discover, "List events", _FILTERS),
            Event("system:help", self.help, "Describe one event", (name,)),
            Event("system:startup", self.startup, "Tell that the daemon has started"),
            Event("system:ready", self.ready, "Tell that the daemon is ready"),
            Event("system:shutdown", self.shutdown, "Stop the daemon when accepted requests are answered"),
            Event("shutdown:acknowledge", self.acknowledge, "Acknowledge a shutdown", (service,)),
            Event("module:list", self.module_list, "List modules"),
            Event("module:events", self.module_events, "List events by name with their handlers"),
            Event("module:inspect", self.module_inspect, "Describe one module", (module,)),
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

    async def discover(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Events in registration order; the first handler of an event describes it.

        Raises `InvalidParameter` for a pattern over 200 characters.
        """
        if len(str(data.get("event"))) > LONGEST_PATTERN:
            raise InvalidParameter("event", f"at most {LONGEST_PATTERN} characters", data["event"])
        found: dict[str, dict[str, Any]] = {}
        for event in self._router.events():
            if event.name not in found and _wanted(event, data):
                found[event.name] = _describe(event, detail=bool(data.get("detail")))
        namespaces = sorted({name.partition(":")[0] for name in found if ":" in name})
        return {"events": found, "total": len(found), "namespaces": namespaces}

    async def help(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """One event with its parameters and a command that sends it. Raises `NotFound`."""
        if not data.get("event"):
            raise MissingText("event parameter required")
        name = text(data, "event")
        for event in self._router.events():
            if event.name == name:
                example = {param.name: f"<{param.type}>" for param in event.params if param.required}
                usage = {"event": name, "data": example}
                return {"event": name, **_describe(event, detail=True), "examples": [usage], "usage": usage}
        raise NotFound(f"Event not found: {name}")

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

    async def module_list(self, _data: Data, _client: Client | None) -> dict[str, Any]:
        """Modules with the number of their handlers."""
        rows = [
            {"name": name, "handlers": len(events), "services": 1, "tasks": 0}
            for name, events in self._modules().items()
        ]
        return {"modules": rows, "count": len(rows)}

    async def module_events(self, _data: Data, _client: Client | None) -> dict[str, Any]:
        """Every event with its handlers, and the patterns apart."""
        direct: dict[str, list[dict[str, Any]]] = {}
        patterns = self._router.patterns()
        for event in self._router.events():
            if event not in patterns:
                direct.setdefault(event.name, []).append({**_handler(event), "module": event.module})
        wild = [{**_handler(event), "pattern": event.name, "module": event.module} for event in patterns]
        return {"events": direct, "patterns": wild, "total_events": len(direct), "total_patterns": len(wild)}

    async def module_inspect(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """One module's handlers. Raises `NotFound`."""
        name = data.get("module_name")
        if not name:
            raise MissingText("Missing module_name parameter")
        events = self._modules().get(text(data, "module_name"))
        if events is None:
            raise NotFound(f"Module not found: {name}")
        handlers = [{"event": event.name, **_handler(event), "filter": None} for event in events]
        empty: dict[str, Any] = {"services": [], "background_tasks": [], "running_tasks": [], "stats": {}}
        return {"module": {"name": name, "handlers": handlers, **empty}}

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


def _handler(event: Event) -> dict[str, Any]:
    return {"function": event.function, "priority": _PRIORITY, "async": True}


def _wanted(event: Event, data: Data) -> bool:
    namespace, pattern, module = data.get("namespace"), data.get("event"), data.get("module")
    return (
        (not namespace or event.name.partition(":")[0] == namespace)
        and (not pattern or fnmatch.fnmatchcase(event.name, str(pattern)))
        and (not module or module in (event.module, event.module.rpartition(".")[2]))
    )


def _describe(event: Event, *, detail: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "module": event.module,
        "handler": event.function,
        "async": True,
        "summary": event.summary,
    }
    if detail:
        shown["parameters"] = {param.name: _parameter(param) for param in event.params}
        shown["triggers"] = []
    return shown


def _parameter(param: Param) -> dict[str, Any]:
    shown = {"type": param.type, "required": param.required, "description": param.description}
    return shown if param.required or param.default is None else {**shown, "default": param.default}
