"""Who is there: agents in memory, those that take turns and those that live elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ksi_daemon.agent import parameters
from ksi_daemon.errors import KsiError, NotFound
from ksi_daemon.router import texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ksi_daemon.router import Data

MOST = 10_000
"""Agents at a time."""

TYPE = "agent"
"""What an agent is of whom nothing else is said."""


class AlreadyExists(KsiError):
    """An agent is to be spawned under an id that one has."""

    code = "already_exists"

    def __init__(self, agent_id: str) -> None:
        super().__init__(f"Agent {agent_id} already exists")


class TooManyAgents(KsiError):
    """There are as many agents as there may be."""

    code = "queue_full"

    def __init__(self) -> None:
        super().__init__(f"there are {MOST} agents; terminate or unregister some")


@dataclass(slots=True, eq=False)
class Agent:
    """`resumes` is the session it was spawned to go on with, `session_id` the last that it answered in.

    `external` ones were registered and take no turns. `options` are those of each turn, by the names of
    `claude_cli:turn`; `begun` is whether it was asked for a turn, `failed` whether its last was no answer.
    """

    agent_id: str
    created_at: str
    external: bool = False
    profile: str | None = None
    agent_type: str = TYPE
    capabilities: list[str] = field(default_factory=list)
    prompt: str | None = None
    model: str | None = None
    resumes: str | None = None
    session_id: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    originator: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    begun: bool = False
    failed: bool = False

    def can(self, wanted: Iterable[str]) -> bool:
        """Whether it has all these capabilities."""
        return set(wanted) <= set(self.capabilities)

    def plain(self) -> dict[str, Any]:
        """What a checkpoint keeps of it; `from_plain` reads it."""
        left_out = {"begun", "failed"}
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in left_out}


class Roster:
    """Agents by id, the oldest first. `now` gives the stamp of one restored that has none."""

    def __init__(self, now: Callable[[], str]) -> None:
        self._now = now
        self._agents: dict[str, Agent] = {}

    def __iter__(self) -> Iterator[Agent]:
        return iter(list(self._agents.values()))

    def __contains__(self, agent_id: object) -> bool:
        return agent_id in self._agents

    def get(self, agent_id: str) -> Agent | None:
        """The agent of that id, or None."""
        return self._agents.get(agent_id)

    def find(self, agent_id: str) -> Agent:
        """Raises `NotFound`."""
        if agent_id not in self._agents:
            raise NotFound(f"Agent {agent_id} not found")
        return self._agents[agent_id]

    def add(self, agent: Agent) -> None:
        """Raises `AlreadyExists`, `TooManyAgents`."""
        if agent.agent_id in self._agents:
            raise AlreadyExists(agent.agent_id)
        if len(self._agents) >= MOST:
            raise TooManyAgents
        self._agents[agent.agent_id] = agent

    def drop(self, agent: Agent) -> None:
        """Take this very one out; harmless when another has its id by now."""
        if self._agents.get(agent.agent_id) is agent:
            del self._agents[agent.agent_id]

    def plain(self) -> dict[str, Any]:
        """All of them, as a checkpoint keeps them."""
        return {agent.agent_id: agent.plain() for agent in self}

    def restore(self, states: Mapping[str, Data]) -> dict[str, Agent]:
        """Agents from a checkpoint; nothing changes yet. Raises `InvalidParameter`, `TooManyAgents`."""
        if len(states) > MOST:
            raise TooManyAgents
        return {agent_id: from_plain(agent_id, state, self._now()) for agent_id, state in states.items()}

    def replace(self, agents: Mapping[str, Agent]) -> None:
        """Have these instead of all there are."""
        self._agents = dict(agents)


def from_plain(agent_id: str, state: Data, now: str) -> Agent:
    """An agent that goes on in its last session. Raises `InvalidParameter`."""
    session = parameters.optional(state, "session_id") or parameters.optional(state, "resumes")
    return Agent(
        agent_id,
        parameters.optional(state, "created_at") or now,
        external=parameters.flag(state, "external"),
        profile=parameters.optional(state, "profile"),
        agent_type=parameters.optional(state, "agent_type") or TYPE,
        capabilities=list(texts(state, "capabilities")),
        prompt=parameters.optional(state, "prompt"),
        model=parameters.optional(state, "model"),
        resumes=session,
        session_id=session,
        options=options(parameters.part(state, "options")),
        originator=parameters.optional(state, "originator"),
        metadata=parameters.part(state, "metadata"),
        info=parameters.part(state, "info"),
    )


def options(given: Data) -> dict[str, Any]:
    """The options of each turn, checked for their types; those not given are left out."""
    found = {
        "allowed_tools": list(texts(given, "allowed_tools")),
        "disallowed_tools": list(texts(given, "disallowed_tools")),
        "max_turns": parameters.whole(given, "max_turns"),
        "mcp_config_path": parameters.optional(given, "mcp_config_path"),
        "sandbox_dir": parameters.optional(given, "sandbox_dir"),
    }
    return {name: value for name, value in found.items() if value}
