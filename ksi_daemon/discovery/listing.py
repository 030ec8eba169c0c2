"""The events that describe events: what there is, what each takes, and how it is sent."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any, Final

import structlog

from ksi_daemon.discovery import describe
from ksi_daemon.errors import InvalidParameter, KsiError, NotFound
from ksi_daemon.router import Client, Data, Event, Param, text

if TYPE_CHECKING:
    from ksi_daemon.discovery.clients import Clients
    from ksi_daemon.discovery.contract import CodeSearch
    from ksi_daemon.discovery.core import Example
    from ksi_daemon.site import Site

LONGEST_PATTERN: Final = 200
"""Characters that a pattern of `system:discover` may have: compiling a MiB takes the loop for minutes."""

_PRIORITY: Final = 50
"""The original's normal priority; here handlers of one event simply begin in registration order."""

log = structlog.get_logger("ksi.discovery")


class MissingText(KsiError):
    """A required parameter is absent; the original words this differently for each event."""

    code = "missing_parameter"


def _style(names: tuple[str, ...]) -> Param:
    kind = f"Literal[{', '.join(map(repr, names))}]"
    return Param("format_style", kind, "how it is shown", default="verbose", allowed_values=names)


_DISCOVER: Final = (
    Param("detail", "bool", "parameters and triggers too", default=False),
    Param("namespace", "str", "only events of this namespace"),
    Param(
        "event",
        "str",
        "only events whose name matches this shell-style pattern",
        max_length=LONGEST_PATTERN,
    ),
    Param("module", "str", "only events of this module, by its full name or last part"),
    _style(tuple(describe.STYLES)),
)
_HELP: Final = (Param("event", "str", "the event's name", required=True), _style(describe.HELP_STYLES))
_INSPECT: Final = (Param("module_name", "str", "the module's dotted name", required=True),)


class Listing:
    """The service of those events; replies as in the KSI contract, 2.6 and 3.6."""

    def __init__(self, code: CodeSearch, clients: Clients, site: Site) -> None:
        self._code = code
        self._clients = clients
        self._hub = site.hub
        self._socket = _relative(str(site.settings.socket_path), str(site.settings.root))

    def events(self) -> tuple[Event, ...]:
        """Of the system and module namespaces."""
        return (
            Event("system:discover", self.discover, "List events", _DISCOVER),
            Event("system:help", self.help, "Describe one event", _HELP),
            Event("module:list", self.module_list, "List modules"),
            Event("module:events", self.module_events, "List events by name with their handlers"),
            Event("module:inspect", self.module_inspect, "Describe one module", _INSPECT),
        )

    async def discover(self, data: Data, client: Client | None) -> dict[str, Any]:
        """Events in registration order; the first handler of an event describes it.

        Raises `InvalidParameter` for a pattern over 200 characters, or one that is no text.
        """
        pattern = data.get("event")
        if pattern and (type(pattern) is not str or len(pattern) > LONGEST_PATTERN):
            raise InvalidParameter("event", f"a text of at most {LONGEST_PATTERN} characters", pattern)
        detail = bool(data.get("detail"))
        first = self._first()
        if detail:  # for the help to come: all events, as the original did, since one run finds them all
            await self._examples(tuple(first), client)
        name, style = _chosen(data, tuple(describe.STYLES))
        found = {event.name: style(event, detail) for event in first.values() if _wanted(event, data)}
        namespaces = sorted({name.partition(":")[0] for name in found if ":" in name})
        shown = {"events": found, "total": len(found), "namespaces": namespaces}
        return {**shown, "_legend": describe.LEGEND} if name == "ultra_compact" else shown

    async def help(self, data: Data, client: Client | None) -> dict[str, Any]:
        """One event with its parameters, examples from the source tree, and a command that sends it.

        Raises `NotFound`.
        """
        if not data.get("event"):
            raise MissingText("event parameter required")
        wanted = text(data, "event")
        event = self._first().get(wanted)
        if event is None:
            raise NotFound(f"Event not found: {wanted}")
        name, style = _chosen(data, describe.HELP_STYLES)
        shown = style(event, True)  # noqa: FBT003 - one of a table of styles
        if name == "mcp":
            return shown
        usage = describe.usage(event, self._socket)
        if name == "compact":
            return {**shown, "usage": usage}
        examples = (await self._examples((wanted,), client)).get(wanted, ())
        return {**shown, "examples": [one.shown() for one in examples] or [usage], "usage": usage}

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
        wild = []
        for event in self._hub.events():
            shown = {**_handler(event), "module": event.module}
            if "*" in event.name:
                wild.append({**shown, "pattern": event.name})
            else:
                direct.setdefault(event.name, []).append(shown)
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

    async def _examples(
        self, events: tuple[str, ...], client: Client | None
    ) -> dict[str, tuple[Example, ...]]:
        """Those that there are; what is wrong with `rg` or the tree costs examples, and no reply."""
        try:
            return await self._clients.serve(client, self._code.mine(events))
        except KsiError as error:
            log.debug("no examples", error=str(error))
            return {}

    def _first(self) -> dict[str, Event]:
        first: dict[str, Event] = {}
        for event in self._hub.events():
            first.setdefault(event.name, event)
        return first

    def _modules(self) -> dict[str, list[Event]]:
        modules: dict[str, list[Event]] = {}
        for event in self._hub.events():
            modules.setdefault(event.module, []).append(event)
        return modules


def _chosen(data: Data, names: tuple[str, ...]) -> tuple[str, describe.Style]:
    """The style asked for, and its name; one that is unknown is verbose."""
    asked = data.get("format_style")
    name = asked if type(asked) is str and asked in names else "verbose"
    return name, describe.STYLES[name]


def _wanted(event: Event, data: Data) -> bool:
    namespace, pattern, module = data.get("namespace"), data.get("event"), data.get("module")
    return (
        (not namespace or event.name.partition(":")[0] == namespace)
        and (not pattern or fnmatch.fnmatchcase(event.name, pattern))
        and (not module or module in (event.module, event.module.rpartition(".")[2]))
    )


def _handler(event: Event) -> dict[str, Any]:
    return {"function": event.function, "priority": _PRIORITY, "async": True}


def _relative(path: str, root: str) -> str:
    """As the original's clients name it, in the root; elsewhere absolute."""
    return path.removeprefix(f"{root.rstrip('/')}/")
