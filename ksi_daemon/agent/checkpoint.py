"""Everything the room knows, taken out and put back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ksi_daemon.agent import parameters
from ksi_daemon.router import Client, Data, Event, Param

if TYPE_CHECKING:
    from ksi_daemon.agent.identities import Identities
    from ksi_daemon.agent.roster import Roster

_RESTORE = (
    Param("agent_state", "dict[str, Any]", "what checkpoint:collect gave: agents and identities"),
    Param("agents", "dict[str, Any]", "agents by id, if there is no agent_state"),
    Param("identities", "dict[str, Any]", "identities by id, if there is no agent_state"),
)


class Checkpoint:
    """`checkpoint:collect` and `checkpoint:restore`."""

    def __init__(self, agents: Roster, identities: Identities) -> None:
        self._agents = agents
        self._identities = identities

    def events(self) -> tuple[Event, ...]:
        """Collect and restore."""
        return (
            Event("checkpoint:collect", self.collect, "Show all agents and identities"),
            Event("checkpoint:restore", self.restore, "Replace all agents and identities", _RESTORE),
        )

    async def collect(self, _data: Data, _client: Client | None) -> dict[str, Any]:
        """Agents as they are, identities as they are saved."""
        identities = await self._identities.collect()
        return {"agent_state": {"agents": self._agents.plain(), "identities": identities}}

    async def restore(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Replace all identities with one save, then all agents; of what is absent or empty nothing changes.

        The reply counts what was restored. Turns under way stay with the agents of the same id.
        """
        state = parameters.part(data, "agent_state") or data
        identities = parameters.objects(state, "identities")
        for agent, identity in identities.items():
            parameters.storable(identity, f"identities.{agent[:80]}")
        agents = self._agents.restore(parameters.objects(state, "agents"))
        if identities:
            await self._identities.restore(identities)
        if agents:
            self._agents.replace(agents)
        status = "restored" if identities or agents else "unchanged"
        return {"status": status, "agents": len(agents), "identities": len(identities)}
