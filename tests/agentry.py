"""The agent room with a queue and a bus that tests command: what every test of agents gets.

Nothing in them looks at a clock: a request runs, is answered or fails when a test says so.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import Any

from ksi_daemon.agent import AREA
from ksi_daemon.hub import Hub
from ksi_daemon.router import Event, Router
from tests.rooms import room

FULL = {"error": "1000 requests are waiting or running", "code": "queue_full", "retryable": True}
BROKEN = {"error": "messaging could not append", "code": "io_error", "errno": "ENOSPC", "retryable": True}


def session(number: int = 1) -> str:
    """A session's id."""
    return f"{number:08d}-0000-4000-8000-000000000000"


class Agents:
    """The room and its neighbours: `asked` of the queue, `published` on the bus, `frames` to the clients."""

    def __init__(self, made) -> None:
        self.room = made
        self.asked: dict[str, dict[str, Any]] = {}
        self.published: list[dict[str, Any]] = []
        self.frames: list[dict[str, Any]] = []
        self.refusal: dict[str, Any] | None = None
        self.bus_down: dict[str, Any] | None = None
        self.hold: asyncio.Event | None = None
        self.hold_bus: asyncio.Event | None = None
        self._running: set[str] = set()
        router = Router()
        router.add(made.service.events())
        router.add(
            (
                Event("completion:async", self._queue, "queue"),
                Event("completion:cancel", self._cancel, "cancel"),
                Event("message:publish", self._publish, "publish"),
            )
        )
        self._router = router

    @property
    def hub(self) -> Hub:
        """The room's."""
        return self.room.site.hub

    async def send(self, event: str, **data: Any) -> Any:
        """The reply to an event, as a client sees it."""
        (reply,) = await self._router.emit(event, data)
        return reply

    async def spawn(self, *names: str, **data: Any) -> None:
        """Spawn agents without a prompt."""
        for name in names:
            assert (await self.send("agent:spawn", agent_id=name, **data))["status"] == "created"

    async def say(self, agent: str, content: str = "hi", **data: Any) -> Any:
        """Send an agent a message."""
        return await self.send("agent:send_message", agent_id=agent, message={"content": content}, **data)

    def begin(self, request: str) -> None:
        """Have a request run."""
        self._running.add(request)
        self._tell("progress", request, status="calling_provider")

    def answer(self, request: str, text: object = "done", number: int = 1) -> None:
        """End a request with an answer."""
        response = {"type": "result", "result": text, "session_id": session(number)}
        self._tell("result", request, result={"ksi": {"request_id": request}, "response": response})

    def fail(self, request: str, **fields: Any) -> None:
        """End a request with an error."""
        told = {"error": "API Error: 500", "code": "api_error", "session_id": None, **fields}
        self._tell("error", request, **told)

    def bus(self, *kinds: str) -> list[tuple[str, str, dict[str, Any]]]:
        """What was published, only of these kinds if there are any: kind, sender, message."""
        found = [(one["event_type"], one["agent_id"], one["message"]) for one in self.published]
        return [one for one in found if not kinds or one[0] in kinds]

    async def told(self, count: int, *kinds: str) -> list[tuple[str, str, dict[str, Any]]]:
        """What was published, when there are so many."""
        while len(self.bus(*kinds)) < count:
            await asyncio.sleep(0)
        return self.bus(*kinds)

    async def listed(self, **data: Any) -> dict[str, dict[str, Any]]:
        """`agent:list` by id."""
        return {row["agent_id"]: row for row in (await self.send("agent:list", **data))["agents"]}

    def _tell(self, what: str, request: str, **data: Any) -> None:
        self.hub.tell(f"completion:{what}", {"request_id": request, **data})

    async def _queue(self, data, _client):
        if self.hold is not None:
            await self.hold.wait()
        if self.refusal is not None:
            return self.refusal
        self.asked[data["request_id"]] = data
        return {"request_id": data["request_id"], "status": "queued"}

    async def _cancel(self, data, _client):
        request = data["request_id"]
        if request not in self.asked:
            return {"error": f"Unknown request_id: {request}", "code": "not_found"}
        self._tell("cancelled", request)
        return {"request_id": request, "status": "cancelled"}

    async def _publish(self, data, _client):
        if self.hold_bus is not None:
            await self.hold_bus.wait()
        if self.bus_down is not None:
            return self.bus_down
        self.published.append(data)
        return {"status": "queued", "to": data["message"].get("to"), "notified": []}


@asynccontextmanager
async def agents(side, root):
    """The room on a side, with its neighbours."""
    async with room(AREA, side, root) as made:
        found = Agents(made)
        hub = made.site.hub = Hub(found._router, lambda line: found.frames.append(json.loads(line)))
        found.room.service._turns.start()
        assert found.hub is hub
        yield found
