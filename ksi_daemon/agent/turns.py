"""The turns of agents: asked of the completion queue, and what comes of them told on the bus.

An answer is told as `COMPLETION_RESULT`, and to whoever sent the message as `DIRECT_MESSAGE`. Nothing that is
told so begins a turn, so no two agents can answer each other for ever.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from ksi_daemon.errors import KsiError, ShuttingDown, reply_fields

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ksi_daemon.agent.roster import Agent, Roster
    from ksi_daemon.router import Data
    from ksi_daemon.site import Site

log = structlog.get_logger("ksi.agent")

STOP = 0.3
"""Seconds that a stop leaves for answers to be told on the bus."""

SYSTEM = "system"
"""Who sends a message when nobody is named; it is told no answer."""


class Refused(KsiError):
    """What another room answered was an error; its text and fields are that room's own."""

    def __init__(self, reply: Data, **more: Any) -> None:
        super().__init__(str(reply["error"]))
        told = {name: value for name, value in reply.items() if name not in ("error", "status")}
        self._fields = {"code": self.code, **told, **more}

    def fields(self) -> dict[str, Any]:
        """The other room's, and what was done before it refused."""
        return self._fields


class Turn:
    """One request of an agent; `outcome` is `response` and `session_id`, or an error's `error` and `code`."""

    __slots__ = ("agent_id", "model", "outcome", "over", "request_id", "running", "sender")

    def __init__(self, request_id: str, agent: Agent, sender: str) -> None:
        self.request_id = request_id
        self.agent_id = agent.agent_id
        self.model = agent.model
        self.sender = sender
        self.running = False
        self.over = asyncio.Event()
        self.outcome: dict[str, Any] = {}

    def end(self, **outcome: Any) -> None:
        """Tell whoever waits."""
        self.outcome = outcome
        self.over.set()


class Turns:
    """The requests that are not over, by name."""

    def __init__(self, roster: Roster, site: Site) -> None:
        self._roster = roster
        self._site = site
        self._turns: dict[str, Turn] = {}
        self._of: dict[str, dict[str, Turn]] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._stopped = False

    def start(self) -> None:
        """Hear of every completion."""
        hub = self._site.hub
        hub.listen("completion:progress", self._progressed)
        hub.listen("completion:result", self._answered)
        hub.listen("completion:error", self._failed)
        hub.listen("completion:cancelled", self._cancelled)

    async def stop(self) -> None:
        """Tell those who wait that we stop, and let answers under way reach the bus."""
        self._stopped = True
        for turn in self._turns.values():
            turn.end(**reply_fields(ShuttingDown()))
        if self._telling:
            _, late = await asyncio.wait(self._telling, timeout=STOP)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def of(self, agent: str) -> list[Turn]:
        """One agent's, in the order in which they were asked."""
        return list(self._of.get(agent, {}).values())

    def count(self, agent: str) -> int:
        """How many of an agent's turns are not over."""
        return len(self._of.get(agent, ()))

    def plain(self) -> dict[str, Any]:
        """Every request's agent and sender."""
        return {name: [turn.agent_id, turn.sender, turn.running] for name, turn in self._turns.items()}

    async def ask(self, agent: Agent, prompt: str, sender: str = SYSTEM) -> Turn:
        """Queue a turn of an agent. Raises `Refused` with the queue's own error, `ShuttingDown`."""
        if self._stopped:
            raise ShuttingDown
        turn = Turn(self._site.new_id(), agent, sender)
        self._add(turn)
        asked, agent.begun = _request(turn, agent, prompt), True
        queued = False
        try:
            reply = await self._site.hub.ask("completion:async", asked)
            queued = not is_error(reply)
        finally:
            if not queued:
                self._take(turn.request_id)
        if not queued:
            raise Refused(reply)
        return turn

    async def cancel(self, agent: str, *, running: bool) -> list[str]:
        """Cancel what waits of an agent, and with `running` what runs too; the names of those cancelled.

        What waits goes first, so that nothing begins in between.
        """
        turns = self.of(agent)
        waiting = [turn for turn in turns if not turn.running]
        under_way = [turn for turn in turns if turn.running] if running else []
        done = {turn.request_id for turn in (*waiting, *under_way) if await self._cancel(turn)}
        return [turn.request_id for turn in turns if turn.request_id in done]

    async def publish(self, kind: str, sender: str, message: Data) -> Any:
        """Put a message on the bus; what the bus answers. Raises `Refused`."""
        data = {"agent_id": sender, "event_type": kind, "message": message}
        reply = await self._site.hub.ask("message:publish", data)
        if is_error(reply):
            raise Refused(reply)
        return reply

    async def _cancel(self, turn: Turn) -> bool:
        reply = await self._site.hub.ask("completion:cancel", {"request_id": turn.request_id})
        if is_error(reply):
            if reply.get("code") == "not_found":  # it will come to no end that anybody tells
                self._cancelled({"request_id": turn.request_id})
            return False
        self._cancelled({"request_id": turn.request_id})
        return True

    def _add(self, turn: Turn) -> None:
        self._turns[turn.request_id] = turn
        self._of.setdefault(turn.agent_id, {})[turn.request_id] = turn

    def _take(self, request: object) -> Turn | None:
        """A request that is over now; None when it is none of ours."""
        turn = self._turns.pop(request, None) if type(request) is str else None
        if turn is not None:
            its = self._of[turn.agent_id]
            del its[turn.request_id]
            if not its:
                del self._of[turn.agent_id]
        return turn

    def _progressed(self, data: Data) -> None:
        turn = self._turns.get(data["request_id"])
        if turn is not None:
            turn.running = True

    def _answered(self, data: Data) -> None:
        turn = self._take(data["request_id"])
        if turn is None:
            return
        text, session = _said(data["result"]["response"])
        agent = self._roster.get(turn.agent_id)
        if agent is not None:
            agent.failed = False
            agent.session_id = session or agent.session_id
        turn.end(response=text, session_id=session)
        self._tell(self._publish_answer(turn, text, session))

    def _failed(self, data: Data) -> None:
        turn = self._take(data["request_id"])
        if turn is None:
            return
        agent = self._roster.get(turn.agent_id)
        if agent is not None:
            agent.failed = True
        turn.end(**{name: value for name, value in data.items() if name not in ("request_id", "agent_id")})

    def _cancelled(self, data: Data) -> None:
        turn = self._take(data["request_id"])
        if turn is not None:
            turn.end(error=f"Request {turn.request_id} was cancelled", code="cancelled")

    def _tell(self, telling: Coroutine[Any, Any, None]) -> None:
        """In a task of its own: whoever tells us of an answer must not wait."""
        if self._stopped:
            telling.close()
            return
        task = asyncio.create_task(telling)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _publish_answer(self, turn: Turn, text: str, session: str | None) -> None:
        result = {"response": text, "session_id": session, "model": turn.model}
        message = {"client_id": turn.agent_id, "request_id": turn.request_id, "result": result}
        try:
            await self.publish("COMPLETION_RESULT", turn.agent_id, message)
            if turn.sender != SYSTEM:
                answer = {"to": turn.sender, "content": text, "in_reply_to": turn.request_id}
                await self.publish("DIRECT_MESSAGE", turn.agent_id, answer)
        except Refused as error:
            log.error("answer not on the bus", request_id=turn.request_id, error=str(error))  # noqa: TRY400


def is_error(reply: object) -> bool:
    """Whether a room's answer is an error."""
    return isinstance(reply, dict) and "error" in reply


def _request(turn: Turn, agent: Agent, prompt: str) -> Data:
    """The parameters of `completion:async`."""
    asked: Data = {"request_id": turn.request_id, "prompt": prompt, "agent_id": agent.agent_id}
    named = {"model": agent.model, "session_id": agent.resumes}
    asked |= {name: value for name, value in named.items() if value is not None}
    asked["originator_id"] = agent.agent_id
    tools = ("allowed_tools", "disallowed_tools")
    ksi: Data = {name: value for name, value in agent.options.items() if name not in tools}
    if permissions := {name: agent.options[name] for name in tools if name in agent.options}:
        ksi["permissions"] = permissions
    if (
        not agent.begun and agent.resumes is None
    ):  # what an earlier agent of its id said is none of its business
        ksi["new_session"] = True
    return {**asked, "extra_body": {"ksi": ksi}} if ksi else asked


def _said(response: Data) -> tuple[str, str | None]:
    """The text and the session of the command's own answer."""
    text, session = response.get("result"), response.get("session_id")
    return text if type(text) is str else "", session if type(session) is str else None
