"""Identities: what agents are called and what they are for, kept in one file.

Memory follows the file: a change enters it when its save has succeeded. Until then later changes build on it
and nobody reads it; see `overlay` for the order in which outcomes may come.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from ksi_daemon import wire
from ksi_daemon.agent import parameters
from ksi_daemon.agent.overlay import Overlay, View
from ksi_daemon.errors import KsiError, NotFound
from ksi_daemon.lane import CancelledTooLate
from ksi_daemon.router import Client, Data, Event, Param

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ksi_daemon.agent.contract import IdentityStore
    from ksi_daemon.site import Site

log = structlog.get_logger("ksi.agent")

STOP = 0.3
"""Seconds that a stop waits for the changes under way; the store answers the others when it is closed."""

_AGENT = (Param("agent_id", "str", "whose identity", required=True),)


class Unreadable(KsiError):
    """The file was never read since the start, so nothing is answered and nothing is written over it."""

    code = "unreadable"

    def __init__(self, cause: KsiError) -> None:
        super().__init__(f"identities are not loaded: {cause}")
        self._cause = cause

    def fields(self) -> dict[str, Any]:
        """The cause's, with the code `unreadable`."""
        return {**self._cause.fields(), "code": self.code}


class Identities:
    """The five identity events (the KSI contract, 3.4)."""

    def __init__(self, store: IdentityStore, site: Site) -> None:
        self._store = store
        self._site = site
        self._overlay = Overlay()
        self._loaded = False
        self._loading = asyncio.Lock()
        self._quiet = asyncio.Event()
        self._quiet.set()

    def events(self) -> tuple[Event, ...]:
        """Create, update, remove, list, get."""
        name = Param("agent_id", "str", "whose identity; a new id if there is none")
        given = Param("identity", "dict[str, Any]", "its keys, such as name and role", default={})
        keys = Param("identity", "dict[str, Any]", "the keys to set", default={})
        updates = Param("updates", "dict[str, Any]", "as `identity`, and wins over it", default={})
        return (
            Event("agent:create_identity", self.create, "Store an agent's identity", (name, given)),
            Event("agent:update_identity", self.update, "Set keys of an identity", (*_AGENT, keys, updates)),
            Event("agent:remove_identity", self.remove, "Remove an identity", _AGENT),
            Event("agent:list_identities", self.list, "List the stored identities"),
            Event("agent:get_identity", self.get, "Show one identity", _AGENT),
        )

    async def start(self) -> None:
        """Load the file; one that cannot be read is tried again with each request."""
        try:
            await self._ready()
        except Unreadable as error:
            log.error("identities could not be loaded", error=str(error))  # noqa: TRY400 - its own words say it

    async def stop(self) -> None:
        """Wait for the changes under way; what was acknowledged is in the file."""
        if not self._quiet.is_set():
            waiting = asyncio.create_task(self._quiet.wait())
            await asyncio.wait([waiting], timeout=STOP)
            waiting.cancel()

    @property
    def saved(self) -> Mapping[str, Any]:
        """What the file holds."""
        return self._overlay.saved

    async def create(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Store an identity, over one that the agent may have; given keys win over ours."""
        given = parameters.identity(data, "identity")
        agent = parameters.optional_id(data) or f"agent_{self._site.new_id()[:8]}"

        def made(_latest: Mapping[str, Any]) -> dict[str, Any]:
            created, updated = self._stamp(), self._stamp()
            return {agent: {"agent_id": agent, "created_at": created, "updated_at": updated, **given}}

        await self._change(made)
        return {"agent_id": agent, "status": "created"}

    async def update(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Merge keys into an identity, on the first level. Raises `NotFound`."""
        agent = parameters.agent_id(data)
        given = {**parameters.identity(data, "identity"), **parameters.identity(data, "updates")}

        def merged(latest: Mapping[str, Any]) -> dict[str, Any]:
            identity = _identity(latest, agent)
            return {agent: {**_keys(identity), **given, "updated_at": self._stamp()}}

        await self._change(merged)
        return {"agent_id": agent, "status": "updated"}

    async def remove(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """Remove an identity. Raises `NotFound`."""
        agent = parameters.agent_id(data)

        def gone(latest: Mapping[str, Any]) -> dict[str, Any]:
            _identity(latest, agent)
            return {agent: None}

        await self._change(gone)
        return {"status": "removed"}

    async def list(self, _data: Data, _client: Client | None) -> dict[str, Any]:
        """All that are saved, in the order of the file."""
        await self._ready()
        found = [_row(agent, _keys(identity)) for agent, identity in self.saved.items()]
        return {"identities": found, "count": len(found)}

    async def get(self, data: Data, _client: Client | None) -> dict[str, Any]:
        """One that is saved. Raises `NotFound`."""
        agent = parameters.agent_id(data)
        await self._ready()
        return {"agent_id": agent, "identity": _identity(self.saved, agent)}

    async def collect(self) -> dict[str, Any]:
        """A copy of what is saved; the identities in it are never changed. Raises `Unreadable`."""
        await self._ready()
        return dict(self.saved)

    async def restore(self, identities: Mapping[str, Any]) -> None:
        """Have these and no others, with one save; those that were there keep their places in the file."""
        await self._change(lambda latest: {**dict.fromkeys(latest), **identities})

    async def _ready(self) -> None:
        """Load the file unless that has been done. Raises `Unreadable`."""
        if self._loaded:
            return
        async with self._loading:
            if self._loaded:
                return
            try:
                self._overlay = Overlay(await self._store.load())
            except KsiError as error:
                raise Unreadable(error) from error
            self._loaded = True

    async def _change(self, values: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        """Save what `values` makes of the latest identities; ask again when those have fallen meanwhile."""
        await self._ready()
        self._quiet.clear()
        try:
            while not await self._saved(values(self._overlay.latest)):
                pass
        finally:
            if not self._overlay:
                self._quiet.set()

    async def _saved(self, values: Mapping[str, Any]) -> bool:
        overlay = self._overlay
        change = overlay.add(values)
        try:
            await self._store.save(View(overlay, change), change.changed)
        except CancelledTooLate as late:
            if late.error is None:
                overlay.done(change)
            else:
                overlay.fall(change, late.error)
            raise
        except asyncio.CancelledError:
            overlay.withdraw(change)
            raise
        except Exception as error:
            overlay.fall(change, error)
            raise
        return overlay.done(change)

    def _stamp(self) -> str:
        return wire.utc_stamp(self._site.clock())


def _identity(identities: Mapping[str, Any], agent: str) -> Any:
    if agent not in identities:
        raise NotFound(f"Identity for {agent} not found")
    return identities[agent]


def _keys(identity: Any) -> Data:
    """An identity's keys; a stored value that is no object has none."""
    return identity if type(identity) is dict else {}


def _row(agent: str, identity: Data) -> dict[str, Any]:
    return {
        "agent_id": agent,
        "name": identity.get("name", ""),
        "role": identity.get("role", ""),
        "created_at": identity.get("created_at"),
    }
