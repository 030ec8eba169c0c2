"""Messages to agents: each goes over the bus, and becomes a turn of an agent that was spawned."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ksi_daemon import wire
from ksi_daemon.agent import parameters
from ksi_daemon.agent.agents import NotSpawned
from ksi_daemon.agent.parameters import AUTHOR
from ksi_daemon.agent.turns import SYSTEM, Refused
from ksi_daemon.errors import InvalidParameter, KsiError, MissingParameter, NotFound, reply_fields
from ksi_daemon.router import Client, Data, Event, Param, texts

if TYPE_CHECKING:
    from ksi_daemon.agent.roster import Agent, Roster
    from ksi_daemon.agent.turns import Turn, Turns
    from ksi_daemon.site import Site

_MESSAGE = Param(
    "message", "dict[str, Any]", "`content` is what a turn is asked, else all of it", required=True
)
_SENDER = Param("sender", "str", "who sends it, and is told the answer", default=SYSTEM)
_FROM = Param("from", "str", "as `sender`")
_SEND = (
    Param("agent_id", "str", "to whom", required=True),
    _MESSAGE,
    _SENDER,
    _FROM,
    Param("wait_for_response", "bool", "reply when the answer is there", default=False),
    Param("timeout", "float", "seconds to wait; KSI_CLAUDE_PROGRESS_TIMEOUT if not given"),
)
_BROADCAST = (
    _MESSAGE,
    Param("exclude_agents", "list[str]", "not to these", default=[]),
    Param("agent_types", "list[str]", "only to agents of these types", default=[]),
    _SENDER,
    _FROM,
)
_ROUTE = (
    Param("task", "str | dict[str, Any]", "what is to be done", required=True),
    Param("required_capabilities", "list[str]", "what the agent must be able to do", default=[]),
    Param("capabilities", "list[str]", "as `required_capabilities`", default=[]),
    Param("exclude", "list[str]", "not to these", default=[]),
    _SENDER,
    _FROM,
)
_WORDS = ("content", "prompt", "text")
_TOLD = ("message:publish", "completion:async")


class NoAgent(KsiError):
    """No agent can do what a task needs; the text is the bus's own."""

    code = "no_recipient"

    def __init__(self) -> None:
        super().__init__("No capable agent found")


class NoAnswerYet(KsiError):
    """The wait for an answer is over, the turn is not."""

    code = "turn_timeout"

    def __init__(self, turn: Turn, seconds: float) -> None:
        super().__init__(f"no answer within {seconds:g} s; it still comes as the end of {turn.request_id}")
        self._told = {"status": "timeout", "agent_id": turn.agent_id, "request_id": turn.request_id}

    def fields(self) -> dict[str, Any]:
        """`code`, and which request to listen for."""
        return {"code": self.code, "retryable": False, **self._told}


class Sending:
    """The events that say something to agents."""

    def __init__(self, agents: Roster, turns: Turns, site: Site) -> None:
        self._agents = agents
        self._turns = turns
        self._site = site

    def events(self) -> tuple[Event, ...]:
        """To one, to many, to whoever can."""
        return (
            Event("agent:send_message", self.send_message, "Send a message to an agent", _SEND, _TOLD),
            Event("agent:broadcast", self.broadcast, "Send a message to many agents", _BROADCAST, _TOLD),
            Event(
                "agent:route_task", self.route_task, "Give a task to an agent that can do it", _ROUTE, _TOLD
            ),
        )

    async def send_message(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Send on the bus, then queue a turn of a spawned agent; `wait_for_response` waits for its answer.

        Raises `NotFound`, `NotSpawned`, `NoAnswerYet`, and `Refused` with the turn's own error.
        """
        agent = self._agents.find(parameters.agent_id(data))
        message, sender = parameters.required_part(data, "message"), _sender(data)
        wait = parameters.flag(data, "wait_for_response")
        limit = parameters.seconds(data, "timeout", self._site.settings.claude_progress_timeout)
        if wait and agent.external:
            raise NotSpawned(agent.agent_id, "there is no turn to wait for: it answers on the bus")
        sent = {**message, "to": agent.agent_id}
        delivery = await self._turns.publish("DIRECT_MESSAGE", sender, sent)
        turn = await self._ask(agent, _prompt("Message", sender, message), sender, delivery)
        told = {"agent_id": agent.agent_id, "request_id": turn and turn.request_id, "delivery": delivery}
        if turn is None or not wait:
            return {"status": "sent", **told}
        return {"status": "answered", **told, **await self._answer(turn, limit)}

    async def broadcast(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Tell the bus once, and each agent that is meant; a turn that is refused fails for its agent only.

        Raises `Refused` when the bus refuses: then nobody is told.
        """
        message, sender = parameters.required_part(data, "message"), _sender(data)
        meant = self._meant(data, sender)
        await self._turns.publish("BROADCAST", sender, message)
        prompt = _prompt("Message", sender, message)
        failed = await asyncio.gather(*(self._tell(agent, prompt, sender) for agent in meant))
        failures = [failure for failure in failed if failure is not None]
        return {
            "status": "broadcast",
            "agents": [agent.agent_id for agent in meant],
            "delivered": len(meant) - len(failures),
            "failed": failures,
            "total": len(meant),
        }

    async def route_task(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Give a task to the agent with the fewest requests that can do it, the oldest of those.

        Raises `NoAgent`, `Refused`.
        """
        task, sender = _task(data), _sender(data)
        able = texts(data, "required_capabilities") or texts(data, "capabilities")
        excluded = {*texts(data, "exclude"), sender}
        found = [agent for agent in self._agents if agent.can(able) and agent.agent_id not in excluded]
        if not found:
            raise NoAgent
        agent = min(found, key=lambda agent: self._turns.count(agent.agent_id))
        sent = {"to": agent.agent_id, "task": task, "required_capabilities": able}
        delivery = await self._turns.publish("TASK_ASSIGNMENT", sender, sent)
        turn = await self._ask(agent, _prompt("Task", sender, task), sender, delivery)
        return {"status": "routed", "agent_id": agent.agent_id, "request_id": turn and turn.request_id}

    def _meant(self, data: Data, sender: str) -> list[Agent]:
        excluded = {*texts(data, "exclude_agents"), sender}
        kinds = texts(data, "agent_types")
        return [
            agent
            for agent in self._agents
            if agent.agent_id not in excluded and (not kinds or agent.agent_type in kinds)
        ]

    async def _ask(self, agent: Agent, prompt: str, sender: str, delivery: Any) -> Turn | None:
        """A turn of an agent that takes them; what is refused now has gone over the bus already."""
        if agent.external:
            return None
        try:
            if self._agents.get(agent.agent_id) is not agent:
                raise NotFound(f"Agent {agent.agent_id} not found")
            return await self._turns.ask(agent, prompt, sender)
        except KsiError as error:
            raise Refused(reply_fields(error), agent_id=agent.agent_id, delivery=delivery) from error

    async def _tell(self, agent: Agent, prompt: str, sender: str) -> dict[str, Any] | None:
        """Why an agent was not told, or None."""
        try:
            await self._ask(agent, prompt, sender, None)
        except KsiError as error:
            return {"agent_id": agent.agent_id, "error": str(error), "code": error.fields()["code"]}
        return None

    async def _answer(self, turn: Turn, limit: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(limit):
                await turn.over.wait()
        except TimeoutError:
            raise NoAnswerYet(turn, limit) from None
        if "error" in turn.outcome:
            raise Refused(turn.outcome, agent_id=turn.agent_id, request_id=turn.request_id)
        return turn.outcome


def _sender(data: Data) -> str:
    """Who sends: the agent whose answer held the event, else whoever is named."""
    named = (parameters.optional_id(data, name) for name in (AUTHOR, "sender", "from"))
    return next((name for name in named if name is not None), SYSTEM)


def _task(data: Data) -> str | Data:
    task = data.get("task")
    if task is None or task in ("", {}):
        raise MissingParameter("task")
    if type(task) is not str and type(task) is not dict:
        raise InvalidParameter("task", "a string or an object", task)
    return task


def _prompt(what: str, sender: str, message: str | Data) -> str:
    """What a turn is asked. Its first line is ours, so that no message is taken for a command or a file."""
    return f"{what} from {' '.join(sender.split())}:\n{_words(message)}"


def _words(message: str | Data) -> str:
    if isinstance(message, str):
        return message
    said = (message[name] for name in _WORDS if name in message)
    found = next((words for words in said if type(words) is str and words), None)
    return found if found is not None else wire.encode(message).decode().rstrip("\n")
