"""Token usage: recorded first in the log, then in the totals, in the order of the writes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from ksi_daemon.completion import core
from ksi_daemon.completion.requests import optional
from ksi_daemon.errors import InvalidParameter, KsiError
from ksi_daemon.router import Client, Data, Event, Param, obj, text

if TYPE_CHECKING:
    from ksi_daemon.completion.contract import CompletionLog
    from ksi_daemon.site import Site

LARGE = 10_000
"""Tokens in one request from which on a warning is logged."""

STOP = 0.5
"""Seconds that a load has to notice that it should end."""

log = structlog.get_logger("ksi.completion")

_RECORD = (
    Param("model", "str", "the full requested model", required=True),
    Param("usage", "dict[str, int]", "input_tokens, output_tokens, cache_*_input_tokens", required=True),
    Param("request_id", "str", "the request that used them"),
    Param("session_id", "str", "the session of the request"),
    Param("agent_id", "str", "the agent to count them for"),
    Param("provider", "str", "who answered", default="claude-cli"),
    Param("has_mcp", "bool", "whether tools were offered", default=False),
)
_QUERY = (
    Param("agent_id", "str", "only this agent"),
    Param("model", "str", "only this model"),
    Param("hours", "int", "only the last hours; with agent_id", min_value=0),
)


class _Stopped(Exception):
    """Ends a load from within, so that the side closes what it opened."""


class TokenUsage:
    """One half of the room's service; its query replies are those of the KSI contract, 3.2."""

    def __init__(self, usage_log: CompletionLog, site: Site) -> None:
        self._log = usage_log
        self._clock = site.clock
        self._totals = core.Totals()
        self._loading: asyncio.Task[None] | None = None
        self._stopped = False

    def events(self) -> tuple[Event, ...]:
        """One to record, one to ask."""
        return (
            Event(
                "completion:record_usage", self.record_usage, "Record tokens used outside the daemon", _RECORD
            ),
            Event("completion:token_usage", self.token_usage, "Show tokens used, in all or of one", _QUERY),
        )

    async def start(self) -> None:
        """Begin to load the last 24 hours; questions wait for it, records do not."""
        self._loading = asyncio.create_task(self._load())

    async def stop(self) -> None:
        """End a load that is still under way; one that hangs in a dead disk is left behind."""
        self._stopped = True
        if self._loading is not None:
            await asyncio.wait([self._loading], timeout=STOP)
            self._loading.cancel()

    def memory(self) -> dict[str, Any]:
        """The sums and the kept records."""
        totals = self._totals
        return {
            "agents": {name: total.as_dict() for name, total in totals.agents.items()},
            "models": {name: total.as_dict() for name, total in totals.models.items()},
            "sessions": {name: total.as_dict() for name, total in totals.sessions.items()},
            "mcp": totals.mcp.as_dict(),
            "recent": [[usage.at, usage.request_id, usage.total_tokens] for usage in totals.recent],
        }

    async def record_usage(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Log one completion's tokens, then count them. Raises `MissingParameter`, `InvalidParameter`."""
        usage = self._usage(data)
        await self._log.append(core.encode(usage))
        self._count(usage)
        return {
            "status": "recorded",
            "request_id": usage.request_id,
            "total_tokens": usage.total_tokens,
            "estimated_cost": usage.estimated_cost,
        }

    async def record(self, usage: core.Usage) -> None:
        """Log one completion's tokens, then count them. Raises what the log raises."""
        await self._log.append(core.encode(usage))
        self._count(usage)

    async def token_usage(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Tokens of one agent, one model, or all; answered when the history is loaded."""
        await self._loaded()
        agent, model, hours = optional(data, "agent_id"), optional(data, "model"), data.get("hours")
        if agent:
            return {"agent_id": agent, **self._of_agent(agent, hours)}
        if model:
            total = self._totals.models.get(model, core.Sum())
            return {"model": model, "usage": total.as_dict()}
        return core.summary(self._totals)

    def _count(self, usage: core.Usage) -> None:
        self._totals.add(usage)
        if usage.total_tokens > LARGE:
            log.warning("large completion", tokens=usage.total_tokens, request_id=usage.request_id)

    def _of_agent(self, agent: str, hours: object) -> dict[str, Any]:
        if not hours:
            return {"usage": core.agent_usage(self._totals, agent), "time_window_hours": None}
        if not isinstance(hours, int | float) or isinstance(hours, bool) or hours < 0:
            raise InvalidParameter("hours", "a number of hours", hours)
        usage = core.agent_window(self._totals, agent, self._clock() - hours * 3600)
        cost = usage.pop("estimated_cost")
        return {"usage": usage, "time_window_hours": hours, "estimated_cost": cost}

    def _usage(self, data: Data) -> core.Usage:
        usage = obj(data, "usage")
        if not usage:
            text({}, "usage")
        has_mcp = data.get("has_mcp", False)
        if type(has_mcp) is not bool:
            raise InvalidParameter("has_mcp", "true or false", has_mcp)
        return core.Usage(
            at=self._clock(),
            request_id=optional(data, "request_id"),
            session_id=optional(data, "session_id"),
            agent_id=optional(data, "agent_id"),
            model=text(data, "model"),
            provider=optional(data, "provider") or "claude-cli",
            input_tokens=core.count(usage, "input_tokens"),
            output_tokens=core.count(usage, "output_tokens"),
            cache_creation_tokens=core.count(usage, "cache_creation_input_tokens"),
            cache_read_tokens=core.count(usage, "cache_read_input_tokens"),
            has_mcp=has_mcp,
        )

    async def _loaded(self) -> None:
        if self._loading is not None and not self._loading.done():
            await asyncio.wait([self._loading])

    async def _load(self) -> None:
        history = core.Totals()
        since = self._clock() - core.WINDOW

        def take(line: bytes) -> None:
            if self._stopped:
                raise _Stopped
            usage = core.decode(line)
            if usage is not None and usage.at >= since:
                history.add(usage)

        try:
            await self._log.load(take)
        except _Stopped:
            return
        except KsiError as error:
            log.warning("history not loaded", error=str(error), **error.fields())
        self._totals = self._totals.after(history)
