"""The three columns of a file that is replaced whole: identities created and updated, with some in it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ksi_migrate import bench_stored as stored
from ksi_migrate.bench_columns import REFERENCE
from ksi_migrate.bench_place import settings_of
from ksi_migrate.bench_room import Room, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from ksi_daemon.area import Area
    from ksi_daemon.site import Durability
    from ksi_migrate.bench_stored import Identities


class Calls(Protocol):
    """What one caller awaits for one change; when it returns the change is in the file."""

    async def update(self, number: int) -> None:
        """The update of this number."""

    async def create(self, number: int) -> None:
        """Create the identity of this number."""


@dataclass(slots=True)
class Store:
    """An open column, which notes what the file must hold in the end."""

    where: str
    path: Path
    count: int
    wanted: Identities
    calls: Calls
    changed: set[str] = field(default_factory=set)

    async def update(self, number: int) -> None:
        """The update of this number, of one of the identities that were there in the beginning."""
        await self.calls.update(number)
        agent = stored.target(number, self.count)
        self.wanted[agent] = {**self.wanted[agent], **stored.change(number)}
        self.changed.add(agent)

    async def create(self, number: int) -> None:
        """Create the identity of this number."""
        await self.calls.create(number)
        self.wanted[stored.name_of(number)] = stored.identity(number)

    def prove(self) -> bytes:
        """The file's bytes, which are as they must be. Raises `Broken`."""
        return stored.prove(self.where, self.path, self.wanted, self.changed)


@asynccontextmanager
async def opened(
    area: Area, column: str, root: Path, count: int, where: str, durability: Durability = "os"
) -> AsyncIterator[Store]:
    """A column on a file that holds `count` identities to begin with."""
    settings = settings_of(root)
    path = settings.identity_storage_path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stored.content(count))
    if column == REFERENCE:
        kept = stored.identities(count)
        yield Store(where, path, count, kept, _Reference(path, count, kept))
        return
    async with served(area, column, settings, where, durability) as room:
        yield Store(where, path, count, stored.identities(count), _Asked(room, count))


@dataclass(frozen=True, slots=True)
class _Asked:
    """The room's own handlers, asked as a client asks them."""

    room: Room
    count: int

    async def update(self, number: int) -> None:
        data = {"agent_id": stored.target(number, self.count), "updates": stored.change(number)}
        await self.room.ask("agent:update_identity", data)

    async def create(self, number: int) -> None:
        data = {"agent_id": stored.name_of(number), "identity": stored.identity(number)}
        await self.room.ask("agent:create_identity", data)


@dataclass(frozen=True, slots=True)
class _Reference:
    """The original's calls: memory changed, then everything written."""

    path: Path
    count: int
    kept: Identities

    async def update(self, number: int) -> None:
        agent = stored.target(number, self.count)
        self.kept[agent] = {**self.kept[agent], **stored.change(number), "updated_at": stored.BORN}
        stored.save(self.path, self.kept)

    async def create(self, number: int) -> None:
        self.kept[stored.name_of(number)] = stored.identity(number)
        stored.save(self.path, self.kept)
