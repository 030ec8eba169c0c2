"""Locks on conversations, in memory: one request holds a conversation, the others wait for it in order."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ksi_daemon import wire
from ksi_daemon.conversation.failures import LocksFull
from ksi_daemon.errors import NotFound
from ksi_daemon.router import Client, Data, Event, Param, obj, text

if TYPE_CHECKING:
    from ksi_daemon.site import Site

MOST = 10_000
"""Requests that hold or wait, in all."""

FORKS = 1000
"""Forks that are remembered; the oldest is forgotten."""

_REQUEST = Param("request_id", "str", "who holds or wants it", required=True)
_CONVERSATION = Param("conversation_id", "str", "the conversation", required=True)


@dataclass(slots=True)
class _Lock:
    """Who holds a conversation, since when, and who waits; each with what it has said of itself."""

    queue: deque[str]
    since: str
    metadata: dict[str, Data] = field(default_factory=dict)

    def plain(self, conversation: str) -> dict[str, Any]:
        holder = self.queue[0]
        return {
            "conversation_id": conversation,
            "locked": True,
            "holder": holder,
            "locked_at": self.since,
            "metadata": self.metadata[holder],
            "queue": list(self.queue)[1:],
        }


class Locks:
    """The lock service; gone with the daemon, as in the original."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._locks: dict[str, _Lock] = {}
        self._wanted: dict[str, str] = {}
        self._forks: deque[dict[str, Any]] = deque(maxlen=FORKS)

    def events(self) -> tuple[Event, ...]:
        """The lock events, and the second half of `conversation:active`."""
        metadata = Param("metadata", "dict", "kept with the lock", default={})
        expected = Param("expected_conversation_id", "str", "where an answer should have come", required=True)
        actual = Param("actual_conversation_id", "str", "where it came", required=True)
        asked = Param("conversation_id", "str", "only this one")
        return (
            Event(
                "conversation:acquire_lock",
                self.acquire,
                "Lock a conversation, or wait for it",
                (_REQUEST, _CONVERSATION, metadata),
            ),
            Event(
                "conversation:release_lock", self.release, "Give up a lock, or the wait for it", (_REQUEST,)
            ),
            Event(
                "conversation:fork_detected",
                self.fork,
                "Note that a conversation went on as another one",
                (_REQUEST, expected, actual),
            ),
            Event("conversation:lock_status", self.status, "Show one lock, or all", (asked,)),
            Event("conversation:active", self.active, "Show the locked conversations"),
        )

    async def acquire(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Hold the conversation, or wait; a request has one lock at a time, and asking again is harmless."""
        request, conversation = text(data, "request_id"), text(data, "conversation_id")
        metadata = obj(data, "metadata")
        known = self._wanted.get(request)
        if known not in (None, conversation):
            self._give_up(request)
        if known != conversation:
            self._enter(request, conversation, metadata)
        lock = self._locks[conversation]
        place = lock.queue.index(request)
        told = {"conversation_id": conversation, "request_id": request}
        if place:
            return {"status": "queued", **told, "position": place, "holder": lock.queue[0]}
        return {"status": "acquired", **told}

    async def release(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Let the next one have it."""
        request = text(data, "request_id")
        conversation = self._wanted.get(request)
        if conversation is None:
            raise NotFound(f"No lock found for request: {request}")
        held = self._give_up(request)
        lock = self._locks.get(conversation)
        following = lock.queue[0] if lock is not None and held else None
        status = "released" if held else "dequeued"
        return {
            "status": status,
            "conversation_id": conversation,
            "request_id": request,
            "next_request": following,
        }

    async def fork(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Remember it; the lock goes on to mean the conversation that was expected."""
        names = ("request_id", "expected_conversation_id", "actual_conversation_id")
        fork = {name: text(data, name) for name in names}
        self._forks.append({**fork, "detected_at": self._now()})
        return {"status": "fork_recorded", **fork}

    async def status(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Who holds it and who waits, and the forks that are known."""
        if data.get("conversation_id") is None:
            locks = {name: lock.plain(name) for name, lock in self._locks.items()}
            return {"active_count": len(locks), "conversations": locks, "forks": list(self._forks)}
        conversation = text(data, "conversation_id")
        forks = [fork for fork in self._forks if fork["expected_conversation_id"] == conversation]
        lock = self._locks.get(conversation)
        found = (
            {"conversation_id": conversation, "locked": False} if lock is None else lock.plain(conversation)
        )
        return {**found, "forks": forks}

    async def active(self, _data: Data, _client: Client | None) -> dict[str, Any]:
        """The second of the two answers to `conversation:active`."""
        return {
            "active_count": len(self._locks),
            "active_conversations": [lock.plain(name) for name, lock in self._locks.items()],
        }

    def plain(self) -> dict[str, Any]:
        """All of it."""
        return {
            "locks": {name: lock.plain(name) for name, lock in self._locks.items()},
            "forks": [*self._forks],
        }

    def _enter(self, request: str, conversation: str, metadata: Data) -> None:
        if len(self._wanted) >= MOST:
            raise LocksFull(MOST)
        lock = self._locks.setdefault(conversation, _Lock(deque(), self._now()))
        lock.queue.append(request)
        lock.metadata[request] = metadata
        self._wanted[request] = conversation

    def _give_up(self, request: str) -> bool:
        """Whether the request held the lock that it gives up."""
        conversation = self._wanted.pop(request)
        lock = self._locks[conversation]
        held = lock.queue[0] == request
        lock.queue.remove(request)
        del lock.metadata[request]
        if not lock.queue:
            del self._locks[conversation]
        elif held:
            lock.since = self._now()
        return held

    def _now(self) -> str:
        return wire.utc_stamp(self._site.clock())
