"""Usage records and their sums: pure, so that both sides write the same bytes and count alike."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ksi_daemon import wire
from ksi_daemon.errors import InvalidParameter, KsiError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ksi_daemon.settings import Settings

RECENT = 10_000
"""Records kept one by one, the newest; `hours` looks at these."""

NAMES = 100_000
"""Agents, models or sessions with sums of their own; beyond that the one that came first is forgotten."""

WINDOW = 24 * 3600.0
"""Seconds of history that count at start."""


def log_path(settings: Settings) -> Path:
    """Where usage is logged; tools outside the daemon share the file."""
    return settings.daemon_log_dir / "tool_usage.jsonl"


@dataclass(frozen=True, slots=True)
class Usage:
    """One completion's tokens; `at` is epoch seconds."""

    at: float
    request_id: str | None
    session_id: str | None
    agent_id: str | None
    model: str
    provider: str
    input_tokens: int
    output_tokens: int
    cache_creation_tokens: int
    cache_read_tokens: int
    has_mcp: bool

    @property
    def total_tokens(self) -> int:
        """Input and output."""
        return self.input_tokens + self.output_tokens

    @property
    def estimated_cost(self) -> float:
        """US dollars by the original's rates; not rounded, and negative when the cache saved more."""
        return self.input_tokens * 0.00001 + self.output_tokens * 0.00003 - self.cache_read_tokens * 0.000009


def encode(usage: Usage) -> bytes:
    """One line of the log, keys in the original's order (the KSI contract, 3.2). Raises `Unserialisable`."""
    return wire.encode(
        {
            "event": "token_usage",
            "timestamp": wire.utc_stamp(usage.at),
            "request_id": usage.request_id,
            "session_id": usage.session_id,
            "agent_id": usage.agent_id,
            "model": usage.model,
            "provider": usage.provider,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "total_tokens": usage.total_tokens,
            "cache_creation_tokens": usage.cache_creation_tokens,
            "cache_read_tokens": usage.cache_read_tokens,
            "has_mcp": usage.has_mcp,
            "estimated_cost": usage.estimated_cost,
        }
    )


def decode(line: bytes) -> Usage | None:
    """A line of the log as a record, or None for a damaged line or one of another kind."""
    try:
        found = wire.decode(line)
        if type(found) is not dict or found.get("event") != "token_usage":
            return None
        return _usage(found)
    except (KsiError, ValueError, KeyError):
        return None


def _usage(found: dict[str, Any]) -> Usage:
    at = datetime.fromisoformat(_string(found["timestamp"]))
    return Usage(
        at=(at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp(),
        request_id=_name(found.get("request_id")),
        session_id=_name(found.get("session_id")),
        agent_id=_name(found.get("agent_id")),
        model=_string(found.get("model", "")),
        provider=_string(found.get("provider", "")),
        input_tokens=count(found, "input_tokens"),
        output_tokens=count(found, "output_tokens"),
        cache_creation_tokens=count(found, "cache_creation_tokens"),
        cache_read_tokens=count(found, "cache_read_tokens"),
        has_mcp=found.get("has_mcp") is True,
    )


def _string(value: object) -> str:
    if type(value) is not str:
        raise ValueError("not a string")
    return value


def _name(value: object) -> str | None:
    return value if type(value) is str else None


def count(found: dict[str, Any], name: str) -> int:
    """A token count; absent is 0. Raises `InvalidParameter` unless it is a whole number from 0 to 2**53."""
    value = found.get(name, 0)
    if type(value) is not int or not 0 <= value <= 2**53:
        raise InvalidParameter(name, "a whole number of tokens", value)
    return value


@dataclass(slots=True)
class Sum:
    """Tokens of one agent, model or session."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_tokens: int = 0
    request_count: int = 0

    def add(self, usage: Usage) -> None:
        """Count one record."""
        self.input_tokens += usage.input_tokens
        self.output_tokens += usage.output_tokens
        self.cache_tokens += usage.cache_read_tokens
        self.request_count += 1

    def merge(self, other: Sum) -> None:
        """Count another sum."""
        for part in fields(self):
            setattr(self, part.name, getattr(self, part.name) + getattr(other, part.name))

    def as_dict(self) -> dict[str, int]:
        """The four counts."""
        return {part.name: getattr(self, part.name) for part in fields(self)}


@dataclass(slots=True)
class Mcp:
    """Requests with tools, and what their prompts cost and saved in cache tokens."""

    requests: int = 0
    overhead: int = 0
    saved: int = 0

    def add(self, usage: Usage) -> None:
        """Count one record that had tools."""
        self.requests += 1
        self.overhead += usage.cache_creation_tokens
        self.saved += int(usage.cache_read_tokens * 0.9)

    def merge(self, other: Mcp) -> None:
        """Count another tally."""
        self.requests += other.requests
        self.overhead += other.overhead
        self.saved += other.saved

    def as_dict(self) -> dict[str, Any]:
        """The statistics as the original gives them: `total_requests` counts only requests with tools."""
        return {
            "total_requests": self.requests,
            "mcp_enabled_requests": self.requests,
            "mcp_percentage": 100.0 if self.requests else 0,
            "total_overhead_tokens": self.overhead,
            "avg_overhead_per_request": self.overhead / self.requests if self.requests else 0,
            "cache_tokens_saved": self.saved,
        }


@dataclass(slots=True)
class Totals:
    """All sums in bounded memory: by agent, model and session, and the newest records."""

    agents: dict[str, Sum] = field(default_factory=dict)
    models: dict[str, Sum] = field(default_factory=dict)
    sessions: dict[str, Sum] = field(default_factory=dict)
    mcp: Mcp = field(default_factory=Mcp)
    recent: deque[Usage] = field(default_factory=lambda: deque(maxlen=RECENT))

    def add(self, usage: Usage) -> None:
        """Count one record."""
        self.recent.append(usage)
        _sum_of(self.agents, usage.agent_id).add(usage)
        _sum_of(self.models, usage.model).add(usage)
        _sum_of(self.sessions, usage.session_id).add(usage)
        if usage.has_mcp:
            self.mcp.add(usage)

    def after(self, older: Totals) -> Totals:
        """These totals and the older ones together, the older records first."""
        for mine, theirs in zip(self._sums(), older._sums(), strict=True):
            for name, found in mine.items():
                _sum_of(theirs, name).merge(found)
        older.mcp.merge(self.mcp)
        older.recent.extend(self.recent)
        return older

    def _sums(self) -> tuple[dict[str, Sum], ...]:
        return self.agents, self.models, self.sessions


def _sum_of(sums: dict[str, Sum], name: str | None) -> Sum:
    if not name:
        return Sum()
    found = sums.get(name)
    if found is None:
        if len(sums) >= NAMES:
            del sums[next(iter(sums))]
        found = sums[name] = Sum()
    return found


def agent_usage(totals: Totals, agent: str) -> dict[str, Any]:
    """An agent's whole sum; zeros for one that is not known."""
    return _usage_reply(totals.agents.get(agent, Sum()))


def agent_window(totals: Totals, agent: str, since: float) -> dict[str, Any]:
    """An agent's sum and cost over the kept records from `since` (epoch seconds) on."""
    found = [usage for usage in totals.recent if usage.agent_id == agent and usage.at >= since]
    return {**_usage_reply(summarise(found)), "estimated_cost": sum(usage.estimated_cost for usage in found)}


def summarise(records: Iterable[Usage]) -> Sum:
    """The sum of some records."""
    total = Sum()
    for usage in records:
        total.add(usage)
    return total


def _usage_reply(total: Sum) -> dict[str, Any]:
    tokens = total.input_tokens + total.output_tokens
    return {
        "input_tokens": total.input_tokens,
        "output_tokens": total.output_tokens,
        "cache_tokens": total.cache_tokens,
        "total_tokens": tokens,
        "request_count": total.request_count,
        "avg_tokens_per_request": tokens / total.request_count if total.request_count else 0,
    }


def summary(totals: Totals) -> dict[str, Any]:
    """Everything in one view, summed over the agents as the original does, so only their requests."""
    everyone = Sum()
    for total in totals.agents.values():
        everyone.merge(total)
    return {
        "total_input_tokens": everyone.input_tokens,
        "total_output_tokens": everyone.output_tokens,
        "total_cache_tokens": everyone.cache_tokens,
        "total_tokens": everyone.input_tokens + everyone.output_tokens,
        "total_requests": everyone.request_count,
        "active_agents": len(totals.agents),
        "active_models": len(totals.models),
        "active_sessions": len(totals.sessions),
        "mcp_statistics": totals.mcp.as_dict(),
    }
