"""Small rooms to measure: identities on either side, without anything else of the room of agents."""

from __future__ import annotations

import json
import os

from ksi_daemon.agent.contract import IdentityStore
from ksi_daemon.area import Area
from ksi_daemon.errors import KsiError
from ksi_daemon.exercise import Exercise, Step
from ksi_daemon.lane import Lane
from ksi_daemon.router import Event


class SyncToy:
    """Everything written, inline."""

    def __init__(self, site):
        self.path = site.settings.identity_storage_path

    def open(self):
        """Nothing to open."""

    def close(self):
        """Nothing to close."""

    def load(self):
        """All identities."""
        return json.loads(self.path.read_bytes())

    def save(self, identities, _changed):
        """The file replaced whole."""
        temp = self.path.with_suffix(".tmp")
        temp.write_text(json.dumps(identities, indent=2))
        os.rename(temp, self.path)


class AsyncToy:
    """The same on a lane; callers that come meanwhile share a save."""

    def __init__(self, site):
        self._side = SyncToy(site)
        self._shared = None

    async def open(self):
        """The lane."""
        self._lane = Lane("toy")

    async def close(self):
        """The lane."""
        await self._lane.close(1)

    async def load(self):
        """All identities."""
        return await self._lane.run(self._side.load)

    async def save(self, identities, changed):
        """The file replaced whole."""
        given = dict(identities)
        await self._lane.run(lambda: self._side.save(given, changed))


class ToyAgents:
    """Create and update, as the contract has them."""

    def __init__(self, store, site):
        self._store, self._clock = store, site.clock
        self._all = {}

    def events(self):
        """Two."""
        return (
            Event("agent:create_identity", self.create, "Create"),
            Event("agent:update_identity", self.update, "Update"),
        )

    async def start(self):
        """From the file."""
        self._all = await self._store.load()

    async def stop(self):
        """Nothing runs."""

    async def create(self, data, _client):
        """A new one."""
        await self._put(data["agent_id"], data["identity"])
        return {"status": "created"}

    async def update(self, data, _client):
        """A changed one."""
        if data["agent_id"] not in self._all:
            raise KsiError(f"Identity for {data['agent_id']} not found")
        old = self._all[data["agent_id"]]
        await self._put(data["agent_id"], {**old, **data["updates"], "updated_at": f"at {self._clock()}"})
        return {"status": "updated"}

    async def _put(self, agent, identity):
        self._all[agent] = identity
        await self._store.save(self._all, [agent])


AGENTS = Area(
    name="agent",
    title="toy agents",
    kind="replace",
    week=2,
    contract=IdentityStore,
    sync=SyncToy,
    aio=AsyncToy,
    service=ToyAgents,  # type: ignore[arg-type]  # it holds nothing that parity would compare
    exercise=Exercise(("var/db/identities.json",), (), (Step("a"), Step("b"))),
    reads=frozenset({"load"}),
)
