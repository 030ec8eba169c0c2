"""The bus itself: who is connected, who subscribed, and what a published message sets going.

Memory follows the log: a message enters the history and is delivered in the same step in which its write is
known to have succeeded, one connection's messages in the order of the writes. So a failed publish leaves
nothing to undo.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from ksi_daemon.errors import InvalidParameter, KsiError, NotConnected
from ksi_daemon.messaging import core
from ksi_daemon.router import Client, Data, Event, Param, obj, text, texts

if TYPE_CHECKING:
    from ksi_daemon.messaging.contract import BusLog
    from ksi_daemon.site import Site

HISTORY = 1000
"""Messages kept in memory, the newest."""

OFFLINE_BYTES = 64 * 1024 * 1024
"""What all offline queues together may hold."""

_AGENT = Param("agent_id", "str", "the agent on whose behalf this is sent", required=True)
_TYPES = Param("event_types", "list[str]", "message types", required=True)


class NoRecipient(KsiError):
    """A message that must go to one agent names none, and none can be found."""

    code = "no_recipient"


class MessageBus:
    """The service of the room; its parameters and replies are those of the KSI contract, 3.1."""

    def __init__(self, log: BusLog, site: Site) -> None:
        self._log = log
        self._clock = site.clock
        self._connections: dict[str, Client] = {}
        self._clients: set[int] = set()
        self._capabilities: dict[str, list[str]] = {}
        self._subscriptions: dict[str, dict[str, None]] = {}
        self._remembered: dict[str, dict[str, None]] = {}
        self._offline = core.OfflineQueues(site.settings.offline_queue_limit, OFFLINE_BYTES)
        self._flushing: dict[str, asyncio.Task[None]] = {}
        self._history: deque[dict[str, Any]] = deque(maxlen=HISTORY)

    def events(self) -> tuple[Event, ...]:
        """The seven bus events and the transport's."""
        message = Param(
            "message", "dict[str, Any]", "the payload; its keys are spread into the record", default={}
        )
        kind = Param(
            "event_type", "str", "DIRECT_MESSAGE, BROADCAST, TASK_ASSIGNMENT or any type", required=True
        )
        some = Param("event_types", "list[str]", "message types; none for all", default=[])
        only = Param("agent_id", "str", "only this agent")
        able = Param("capabilities", "list[str]", "what the agent can be assigned", default=[])
        command = Param(
            "command",
            "Literal['PUBLISH', 'SUBSCRIBE']",
            "what to do",
            required=True,
            allowed_values=("PUBLISH", "SUBSCRIBE"),
        )
        inner = Param(
            "parameters", "dict[str, Any]", "as for message:publish or message:subscribe", default={}
        )
        return (
            Event(
                "message:subscribe", self.subscribe, "Subscribe an agent to message types", (_AGENT, _TYPES)
            ),
            Event("message:unsubscribe", self.unsubscribe, "End an agent's subscriptions", (_AGENT, some)),
            Event("message:publish", self.publish, "Publish a message to the bus", (_AGENT, kind, message)),
            Event(
                "message:subscriptions", self.subscriptions, "List subscriptions, one agent's or all", (only,)
            ),
            Event("message:connect", self.connect, "Have an agent's messages sent here", (_AGENT, able)),
            Event("message:disconnect", self.disconnect, "Forget an agent's connection", (_AGENT,)),
            Event("message_bus:stats", self.stats, "Show connections, subscriptions and queues"),
            Event(
                "transport:message",
                self.transport_message,
                "Publish or subscribe by command",
                (command, inner),
            ),
        )

    async def start(self) -> None:
        """Nothing is restored: the bus begins empty, as it always did."""

    async def stop(self) -> None:
        """End the deliveries under way and forget everybody."""
        tasks = list(self._flushing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for agent in list(self._connections):
            self._drop(agent)
        self._offline.clear()

    def memory(self) -> dict[str, Any]:
        """Connections, subscriptions, queues and the history."""
        return {**self._stats(), "remembered": self._remembered, "history": list(self._history)}

    async def publish(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Log a message, then deliver it; the reply tells to whom."""
        agent, kind, payload = text(data, "agent_id"), text(data, "event_type"), obj(data, "message")
        if kind in ("DIRECT_MESSAGE", "TASK_ASSIGNMENT"):
            payload = self._addressed(kind, agent, payload)
        record = core.make_record(kind, agent, payload, self._clock())
        line = core.encode(record)
        await self._log.append(line)
        self._history.append(record)
        return self._deliver(kind, agent, record, line)

    async def subscribe(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Subscribe a connected agent. Raises `NotConnected`."""
        agent, types = text(data, "agent_id"), texts(data, "event_types")
        if not types:
            text({}, "event_types")
        if agent not in self._connections:
            raise NotConnected
        for kind in types:
            self._subscriptions.setdefault(kind, {})[agent] = None
            self._remembered.setdefault(agent, {})[kind] = None
        return {"status": "subscribed", "agent_id": agent, "event_types": types}

    async def unsubscribe(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """End the named subscriptions of an agent, or all of them."""
        agent = text(data, "agent_id")
        types = texts(data, "event_types") or list(self._remembered.get(agent, ()))
        for kind in types:
            self._subscriptions.get(kind, {}).pop(agent, None)
            self._remembered.get(agent, {}).pop(kind, None)
        return {"status": "unsubscribed", "agent_id": agent, "event_types": types}

    async def subscriptions(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """One agent's types, or everybody's."""
        agent = data.get("agent_id")
        if agent:
            return {
                "agent_id": agent,
                "subscriptions": list(self._remembered.get(text(data, "agent_id"), ())),
            }
        return {
            "all_subscriptions": {agent: list(types) for agent, types in self._remembered.items() if types}
        }

    async def connect(self, data: Data, client: Client | None) -> dict[str, Any]:
        """Deliver the agent's messages to this connection from now on, those that waited first."""
        agent, able = text(data, "agent_id"), texts(data, "capabilities")
        if client is not None:
            self._connections[agent] = client
            self._capabilities[agent] = able
            if id(client) not in self._clients:  # once each, however often its agents connect
                self._clients.add(id(client))
                client.on_close(lambda: self._gone(client))
            self._flush(agent, client)
        return {"status": "connected", "agent_id": agent}

    async def disconnect(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Forget an agent's connection and subscriptions; harmless when there are none."""
        agent = text(data, "agent_id")
        self._drop(agent)
        return {"status": "disconnected", "agent_id": agent}

    async def stats(self, _data: Data, _client: Client | None) -> dict[str, Any]:
        """Who is connected and subscribed, and what waits."""
        return {"stats": self._stats()}

    async def transport_message(self, data: Data, client: Client | None) -> dict[str, Any]:
        """The older form of publish and subscribe. Raises `InvalidParameter`."""
        commands = {"PUBLISH": self.publish, "SUBSCRIBE": self.subscribe}
        command = data.get("command")
        if type(command) is not str or command not in commands:
            raise UnknownCommand(command)
        return await commands[command](obj(data, "parameters"), client)

    def _stats(self) -> dict[str, Any]:
        return {
            "connected_agents": list(self._connections),
            "subscriptions": {kind: list(agents) for kind, agents in self._subscriptions.items()},
            "offline_queues": self._offline.lengths(),
            "offline_dropped": dict(self._offline.dropped),
            "history_size": len(self._history),
        }

    def _addressed(self, kind: str, sender: str, payload: Data) -> Data:
        """The payload with a recipient, checked before anything is written."""
        to = payload.get("to")
        if type(to) is str and to:
            return payload
        if to:
            raise InvalidParameter("to", "a string", to)
        if kind == "DIRECT_MESSAGE":
            raise NoRecipient("No recipient specified")
        wanted = texts(payload, "required_capabilities")
        for agent, able in self._capabilities.items():
            if agent != sender and set(wanted) <= set(able):
                return {**payload, "to": agent}
        raise NoRecipient("No capable agent found")

    def _deliver(self, kind: str, sender: str, record: dict[str, Any], line: bytes) -> dict[str, Any]:
        if kind in ("DIRECT_MESSAGE", "TASK_ASSIGNMENT"):
            return self._deliver_direct(sender, record["to"], line)
        if kind == "BROADCAST":
            others = [agent for agent in self._subscriptions.get(kind, ()) if agent != sender]
            delivered = [agent for agent in others if self._send(agent, line)]
            failed = [agent for agent in others if agent not in delivered]
            return {"status": "broadcast", "delivered": delivered, "failed": failed, "total": len(others)}
        reached = [agent for agent in self._subscriptions.get(kind, ()) if self._send(agent, line)]
        return {"status": "published", "event_type": kind, "delivered_to": reached}

    def _deliver_direct(self, sender: str, to: str, line: bytes) -> dict[str, Any]:
        watching = [agent for agent in self._subscriptions.get("DIRECT_MESSAGE", ()) if agent != sender]
        notified = [agent for agent in watching if self._send(agent, line)]
        if to not in self._offline and self._send(to, line):
            return {"status": "delivered", "to": to, "notified": notified}
        self._offline.put(to, line)
        return {"status": "queued", "to": to, "notified": notified}

    def _send(self, agent: str, line: bytes) -> bool:
        client = self._connections.get(agent)
        return client is not None and client.send(line)

    def _flush(self, agent: str, client: Client) -> None:
        """Send what waited for an agent, in the background and at the pace at which it reads."""
        earlier = self._flushing.pop(agent, None)
        if earlier is not None:
            earlier.cancel()
        if agent in self._offline:
            task = asyncio.create_task(self._send_waiting(agent, client))
            self._flushing[agent] = task

    async def _send_waiting(self, agent: str, client: Client) -> None:
        while (line := self._offline.first(agent)) is not None:
            await client.writable()
            if not client.send(line):
                return
            self._offline.take(agent)
        self._flushing.pop(agent, None)

    def _gone(self, client: Client) -> None:
        self._clients.discard(id(client))
        for agent in [agent for agent, its in self._connections.items() if its is client]:
            self._drop(agent)

    def _drop(self, agent: str) -> None:
        self._connections.pop(agent, None)
        self._capabilities.pop(agent, None)
        for agents in self._subscriptions.values():
            agents.pop(agent, None)
        self._remembered.pop(agent, None)


class UnknownCommand(KsiError):
    """A `transport:message` that is neither PUBLISH nor SUBSCRIBE."""

    code = "invalid_parameter"

    def __init__(self, command: object) -> None:
        super().__init__(f"Unknown transport command: {command}")
