"""Bus records and offline queues: pure, so that both sides write the same bytes."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from ksi_daemon import wire

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ksi_daemon.settings import Settings

COUNTED = 1000
"""Agents whose lost messages are counted; the one whose last loss is longest ago is forgotten."""

ENVELOPE = ("id", "type", "from", "timestamp")
"""The keys that the daemon alone fills."""


def log_path(settings: Settings) -> Path:
    """Where the bus is logged."""
    return settings.response_log_dir / "message_bus.jsonl"


def make_record(event_type: str, sender: str, payload: Mapping[str, Any], now: float) -> dict[str, Any]:
    """A record: the envelope, then the payload's keys in their order (the KSI contract, 3.1).

    A payload that itself holds envelope keys cannot forge them: the envelope wins, and the payload is kept
    whole under `payload`.
    """
    envelope = {"id": repr(now), "type": event_type, "from": sender, "timestamp": wire.utc_stamp(now)}
    if payload.keys().isdisjoint(ENVELOPE):
        return {**envelope, **payload}
    return {**envelope, **payload, **envelope, "payload": dict(payload)}


def encode(record: Mapping[str, Any]) -> bytes:
    """One line of the log, which is also the frame that subscribers get. Raises `Unserialisable`."""
    return wire.encode(record)


class OfflineQueues:
    """Messages for agents that are not connected: at most `limit` each, the oldest dropped and counted.

    All queues together hold at most `total` bytes; beyond that the queue that has waited longest gives way.
    """

    def __init__(self, limit: int, total: int) -> None:
        self._limit = limit
        self._total = total
        self._bytes = 0
        self._queues: dict[str, deque[bytes]] = {}
        self.dropped: dict[str, int] = {}
        """How many messages an agent has lost, of the last `COUNTED` agents that lost any."""

    def __contains__(self, agent: str) -> bool:
        return agent in self._queues

    def put(self, agent: str, line: bytes) -> None:
        """Add a message at the end of an agent's queue."""
        queue = self._queues.setdefault(agent, deque())
        queue.append(line)
        self._bytes += len(line)
        if len(queue) > self._limit:
            self._drop(agent)
        while self._bytes > self._total:
            self._drop(next(iter(self._queues)))

    def first(self, agent: str) -> bytes | None:
        """The oldest message for an agent, left where it is."""
        queue = self._queues.get(agent)
        return queue[0] if queue else None

    def take(self, agent: str) -> bytes:
        """Remove and return the oldest message; an empty queue disappears. Raises `KeyError`."""
        queue = self._queues[agent]
        line = queue.popleft()
        self._bytes -= len(line)
        if not queue:
            del self._queues[agent]
        return line

    def lengths(self) -> dict[str, int]:
        """How many messages wait, per agent."""
        return {agent: len(queue) for agent, queue in self._queues.items()}

    def clear(self) -> None:
        """Forget everything."""
        self._queues.clear()
        self._bytes = 0

    def _drop(self, agent: str) -> None:
        self.take(agent)
        self.dropped[agent] = self.dropped.pop(agent, 0) + 1
        if len(self.dropped) > COUNTED:
            del self.dropped[next(iter(self.dropped))]
