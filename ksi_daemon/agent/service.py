"""The room's service: identities, agents, what is said to them, and checkpoints of it all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ksi_daemon import wire
from ksi_daemon.agent.agents import Agents
from ksi_daemon.agent.checkpoint import Checkpoint
from ksi_daemon.agent.identities import Identities
from ksi_daemon.agent.roster import Roster
from ksi_daemon.agent.sending import Sending
from ksi_daemon.agent.turns import Turns

if TYPE_CHECKING:
    from ksi_daemon.agent.contract import IdentityStore
    from ksi_daemon.router import Event
    from ksi_daemon.site import Site


class AgentService:
    """Identities are in a file, agents in memory; neither knows the other."""

    def __init__(self, store: IdentityStore, site: Site) -> None:
        self._roster = Roster(lambda: wire.utc_stamp(site.clock()))
        self._identities = Identities(store, site)
        self._turns = Turns(self._roster, site)
        self._agents = Agents(self._roster, self._turns, site)
        self._sending = Sending(self._roster, self._turns, site)
        self._checkpoint = Checkpoint(self._roster, self._identities)

    def events(self) -> tuple[Event, ...]:
        """Of identities, agents, messages and checkpoints."""
        parts = (self._identities, self._agents, self._sending, self._checkpoint)
        return tuple(event for part in parts for event in part.events())

    async def start(self) -> None:
        """Hear of completions, and load the identities; there are no agents yet."""
        self._turns.start()
        await self._identities.start()

    async def stop(self) -> None:
        """Let answers and changes under way come to their end, a third of a second at most."""
        await asyncio.gather(self._turns.stop(), self._identities.stop())

    def memory(self) -> dict[str, Any]:
        """Identities as they are saved, agents, and their requests."""
        return {
            "identities": dict(self._identities.saved),
            "agents": self._roster.plain(),
            "requests": self._turns.plain(),
        }
