"""The events about agents themselves: made, ended, made known, and found."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ksi_daemon import wire
from ksi_daemon.agent import parameters
from ksi_daemon.agent.roster import TYPE, Agent, AlreadyExists, Roster, options
from ksi_daemon.errors import KsiError
from ksi_daemon.router import Client, Data, Event, Param, texts

if TYPE_CHECKING:
    from ksi_daemon.agent.turns import Turn, Turns
    from ksi_daemon.site import Site

_AGENT = Param("agent_id", "str", "the agent", required=True, max_length=parameters.LONGEST_ID)
_ABLE = Param("capabilities", "list[str]", "what it can do", default=[])
_TYPE = Param("agent_type", "str", "its kind, by which others find it", default=TYPE)
_PROFILE = Param("profile", "str", "its profile; only shown")
_FORCE = Param("force", "bool", "end the turn that runs, too", default=False)

_SPAWN = (
    Param("agent_id", "str", "its id; a new one if there is none"),
    _PROFILE,
    Param("prompt", "str", "its first turn"),
    Param("task", "str", "as `prompt`"),
    Param("model", "str", "as for completion:async"),
    Param("session_id", "str", "the conversation to go on with"),
    Param(
        "config",
        "dict[str, Any]",
        "of each turn: model, allowed_tools, disallowed_tools, max_turns, mcp_config_path, sandbox_dir",
        default={},
    ),
    _ABLE,
    _TYPE,
    Param("originator_agent_id", "str", "the agent on whose behalf it is spawned"),
    Param("metadata", "dict[str, Any]", "kept with it", default={}),
)
_BEGINS = ("completion:async",)
_ENDS = ("completion:cancel",)
_PEER = ("agent_id", "profile", "agent_type", "capabilities", "status")


class NotSpawned(KsiError):
    """A registered agent takes no turns, and is asked for something that needs one."""

    code = "invalid_parameter"

    def __init__(self, agent_id: str, why: str) -> None:
        super().__init__(f"Agent {agent_id} was not spawned: {why}")


class Agents:
    """The service of those events."""

    def __init__(self, roster: Roster, turns: Turns, site: Site) -> None:
        self._roster = roster
        self._turns = turns
        self._site = site

    def events(self) -> tuple[Event, ...]:
        """From spawn to discover_peers."""
        states = ("idle", "busy", "failed", "registered")
        listed = Param("status", "str", "only those in this state", allowed_values=states)
        origin = Param("originator_id", "str", "only those of this one; also as originator_agent_id")
        info = Param("info", "dict[str, Any]", "kept with it; may hold the others", default={})
        only = Param("agent_id", "str", "only this agent")
        known = (_AGENT, _PROFILE, _ABLE, info)
        wanted = (_AGENT, Param("capabilities", "list[str]", "who has all of these", default=[]), _TYPE)
        return (
            Event(
                "agent:spawn",
                self.spawn,
                "Make an agent, with a first turn if there is a prompt",
                _SPAWN,
                _BEGINS,
            ),
            Event("agent:terminate", self.terminate, "End an agent", (_AGENT, _FORCE), _ENDS),
            Event(
                "agent:restart",
                self.restart,
                "End an agent and spawn it anew",
                (_AGENT, _FORCE),
                (*_ENDS, *_BEGINS),
            ),
            Event("agent:register", self.register, "Make an agent known that lives elsewhere", known),
            Event("agent:unregister", self.unregister, "Forget an agent", (_AGENT,)),
            Event("agent:list", self.agents, "List agents", (listed,)),
            Event("agent:list_constructs", self.constructs, "List agents with an originator", (origin,)),
            Event("agent:get_capabilities", self.capabilities, "Show who can do what", (only,)),
            Event("agent:discover_peers", self.peers, "List the others", wanted),
        )

    async def spawn(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Answered when the first turn is queued; when the queue refuses it there is no agent.

        Raises `AlreadyExists`, `TooManyAgents`, `Refused`, and for wrong parameters.
        """
        agent = self._asked(data)
        turn = await self._begin(agent)
        return {
            "agent_id": agent.agent_id,
            "status": "created",
            "profile": agent.profile,
            "session_id": agent.resumes,
            "request_id": turn and turn.request_id,
        }

    async def terminate(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """What waits is cancelled; what runs too with `force`, else it may end and is told."""
        agent, force = self._roster.find(parameters.agent_id(data)), parameters.flag(data, "force")
        self._roster.drop(agent)
        cancelled = await self._turns.cancel(agent.agent_id, running=force)
        return {"agent_id": agent.agent_id, "status": "terminated", "cancelled": cancelled}

    async def restart(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """The same settings and prompt in a new session. Raises `NotSpawned`, `Refused`: then it is gone."""
        agent, force = self._roster.find(parameters.agent_id(data)), parameters.flag(data, "force")
        if agent.external:
            raise NotSpawned(agent.agent_id, "it cannot be restarted here")
        self._roster.drop(agent)
        await self._turns.cancel(agent.agent_id, running=force)
        fresh = replace(
            agent, created_at=self._now(), resumes=None, session_id=None, begun=False, failed=False
        )
        turn = await self._begin(fresh)
        return {"agent_id": agent.agent_id, "status": "restarted", "request_id": turn and turn.request_id}

    async def register(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """What is given replaces what was known; an agent that was spawned goes on taking turns."""
        agent_id, info = parameters.agent_id(data), parameters.part(data, "info")
        named = [parameters.optional(part, "profile") for part in (data, info)]
        able = texts(data, "capabilities") or texts(info, "capabilities")
        kind = parameters.optional(info, "agent_type")
        agent = self._roster.get(agent_id)
        if agent is None:
            agent = Agent(agent_id, self._now(), external=True)
            self._roster.add(agent)
        agent.profile = named[0] or named[1] or agent.profile
        agent.capabilities = list(able) or agent.capabilities
        agent.agent_type, agent.info = kind or agent.agent_type, info or agent.info
        return {"agent_id": agent_id, "status": "registered"}

    async def unregister(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Forget it; its requests go on, and are told. Raises `NotFound`."""
        agent = self._roster.find(parameters.agent_id(data))
        self._roster.drop(agent)
        return {"agent_id": agent.agent_id, "status": "unregistered"}

    async def agents(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """The oldest first."""
        status = parameters.optional(data, "status")
        found = [self._line(agent) for agent in self._roster if status in (None, self._status(agent))]
        return {"agents": found, "count": len(found)}

    async def constructs(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Those that were spawned on behalf of one agent, or of any."""
        names = [parameters.optional_id(data, name) for name in ("originator_id", "originator_agent_id")]
        wanted = names[0] or names[1]
        found = [
            {**self._line(agent), "originator_agent_id": agent.originator}
            for agent in self._roster
            if agent.originator is not None and wanted in (None, agent.originator)
        ]
        return {"constructs": found, "count": len(found)}

    async def capabilities(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """One agent's, or everybody's by id. Raises `NotFound`."""
        agent_id = parameters.optional_id(data)
        if agent_id is None:
            return {"capabilities": {agent.agent_id: list(agent.capabilities) for agent in self._roster}}
        return {"agent_id": agent_id, "capabilities": list(self._roster.find(agent_id).capabilities)}

    async def peers(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Everybody else who can do all that is wanted. Raises `NotFound`."""
        agent = self._roster.find(parameters.agent_id(data))
        able, kind = texts(data, "capabilities"), parameters.optional(data, "agent_type")
        lines = [
            self._line(other)
            for other in self._roster
            if other is not agent and other.can(able) and kind in (None, other.agent_type)
        ]
        found = [{name: line[name] for name in _PEER} for line in lines]
        return {"agent_id": agent.agent_id, "peers": found, "count": len(found)}

    def _asked(self, data: Data) -> Agent:
        agent_id, config = parameters.optional_id(data), parameters.part(data, "config")
        if agent_id is not None and agent_id in self._roster:
            raise AlreadyExists(agent_id)
        session = parameters.optional(data, "session_id")
        return Agent(
            agent_id or self._new_id(),
            self._now(),
            profile=parameters.optional(data, "profile"),
            agent_type=parameters.optional_id(data, "agent_type") or TYPE,
            capabilities=list(texts(data, "capabilities")),
            prompt=parameters.optional(data, "prompt") or parameters.optional(data, "task"),
            model=parameters.optional(data, "model") or parameters.optional(config, "model"),
            resumes=session,
            session_id=session,
            options=options(config),
            originator=parameters.optional_id(data, "originator_agent_id"),
            metadata=parameters.part(data, "metadata"),
        )

    async def _begin(self, agent: Agent) -> Turn | None:
        """Add it and ask for its first turn; it is not there when that is refused."""
        self._roster.add(agent)
        if agent.prompt is None:
            return None
        try:
            return await self._turns.ask(agent, agent.prompt)
        except BaseException:
            self._roster.drop(agent)
            raise

    def _line(self, agent: Agent) -> dict[str, Any]:
        return {
            "agent_id": agent.agent_id,
            "status": self._status(agent),
            "profile": agent.profile,
            "agent_type": agent.agent_type,
            "capabilities": list(agent.capabilities),
            "session_id": agent.session_id,
            "created_at": agent.created_at,
            "active_requests": self._turns.count(agent.agent_id),
        }

    def _status(self, agent: Agent) -> str:
        if agent.external:
            return "registered"
        if self._turns.count(agent.agent_id):
            return "busy"
        return "failed" if agent.failed else "idle"

    def _new_id(self) -> str:
        while (made := f"agent_{self._site.new_id()[:8]}") in self._roster:
            pass
        return made

    def _now(self) -> str:
        return wire.utc_stamp(self._site.clock())
